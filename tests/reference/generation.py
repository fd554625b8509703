"""Writes what transformers generates with settings that the shared references do not have.

    python tests/reference/generation.py stages/learn/tests/golden/{llama,t5_v10,t5_v11,t5_other}

For each folder: continues the prompts of `expected.json` (or ones drawn here) and writes
`generation.json` in the layout of `expected.json`. `t5_other` is made here first: a T5 in which no
two sizes are alike. Made with torch 2.15.0 (CPU) and transformers 5.23.0.
"""

# Without a cache: that of transformers 5.23.0 has as many layers as the encoder, not the decoder.
import itertools
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, T5Config, T5ForConditionalGeneration


def make_other(folder):
    torch.manual_seed(20252)
    config = T5Config(
        vocab_size=97, d_model=24, d_kv=10, d_ff=40, num_layers=1, num_decoder_layers=3, num_heads=3,
        relative_attention_num_buckets=12, relative_attention_max_distance=20,
        feed_forward_proj="gated-silu", layer_norm_epsilon=1e-5, initializer_factor=1.0,
        pad_token_id=3, eos_token_id=4, decoder_start_token_id=5,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    os.remove(f"{folder}/generation_config.json")
    prompts = [torch.randint(6, 97, (count,)).tolist() for count in (23, 9, 14)]
    inputs = torch.tensor(prompts[0:1])
    outputs = torch.randint(6, 97, (1, 30))
    with torch.no_grad():
        found = model(input_ids=inputs, decoder_input_ids=outputs)
    save_file(
        {
            "input_ids": inputs,
            "decoder_input_ids": outputs,
            "encoder_last_hidden_state": found.encoder_last_hidden_state.contiguous(),
            "logits": found.logits.contiguous(),
        },
        f"{folder}/expected.safetensors",
    )
    with open(f"{folder}/expected.json", "w") as file:
        json.dump({"prompts": prompts}, file)


def settings(ends):
    yield [], dict(num_beams=1)
    for end, stop, penalty in itertools.product(ends, [False, True, "never"], [-0.5, 0.0, 1.0, 2.0]):
        yield end, dict(num_beams=4, early_stopping=stop, length_penalty=penalty, num_return_sequences=3)
    yield ends[0], dict(num_beams=2, early_stopping=False, length_penalty=1.0, num_return_sequences=2)


def often(model, ids, most):
    """The tokens that outputs are mostly made of, so that some of them end."""
    found = model.generate(
        ids, num_beams=4, num_return_sequences=4, max_new_tokens=most, eos_token_id=None, pad_token_id=0,
        do_sample=False, use_cache=False,
    )  # fmt: skip
    new = found[:, -most:].flatten().tolist()
    counted = sorted(set(new), key=lambda id: (-new.count(id), id))
    return [[counted[1]], [counted[2], counted[3]]]


for folder in sys.argv[1:]:
    if folder.rstrip("/").endswith("t5_other"):
        os.makedirs(folder, exist_ok=True)
        make_other(folder)
    kind = AutoConfig.from_pretrained(folder).model_type
    cls = T5ForConditionalGeneration if kind == "t5" else AutoModelForCausalLM
    model = cls.from_pretrained(folder, attn_implementation="eager").eval()
    with open(f"{folder}/expected.json") as file:
        prompts = json.load(file)["prompts"]
    most, cases = 14, []
    for end, params in settings(often(model, torch.tensor(prompts[0:1]), most)):
        rows = []
        for prompt in prompts:
            found = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=most,
                eos_token_id=end or None, pad_token_id=0, do_sample=False, return_dict_in_generate=True,
                output_scores=True, use_cache=False, **params,
            )  # fmt: skip
            skip = 1 if kind == "t5" else len(prompt)
            row = {"new_tokens": [sequence[skip:].tolist() for sequence in found.sequences]}
            if params["num_beams"] > 1:
                row["sequences_scores"] = found.sequences_scores.tolist()
            rows.append(row)
        mode = "beam" if params["num_beams"] > 1 else "greedy"
        cases.append({"mode": mode, "ends": end, "params": params, "max_new_tokens": most, "per_prompt": rows})
    with open(f"{folder}/generation.json", "w") as file:
        json.dump({"prompts": prompts, "generation": cases}, file, separators=(",", ":"))
    print(folder, len(cases))
