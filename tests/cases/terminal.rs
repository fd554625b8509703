//! What strangers wrote reaches no terminal as a command to it.

use std::fs;
use std::process::{Command, Stdio};

use crate::lab::{Lab, Told};

/// A title for the window, hidden text, a bell, an escape of eight bits, and writing turned around.
const HOSTILE: &str = "\u{1b}]0;PWNED\u{7}\u{1b}[8;5m\u{9b}31m\u{7f}\u{202e}\u{2066}";

/// An experiment with something hostile wherever text can stand. `HERE` becomes it, in TOML's
/// escapes; `RAW` becomes what TOML takes as it is.
const EXPERIMENT: &str = r#"
# RAW
[experiment]
title = "Title HERE"

[stages.rows]
kind = "source"
path = "rows HERE.tsv"
about = "Get it at HERE"

[stages.some]
kind = "subset"
inputs = { rows = "rows" }
take.count = 2

[stages.talks]
kind = "command"
run = "cat files/*; cp files/* outputs/out/; cat files/* > outputs/out/rows.jsonl; cp files/config.json outputs/out/"
files = ["noise HERE.txt", "config.json"]
parameters = { word = "HERE" }
outputs.out = {}

[stages.scores]
kind = "command"
run = "cp files/metrics.json outputs/scores/"
files = ["metrics.json"]
outputs.scores = { type = "scores", columns = ["n HERE", "m"] }

[stages.scores.axes.number]
field = "parameters.word"
values = ["aRAW", "b"]

[stages.fails]
kind = "command"
run = "cat files/* >&2; exit 3"
files = ["noise HERE.txt"]
outputs.out = {}

[profile.mini]
note = "Profile HERE"

[table]
columns = [{ metric = "n HERE", label = "column HERE" }, { metric = "m", label = "m" }]
title = "Table HERE"

[table.rows."row HERE"]
from = "scores[number=aRAW]"

[table.rows.other]
from = "scores[number=b]"

[table.deltas."row HERE - other"]
"#;

/// Runs all stages: the table and what it does not read.
const ALL: [&str; 7] = ["run", "x.toml", "-k", "--force", "talks", "--force", "fails"];

fn hostile() -> Lab {
    let lab = Lab::new();
    let escaped: String = HOSTILE.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    lab.write("x.toml", EXPERIMENT.replace("HERE", &escaped).replace("RAW", "\u{202e}\u{2066}"));
    lab.write(&format!("rows {HOSTILE}.tsv"), format!("id\ttext\n1\t{HOSTILE}\n2\tb\n3\tc\n"));
    lab.write(
        &format!("noise {HOSTILE}.txt"),
        format!("noise {HOSTILE}\n{{\"text\": \"{HOSTILE}\"}}\n\u{9b}\n"),
    );
    lab.write("config.json", serde_json::json!({ "model_type": HOSTILE, HOSTILE: 1 }).to_string());
    let metric = format!("n {HOSTILE}");
    let reason = format!("because {HOSTILE}");
    lab.write("metrics.json", serde_json::json!({ metric: 1, "m": { "missing": reason } }).to_string());
    lab
}

/// Returns the first character that a terminal would act on, with what stands around it.
fn first_command(text: &str) -> Option<String> {
    let acts = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let at = text.find(acts)?;
    let from = text.floor_char_boundary(at.saturating_sub(40));
    Some(text[from..].chars().take(80).collect::<String>().escape_debug().to_string())
}

#[track_caller]
fn is_clean(what: &[&str], told: &Told) {
    for text in [&told.stdout, &told.stderr] {
        assert_eq!(first_command(text), None, "pipeline {what:?}");
    }
    assert!(!told.stdout.is_empty() || !told.stderr.is_empty(), "pipeline {what:?} says nothing");
}

#[test]
fn no_command_prints_what_a_terminal_would_act_on() {
    let lab = hostile();
    // Where nothing has been made, while everything is there, and where something is wrong.
    let looks: &[&[&str]] = &[
        &["plan", "x.toml"],
        &["plan", "x.toml", "--resolved", "--keys"],
        &["plan", "x.toml", "--json"],
        &["why", "x.toml", "talks"],
        &["why", "x.toml", "talks", "--set", "stages.talks.parameters.word=\"other\""],
        &["why", "x.toml", "scores"],
        &["status", "x.toml"],
        &["table", "x.toml"],
        &["table", "x.toml", "--format", "markdown"],
        &["table", "x.toml", "--format", "csv"],
        &["table", "x.toml", "--format", "json"],
        &["graph", "x.toml"],
        &["graph", "x.toml", "--format", "mermaid"],
        &["graph", "x.toml", "--format", "svg"],
        &["show", "x.toml", "rows"],
        &["show", "x.toml", "some"],
        &["show", "x.toml", "talks"],
        &["show", "x.toml", "scores"],
        &["show", "x.toml", "scores[number=b]"],
        &["show", "x.toml", "nothing\u{1b}[8;5m"],
        &["show", "x.toml", "talks", "--output", "none\u{1b}[8;5m"],
        &["show", "x.toml", "talks", "--file", "none\u{1b}[8;5m"],
        &["log", "x.toml", "fails", "--path"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["plan", "absent\u{1b}[8;5m.toml"],
        &["plan", "x.toml", "--profile", "none\u{1b}[8;5m"],
        &["plan", "x.toml", "--set", "stages.none\u{1b}[8;5m=1"],
        &["plan", "x.toml", "--none\u{1b}[8;5m"],
        &["doctor", "--cache", "cache\u{1b}[8;5m"],
        &["doctor", "--model", "model\u{1b}[8;5m"],
        &["import-mergekit", "absent\u{1b}[8;5m"],
    ];
    let mut outputs = 0;
    let mut all = |lab: &Lab| {
        for arguments in looks {
            is_clean(arguments, &lab.run(*arguments));
            outputs += 2;
        }
    };
    all(&lab);
    for more in [&[][..], &["--json"], &["--format", "csv"]] {
        let arguments = [&ALL, more].concat();
        let told = lab.run(&arguments).expect(3);
        is_clean(&arguments, &told);
        // What failed is told with its log, and its words can be read.
        assert!(format!("{}{}", told.stdout, told.stderr).contains("PWNED"), "{told:?}");
    }
    all(&lab);
    assert!(outputs >= 120, "{outputs}");
    // What a program reads has the same values as ever.
    let plan = lab.run(["plan", "x.toml", "--json"]).expect(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let stages: Vec<&str> =
        plan.as_array().unwrap().iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert!(stages.contains(&"scores[number=a\u{202e}\u{2066}]"), "{stages:?}");
}

#[test]
fn a_damaged_cache_and_a_wrong_experiment_are_told_without_commands() {
    let lab = hostile();
    lab.run(ALL).expect(3);
    lab.damage(&fs::read(lab.path(&format!("noise {HOSTILE}.txt"))).unwrap());
    for arguments in
        [&["cache", "verify"][..], &["show", "x.toml", "talks"], &["cache", "verify", "--repair"]]
    {
        is_clean(arguments, &lab.run(arguments));
    }
    // Wrong in every way in which a file can be: each report shows the line.
    let escaped: String = HOSTILE.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    for wrong in [
        format!("[stages.a]\nkind = \"{escaped}\"\n"),
        format!("[stages.a]\nkind = \"source\"\n\"{escaped}\" = 1\npath = \"x\"\n"),
        format!("[stages.\"{escaped}\"]\nkind = \"source\"\n"),
        format!("[stages.a]\nkind = \"source\"\npath = \"{escaped}\"\nabout = \"{escaped}\"\n"),
        format!("[stages.a]\nkind = \"source\" # {HOSTILE}\npath = 1 # {HOSTILE}\n"),
        format!("[stages.a]\nkind = \"command\"\nrun = \"x\"\noutputs.\"{escaped}\" = {{}}\n"),
        format!("[stages.a]\nkind = \"command\"\nrun = \"x\"\noutputs.o = {{}}\ninputs.x = \"{escaped}\"\n"),
        format!("[experiment]\ninclude = [\"{escaped}\"]\n"),
        HOSTILE.to_owned(),
    ] {
        lab.write("wrong.toml", wrong);
        is_clean(&["plan", "wrong.toml"], &lab.run(["plan", "wrong.toml"]).expect(2));
    }
    // A model's configuration is a stranger's too.
    let model = "stranger/config.json";
    lab.write(model, serde_json::json!({ "model_type": HOSTILE, "architectures": [HOSTILE] }).to_string());
    is_clean(&["doctor", "--model"], &lab.run(["doctor", "--model", "stranger"]));
}

#[test]
fn files_and_logs_are_written_as_they_are_where_programs_read() {
    let lab = hostile();
    lab.run(ALL).expect(3);
    let noise = fs::read(lab.path(&format!("noise {HOSTILE}.txt"))).unwrap();
    let inside = format!("noise {HOSTILE}.txt");
    let output = lab.command(["show", "x.toml", "talks", "--file", &inside]).output().unwrap();
    assert_eq!(output.stdout, noise);
    let log = lab.command(["log", "x.toml", "talks"]).output().unwrap().stdout;
    assert!(log.windows(HOSTILE.len()).any(|window| window == HOSTILE.as_bytes()), "{log:?}");
    // On a terminal the log is printable.
    if let Some(log) = on_a_terminal(&lab, "log x.toml talks", "files_and_logs_are_written_as_they_are") {
        assert_eq!(first_command(&log.replace('\r', "")), None);
        assert!(log.contains("␛]0;PWNED␇␛[8;5m�31m␡��"), "{log:?}");
    }
}

/// Runs the program on a pseudo terminal and returns what arrives there, or says that it is skipped.
fn on_a_terminal(lab: &Lab, arguments: &str, test: &str) -> Option<String> {
    let line = format!("\"$PROGRAM\" {arguments}; exit 0");
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(lab.path("")).stdin(Stdio::null());
    command.env("PROGRAM", env!("CARGO_BIN_EXE_pipeline")).env("PIPELINE_CACHE", lab.cache());
    command
        .env_remove("PIPELINE_DATA")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh");
    match command.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            eprintln!("SKIPPED: {test}: `script` cannot be started: {error}");
            None
        }
    }
}

/// Takes away what the bars and the reports are made of: colours, and moves of the cursor.
fn without_own_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let parameters = &rest[at + 2..];
        let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != '?').unwrap_or(0);
        assert!(
            matches!(
                parameters[end..].chars().next(),
                Some('m' | 'A' | 'B' | 'C' | 'D' | 'G' | 'H' | 'K' | 'J' | 'h' | 'l')
            ),
            "not an escape of ours: {:?}",
            &rest[at..].chars().take(20).collect::<String>()
        );
        rest = &parameters[end + 1..];
    }
    out.push_str(rest);
    out.replace('\r', "")
}

#[test]
fn bars_and_coloured_reports_have_no_escapes_but_their_own() {
    let lab = hostile();
    let test = "bars_and_coloured_reports_have_no_escapes_but_their_own";
    let Some(live) = on_a_terminal(&lab, "run x.toml -k", test) else {
        return;
    };
    assert!(live.contains("\u{1b}[") && live.contains("of 6 stages"), "bars are shown: {live:?}");
    assert!(!live.contains("\u{1b}[8;5m"), "{live:?}");
    assert_eq!(first_command(&without_own_escapes(&live)), None);
    assert!(live.contains("PWNED"), "the log of what failed is shown: {live:?}");

    lab.write("wrong.toml", format!("[stages.a]\nkind = \"source\"\npath = 1 # {HOSTILE}\nmore = 2\n"));
    let report = on_a_terminal(&lab, "plan wrong.toml", test).unwrap();
    assert!(report.contains("\u{1b}[3") && report.contains("wrong.toml"), "it is coloured: {report:?}");
    assert!(!report.contains("\u{1b}[8;5m"), "{report:?}");
    assert_eq!(first_command(&without_own_escapes(&report)), None);
}

#[test]
fn only_one_file_names_the_streams() {
    let folder = crate::lab::project().join("src");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let is_terminal = path.ends_with("terminal.rs");
        for name in ["io::stdout", "io::stderr", "println!", "print!("] {
            assert!(
                is_terminal || !text.contains(name),
                "{} names `{name}`; print through src/terminal.rs",
                path.display()
            );
        }
    }
}
