//! Tables: rows and columns by name, several in one file, and numbers that cannot be compared.

use serde_json::Value;

use crate::experiment::{Experiment, experiment};
use crate::lab::{Lab, Told};

/// Returns an experiment with two stages that make `n`, of which the second makes `m` as well.
fn numbers() -> Experiment {
    let write = |numbers: &str| format!("echo '{numbers}' > outputs/scores/metrics.json");
    experiment().scores("one", ["n"], &write(r#"{"n": 1}"#)).scores(
        "other",
        ["n", "m"],
        &write(r#"{"n": 3, "m": 5}"#),
    )
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let told = lab.run(["table", "x.toml", "--format", "json"].iter().chain(arguments)).expect(0);
    serde_json::from_str(&told.stdout).expect("JSON")
}

fn labels(table: &Value, of: &str) -> Vec<String> {
    let list = table[of].as_array().expect("a list");
    list.iter().map(|item| item["label"].as_str().expect("a label").to_owned()).collect()
}

fn run(experiment: &Experiment) -> (Lab, Told) {
    let lab = experiment.lab();
    let told = lab.run(["run", "x.toml"]).expect(0);
    (lab, told)
}

#[test]
fn a_row_without_a_column_has_an_empty_cell_with_its_reason() {
    let (lab, told) = run(&numbers().table(["n", "m"]).row("a", "one").row("b", "other"));
    let _ = told.shows(&["–", "stage `one` has no such column"]);
    let csv = lab.run(["table", "x.toml", "--format", "csv"]).expect(0).stdout;
    assert!(csv.contains("a,1.0,,,,m: stage `one` has no such column\n"), "{csv}");
    let table = json(&lab, &[]);
    assert!(table["rows"][0]["cells"][1]["value"]["absent"]["reason"].is_string(), "{table}");
}

#[test]
fn a_table_that_says_nothing_shows_what_the_stages_make() {
    let (lab, _) = run(&numbers().lines("[table]"));
    let table = json(&lab, &[]);
    assert_eq!(
        (labels(&table, "rows"), labels(&table, "columns")),
        (vec!["one".to_owned(), "other".to_owned()], vec!["n".to_owned(), "m".to_owned()])
    );
}

#[test]
fn an_included_table_is_changed_a_line_at_a_time() {
    let below = numbers().table(["n"]).row("a", "one").row("b", "other").lines("[table.deltas.\"b - a\"]");
    let lab = Lab::with("");
    lab.write("below.toml", below.to_string());
    let lines = "[experiment]\ninclude = [\"below.toml\"]\n[table]\nremove = [\"rows.a\"]\n\
                 columns.m = { label = \"M\", digits = 2 }\nrows.c = { from = [\"one\", \"other\"] }\n";
    lab.write("x.toml", lines);
    let text = lab.run(["run", "x.toml"]).expect(0).stdout;
    assert!(text.contains('M') && text.contains("5.00"), "{text}");
    let table = json(&lab, &[]);
    assert_eq!(
        (labels(&table, "rows"), labels(&table, "deltas")),
        (vec!["b".to_owned(), "c".to_owned()], Vec::<String>::new())
    );
    // A column comes from the first stage that makes it.
    let cells = &table["rows"][1]["cells"];
    assert_eq!((&cells[0]["value"]["number"], &cells[1]["value"]["number"]), (&1.0.into(), &5.0.into()));
}

#[test]
fn a_further_axis_makes_more_rows_and_deltas() {
    let experiment = experiment()
        .scores("score", ["n"], "echo '{\"n\": '$PARAM_by'}' > outputs/scores/metrics.json")
        .set("parameters.by", 1)
        .axis("by", "parameters.by", vec![1, 2])
        .scores("base", ["n"], "echo '{\"n\": 1}' > outputs/scores/metrics.json")
        .table(["n"])
        .row("all", "score")
        .row("base", "base")
        .lines("[table.deltas.\"all - base\"]");
    let (lab, _) = run(&experiment);
    let table = json(&lab, &[]);
    assert_eq!(labels(&table, "rows"), ["all, by=1", "all, by=2", "base"]);
    assert_eq!(labels(&table, "deltas"), ["all - base, by=1", "all - base, by=2"]);
    assert_eq!(table["deltas"][1]["cells"][0]["ours"], 1.0);
}

#[test]
fn an_experiment_can_have_several_tables() {
    let experiment = numbers()
        .table(["n"])
        .lines("title = \"Main\"")
        .lines("[tables.more]\ntitle = \"More\"\nrows.b = { from = \"other\" }");
    let (lab, told) = run(&experiment);
    let _ = told.shows(&["Main", "More"]);
    let tables = json(&lab, &[]);
    assert_eq!((&tables[0]["name"], &tables[1]["name"]), (&Value::Null, &"more".into()));
    assert_eq!(json(&lab, &["--table", "more"])["title"], "More");
    assert_eq!(json(&lab, &["--table", "table"])["title"], "Main");
    lab.run(["table", "x.toml", "--table", "mor"]).expect(2).says(&["there is no table `mor`", "`more`"]);
    let events = lab.run(["run", "x.toml", "--json"]).expect(0).events();
    let titles =
        events.iter().filter(|event| event["event"] == "table").map(|event| &event["table"]["title"]);
    assert_eq!(titles.collect::<Vec<_>>(), ["Main", "More"]);
    for format in ["text", "markdown", "csv"] {
        let text = lab.run(["table", "x.toml", "--format", format]).expect(0).stdout;
        assert!(text.contains("\n\n") && text.contains('b'), "{text}");
    }
}

#[test]
fn numbers_of_another_definition_are_marked() {
    let write = "echo '{\"n\": 1}' > outputs/scores/metrics.json";
    let column = |by: &str| format!("outputs.scores.columns = [{{ metric = \"n\", definition = \"{by}\" }}]");
    let stage = |name: &str, by: &str| {
        let stage = experiment().stage(name, "command").set("run", write);
        format!("{}outputs.scores.type = \"scores\"\n{}\n", stage, column(by))
    };
    let text = [stage("a", "word pieces"), stage("b", "words"), stage("c", "word pieces")].concat();
    let lab = Lab::with(&format!("{text}\n[table]\n"));
    lab.run(["run", "x.toml"]).expect(0).shows(&["1 [1]", "words, where the first row has word pieces"]);
    let table = json(&lab, &[]);
    let cell = |row: usize| &table["rows"][row]["cells"][0];
    assert_eq!((&cell(0)["definition"], &cell(2)["differs"]), (&"word pieces".into(), &Value::Null));
    assert_eq!(cell(1)["differs"], "words, where the first row has word pieces");
    let csv = lab.run(["table", "x.toml", "--format", "csv"]).expect(0).stdout;
    assert!(csv.starts_with("label,n,n_published,definition,missing\n"), "{csv}");
    assert!(csv.contains("b,1.0,,\"n: words, where the first row has word pieces\",\n"), "{csv}");
    lab.run(["table", "x.toml", "--format", "markdown"]).expect(0).shows(&["1 <sup>1</sup>"]);
}

#[test]
fn two_vocabularies_of_one_name_are_two_definitions() {
    let lab = Lab::new();
    let scores = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"evaluate\"\ninputs.rows = \"rows\"\ndirection = \"mol2cap\"\n\
             metrics = [\"bleu2\"]\ntokens.wordpiece = \"{name}/vocab.txt\"\n"
        )
    };
    let rows = "{\"id\":\"a\",\"molecule\":\"C\",\"caption\":\"it is it\",\"output\":\"it is it\"}\n";
    lab.write("rows.jsonl", rows);
    for name in ["a", "b"] {
        lab.write(&format!("{name}/vocab.txt"), "[UNK]\nit\nis\n");
    }
    let text = format!(
        "[stages.rows]\nkind = \"source\"\npath = \"rows.jsonl\"\n{}{}[table]\n",
        scores("a"),
        scores("b")
    );
    lab.write("x.toml", text);
    let told = lab.run(["run", "x.toml"]).expect(0);
    let _ = told.shows(&["[1] b: word pieces of vocab.txt (", "b/vocab.txt), where the first row has"]);
}

#[test]
fn conditions_say_whether_numbers_are_comparable() {
    let published = "columns = [\"n\"]\n[rows]\none = [2.0]\n";
    let condition = |is: &str| {
        format!("[table.comparable.program]\nstage = \"one\"\nis = {{ {is} }}\nsays = \"it is so\"\n")
    };
    let told = |conditions: &str| {
        let lab = numbers()
            .table(["n"])
            .lines("published = \"printed.toml\"")
            .row("one", "one")
            .lines(conditions)
            .lab();
        lab.write("printed.toml", published);
        lab.run(["run", "x.toml"]).expect(0)
    };
    told("").shows(&["Nothing says whether these numbers are comparable with the published ones."]);
    told(&condition("kind = \"command\", outputs.scores.type = \"scores\""))
        .shows(&["Comparable with the published numbers: program."]);
    told(&condition("outputs = { scores = { type = \"rows\" } }"))
        .shows(&["- it is so (`outputs.scores.type` of `one` is \"scores\", not \"rows\")"]);
    told(&condition("files = []")).shows(&["Comparable with the published numbers: program."]);
    told(&condition("model = \"x\"")).shows(&["(`one` has no `model`)"]);
}

#[test]
fn a_set_of_metrics_has_the_key_of_its_list() {
    let key = |metrics: &str| {
        let lab = Lab::with(&format!(
            "[stages.rows]\nkind = \"source\"\npath = \"rows.jsonl\"\n[stages.scores]\nkind = \"evaluate\"\n\
             inputs.rows = \"rows\"\ndirection = \"mol2cap\"\nmetrics = {metrics}\n"
        ));
        lab.write("rows.jsonl", "{\"id\":\"a\"}\n");
        lab.run(["plan", "x.toml", "--keys"]).expect(0).stdout
    };
    assert_eq!(key("\"captions\""), key("[\"bleu2\", \"bleu4\", \"rouge1\", \"rouge2\", \"rougeL\"]"));
    assert_ne!(key("[\"captions\", \"chrf\"]"), key("\"captions\""));
}

#[test]
fn the_table_of_a_file_included_under_a_name_is_one_of_many() {
    let below = numbers().table(["n"]).row("a", "one").row("b", "other");
    let lab = Lab::with("[experiment]\ninclude = { t2 = \"below.toml\", t3 = \"below.toml\" }\n");
    lab.write("below.toml", format!("[experiment]\ntitle = \"Below\"\n{below}"));
    lab.run(["run", "x.toml"]).expect(0);
    let tables = json(&lab, &[]);
    assert_eq!((&tables[0]["name"], &tables[1]["name"]), (&"t2".into(), &"t3".into()));
    assert_eq!(
        (labels(&tables[0], "rows"), &tables[0]["title"]),
        (vec!["a".to_owned(), "b".to_owned()], &"Below".into())
    );
    // One that is changed is the experiment's own, and then the other is not shown.
    let change = "[tables.t2]\nremove = [\"rows.a\"]\nrows.c = { from = \"t3/one\" }\n";
    lab.write("x.toml", format!("{}{change}", lab.read("x.toml")));
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(labels(&json(&lab, &[]), "rows"), ["b", "c"]);
}
