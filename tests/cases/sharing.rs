//! Several runs, and several users, on one cache.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use crate::experiment::experiment;
use crate::lab::{Lab, Told, wait_until};

/// Stages enough that two runs meet at many of them.
fn many(lab: &Lab) -> String {
    format!(
        r#"
[stages.first]
kind = "command"
run = "{}; echo $PARAM_number > outputs/out/x"
outputs.out = {{}}

[stages.first.axes.number]
field = "parameters.number"
values = [1, 2, 3, 4, 5, 6]

[stages.second]
kind = "command"
inputs = {{ x = "first" }}
run = "sleep 0.02; cat inputs/x/x > outputs/out/x"
outputs.out = {{}}
"#,
        lab.gate("gate")
    )
}

#[test]
fn two_runs_at_once_do_no_work_twice() {
    let lab = Lab::new();
    lab.write("x.toml", many(&lab));
    let runs = [lab.spawn(["run", "x.toml", "--jobs", "2"]), lab.spawn(["run", "x.toml", "--jobs", "2"])];
    wait_until("work is going on", || lab.run(["status", "x.toml"]).stdout.contains("running"));
    lab.write("gate", "");
    let told = runs.map(|child| lab.told(child).expect(0));
    let mut ran: Vec<String> = told.iter().flat_map(|told| told.ran()).collect();
    let all = ran.len();
    ran.sort();
    ran.dedup();
    assert_eq!((all, ran.len()), (12, 12), "{told:#?}");
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
}

#[test]
fn a_run_waits_for_another_that_makes_the_same_and_shares_it() {
    let lab = Lab::new();
    let experiment = format!(
        "[stages.a]\nkind = \"command\"\nrun = \"{}; echo made > outputs/out/x\"\noutputs.out = {{}}\n",
        lab.gate("gate")
    );
    lab.write("x.toml", &experiment);
    // The same work under another name in another experiment.
    lab.write("y.toml", experiment.replace("stages.a", "stages.b"));
    let one = lab.spawn(["run", "x.toml"]);
    wait_until("the first run works", || lab.run(["status", "x.toml"]).stdout.starts_with("running"));
    // Another run's work shows as running under the other name too.
    assert!(lab.run(["status", "y.toml"]).expect(0).stdout.starts_with("running"));
    let mut other = lab.command(["run", "y.toml", "--json"]);
    other.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut other = other.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(other.stdout.take().unwrap()));
    wait_until_line(&mut lines, "waiting");
    lab.write("gate", "");
    assert_eq!(lab.told(one).expect(0).ran(), ["a"]);
    let finished = wait_until_line(&mut lines, "finished");
    assert_eq!((finished["stage"].as_str(), finished["result"].as_str()), (Some("b"), Some("shared")));
    assert_eq!(other.wait().unwrap().code(), Some(0));
}

/// Reads events until one of a sort comes.
fn wait_until_line(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    wanted: &str,
) -> serde_json::Value {
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == wanted {
            return event;
        }
    }
    panic!("no event `{wanted}`")
}

#[test]
fn when_the_run_that_works_is_killed_the_one_that_waits_takes_over() {
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.a]\nkind = \"command\"\nrun = \"{}; echo made > outputs/out/x\"\noutputs.out = {{}}\n",
            lab.gate("gate")
        ),
    );
    let mut one = lab.spawn(["run", "x.toml"]);
    wait_until("the first run works", || lab.run(["status", "x.toml"]).stdout.starts_with("running"));
    let other = lab.spawn(["run", "x.toml"]);
    one.kill().unwrap();
    one.wait().unwrap();
    lab.write("gate", "");
    assert_eq!(lab.told(other).expect(0).ran(), ["a"]);
    assert_eq!(lab.made("a", "x"), "made\n");
}

#[test]
fn many_runs_and_onlookers_may_begin_at_once() {
    let lab = Lab::new();
    lab.write("x.toml", many(&lab));
    lab.write("gate", "");
    // All of them find no cache, and one of them makes it.
    let runs: Vec<_> = (0..6).map(|_| lab.spawn(["run", "x.toml", "--jobs", "2"])).collect();
    let looks: Vec<_> = (0..12).map(|_| lab.spawn(["status", "x.toml"])).collect();
    let told: Vec<Told> = runs.into_iter().map(|child| lab.told(child).expect(0)).collect();
    for look in looks {
        lab.told(look).expect(0);
    }
    assert_eq!(told.iter().map(|told| told.ran().len()).sum::<usize>(), 12, "{told:#?}");
}

/// A group of users of a cache, and two of its members; nobody has these numbers.
const GROUP: u32 = 61_000;
const USERS: [u32; 2] = [61_001, 61_002];

/// Runs the binary as another user, of the group and of one of their own; `None`, said loudly,
/// where we may not.
fn as_user(test: &str, lab: &Lab, user: u32, arguments: &[&str]) -> Option<Told> {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={user}"), format!("--regid={user}"), format!("--groups={GROUP}")])
            .arg(program)
            .args(arguments)
            .current_dir(lab.path(""))
            .env("PIPELINE_CACHE", lab.cache())
            .env("HOME", "/nonexistent")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command.output().map(Told::of)
    };
    if !run(env!("CARGO_BIN_EXE_pipeline"), &["--version"]).is_ok_and(|told| told.code == 0) {
        eprintln!("SKIPPED: {test}: we cannot be another user, or they cannot run the program");
        return None;
    }
    Some(run(env!("CARGO_BIN_EXE_pipeline"), arguments).expect("it started a moment ago"))
}

/// Makes a workspace that all may read, with a cache in which the group may write.
fn shared_workspace() -> Lab {
    let lab = experiment()
        .command("a", "echo one > outputs/out/x")
        .command("b", "cat inputs/a/x > outputs/out/x")
        .input("a", "a")
        .lab();
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(lab.cache()).unwrap();
    // Where we may not, the test is skipped.
    let _ = chown(lab.cache(), None, Some(GROUP));
    fs::set_permissions(lab.cache(), fs::Permissions::from_mode(0o2775)).unwrap();
    lab
}

#[test]
fn the_members_of_a_group_take_turns() {
    let test = "the_members_of_a_group_take_turns";
    let lab = shared_workspace();
    let [first, second] = USERS;
    let Some(told) = as_user(test, &lab, first, &["run", "x.toml"]) else { return };
    assert_eq!(told.expect(0).ran(), ["a", "b"]);
    for looks in [&["status", "x.toml"][..], &["cache", "verify"], &["table", "x.toml"]] {
        let _ = as_user(test, &lab, second, looks).unwrap();
    }
    lab.edit("x.toml", "echo one", "echo two");
    assert_eq!(as_user(test, &lab, second, &["run", "x.toml"]).unwrap().expect(0).ran(), ["a", "b"]);
    lab.edit("x.toml", "echo two", "echo three");
    assert_eq!(as_user(test, &lab, first, &["run", "x.toml"]).unwrap().expect(0).ran(), ["a", "b"]);
    as_user(test, &lab, second, &["cache", "verify"]).unwrap().expect(0).shows(&["0 corrupt"]);
}

#[test]
fn a_look_at_the_cache_of_another_user_locks_nobody_out() {
    let test = "a_look_at_the_cache_of_another_user_locks_nobody_out";
    let lab = shared_workspace();
    let [first, second] = USERS;
    let Some(told) = as_user(test, &lab, first, &["run", "x.toml"]) else { return };
    told.expect(0);
    // As a cache of before is: the folder open to the group, and the index not.
    fs::set_permissions(lab.cache().join("index.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
    let others = || {
        let made = |name: &str| lab.cache().join(name).exists();
        made("index.sqlite-shm") || made("index.sqlite-wal")
    };
    assert!(!others());
    for looks in [&["status", "x.toml"][..], &["plan", "x.toml"], &["cache", "ls"], &["cache", "verify"]] {
        as_user(test, &lab, second, looks).unwrap().expect(0);
        assert!(!others(), "{looks:?} left files of another user");
    }
    assert!(as_user(test, &lab, second, &["run", "x.toml"]).unwrap().expect(0).ran().is_empty());
    lab.edit("x.toml", "echo one", "echo two");
    as_user(test, &lab, second, &["run", "x.toml"]).unwrap().expect(4).says(&["read-only"]);
    assert_eq!(as_user(test, &lab, first, &["run", "x.toml"]).unwrap().expect(0).ran(), ["a", "b"]);
}

#[test]
fn a_cache_that_may_not_be_entered_is_no_empty_cache() {
    let test = "a_cache_that_may_not_be_entered_is_no_empty_cache";
    let lab = shared_workspace();
    let [first, second] = USERS;
    let Some(told) = as_user(test, &lab, first, &["run", "x.toml"]) else { return };
    told.expect(0);
    fs::set_permissions(lab.cache(), fs::Permissions::from_mode(0o700)).unwrap();
    for command in ["status", "plan", "table", "run"] {
        let told = as_user(test, &lab, second, &[command, "x.toml"]).unwrap().expect(4);
        let _ = told.says(&["Permission denied"]);
    }
}

#[test]
fn runs_with_the_same_process_id_do_not_disturb_each_other() {
    let test = "runs_with_the_same_process_id_do_not_disturb_each_other";
    let lab = Lab::new();
    lab.write("gate", "");
    let in_container = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_pipeline")])
            .args(arguments)
            .current_dir(lab.path(""))
            .env("PIPELINE_CACHE", lab.cache())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    if !in_container(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test}: this system gives us no process ids of our own");
        return;
    }
    for round in 0..5 {
        lab.write("x.toml", many(&lab).replace("$PARAM_number", &format!("{round}$PARAM_number")));
        // Files with a second name are copied by way of `tmp`.
        lab.edit("x.toml", "> outputs/out/x\"", "> outputs/out/x; ln outputs/out/x tmp/y\"");
        let runs: Vec<_> =
            (0..3).map(|_| in_container(&["run", "x.toml", "--jobs", "2"]).spawn().unwrap()).collect();
        let told: Vec<Told> =
            runs.into_iter().map(|run| Told::of(run.wait_with_output().unwrap()).expect(0)).collect();
        assert_eq!(told.iter().map(|told| told.ran().len()).sum::<usize>(), 12, "{told:#?}");
    }
    lab.run(["cache", "verify"]).expect(0).shows(&["0 corrupt"]);
}
