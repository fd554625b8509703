//! Eight runs on one cache at once, some of them killed.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::graph::{Undisturbed, graph, left_running, recovers};
use super::part::Part;
use crate::lab::{Lab, Told, signal};

const RUNS: usize = 8;

fn start(lab: &Lab) -> Child {
    let mut command = lab.command(["run", "x.toml", "--json", "--jobs", "2"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

/// Counts how often each stage was executed to its end, by what the runs tell. A killed run may
/// have been killed before it told.
fn executions(told: &[Told]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in told.iter().flat_map(|told| told.stdout.lines()) {
        // The last line of a killed run may be half a line.
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if event["event"] == "finished" && event["result"] == "ran" {
            *counts.entry(event["stage"].as_str().expect("a label").to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn eight_runs_do_each_piece_of_work_once() {
    let mut part = Part::begin("eight runs at once", &["wrong", "done twice", "not done"]);
    let undisturbed = Undisturbed::run();
    while part.tries_again(1) {
        let lab = graph();
        let runs: Vec<Child> = (0..RUNS).map(|_| start(&lab)).collect();
        let told: Vec<Told> = runs.into_iter().map(|run| lab.told(run)).collect();
        for told in told.iter().filter(|told| told.code != 0) {
            part.problem("wrong", format!("{told:?}"));
        }
        let executions = executions(&told);
        for (stage, count) in executions.iter().filter(|(_, count)| **count > 1) {
            part.problem("done twice", format!("{stage}: {count} times"));
        }
        let all = lab.run(["plan", "x.toml", "--json"]).stdout.matches("\"stage\":").count();
        if executions.len() != all {
            part.problem("not done", format!("{} of {all}", executions.len()));
        }
        if let Err(how) = recovers(&lab, undisturbed) {
            part.problem("wrong", how);
        }
    }
    part.finish();
}

#[test]
fn six_of_eight_runs_killed_cost_the_others_nothing() {
    let mut part = Part::begin("six of eight runs killed", &["wrong", "done twice", "left running"]);
    let undisturbed = Undisturbed::run();
    while part.tries_again(1) {
        let lab = graph();
        let mut runs: Vec<Child> = (0..RUNS).map(|_| start(&lab)).collect();
        for run in &runs[2..] {
            std::thread::sleep(part.random.moment(undisturbed.took / 3));
            signal(run.id(), Signal::KILL);
        }
        let killed = runs.split_off(2);
        let killed: Vec<Told> = killed.into_iter().map(|run| lab.told(run)).collect();
        let told: Vec<Told> = runs.into_iter().map(|run| lab.told(run)).collect();
        for told in told.iter().filter(|told| told.code != 0) {
            part.problem("wrong", format!("{told:?}"));
        }
        let all: Vec<Told> = killed.into_iter().chain(told).collect();
        for (stage, count) in executions(&all).iter().filter(|(_, count)| **count > 1) {
            part.problem("done twice", format!("{stage}: {count} times"));
        }
        let left = left_running(&lab);
        if !left.is_empty() {
            part.problem("left running", format!("{left:?}"));
        }
        if let Err(how) = recovers(&lab, undisturbed) {
            part.problem("wrong", how);
        }
    }
    part.finish();
}
