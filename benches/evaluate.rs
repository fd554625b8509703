//! How the time and the memory of `evaluate` grow with the number of predictions.
//!
//! `cargo bench --bench evaluate -- DATA [quick]` takes MolT5-small's 3,300 outputs in each
//! direction from the folder DATA, over and over, and scores 3,300 to 300,000 of them by all
//! metrics of the papers' tables; `quick` stops at 30,000. What is measured is a run of the program
//! in which that stage alone is left to do, with all that it starts.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod usage;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Command;

use usage::{Usage, measure};

const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");

const SIZES: [usize; 4] = [3_300, 30_000, 100_000, 300_000];
const QUICK: usize = 30_000;

/// A direction, the columns of its file, and what is measured of it.
struct Task {
    direction: &'static str,
    columns: &'static str,
    metrics: &'static str,
}

const TASKS: [Task; 2] = [
    Task {
        direction: "mol2cap",
        columns: "{ molecule = \"SMILES\", caption = \"ground truth\", output = \"output\" }",
        metrics: "[\"bleu2\", \"bleu4\", \"meteor\", \"rouge1\", \"rouge2\", \"rougeL\", \"length_deviation\"]",
    },
    Task {
        direction: "cap2mol",
        columns: "{ caption = \"description\", molecule = \"ground truth\", output = \"output\" }",
        metrics: "[\"bleu\", \"exact\", \"levenshtein\", \"maccs_fts\", \"rdk_fts\", \"morgan_fts\", \"validity\", \
                  \"chrf\", \"win_rate\", \"uniqueness\", \"length_deviation\"]",
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(data) = arguments.first() else {
        return println!("usage: cargo bench --bench evaluate -- DATA [quick]");
    };
    let data = fs::canonicalize(data).unwrap_or_else(|error| panic!("{data}: {error}"));
    let is_quick = arguments.iter().any(|argument| argument == "quick");
    println!("| direction | predictions | wall | CPU | per prediction, CPU | peak memory |");
    println!("|---|---|---|---|---|---|");
    for task in TASKS {
        for rows in SIZES.into_iter().filter(|rows| !is_quick || *rows <= QUICK) {
            let usage = score(&task, rows, &data);
            println!(
                "| {} | {rows} | {:.1} s | {:.1} s | {:.0} µs | {:.0} MB |",
                task.direction,
                usage.wall,
                usage.cpu,
                usage.cpu / rows as f64 * 1e6,
                usage.peak_bytes / 1e6,
            );
        }
    }
}

fn score(task: &Task, rows: usize, data: &Path) -> Usage {
    let Task { direction, columns, metrics } = task;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    write_rows(&data.join(format!("chebi20/molt5_small_{direction}.tsv.gz")), rows, &path("rows.tsv"));
    let captions = "tokens.wordpiece = \"${data}/scibert_uncased_vocab.txt\"\nwordnet = \"${data}/wordnet-3.0.tar.xz\"\n";
    let more = if *direction == "mol2cap" { captions } else { "" };
    let experiment = format!(
        "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\ncolumns = {columns}\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs.rows = \"rows\"\ndirection = \"{direction}\"\n\
         metrics = {metrics}\n{more}"
    );
    fs::write(path("x.toml"), experiment).expect("the experiment is written");
    let run = |until: &str| {
        let mut command = Command::new(PIPELINE);
        command.args(["run", "x.toml", "--until", until, "--cache", "cache", "--data"]).arg(data);
        command.current_dir(folder.path());
        measure(command)
    };
    run("rows");
    run("scores")
}

/// Writes so many rows of a file, again from the beginning where it ends.
fn write_rows(from: &Path, rows: usize, to: &Path) {
    let packed = File::open(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(packed).read_to_string(&mut text).expect("gzip of UTF-8");
    let (header, lines) = text.split_once('\n').expect("there is a header");
    let mut out = BufWriter::new(File::create(to).expect("a file"));
    let mut write = |line: &str| writeln!(out, "{line}").expect("written");
    write(header);
    lines.lines().cycle().take(rows).for_each(&mut write);
    out.flush().expect("written");
}
