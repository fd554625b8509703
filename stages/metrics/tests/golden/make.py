"""Makes the golden files beside it from the reference values and the data they were made on.

    python make.py DATA REFERENCE

DATA holds chebi20/molt5_small_*.tsv.gz and scibert_uncased_vocab.txt, REFERENCE holds
metrics/molt5_small_rows.jsonl.gz. The scores of rows are copied; those of the sample as a whole
are computed by nltk 3.10.4, and the word pieces by tokenizers 0.23.1.
"""

import gzip
import json
import sys
import warnings

from nltk.translate.bleu_score import corpus_bleu
from tokenizers import BertWordPieceTokenizer

data, reference = sys.argv[1:]
warnings.simplefilter("ignore")


def table(direction):
    with gzip.open(f"{data}/chebi20/molt5_small_{direction}.tsv.gz", "rt") as file:
        return [line.rstrip("\n").split("\t") for line in file][1:]


captions, molecules = table("mol2cap"), table("cap2mol")
with gzip.open(f"{reference}/metrics/molt5_small_rows.jsonl.gz", "rt") as file:
    scores = [json.loads(line) for line in file]

# The first 45; those that are odd: a name behind a molecule, a broken one with a space, a
# degree sign, tautomers that InChI takes for one; and some long ones.
odd = [1037, 3144, 906, 2181, 2787]
odd += [at for at, row in enumerate(captions) if "\u2103" in row[1] + row[2]][:3]
longest = sorted(range(len(captions)), key=lambda at: -len(captions[at][2]))[:7]
chosen = sorted(set(range(45)) | set(odd) | set(longest))

tokenizer = BertWordPieceTokenizer(f"{data}/scibert_uncased_vocab.txt", lowercase=True)


def pieces(text):
    return tokenizer.encode(text, add_special_tokens=False).tokens


sample = []
for at in chosen:
    caption, molecule = captions[at], molecules[at]
    sample.append(
        {
            "row": at,
            "caption": {
                "output": caption[2],
                "reference": caption[1],
                "output_pieces": " ".join(pieces(caption[2])),
                "reference_pieces": " ".join(pieces(caption[1])),
                **scores[at]["caption"],
            },
            "molecule": {"output": molecule[2], "reference": molecule[1], **scores[at]["molecule"]},
        }
    )
with open("molt5_small.jsonl", "w") as file:
    for row in sample:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def bleu(pairs):
    references, outputs = [[reference] for reference, _ in pairs], [output for _, output in pairs]
    half = corpus_bleu(references, outputs, weights=(0.5, 0.5))
    return {"bleu2": half, "bleu4": corpus_bleu(references, outputs)}


rows = [row["caption"] for row in sample]
whole = {
    "pieces": bleu([(row["reference_pieces"].split(), row["output_pieces"].split()) for row in rows]),
    "words": bleu([(row["reference"].split(), row["output"].split()) for row in rows]),
    "characters": bleu([(list(row["molecule"]["reference"]), list(row["molecule"]["output"])) for row in sample]),
}
with open("molt5_small.json", "w") as file:
    json.dump(whole, file, indent=1)
    file.write("\n")

# Every piece that could be part of a word of the sample, so that a shorter one is never taken.
text = " ".join(row["output"] + " " + row["reference"] for row in rows)
text = tokenizer.normalizer.normalize_str(text)
with open(f"{data}/scibert_uncased_vocab.txt") as file:
    vocabulary = [line.rstrip("\n") for line in file]
words = {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
inside = "\n".join(sorted(words))
starts = "\n" + inside
kept = [
    piece
    for piece in vocabulary
    if piece.startswith("[") and piece.endswith("]") and "unused" not in piece
    or piece.startswith("##") and piece[2:] and piece[2:] in inside
    or piece and "\n" + piece in starts
]
with open("vocabulary.txt", "w") as file:
    file.write("\n".join(kept) + "\n")
