//! What each command says.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{Lab, project};

const WORDS: &str = r#"
[experiment]
title = "Counting"
include = ["shared.toml"]
seed = 11

[stages.some]
kind = "subset"
inputs = { rows = "rows" }
take.count = 2

[stages.scores]
kind = "evaluate"
inputs = { rows = "some" }
metrics = ["words"]
field = "text"

[stages.scores.axes.field]
text.field = "text"
other.field = "other"

[profile.short]
note = "The short one."
stages.some.take.count = 1

[table]
columns = ["words_mean", { metric = "words_rows", label = "rows" }]
published = "printed.toml"

[table.rows]
"{field}" = { from = "scores" }
nobody = {}

[table.deltas]
"text - other" = {}
"#;

fn words() -> Lab {
    let lab = Lab::with(WORDS);
    lab.write("shared.toml", "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n");
    lab.write("rows.tsv", "id\ttext\tother\n1\ta b c\tx\n2\td e f\ty\n3\tg h i\tz\n");
    lab.write("printed.toml", "columns = [\"words_mean\"]\n[rows]\ntext = [2.5]\nnobody = [9]\n");
    lab
}

#[test]
fn plan_predicts_hit_run_and_maybe() {
    let lab = words();
    let plan = |arguments: &[&str]| {
        let told = lab.run(["plan", "x.toml", "--json"].iter().chain(arguments)).expect(0);
        let stages: Vec<Value> = serde_json::from_str(&told.stdout).unwrap();
        let mut states: Vec<String> = stages
            .iter()
            .map(|stage| format!("{} {}", stage["stage"].as_str().unwrap(), stage["state"].as_str().unwrap()))
            .collect();
        states.sort();
        states
    };
    // Nothing was ever made, so nothing can turn out to be known.
    let all = |rows: &str, some: &str, scores: &str| {
        [
            format!("rows {rows}"),
            format!("scores[field=other] {scores}"),
            format!("scores[field=text] {scores}"),
            format!("some {some}"),
        ]
    };
    assert_eq!(plan(&[]), all("run", "run", "run"));
    assert!(!lab.cache().exists(), "planning makes nothing");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(plan(&[]), all("hit", "hit", "hit"));
    let text = lab.run(["plan", "x.toml"]).expect(0).shows(&["4 stages: 4 hit, 0 run, 0 maybe"]);
    assert!(text.stdout.lines().next().is_some_and(|line| line.starts_with("hit")), "{}", text.stdout);
    // A new sample may have come out as before: its readers know work like theirs.
    assert_eq!(plan(&["--set", "stages.some.take.count=1"]), all("hit", "run", "maybe"));
    assert_eq!(plan(&["--profile", "short"]), all("hit", "run", "maybe"));
    // A reader of which no work is known can only run.
    lab.edit("x.toml", "text.field = \"text\"", "text.field = \"id\"");
    let told = lab.run(["plan", "x.toml", "--set", "stages.some.take.count=1"]).expect(0);
    let _ = told.shows(&["maybe      scores[field=other]", "run        scores[field=text]"]);
}

#[test]
fn plan_resolved_says_where_each_value_comes_from() {
    let lab = words();
    let plan = |arguments: &[&str]| {
        lab.run(["plan", "x.toml", "--resolved"].iter().chain(arguments)).expect(0).stdout
    };
    let line = |text: &str, piece: &str| {
        let found = text.lines().find(|line| line.contains(piece));
        found
            .unwrap_or_else(|| panic!("no `{piece}` in\n{text}"))
            .split_once('#')
            .unwrap()
            .1
            .trim()
            .to_owned()
    };
    let plain = plan(&[]);
    assert_eq!(line(&plain, "path = \"rows.tsv\""), "shared.toml:3");
    assert_eq!(line(&plain, "take.count = 2"), "x.toml:10");
    assert_eq!(line(&plain, "distinct = false"), "assumed by `subset`");
    assert_eq!(line(&plain, "seed = 11"), "x.toml:5");
    assert_eq!(line(&plain, "field = \"other\""), "x.toml:20  (hides \"text\", x.toml:16)");
    assert_eq!(line(&plain, "inputs.rows = \"some.rows\""), "x.toml:14");
    assert_eq!(line(&plan(&["--profile", "short"]), "take.count = 1"), "x.toml:24  (hides 2, x.toml:10)");
    let set =
        plan(&["--profile", "short", "--set", "stages.some.take.count=3", "--set", "experiment.seed=12"]);
    assert!(line(&set, "take.count = 3").contains("--set"), "{set}");
    assert!(line(&set, "seed = 12").contains("--set"), "{set}");
}

#[test]
fn why_names_the_parameter_its_values_its_place_and_the_chain() {
    let lab = words();
    lab.run(["why", "x.toml", "some"]).expect(0).shows(&["some must run"]);
    lab.run(["run", "x.toml"]).expect(0);
    lab.run(["why", "x.toml", "some"]).expect(0).shows(&["some is a hit", "nothing has changed"]);
    lab.edit("x.toml", "take.count = 2", "take.count = 3");
    lab.run(["why", "x.toml", "some"]).expect(0).shows(&["some must run", "take.count 2 -> 3 (x.toml:10)"]);
    let told = lab.run(["why", "x.toml", "scores[field=text]", "--chain"]).expect(0);
    let _ = told.shows(&[
        "scores[field=text] may run",
        "  some: take.count 2 -> 3 (x.toml:10)",
        "inputs.rows",
        "(x.toml:14)",
        "because of some",
        "take.count 2 -> 3 (x.toml:10)",
    ]);
    // A changed file is a change of content.
    lab.edit("x.toml", "take.count = 3", "take.count = 2");
    lab.write("rows.tsv", "id\ttext\tother\n1\ta b\tx\n2\td e\ty\n3\tg h\tz\n");
    lab.run(["why", "x.toml", "rows"]).expect(0).shows(&["path blake3:", " -> blake3:", "(shared.toml:3)"]);
    lab.run(["why", "x.toml", "rows", "--set", "experiment.seed=5"]).expect(0);
    lab.run(["why", "x.toml", "some", "--set", "experiment.seed=5"]).expect(0).shows(&["seed 11 -> 5"]);
    lab.run(["why", "x.toml", "sum"]).expect(2).says(&["`sum`", "`some`"]);
}

#[test]
fn status_tells_what_became_of_each_stage() {
    let lab = words();
    let told = lab.run(["status", "x.toml"]).expect(0);
    assert_eq!(told.stdout.lines().filter(|line| line.starts_with("missing")).count(), 4, "{}", told.stdout);
    lab.run(["run", "x.toml", "--until", "some"]).expect(0);
    lab.edit("x.toml", "other.field = \"other\"", "other.field = \"nothing\"");
    lab.run(["run", "x.toml", "--keep-going"]).expect(3);
    let told = lab.run(["status", "x.toml"]).expect(0);
    let told = told.shows(&[
        "done     some",
        "done     scores[field=text]",
        "failed   scores[field=other]",
        "has no text `nothing`",
    ]);
    for line in told.stdout.lines() {
        let log = line.split_whitespace().last().unwrap();
        assert!(std::path::Path::new(log).exists(), "{line}");
    }
}

#[test]
fn the_table_comes_in_every_format() {
    let lab = words();
    // Without a cache there is nothing to print from.
    lab.run(["table", "x.toml"]).expect(4).says(&["there is no cache"]);
    let text = lab.run(["run", "x.toml"]).expect(0).stdout;
    assert_eq!(lab.run(["table", "x.toml"]).expect(0).stdout, text);
    for piece in ["Counting", "words (mean)", "rows", "2.5", "text - other", "nobody"] {
        assert!(text.contains(piece), "no `{piece}` in\n{text}");
    }
    let table = |format: &str| lab.run(["table", "x.toml", "--format", format]).expect(0).stdout;
    let csv = table("csv");
    assert_eq!(
        csv,
        "label,words_mean,words_mean_published,words_rows,words_rows_published,missing\n\
         text,3.0,2.5,2.0,,\nother,1.0,,2.0,,\nnobody,,9.0,,,published only\n"
    );
    let markdown = table("markdown");
    assert!(
        markdown.lines().any(|line| line.starts_with("| text |") || line.starts_with("| text ")),
        "{markdown}"
    );
    let json: Value = serde_json::from_str(&table("json")).unwrap();
    let cell = &json["rows"][0]["cells"][0];
    assert_eq!((&cell["value"]["number"], &cell["published"]), (&Value::from(3.0), &Value::from(2.5)));
    // Every number names the artifact that it came from, and that artifact has it.
    let artifact = cell["provenance"][0]["artifact"].as_str().unwrap();
    lab.run(["show", "x.toml", "scores[field=text]"]).expect(0).shows(&[artifact, "words_mean = 3.0"]);
    assert_eq!(json["deltas"][0]["cells"][0]["ours"], 2.0);

    lab.run(["table", "x.toml", "--set", "stages.some.take.count=1"]).expect(3).shows(&["has not been run"]);
    lab.write("y.toml", "[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs.out = {}\n");
    lab.run(["table", "y.toml"]).expect(2).says(&["y.toml has no `[table]`"]);
}

#[test]
fn a_profile_says_its_note_in_the_table() {
    let lab = words();
    let told = lab.run(["run", "x.toml", "--profile", "short"]).expect(0);
    let _ = told.shows(&[
        "The short one.",
        "Nothing says whether these numbers are comparable with the published ones.",
    ]);
}

#[test]
fn graph_draws_the_stages_with_what_would_happen() {
    let lab = words();
    let graph = |format: &str| lab.run(["graph", "x.toml", "--format", format]).expect(0).stdout;
    let dot = graph("dot");
    assert!(
        dot.starts_with("digraph") && dot.contains("rows") && dot.contains("->") && dot.contains("scores"),
        "{dot}"
    );
    let mermaid = graph("mermaid");
    assert!(mermaid.contains("flowchart") && mermaid.contains("scores"), "{mermaid}");
    let svg = graph("svg");
    assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{svg}");
    lab.run(["run", "x.toml"]).expect(0);
    assert_ne!(graph("dot"), dot, "what is done looks otherwise");
}

#[test]
fn show_looks_into_a_result() {
    let lab = words();
    lab.run(["run", "x.toml"]).expect(0);
    let told = lab.run(["show", "x.toml", "some", "--rows", "1"]).expect(0);
    let told = told.shows(&[
        "some: subset version 2",
        "seed        11",
        "\"take\":{\"count\":2}",
        "output rows (rows)",
        "blake3:",
    ]);
    assert_eq!(
        told.stdout.lines().filter(|line| line.starts_with("    {\"id\"")).count(),
        1,
        "{}",
        told.stdout
    );
    lab.run(["show", "x.toml", "scores"]).expect(2).says(&["scores[field=text]", "name one of them"]);
    lab.run(["show", "x.toml", "some", "--output", "row"])
        .expect(2)
        .says(&["no output `row`; it has rows, report"]);
    lab.run(["show", "x.toml", "some", "--file", "x"]).expect(2).says(&["made no file `x`"]);
    lab.run(["show", "x.toml", "some", "--set", "stages.some.take.count=1"])
        .expect(2)
        .says(&["has not been made"]);
}

#[test]
fn log_prints_what_a_stage_wrote() {
    let lab = words();
    lab.run(["run", "x.toml"]).expect(0);
    lab.run(["log", "x.toml", "some"]).expect(0).shows(&["2 of 3 rows"]);
    let path = lab.run(["log", "x.toml", "some", "--path"]).expect(0).stdout;
    assert!(std::path::Path::new(path.trim()).exists(), "{path}");
    lab.run(["log", "x.toml", "some", "--set", "stages.some.take.count=1"]).expect(2).says(&["has no log"]);
}

#[test]
fn cache_ls_lists_and_sums_up() {
    let lab = words();
    lab.run(["cache", "ls"]).expect(4).says(&["there is no cache"]);
    lab.run(["cache", "verify"]).expect(4).says(&["there is no cache"]);
    assert!(!lab.cache().exists(), "looking makes nothing");
    lab.run(["run", "x.toml"]).expect(0);
    let told =
        lab.run(["cache", "ls"]).expect(0).shows(&["source", "subset", "evaluate", "4 results, 6 artifacts"]);
    assert_eq!(told.stdout.lines().count(), 5);
    lab.run(["cache", "verify"]).expect(0).shows(&["0 corrupt"]);
}

#[test]
fn events_tell_the_story_line_by_line() {
    let lab = words();
    let told = lab.run(["run", "x.toml", "--json"]).expect(0);
    let events = told.events();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(
        (names[0], names[names.len() - 2], names[names.len() - 1]),
        ("run-started", "run-finished", "table")
    );
    assert_eq!((events[0]["stages"].as_u64(), events[0]["hits"].as_u64()), (Some(4), Some(0)));
    let of = |stage: &str, name: &str| {
        let is_it = |event: &&Value| event["stage"] == stage && event["event"] == name;
        events.iter().position(|event| is_it(&event))
    };
    for stage in ["rows", "some", "scores[field=text]", "scores[field=other]"] {
        assert!(of(stage, "started") < of(stage, "finished") && of(stage, "started").is_some(), "{stage}");
    }
    assert!(of("rows", "finished") < of("some", "started"));
    let ended = &events[events.len() - 2];
    assert_eq!((ended["ran"].as_u64(), ended["failed"].as_u64()), (Some(4), Some(0)));
    assert_eq!(events[events.len() - 1]["table"]["title"], "Counting");

    lab.edit("x.toml", "other.field = \"other\"", "other.field = \"nothing\"");
    let events = lab.run(["run", "x.toml", "--json"]).expect(3).events();
    let failed = events.iter().find(|event| event["result"] == "failed").unwrap();
    assert_eq!(
        (failed["stage"].as_str(), failed["reason"].as_str()),
        (Some("scores[field=other]"), Some("failed"))
    );
    assert!(
        failed["message"].as_str().unwrap().contains("has no text `nothing`") && failed["log"].is_string()
    );
}

#[test]
fn piped_output_has_no_escape_codes() {
    let lab = words();
    let commands: &[&[&str]] = &[
        &["run", "x.toml"],
        &["run", "x.toml", "--force", "some"],
        &["plan", "x.toml", "--resolved"],
        &["why", "x.toml", "some"],
        &["status", "x.toml"],
        &["table", "x.toml"],
        &["show", "x.toml", "some"],
        &["graph", "x.toml"],
        &["doctor"],
        &["cache", "ls"],
        &["run", "nothing.toml"],
        &["run", "x.toml", "--set", "stages.some.take.count=many"],
        &["--help"],
        &["run", "--nothing"],
    ];
    for arguments in commands {
        // Even where the environment says nothing about colours.
        let mut command = lab.command(*arguments);
        let output = command.env_remove("NO_COLOR").env("TERM", "xterm-256color").output().unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(&0x1b), "{arguments:?}: {}", String::from_utf8_lossy(stream));
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = words();
    lab.run(["run", "x.toml"]).expect(0);
    // More than a pipe holds.
    let many: String = (0..3000)
        .map(|at| format!("[stages.s{at}]\nkind = \"command\"\nrun = \"echo {at}\"\noutputs.out = {{}}\n"))
        .collect();
    lab.write("many.toml", many);
    for arguments in [
        &["plan", "many.toml", "--resolved"][..],
        &["status", "many.toml"],
        &["graph", "many.toml"],
        &["schema"],
    ] {
        let mut child = lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_hide_a_failure() {
    let lab = words();
    lab.edit("x.toml", "other.field = \"other\"", "other.field = \"nothing\"");
    let mut child =
        lab.command(["run", "x.toml"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn doctor_says_what_there_is() {
    let told = Lab::new().run(["doctor"]).expect(0);
    let _ = told.shows(&[
        "program   pipeline ",
        "cores     ",
        "memory    ",
        "device    cpu",
        "sandbox   ",
        "not created yet",
        "$PIPELINE_DATA",
    ]);
}

#[test]
fn the_schema_is_json_and_knows_every_kind() {
    let told = Lab::new().run(["schema"]).expect(0);
    let schema: Value = serde_json::from_str(&told.stdout).unwrap();
    assert!(schema["$schema"].as_str().is_some_and(|address| address.contains("json-schema.org")));
    for kind in ["source", "compose", "subset", "merge", "evaluate", "command"] {
        assert!(told.stdout.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[test]
fn a_recipe_of_mergekit_becomes_stages_that_run() {
    let lab = Lab::new();
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    for (name, value) in [("one", 1f32), ("other", 3.0), ("origin", 0.5)] {
        lab.write(&format!("{name}/config.json"), "{}");
        let tensors = [&54u64.to_le_bytes()[..], header.as_bytes(), &value.to_le_bytes()].concat();
        lab.write(&format!("{name}/model.safetensors"), tensors);
    }
    lab.write(
        "ties.yml",
        "merge_method: ties\nbase_model: origin\nparameters: {density: 0.5}\nmodels:\n  \
         - {model: one, parameters: {weight: [1, 2]}}\n  - {model: other, parameters: {weight: 1}}\n",
    );
    let stages = lab.run(["import-mergekit", "ties.yml"]).expect(0).stdout;
    lab.write("x.toml", stages);
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().contains(&"merged".to_owned()));
    // A model with an adapter is the two, and they are put together on the way.
    let golden = project().join("stages/weights/tests/golden/lora");
    for (name, from, to) in [
        ("root", "base.safetensors", "model.safetensors"),
        ("tuned", "adapter_model.safetensors", "adapter_model.safetensors"),
        ("tuned", "adapter_config.json", "adapter_config.json"),
    ] {
        lab.write(&format!("{name}/{to}"), std::fs::read(golden.join(from)).unwrap());
    }
    lab.write("root/config.json", "{}");
    lab.write(
        "lora.yml",
        "merge_method: linear\nmodels:\n  - {model: root, parameters: {weight: 1}}\n  \
         - {model: root+tuned, parameters: {weight: 3}}\n",
    );
    let stages = lab.run(["import-mergekit", "lora.yml"]).expect(0).stdout;
    lab.write("x.toml", stages);
    let ran = lab.run(["run", "x.toml"]).expect(0).ran();
    assert!(["merged", "tuned"].iter().all(|stage| ran.iter().any(|one| one == stage)), "{ran:?}");
    lab.write("slerp.yml", "merge_method: slurp\nmodels: []\n");
    let told = lab.run(["import-mergekit", "slerp.yml"]).expect(2);
    told.says(&["slerp.yml", "`merge_method: slurp` is not supported", "slerp, linear"]);
}

#[test]
fn completions_are_scripts_that_the_shell_reads() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.run(["completions", shell]).expect(0).stdout;
        assert!(script.contains("pipeline") && script.contains("keep-going"), "{shell}");
        lab.write("script", &script);
        if let Ok(status) = Command::new(shell).arg("-n").arg(lab.path("script")).status() {
            assert!(status.success(), "{shell} does not read its script");
        }
    }
}

#[test]
fn a_command_line_that_is_wrong_is_told_and_nothing_happens() {
    let lab = words();
    lab.run(["runn", "x.toml"]).expect(2).says(&["runn", "run"]);
    lab.run(["run"]).expect(2).says(&["FILE"]);
    lab.run(["run", "nothing.toml"]).expect(2).says(&["nothing.toml"]);
    lab.run(["run", "x.toml", "--jobs", "0"]).expect(2).says(&["`--jobs` must be at least 1"]);
    lab.run(["run", "x.toml", "--until", "sum"]).expect(2).says(&["`sum`"]);
    lab.run(["run", "x.toml", "--until", "some", "--only", "some"]).expect(2).says(&["cannot be used with"]);
    lab.run(["run", "x.toml", "--device", "abacus"]).expect(2).says(&["abacus"]);
    lab.run(["run", "x.toml", "--force", "scores[field=texts]"]).expect(2).says(&["`texts`"]);
    assert!(lab.run(["status", "x.toml"]).expect(0).stdout.lines().all(|line| line.starts_with("missing")));
}

#[test]
fn a_cache_is_found_beside_the_workspace() {
    let lab = words();
    lab.write(
        "sub/y.toml",
        "[stages.a]\nkind = \"command\"\nrun = \"echo x > outputs/out/x\"\noutputs.out = {}\n",
    );
    std::fs::create_dir(lab.path(".git")).unwrap();
    let run = |folder: &str| {
        let mut command = lab.command(["run", "y.toml"]);
        crate::lab::Told::of(
            command.env_remove("PIPELINE_CACHE").current_dir(lab.path(folder)).output().unwrap(),
        )
    };
    assert_eq!(run("sub").expect(0).ran(), ["a"]);
    assert!(lab.cache().join("index.sqlite").exists());
    let elsewhere = lab.path("elsewhere");
    lab.run(["run", "sub/y.toml", "--cache", elsewhere.to_str().unwrap()]).expect(0);
    assert!(elsewhere.join("index.sqlite").exists());
}

#[test]
fn help_names_every_command() {
    let commands = [
        "run",
        "plan",
        "why",
        "status",
        "table",
        "graph",
        "show",
        "log",
        "cache",
        "schema",
        "doctor",
        "bench",
        "completions",
    ];
    let _ = Lab::new().run(["--help"]).expect(0).shows(&commands);
    for command in commands {
        Lab::new().run([command, "--help"]).expect(0).shows(&["Usage: pipeline"]);
    }
}
