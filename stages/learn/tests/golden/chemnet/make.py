"""Makes `chemnet.safetensors`, a small random ChemNet, and `expected.json`, its activations.

Made with torch 2.15.0: `python make.py` in this folder. The layers are those of `fcd` 1.2.2
(`load_imported_model`), the encoding is that of `fcd` 1.1 (`get_one_hot`), both written out.
"""

import json

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

TOKENS = ["C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si", "#", "(", ")", "+", "-"]
TOKENS += ["1", "2", "3", "4", "5", "6", "7", "8", "=", "[", "]", "@", "c", "n", "o", "s", "X", "."]
CHANNELS, BACKWARD, FORWARD = 3, 5, 7


def encode(smiles, length=350):
    smiles, found, i, j = smiles + ".", np.zeros((length, len(TOKENS)), np.float32), 0, 0
    while True:
        width = 2 if smiles[i + 1] in "ril" else 1
        token = smiles[i : i + width]
        i += width
        found[j, TOKENS.index(token if token in TOKENS else "X")] = 1
        j += 1
        if smiles[i] == "." or j >= length - 1:
            found[j, TOKENS.index(".")] = 1
            return found / len(TOKENS)


def same(x):
    pad = 2 if x.shape[2] % 2 == 0 else 3
    return nn.functional.pad(x, (pad // 2, pad - pad // 2))


torch.manual_seed(7)
first = nn.Conv1d(len(TOKENS), CHANNELS, 4, 2, bias=False)
second = nn.Conv1d(CHANNELS, CHANNELS, 4, 2, bias=False)
backward = nn.LSTM(CHANNELS, BACKWARD, batch_first=True)
forward = nn.LSTM(BACKWARD, FORWARD, batch_first=True)
# Large enough that every place counts, and gates that keep what came early: what follows a
# molecule is hundreds of places of nothing.
with torch.no_grad():
    first.weight.mul_(40)
    second.weight.mul_(3)
    for lstm, size in ((backward, BACKWARD), (forward, FORWARD)):
        lstm.weight_ih_l0.mul_(4)
        lstm.weight_hh_l0.mul_(0.3)
        lstm.bias_ih_l0.mul_(0.05)
        lstm.bias_hh_l0.mul_(0.05)
        lstm.bias_ih_l0[size : 2 * size] += 6

smiles = [
    "C",
    "CCO",
    "c1ccccc1Cl",
    "CC(=O)[O-].[Na+]",
    "[Al+3]",
    "C[C@@H](N)C(=O)O",
    "O=C(O)c1cc(=O)c2cccc([O-])c2[nH]1",
    "C" * 349,
    "N" * 400,
]
with torch.no_grad():
    x = torch.tensor(np.stack([encode(one) for one in smiles])).transpose(1, 2)
    x = torch.selu(second(same(torch.selu(first(same(x)))))).transpose(1, 2)
    x = forward(backward(x.flip(1))[0].flip(1))[0][:, -1]

layers = {"1": first, "4": second, "8": backward, "11": forward}
tensors = {f"{layer}.{name}": value for layer, of in layers.items() for name, value in of.state_dict().items()}
save_file(tensors, "chemnet.safetensors")
json.dump([[one, row] for one, row in zip(smiles, x.tolist())], open("expected.json", "w"), indent=1)
