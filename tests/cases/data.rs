//! Stage kinds on the data that there is: dirty, broken, and real.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::lab::{Lab, Told, data, project};

/// Returns a workspace with one source, `rows`, and more of its table.
fn source(file: &str, content: impl AsRef<[u8]>, more: &str) -> Lab {
    let lab = Lab::with(&format!("[stages.rows]\nkind = \"source\"\npath = \"{file}\"\n{more}\n"));
    lab.write(file, content);
    lab
}

/// Returns the rows that a stage made.
#[track_caller]
fn rows(lab: &Lab, stage: &str) -> Vec<Value> {
    let told = lab.run(["show", "x.toml", stage, "--output", "rows", "--file", "rows.jsonl"]).expect(0);
    told.events()
}

/// Returns what a stage reports of its work.
#[track_caller]
fn report(lab: &Lab, stage: &str) -> Value {
    let told = lab.run(["show", "x.toml", stage, "--output", "report", "--file", "report.json"]).expect(0);
    serde_json::from_str(&told.stdout).unwrap()
}

/// Runs, and expects the stage to fail with these pieces.
#[track_caller]
fn fails(lab: &Lab, stage: &str, pieces: &[&str]) -> Told {
    lab.run(["run", "x.toml"]).expect(3).says(&[&format!("FAILED    {stage} of x.toml")]).says(pieces)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn ragged_rows_are_counted_told_and_too_many_an_error() {
    let mut text = "id\ta\tb\n".to_owned();
    for row in 0..200 {
        text.push_str(&format!("{row}\tx\ty\n"));
    }
    text.push_str("200\tonly\n");
    let lab = source("rows.tsv", &text, "");
    let told = lab.run(["run", "x.toml"]).expect(0);
    let told = told
        .says(&["note: 1 rows skipped: wrong number of cells 1 (first on line 202: 2 cells instead of 3)"]);
    assert_eq!(told.ran(), ["rows"]);
    let found = report(&lab, "rows");
    assert_eq!((&found["rows"], &found["skipped"]["ragged"]["count"]), (&json!(200), &json!(1)));
    // The note belongs to the result, not to the run that made it.
    lab.run(["show", "x.toml", "rows"]).expect(0).shows(&["1 rows skipped"]);

    lab.write("rows.tsv", format!("{text}{}", "more\n".repeat(3)));
    fails(&lab, "rows", &["4 of 204 rows of ", "rows.tsv cannot be read", "raise `max_bad_rows`"]);
    lab.edit("x.toml", "kind = \"source\"", "kind = \"source\"\nmax_bad_rows = 0.02");
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "max_bad_rows = 0.02", "on_bad_row = \"fail\"");
    fails(&lab, "rows", &["line 202: wrong number of cells"]);
}

#[test]
fn doubled_backslashes_are_collapsed_where_asked_and_counted() {
    let lab = source(
        "rows.tsv",
        "id\tmolecule\n1\tC/C=C\\\\C\n2\tC/C=C\\C\n",
        "collapse_backslashes = [\"molecule\"]",
    );
    lab.run(["run", "x.toml"]).expect(0).says(&["1 rows had doubled backslashes in `molecule`"]);
    assert_eq!(
        rows(&lab, "rows").iter().map(|row| &row["molecule"]).collect::<Vec<_>>(),
        ["C/C=C\\C", "C/C=C\\C"]
    );
}

#[test]
fn quotes_mean_nothing_in_tsv_and_all_in_csv() {
    let lab = source("rows.tsv", "id\ttext\n1\t\"half quoted\n2\ta \"b\" c\n", "");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(rows(&lab, "rows")[0]["text"], "\"half quoted");
    assert_eq!(rows(&lab, "rows")[1]["text"], "a \"b\" c");

    let lab = source("rows.csv", "id,text\n1,\"two\nlines, and \"\"quotes\"\"\"\n2,plain\n", "");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(rows(&lab, "rows")[0]["text"], "two\nlines, and \"quotes\"");
    assert_eq!((rows(&lab, "rows").len(), &report(&lab, "rows")["multi_line_rows"]), (2, &1.into()));

    fails(&source("rows.csv", "id,text\n1,\"never closed\n2,x\n", ""), "rows", &["line 2", "never closed"]);
}

#[test]
fn a_file_without_rows_is_an_error() {
    fails(&source("rows.tsv", "", ""), "rows", &["the file is empty"]);
    fails(&source("rows.tsv", "id\ta\n", ""), "rows", &["a header and no rows"]);
    fails(&source("rows.jsonl", "\n\n", ""), "rows", &["the file is empty"]);
    fails(
        &source("rows.csv", "id,a\n1\n2\n", "max_bad_rows = 1.0"),
        "rows",
        &["none of the 2 rows can be used"],
    );
}

#[test]
fn a_missing_column_is_told_with_the_nearest() {
    let lab = source("rows.tsv", "CID\tSMILES\n1\tC\n", "columns = { molecule = \"SMILE\" }");
    fails(&lab, "rows", &["no column `SMILE` for `molecule` (nearest: `SMILES`)", "`CID`"]);
    let lab = source("rows.tsv", "CID\tproperties\n1\tC\n", "split = { propertys = \"|\" }");
    fails(&lab, "rows", &["`propertys`", "nearest: `properties`"]);
}

#[test]
fn a_repeated_id_is_skipped_and_counted() {
    let lab = source("rows.tsv", "id\ta\n1\tx\n1\ty\n2\tz\n", "max_bad_rows = 0.5");
    lab.run(["run", "x.toml"])
        .expect(0)
        .says(&["1 rows skipped: duplicate id 1 (first on line 3: line 2 has the same id)"]);
    assert_eq!(rows(&lab, "rows"), [json!({"id": "1", "a": "x"}), json!({"id": "2", "a": "z"})]);
}

#[test]
fn bytes_that_are_not_text_are_an_error_with_their_line() {
    fails(&source("rows.tsv", b"id\ta\n1\tx\n2\t\xff\xfe\n", ""), "rows", &["line 3 is not UTF-8", "iconv"]);
}

#[test]
fn gzip_is_recognised_and_its_damage_told() {
    let text: String = (0..5000).map(|row| format!("{row}\t{}\n", row * 7919 % 5003)).collect();
    let whole = gzip(format!("id\tn\n{text}").as_bytes());
    let lab = source("rows.tsv.gz", &whole, "");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(rows(&lab, "rows").len(), 5000);
    let lab = source("rows.tsv.gz", &whole[..whole.len() / 2], "");
    fails(&lab, "rows", &["the gzip data ends in the middle", "fetch the file again"]);
    let mut damaged = whole.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    fails(&source("rows.tsv.gz", &damaged, ""), "rows", &["gzip data is corrupt"]);
}

#[test]
fn broken_lines_of_json_are_counted() {
    let text =
        "{\"id\": \"1\", \"a\": [1, 2]}\n{\"id\": \"2\",\n[3]\n{\"id\": {}}\n\n{\"id\": 5, \"a\": []}\n";
    let lab = source("rows.jsonl", text, "max_bad_rows = 0.7");
    let told = lab.run(["run", "x.toml"]).expect(0);
    let _ = told.says(&[
        "3 rows skipped",
        "invalid json 1 (first on line 2",
        "not a json object 1",
        "id is not text 1",
    ]);
    assert_eq!(rows(&lab, "rows"), [json!({"id": "1", "a": [1, 2]}), json!({"id": "5", "a": []})]);
}

#[test]
fn a_missing_file_points_at_the_experiment_and_says_what_it_is() {
    let lab = Lab::with(
        "[stages.rows]\nkind = \"source\"\npath = \"data/rows.tsv\"\nabout = \"the rows of somebody's thesis; ask her\"\n",
    );
    let told = lab.run(["run", "x.toml"]).expect(2);
    let _ = told.says(&[
        "data/rows.tsv",
        "x.toml:3",
        "the rows of somebody's thesis; ask her",
        "nothing was run",
    ]);
    lab.write("x.toml", "[stages.rows]\nkind = \"source\"\npath = \"${data}/rows.tsv\"\n");
    lab.run(["run", "x.toml"]).expect(2).says(&["--data"]);
    lab.write("elsewhere/rows.tsv", "id\n1\n");
    lab.run(["run", "x.toml", "--data", "elsewhere"]).expect(0);
}

/// Returns a safetensors file with one tensor of four numbers.
fn safetensors() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend([1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|number| number.to_le_bytes()));
    file
}

#[test]
fn a_model_folder_comes_in_whole_or_not_at_all() {
    let lab = Lab::with("[stages.model]\nkind = \"source\"\npath = \"model\"\nformat = \"model\"\n");
    lab.write("model/model.safetensors", safetensors());
    fails(&lab, "model", &["config.json"]);
    lab.write("model/config.json", "{\"model_type\": \"tiny\"}");
    lab.write("model/.git/config", "not of the model");
    lab.run(["run", "x.toml"]).expect(0);
    let told = lab.run(["show", "x.toml", "model"]).expect(0);
    let told = told.shows(&["tiny, 1 tensors, 4 parameters", "model.safetensors", "w  F32  [2, 2]"]);
    assert!(!told.stdout.contains(".git"), "{}", told.stdout);

    lab.write("model/model.safetensors", &safetensors()[..60]);
    fails(&lab, "model", &["model.safetensors", "truncated"]);
    lab.write("model/model.safetensors", &safetensors()[..safetensors().len() - 4]);
    fails(&lab, "model", &["model.safetensors"]);
    lab.write("model/config.json", "{");
    fails(&lab, "model", &["config.json", "not valid json"]);
}

/// Molecules, some of which are the same written otherwise.
const MOLECULES: &str = "molecule\tproperties\n\
    c1ccccc1\tsweet|toxic\nC1=CC=CC=C1\tsweet\nCCO\ttoxic\nOCC\tsweet\nCCN\tsweet\nCCC\t\nC1CC\tsweet\nN\ttoxic\n";

fn molecules(below: &str) -> Lab {
    let lab = source("rows.tsv", MOLECULES, "split = { properties = \"|\" }");
    let text = lab.read("x.toml");
    lab.write("x.toml", format!("{text}{below}"));
    fs::copy(project().join("experiments/templates/lpm24.toml"), lab.path("t.toml")).unwrap();
    lab
}

#[test]
fn captions_need_a_list_and_say_who_has_none() {
    let compose =
        "[stages.captions]\nkind = \"compose\"\ninputs = { rows = \"rows\" }\ntemplates = \"t.toml\"\n";
    let lab = molecules(compose);
    lab.run(["run", "x.toml"]).expect(0).says(&["1 rows skipped: no properties to make a caption of"]);
    assert_eq!(rows(&lab, "captions").len(), 7);
    assert!(rows(&lab, "captions")[0]["caption"].as_str().is_some_and(|text| text.contains("sweet")));
    // Captions of a row do not depend on the other rows.
    let before = rows(&lab, "captions");
    lab.write("rows.tsv", MOLECULES.lines().take(4).map(|line| format!("{line}\n")).collect::<String>());
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(rows(&lab, "captions"), before[..3]);

    lab.edit("x.toml", "split = { properties = \"|\" }", "");
    fails(&lab, "captions", &["row `1` has no list `properties`", "`molecule`", "split = { properties"]);
    lab.edit("x.toml", "templates = \"t.toml\"", "templates = \"t.toml\"\nproperties = \"traits\"");
    fails(&lab, "captions", &["no list `traits`"]);
    lab.write("t.toml", "format = 1\nsentences = [\n  \"The {nothing:like} this.\",\n]\n");
    fails(&lab, "captions", &["t.toml"]);
}

#[test]
fn a_sample_is_disjoint_on_what_a_molecule_is() {
    let lab = molecules(
        r#"
[stages.train]
kind = "subset"
inputs = { rows = "rows" }
take.count = 3
identity.molecule = "molecule"
distinct = true

[stages.test]
kind = "subset"
inputs = { rows = "rows", exclude = "train" }
take.fraction = 1.0
identity.molecule = "molecule"
distinct = true
"#,
    );
    // Benzene and ethanol are there twice; one molecule cannot be read.
    let told = lab.run(["run", "x.toml"]).expect(0);
    let told =
        told.says(&["2 rows repeat an earlier one", "1 molecules cannot be read, and are compared as text"]);
    assert_eq!(told.ran(), ["rows", "test", "train"]);
    let class = |row: &Value| match row["molecule"].as_str().unwrap() {
        "C1=CC=CC=C1" => "c1ccccc1".to_owned(),
        "OCC" => "CCO".to_owned(),
        other => other.to_owned(),
    };
    let mut all: Vec<String> = rows(&lab, "train").iter().chain(&rows(&lab, "test")).map(class).collect();
    all.sort();
    assert_eq!(all, ["C1CC", "CCC", "CCN", "CCO", "N", "c1ccccc1"]);

    lab.edit("x.toml", "take.count = 3", "take.count = 7");
    fails(&lab, "train", &["7 rows are asked for and 6 can be taken: of 8", "2 repeat an earlier one"]);
    lab.edit("x.toml", "take.count = 7", "take.count = 6");
    fails(&lab, "test", &["no row is left to take", "of 8, 8 are in the rows to be disjoint from"]);
    lab.edit("x.toml", "identity.molecule = \"molecule\"", "identity.molecule = \"smiles\"");
    fails(&lab, "train", &["has no text `smiles`", "molecule"]);
}

#[test]
fn a_smaller_sample_lies_inside_a_larger_one() {
    let text: String = (0..100).map(|row| format!("{row}\t{}\n", ["a", "b"][row % 2])).collect();
    let lab = source("rows.tsv", format!("id\tsort\n{text}"), "");
    let subset = |name: &str, take: &str| {
        format!("[stages.{name}]\nkind = \"subset\"\ninputs = {{ rows = \"rows\" }}\n{take}\n")
    };
    let stages = [
        subset("small", "take.count = 10"),
        subset("large", "take.fraction = 0.5"),
        subset("fair", "take.count = 10\nstratify = \"sort\""),
        subset("other", "take.count = 10\nseed = 5"),
    ];
    let head = lab.read("x.toml");
    lab.write("x.toml", head + &stages.concat());
    lab.run(["run", "x.toml"]).expect(0);
    let (small, large) = (rows(&lab, "small"), rows(&lab, "large"));
    assert_eq!((small.len(), large.len()), (10, 50));
    assert!(small.iter().all(|row| large.contains(row)));
    assert_ne!(small, rows(&lab, "other"));
    assert_eq!(rows(&lab, "fair").iter().filter(|row| row["sort"] == "a").count(), 5);
}

/// Three classes of molecules, one of them large, and a caption that is long.
const CLASSES: &str = "id\tmolecule\tclass\tcaption\n\
    1\tC\talkane\tshort\n2\tCC\talkane\tshort\n3\tCCC\talkane\tshort\n4\tCO\talcohol\tshort\n\
    5\tCCO\talcohol\tshort\n6\tCN\tamine\tshort\n7\tCCCC\talkane\tmuch longer\n";

#[test]
fn groups_stay_on_one_side_and_long_rows_on_none() {
    let lab = source("rows.tsv", CLASSES, "");
    let subset = |name: &str, inputs: &str, rest: &str| {
        format!(
            "[stages.{name}]\nkind = \"subset\"\ninputs = {{ {inputs} }}\ngroup.field = \"class\"\n{rest}\n"
        )
    };
    let stages = subset("test", "rows = \"rows\"", "take.count = 2\nmax_chars.caption = 8")
        + &subset("train", "rows = \"rows\", exclude = \"test\"", "take.fraction = 1.0");
    let head = lab.read("x.toml");
    lab.write("x.toml", head.clone() + &stages);
    for seed in ["1", "2", "3", "4"] {
        let seed = format!("experiment.seed={seed}");
        let told = lab.run(["run", "x.toml", "--set", &seed]).expect(0);
        told.says(&["note: 1 rows left out: their `caption` is longer than 8 characters"]);
        let classes = |stage: &str| -> Vec<String> {
            let show = ["show", "x.toml", stage, "--output", "rows", "--file", "rows.jsonl", "--set", &seed];
            let rows = lab.run(show).expect(0).events();
            rows.iter().map(|row| row["class"].as_str().unwrap().to_owned()).collect()
        };
        let (test, train) = (classes("test"), classes("train"));
        assert_eq!(test.len(), 2);
        assert!(test.iter().all(|class| !train.contains(class)), "{test:?} {train:?}");
    }
    lab.edit("x.toml", "group.field = \"class\"\ntake.count", "group.field = \"kind\"\ntake.count");
    fails(&lab, "test", &["row `1` has no text `kind`", "`class`"]);
}

#[test]
fn several_tables_are_one_if_their_ids_differ() {
    let lab = source("rows.tsv", "id\ta\n1\tx\n2\ty\n", "");
    let head = lab.read("x.toml");
    lab.write("more.tsv", "id\ta\n4\tz\n3\tw\n");
    let more = "[stages.more]\nkind = \"source\"\npath = \"more.tsv\"\n\
                [stages.both]\nkind = \"subset\"\ninputs = { rows = [\"more\", \"rows\"] }\n\
                take.first = 3\n";
    lab.write("x.toml", head + more);
    lab.run(["run", "x.toml"]).expect(0);
    let ids: Vec<String> =
        rows(&lab, "both").iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["4", "3", "1"]);
    lab.edit("x.toml", "take.first = 3", "take.first = 5");
    fails(&lab, "both", &["5 rows are asked for and 4 can be taken"]);
    lab.write("more.tsv", "id\ta\n2\tz\n");
    fails(&lab, "both", &["the id `2` occurs twice in the rows taken together", "let each `source` take"]);
}

#[test]
fn a_field_to_measure_must_be_there() {
    let lab = molecules(
        "[stages.words]\nkind = \"evaluate\"\ninputs = { rows = \"rows\" }\nmetrics = [\"words\"]\n",
    );
    fails(&lab, "words", &["row `1` has no text `caption`", "`molecule`", "name another `field`"]);
    lab.edit("x.toml", "metrics = [\"words\"]", "metrics = [\"words\"]\nfield = \"molecule\"");
    lab.run(["run", "x.toml"]).expect(0);
    let metrics: Value = serde_json::from_str(&lab.made("words", "metrics.json")).unwrap();
    assert_eq!((&metrics["words_mean"], &metrics["words_rows"]), (&json!(1.0), &json!(8.0)));
}

/// The project's own experiment, on the profile that ships its data.
#[test]
fn figure_9_runs_on_the_embedded_data() {
    let lab = Lab::new();
    let figure = project().join("experiments/fig9.toml");
    let figure = figure.to_str().unwrap();
    let told = lab.run(["run", figure, "--profile", "smoke", "--format", "csv"]).expect(0);
    assert_eq!(told.ran().len(), 10);
    let number = |label: &str| {
        let line = told.stdout.lines().find(|line| line.starts_with(label)).unwrap();
        line.rsplit_once(',').unwrap().0.splitn(2, ',').last().unwrap().to_owned()
    };
    // Another program's count agrees, but for the published numbers beside ours.
    let (ours, awk) = (
        number("all captions,"),
        number("\"all captions, counted by awk\"").replace(" counted by awk\",", ""),
    );
    let fields =
        |text: &str| -> Vec<f64> { text.split(',').filter_map(|field| field.parse().ok()).collect() };
    let (ours, awk) = (fields(&ours), fields(&awk));
    assert_eq!(ours.len(), 5, "{}", told.stdout);
    for (position, ours) in [ours[0], ours[2], ours[4]].into_iter().enumerate() {
        assert!((ours - awk[position]).abs() < 1e-6, "{}", told.stdout);
    }
    assert!(lab.run(["run", figure, "--profile", "smoke"]).expect(0).ran().is_empty());
}

#[test]
fn chebi_20_is_read_as_it_is() {
    let Some(data) = data() else {
        return;
    };
    let lab = Lab::with(
        r#"
[stages.rows]
kind = "source"
path = "${data}/chebi20/test.tsv.gz"
columns = { id = "CID", molecule = "SMILES", caption = "description" }
collapse_backslashes = ["molecule"]

[stages.words]
kind = "evaluate"
inputs = { rows = "rows" }
metrics = ["words"]
"#,
    );
    let told = lab.run(["run", "x.toml", "--data", data.to_str().unwrap()]).expect(0);
    assert_eq!(told.ran(), ["rows", "words"]);
    let show = |stage: &str, file: &str| -> Value {
        let told =
            lab.run(["show", "x.toml", stage, "--data", data.to_str().unwrap(), "--file", file]).expect(0);
        serde_json::from_str(&told.stdout).unwrap()
    };
    let report = show("rows", "report.json");
    assert_eq!(
        (&report["rows"], &report["skipped"], &report["gzip"]),
        (&json!(3300), &json!({}), &json!(true))
    );
    let mut text = String::new();
    GzDecoder::new(fs::File::open(data.join("chebi20/test.tsv.gz")).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let doubled =
        text.lines().skip(1).filter(|line| line.split('\t').nth(1).unwrap().contains("\\\\")).count();
    assert!(doubled > 0);
    assert_eq!(report["collapsed_cells"]["molecule"], doubled);
    assert_eq!(show("words", "metrics.json")["words_rows"], 3300.0);
}

#[test]
fn property_lists_of_lpm_24_become_captions_and_disjoint_samples() {
    let Some(data) = data() else {
        return;
    };
    let lab = Lab::new();
    let file = fs::File::open(data.join("lpm24/props.tsv.gz")).unwrap();
    let lines = BufReader::new(GzDecoder::new(file)).lines().take(1201).map(Result::unwrap);
    let text: String = lines.map(|line| line + "\n").collect();
    lab.write("data/lpm24/props.tsv.gz", gzip(text.as_bytes()));
    let figure = project().join("experiments/fig9.toml");
    let run = |arguments: &[&str]| {
        let fixed = ["--profile", "lpm24", "--data", "data", "--set", "stages.test.take.count=200"];
        let fixed = [&fixed[..], &["--set", "stages.validation.take.count=100"]].concat();
        lab.run([&[arguments[0], figure.to_str().unwrap()], &arguments[1..], &fixed].concat())
    };
    let told = run(&["run"]).expect(0);
    assert_eq!(told.ran().len(), 10, "{}", told.stderr);
    let read =
        |stage: &str| run(&["show", stage, "--output", "rows", "--file", "rows.jsonl"]).expect(0).events();
    let (captions, train, test) = (read("captions"), read("train"), read("test"));
    assert_eq!((captions.len(), test.len()), (1200, 200));
    assert!(train.len() >= 80 && train.len() <= 90, "{}", train.len());
    for row in &test {
        assert!(!train.iter().any(|other| other["molecule"] == row["molecule"]), "{row}");
    }
    // Every property of a row is in its caption, in small letters.
    let lower = |value: &Value| value.as_str().unwrap().to_lowercase();
    let told_all = captions.iter().filter(|row| {
        let caption = lower(&row["caption"]);
        row["properties"].as_array().unwrap().iter().all(|property| caption.contains(&lower(property)))
    });
    let share = told_all.count() as f64 / captions.len() as f64;
    assert!(share > 0.9, "only {share} of the captions tell all properties");
}
