//! What a stage starts ends with it, and reaches nothing outside.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::failures::{lab_has_no_sandbox, one};
use super::interruptions::wait_for_signal_report;
use crate::lab::{Lab, Told, below, processes_naming, signal, wait_until};

/// Returns a time to sleep that no other process sleeps, by which a sleeper is found again even if
/// it has left its group, its session and its environment behind.
fn sleep_of_its_own(test: u32) -> String {
    format!("{}.{}", 400 + test, std::process::id())
}

/// A line for the shell that starts a daemon as daemons start themselves.
fn daemon(seconds: &str) -> String {
    format!("(setsid env -i sh -c '(exec sleep {seconds}) & exit' </dev/null >/dev/null 2>&1 &)")
}

/// Returns the processes that sleep this long.
fn sleepers(seconds: &str) -> Vec<u32> {
    let line = format!("sleep\0{seconds}\0");
    let sleeps =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text == line.as_bytes());
    processes_naming(seconds).into_iter().filter(sleeps).collect()
}

#[track_caller]
fn ends(seconds: &str) {
    wait_until("the daemon has ended", || sleepers(seconds).is_empty());
}

#[test]
fn a_daemon_ends_with_its_stage() {
    let seconds = sleep_of_its_own(1);
    let lab = one(&format!("{}; echo x > outputs/out/x", daemon(&seconds)), "");
    lab.run(["run", "x.toml"]).expect(0);
    // Not some time later: what is recorded cannot be changed by anybody any more.
    assert_eq!(sleepers(&seconds), Vec::<u32>::new());
}

#[test]
fn a_daemon_ends_at_the_timeout_of_its_stage() {
    let seconds = sleep_of_its_own(2);
    let lab = one(&format!("{}; sleep 300", daemon(&seconds)), "timeout_seconds = 0.5");
    lab.run(["run", "x.toml"]).expect(3);
    assert_eq!(sleepers(&seconds), Vec::<u32>::new());
}

#[test]
fn a_daemon_ends_when_its_run_is_killed() {
    let seconds = sleep_of_its_own(3);
    let lab = one(&format!("{}; sleep 300", daemon(&seconds)), "");
    let mut child = lab.spawn(["run", "x.toml"]);
    wait_until("the daemon runs", || sleepers(&seconds).len() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    ends(&seconds);
    let mark = lab.cache().display().to_string();
    wait_until("nothing runs any more", || processes_naming(&mark).is_empty());
}

#[test]
fn a_daemon_ends_when_the_run_is_stopped() {
    let seconds = sleep_of_its_own(4);
    let lab = one(&format!("{}; sleep 300", daemon(&seconds)), "");
    let child = lab.spawn(["run", "x.toml"]);
    wait_until("the daemon runs", || sleepers(&seconds).len() == 1);
    signal(child.id(), Signal::INT);
    wait_for_signal_report(child.stderr.as_ref().unwrap());
    signal(child.id(), Signal::INT);
    lab.told(child).expect(130);
    assert_eq!(sleepers(&seconds), Vec::<u32>::new());
}

/// Returns the supervisors below a run.
fn supervisors(run: u32) -> Vec<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    below(run).into_iter().filter(|pid| name(pid) == "pipeline-stage\n").collect()
}

#[test]
fn a_killed_supervisor_costs_its_stage_and_leaves_nothing_running() {
    let seconds = sleep_of_its_own(5);
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.s]\nkind = \"command\"\nrun = \"{}; sleep 300\"\noutputs.out = {{}}\n\
             [stages.other]\nkind = \"command\"\nrun = \"{}; echo x > outputs/out/x\"\noutputs.out = {{}}\n",
            daemon(&seconds),
            lab.gate("gate")
        ),
    );
    let child = lab.spawn(["run", "x.toml", "--keep-going", "--jobs", "2"]);
    wait_until("the daemon runs", || sleepers(&seconds).len() == 1);
    let of_s = |pid: &u32| below(*pid).iter().any(|pid| sleepers(&seconds).contains(pid));
    let supervisor = supervisors(child.id()).into_iter().find(of_s).expect("each program has one");
    signal(supervisor, Signal::KILL);
    ends(&seconds);
    // The other stage goes on, and so does the run.
    lab.write("gate", "");
    let told = lab.told(child).expect(3).says(&["FAILED    s of x.toml: the program was killed by signal 9"]);
    assert_eq!(told.ran(), ["other"]);
}

#[test]
fn a_signal_to_every_process_of_a_job_leaves_nothing_running() {
    let seconds = sleep_of_its_own(6);
    let lab = one(&format!("trap '' TERM; {}; sleep 300", daemon(&seconds)), "");
    let child = lab.spawn(["run", "x.toml"]);
    wait_until("the daemon runs", || sleepers(&seconds).len() == 1);
    for pid in supervisors(child.id()) {
        signal(pid, Signal::TERM);
        signal(pid, Signal::INT);
        signal(pid, Signal::HUP);
    }
    assert_eq!(sleepers(&seconds).len(), 1, "the supervisor is still there");
    signal(child.id(), Signal::KILL);
    lab.told(child);
    ends(&seconds);
}

#[test]
fn a_swarm_of_processes_is_ended() {
    let seconds = sleep_of_its_own(7);
    let line = format!(
        "i=0; while [ $i -lt 300 ]; do setsid sleep {seconds} >/dev/null 2>&1 & i=$((i+1)); done; \
         echo x > outputs/out/x"
    );
    one(&line, "").run(["run", "x.toml"]).expect(0);
    assert_eq!(sleepers(&seconds), Vec::<u32>::new());
}

#[test]
fn a_stage_has_no_terminal() {
    let test = "a_stage_has_no_terminal";
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: {test}: `script` is not there to make a terminal");
        return;
    }
    if lab_has_no_sandbox(test) {
        return;
    }
    let lab = Lab::new();
    // The terminal's own path is told by the file, since a stage cannot ask for it.
    let line = "{ (exec 3<>/dev/tty) 2>/dev/null && echo tty; \
                (exec 3>$(cat files/terminal)) 2>/dev/null && echo path; echo tried; } > outputs/out/x";
    let run = serde_json::Value::from(line);
    lab.write(
        "x.toml",
        format!(
            "[stages.s]\nkind = \"command\"\nrun = {run}\nfiles = [\"terminal\"]\noutputs.out = {{}}\n\
             [stages.w]\nkind = \"source\"\npath = \"rows.csv\"\n"
        ),
    );
    lab.write("rows.csv", "id\n1\n");
    let plain = lab.command(["run", "x.toml"]);
    let program = plain.get_program().display().to_string();
    let inner = format!("tty > terminal; (exec 3<>/dev/tty) && echo has one; {program} run x.toml");
    let mut command = Command::new("script");
    command.args(["-qec", &inner, "/dev/null"]).current_dir(lab.path("")).env("NO_COLOR", "1");
    command.env("PIPELINE_CACHE", lab.cache()).stdin(std::process::Stdio::null());
    let told = Told::of(command.output().unwrap()).expect(0).shows(&["has one"]);
    assert!(told.stdout.contains("2 stages: 2 ran"), "{}", told.stdout);
    assert_eq!(lab.made("s", "x"), "tried\n");
}

#[test]
fn a_program_cannot_end_its_run_and_makes_no_device() {
    let test = "a_program_cannot_end_its_run_and_makes_no_device";
    if lab_has_no_sandbox(test) {
        return;
    }
    if !Lab::new().run(["doctor"]).expect(0).stdout.contains("signals reach only what") {
        eprintln!("SKIPPED: {test}: this system cannot confine signals");
        return;
    }
    let line = "{ kill -9 $PPID 2>/dev/null && echo killed; \
                kill -9 $(cut -d' ' -f4 /proc/$PPID/stat) 2>/dev/null && echo run killed; \
                mknod tmp/null c 1 3 2>/dev/null && echo made; \
                (sleep 300 & kill $!) && echo own; } > outputs/out/x; true";
    let lab = one(line, "");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "own\n");
}

/// Copies the binary by a program of its own: what a test has open for writing, a process that another
/// test starts has open too, and then it cannot be executed.
fn copy_program(to: &std::path::Path) {
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_pipeline")).arg(to).status();
    assert!(status.unwrap().success());
}

#[test]
fn an_executable_file_can_be_executed_as_soon_as_it_is_there() {
    // Many stages begin beside each other, each with a copy of a program that it runs at once.
    let lab = Lab::with(
        "[stages.s]\nkind = \"command\"\nfiles = [\"tool\"]\nrun = [\"files/tool\", \"-c\", \"echo x > outputs/out/x\"]\n\
         outputs.out = {}\nparameters = { n = 0 }\n\
         axes.n = { field = \"parameters.n\", values = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20] }\n",
    );
    assert!(Command::new("cp").arg("-L").arg("/bin/sh").arg(lab.path("tool")).status().unwrap().success());
    for _ in 0..3 {
        let told = lab.run(["run", "x.toml", "--jobs", "8", "--force", "s"]).expect(0);
        assert_eq!(told.ran().len(), 20);
    }
}

#[test]
fn a_program_replaced_while_it_runs_does_not_do_the_rest() {
    let lab = Lab::new();
    lab.write("rows.csv", "id\n1\n");
    lab.write(
        "x.toml",
        format!(
            "[stages.a]\nkind = \"command\"\nrun = \"{}; echo '{{}}' > outputs/out/x.jsonl\"\n\
             outputs.out = {{ type = \"rows\" }}\n\
             [stages.b]\nkind = \"subset\"\ninputs = {{ rows = \"c\" }}\ntake.count = 1\n\
             [stages.c]\nkind = \"source\"\npath = \"rows.csv\"\n",
            lab.gate("gate")
        ),
    );
    let copy = lab.path("pipeline");
    copy_program(&copy);
    let plain = lab.command(["run", "x.toml", "--jobs", "1"]);
    let mut command = Command::new(&copy);
    command.args(plain.get_args()).current_dir(lab.path("")).env("PIPELINE_CACHE", lab.cache());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("the first stage runs", || lab.run(["status", "x.toml"]).stdout.contains("running  a"));
    fs::remove_file(&copy).unwrap();
    lab.write("pipeline", "#!/bin/sh\nexit 9\n");
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    lab.write("gate", "");
    assert_eq!(lab.told(child).expect(0).ran(), ["a", "b", "c"]);
}

/// A limit on the processes and threads of a user, down to none: the run ends, and says why.
#[test]
fn threads_and_processes_that_cannot_be_made_are_an_error() {
    let test = "threads_and_processes_that_cannot_be_made_are_an_error";
    let lab = Lab::new();
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    };
    open(&lab.path(""));
    let program = lab.path("pipeline");
    copy_program(&program);
    // Large outputs are hashed on several threads.
    lab.write(
        "x.toml",
        "[stages.big]\nkind = \"command\"\nrun = \"head -c 4000000 /dev/zero > outputs/out/x\"\noutputs.out = {}\n\
         [stages.rows]\nkind = \"source\"\npath = \"rows.csv\"\n\
         [stages.few]\nkind = \"subset\"\ninputs = { rows = \"rows\" }\ntake.count = 1\n",
    );
    lab.write("rows.csv", "id\n1\n2\n");
    // A user of its own: the limit counts all that a user runs.
    let user = 900_000_000 + std::process::id() % 1_000_000;
    let run = |limit: &str, cache: &str| {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "60", "setpriv"])
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"));
        command.args(["--clear-groups", "prlimit", &format!("--nproc={limit}")]).arg(&program);
        command.args(["run", "x.toml", "--keep-going", "--cache", cache]).current_dir(lab.path(""));
        command.env("HOME", "/").stdin(std::process::Stdio::null());
        Told::of(command.output().expect("`timeout` is there"))
    };
    if run("unlimited", "probe").code != 0 {
        eprintln!("SKIPPED: {test}: another user cannot be had here");
        return;
    }
    let (mut ended_well, mut failed) = (0, 0);
    for limit in 1..=12 {
        let told = run(&limit.to_string(), &format!("cache-{limit}"));
        match told.code {
            0 => ended_well += 1,
            2 | 3 => failed += 1,
            code => panic!("limit {limit}: code {code}\n{}\n{}", told.stdout, told.stderr),
        }
        for word in ["panicked", "has a bug"] {
            assert!(!told.stderr.contains(word), "limit {limit}: {}", told.stderr);
        }
        // What there was no thread for is made as soon as there is one.
        let again = run("unlimited", &format!("cache-{limit}")).expect(0);
        assert_eq!(again.told("FAILED"), Vec::<String>::new());
    }
    assert!(failed > 0 && ended_well + failed == 12, "{ended_well} ended well, {failed} failed");
}
