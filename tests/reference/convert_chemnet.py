"""Converts ChemNet's weights from the package `fcd` into the file that `evaluate` reads for `fcd`.

    pip install fcd torch safetensors
    python convert_chemnet.py chemnet.safetensors [ChemNet_v0.13_pretrained.pt]

Without a second argument the weights are those of the installed package, version 1.2 or newer.
They are licensed under LGPL-3.0, and so is the file that is written.
"""

import importlib.util
import pathlib
import sys

import torch
from safetensors.torch import save_file

LAYERS = {"Conv1d": ["1", "4"], "LSTM": ["8", "11"]}


def main(target, source=None):
    if source is None:
        # Found, not imported: the package wants more than its weights.
        package = importlib.util.find_spec("fcd")
        if package is None:
            sys.exit("the package `fcd` is not installed; name its file ChemNet_v0.13_pretrained.pt")
        source = pathlib.Path(package.origin).parent / "ChemNet_v0.13_pretrained.pt"
    tensors, numbers = {}, {kind: iter(names) for kind, names in LAYERS.items()}
    for kind, (state, *_) in torch.load(source, map_location="cpu", weights_only=False):
        number = next(numbers[kind])
        tensors.update({f"{number}.{name}": value.float().contiguous() for name, value in state.items()})
    save_file(tensors, target)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
