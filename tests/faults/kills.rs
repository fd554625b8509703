//! SIGKILL at random moments: of the run, of a worker, of a program and what it started.

use std::time::Duration;

use rustix::process::Signal;

use super::graph::{STAGES, Undisturbed, graph, left_running, recovers, start, start_and_wait, victims};
use super::part::{Part, skipped};
use crate::lab::{Lab, below, signal};

/// How many kills one cache takes before it must complete.
const KILLS_OF_A_CACHE: u32 = 3;

/// Kills at random, before so many stages are done; `choose` says whom.
fn kill(mut part: Part, at_least: u32, stages: usize, choose: impl Fn(&mut Part, u32) -> Option<u32>) {
    let undisturbed = Undisturbed::run();
    let mut lab = graph();
    let mut kills = 0;
    while part.tries_again(at_least) {
        let mut run = start_and_wait(&lab, part.random.below(stages));
        std::thread::sleep(part.random.moment(Duration::from_millis(30)));
        loop {
            if let Some(victim) = choose(&mut part, run.id()) {
                signal(victim, Signal::KILL);
                break;
            }
            // Between two stages there is nobody to kill, and after the last one neither.
            if run.try_wait().expect("it is ours").is_some() {
                part.count("missed");
                break;
            }
        }
        run.wait().expect("the run ends");
        let left = left_running(&lab);
        if !left.is_empty() {
            part.problem("left running", format!("{left:?}"));
        }
        kills += 1;
        if kills % KILLS_OF_A_CACHE == 0 {
            if let Err(how) = recovers(&lab, undisturbed) {
                part.problem("wrong", how);
            }
            lab = graph();
        }
    }
    if kills % KILLS_OF_A_CACHE != 0
        && let Err(how) = recovers(&lab, undisturbed)
    {
        part.problem("wrong", how);
    }
    part.finish();
}

#[test]
fn of_runs() {
    let part = Part::begin("kills of the run at random", &["wrong", "left running", "missed"]);
    kill(part, 3, STAGES, |_, run| Some(run));
}

#[test]
fn of_workers() {
    let part = Part::begin("kills of a worker at random", &["wrong", "left running", "missed"]);
    kill(part, 3, 4, |part, run| {
        let workers = victims(run, true);
        (!workers.is_empty()).then(|| *part.random.choose(&workers))
    });
}

#[test]
fn of_programs_and_their_children() {
    let part = Part::begin("kills of a program or its child at random", &["wrong", "left running", "missed"]);
    kill(part, 3, STAGES - 4, |part, run| {
        let programs = victims(run, false);
        (!programs.is_empty()).then(|| *part.random.choose(&programs))
    });
}

/// A supervisor ends what its program leaves; where it is killed itself, the run does.
#[test]
fn of_supervisors() {
    let part = Part::begin("kills of a supervisor at random", &["wrong", "left running", "missed"]);
    kill(part, 3, STAGES - 4, |part, run| {
        let is_supervisor = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"pipeline-stage\n")
        };
        let supervisors: Vec<u32> = below(run).into_iter().filter(is_supervisor).collect();
        (!supervisors.is_empty()).then(|| *part.random.choose(&supervisors))
    });
}

/// A program that leaves its session is a descendant still.
#[test]
fn what_leaves_its_session_does_not_outlive_its_stage() {
    let mut part = Part::begin("programs that leave their session", &["left running"]);
    if std::process::Command::new("setsid").arg("true").status().is_err() {
        return skipped("what_leaves_its_session_does_not_outlive_its_stage", "there is no `setsid` here");
    }
    let stage = |run: &str, more: &str| {
        let run = serde_json::Value::from(run);
        Lab::with(&format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n{more}\n"))
    };
    let stays = "setsid sleep 300 > /dev/null 2>&1 & setsid setsid sleep 300 > tmp/x 2>&1 &";
    for (run, more, code) in [
        (format!("{stays} echo made > outputs/out/x"), "", 0),
        (format!("{stays} sleep 300"), "timeout_seconds = 0.5", 3),
        (format!("{stays} exit 3"), "", 3),
    ] {
        part.tries();
        let lab = stage(&run, more);
        lab.run(["run", "x.toml"]).expect(code);
        for name in left_running(&lab) {
            part.problem("left running", format!("{name}, after `{run}`"));
        }
    }
    // The run's death is theirs.
    part.tries();
    let lab = stage(&format!("{stays} echo here > outputs/out/x; sleep 300"), "");
    let mut run = start(&lab);
    crate::lab::wait_until("they sleep", || victims(run.id(), false).len() > 2);
    signal(run.id(), Signal::KILL);
    run.wait().expect("the run ends");
    for name in left_running(&lab) {
        part.problem("left running", format!("{name}, after the run was killed"));
    }
    part.finish();
}
