//! What the cache promises: nothing corrupt is served, and nothing intact is made twice.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::experiment::{experiment, write_properties};
use crate::lab::{Lab, Told, processes_naming, signal};

/// Twelve stages on threads and in worker processes, some of which take their time.
fn mixed() -> Lab {
    let step = "sleep $PARAM_pause; seq $PARAM_first 400 > outputs/out/a; echo $PARAM_first > outputs/out/b";
    let sum = "sleep 0.01; cat inputs/steps/*/a > outputs/out/a; cat inputs/steps/*/b > outputs/out/b";
    let count = r#"
sleep 0.03
lines=$(cat inputs/sum/* | wc -l)
printf '{"lines": %d, "rows": %d}' $lines $(wc -l < inputs/rows/rows.jsonl) > outputs/scores/metrics.json
"#;
    let experiment = experiment()
        .seed(3)
        .captions()
        .words("words_rest", "rest")
        .command("step", step)
        .set("parameters", serde_json::json!({ "pause": 0.02, "first": 1 }))
        .axis("first", "parameters.first", [1, 2, 3].as_slice())
        .command("sum", sum)
        .input("steps", "step[first=*]")
        .scores("count", ["lines", "rows"], count)
        .input("sum", "sum")
        .input("rows", "half")
        .table(["words_mean", "words_std", "words_rows"])
        .row("all", "words")
        .row("half", "words_half")
        .row("rest", "words_rest");
    let lab = Lab::in_memory();
    lab.write("x.toml", experiment.to_string());
    write_properties(&lab);
    lab
}

/// Runs all stages: those that the table of [`mixed`] reads and those that it does not.
const ALL: [&str; 10] = [
    "run",
    "x.toml",
    "--until",
    "count",
    "--until",
    "words",
    "--until",
    "words_half",
    "--until",
    "words_rest",
];

/// Returns everything that a finished run can be asked for: the table with the digest of each
/// artifact behind it, and what stands outside the table.
fn outcome(lab: &Lab) -> String {
    let table = lab.run(["table", "x.toml", "--format", "json"]).expect(0).stdout;
    let count = lab.made("count", "metrics.json");
    let rest =
        lab.run(["show", "x.toml", "rest", "--output", "rows", "--file", "rows.jsonl"]).expect(0).stdout;
    format!("{table}{count}{rest}")
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_cache_that_the_next_run_uses() {
    const KILLS: u32 = 50;
    let undisturbed = mixed();
    let began = std::time::Instant::now();
    assert_eq!(undisturbed.run(ALL).expect(0).ran().len(), 12);
    let took = began.elapsed();
    let reference = outcome(&undisturbed);

    // A linear congruential generator: the moments are the same in every run of this test, as
    // far as moments can be.
    let mut random: u32 = 20_240_607;
    let mut lab = mixed();
    let mut kills = 0;
    while kills < KILLS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let moment = took.mul_f64(f64::from(random) / f64::from(u32::MAX));
        let mut child = lab.command(ALL).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let was_killed = child.wait().unwrap().code().is_none();
        kills += u32::from(was_killed);
        let mark = lab.cache().display().to_string();
        crate::lab::wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
        // Several kills in a row on one cache are harder on it than one; then it must complete.
        if kills % 3 == 0 || !was_killed || kills == KILLS {
            let told = lab.run(ALL).expect(0);
            assert!(!told.stderr.contains("warning"), "needed repair after {moment:?}:\n{}", told.stderr);
            assert_eq!(outcome(&lab), reference, "after a kill at {moment:?}");
            lab.run(["cache", "verify"]).expect(0);
            assert!(lab.run(ALL).expect(0).ran().is_empty());
            lab = mixed();
        }
    }
}

#[test]
fn a_killed_run_leaves_nothing_running() {
    let lab =
        Lab::with("[stages.long]\nkind = \"command\"\nrun = \"sleep 300 & sleep 300\"\noutputs.out = {}\n");
    let mut child = lab.spawn(["run", "x.toml"]);
    let mark = lab.cache().display().to_string();
    let sleepers = || {
        let is_sleeper =
            |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"));
        processes_naming(&mark).iter().filter(|pid| is_sleeper(pid)).count()
    };
    crate::lab::wait_until("both sleep", || sleepers() == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    crate::lab::wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
}

#[test]
fn a_lock_is_released_by_death() {
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.long]\nkind = \"command\"\nrun = \"{}; echo done > outputs/out/x\"\noutputs.out = {{}}\n",
            lab.gate("gate")
        ),
    );
    let mut child = lab.spawn(["run", "x.toml"]);
    crate::lab::wait_until("the stage runs", || lab.run(["status", "x.toml"]).stdout.starts_with("running"));
    signal(child.id(), Signal::KILL);
    child.wait().unwrap();
    // What it had started ends a moment after it, and holds the lock as long.
    let status = || lab.run(["status", "x.toml"]).expect(0).stdout;
    crate::lab::wait_until("the lock is free", || status().starts_with("missing"));
    lab.write("gate", "");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["long"]);
}

/// `a` is read by five; `scores` gives the table its number.
pub(crate) fn fan() -> Lab {
    let count = r#"
printf '{"lines": %d}' $(cat inputs/b/*/b.txt inputs/a/a.txt | wc -l) > outputs/scores/metrics.json
"#;
    experiment()
        .command("a", "echo a certain word > outputs/out/a.txt")
        .command("b", "cat inputs/a/a.txt inputs/a/a.txt > outputs/out/b.txt")
        .input("a", "a")
        .axis("copy", "parameters.copy", [1, 2, 3, 4].as_slice())
        .scores("scores", ["lines"], count)
        .input("b", "b[copy=*]")
        .input("a", "a")
        .table(["lines"])
        .row("all", "scores")
        .lab()
}

pub(crate) const CERTAIN: &[u8] = b"a certain word\n";

#[test]
fn a_flipped_bit_is_noticed_by_all_consumers_and_mended_once() {
    for jobs in ["1", "2", "4"] {
        let lab = fan();
        lab.run(["run", "x.toml", "--until", "a"]).expect(0);
        lab.damage(CERTAIN);
        let told = lab.run(["run", "x.toml", "--jobs", jobs]).expect(0);
        assert_eq!(told.told("warning").len(), 1, "{}", told.stderr);
        let told = told.says(&["is corrupt", "`a` is made again"]);
        assert_eq!(told.ran().len(), 6, "{}", told.stderr);
        assert_eq!(lab.made("a", "a.txt").as_bytes(), CERTAIN);
        lab.run(["cache", "verify"]).expect(0);
    }
}

#[test]
fn a_lost_input_of_a_stage_that_waits_for_another_is_made_again() {
    // `late` reads `a`, which is there and damaged, and `slow`, which is still to be made;
    // `early` reads `a` alone and notices first.
    let lab = Lab::new();
    let experiment = experiment()
        .command("a", "echo a certain word > outputs/out/a.txt")
        .command("slow", &format!("{}; echo slow > outputs/out/x", lab.gate("gate")))
        .command("early", "cp inputs/a/a.txt outputs/out/early.txt")
        .input("a", "a")
        .command("late", "cat inputs/*/* > outputs/out/late.txt")
        .input("a", "a")
        .input("slow", "slow");
    lab.write("x.toml", experiment.to_string());
    lab.run(["run", "x.toml", "--until", "a"]).expect(0);
    lab.damage(CERTAIN);
    let child = lab.spawn(["run", "x.toml", "--jobs", "4"]);
    crate::lab::wait_until("`early` is made", || {
        lab.run(["status", "x.toml"]).stdout.contains("done     early")
    });
    lab.write("gate", "");
    assert_eq!(lab.told(child).expect(0).ran(), ["a", "early", "late", "slow"]);
    assert_eq!(lab.made("late", "late.txt"), "a certain word\nslow\n");
}

#[test]
fn a_missing_blob_is_made_again() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    fs::remove_file(lab.blob(CERTAIN)).unwrap();
    lab.edit("x.toml", "{\"lines\": %d}", "{\"lines\":  %d}");
    let told = lab.run(["run", "x.toml"]).expect(0).says(&["is missing", "`a` is made again"]);
    assert_eq!(told.ran(), ["a", "scores"]);
}

#[test]
fn a_result_with_many_corrupt_files_is_repaired_in_one_go() {
    let lab = experiment()
        .command("a", "for n in 1 2 3 4 5 6 7 8; do echo number $n > outputs/out/$n; done")
        .command("b", "cat inputs/a/* > outputs/out/all")
        .input("a", "a")
        .lab();
    lab.run(["run", "x.toml", "--until", "a"]).expect(0);
    for number in 1..=8 {
        lab.damage(format!("number {number}\n").as_bytes());
    }
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["a", "b"]);
    assert_eq!(lab.made("b", "all").lines().count(), 8);
    lab.run(["cache", "verify"]).expect(0);
}

#[test]
fn a_damaged_number_is_never_served() {
    let lab = fan();
    let sound = lab.run(["run", "x.toml"]).expect(0).stdout;
    lab.damage(b"{\"lines\": 9}");
    let table = lab.run(["table", "x.toml", "--format", "csv"]).expect(3).shows(&["is corrupt"]).stdout;
    assert!(table.lines().any(|line| line.starts_with("all,,,")), "a gap, and no number: {table}");
    let told = lab.run(["run", "x.toml"]).expect(0).says(&["is corrupt", "`scores` is made again"]);
    assert_eq!((told.ran(), told.stdout.as_str()), (vec!["scores".to_owned()], sound.as_str()));
    lab.run(["table", "x.toml"]).expect(0);
}

#[test]
fn verify_names_stage_and_file_and_repair_lets_the_next_run_heal() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    lab.run(["cache", "verify"]).expect(0).shows(&["0 corrupt"]);
    let blob = lab.damage(CERTAIN);
    let told = lab.run(["cache", "verify"]).expect(4);
    let _ = told.shows(&["changed", blob.to_str().unwrap(), "`a`", "1 corrupt"]);
    // Looking changes nothing.
    lab.run(["cache", "verify"]).expect(4);
    lab.run(["cache", "verify", "--repair"]).expect(0).shows(&["removed"]);
    lab.run(["cache", "verify"]).expect(0);
    // Nothing needs `a`, so nothing is made; asked for, it is.
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
    assert_eq!(lab.run(["run", "x.toml", "--until", "a"]).expect(0).ran(), ["a"]);
}

#[test]
fn a_source_changed_in_secret_is_noticed() {
    let lab = Lab::with("[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n");
    lab.write("rows.tsv", "id\tword\n1\tone\n");
    let path = lab.path("rows.tsv");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    lab.run(["run", "x.toml"]).expect(0);
    // Same size, and the time of change put back.
    fs::write(&path, "id\tword\n1\ttwo\n").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["rows"]);
    assert!(lab.run(["show", "x.toml", "rows", "--output", "rows"]).expect(0).stdout.contains("two"));
}

/// Runs a script in a mount namespace of its own, where `$PIPELINE` is the binary and `$CACHE`
/// the workspace's cache; `None`, said loudly, where the system allows no such thing.
pub(crate) fn in_namespace(test: &str, lab: &Lab, script: &str) -> Option<Told> {
    let unshare = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", line]).current_dir(lab.path(""));
        command.env("PIPELINE", env!("CARGO_BIN_EXE_pipeline")).env("CACHE", lab.cache());
        command.env("PIPELINE_CACHE", lab.cache()).env("NO_COLOR", "1").stdin(Stdio::null());
        command.output().map(Told::of)
    };
    let trial = unshare(
        "mount -t tmpfs -o size=1m tmpfs /mnt && mount --bind /mnt /mnt && mount -o remount,bind,ro /mnt",
    );
    if !trial.is_ok_and(|told| told.code == 0) {
        eprintln!("SKIPPED: {test}: this system lets us mount nothing");
        return None;
    }
    Some(unshare(script).expect("it started a moment ago"))
}

#[test]
fn a_read_only_cache_serves_what_it_has_and_refuses_the_rest() {
    let lab = fan();
    let table = lab.run(["run", "x.toml"]).expect(0).stdout;
    let read_only =
        "mount --bind $CACHE $CACHE && mount -o remount,bind,ro $CACHE && ! touch $CACHE/x 2>/dev/null && ";
    let test = "a_read_only_cache_serves_what_it_has_and_refuses_the_rest";
    let Some(told) = in_namespace(test, &lab, &format!("{read_only} $PIPELINE run x.toml")) else {
        return;
    };
    assert_eq!(told.expect(0).stdout, table);
    for command in
        ["table x.toml", "plan x.toml", "status x.toml", "show x.toml a", "cache ls", "cache verify"]
    {
        in_namespace(test, &lab, &format!("{read_only} $PIPELINE {command}")).unwrap().expect(0);
    }
    lab.edit("x.toml", "a certain word", "another word");
    let told = in_namespace(test, &lab, &format!("{read_only} $PIPELINE run x.toml")).unwrap().expect(4);
    let _ = told.says(&["stage `a` must run", "read-only", "--cache"]);
}

#[test]
fn a_full_disk_is_named_and_harms_nothing() {
    let stage = |name: &str, size: &str, inputs: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\n{inputs}run = \"head -c {size} /dev/zero > outputs/out/x\"\noutputs.out = {{}}\n"
        )
    };
    let lab = Lab::with(&format!(
        "{}{}",
        stage("small", "100k", ""),
        stage("large", "6M", "inputs = { s = \"small\" }\n")
    ));
    fs::create_dir(lab.cache()).unwrap();
    let script = "mount -t tmpfs -o size=3m tmpfs $CACHE && { $PIPELINE run x.toml; code=$?; \
                  $PIPELINE cache verify || exit 90; $PIPELINE status x.toml; \
                  mount -o remount,size=40m $CACHE && $PIPELINE run x.toml || exit 91; exit $code; }";
    let Some(told) = in_namespace("a_full_disk_is_named_and_harms_nothing", &lab, script) else {
        return;
    };
    let told = told.expect(3).says(&["FAILED    large of x.toml", "the disk is full"]);
    assert_eq!(told.ran(), ["large", "small"], "{}", told.stderr);
    let _ = told.shows(&["0 corrupt", "done     small", "failed   large"]);
}

#[test]
fn a_full_disk_is_named_by_stages_of_every_kind() {
    let lab = Lab::with(
        "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n\
         [stages.half]\nkind = \"subset\"\ninputs = { rows = \"rows\" }\ntake.count = 19000\n",
    );
    let rows: String = (0..20_000).map(|row| format!("{row}\t{}\n", "x".repeat(100))).collect();
    lab.write("rows.tsv", format!("id\ttext\n{rows}"));
    fs::create_dir(lab.cache()).unwrap();
    // The source itself is taken in, too.
    for (size, stage) in [("1m", "rows"), ("6m", "half")] {
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs $CACHE && {{ $PIPELINE run x.toml; code=$?; \
             mount -o remount,size=40m $CACHE && $PIPELINE run x.toml || exit 91; exit $code; }}"
        );
        let Some(told) = in_namespace("a_full_disk_is_named_by_stages_of_every_kind", &lab, &script) else {
            return;
        };
        let told = told.expect(3).says(&["the disk is full: free space"]);
        assert_eq!(told.told("FAILED"), [stage], "{}", told.stderr);
    }
}

#[test]
fn a_cache_of_another_format_is_refused() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    let index = rusqlite::Connection::open(lab.cache().join("index.sqlite")).unwrap();
    index.execute("UPDATE meta SET value = 999 WHERE name = 'format'", []).unwrap();
    drop(index);
    for command in ["run", "table", "plan"] {
        let told = lab.run([command, "x.toml"]).expect(4);
        let _ = told.says(&["has format 999", "this program writes format"]);
    }
    lab.run(["cache", "verify"]).expect(4);
}

#[test]
fn a_cache_whose_making_was_cut_short_is_none_yet() {
    let lab = fan();
    lab.write(".pipeline/index.sqlite", "");
    assert!(lab.run(["status", "x.toml"]).expect(0).stdout.starts_with("missing"));
    lab.run(["run", "x.toml"]).expect(0);
}

#[test]
fn an_index_that_is_no_database_is_refused() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    for file in ["index.sqlite-wal", "index.sqlite-shm"] {
        let _ = fs::remove_file(lab.cache().join(file));
    }
    lab.write(
        ".pipeline/index.sqlite",
        "this is no database, and never was one; it is a text file\n".repeat(99),
    );
    lab.run(["run", "x.toml"]).expect(4).says(&["index.sqlite"]);
}
