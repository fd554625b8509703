"""RDKit's MACCS keys of all real molecules, as checksums: `stages/chem/tests/golden/maccs.txt`.

    python tests/reference/maccs_keys.py DATA > stages/chem/tests/golden/maccs.txt

DATA is the folder with `chebi20/` and `lpm24/`. Written with RDKit 2026.09.1; nothing of the
project needs it.

Of every line there are four hexadecimal digits, or `....` where it is no molecule: the FNV-1a hash
of the numbers of the keys that are set, counted from 0, one byte each, its two halves combined by
exclusive or. Lines are, in this order: molecules of ChEBI-20's test and validation sets,
MolT5-small's molecules for the test set, molecules and MolT5-small's molecules of the triples of
L+M-24, and every twentieth molecule of L+M-24's property lists.
"""

import gzip
import sys

from rdkit import Chem, RDLogger
from rdkit.Chem import MACCSkeys

RDLogger.DisableLog("rdApp.*")
data = sys.argv[1]


def column(name, at):
    opened = gzip.open if name.endswith(".gz") else open
    with opened(f"{data}/{name}", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [row[at].replace("\\\\", "\\") for row in rows]


def checksum(line):
    molecule = Chem.MolFromSmiles(line) if line else None
    if molecule is None:
        return "...."
    found = 0x811C9DC5
    # RDKit counts keys from 1.
    for key in MACCSkeys.GenMACCSKeys(molecule).GetOnBits():
        found = (found ^ (key - 1)) * 0x01000193 & 0xFFFFFFFF
    return f"{found >> 16 ^ found & 0xFFFF:04x}"


lines = [
    *column("chebi20/test.tsv.gz", 1),
    *column("chebi20/validation.tsv.gz", 1),
    *column("chebi20/molt5_small_cap2mol.tsv.gz", 2),
    *column("lpm24/molt5_small_triples.tsv", 0),
    *column("lpm24/molt5_small_triples.tsv", 3),
    *column("lpm24/props.tsv.gz", 0)[::20],
]
for line in lines:
    print(checksum(line))
