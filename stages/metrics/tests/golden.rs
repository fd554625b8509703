//! Agreement with the published evaluation scripts on the sample in `golden/`.

use chem::{FingerprintKind, Molecule};
use metrics::similarity::{EmptyFingerprints, similarity};
use metrics::wordpiece::WordPiece;
use metrics::{bleu, character, chrf, exact, length, levenshtein, rouge, words};
use serde_json::Value;

const CLOSE: f64 = 1e-9;

/// Up to which length, in characters, CharacTER is quickly found.
const SHORT: usize = 250;

fn rows() -> Vec<Value> {
    let lines = include_str!("golden/molt5_small.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("`{name}` is {}", row[name]))
}

#[track_caller]
fn same(name: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("`{name}` is {expected}"));
    assert!((found - expected).abs() < CLOSE, "`{name}`: {found} here, {expected} there");
}

#[test]
fn captions() {
    let pieces = WordPiece::parse(include_str!("golden/vocabulary.txt")).expect("a vocabulary");
    let whole: Value = serde_json::from_str(include_str!("golden/molt5_small.json")).expect("JSON");
    let (mut by_piece, mut by_word) = (bleu::Counts::default(), bleu::Counts::default());
    for row in rows() {
        let row = &row["caption"];
        let (output, reference) = (text(row, "output"), text(row, "reference"));
        let rouge = rouge::Rouge::of(output, reference);
        same("rouge1", rouge.rouge1, &row["rouge1"]);
        same("rouge2", rouge.rouge2, &row["rouge2"]);
        same("rougeL", rouge.rouge_l, &row["rougeL"]);
        assert_eq!(pieces.split(output).join(" "), text(row, "output_pieces"));
        assert_eq!(pieces.split(reference).join(" "), text(row, "reference_pieces"));
        by_piece += bleu::Counts::of(&pieces.split(output), &pieces.split(reference));
        let split = |text| words::split(text).collect::<Vec<_>>();
        by_word += bleu::Counts::of(&split(output), &split(reference));
    }
    for (name, counts) in [("pieces", by_piece), ("words", by_word)] {
        same("bleu2", counts.bleu(2), &whole[name]["bleu2"]);
        same("bleu4", counts.bleu(4), &whole[name]["bleu4"]);
    }
}

#[test]
fn molecules() {
    let whole: Value = serde_json::from_str(include_str!("golden/molt5_small.json")).expect("JSON");
    let mut counts = bleu::Counts::default();
    for row in rows() {
        let row = &row["molecule"];
        let (output, reference) = (text(row, "output"), text(row, "reference"));
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        counts += bleu::Counts::of(&characters(output), &characters(reference));
        same("levenshtein", levenshtein::distance(output, reference) as f64, &row["levenshtein"]);
        same("chrf3_beta1", chrf::chrf(output, reference, 1.0), &row["chrf3_beta1"]);
        same("chrf3_beta2", chrf::chrf(output, reference, 2.0), &row["chrf3_beta2"]);
        same("length", length::deviation_characters(output, reference) as f64, &row["length_deviation"]);
        // Long ones take seconds each.
        if !row["character"].is_null() && output.len().max(reference.len()) < SHORT {
            let rate = character::of_characters(output, reference).expect("not too long");
            same("character", rate, &row["character"]);
        }
        let found = Molecule::of_line(output).ok();
        assert_eq!(row["valid"], found.is_some(), "{output}");
        let Some(found) = found else { continue };
        let reference = Molecule::of_line(reference).expect("a molecule");
        assert!(row["inchi_eq"] == true || !exact::molecule(&found, &reference), "{output}");
        let kinds = [FingerprintKind::Maccs, FingerprintKind::Rdk, FingerprintKind::Morgan];
        for (kind, name) in kinds.into_iter().zip(["maccs", "rdk", "morgan"]) {
            let number = similarity(&found, &reference, kind, EmptyFingerprints::Zero).expect("a number");
            same(name, number, &row[name]);
        }
    }
    same("bleu2", counts.bleu(2), &whole["characters"]["bleu2"]);
    same("bleu4", counts.bleu(4), &whole["characters"]["bleu4"]);
}
