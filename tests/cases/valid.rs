//! What can be said in an experiment, by example: one file per kind of stage and per feature.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::lab::{Lab, Told, project};

fn folder() -> PathBuf {
    project().join("tests/experiments/valid")
}

/// Copies all examples into a workspace of their own.
fn lab() -> Lab {
    let lab = Lab::new();
    for inside in ["", "parts"] {
        for entry in fs::read_dir(folder().join(inside)).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                lab.write(
                    format!("{inside}/{name}").trim_start_matches('/'),
                    fs::read(&path).expect("a file"),
                );
            }
        }
    }
    lab.write_judge("parts/judge");
    lab.write_internlm2("parts/internlm2");
    let chemnet = project().join("stages/learn/tests/golden/chemnet/chemnet.safetensors");
    lab.write("parts/chemnet.safetensors", fs::read(chemnet).expect("a file"));
    // WordNet with one set of synonyms.
    for part in ["noun", "verb", "adj", "adv"] {
        for file in [format!("index.{part}"), format!("data.{part}"), format!("{part}.exc")] {
            lab.write(&format!("parts/wordnet/{file}"), "");
        }
    }
    lab.write("parts/wordnet/index.noun", "sea n 1 0 1 0 00000009\nbrine n 1 0 1 0 00000009\n");
    lab.write("parts/wordnet/data.noun", "00000009 00 n 02 sea 0 brine 0 000 | salt water\n");
    lab
}

fn examples() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    names
}

fn run(file: &str) -> (Lab, Told) {
    let lab = lab();
    let told = lab.run(["run", file, "--format", "csv"]).expect(0);
    (lab, told)
}

/// Returns the labels of the nodes of a plan, in its order.
fn labels(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    labels_where(lab, arguments, |_| true)
}

/// Returns the labels of those nodes of a plan of which something is true.
fn labels_where(lab: &Lab, arguments: &[&str], is_listed: fn(&serde_json::Value) -> bool) -> Vec<String> {
    let told = lab.run(["plan", "--json"].iter().chain(arguments)).expect(0);
    let nodes: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    let nodes = nodes.as_array().expect("a list of stages").iter().filter(|node| is_listed(node));
    nodes.map(|node| node["stage"].as_str().expect("a label").to_owned()).collect()
}

fn rows(lab: &Lab, file: &str, stage: &str) -> Vec<serde_json::Value> {
    let told = lab.run(["show", file, stage, "--output", "rows", "--file", "rows.jsonl"]).expect(0);
    told.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn metrics(lab: &Lab, file: &str, stage: &str) -> serde_json::Value {
    let told = lab.run(["show", file, stage, "--file", "metrics.json"]).expect(0);
    serde_json::from_str(&told.stdout).expect("JSON")
}

#[test]
fn every_kind_has_an_example() {
    let texts: Vec<String> =
        examples().iter().map(|name| fs::read_to_string(folder().join(name)).expect("a text")).collect();
    for kind in stages::KINDS {
        let line = format!("kind = \"{}\"", kind.name());
        let file = format!("kind-{}.toml", kind.name());
        assert!(
            texts.iter().any(|text| text.contains(&line)),
            "no file in {} uses {line}",
            folder().display()
        );
        assert!(examples().contains(&file), "there is no {file} in {}", folder().display());
    }
}

/// Examples of models are named in them.
#[test]
fn every_model_has_an_example() {
    let texts = examples().into_iter().map(|name| fs::read_to_string(folder().join(name)).expect("a text"));
    let texts: Vec<String> = texts.map(|text| text.to_lowercase()).collect();
    for model in stages::known_models() {
        let named = texts.iter().any(|text| text.contains(model.file));
        assert!(named, "no file in {} names the model `{}`", folder().display(), model.file);
    }
}

#[test]
fn every_example_runs_and_then_has_nothing_to_do() {
    let lab = lab();
    for file in examples() {
        lab.run(["run", &file]).expect(0);
        assert_eq!(lab.run(["run", &file]).expect(0).ran(), Vec::<String>::new(), "{file}");
        // What its table does not read is an example, too.
        for label in labels_where(&lab, &[&file], |node| node["needed"] == false) {
            lab.run(["run", &file, "--until", &label]).expect(0);
        }
    }
}

#[test]
fn a_source_brings_in_every_format() {
    let (lab, _) = run("kind-source.toml");
    let tsv = rows(&lab, "kind-source.toml", "tsv");
    assert_eq!((tsv.len(), &tsv[0]["properties"]), (4, &serde_json::json!(["sweet", "cold"])));
    assert_eq!(rows(&lab, "kind-source.toml", "csv")[0]["caption"], "one, two");
    assert_eq!(rows(&lab, "kind-source.toml", "jsonl")[1]["caption"], "three");
}

#[test]
fn captions_are_composed() {
    let (lab, _) = run("kind-compose.toml");
    let captions = rows(&lab, "kind-compose.toml", "captions");
    assert_eq!(captions.len(), 4);
    assert_eq!(captions[1]["caption"], "It is cold.");
}

#[test]
fn subsets_are_disjoint() {
    let (lab, _) = run("kind-subset.toml");
    let half = rows(&lab, "kind-subset.toml", "half");
    let rest = rows(&lab, "kind-subset.toml", "rest");
    assert_eq!((half.len(), rest.len()), (1, 1));
    assert_ne!(half[0]["id"], rest[0]["id"]);
}

#[test]
fn tables_are_joined_and_groups_kept_apart() {
    let (lab, _) = run("subset-groups.toml");
    let ids = |stage: &str| -> Vec<String> {
        let rows = rows(&lab, "subset-groups.toml", stage);
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids("all"), ["a", "b", "c", "d", "one two", "three"]);
    // The caption of `d` is longer than 15 characters.
    assert!(!ids("some").contains(&"d".to_owned()));
    assert_eq!((ids("some").len(), ids("others").len()), (2, 1));
}

#[test]
fn preferences_are_made_of_outputs() {
    let (lab, _) = run("kind-negatives.toml");
    let made = |stage: &str| -> Vec<(String, String)> {
        let show = ["show", "kind-negatives.toml", stage, "--output", "preferences", "--file", "rows.jsonl"];
        let rows = lab.run(show).expect(0).events();
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        rows.iter().map(|row| (text(&row["id"]), text(&row["rejected"]))).collect()
    };
    let pair = |id: &str, rejected: &str| (id.to_owned(), rejected.to_owned());
    assert_eq!(made("from_file"), [pair("a/mol2cap", "a wax"), pair("d/mol2cap", "a salt")]);
    assert_eq!(made("from_model"), [pair("b/cap2mol", "CC("), pair("c/mol2cap", "")]);
}

#[test]
fn models_are_merged_by_every_method() {
    let (lab, _) = run("kind-merge.toml");
    let numbers = |variant: &str| {
        let row = &rows(&lab, "kind-merge.toml", &format!("numbers[merge={variant}]"))[0];
        let list = row["numbers"].as_array().expect("a list");
        list.iter().map(|number| (number.as_f64().expect("a number") * 1e4).round() / 1e4).collect::<Vec<_>>()
    };
    // sin and cos of a nineteenth of a right angle.
    assert_eq!(numbers("slerp"), [1.569, 18.9351]);
    assert_eq!(numbers("soup"), [1.0, 18.0]);
    assert_eq!(numbers("ties"), [19.0, 19.0], "where one model survives its weight cancels");
    assert_eq!(numbers("arithmetic"), [2.0, 36.0]);
    assert_eq!(numbers("dare"), [19.0, 19.0]);
}

#[test]
fn words_are_counted() {
    let (lab, _) = run("kind-evaluate.toml");
    let found = metrics(&lab, "kind-evaluate.toml", "scores");
    assert_eq!((&found["words_mean"], &found["words_max"]), (&2.5.into(), &4.0.into()));
}

#[test]
fn predictions_are_scored() {
    let (lab, _) = run("evaluate-predictions.toml");
    lab.run(["run", "evaluate-predictions.toml", "--until", "molecules"]).expect(0);
    let found = metrics(&lab, "evaluate-predictions.toml", "molecules");
    assert_eq!(
        (&found["exact"], &found["validity"], &found["exact_string"]),
        (&0.25.into(), &0.5.into(), &0.0.into())
    );
    let found = metrics(&lab, "evaluate-predictions.toml", "captions");
    assert_eq!((&found["rows"], &found["empty_predictions"]), (&5.into(), &1.into()));
}

#[test]
fn a_command_has_its_inputs_files_and_parameters() {
    let (lab, _) = run("kind-command.toml");
    assert_eq!(metrics(&lab, "kind-command.toml", "count"), serde_json::json!({ "rows": 4, "least": 3 }));
}

#[test]
fn named_variants_are_laid_over_the_stage() {
    let (lab, _) = run("axis-named.toml");
    assert_eq!(labels(&lab, &["axis-named.toml"]), ["rows", "half[size=small]", "half[size=large]"]);
    assert_eq!(rows(&lab, "axis-named.toml", "half[size=large]").len(), 2);
}

#[test]
fn an_axis_over_seeds_is_averaged() {
    let (_, told) = run("axis-scalar.toml");
    let cells: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(cells.len(), 2, "one row below the heading:\n{}", told.stdout);
    assert!(cells[1].starts_with("scores,"), "{}", told.stdout);
}

#[test]
fn shared_axes_join_and_others_cross() {
    let lab = lab();
    let found = labels(&lab, &["axes-join-and-cross.toml"]);
    let both: Vec<&String> = found.iter().filter(|label| label.starts_with("both")).collect();
    assert_eq!(both.len(), 6, "{both:?}");
    assert_eq!(both[0], "both[size=1,seed=1]");
}

#[test]
fn gathered_inputs_come_in_declared_order_with_their_labels() {
    let (lab, _) = run("gather.toml");
    let told = lab.run(["show", "gather.toml", "count", "--file", "labels.txt"]).expect(0);
    assert_eq!(told.stdout, "large small ", "a shell lists by name");
    let resolved = lab.run(["plan", "gather.toml", "--resolved"]).expect(0).stdout;
    let at = |label: &str| resolved.find(&format!("inputs.rows.{label}")).expect("the label is there");
    assert!(at("small") < at("large"), "{resolved}");
}

#[test]
fn a_pin_takes_one_variant() {
    let lab = lab();
    assert_eq!(labels(&lab, &["pin.toml"]), ["rows", "half[lr=1]", "half[lr=2]", "scores"]);
    let resolved = lab.run(["plan", "pin.toml", "--resolved"]).expect(0).stdout;
    assert!(resolved.contains("inputs.rows = \"half[lr=2].rows\""), "{resolved}");
}

#[test]
fn nodes_of_one_stage_may_have_different_axes() {
    let (lab, _) = run("axes-ragged.toml");
    let words: Vec<String> =
        labels(&lab, &["axes-ragged.toml"]).into_iter().filter(|label| label.starts_with("words")).collect();
    let expected = [
        "words[of=all]",
        "words[size=large,of=part]",
        "words[draw=1,size=small,of=part]",
        "words[draw=2,size=small,of=part]",
    ];
    assert_eq!(words, expected);
    let draws = lab.run(["show", "axes-ragged.toml", "small", "--file", "draws.txt"]).expect(0).stdout;
    assert_eq!(draws, "1 2 ");
}

#[test]
fn seeds_are_an_axis_over_everything_that_uses_one() {
    let (lab, _) = run("seeds.toml");
    let of = |stage: &str, more: &[&str]| {
        let mut labels = labels(&lab, &[&["seeds.toml"], more].concat());
        labels.retain(|label| label.split('[').next() == Some(stage));
        labels
    };
    assert_eq!(of("smaller", &[]), ["smaller[seed=42]", "smaller[seed=43]", "smaller[seed=44]"]);
    assert_eq!(
        (of("words", &[]).len(), of("rows", &[]), of("fixed", &[])),
        (3, vec!["rows".to_owned()], vec!["fixed".to_owned()])
    );
    assert_eq!(of("part", &["--seeds", "2"]), ["part[seed=42]", "part[seed=43]"]);
    assert_eq!(of("part", &["--set", "experiment.seed=1"]), ["part"]);
    let told = lab.run(["table", "seeds.toml", "--format", "json"]).expect(0);
    let table: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(table["rows"][0]["cells"][0]["value"]["mean"]["n"], 3);
    // One seed in a list is the same as one without.
    let keys = |set: &str| lab.run(["plan", "seeds.toml", "--keys", "--set", set]).expect(0).stdout;
    assert_eq!(keys("experiment.seeds=[5]"), keys("experiment.seed=5"));
}

#[test]
fn combinations_are_listed_or_left_out() {
    let found = labels(&lab(), &["only-and-except.toml"]);
    let expected = ["half[seed=1,size=small]", "half[seed=2,size=small]", "half[seed=2,size=large]"];
    assert_eq!(found[1..], expected.map(str::to_owned));
}

#[test]
fn later_layers_win() {
    let lab = lab();
    let resolved = lab.run(["plan", "include.toml", "--resolved"]).expect(0).stdout;
    for line in [
        "take.count = 3            # parts/more.toml:5  (hides take.fraction = 0.5, parts/common.toml:13)",
        "seed = 7                  # include.toml:5",
        "path = \"rows.tsv\"         # parts/common.toml:7",
        "distinct = false          # assumed by `subset`",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_there = resolved.lines().any(|found| found.split_whitespace().eq(words.iter().copied()));
        assert!(is_there, "{line}\n{resolved}");
    }
    let is_there = resolved.lines().any(|line| line.trim_start().starts_with("take.fraction"));
    assert!(!is_there, "a choice is replaced whole:\n{resolved}");
}

#[test]
fn a_profile_lies_over_the_file_and_a_set_value_over_the_profile() {
    let lab = lab();
    let resolved = |arguments: &[&str]| {
        let told = lab.run(["plan", "profiles.toml", "--resolved"].iter().chain(arguments)).expect(0);
        told.stdout
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let mini = resolved(&[]);
    let line = "take.count = 1 # profiles.toml:22 (hides take.fraction = 0.5, profiles.toml:9)";
    assert!(mini.contains(&line.to_owned()), "{mini:#?}");
    assert!(mini.contains(&"distinct = true # profiles.toml:10".to_owned()), "{mini:#?}");
    let whole = resolved(&["--profile", "whole"]);
    let line = "take.fraction = 1.0 # profiles.toml:26 (hides 0.5, profiles.toml:9)";
    assert!(whole.contains(&line.to_owned()), "{whole:#?}");
    assert!(whole.contains(&"seed = 9 # profiles.toml:25".to_owned()), "{whole:#?}");
    let set = resolved(&["--profile", "whole", "--set", "stages.half.take.fraction=0.25"]);
    let line = "take.fraction = 0.25 # --set:1 (hides 1.0, profiles.toml:26; 0.5, profiles.toml:9)";
    assert!(set.contains(&line.to_owned()), "{set:#?}");
    let table = lab.run(["run", "profiles.toml"]).expect(0).stdout;
    assert!(table.contains("Small."), "a table says which profile made it:\n{table}");
}

#[test]
fn the_nearest_file_wins() {
    let lab = lab();
    let resolved = |arguments: &[&str]| {
        let told = lab.run(["plan", "layers.toml", "--resolved"].iter().chain(arguments)).expect(0);
        let words = told.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>()
    };
    let says = |resolved: &[String], text: &str| {
        assert!(resolved.iter().any(|line| line.starts_with(text)), "{text}\n{resolved:#?}");
    };
    let mini = resolved(&[]);
    let hidden = "(hides 1, parts/layered.toml:18; take.fraction = 0.5, parts/common.toml:13)";
    says(&mini, &format!("take.count = 2 # layers.toml:8 {hidden}"));
    says(&mini, "seed = 4 # parts/layered.toml:");
    says(&mini, "distinct = true # layers.toml:18");
    says(&mini, "path = \"parts/rows.csv\" # layers.toml:14");
    let other = resolved(&["--profile", "other"]);
    says(&other, "path = \"rows.jsonl\" # parts/small.toml:3");
    says(&other, "take.fraction = 1.0 # layers.toml:22");
    says(&other, "seed = 3 # parts/layered.toml:3");
    says(&other, "inputs.rows = \"half.rows\" # layers.toml:23");
}

#[test]
fn an_axis_hides_what_a_farther_layer_sets() {
    let lab = lab();
    let resolved = lab.run(["plan", "axis-over-profile.toml", "--resolved"]).expect(0).stdout;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = resolved.lines().map(words).collect();
    for value in ["0.5", "1.0"] {
        let start = format!("take.fraction = {value} # axis-over-profile.toml:7 (hides take.count = 1, ");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start}\n{resolved}");
    }
}

#[test]
fn defaults_lie_below_what_a_stage_says() {
    let lab = lab();
    let resolved = |arguments: &[&str]| {
        let told = lab.run(["plan", "defaults.toml", "--resolved"].iter().chain(arguments)).expect(0);
        let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut stage = String::new();
        for line in told.stdout.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !line.starts_with(' ') {
                stage = words.get(1).unwrap_or(&"").to_string();
            }
            stages.entry(stage.clone()).or_default().push(words.join(" "));
        }
        stages
    };
    let says = |resolved: &BTreeMap<String, Vec<String>>, stage: &str, text: &str| {
        assert!(resolved[stage].iter().any(|line| line.starts_with(text)), "{stage}: {text}\n{resolved:#?}");
    };
    let mini = resolved(&[]);
    says(&mini, "some", "take.count = 2 # defaults.toml:9");
    says(&mini, "some", "inputs.rows = \"rows.rows\" # defaults.toml:8");
    says(&mini, "some", "identity.field = \"caption\" # parts/defaults.toml:6");
    says(&mini, "some", "distinct = true # parts/defaults.toml:10");
    says(&mini, "half", "take.fraction = 0.5 # parts/common.toml:13");
    says(&mini, "more", "take.fraction = 1.0 # defaults.toml:20");
    says(&mini, "more", "inputs.rows = \"half.rows\" # defaults.toml:19");
    let bare = resolved(&["--profile", "bare", "--set", "defaults.subset.take.count=3"]);
    says(&bare, "some", "take.count = 3 # --set:1");
    says(&bare, "some", "distinct = false # assumed by `subset`");
    assert!(!bare["some"].iter().any(|line| line.contains("caption")), "{bare:#?}");
}

#[test]
fn two_experiments_are_one_with_names_of_their_own() {
    let lab = lab();
    let file = "namespaces.toml";
    let told = lab.run(["plan", file, "--json"]).expect(0);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&told.stdout).expect("JSON");
    let key = |label: &str| &nodes.iter().find(|node| node["stage"] == label).expect("a stage")["key"];
    assert_eq!(key("one/rows"), key("two/rows"), "what is equal has one key");
    assert_ne!(key("one/half"), key("two/half"));
    let resolved = |stage: &str| {
        let text = lab.run(["plan", file, "--resolved"]).expect(0).stdout;
        let is_of = |line: &&str| !line.starts_with(' ') && line.split_whitespace().any(|word| word == stage);
        let own = text.lines().skip_while(|line| !is_of(line)).skip(1);
        let own = own.take_while(|line| line.starts_with(' '));
        own.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
    };
    // Each file has its own seed and its own defaults.
    assert!(resolved("one/half").contains("seed = 4 # parts/layered.toml:17"), "{}", resolved("one/half"));
    assert!(resolved("two/half").contains("seed = 1 # parts/common.toml:3"), "{}", resolved("two/half"));
    assert!(resolved("half").contains("seed = 9 # namespaces.toml:6"), "{}", resolved("half"));
    assert!(
        resolved("two/half").contains("distinct = true # namespaces.toml:12"),
        "{}",
        resolved("two/half")
    );
    assert!(resolved("half").contains("distinct = false # assumed"), "{}", resolved("half"));
    assert!(resolved("two/half").contains("take.count = 2 # namespaces.toml:9"), "{}", resolved("two/half"));
    assert!(resolved("one/some").contains("take.count = 2 # namespaces.toml:33"), "{}", resolved("one/some"));
    lab.run(["run", file, "--until", "one/words"]).expect(0);
    lab.run(["show", file, "one/words"]).expect(0);
    lab.run(["log", file, "one/words"]).expect(0);
    for format in ["dot", "mermaid", "svg"] {
        lab.run(["graph", file, "--format", format]).expect(0).shows(&["two/half"]);
    }
    let set = lab.run(["plan", file, "--set", "stages.one/half.take.count=1", "--resolved"]).expect(0);
    set.shows(&["--set:1"]);
}

#[test]
fn what_is_picked_has_the_key_of_what_is_written() {
    let lab = lab();
    let told = lab.run(["plan", "picks.toml", "--json"]).expect(0);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&told.stdout).expect("JSON");
    let key = |label: &str| &nodes.iter().find(|node| node["stage"] == label).expect("a stage")["key"];
    for pair in [
        ["model_picked", "model_written"],
        ["picked[direction=mol2cap]", "written[direction=mol2cap]"],
        ["picked[direction=cap2mol]", "written[direction=cap2mol]"],
    ] {
        assert_eq!(key(pair[0]), key(pair[1]), "{pair:?}");
    }
    let resolved = lab.run(["plan", "picks.toml", "--resolved"]).expect(0).stdout;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = "prompt = \"parts/cap2mol.txt\" # picks.toml:13";
    assert!(resolved.lines().any(|resolved| words(resolved) == line), "{resolved}");
}

#[test]
fn a_table_has_rows_deltas_and_published_numbers() {
    let (lab, _) = run("table.toml");
    let told = lab.run(["table", "table.toml", "--format", "json"]).expect(0);
    let table: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    let list = |of: &str| table[of].as_array().expect("a list").clone();
    let names: Vec<String> =
        list("rows").iter().map(|row| row["label"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(names, ["small", "large", "all rows"], "{table:#}");
    assert_eq!(list("rows")[1]["cells"][1]["value"]["number"], 2.0);
    assert_eq!(list("rows")[2]["cells"][0]["published"], 9.0);
    let delta = &list("deltas")[0];
    assert_eq!(delta["label"], "large - small");
    assert_eq!((&delta["cells"][1]["ours"], &delta["cells"][1]["printed"]), (&1.0.into(), &1.0.into()));
}

#[test]
fn a_row_is_averaged_over_seeds() {
    let (lab, _) = run("table-averages.toml");
    let told = lab.run(["table", "table-averages.toml", "--format", "json"]).expect(0);
    let table: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    let cell = &table["rows"][1]["cells"][1]["value"]["mean"];
    assert_eq!((&cell["mean"], &cell["n"], &cell["std"]), (&2.0.into(), &3.into(), &0.0.into()));
}

#[test]
fn what_concerns_the_machine_is_not_keyed() {
    let lab = lab();
    let keys = |file: &str| lab.run(["plan", file, "--keys"]).expect(0).stdout;
    let key =
        |text: String| text.lines().next().and_then(|line| line.split_whitespace().last()).map(str::to_owned);
    assert_eq!(key(keys("settings.toml")), key(keys("kind-evaluate.toml")));
}
