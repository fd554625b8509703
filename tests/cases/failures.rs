//! Stages that fail, in all the ways there are.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::{Lab, Told, below, processes_naming, signal, wait_until};

/// Returns a workspace with one command, `[stages.s]`, and more of its table.
pub(super) fn one(run: &str, more: &str) -> Lab {
    let run = serde_json::Value::from(run);
    Lab::with(&format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n{more}\n"))
}

/// Runs it and expects a failure that names stage, file and log, and says these pieces.
#[track_caller]
fn fails(lab: &Lab, pieces: &[&str]) -> Told {
    let told = lab.run(["run", "x.toml"]).expect(3);
    let told = told.says(&["FAILED    s of x.toml: ", "pipeline log x.toml 's'", "1 failed"]).says(pieces);
    // What failed is not there for the next run, nor for whoever looks.
    assert!(lab.run(["status", "x.toml"]).expect(0).stdout.starts_with("failed   s"));
    lab.run(["show", "x.toml", "s"]).expect(2).says(&["has not been made"]);
    told
}

#[test]
fn an_exit_code_is_told_with_the_end_of_the_log() {
    let lab = one("echo some words; echo more >&2; exit 7", "");
    fails(&lab, &["the program exited with code 7", "| some words", "| more"]);
    assert_eq!(
        lab.run(["log", "x.toml", "s"]).expect(0).stdout,
        "some words\nmore\nerror: the program exited with code 7\n"
    );
}

#[test]
fn a_killed_program_is_told_with_its_signal() {
    fails(&one("kill -9 $$", ""), &["killed by signal 9 (SIGKILL), as when memory runs out"]);
    fails(&one("kill -SEGV $$", ""), &["killed by signal 11"]);
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_its_children() {
    let lab = one("sleep 300 & sleep 300", "timeout_seconds = 0.3");
    let began = Instant::now();
    fails(&lab, &["ran longer than its timeout of 0.3 s"]);
    assert!(began.elapsed() < Duration::from_secs(60));
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
}

#[test]
fn a_flooded_log_keeps_its_beginning_and_its_end() {
    let lab = one(
        "echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last; echo yes > outputs/out/x",
        "",
    );
    let began = Instant::now();
    lab.run(["run", "x.toml"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
    let log = lab.run(["log", "x.toml", "s"]).expect(0).stdout;
    assert!(log.starts_with("first\n") && log.ends_with("last\n") && log.contains("bytes left out"));
    assert!(log.len() < 10 << 20, "{} bytes", log.len());
}

#[test]
fn a_write_outside_the_folder_is_refused() {
    if lab_has_no_sandbox("a_write_outside_the_folder_is_refused") {
        return;
    }
    let lab = Lab::new();
    let outside = lab.path("outside.txt");
    let run = serde_json::Value::from(format!("echo stray > {}", outside.display()));
    lab.write("x.toml", format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n"));
    fails(&lab, &["it may write only below its own folder", "outside.txt"]);
    assert!(!outside.exists());
}

#[test]
fn an_input_cannot_be_damaged_by_its_reader() {
    if lab_has_no_sandbox("an_input_cannot_be_damaged_by_its_reader") {
        return;
    }
    let lab = one(
        "echo overwritten > inputs/a/a.txt || true; chmod 666 inputs/a/a.txt || true; \
         echo more >> inputs/a/a.txt || true; cp inputs/a/a.txt outputs/out/",
        "inputs = { a = \"a\" }\n[stages.a]\nkind = \"command\"\nrun = \"echo original > outputs/out/a.txt\"\noutputs.out = {}",
    );
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "a.txt"), "original\n");
    lab.run(["cache", "verify"]).expect(0);
}

/// Returns, and says loudly, whether programs cannot be confined here.
pub(super) fn lab_has_no_sandbox(test: &str) -> bool {
    let has = Lab::new().run(["doctor"]).expect(0).stdout.contains("may write only below their own folder");
    if !has {
        eprintln!("SKIPPED: {test}: this system cannot confine programs");
    }
    !has
}

#[test]
fn an_output_must_be_made() {
    fails(&one("true", ""), &["wrote nothing to `outputs/out`"]);
    fails(&one("mkdir -p outputs/out/empty/folder", ""), &["wrote nothing to `outputs/out`"]);
    fails(&one("rmdir outputs/out; echo x > outputs/out", ""), &["`outputs/out`"]);
}

#[test]
fn an_output_must_be_declared() {
    let lab = one("touch outputs/out/x; mkdir outputs/extra; touch outputs/extra/x", "");
    fails(&lab, &["`outputs/extra`, which is not one of its outputs", "declare it"]);
}

#[test]
fn links_in_outputs_are_refused() {
    let lab = one("ln -s /etc/hostname outputs/out/link", "");
    fails(&lab, &["outputs/out/link is a link"]);
    fails(&one("mkfifo outputs/out/pipe", ""), &["outputs/out/pipe is a named pipe"]);
    // A folder that is a link would be emptied into the cache.
    let lab = Lab::new();
    lab.write("precious/data.txt", "kept for years");
    let run = serde_json::Value::from(format!(
        "rmdir outputs/out; ln -s {} outputs/out",
        lab.path("precious").display()
    ));
    lab.write("x.toml", format!("[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.out = {{}}\n"));
    fails(&lab, &["a link in place of the folder `outputs/out`"]);
    assert_eq!(lab.read("precious/data.txt"), "kept for years");
}

#[test]
fn a_promised_column_must_be_there_and_be_a_number() {
    let scores = |json: &str| {
        let run = serde_json::Value::from(format!("printf '%s' '{json}' > outputs/scores/metrics.json"));
        Lab::with(&format!(
            "[stages.s]\nkind = \"command\"\nrun = {run}\n\
             outputs.scores = {{ type = \"scores\", columns = [\"bleu\"] }}\n"
        ))
    };
    fails(&scores(r#"{"blue": 1}"#), &["promised the column `bleu`", "has no `bleu`"]);
    fails(&scores(r#"{"bleu": "high"}"#), &["promised the column `bleu`", "is not a number"]);
    fails(&scores(r#"{"bleu": NaN}"#), &["metrics.json` is not JSON"]);
    fails(&scores("bleu: 1"), &["metrics.json` is not JSON"]);
    scores(r#"{"bleu": {"missing": "no model was there"}}"#).run(["run", "x.toml"]).expect(0);
    let none = Lab::with(
        "[stages.s]\nkind = \"command\"\nrun = \"touch outputs/scores/x\"\n\
         outputs.scores = { type = \"scores\", columns = [\"bleu\"] }\n",
    );
    fails(&none, &["promised numbers for a table", "metrics.json"]);
}

#[test]
fn what_a_program_leaves_behind_in_the_background_is_ended() {
    let lab = one("sleep 300 & echo x > outputs/out/x", "");
    lab.run(["run", "x.toml"]).expect(0);
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
}

#[test]
fn a_daemon_that_keeps_the_log_open_does_not_hold_the_run_up() {
    let lab = one("setsid sleep 20 & echo started; echo x > outputs/out/x", "");
    let began = Instant::now();
    lab.run(["run", "x.toml"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    assert_eq!(lab.run(["log", "x.toml", "s"]).expect(0).stdout, "started\n");
}

#[test]
fn a_timeout_beyond_all_time_is_none() {
    one("echo x > outputs/out/x", "timeout_seconds = 1e300").run(["run", "x.toml"]).expect(0);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let lab =
        Lab::with("[stages.s]\nkind = \"command\"\nrun = [\"no-such-program\", \"-x\"]\noutputs.out = {}\n");
    fails(&lab, &["start `no-such-program`", "No such file or directory"]);
}

/// Returns a line for the shell that fails until it has been tried this many times. What it
/// counts with lies in shared memory, the only place outside that a program may write to.
fn fails_before(times: u32, how: &str) -> (String, tempfile::TempDir) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let tries = folder.path().join("tries");
    let tries = tries.display();
    (
        format!(
            "echo x >> {tries}; [ $(wc -l < {tries}) -gt {times} ] || {how}; cp {tries} outputs/out/tries"
        ),
        folder,
    )
}

#[test]
fn a_stage_is_retried_as_often_as_it_says_and_for_the_reasons_it_gives() {
    let (line, _folder) = fails_before(2, "exit 3");
    let lab = one(&line, "retries = 2");
    let told = lab.run(["run", "x.toml"]).expect(0);
    assert_eq!((told.ran(), told.told("retry")), (vec!["s".to_owned()], vec!["s".to_owned(); 2]));
    assert_eq!(lab.made("s", "tries"), "x\nx\nx\n");

    let (line, _folder) = fails_before(2, "exit 3");
    assert_eq!(fails(&one(&line, "retries = 1"), &["exited with code 3"]).told("retry"), ["s"]);
    let (line, _folder) = fails_before(1, "exit 3");
    assert!(fails(&one(&line, "retries = 5\nretry_on = [\"killed\"]"), &[]).told("retry").is_empty());
    let (line, _folder) = fails_before(1, "kill -9 $$");
    let lab = one(&line, "retries = 5\nretry_on = [\"killed\", \"timed-out\"]");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).told("retry"), ["s"]);
}

#[test]
fn an_attempt_sees_nothing_of_the_one_before() {
    let (line, _folder) = fails_before(1, "{ touch outputs/out/stale tmp/stale stale; exit 1; }");
    let lab = one(&format!("[ ! -e stale ] && [ ! -e tmp/stale ] && {line}"), "retries = 1");
    lab.run(["run", "x.toml"]).expect(0);
    lab.run(["show", "x.toml", "s", "--file", "stale"]).expect(2);
}

/// Rows enough to keep a worker busy until it is found.
pub(super) fn long_worker() -> Lab {
    let lab = Lab::with(
        "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n\
         [stages.s]\nkind = \"subset\"\ninputs = { rows = \"rows\" }\ntake.count = 10\n\
         identity.molecule = \"molecule\"\n",
    );
    let rows: String = (0..4_000)
        .map(|row| {
            format!("C{}C(=O)N[C@@H](C)C(=O)O{}c1ccccc1\n", "C".repeat(row % 40), "C".repeat(row / 200))
        })
        .collect();
    lab.write("rows.tsv", format!("molecule\n{rows}"));
    lab.run(["run", "x.toml", "--until", "rows"]).expect(0);
    lab
}

/// Returns the worker process below a run, once it is there.
pub(super) fn worker_below(run: u32) -> u32 {
    let find = || {
        below(run).into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0worker\0")
        })
    };
    wait_until("the worker is there", || find().is_some());
    find().expect("it was there a moment ago")
}

#[test]
fn a_killed_worker_costs_its_stage_and_no_more() {
    let lab = long_worker();
    let child = lab.spawn(["run", "x.toml"]);
    signal(worker_below(child.id()), Signal::KILL);
    let told = lab.told(child).expect(3);
    let _ = told.says(&["FAILED    s of x.toml: the worker process was killed by signal 9", "help: raise"]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
}

#[test]
fn a_worker_ends_when_its_run_is_killed() {
    let lab = long_worker();
    let mut child = lab.spawn(["run", "x.toml"]);
    worker_below(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
}

#[test]
fn parameters_and_files_reach_the_program() {
    let lab = one(
        "cat files/words.txt; echo $PARAM_count $PARAM_name; cat params.json; ls $TMPDIR; cat files/words.txt > outputs/out/x",
        "files = [\"data/words.txt\"]\nparameters = { count = 3, name = \"a b\" }",
    );
    lab.write("data/words.txt", "from a file\n");
    lab.run(["run", "x.toml"]).expect(0);
    let log = lab.run(["log", "x.toml", "s"]).expect(0).stdout;
    assert!(log.contains("from a file") && log.contains("3 a b") && log.contains("\"count\": 3"), "{log}");
    // The file is known by its content.
    lab.write("data/words.txt", "changed\n");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    assert_eq!(lab.made("s", "x"), "changed\n");
}

/// A limit on the size of files stands in for a full disk.
#[test]
fn a_model_that_the_disk_has_no_room_for_is_told_and_is_not_in_the_cache() {
    const NUMBERS: usize = 1 << 20;
    let source =
        |name: &str| format!("[stages.{name}]\nkind = \"source\"\npath = \"{name}\"\nformat = \"model\"\n");
    let lab = Lab::with(&format!(
        "{}{}[stages.s]\nkind = \"merge\"\ninputs = {{ one = \"one\", other = \"other\" }}\n\
         ratio = {{ one = 1, other = 1 }}\nmethod.soup = {{}}\n",
        source("one"),
        source("other"),
    ));
    let header =
        format!(r#"{{"w":{{"dtype":"F32","shape":[{NUMBERS}],"data_offsets":[0,{}]}}}}"#, 4 * NUMBERS);
    for (name, value) in [("one", 1f32), ("other", 3.0)] {
        let numbers = value.to_le_bytes().repeat(NUMBERS);
        let tensors = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &numbers].concat();
        lab.write(&format!("{name}/model.safetensors"), tensors);
        lab.write(&format!("{name}/config.json"), "{}");
    }
    lab.run(["run", "x.toml", "--until", "one"]).expect(0);
    lab.run(["run", "x.toml", "--until", "other"]).expect(0);
    // Half of it, in blocks of half a kilobyte. Without its signal the limit is an error like others.
    let limit = 4 * NUMBERS / 2 / 512;
    let plain = lab.command(["run", "x.toml"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"")]);
    limited.arg(plain.get_program()).args(plain.get_args()).current_dir(lab.path(""));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let told = Told::of(limited.output().expect("the shell starts")).expect(3);
    let _ = told.says(&["FAILED    s of x.toml: failed to write", "model.safetensors", "File too large"]);
    lab.run(["show", "x.toml", "s"]).expect(2).says(&["has not been made"]);
    lab.run(["cache", "verify"]).expect(0);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    lab.run(["show", "x.toml", "s"]).expect(0).shows(&["w  F32"]);
}
