"""Holds models that this program saved against transformers.

    pipeline run experiments/table4.toml --profile smoke --cache CACHE
    for FILE in config.json model.safetensors tokenizer.json tokenizer_config.json; do
        pipeline show experiments/table4.toml generator --profile smoke --cache CACHE \\
            --output model --file $FILE > FOLDER/$FILE
    done
    python tests/reference/load_in_transformers.py FOLDER...

Each folder is one of a saved model. It is opened in transformers, which must take every tensor and
miss none; with `expected.safetensors` in it, as in stages/learn/tests/golden, the logits must agree
as well. InternLM2 is not part of transformers: its `wqkv` is unpacked into LLaMA's projections, as
its public code does it.

Needs torch, transformers and safetensors; the project needs none of them.
"""

import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, T5ForConditionalGeneration


def unpacked(folder):
    """Writes an InternLM2 as a LLaMA, and returns its folder."""
    config = json.loads((folder / "config.json").read_text())
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["hidden_size"] // heads
    group = heads // keys
    names = {
        "tok_embeddings": "embed_tokens", "attention.wo": "self_attn.o_proj", "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm", "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj",
    }  # fmt: skip
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "wqkv" in name:
            packed = tensor.reshape(keys, group + 2, width, *tensor.shape[1:])
            parts = {"q": packed[:, :group], "k": packed[:, group], "v": packed[:, group + 1]}
            for part, rows in parts.items():
                rows = rows.reshape(-1, *tensor.shape[1:]).contiguous()
                tensors[name.replace("attention.wqkv", f"self_attn.{part}_proj")] = rows
            continue
        if name == "output.weight":
            name = "lm_head.weight"
        for old, new in names.items():
            name = name.replace(old, new)
        tensors[name] = tensor
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": config["bias"]}
    made = pathlib.Path(tempfile.mkdtemp())
    (made / "config.json").write_text(json.dumps(config))
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    return made


def largest_difference(model, rows):
    """How far logits are from those that are written down."""
    with torch.no_grad():
        if "decoder_input_ids" in rows:
            found = model(
                input_ids=rows["input_ids"],
                attention_mask=rows.get("attention_mask"),
                decoder_input_ids=rows["decoder_input_ids"],
            ).logits
            return (found - rows["logits"]).abs().max().item()
        mask = rows.get("attention_mask")
        found = model(input_ids=rows["input_ids"], attention_mask=mask).logits
        off = (found - rows["logits"]).abs()
        return (off if mask is None else off[mask.bool()]).max().item()


failed = False
for folder in map(pathlib.Path, sys.argv[1:]):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    cls = T5ForConditionalGeneration if kind == "t5" else AutoModelForCausalLM
    model, told = cls.from_pretrained(
        unpacked(folder) if kind == "internlm2" else folder, output_loading_info=True, dtype=torch.float32
    )
    model.eval()
    wrong = {what: names for what, names in told.items() if names}
    said = [f"{sum(parameter.numel() for parameter in model.parameters())} parameters"]
    if (folder / "expected.safetensors").exists():
        off = largest_difference(model, load_file(folder / "expected.safetensors"))
        said.append(f"logits off by {off:.1e}")
        wrong |= {"logits": off} if off > 3e-5 else {}
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("CC(=O)O", return_tensors="pt")
        out = model.generate(**{key: ids[key] for key in ("input_ids", "attention_mask")}, max_new_tokens=8, do_sample=False)
        said.append(f"continues with {tokenizer.decode(out[0], skip_special_tokens=True)!r}")
    failed |= bool(wrong)
    print(f"{folder}: {kind}, {', '.join(said)}{f'; WRONG: {wrong}' if wrong else ''}")
sys.exit(failed)
