//! Agreement with the published evaluation scripts on MolT5-small's 3,300 outputs in each direction.
//!
//! Their values were made with nltk 3.10.4, rouge_score 0.1.2, sacrebleu 2.6.0, RDKit 2026.09.1
//! and SciBERT's uncased WordPiece, on ChEBI-20's test set.

mod files;

use chem::{FingerprintKind, Molecule};
use files::{path, text};
use metrics::meteor::{WordNet, meteor};
use metrics::similarity::{EmptyFingerprints, similarity};
use metrics::summary::sum;
use metrics::wordpiece::WordPiece;
use metrics::{bleu, character, chrf, exact, length, levenshtein, rouge, words};
use serde_json::Value;

/// What values may differ by: the last bits of another order of adding.
const CLOSE: f64 = 1e-9;

/// Up to which length, in characters, CharacTER is quickly found.
const SHORT: usize = 250;

const ROWS: usize = 3_300;

/// Output and reference.
type Pair = (String, String);

struct Reference {
    aggregate: Value,
    rows: Vec<Value>,
}

fn reference() -> Option<Reference> {
    let rows = text("../reference/metrics/molt5_small_rows.jsonl.gz")?;
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).expect("a row")).collect();
    let aggregate = serde_json::from_str(&text("../reference/metrics/molt5_small.json")?).expect("JSON");
    Some(Reference { aggregate, rows })
}

fn pairs(direction: &str) -> Option<Vec<Pair>> {
    let table = text(&format!("chebi20/molt5_small_{direction}.tsv.gz"))?;
    let pairs: Vec<Pair> = table
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            (cells[2].to_owned(), cells[1].to_owned())
        })
        .collect();
    assert_eq!(pairs.len(), ROWS);
    Some(pairs)
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    sum(values.iter().copied()) / values.len() as f64
}

#[track_caller]
fn same(name: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("`{name}` is {expected}"));
    assert!((found - expected).abs() < CLOSE, "`{name}`: {found} here, {expected} there");
}

#[test]
fn rouge_is_rouge_scores() {
    let (Some(pairs), Some(reference)) = (pairs("mol2cap"), reference()) else { return };
    let scores: Vec<_> =
        pairs.iter().map(|(output, reference)| rouge::Rouge::of(output, reference)).collect();
    for (score, row) in scores.iter().zip(&reference.rows) {
        same("rouge1", score.rouge1, &row["caption"]["rouge1"]);
        same("rouge2", score.rouge2, &row["caption"]["rouge2"]);
        same("rougeL", score.rouge_l, &row["caption"]["rougeL"]);
    }
    let all = &reference.aggregate["caption"];
    same("rouge1", mean(scores.iter().map(|score| score.rouge1)), &all["rouge1"]);
    same("rouge2", mean(scores.iter().map(|score| score.rouge2)), &all["rouge2"]);
    same("rougeL", mean(scores.iter().map(|score| score.rouge_l)), &all["rougeL"]);
}

#[test]
fn bleu_of_captions_is_nltks() {
    let (Some(pairs), Some(reference)) = (pairs("mol2cap"), reference()) else { return };
    let Some(vocabulary) = text("scibert_uncased_vocab.txt") else { return };
    let pieces = WordPiece::parse(&vocabulary).expect("a vocabulary");
    let (mut by_piece, mut by_word) = (bleu::Counts::default(), bleu::Counts::default());
    for ((output, reference), row) in pairs.iter().zip(&reference.rows) {
        let counts = bleu::Counts::of(&pieces.split(output), &pieces.split(reference));
        assert_eq!(row["caption"]["tokens_out"], counts.output_tokens, "{output}");
        assert_eq!(row["caption"]["tokens_ref"], counts.reference_tokens, "{reference}");
        by_piece += counts;
        let split = |text| words::split(text).collect::<Vec<_>>();
        by_word += bleu::Counts::of(&split(output), &split(reference));
    }
    for (name, counts) in [("caption", by_piece), ("caption_whitespace_tokens", by_word)] {
        same("bleu2", counts.bleu(2), &reference.aggregate[name]["bleu2"]);
        same("bleu4", counts.bleu(4), &reference.aggregate[name]["bleu4"]);
    }
}

#[test]
fn meteor_is_nltks() {
    let (Some(pairs), Some(reference)) = (pairs("mol2cap"), reference()) else { return };
    let Some(vocabulary) = text("scibert_uncased_vocab.txt") else { return };
    let Some(archive) = path("wordnet-3.0.tar.xz") else { return };
    let pieces = WordPiece::parse(&vocabulary).expect("a vocabulary");
    let wordnet = WordNet::open(&archive).expect("WordNet");
    let (mut by_piece, mut by_word, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for ((output, reference), row) in pairs.iter().zip(&reference.rows) {
        let split = [output, reference].map(|text| pieces.split(text));
        let score = meteor(&split[0], &split[1], Some(&wordnet));
        same("meteor", score, &row["caption"]["meteor"]);
        by_piece.push(score);
        without.push(meteor(&split[0], &split[1], None));
        let split = [output, reference].map(|text| words::split(text).collect::<Vec<_>>());
        by_word.push(meteor(&split[0], &split[1], Some(&wordnet)));
    }
    let (all, without) = (mean(by_piece), mean(without));
    same("meteor", all, &reference.aggregate["caption"]["meteor"]);
    same("meteor", mean(by_word), &reference.aggregate["caption_whitespace_tokens"]["meteor"]);
    assert!((0.0005..0.0015).contains(&(all - without)), "{without} without WordNet");
}

#[test]
fn scores_of_smiles_as_texts() {
    let (Some(pairs), Some(reference)) = (pairs("cap2mol"), reference()) else { return };
    let mut counts = bleu::Counts::default();
    let mut columns: [Vec<f64>; 5] = Default::default();
    for ((output, reference), row) in pairs.iter().zip(&reference.rows) {
        let row = &row["molecule"];
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        counts += bleu::Counts::of(&characters(output), &characters(reference));
        let found = [
            levenshtein::distance(output, reference) as f64,
            chrf::chrf(output, reference, 2.0),
            chrf::chrf(output, reference, 1.0),
            length::deviation_characters(output, reference) as f64,
            f64::from(u8::from(exact::string(output, reference))),
        ];
        for (name, found) in
            ["levenshtein", "chrf3_beta2", "chrf3_beta1", "length_deviation"].iter().zip(found)
        {
            same(name, found, &row[name]);
        }
        columns.iter_mut().zip(found).for_each(|(column, found)| column.push(found));
    }
    let all = &reference.aggregate["molecule"];
    same("bleu", counts.bleu(4), &all["bleu_chars"]);
    let names =
        ["levenshtein", "chrf3_beta2_mean", "chrf3_beta1_mean", "length_deviation_mean", "exact_string"];
    for (name, column) in names.iter().zip(columns) {
        same(name, mean(column), &all[name]);
    }
}

#[test]
fn molecules_are_compared_as_rdkit_compares_them() {
    let (Some(pairs), Some(reference)) = (pairs("cap2mol"), reference()) else { return };
    let kinds = [
        (FingerprintKind::Maccs, "maccs", "maccs_fts"),
        (FingerprintKind::Rdk, "rdk", "rdk_fts"),
        (FingerprintKind::Morgan, "morgan", "morgan_fts"),
    ];
    let (mut valid, mut same_molecule, mut same_inchi) = (0, 0, 0);
    let mut columns: [Vec<f64>; 3] = Default::default();
    for ((output, reference), row) in pairs.iter().zip(&reference.rows) {
        let row = &row["molecule"];
        let reference = Molecule::of_line(reference).expect("every reference is a molecule");
        let output = Molecule::of_line(output).ok();
        assert_eq!(row["valid"], output.is_some(), "{pairs:?}");
        let Some(output) = output else { continue };
        valid += 1;
        same_molecule += usize::from(exact::molecule(&output, &reference));
        // Found by InChI alone, without the short cut of equal SMILES.
        let is_same = output.inchi().expect("an InChI") == reference.inchi().expect("an InChI");
        assert_eq!(row["inchi_eq"], is_same, "{output:?} {reference:?}");
        assert_eq!(exact::inchi(&output, &reference), Ok(is_same));
        same_inchi += usize::from(is_same);
        for ((kind, name, _), column) in kinds.iter().zip(&mut columns) {
            let found = similarity(&output, &reference, *kind, EmptyFingerprints::Zero).expect("a number");
            same(name, found, &row[*name]);
            column.push(found);
        }
    }
    let all = &reference.aggregate["molecule"];
    same("validity", valid as f64 / ROWS as f64, &all["validity"]);
    same("exact_inchi", same_inchi as f64 / ROWS as f64, &all["exact_inchi"]);
    for ((_, _, name), column) in kinds.iter().zip(columns) {
        let total = sum(column.iter().copied());
        same(name, total / column.len() as f64, &all[format!("{name}_valid_only")]);
        same(name, total / ROWS as f64, &all[format!("{name}_invalid_zero")]);
    }
    // Three pairs of tautomers are one to InChI, and two to canonical SMILES.
    assert_eq!((same_molecule, same_inchi), (266, 269));
}

#[test]
fn character_is_cers() {
    let (Some(pairs), Some(reference)) = (pairs("cap2mol"), reference()) else { return };
    let mut compared = 0;
    for ((output, reference), row) in pairs.iter().zip(&reference.rows) {
        let expected = &row["molecule"]["character"];
        // Long ones take seconds each.
        if expected.is_null() || output.len().max(reference.len()) >= SHORT {
            continue;
        }
        compared += 1;
        let rate = character::of_characters(output, reference).expect("not too long");
        same("character", rate, expected);
    }
    assert!(compared > 285, "{compared}");
}
