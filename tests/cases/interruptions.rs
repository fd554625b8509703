//! Ctrl-C: once finishes cleanly, twice stops now.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::ChildStderr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::failures::{long_worker, worker_below};
use crate::experiment::experiment;
use crate::lab::{Lab, processes_naming, signal, wait_until};

/// `first` waits at the gate, `second` reads it.
fn gated() -> Lab {
    let lab = Lab::new();
    let experiment = experiment()
        .command("first", &format!("{}; echo one > outputs/out/x", lab.gate("gate")))
        .command("second", "cat inputs/x/x inputs/x/x > outputs/out/x")
        .input("x", "first")
        .scores("scores", ["n"], r#"echo '{"n": 2}' > outputs/scores/metrics.json"#)
        .input("x", "second")
        .table(["n"])
        .row("all", "scores");
    lab.write("x.toml", experiment.to_string());
    lab
}

fn wait_until_running(lab: &Lab) {
    wait_until("the first stage runs", || lab.run(["status", "x.toml"]).stdout.contains("running  first"));
}

/// Waits until the run has reported a first signal, and returns what it wrote so far.
///
/// # Panics
/// If it ends without, or does not in a minute.
pub(super) fn wait_for_signal_report(stderr: &ChildStderr) -> String {
    let mut stderr = File::from(stderr.as_fd().try_clone_to_owned().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut written = String::new();
        let mut byte = [0];
        // What comes after it is left to be read by others.
        while !written.contains("press Ctrl-C again") && stderr.read(&mut byte).unwrap() == 1 {
            written.push(char::from(byte[0]));
        }
        sender.send(written)
    });
    let written = receiver.recv_timeout(Duration::from_secs(60)).expect("the signal is reported in a minute");
    assert!(written.contains("press Ctrl-C again"), "ended: {written}");
    written
}

#[test]
fn once_lets_what_runs_end_and_begins_nothing() {
    for how in [Signal::INT, Signal::TERM] {
        let lab = gated();
        let mut child = lab.spawn(["run", "x.toml"]);
        wait_until_running(&lab);
        signal(child.id(), how);
        let mut stderr = child.stderr.take().unwrap();
        wait_for_signal_report(&stderr);
        lab.write("gate", "");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{rest}");
        assert!(output.stdout.is_empty(), "half a table is no table");
        assert!(
            rest.contains("ran       first") && rest.contains("1 ran, 0 reused, 2 skipped, interrupted"),
            "{rest}"
        );
        assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["scores", "second"]);
    }
}

#[test]
fn twice_stops_now() {
    let lab = gated();
    let mut child = lab.spawn(["run", "x.toml"]);
    wait_until_running(&lab);
    let stderr = child.stderr.take().unwrap();
    signal(child.id(), Signal::INT);
    wait_for_signal_report(&stderr);
    signal(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
    assert!(
        lab.run(["status", "x.toml"]).expect(0).stdout.contains("first   interrupted"),
        "{:?}",
        lab.run(["status", "x.toml"])
    );
    lab.write("gate", "");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["first", "scores", "second"]);
}

#[test]
fn an_interrupted_stage_is_not_retried() {
    let lab = gated();
    lab.edit("x.toml", "[stages.second]", "retries = 5\n\n[stages.second]");
    let mut child = lab.spawn(["run", "x.toml"]);
    wait_until_running(&lab);
    let mut stderr = child.stderr.take().unwrap();
    signal(child.id(), Signal::INT);
    wait_for_signal_report(&stderr);
    signal(child.id(), Signal::INT);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!rest.contains("retry"), "{rest}");
}

#[test]
fn a_run_that_only_waits_for_another_can_be_interrupted() {
    let lab = gated();
    let one = lab.spawn(["run", "x.toml"]);
    wait_until_running(&lab);
    let mut other = lab.spawn(["run", "x.toml"]);
    let mut stderr = other.stderr.take().unwrap();
    let mut said = [0; 8];
    std::io::Read::read_exact(&mut stderr, &mut said).unwrap();
    assert_eq!(&said, b"wait    ");
    signal(other.id(), Signal::INT);
    assert_eq!(other.wait().unwrap().code(), Some(130));
    lab.write("gate", "");
    assert_eq!(lab.told(one).expect(0).ran(), ["first", "scores", "second"]);
}

#[test]
fn twice_stops_a_worker_too() {
    let lab = long_worker();
    let mut child = lab.spawn(["run", "x.toml"]);
    worker_below(child.id());
    let stderr = child.stderr.take().unwrap();
    signal(child.id(), Signal::INT);
    wait_for_signal_report(&stderr);
    signal(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
}
