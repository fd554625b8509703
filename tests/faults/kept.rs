//! What outlives a kill and is damaged before it is used: checkpoints and rows scored before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::graph::has_crashed;
use super::part::{Part, Random};
use crate::experiment::{self, experiment, tiny_llama, write_molecules};
use crate::lab::{Lab, below, signal, wait_until};

/// Kills a run when something is kept, with all that it started, and puts its cache aside.
fn kill_when(lab: &Lab, is_kept: impl Fn() -> bool) {
    let mut run = lab.spawn(["run", "x.toml"]);
    wait_until("something is kept", is_kept);
    for pid in below(run.id()).into_iter().chain([run.id()]) {
        signal(pid, Signal::KILL);
    }
    assert!(!run.wait().expect("the run ends").success(), "it was to be killed");
    super::graph::left_running(lab);
    copy(&lab.cache(), &lab.path("aside"));
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().is_ok_and(|copied| copied.success()));
}

/// Returns the files that are kept for the next attempt.
fn kept(lab: &Lab) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![lab.cache().join("work")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.components().any(|part| part.as_os_str() == "keep") {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// Damages a kept file; returns how.
fn damage(path: &Path, random: &mut Random) -> String {
    let bytes = fs::read(path).expect("it can be read");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut changed = bytes.clone();
    let at = random.below(bytes.len().max(1));
    match random.below(6) {
        0 | 1 => {
            changed[at] ^= 1 << random.below(8);
            fs::write(path, changed).expect("it is ours");
            format!("a bit of {name} at {at} flipped")
        }
        2 => {
            // A digit: what can be read as well as before, and says something else.
            let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
            if digits.is_empty() {
                changed[at] ^= 64
            } else {
                let at = *random.choose(&digits);
                changed[at] = b'0' + (changed[at] - b'0' + 1) % 10;
            }
            fs::write(path, changed).expect("it is ours");
            format!("a digit of {name} changed")
        }
        3 => {
            fs::write(path, &bytes[..at]).expect("it is ours");
            format!("{name} cut at {at}")
        }
        4 => {
            fs::remove_file(path).expect("it is ours");
            format!("{name} removed")
        }
        _ => {
            fs::write(path, "garbage\n").expect("it is ours");
            format!("{name} replaced")
        }
    }
}

/// Damages what is kept, again and again, and compares what the next run makes of it.
fn damage_and_go_on(mut part: Part, at_least: u32, lab: &Lab, made: impl Fn() -> String, whole: &str) {
    while part.tries_again(at_least) {
        copy(&lab.path("aside"), &lab.cache());
        let files = kept(lab);
        let file = part.random.choose(&files).clone();
        let how = damage(&file, &mut part.random);
        let told = lab.run(["run", "x.toml"]);
        if has_crashed(&told) {
            part.problem("crashed", format!("{how}: {told:?}"));
        }
        if told.code != 0 {
            part.problem("does not go on", format!("{how}: {told:?}"));
        } else if made() != whole {
            part.problem("wrong", format!("{how}: another result"));
        }
    }
    part.finish();
}

const COUNTED: &[&str] = &["wrong", "does not go on", "crashed"];

#[test]
fn checkpoints_of_a_training() {
    let part = Part::begin("damaged checkpoints", COUNTED);
    let training = || {
        let lab = experiment::training()
            .set("learning_rate", 0.01)
            .set("length.steps", 800)
            .set("evals_per_epoch", 1)
            .set("model.llama", tiny_llama())
            .lab();
        write_molecules(&lab);
        lab
    };
    let made = |lab: &Lab| {
        let show = |output: &str| lab.run(["show", "x.toml", "model", "--output", output]).expect(0).stdout;
        format!("{}{}", show("model"), show("curves"))
    };
    let whole = training();
    whole.run(["run", "x.toml"]).expect(0);
    let lab = training();
    let is_late = |path: &PathBuf| {
        let step = path
            .parent()
            .and_then(|folder| folder.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok());
        step.is_some_and(|step: u32| step > 50)
    };
    kill_when(&lab, || kept(&lab).iter().any(is_late));
    damage_and_go_on(part, 6, &lab, || made(&lab), &made(&whole));
}

#[test]
fn rows_that_were_scored_before() {
    let part = Part::begin("damaged rows that were scored before", COUNTED);
    // Rows of the first batch take no time, and those of the second a while.
    let scoring = || {
        let lab = experiment()
            .stage("outputs", "source")
            .set("path", "outputs.tsv")
            .stage("scores", "evaluate")
            .input("rows", "outputs")
            .set("direction", "cap2mol")
            .set("field", "guess")
            .set("metrics", ["character", "levenshtein", "bleu"].as_slice())
            .lab();
        let quick = (0..2_048)
            .map(|row| format!("r{row}\tCC{}O\tx\tC{}O\n", "C".repeat(row % 7), "N".repeat(row % 5)));
        let slow = (0..30).map(|row| {
            let line =
                |first: &str, second: &str| format!("{}{}", first.repeat(30 + row % 5), second.repeat(40));
            format!("s{row}\t{}\tx\t{}\n", line("CCO", "N"), line("N", "OCC"))
        });
        let rows: String = quick.chain(slow).collect();
        lab.write("outputs.tsv", format!("id\tmolecule\tcaption\tguess\n{rows}"));
        lab
    };
    let made = |lab: &Lab| ["metrics.json", "rows.jsonl"].map(|file| lab.made("scores", file)).concat();
    let whole = scoring();
    whole.run(["run", "x.toml"]).expect(0);
    let lab = scoring();
    kill_when(&lab, || kept(&lab).iter().any(|path| path.metadata().is_ok_and(|kept| kept.len() > 0)));
    damage_and_go_on(part, 4, &lab, || made(&lab), &made(&whole));
}
