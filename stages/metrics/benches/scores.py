"""The same scores by the libraries that the published scripts use; `scores.rs` runs this.

Writes what was measured and its seconds, the best of three runs, one per line.
"""

import gzip
import sys
import tarfile
import tempfile
import time
import warnings

import Levenshtein
import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.meteor_score import meteor_score
from rdkit import Chem, DataStructs, RDLogger
from rdkit.Chem import AllChem, MACCSkeys
from rouge_score import rouge_scorer
from sacrebleu.metrics import CHRF
from tokenizers import BertWordPieceTokenizer

warnings.simplefilter("ignore")
RDLogger.DisableLog("rdApp.*")
data = sys.argv[1]


def pairs(direction):
    with gzip.open(f"{data}/chebi20/molt5_small_{direction}.tsv.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [(row[2], row[1]) for row in rows]


def measure(name, work):
    best = min(timed(work) for _ in range(3))
    print(f"{name}\t{best:.4f}", flush=True)


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Reader(WordNetCorpusReader):
    """Reads these files as they are, without a map to other versions."""

    def map_wn(self, version="wordnet"):
        return None


captions, molecules = pairs("mol2cap"), pairs("cap2mol")
tokenizer = BertWordPieceTokenizer(f"{data}/scibert_uncased_vocab.txt", lowercase=True)


def split(text):
    return tokenizer.encode(text, add_special_tokens=False).tokens


measure("tokenise", lambda: [(split(output), split(reference)) for output, reference in captions])
tokens = [(split(output), split(reference)) for output, reference in captions]
references, outputs = [[reference] for _, reference in tokens], [output for output, _ in tokens]


def bleu():
    corpus_bleu(references, outputs, weights=(0.5, 0.5))
    corpus_bleu(references, outputs)


measure("bleu2 and bleu4", bleu)
scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
measure("rouge1, rouge2, rougeL", lambda: [scorer.score(output, reference) for output, reference in captions])

with tempfile.TemporaryDirectory() as folder:
    with tarfile.open(f"{data}/wordnet-3.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    nltk.data.path.append(folder)
    wordnet = Reader(f"{folder}/wordnet", omw_reader=None)
    wordnet.synsets("molecule")
    measure(
        "meteor",
        lambda: [meteor_score([reference], output, wordnet=wordnet) for output, reference in tokens],
    )


def parse():
    return [(Chem.MolFromSmiles(output), Chem.MolFromSmiles(reference)) for output, reference in molecules]


measure("parse, validity", parse)
valid = [(output, reference) for output, reference in parse() if output is not None and reference is not None]


def likeness(fingerprint):
    return lambda: [
        DataStructs.TanimotoSimilarity(fingerprint(output), fingerprint(reference)) for output, reference in valid
    ]


measure("maccs_fts", likeness(MACCSkeys.GenMACCSKeys))
measure("rdk_fts", likeness(Chem.RDKFingerprint))
measure("exact_inchi", lambda: [Chem.MolToInchi(output) == Chem.MolToInchi(reference) for output, reference in valid])
measure("morgan_fts", likeness(lambda molecule: AllChem.GetMorganFingerprint(molecule, 2)))

measure(
    "bleu of characters",
    lambda: corpus_bleu([[list(reference)] for _, reference in molecules], [list(output) for output, _ in molecules]),
)
measure("levenshtein", lambda: [Levenshtein.distance(output, reference) for output, reference in molecules])
chrf = CHRF(char_order=3, word_order=0, beta=1)
measure("chrf", lambda: [chrf.sentence_score(output, [reference]).score for output, reference in molecules])
