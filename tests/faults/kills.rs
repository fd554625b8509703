//! SIGKILL at random moments: of the run, of a worker, of a program and what it started.

use rustix::process::Signal;

use super::graph::{Undisturbed, graph, left_running, recovers, start, victims};
use super::part::{Part, skipped};
use crate::lab::{Lab, signal};

/// How many kills one cache takes before it must complete.
const KILLS_OF_A_CACHE: u32 = 3;

/// Kills at random, in that part of a run; `choose` says whom.
fn kill(mut part: Part, at_least: u32, within: f64, choose: impl Fn(&mut Part, u32) -> Option<u32>) {
    let undisturbed = Undisturbed::run();
    let mut lab = graph();
    let mut kills = 0;
    while part.tries_again(at_least) {
        let mut run = start(&lab);
        std::thread::sleep(part.random.moment(undisturbed.took.mul_f64(within)));
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
    kill(part, 3, 1.0, |_, run| Some(run));
}

#[test]
fn of_workers() {
    let part = Part::begin("kills of a worker at random", &["wrong", "left running", "missed"]);
    kill(part, 3, 0.4, |part, run| {
        let workers = victims(run, true);
        (!workers.is_empty()).then(|| *part.random.choose(&workers))
    });
}

#[test]
fn of_programs_and_their_children() {
    let part = Part::begin("kills of a program or its child at random", &["wrong", "left running", "missed"]);
    kill(part, 3, 0.9, |part, run| {
        let programs = victims(run, false);
        (!programs.is_empty()).then(|| *part.random.choose(&programs))
    });
}
