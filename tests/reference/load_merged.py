"""A merged model loads in transformers: run by hand, on any stage that makes a model.

    python tests/reference/load_merged.py PIPELINE FILE STAGE [ARGUMENTS...]

PIPELINE is the binary; `pipeline run FILE` has made STAGE before; ARGUMENTS are those of that run,
such as `--profile smoke` or `--cache FOLDER`. Written with transformers 5.23.0 and torch 2.15.0;
nothing of the project needs it.

The folder is written out as the cache has it. Then transformers must find a place for every
tensor and a tensor for every place, hold the numbers of the file bit for bit, give finite logits,
and the tokenizer must give back what it was given.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

pipeline, experiment, stage, *arguments = sys.argv[1:]


def show(*more):
    command = [pipeline, "show", experiment, stage, "--output", "model", *more, *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


with tempfile.TemporaryDirectory() as folder:
    # The lines below the output name its files, each with its size.
    files = [line.split()[0] for line in show("--rows", "0").decode().splitlines() if line.startswith("  ")]
    files = [name for name in files if Path(name).suffix in (".json", ".safetensors", ".txt", ".model")]
    for name in files:
        Path(folder, name).write_bytes(show("--file", name))
    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    problems = {key: sorted(map(str, names)) for key, names in told.items() if names}
    assert not problems, problems

    loaded = model.state_dict()
    compared = 0
    for name in files:
        if name.endswith(".safetensors"):
            with safe_open(Path(folder, name), "pt") as tensors:
                for key in tensors.keys():
                    assert torch.equal(tensors.get_tensor(key), loaded[key]), key
                    compared += 1
    tied = json.loads(Path(folder, "config.json").read_text()).get("tie_word_embeddings", False)
    missing = set(loaded) - {"lm_head.weight"} if tied else set(loaded)
    assert compared >= len(missing), f"{compared} of {len(missing)} tensors"

    text = "CC(=O)Oc1ccccc1C(=O)O"
    told = f"{type(model).__name__}: {compared} tensors bit for bit"
    ids = torch.arange(1, 9)[None]
    if "tokenizer.json" in files:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(text, return_tensors="pt").input_ids
        back = tokenizer.decode(ids[0], skip_special_tokens=True)
        assert back.strip() == text, back
        told += f", {ids.shape[1]} tokens for {text}"
    with torch.no_grad():
        logits = model(ids).logits
    assert torch.isfinite(logits).all()
    print(f"{told}, finite logits {tuple(logits.shape)}")
