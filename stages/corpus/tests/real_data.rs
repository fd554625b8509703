//! The real files, read as they are, and captions for all of L+M-24.

use corpus::compose::Templates;
use corpus::formats::{Format, ReadOptions, Reason, Report, read};
use corpus::negatives::{MatchedBy, OnEmpty, Output, Outputs, Rejected};
use corpus::{Direction, Row};
use std::fs::File;
use std::path::Path;

#[path = "../../../tests/real_data.rs"]
mod real_data;

use real_data::path as data;

fn options(columns: &[(&str, &str)]) -> ReadOptions {
    let columns = columns.iter().map(|(field, column)| (field.to_string(), column.to_string()));
    ReadOptions {
        columns: columns.collect(),
        collapse_backslashes: ["molecule".to_owned()].into(),
        ..ReadOptions::default()
    }
}

fn each(path: &Path, options: &ReadOptions, mut take: impl FnMut(Row)) -> Report {
    let format = Format::from_path(&path.to_string_lossy()).expect("the name tells the format");
    let file = File::open(path).expect("the file can be opened");
    let mut rows = read(file, format, options).expect("the header can be read");
    for row in rows.by_ref() {
        take(row.expect("the row can be read"));
    }
    rows.into_report()
}

fn templates() -> Templates {
    let text = include_str!("../../../experiments/templates/lpm24.toml");
    Templates::parse(text).unwrap_or_else(|error| panic!("{error} at {:?}", error.span()))
}

#[test]
fn chebi_20_is_read_whole() {
    for (name, rows) in [("validation", 3_301), ("test", 3_300)] {
        let Some(path) = data(&format!("chebi20/{name}.tsv.gz")) else { return };
        let columns = [("id", "CID"), ("molecule", "SMILES"), ("caption", "description")];
        let mut doubled = 0;
        let report = each(&path, &options(&columns), |row| {
            let molecule = row.text("molecule").expect("the molecule is text");
            doubled += u64::from(molecule.contains("\\\\"));
            assert!(chem::is_valid(molecule), "{molecule}");
        });
        assert_eq!((report.rows, report.rows_skipped(), doubled), (rows, 0, 0));
        assert!(report.gzip && report.collapsed_cells["molecule"] > 0, "{report:?}");
    }
}

#[test]
fn outputs_of_a_model_are_read_as_they_are() {
    let Some(path) = data("chebi20/molt5_small_cap2mol.tsv.gz") else { return };
    let columns = [("input", "description"), ("reference", "ground truth"), ("molecule", "output")];
    let mut last = String::new();
    let report = each(&path, &options(&columns), |row| row.id().clone_into(&mut last));
    assert_eq!((report.rows, report.rows_skipped(), last.as_str()), (3_300, 0, "3300"));
}

#[test]
fn molt5s_outputs_find_every_row_of_chebi_20() {
    let Some(path) = data("chebi20/test.tsv.gz") else { return };
    let mut gold = Vec::new();
    each(&path, &options(&[("id", "CID"), ("molecule", "SMILES"), ("caption", "description")]), |row| {
        gold.push(row);
    });
    let counts = [
        (Direction::Mol2cap, ["SMILES", "ground truth"], [57, 0, 3_243]),
        // RDKit 2026.09.1 finds the same ten.
        (Direction::Cap2mol, ["ground truth", "description"], [256, 10, 3_034]),
    ];
    for (direction, [molecule, caption], expected) in counts {
        let Some(path) = data(&format!("chebi20/molt5_small_{direction}.tsv.gz")) else { return };
        let columns = [("molecule", molecule), ("caption", caption), ("output", "output")];
        let mut outputs = Outputs::new(direction, MatchedBy::Pair);
        each(&path, &options(&columns), |row| {
            let output = Output::of(&row, "output", direction, MatchedBy::Pair).expect("an output");
            outputs.add(output);
        });
        for row in &gold {
            let rejected = outputs.reject(row, OnEmpty::Skip).expect("the row has both texts");
            assert_ne!(rejected, Rejected::Missing, "{row:?}");
        }
        let report = outputs.report();
        assert_eq!((report.further_outputs, report.outputs_without_row, report.empty), (0, 0, 0));
        assert_eq!([report.same_text, report.same_molecule, report.taken], expected);
    }
}

#[test]
fn real_triples_of_lpm24_become_preferences_in_both_directions() {
    let Some(path) = data("lpm24/molt5_small_triples.tsv") else { return };
    let columns = [
        ("molecule", "smiles"),
        ("caption", "caption"),
        ("other", "molt5_caption"),
        ("made", "molt5_smiles"),
    ];
    let mut rows = Vec::new();
    each(&path, &options(&columns), |row| rows.push(row));
    for (direction, field, expected) in
        [(Direction::Mol2cap, "other", [199, 192, 7, 0]), (Direction::Cap2mol, "made", [199, 199, 0, 0])]
    {
        let mut outputs = Outputs::new(direction, MatchedBy::Id);
        for row in &rows {
            outputs.add(Output::of(row, field, direction, MatchedBy::Id).expect("an output"));
        }
        for row in &rows {
            outputs.reject(row, OnEmpty::Skip).expect("the row has both texts");
        }
        let report = outputs.report();
        let counts = [report.rows, report.taken, report.same_text, report.empty];
        assert_eq!(counts, expected, "{direction}");
    }
}

#[test]
fn a_molecule_that_is_there_twice_is_one_row_when_it_is_the_id() {
    let Some(path) = data("lpm24/molt5_small_triples.tsv") else { return };
    let report = each(&path, &options(&[("id", "smiles"), ("molecule", "smiles")]), drop);
    let twice = report.skipped.get(&Reason::DuplicateId).map_or(0, |skipped| skipped.count);
    assert_eq!(report.rows + twice, 199);
}

#[test]
fn every_row_of_lpm24_gets_a_caption_of_the_length_of_the_papers() {
    let Some(path) = data("lpm24/props.tsv.gz") else { return };
    let mut options = options(&[("molecule", "smiles"), ("properties", "properties")]);
    options.split.insert("properties".to_owned(), "|".to_owned());
    let mut rows = Vec::new();
    let report = each(&path, &options, |row| rows.push(row));
    assert_eq!((report.rows, report.rows_skipped()), (155_569, 0));

    let templates = templates();
    let (mut words, mut squares) = (0u64, 0u64);
    for row in &rows {
        let properties = row.list("properties").expect("properties are a list");
        let molecule = row.text("molecule").expect("a molecule is text");
        let caption = templates.compose(&properties, 42, molecule).expect("there is a caption");
        let lower = caption.to_lowercase();
        for property in properties {
            let said = property.to_lowercase().replace("_evaluation", " evaluation");
            assert!(lower.contains(&said), "{property} in {caption}");
        }
        let count = caption.split_whitespace().count() as u64;
        words += count;
        squares += count * count;
    }
    let total = rows.len() as f64;
    let mean = words as f64 / total;
    let deviation = (squares as f64 / total - mean * mean).sqrt();
    eprintln!("words of {} captions: mean {mean:.2}, standard deviation {deviation:.2}", rows.len());
    // The papers' mean is 31, over other rows of the same distribution.
    assert!((28.0..34.0).contains(&mean), "{mean}");
}

#[test]
fn a_caption_is_what_it_was() {
    // Golden values: other words for the same seed would change every model trained on them.
    let caption = |properties: &[&str]| templates().compose(properties, 42, "CCO");
    assert_eq!(
        caption(&["nutrient", "Aging"]).as_deref(),
        Ok("The molecule is a nutrient that impacts aging.")
    );
    let many = ["Aging", "Apoptosis", "kinase inhibitor", "cancer treatment", "anti viral", "sweet"];
    let expected = "The molecule is a kinase inhibitor and a apoptosis that is anti viral. \
                    The molecule is a cancer treatment that impacts aging. \
                    It is characterized as sweet.";
    assert_eq!(caption(&many).as_deref(), Ok(expected));
}
