//! From a model's outputs to preferences: what is matched, what is left out, and what is said.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab::{Lab, Told, data, project};

const ROWS: &str = "id\tmolecule\tcaption\n\
    a\tCCO\tan alcohol\nb\tOCC\ta solvent\nc\tCCN\tan amine\nd\tCCC\ta gas\n";

/// Another order, another way to write ethanol, a further output, and one of nobody.
const OUTPUTS: &str = "molecule\tcaption\toutput\n\
    C(C)O\ta solvent\ta dye\nCCN\tan amine\t an amine\nCCO\tan alcohol\ta wax\n\
    OCC\tan alcohol\ta salt\nC\ta gas\ta metal\n";

const STAGES: &str = r#"
[stages.rows]
kind = "source"
path = "rows.tsv"

[stages.outputs]
kind = "source"
path = "outputs.tsv"

[stages.preferences]
kind = "negatives"
inputs = { rows = "rows", mol2cap = "outputs" }
"#;

fn lab(outputs: &str) -> Lab {
    let lab = Lab::with(STAGES);
    lab.write("rows.tsv", ROWS);
    lab.write("outputs.tsv", outputs);
    lab
}

#[track_caller]
fn fails(lab: &Lab, pieces: &[&str]) -> Told {
    lab.run(["run", "x.toml"]).expect(3).says(&["FAILED    preferences of x.toml"]).says(pieces)
}

/// Returns what was made, as chosen and rejected by id.
fn preferences(lab: &Lab) -> Vec<(String, String, String)> {
    let told = ["show", "x.toml", "preferences", "--output", "preferences", "--file", "rows.jsonl"];
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let rows = lab.run(told).expect(0).events();
    rows.iter().map(|row| (text(row, "id"), text(row, "chosen"), text(row, "rejected"))).collect()
}

fn triple(id: &str, chosen: &str, rejected: &str) -> (String, String, String) {
    (id.to_owned(), chosen.to_owned(), rejected.to_owned())
}

#[test]
fn outputs_find_their_rows_and_what_is_left_out_is_said() {
    let lab = lab(OUTPUTS);
    lab.run(["run", "x.toml"]).expect(0).says(&[
        "mol2cap: 1 rows left out: no output",
        "mol2cap: 1 rows left out: the output is the target",
        "mol2cap: 1 outputs left out: not the first of their row",
    ]);
    let expected = [triple("a/mol2cap", "an alcohol", "a wax"), triple("b/mol2cap", "a solvent", "a dye")];
    assert_eq!(preferences(&lab), expected);
    // By the molecule alone, both rows of ethanol have the first output.
    lab.edit("x.toml", "mol2cap = \"outputs\" }", "mol2cap = \"outputs\" }\nmatched_by = \"input\"");
    lab.run(["run", "x.toml"]).expect(0);
    let expected = [triple("a/mol2cap", "an alcohol", "a dye"), triple("b/mol2cap", "a solvent", "a dye")];
    assert_eq!(preferences(&lab), expected);
}

#[test]
fn empty_preferences_are_an_error_that_says_why() {
    let lab = lab("molecule\tcaption\toutput\nCCO\tan alcohol\t \nCCN\tan amine\tan amine\n");
    fails(
        &lab,
        &[
            "no row has an output to reject; mol2cap: of 4 rows 2 have no output, 1 have the target's text",
            "1 nothing; 0 of 2 outputs have no row",
            "`matched_by`",
        ],
    );
    lab.edit("x.toml", "mol2cap = \"outputs\" }", "mol2cap = \"outputs\" }\non_empty = \"keep\"");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(preferences(&lab), [triple("a/mol2cap", "an alcohol", "")]);
    lab.edit("x.toml", ", mol2cap = \"outputs\"", "");
    fails(&lab, &["there are no outputs to reject", "give `predictions`"]);
}

#[test]
fn outputs_without_what_they_are_matched_by_are_an_error() {
    let lab = lab("molecule\tcaption\tanswer\nCCO\tan alcohol\ta wax\n");
    fails(&lab, &["row `1` has no text `output`", "`answer`", "name the `field` of the output"]);
    lab.edit("x.toml", "mol2cap = \"outputs\" }", "mol2cap = \"outputs\" }\nfield = \"answer\"");
    lab.run(["run", "x.toml"]).expect(0);
    // The numbers of other rows are no ids of these.
    lab.write("outputs.tsv", "id\tmolecule\tanswer\nb\tCCN\ta wax\n");
    lab.edit("x.toml", "field = \"answer\"", "field = \"answer\"\nmatched_by = \"id\"");
    fails(&lab, &["row `b`", "made of another molecule, `CCN`, than that of the row, `OCC`"]);
}

#[test]
fn predictions_of_both_directions_are_rejected_by_id() {
    let lab = lab(OUTPUTS);
    let line = |id: &str, direction: &str, input: &str, prediction: &str| {
        format!(
            "{{\"id\":\"{id}\",\"direction\":\"{direction}\",\"input\":\"{input}\",\
             \"reference\":\"\",\"prediction\":\"{prediction}\"}}\n"
        )
    };
    let captions = [line("a", "mol2cap", "CCO", "a wax"), line("z", "mol2cap", "C", "a gas")].concat();
    let molecules = [line("a", "cap2mol", "an alcohol", "C(O)C"), line("d", "cap2mol", "a gas", "CC")];
    lab.write("captions.jsonl", captions);
    lab.write("molecules.jsonl", molecules.concat());
    let generated = |name: &str| {
        format!(
            "\n[stages.{name}]\nkind = \"command\"\nfiles = [\"{name}.jsonl\"]\n\
             run = \"cp files/*.jsonl outputs/out/rows.jsonl\"\noutputs.out.type = \"predictions\"\n"
        )
    };
    let text = lab.read("x.toml") + &generated("captions") + &generated("molecules");
    lab.write("x.toml", text);
    lab.edit("x.toml", "mol2cap = \"outputs\"", "predictions = [\"molecules\", \"captions\"]");
    let told = lab.run(["run", "x.toml"]).expect(0);
    told.says(&["cap2mol: 1 rows left out: the output is the target", "cap2mol: 2 rows left out: no output"]);
    let expected = [triple("a/mol2cap", "an alcohol", "a wax"), triple("d/cap2mol", "CCC", "CC")];
    assert_eq!(preferences(&lab), expected);
    lab.edit("x.toml", "[\"molecules\", \"captions\"]", "\"captions\", mol2cap = \"outputs\"");
    fails(&lab, &["outputs for mol2cap come as `predictions` and as `mol2cap`"]);
    lab.edit("x.toml", ", mol2cap = \"outputs\"", "");
    lab.write("captions.jsonl", "{\"id\":\"a\"}\n");
    fails(&lab, &["rows.jsonl: line 1 is not a prediction: missing field `direction`"]);
}

#[test]
fn molt5s_answers_to_chebi_20_become_preferences() {
    let Some(data) = data() else {
        return;
    };
    let (file, data) = (project().join("experiments/chebi20.toml"), data.display().to_string());
    let lab = Lab::new();
    let run = |arguments: &[&str]| {
        lab.run([&[arguments[0], file.to_str().unwrap()], &arguments[1..], &["--data", &data]].concat())
    };
    for stage in ["preferences", "train", "test"] {
        run(&["run", "--until", stage]).expect(0);
    }
    let read = |stage: &str, output: &str, file: &str| {
        run(&["show", stage, "--output", output, "--file", file]).expect(0)
    };
    let report: Value = serde_json::from_str(&read("preferences", "report", "report.json").stdout).unwrap();
    // Every row has its outputs, in both directions.
    for (direction, taken, same) in [("mol2cap", 1530, 22), ("cap2mol", 1410, 142)] {
        let count = |field: &str| report[direction][field].as_u64().unwrap();
        assert_eq!((count("rows"), count("rows_without_output"), count("taken")), (1552, 0, taken));
        assert_eq!(count("same_text") + count("same_molecule"), same, "{report}");
    }
    let ids = |stage: &str| -> BTreeSet<String> {
        let rows = read(stage, "rows", "rows.jsonl").events();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let (train, test, validation) = (ids("train"), ids("test"), ids("validation"));
    assert_eq!((train.len(), test.len(), validation.len()), (3696, 1000, 200));
    assert!(train.is_disjoint(&test) && train.is_disjoint(&validation) && test.is_disjoint(&validation));
    let rejected = read("preferences", "preferences", "rows.jsonl").events();
    let of = |row: &Value| row["id"].as_str().unwrap().split('/').next().unwrap().to_owned();
    assert!(rejected.iter().all(|row| train.contains(&of(row)) && row["chosen"] != row["rejected"]));
}
