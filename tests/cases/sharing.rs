//! Several runs on one cache.

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
