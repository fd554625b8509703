//! Exit codes of what is neither the experiment's fault nor a stage's, and words that fit.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    let says = ["error: failed to write the output: No space left on device", "finished results are kept"];
    let _ = onto_a_full_disk(&lab, &["run", "x.toml"]).expect(5).says(&says).says(&["1 ran"]);
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty(), "finished results are kept");
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
    let _ = onto_a_full_disk(&lab, &["run", "x.toml"]).expect(3).says(&["FAILED    s of x.toml"]);
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
fn ends(lab: &Lab, arguments: &[&str]) -> Told {
    let told = lab.run_within(Duration::from_secs(20), arguments);
    told.unwrap_or_else(|| panic!("{arguments:?} does not end"))
}

#[test]
fn what_is_no_file_is_no_experiment() {
    let lab = Lab::new();
    lab.write("folder/x.toml", "");
    assert!(Command::new("mkfifo").arg(lab.path("pipe")).status().is_ok_and(|made| made.success()));
    File::create(lab.path("huge.toml")).and_then(|file| file.set_len(1 << 40)).expect("a file with a hole");
    std::os::unix::fs::symlink("loop.toml", lab.path("loop.toml")).expect("a link");
    for (name, words) in [
        ("/dev/zero", "is a device"),
        ("/dev/urandom", "is a device"),
        ("/dev/full", "is a device"),
        ("/dev/stdin", "is a named pipe"),
        ("pipe", "is a named pipe"),
        ("folder", "is a folder"),
        ("loop.toml", "symbolic links"),
        ("huge.toml", "is larger than the limit of 67108864 bytes"),
    ] {
        let include =
            format!("[experiment]\ninclude = [\"{name}\"]\n[stages.a]\nkind = \"source\"\npath = \"p\"\n");
        lab.write("includes.toml", include);
        lab.write("published.toml", format!("{NUMBERS}published = \"{name}\"\n"));
        for file in [name, "includes.toml", "published.toml"] {
            for command in ["plan", "run", "status"] {
                let mut told = ends(&lab, &[command, file]).expect(2);
                // Words as they are, wherever the report breaks the line.
                let said = told.stderr.split_whitespace().filter(|word| *word != "│");
                told.stderr = said.collect::<Vec<_>>().join(" ");
                let _ = told.says(&["failed to read", words]);
            }
        }
    }
    let _ = ends(&lab, &["import-mergekit", "pipe"]).expect(2).says(&["is a named pipe"]);
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
    let told = told.expect(2).says(&["changed while it was being read", "run again when it has ended"]);
    assert!(!told.stderr.contains("check the path"), "{}", told.stderr);
}
/// A folder that may not be entered is not one that is empty.
#[test]
fn a_cache_that_may_not_be_entered_is_an_error_in_every_command() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::with(NUMBERS);
    let table = lab.run(["run", "x.toml"]).expect(0).stdout;
    let set_mode = |path: &str, mode| {
        std::fs::set_permissions(lab.path(path), PermissionsExt::from_mode(mode)).expect("it is ours");
    };
    set_mode(".pipeline", 0o000);
    // For root no folder is closed, so root looks as somebody else, with a copy that he may run.
    set_mode("", 0o755);
    std::fs::copy(env!("CARGO_BIN_EXE_pipeline"), lab.path("program")).expect("there is room");
    let is_root = rustix::process::geteuid().is_root();
    let look = |arguments: &[&str]| {
        let plain = lab.command(arguments);
        let mut command = Command::new(lab.path("program"));
        command.args(plain.get_args()).current_dir(lab.path("")).stdin(Stdio::null());
        command.env("PIPELINE_CACHE", lab.cache()).env("NO_COLOR", "1").env_remove("PIPELINE_DATA");
        if is_root {
            std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        }
        Told::of(command.output().expect("the copy starts"))
    };
    for arguments in [
        &["status", "x.toml"][..],
        &["plan", "x.toml"],
        &["why", "x.toml", "s"],
        &["table", "x.toml"],
        &["graph", "x.toml"],
        &["show", "x.toml", "s"],
        &["log", "x.toml", "s"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["run", "x.toml"],
    ] {
        let told = look(arguments);
        assert_eq!(told.code, 4, "{arguments:?}: {told:?}");
        let _ = told.says(&[".pipeline", "ermission denied"]);
    }
    set_mode(".pipeline", 0o755);
    assert_eq!(look(&["table", "x.toml"]).expect(0).stdout, table);
}
