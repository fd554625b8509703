//! Programs that try to get out of their folder, or to stop the run.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::part::{Part, skipped};
use crate::lab::{Lab, Told};

const LIMIT: Duration = Duration::from_secs(20);

fn confines(test: &str) -> bool {
    let can = Lab::new().run(["doctor"]).stdout.contains("may write only below their own folder");
    if !can {
        skipped(test, "this system cannot confine programs");
    }
    can
}

/// Returns a house with one command, `[stages.s]`, and what it is not to touch in `precious/`.
fn one(run: &str) -> Lab {
    let lab = Lab::new();
    lab.write("precious/data.txt", "kept for years");
    let run = serde_json::Value::from(run.replace("HOUSE", &lab.path("").display().to_string()));
    lab.write("x.toml", format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n"));
    lab
}

/// Writes to where nothing may be written, by all ways that a shell has.
#[test]
fn nothing_is_written_outside() {
    if !confines("nothing_is_written_outside") {
        return;
    }
    let mut part = Part::begin("writes outside", &["outside"]);
    for way in [
        "echo x > HOUSE/precious/data.txt",
        "echo x >> HOUSE/precious/data.txt",
        ": > HOUSE/precious/data.txt",
        "truncate -s 0 HOUSE/precious/data.txt",
        "rm -f HOUSE/precious/data.txt",
        "mv HOUSE/precious/data.txt outputs/out/",
        "ln HOUSE/precious/data.txt outputs/out/link; echo x > outputs/out/link",
        "ln -s HOUSE/precious outputs/out/link; echo x > outputs/out/link/data.txt",
        "ln -s HOUSE/precious/data.txt outputs/out/link; echo x > outputs/out/link",
        "mkdir HOUSE/precious/folder",
        "echo x > HOUSE/.pipeline/index.sqlite",
        "for blob in HOUSE/.pipeline/blobs/*/*; do echo x > $blob; done",
        "cd /proc/self/root; echo x > HOUSE/precious/data.txt",
        "echo x > /proc/$PPID/cwd/precious/data.txt",
        "setsid sh -c 'echo x > HOUSE/precious/data.txt'",
        "mount --bind outputs HOUSE/precious",
        "unshare --map-root-user --mount sh -c 'mount --bind outputs HOUSE/precious; echo x > HOUSE/precious/data.txt'",
        "echo x > /sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        part.tries();
        let lab = one(&format!("({way}) 2>/dev/null; echo made > outputs/out/x"));
        let told = lab.run(["run", "x.toml"]);
        let names: Vec<_> = fs::read_dir(lab.path("precious")).unwrap().flatten().collect();
        if fs::read_to_string(lab.path("precious/data.txt")).ok().as_deref() != Some("kept for years")
            || names.len() != 1
        {
            part.problem("outside", format!("`{way}`: {told:?}"));
        }
        let verified = lab.run(["cache", "verify"]);
        if verified.code != 0 {
            part.problem("outside", format!("`{way}`: {verified:?}"));
        }
    }
    part.finish();
}

/// Links in outputs are not followed, also where they come while outputs are being kept.
#[test]
fn links_in_outputs_take_nothing_away() {
    if !confines("links_in_outputs_take_nothing_away") {
        return;
    }
    let mut part = Part::begin("links in outputs", &["taken away", "left running"]);
    let many = "mkdir outputs/out/sub; for n in $(seq 300); do echo $n > outputs/out/sub/$n; done; \
                echo mine > outputs/out/sub/data.txt; ";
    let swap = "setsid sh -c 'while [ -e outputs/out ]; do mv outputs/out/sub tmp/sub && ln -s HOUSE/precious outputs/out/sub; \
                rm -f outputs/out/sub; mv tmp/sub outputs/out/sub; done' > /dev/null 2>&1 & ";
    for (run, tries) in [
        ("ln -s HOUSE/precious outputs/out/link".to_owned(), 1),
        ("ln -s HOUSE/precious/data.txt outputs/out/data.txt".to_owned(), 1),
        ("rmdir outputs/out; ln -s HOUSE/precious outputs/out".to_owned(), 1),
        ("rm -r outputs; mkdir tmp/o; ln -s HOUSE/precious tmp/o/out; ln -s tmp/o outputs".to_owned(), 1),
        (format!("{many}{swap} sleep 0.05"), 5),
    ] {
        for _ in 0..tries {
            part.tries();
            let lab = one(&run);
            let told = lab.run_within(LIMIT, ["run", "x.toml"]);
            if lab.path("precious/data.txt").is_symlink()
                || fs::read_to_string(lab.path("precious/data.txt")).ok().as_deref() != Some("kept for years")
            {
                part.problem("taken away", format!("`{run}`: {told:?}"));
            }
            for name in super::graph::left_running(&lab) {
                part.problem("left running", name);
            }
        }
    }
    part.finish();
}
