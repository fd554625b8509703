//! A stage that runs says why.

use crate::experiment::experiment;
use crate::lab::{Lab, Told};

/// `c` reads `b`, which reads `a`.
fn chain() -> Lab {
    experiment()
        .command("a", "cp params.json outputs/out/x.txt")
        .set("parameters.word", "one")
        .command("b", "cat inputs/a/x.txt > outputs/out/x.txt")
        .input("a", "a")
        .command("c", "cat inputs/b/x.txt > outputs/out/x.txt")
        .input("b", "b")
        .lab()
}

/// Returns what stands behind the time in the line of a stage that ran.
fn because(told: &Told, stage: &str) -> String {
    let line = told.stderr.lines().find(|line| line.starts_with(&format!("ran       {stage}  (")));
    let line = line.unwrap_or_else(|| panic!("`{stage}` did not run:\n{}", told.stderr));
    line.split_once(")  ").expect("a reason").1.to_owned()
}

#[test]
fn the_first_cause_is_printed_beside_the_stage() {
    let lab = chain();
    let first = lab.run(["run", "x.toml"]).expect(0);
    assert_eq!([because(&first, "a"), because(&first, "c")], ["new", "new"]);
    lab.edit("x.toml", "\"one\"", "\"two\"");
    let second = lab.run(["run", "x.toml"]).expect(0);
    let change = "parameters.word \"one\" -> \"two\" (x.toml:6)";
    assert_eq!(because(&second, "a"), change);
    assert_eq!(because(&second, "b"), format!("a: {change}"));
    assert_eq!(because(&second, "c"), format!("a: {change}"));
    let forced = lab.run(["run", "x.toml", "--force", "b"]).expect(0);
    assert_eq!(because(&forced, "b"), "forced");
    lab.edit("x.toml", "\"two\"", "\"three\"");
    lab.edit("x.toml", "cat inputs/b/x.txt", "cat < inputs/b/x.txt");
    let third = lab.run(["run", "x.toml"]).expect(0);
    assert!(because(&third, "c").starts_with("run \"cat inputs/b"), "{}", third.stderr);
    assert!(because(&third, "c").ends_with(", and 1 more"), "{}", third.stderr);
}

#[test]
fn a_stage_that_is_new_or_failed_before_says_so() {
    let lab = chain();
    lab.edit("x.toml", "cat inputs/a/x.txt", "test $(cat files/code) = 0 || exit 3; cat inputs/a/x.txt");
    lab.edit("x.toml", "[stages.b]", "[stages.b]\nfiles = [\"code\"]");
    lab.write("code", "3");
    lab.run(["run", "x.toml"]).expect(3);
    let again = lab.run(["run", "x.toml", "--json"]).expect(3);
    let started = again.events().into_iter().find(|event| event["event"] == "started").expect("it starts");
    assert_eq!((&started["stage"], &started["because"]), (&"b".into(), &"exited before".into()));
    lab.write("code", "0");
    let mended = lab.run(["run", "x.toml", "--json"]).expect(0);
    let finished = mended.events();
    let because = |stage: &str| {
        let of = |event: &&serde_json::Value| event["stage"] == stage && event["result"] == "ran";
        finished.iter().find(of).map(|event| event["because"].as_str().unwrap_or_default().to_owned())
    };
    assert!(because("b").is_some_and(|because| because.starts_with("files.code ")), "{finished:?}");
    lab.run(["why", "x.toml", "c"]).expect(0).shows(&["c is a hit"]);
}

#[test]
fn why_begins_with_the_causes_and_shows_the_chain_on_request() {
    let lab = chain();
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "\"one\"", "\"two\"");
    let told = lab.run(["why", "x.toml", "c"]).expect(0).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("c may run"), "{told}");
    assert_eq!(lines[1..], ["  a: parameters.word \"one\" -> \"two\" (x.toml:6)"]);
    let chain = lab.run(["why", "x.toml", "c", "--chain"]).expect(0).stdout;
    let lines: Vec<&str> = chain.lines().collect();
    assert_eq!([lines[2], lines[4], lines[6]], ["  chain: c", "  because of b", "  because of a"], "{chain}");
    assert!(lines[3].starts_with("    inputs.b ") && lines[3].contains("-> b ("), "{chain}");
}

#[test]
fn an_input_that_another_stage_makes_is_a_cause_itself() {
    let lab = chain();
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "inputs.b = \"b\"", "inputs.b = \"a\"");
    let told = lab.run(["why", "x.toml", "c"]).expect(0).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[1].starts_with("  inputs.b ") && lines[1].contains(" -> a ("), "{told}");
}

#[test]
fn an_ablation_is_compared_with_the_file_that_it_includes() {
    let base = "[stages.a]\nkind = 'command'\nrun = 'echo $PARAM_x > outputs/o/f'\noutputs.o = {}\n\
                parameters.x = 1\n";
    let lab = Lab::with(base);
    lab.run(["run", "x.toml"]).expect(0);
    lab.write("mine.toml", "experiment.include = ['x.toml']\nstages.a.parameters.x = 2\n");
    lab.run(["why", "mine.toml", "a"]).expect(0).shows(&["parameters.x", "mine.toml:2"]);
    let told = lab.run(["run", "mine.toml"]).expect(0);
    assert!(told.stderr.contains("x 1 -> 2 (mine.toml:2)"), "{}", told.stderr);
    lab.write("named.toml", "experiment.include = { n = 'x.toml' }\n[stages.'n/a']\nparameters.x = 3\n");
    lab.run(["why", "named.toml", "n/a"]).expect(0).shows(&["parameters.x", "named.toml:3"]);
}
