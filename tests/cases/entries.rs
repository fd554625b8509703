//! One file, one entry, one example, one place in the manual: what there is of each family.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use stages::Better;

use crate::lab::project;

/// A family of methods that experiments choose from by name.
struct Family {
    /// The folder with a file for each, and the list beside it.
    folder: &'static str,
    /// Files there that are no methods.
    others: &'static [&'static str],
    /// The kind that chooses, and the type of its field in the JSON Schema.
    choice: (&'static str, &'static str),
}

/// All families whose members have a file of their own. Models join them.
const FAMILIES: &[Family] = &[
    Family { folder: "stages/learn/src/objectives", others: &["loss"], choice: ("train", "Objective") },
    Family { folder: "stages/weights/src/merges", others: &["common"], choice: ("merge", "Method") },
];

const METRICS: &str = "stages/src/evaluate/metrics";

fn text(path: impl AsRef<Path>) -> String {
    let path = project().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names of the files of a folder, without their ending.
fn stems(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(project().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// Returns the text of all examples.
fn examples() -> String {
    let folder = project().join("tests/experiments/valid");
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry"));
    let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    files.map(|path| fs::read_to_string(path).expect("a text")).collect()
}

/// Returns the names that a choice has in the JSON Schema of a kind.
fn names((kind, choice): (&str, &str)) -> BTreeSet<String> {
    let kind = stages::KINDS.iter().find(|other| other.name() == kind).expect("a kind");
    let schema = kind.schema();
    let branches = schema["$defs"][choice]["oneOf"].as_array().expect("a choice").clone();
    let name = |branch: &Value| -> String {
        let properties = branch["properties"].as_object().expect("a table with one entry");
        properties.keys().next().expect("a name").clone()
    };
    branches.iter().map(name).collect()
}

#[test]
fn every_method_has_a_file_an_entry_an_example_and_a_place_in_the_manual() {
    let (examples, manual) = (examples(), text("docs/stages.md"));
    let mut missing = Vec::new();
    for Family { folder, others, choice } in FAMILIES {
        let names = names(*choice);
        let mut files = stems(folder);
        files.retain(|stem| !others.contains(&stem.as_str()));
        let files: BTreeSet<String> = files.iter().map(|stem| stem.replace('_', "-")).collect();
        let entries: BTreeSet<String> = names.iter().map(|name| name.replace('_', "-")).collect();
        assert_eq!(files, entries, "files of {folder} on the left, names in TOML on the right");
        for name in names {
            let is_used = |at: usize| examples[at + name.len()..].trim_start().starts_with(['=', '.']);
            if !examples.match_indices(&name).any(|(at, _)| is_used(at)) {
                missing.push(format!("no file in tests/experiments/valid uses `{name}`"));
            }
            if !manual.contains(&format!("`{name}`")) {
                missing.push(format!("docs/stages.md has no `{name}`"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_metric_has_an_entry_an_example_and_a_place_in_the_manual() {
    let (examples, manual) = (examples(), text("docs/stages.md"));
    let list = text(format!("{METRICS}.rs"));
    let mut missing = Vec::new();
    let mut defined = 0;
    for stem in stems(METRICS) {
        let file = text(format!("{METRICS}/{stem}.rs"));
        let constants = file.split("const ").skip(1).filter_map(|rest| rest.split_once(": Metric"));
        let constants: Vec<&str> = constants.map(|(name, _)| name).collect();
        assert!(!constants.is_empty(), "{METRICS}/{stem}.rs has no metric");
        for name in constants {
            defined += 1;
            if !list.contains(&format!("&{stem}::{name},")) {
                missing.push(format!("{METRICS}.rs does not list {stem}::{name}"));
            }
        }
    }
    assert_eq!(defined, stages::metrics().len(), "files on the left, the list on the right");
    for metric in stages::metrics() {
        let name = metric.name;
        if !examples.contains(&format!("\"{name}\"")) {
            missing.push(format!("no file in tests/experiments/valid uses `{name}`"));
        }
        let is_row_of = |line: &&str| {
            let first = line.strip_prefix("| ").and_then(|line| line.split(" | ").next());
            first.is_some_and(|names| names.split(", ").any(|other| other == format!("`{name}`")))
        };
        let lines: Vec<&str> = manual.lines().collect();
        // `words` has a section of its own.
        let section = lines.iter().find(|line| line.starts_with(&format!("`{name}` is ")));
        match lines.iter().find(|line| is_row_of(line)).or(section) {
            None => missing.push(format!("docs/stages.md has no row about `{name}`")),
            Some(line) if line.contains("lower is better") != (metric.better == Better::Lower) => {
                missing.push(format!("`{name}` is better {:?}, and docs/stages.md: {line}", metric.better));
            }
            Some(_) => {}
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The tables of the papers name a metric, and which way it is better, as the metric does.
#[test]
fn columns_of_experiments_are_better_the_way_their_metrics_are() {
    let metrics = stages::metrics();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(project().join("experiments")).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if !path.is_file() {
            continue;
        }
        for line in fs::read_to_string(&path).expect("a text").lines() {
            let metric =
                metrics.iter().find(|metric| line.contains(&format!("metric = \"{}\"", metric.name)));
            let Some(metric) = metric else { continue };
            let better = format!("better = \"{}\"", format!("{:?}", metric.better).to_lowercase());
            if line.contains("better = ") && !line.contains(&better)
                || line.contains("label = ") && !line.contains(&format!("label = \"{}\"", metric.label))
            {
                wrong.push(format!("{}: {}, expected {metric:?}", path.display(), line.trim()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_data_format_has_a_file_an_example_and_a_place_in_the_manual() {
    let (files, examples, manual) = (stems("stages/corpus/src/formats"), examples(), text("docs/stages.md"));
    for format in corpus_formats() {
        assert!(files.contains(&format), "there is no stages/corpus/src/formats/{format}.rs");
        assert!(examples.contains(&format!(".{format}\"")), "no example reads a .{format}");
        assert!(manual.contains(&format!("`\"{format}\"`")), "docs/stages.md has no \"{format}\"");
    }
}

/// Returns the formats of rows that `source` reads.
fn corpus_formats() -> Vec<String> {
    let kind = stages::KINDS.iter().find(|kind| kind.name() == "source").expect("a kind");
    let formats = kind.schema()["$defs"]["Format"].clone();
    let lists = [&formats["enum"], &formats["oneOf"]];
    let values = lists.iter().filter_map(|list| list.as_array()).flatten();
    let names = values.filter_map(|value| value.as_str().or(value["const"].as_str()));
    names.filter(|name| !["model", "adapter"].contains(name)).map(str::to_owned).collect()
}

/// `ls stages/src` is the list of kinds, the list itself, and what they share.
#[test]
fn what_stands_beside_the_kinds_is_known() {
    let kinds: BTreeSet<String> = stages::KINDS.iter().map(|kind| kind.name().to_owned()).collect();
    let others: BTreeSet<String> =
        ["lib", "artifacts", "support", "tools"].into_iter().map(str::to_owned).collect();
    assert_eq!(stems("stages/src"), &kinds | &others);
}
