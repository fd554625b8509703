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

/// Returns a workspace with one command, `[stages.s]`, and what it is not to touch in `precious/`.
fn one(run: &str) -> Lab {
    let lab = Lab::new();
    lab.write("precious/data.txt", "kept for years");
    let run = serde_json::Value::from(run.replace("WORKSPACE", &lab.path("").display().to_string()));
    lab.write("x.toml", format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n"));
    lab
}

/// The names of inputs are names of folders, and lead nowhere else.
#[test]
fn names_of_inputs_lead_nowhere() {
    let mut part = Part::begin("names of inputs", &["outside"]);
    for name in
        ["../../../../escaped", "WORKSPACE/escaped", "a/../../../../../escaped", "..", ".", "a/b", "", "x/"]
    {
        part.tries();
        let lab = Lab::new();
        let name = name.replace("WORKSPACE/", &lab.path("").display().to_string());
        lab.write(
            "x.toml",
            format!(
                "[stages.a]\nkind = \"command\"\noutputs.o = {{}}\n\
                 run = \"echo owned > outputs/o/evil.sh; chmod +x outputs/o/evil.sh\"\n\
                 [stages.b]\nkind = \"command\"\nrun = \"echo 1 > outputs/o/x\"\noutputs.o = {{}}\n\
                 inputs.\"{name}\" = \"a\"\n"
            ),
        );
        let told = lab.run(["run", "x.toml"]);
        let above: Vec<_> =
            fs::read_dir(lab.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let left = fs::read_dir(lab.cache().join("work")).into_iter().flatten().count();
        if above.iter().any(|name| name != "x.toml" && name != ".pipeline")
            || lab.cache().join("escaped").exists()
        {
            part.problem("outside", format!("`{name}`: {above:?}: {told:?}"));
        }
        if told.code == 0 && left > 0 {
            part.problem("outside", format!("`{name}`: something is left in `work`"));
        }
    }
    part.finish();
}

/// Writes to where nothing may be written, by all ways that a shell has.
#[test]
fn nothing_is_written_outside() {
    if !confines("nothing_is_written_outside") {
        return;
    }
    let mut part = Part::begin("writes outside", &["outside"]);
    for way in [
        "echo x > WORKSPACE/precious/data.txt",
        "echo x >> WORKSPACE/precious/data.txt",
        ": > WORKSPACE/precious/data.txt",
        "truncate -s 0 WORKSPACE/precious/data.txt",
        "rm -f WORKSPACE/precious/data.txt",
        "mv WORKSPACE/precious/data.txt outputs/out/",
        "ln WORKSPACE/precious/data.txt outputs/out/link; echo x > outputs/out/link",
        "ln -s WORKSPACE/precious outputs/out/link; echo x > outputs/out/link/data.txt",
        "ln -s WORKSPACE/precious/data.txt outputs/out/link; echo x > outputs/out/link",
        "mkdir WORKSPACE/precious/folder",
        "echo x > WORKSPACE/.pipeline/index.sqlite",
        "for blob in WORKSPACE/.pipeline/blobs/*/*; do echo x > $blob; done",
        "cd /proc/self/root; echo x > WORKSPACE/precious/data.txt",
        "echo x > /proc/$PPID/cwd/precious/data.txt",
        "setsid sh -c 'echo x > WORKSPACE/precious/data.txt'",
        "mount --bind outputs WORKSPACE/precious",
        "unshare --map-root-user --mount sh -c 'mount --bind outputs WORKSPACE/precious; echo x > WORKSPACE/precious/data.txt'",
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
    let swap = "setsid sh -c 'while [ -e outputs/out ]; do mv outputs/out/sub tmp/sub && ln -s WORKSPACE/precious outputs/out/sub; \
                rm -f outputs/out/sub; mv tmp/sub outputs/out/sub; done' > /dev/null 2>&1 & ";
    for (run, tries) in [
        ("ln -s WORKSPACE/precious outputs/out/link".to_owned(), 1),
        ("ln -s WORKSPACE/precious/data.txt outputs/out/data.txt".to_owned(), 1),
        ("rmdir outputs/out; ln -s WORKSPACE/precious outputs/out".to_owned(), 1),
        ("rm -r outputs; mkdir tmp/o; ln -s WORKSPACE/precious tmp/o/out; ln -s tmp/o outputs".to_owned(), 1),
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

/// The numbers for a table are read from a file, and from no other thing.
#[test]
fn numbers_are_read_from_files_alone() {
    let mut part = Part::begin("metrics.json that is none", &["hangs", "taken"]);
    for way in [
        "mkfifo outputs/s/metrics.json",
        "ln -s WORKSPACE/secret.json outputs/s/metrics.json",
        "ln -s /dev/stdin outputs/s/metrics.json",
        "mkfifo tmp/pipe; ln -s ../../tmp/pipe outputs/s/metrics.json",
        "mkdir outputs/s/metrics.json",
        "truncate -s 3G outputs/s/metrics.json",
        "mkdir tmp/s; mkfifo tmp/s/metrics.json; rmdir outputs/s; ln -s ../tmp/s outputs/s",
        "echo '{\\\"n\\\": NaN}' > outputs/s/metrics.json",
        "echo '{\\\"n\\\": 1e999}' > outputs/s/metrics.json",
        "yes '[' | head -n 100000 > outputs/s/metrics.json",
    ] {
        part.tries();
        let lab = Lab::new();
        lab.write("secret.json", "{\"n\": 1}");
        let way = way.replace("WORKSPACE", &lab.path("").display().to_string());
        lab.write(
            "x.toml",
            format!(
                "[stages.s]\nkind = \"command\"\nrun = \"{way}\"\noutputs.s = {{ type = \"scores\", columns = [\"n\"] }}\n\
                 [table]\ncolumns = [\"n\"]\n"
            ),
        );
        match lab.run_within(LIMIT, ["run", "x.toml"]) {
            None => part.problem("hangs", way),
            Some(Told { code: 3, .. }) => {}
            Some(told) => part.problem("taken", format!("`{way}`: {told:?}")),
        }
    }
    part.finish();
}

/// A program cannot type into the terminal that the run was started from, nor write to it.
#[test]
fn the_terminal_is_not_a_programs() {
    const TEST: &str = "the_terminal_is_not_a_programs";
    if !confines(TEST) {
        return;
    }
    let mut part = Part::begin("ways to the terminal", &["opened"]);
    // Whether it can be opened is enough: what is opened can be typed into.
    for path in ["/dev/tty", "$TERMINAL", "/proc/$PPID/fd/0", "/proc/$PPID/fd/2"] {
        part.tries();
        let lab = one(&format!(
            "if (echo INJECTED > {path}) 2> /dev/null; then echo yes; else echo no; fi > outputs/out/x"
        ));
        let mut command = Command::new("script");
        command.args(["-qec", "TERMINAL=$(tty) $PROGRAM run x.toml", "/dev/null"]).stdin(Stdio::null());
        command
            .current_dir(lab.path(""))
            .env("SHELL", "/bin/sh")
            .env("PROGRAM", env!("CARGO_BIN_EXE_pipeline"));
        command.env("PIPELINE_CACHE", lab.cache()).env_remove("PIPELINE_DATA");
        let Ok(output) = command.output() else {
            return skipped(TEST, "there is no `script` here");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("INJECTED") || lab.made("s", "x") != "no\n" {
            part.problem("opened", format!("{path}: {said:?}"));
        }
    }
    part.finish();
}

/// A program cannot end the run, where the system can keep signals in.
#[test]
fn signals_do_not_leave_the_program() {
    const TEST: &str = "signals_do_not_leave_the_program";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    if !confines(TEST) || (numbers.next(), numbers.next()) < (Some(6), Some(12)) {
        return skipped(TEST, "Linux keeps signals in from 6.12 on");
    }
    let mut part = Part::begin("signals to the run", &["died", "left running"]);
    for signal in ["KILL", "TERM", "STOP", "INT"] {
        part.tries();
        // The program's parent, and who started that.
        let lab = one(&format!(
            "above=$(cut -d' ' -f4 /proc/$PPID/stat); kill -{signal} $PPID || true; \
             case $(cat /proc/$above/comm) in pipeline) kill -{signal} $above || true;; esac; \
             sleep 0.1; echo made > outputs/out/x"
        ));
        match lab.run_within(LIMIT, ["run", "x.toml"]) {
            // Whether it was made, or failed since `kill` did, the run told of it.
            Some(Told { code: 0 | 3, .. }) => {}
            told => part.problem("died", format!("SIG{signal}: {told:?}")),
        }
        for name in super::graph::left_running(&lab) {
            part.problem("left running", name);
        }
    }
    part.finish();
}
