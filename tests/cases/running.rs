//! What runs, and what does not.

use crate::experiment::{Experiment, experiment};
use crate::lab::{Lab, wait_until};

/// `first` writes a word, and `second` writes it twice.
fn pair(experiment: Experiment, first: &str, second: &str) -> Experiment {
    experiment
        .command(first, "echo hello > outputs/out/a.txt")
        .command(second, "cat inputs/a/a.txt inputs/a/a.txt > outputs/out/b.txt")
        .input("a", first)
}

fn two() -> Experiment {
    pair(experiment(), "a", "b")
}

#[test]
fn a_second_run_does_nothing() {
    let lab = two().lab();
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["a", "b"]);
    let again = lab.run(["run", "x.toml"]).expect(0);
    assert!(again.ran().is_empty() && again.stderr.contains("0 ran, 2 reused"), "{}", again.stderr);
}

/// `a` makes a word, `lines` counts its lines, `report` reads the count; `shout` reads the word.
fn cut() -> Lab {
    experiment()
        .command("a", "echo $PARAM_word > outputs/out/a.txt")
        .set("parameters.word", "hello")
        .command("lines", "wc -l < inputs/a/a.txt > outputs/out/n.txt")
        .input("a", "a")
        .command("report", "(printf 'lines: '; cat inputs/n/n.txt) > outputs/out/report.txt")
        .input("n", "lines")
        .command("shout", "tr a-z A-Z < inputs/a/a.txt > outputs/out/shout.txt")
        .input("a", "a")
        .lab()
}

#[test]
fn a_changed_parameter_runs_what_is_below_until_the_bytes_are_the_same() {
    let lab = cut();
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "hello", "world");
    let changed = lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(changed.ran(), ["a", "lines", "shout"]);
    assert_eq!(changed.told("unchanged"), ["report"]);
    assert_eq!(lab.made("shout", "shout.txt"), "WORLD\n");
    // The cut-off is remembered under the new recipe, so that the next run need not look.
    let again = lab.run(["run", "x.toml"]).expect(0);
    assert!(again.ran().is_empty() && again.told("unchanged").is_empty(), "{}", again.stderr);
}

#[test]
fn a_stage_that_makes_the_same_bytes_runs_nothing_below() {
    let lab = cut();
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "echo $PARAM_word >", "echo   $PARAM_word >");
    let changed = lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(changed.ran(), ["a"]);
    assert_eq!(changed.told("unchanged"), ["lines", "report", "shout"]);
}

#[test]
fn a_change_below_leaves_what_is_above_and_beside() {
    let lab = cut();
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("x.toml", "lines: ", "count: ");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["report"]);
    // And back again: the old result is still there.
    lab.edit("x.toml", "count: ", "lines: ");
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
}

#[test]
fn equal_stages_are_done_once() {
    let lab = pair(two(), "z", "c").lab();
    let told = lab.run(["run", "x.toml"]).expect(0).says(&["4 stages: 2 ran, 2 reused"]);
    assert_eq!(told.ran().len(), 2);
    assert_eq!(lab.made("c", "b.txt"), "hello\nhello\n");
}

#[test]
fn a_name_is_no_part_of_the_work() {
    let lab = two().lab();
    lab.run(["run", "x.toml"]).expect(0);
    lab.write("x.toml", pair(experiment(), "first", "b").to_string());
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
}

#[test]
fn a_forced_stage_runs_and_what_comes_out_the_same_stops_there() {
    let lab = cut();
    lab.run(["run", "x.toml"]).expect(0);
    let forced = lab.run(["run", "x.toml", "--force", "a"]).expect(0);
    assert_eq!(forced.ran(), ["a"]);
    assert_eq!(forced.told("unchanged"), ["lines", "report", "shout"]);
    let forced = lab.run(["run", "x.toml", "--force", "lines", "--force", "shout"]).expect(0);
    assert_eq!(forced.ran(), ["lines", "shout"]);
}

#[test]
fn what_a_forced_stage_makes_anew_is_used_below() {
    let lab = two().lab();
    lab.edit("x.toml", "echo hello", "cat /proc/sys/kernel/random/uuid");
    lab.run(["run", "x.toml"]).expect(0);
    let before = lab.made("b", "b.txt");
    assert_eq!(lab.run(["run", "x.toml", "--force", "a"]).expect(0).ran(), ["a", "b"]);
    let (a, b) = (lab.made("a", "a.txt"), lab.made("b", "b.txt"));
    assert_ne!(b, before);
    assert_eq!(b, format!("{a}{a}"));
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
}

#[test]
fn until_makes_a_stage_and_what_it_needs() {
    let lab = cut();
    let told = lab.run(["run", "x.toml", "--until", "lines"]).expect(0);
    assert_eq!(told.ran(), ["a", "lines"]);
    assert!(told.stderr.contains("2 not needed"), "{}", told.stderr);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["report", "shout"]);
}

#[test]
fn only_makes_a_stage_from_what_is_there() {
    let lab = cut();
    let told = lab.run(["run", "x.toml", "--only", "lines"]).expect(3);
    assert!(told.ran().is_empty());
    let told = told.says(&["`--only`"]);
    assert_eq!(told.told("skipped"), ["a", "lines"]);
    lab.run(["run", "x.toml", "--until", "a"]).expect(0);
    assert_eq!(lab.run(["run", "x.toml", "--only", "lines"]).expect(0).ran(), ["lines"]);
}

/// `bad` fails; `below` needs it; `first`, which waits for the gate, and `second` do not.
fn broken(lab: &Lab) -> Experiment {
    experiment()
        .command("bad", "exit 1")
        .command("below", "touch outputs/out/x")
        .input("a", "bad")
        .command("first", &format!("{}; touch outputs/out/x", lab.gate("gate")))
        .command("second", "touch outputs/out/x")
        .input("a", "first")
}

#[test]
fn a_failure_stops_the_run_unless_it_is_to_keep_going() {
    let run = |arguments: &[&str]| {
        let lab = Lab::new();
        lab.write("x.toml", broken(&lab).to_string());
        let child = lab.spawn(["run", "x.toml", "--jobs", "2"].iter().chain(arguments));
        // The failure is told before the gate opens, so `second` comes after it.
        wait_until("the failure is known", || lab.run(["status", "x.toml"]).stdout.contains("failed   bad"));
        lab.write("gate", "");
        lab.told(child).expect(3)
    };
    let told = run(&[]);
    assert_eq!(
        (told.told("FAILED"), told.told("skipped")),
        (vec!["bad".to_owned()], vec!["below".to_owned()])
    );
    assert_eq!(told.ran(), ["first"], "{}", told.stderr);
    let told = run(&["--keep-going"]).says(&["4 stages: 2 ran, 0 reused, 1 failed, 1 skipped"]);
    assert_eq!(
        (told.ran(), told.told("skipped")),
        (vec!["first".to_owned(), "second".to_owned()], vec!["below".to_owned()])
    );
}

/// Returns the most stages of a run that ran at once.
fn most_at_once(lab: &Lab, arguments: &[&str]) -> usize {
    lab.run(["run", "x.toml", "--json"].iter().chain(arguments)).expect(0).most_at_once(|_| true)
}

#[test]
fn jobs_and_cores_limit_how_much_runs_at_once() {
    let stages = |count: u8, cores: u8| {
        let stage = |experiment: Experiment, number: u8| {
            let run = format!("sleep 0.1; echo {number} > outputs/out/x");
            experiment.command(&format!("s{number}"), &run).set("resources.cores", cores)
        };
        (0..count).fold(experiment(), stage).lab()
    };
    assert_eq!(most_at_once(&stages(4, 1), &["--jobs", "1"]), 1);
    assert_eq!(most_at_once(&stages(4, 1), &["--jobs", "3"]), 3);
    assert_eq!(most_at_once(&stages(3, 2), &["--jobs", "3"]), 1);
    // More than the machine has is cut down to all of it, or the stage would wait for ever.
    assert_eq!(most_at_once(&stages(1, 64), &["--jobs", "2"]), 1);
}

#[test]
fn what_is_missing_between_hits_is_not_made() {
    let lab = cut();
    lab.run(["run", "x.toml"]).expect(0);
    lab.damage(b"hello\n");
    lab.run(["cache", "verify", "--repair"]).expect(0);
    let told = lab.run(["run", "x.toml"]).expect(0).says(&["0 ran, 3 reused, 1 not needed"]);
    assert!(told.ran().is_empty());
    // Asked for, or needed by something new, it is made.
    lab.edit("x.toml", "tr a-z A-Z", "tr a-y A-Y");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["a", "shout"]);
}

const AXES: &str = r#"
[experiment]
seed = 7

[stages.guess]
kind = "command"
run = "echo $PARAM_level > outputs/out/level; echo $PARAM_draw > outputs/out/draw"
parameters = { level = 0, draw = 0 }
outputs.out = {}

[stages.guess.axes.method]
low.parameters.level = 10
high.parameters.level = 20

[stages.guess.axes.draw]
field = "parameters.draw"
values = [1, 2, 3]

[stages.score]
kind = "command"
inputs = { guess = "guess" }
run = '''
level=$(cat inputs/guess/level); draw=$(cat inputs/guess/draw)
echo '{"accuracy": '$((level + draw))'}' > outputs/scores/metrics.json
'''
outputs.scores = { type = "scores", columns = ["accuracy"] }

[stages.pinned]
kind = "command"
inputs = { guess = "guess[method=high,draw=2]" }
run = "cat inputs/guess/level > outputs/out/x"
outputs.out = {}

[stages.gathered]
kind = "command"
inputs = { guesses = "guess[method=*,draw=*]" }
run = "cd inputs/guesses; for each in *; do echo $each $(cat $each/level); done > ../../outputs/out/x"
outputs.out = {}

[table]
average = ["draw"]
columns = ["accuracy"]
"#;

#[test]
fn axes_multiply_pin_gather_and_average() {
    let lab = Lab::with(AXES);
    let told = lab.run(["run", "x.toml", "--format", "csv"]).expect(0);
    // Six guesses and six scores. The table reads neither what is pinned nor what is gathered.
    assert_eq!(told.ran().len(), 12);
    let rest = lab.run(["run", "x.toml", "--until", "pinned", "--until", "gathered"]).expect(0);
    assert_eq!(rest.ran(), ["gathered", "pinned"]);
    assert_eq!(
        told.stdout,
        "label,accuracy,accuracy_published,accuracy_std,accuracy_n,missing\n\
         low,12.0,,1.0,3,\nhigh,22.0,,1.0,3,\n"
    );
    assert_eq!(lab.made("pinned", "x"), "20\n");
    let gathered = lab.made("gathered", "x");
    assert_eq!(gathered.lines().count(), 6, "{gathered}");
    assert!(gathered.contains("high") && gathered.contains(" 20"), "{gathered}");

    // One variant more runs what it adds, and what gathers it.
    lab.edit("x.toml", "values = [1, 2, 3]", "values = [1, 2, 3, 4]");
    let told = lab.run(["run", "x.toml", "--until", "gathered", "--until", "score"]).expect(0);
    assert_eq!(
        told.ran(),
        [
            "gathered",
            "guess[method=high,draw=4]",
            "guess[method=low,draw=4]",
            "score[method=high,draw=4]",
            "score[method=low,draw=4]"
        ]
    );
}

#[test]
fn a_table_shows_published_numbers_differences_and_gaps() {
    let columns = r#"columns = [{ metric = "bleu", label = "BLEU", digits = 2, better = "higher" }]"#;
    let lab = experiment()
        .scores("good", ["bleu"], r#"echo '{"bleu": 0.75}' > outputs/scores/metrics.json"#)
        .scores("bad", ["bleu"], "echo oh no; exit 5")
        .lines(&format!("[table]\ntitle = \"Captions\"\n{columns}\npublished = \"printed.toml\""))
        .row("ours", "good")
        .row("theirs", "bad")
        .lines("[table.rows.old]\n[table.deltas.\"ours - theirs\"]")
        .lab();
    lab.write("printed.toml", "columns = [\"bleu\"]\n[rows]\nours = [0.72]\ntheirs = [0.43]\nold = [0.04]\n");
    let told = lab.run(["run", "x.toml", "--keep-going"]).expect(3);
    let told =
        told.shows(&["Captions", "BLEU", "0.75     (0.72)", "ours - theirs", "old", "exited with code 5"]);
    assert!(told.stdout.contains("0.43") && told.stdout.contains("+0.29"), "{}", told.stdout);
    let table = lab.run(["table", "x.toml", "--format", "csv"]).expect(3).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[..2], ["label,bleu,bleu_published,missing", "ours,0.75,0.72,"]);
    assert!(lines[2].starts_with("theirs,,0.43,") && lines[2].contains("exited with code 5"), "{table}");
    assert_eq!(lines[3], "old,,0.04,published only");

    // With the gap filled the code is 0, and a published row that nobody makes fails nothing.
    lab.edit(
        "x.toml",
        "\"echo oh no; exit 5\"",
        r#"'''echo '{"bleu": 0.5}' > outputs/scores/metrics.json'''"#,
    );
    lab.run(["run", "x.toml"]).expect(0).shows(&["+0.25"]);
    lab.run(["table", "x.toml"]).expect(0);
}
