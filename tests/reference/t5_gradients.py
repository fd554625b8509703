"""Writes what transformers finds for the gradients of T5's loss.

    python tests/reference/t5_gradients.py stages/learn/tests/golden/t5_v10

For each folder: reads the model, `input_ids`, `attention_mask` and `labels` of
`expected.safetensors`, and writes `gradients.safetensors`: the gradient of the mean negative
log-likelihood of the labels, by parameter. Made with torch 2.15.0 (CPU) and transformers 5.23.0.
"""

import sys

from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration

KEPT = (
    "shared.weight",
    "lm_head.weight",
    "relative_attention_bias.weight",
    "block.1.layer.0.SelfAttention.q.weight",
    "block.0.layer.1.EncDecAttention.k.weight",
    "DenseReluDense.wi.weight",
    "DenseReluDense.wi_0.weight",
    "final_layer_norm.weight",
)

for folder in sys.argv[1:]:
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    rows = load_file(f"{folder}/expected.safetensors")
    loss = model(
        input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], labels=rows["labels"]
    ).loss
    loss.backward()
    found = {
        name: parameter.grad.contiguous()
        for name, parameter in model.named_parameters()
        if name.endswith(KEPT) and parameter.grad is not None
    }
    save_file(found, f"{folder}/gradients.safetensors")
    print(folder, float(loss), sorted(found))
