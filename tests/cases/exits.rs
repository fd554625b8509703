//! Exit codes of what is neither the experiment's fault nor a stage's, and words that fit.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{Lab, Told};

const NUMBERS: &str = r#"
[stages.s]
kind = "command"
run = '''echo working; echo '{"n": 2}' | tee outputs/s/metrics.json > outputs/s/rows.jsonl'''
outputs.s = { type = "scores", columns = ["n"] }

[table]
columns = ["n"]
"#;

fn onto_a_full_disk(lab: &Lab, arguments: &[&str]) -> Told {
    let full = File::options().write(true).open("/dev/full").expect("Linux");
    Told::of(lab.command(arguments).stdout(full).output().expect("the binary starts"))
}

#[test]
fn output_that_cannot_be_written_has_a_code_of_its_own() {
    let lab = Lab::with(NUMBERS);
    let says = ["error: failed to write the output: No space left on device", "what was made is kept"];
    let _ = onto_a_full_disk(&lab, &["run", "x.toml"]).expect(5).says(&says).says(&["1 ran"]);
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty(), "what was made is kept");
    for arguments in [
        &["run", "x.toml", "--json"][..],
        &["run", "x.toml", "--json", "--until", "s"],
        &["plan", "x.toml"],
        &["plan", "x.toml", "--json"],
        &["why", "x.toml", "s"],
        &["status", "x.toml"],
        &["table", "x.toml", "--format", "csv"],
        &["table", "x.toml", "--format", "json"],
        &["graph", "x.toml"],
        &["graph", "x.toml", "--format", "svg"],
        &["show", "x.toml", "s"],
        &["show", "x.toml", "s", "--file", "metrics.json"],
        &["log", "x.toml", "s"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["schema"],
        &["completions", "bash"],
        &["doctor"],
    ] {
        let _ = onto_a_full_disk(&lab, arguments).expect(5).says(&says[..1]);
    }
}

#[test]
fn output_that_cannot_be_written_hides_no_failure() {
    let lab = Lab::with(NUMBERS);
    lab.edit("x.toml", "echo working;", "exit 3;");
    let _ = onto_a_full_disk(&lab, &["run", "x.toml"]).expect(3).says(&["FAILED   s of x.toml"]);
}

#[test]
fn signals_are_told_by_their_usual_names() {
    for (signal, words) in [
        ("PIPE", "was killed by signal 13 (SIGPIPE)\n"),
        ("SEGV", "was killed by signal 11 (SIGSEGV)\n"),
        ("ABRT", "was killed by signal 6 (SIGABRT), as when it gives up, also for want of memory\n"),
    ] {
        let lab = Lab::with(NUMBERS);
        lab.edit("x.toml", "echo working;", &format!("kill -{signal} $$;"));
        let _ = lab.run(["run", "x.toml"]).expect(3).says(&[words]);
    }
}

/// Runs a command that must end of itself, and soon.
#[track_caller]
fn ends(lab: &Lab, arguments: &[&str], stdin: Stdio) -> Told {
    let mut command = lab.command(arguments);
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the binary starts");
    let began = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if began.elapsed() > Duration::from_secs(20) {
            child.kill().expect("it is ours");
            panic!("{arguments:?} does not end: {:?}", lab.told(child));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    lab.told(child)
}

#[test]
fn what_is_no_file_is_no_experiment() {
    let lab = Lab::new();
    assert!(Command::new("mkfifo").arg(lab.path("pipe")).status().is_ok_and(|made| made.success()));
    File::create(lab.path("huge.toml")).and_then(|file| file.set_len(1 << 40)).expect("a file with a hole");
    std::os::unix::fs::symlink("loop.toml", lab.path("loop.toml")).expect("a link");
    let devices = ["/dev/zero", "/dev/urandom", "/dev/stdin", "/dev/full", "pipe"];
    let not_a_file = "only regular";
    let wrong = [("huge.toml", "larger than 64.00 MiB"), (".", "directory"), ("loop.toml", "symbolic links")];
    for (name, words) in devices.map(|name| (name, not_a_file)).into_iter().chain(wrong) {
        let include =
            format!("[experiment]\ninclude = [\"{name}\"]\n[stages.a]\nkind = \"source\"\npath = \"p\"\n");
        lab.write("includes.toml", include);
        lab.write("published.toml", format!("{NUMBERS}published = \"{name}\"\n"));
        for file in [name, "includes.toml", "published.toml"] {
            for command in ["plan", "run", "status"] {
                let _ =
                    ends(&lab, &[command, file], Stdio::piped()).expect(2).says(&["failed to read", words]);
            }
        }
    }
    let _ = ends(&lab, &["import-mergekit", "pipe"], Stdio::piped()).expect(2).says(&[not_a_file]);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_told_so() {
    let lab = Lab::with("[stages.a]\nkind = \"source\"\npath = \"rows.jsonl\"\n");
    lab.write("rows.jsonl", "{\"id\": \"a\"}\n".repeat(1 << 20));
    let is_done = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().append(true).open(lab.path("rows.jsonl")).expect("it is there");
            while !is_done.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut &file, b"{\"id\": \"b\"}\n").expect("there is room");
            }
        });
        // It takes some milliseconds to read, and changes in each of them.
        let told = lab.run(["plan", "x.toml"]);
        is_done.store(true, Ordering::Relaxed);
        told
    });
    let told = told.expect(2).says(&["changed while it was being read", "run again when nobody does"]);
    assert!(!told.stderr.contains("check the path"), "{}", told.stderr);
}
