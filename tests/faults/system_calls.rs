//! Kills and errors at single system calls, by `strace`.

use std::process::{Command, Stdio};

use super::graph::{Undisturbed, graph, has_crashed, left_running, recovers};
use super::part::{Part, skipped};
use crate::lab::{Lab, Told};

/// Calls by which results are kept; programs of the experiment make few of them. A question mark
/// lets through what the processor's system does not have.
const KEEPING: &[&str] = &[
    "?rename",
    "fsync",
    "pwrite64",
    "?unlink",
    "unlinkat",
    "?mkdir",
    "?rmdir",
    "flock",
    "fcntl",
    "?symlink",
    "fchmod",
    "copy_file_range",
    "getdents64",
];

/// Calls that everybody makes, programs of the experiment too.
const COMMON: &[&str] =
    &["openat", "read", "write", "mmap", "clone3", "execve", "pipe2", "?poll", "statx", "wait4"];

const ERRORS: &[&str] = &["EIO", "ENOSPC", "EAGAIN", "EMFILE"];

/// Runs the experiment with something done at one system call, of whichever thread comes to it
/// first. None, and a word about it, where there is no `strace` or it may not trace.
fn run_with(lab: &Lab, call: &str, what: &str, when: usize) -> Option<Told> {
    let plain = lab.command(["run", "x.toml"]);
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:{what}:when={when}")]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(lab.path("")).stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().ok().map(Told::of)
}

fn cannot_trace(test: &str) -> bool {
    let traced = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        skipped(test, "there is no `strace` here, or it may not trace");
    }
    !can
}

/// Does something at a random call, and has the next run finish.
fn inject(mut part: Part, at_least: u32, calls: &[&str], effects: &[String], crash_is_wrong: bool) {
    let undisturbed = Undisturbed::run();
    while part.tries_again(at_least) {
        let lab = graph();
        let call = part.random.choose(calls).to_owned();
        let effect = part.random.choose(effects).clone();
        // Early calls are those that all runs make; a thread of a stage makes few.
        let most = *part.random.choose(&[1, 3, 12]);
        let when = 1 + part.random.below(most);
        let told = run_with(&lab, call, &effect, when).expect("it could trace a moment ago");
        let how = format!("{effect} at {call} number {when}");
        part.count(if told.code == 0 { "not hit, or overcome" } else { "hit" });
        if crash_is_wrong && has_crashed(&told) {
            part.problem("crashed", format!("{how}: {told:?}"));
        }
        let left = left_running(&lab);
        if !left.is_empty() {
            part.problem("left running", format!("{how}: {left:?}"));
        }
        if let Err(problem) = recovers(&lab, undisturbed) {
            part.problem("wrong", format!("{how}: {problem}"));
        }
    }
    part.finish();
}

#[test]
fn a_kill_at_a_call_by_which_results_are_kept() {
    if cannot_trace("a_kill_at_a_call_by_which_results_are_kept") {
        return;
    }
    let part = Part::begin("kills at system calls", &["wrong", "left running", "hit"]);
    inject(part, 4, KEEPING, &["signal=KILL".to_owned()], false);
}

#[test]
fn an_error_of_a_call_by_which_results_are_kept() {
    if cannot_trace("an_error_of_a_call_by_which_results_are_kept") {
        return;
    }
    let part = Part::begin("errors of system calls", &["wrong", "crashed", "left running", "hit"]);
    let effects: Vec<String> = ERRORS.iter().map(|error| format!("error={error}")).collect();
    inject(part, 5, KEEPING, &effects, true);
}

/// Programs are hit too: what they do then is not looked into, but nothing of it is kept as made.
#[test]
fn a_kill_or_an_error_of_a_call_that_programs_make() {
    if cannot_trace("a_kill_or_an_error_of_a_call_that_programs_make") {
        return;
    }
    let part = Part::begin("kills and errors of common system calls", &["wrong", "left running", "hit"]);
    let mut effects: Vec<String> = ERRORS.iter().map(|error| format!("error={error}")).collect();
    effects.push("signal=KILL".to_owned());
    inject(part, 5, COMMON, &effects, false);
}
