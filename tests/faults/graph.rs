//! An experiment of many cheap stages, and what an undisturbed run makes of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::experiment::{Experiment, experiment, write_properties};
use crate::lab::{Lab, Told, below, processes_naming, signal};

/// Thirty-six stages: a source, workers of four kinds, commands with children and grandchildren, fan-out,
/// fan-in, and one that holds the bytes of all.
fn experiment_of_graph() -> Experiment {
    let leaf = r"
seq 1 $PARAM_number | (sleep 0.01; sed 's/^/line /') > outputs/out/a
(sleep 0.02; echo late $PARAM_number > outputs/out/b) &
wait $!
sort -r outputs/out/a > outputs/out/c
";
    let pair = "cat inputs/x/a inputs/x/c | tee tmp/both | sed 's/line/pair/' > outputs/out/a; sleep 0.005; \
                cp tmp/both outputs/out/b";
    let mix = r#"cat inputs/all/*/a inputs/rows/rows.jsonl | sed "s/^/$PARAM_side /" > outputs/out/a"#;
    let tail = "tac inputs/x/a | head -n 200 > outputs/out/a.txt; cat outputs/out/a.txt > outputs/out/b.txt";
    let scores = r#"
lines=$(cat inputs/x/*/a.txt | wc -l)
rows=$(wc -l < inputs/rest/rows.jsonl)
echo "{\"lines\": $lines, \"rows\": $rows}" > outputs/scores/metrics.json
"#;
    let everything = r#"
find -L inputs -type f | LC_ALL=C sort > tmp/list
while read -r file; do
    echo "== $file"
    cat "$file"
done < tmp/list > outputs/out/everything
echo "{\"files\": $(wc -l < tmp/list)}" > outputs/scores/metrics.json
"#;
    experiment()
        .seed(3)
        .captions()
        .command("leaf", leaf)
        .axis("number", "parameters.number", [11, 12, 13, 14, 15, 16, 17, 18, 19, 20].as_slice())
        .command("pair", pair)
        .input("x", "leaf")
        .command("mix", mix)
        .input("all", "pair[number=*]")
        .input("rows", "half")
        .axis("side", "parameters.side", ["north", "east", "south", "west"].as_slice())
        .command("tail", tail)
        .input("x", "mix")
        .scores("scores", ["lines", "rows"], scores)
        .input("x", "tail[side=*]")
        .input("rest", "rest")
        .command("everything", everything)
        .set("outputs.scores", serde_json::json!({ "type": "scores", "columns": ["files"] }))
        .input("leaf", "leaf[number=*]")
        .input("pair", "pair[number=*]")
        .input("mix", "mix[side=*]")
        .input("tail", "tail[side=*]")
        .input("scores", "scores")
        .input("words", "words")
        .input("half", "words_half")
        .input("rest", "rest")
        .table(["files"])
        .row("all", "everything")
}

/// How many stages it has.
pub(super) const STAGES: usize = 36;

/// Makes a workspace with it.
pub(super) fn graph() -> Lab {
    let lab = Lab::in_memory();
    write_graph(&lab);
    lab
}

/// Writes it into a workspace.
pub(super) fn write_graph(lab: &Lab) {
    lab.write("x.toml", experiment_of_graph().to_string());
    write_properties(lab);
}

/// What an undisturbed run makes: the table, and the digest of the stage that holds all bytes.
pub(super) struct Undisturbed {
    pub outcome: String,
    pub took: Duration,
}

impl Undisturbed {
    /// Returns it; it is run once for all tests.
    pub(super) fn run() -> &'static Self {
        static RUN: OnceLock<Undisturbed> = OnceLock::new();
        RUN.get_or_init(|| {
            let lab = graph();
            let began = Instant::now();
            lab.run(["run", "x.toml"]).expect(0);
            Self { took: began.elapsed(), outcome: outcome(&lab).expect("it is all there") }
        })
    }
}

/// Returns the table, and the digest of the stage that holds the bytes of all others; or what the
/// program says instead.
pub(super) fn outcome(lab: &Lab) -> Result<String, String> {
    let table = lab.run(["table", "x.toml", "--format", "json"]);
    let show = lab.run(["show", "x.toml", "everything", "--output", "out"]);
    if (table.code, show.code) != (0, 0) {
        return Err(format!("{table:?} {show:?}"));
    }
    Ok(format!("{}{}", table.stdout, show.stdout))
}

/// Starts a run whose words nobody reads.
pub(super) fn start(lab: &Lab) -> Child {
    let mut command = lab.command(["run", "x.toml"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
}

/// Starts a run and waits until it has told of so many stages, or is done. A moment told in stages
/// is the same on a busy machine and on an idle one.
pub(super) fn start_and_wait(lab: &Lab, stages: usize) -> Child {
    let mut command = lab.command(["run", "x.toml"]);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(run.stderr.take().expect("it is piped")).lines();
    for _ in 0..stages {
        if lines.next().is_none() {
            break;
        }
    }
    // What is told from now on is read too, or the run would die of telling it.
    std::thread::spawn(move || lines.for_each(drop));
    run
}

/// Waits until no process names this workspace any more; what is left is killed and returned.
pub(super) fn left_running(lab: &Lab) -> Vec<String> {
    let mark = lab.path("").display().to_string();
    let began = Instant::now();
    loop {
        let left = processes_naming(&mark);
        if left.is_empty() {
            return Vec::new();
        }
        if began.elapsed() > Duration::from_secs(10) {
            let name = |pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).replace('\0', " ")
            };
            let names = left.iter().map(name).collect();
            for pid in left {
                signal(pid, Signal::KILL);
            }
            return names;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the workers below a run, or the programs and what they started.
pub(super) fn victims(run: u32, worker: bool) -> Vec<u32> {
    let is_wanted = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_worker = line.contains("\0worker\0");
        let is_ours = line.starts_with(env!("CARGO_BIN_EXE_pipeline"));
        if worker { is_worker } else { !is_ours && !line.is_empty() }
    };
    below(run).into_iter().filter(is_wanted).collect()
}

/// Finishes what was disturbed and says what is not as it must be: the outcome is that of an
/// undisturbed run, every byte is intact, and a further run has nothing to do.
pub(super) fn recovers(lab: &Lab, undisturbed: &Undisturbed) -> Result<(), String> {
    let told = lab.run(["run", "x.toml"]);
    if told.code != 0 {
        return Err(format!("it does not finish: {told:?}"));
    }
    match outcome(lab) {
        Ok(outcome) if outcome == undisturbed.outcome => {}
        Ok(outcome) => return Err(format!("another outcome: {outcome}")),
        Err(told) => return Err(told),
    }
    let verified = lab.run(["cache", "verify"]);
    if verified.code != 0 {
        return Err(format!("not intact: {verified:?}"));
    }
    let again = lab.run(["run", "x.toml"]);
    if again.ran().is_empty() && again.code == 0 {
        Ok(())
    } else {
        Err(format!("the next run has work to do: {again:?}"))
    }
}

/// Returns whether a command ended by a panic or by a signal.
pub(super) fn has_crashed(told: &Told) -> bool {
    told.code == 101 || told.code < 0 || told.stderr.contains("has a bug") || told.stderr.contains("panicked")
}
