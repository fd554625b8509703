"""Makes small random DeBERTa classifiers with settings that DeBERTa-v3 does not have, and what
transformers computes on them.

Made with torch 2.15.0 and transformers 5.23.0: `python make.py` in this folder.
"""

import json
import pathlib

import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

COMMON = dict(vocab_size=64, hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=40)
MODELS = {
    # Everything at once: places and kinds of tokens are embedded, in another width; positions have
    # projections of their own, no buckets and no norm.
    "own_projections": dict(
        embedding_size=16,
        max_position_embeddings=40,
        type_vocab_size=2,
        position_biased_input=True,
        relative_attention=True,
        max_relative_positions=10,
        pos_att_type="p2c|c2p",
        hidden_act="gelu_new",
        pooler_hidden_act="tanh",
        layer_norm_eps=1e-5,
    ),
    "content_to_position": dict(
        max_position_embeddings=48,
        position_biased_input=False,
        relative_attention=True,
        position_buckets=6,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        pos_att_type=["c2p"],
        hidden_act="silu",
        pooler_hidden_act="relu",
        num_labels=2,
    ),
    "position_to_content": dict(
        max_position_embeddings=48,
        position_biased_input=False,
        relative_attention=True,
        position_buckets=12,
        max_relative_positions=20,
        share_att_key=False,
        norm_rel_ebd="none",
        pos_att_type=["p2c"],
        hidden_act="quick_gelu",
        num_labels=4,
    ),
    "absolute": dict(
        max_position_embeddings=48,
        position_biased_input=True,
        relative_attention=False,
        pos_att_type=["c2p", "p2c"],
        norm_rel_ebd="layer_norm",
        num_labels=3,
    ),
}
LENGTHS = [40, 1, 2, 9]

for number, (name, settings) in enumerate(MODELS.items()):
    torch.manual_seed(100 + number)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**COMMON, **settings)).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            scale = 1 + 0.2 * torch.randn_like(parameter) if path.endswith("LayerNorm.weight") else None
            parameter.copy_(scale if scale is not None else 0.3 * torch.randn_like(parameter))
    model.save_pretrained(name)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(0, COMMON["vocab_size"], (1, length))
        types = (torch.arange(length)[None] * 2 >= length).long()
        with torch.no_grad():
            if settings.get("type_vocab_size", 0) == 0:
                types = torch.zeros_like(types)
            hidden = model.deberta(ids, token_type_ids=types).last_hidden_state
            pooled = model.pooler(hidden)
            logits = model(ids, token_type_ids=types).logits
        rows.append(
            dict(ids=ids[0].tolist(), types=types[0].tolist(), pooled=pooled[0].tolist(), logits=logits[0].tolist())
            | dict(hidden=hidden[0].flatten().tolist())
        )
    json.dump(rows, open(pathlib.Path(name) / "expected.json", "w"))

# The bucket of each distance, query less key, from 0 on.
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position  # noqa: E402

buckets = []
for count, most in [(256, 512), (8, 64), (12, 20), (6, 48), (32, 512), (2, 30), (64, 1024), (7, 100)]:
    distances = torch.arange(most)
    found = make_log_bucket_position(distances, count, most).long().tolist()
    assert make_log_bucket_position(-distances, count, most).long().tolist() == [-one for one in found]
    buckets.append(dict(position_buckets=count, max_relative_positions=most, buckets=found))
json.dump(buckets, open("buckets.json", "w"))
