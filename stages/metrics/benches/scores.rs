//! How long scores take on MolT5-small's 3,300 outputs in each direction, beside Python's.
//!
//! `cargo bench -p metrics --bench scores -- DATA [--peer PYTHON]` reads the outputs, the word
//! pieces and WordNet from the folder DATA. PYTHON is an interpreter with nltk, rouge_score, rdkit,
//! sacrebleu, Levenshtein and tokenizers; with it `benches/scores.py` scores the same pairs, right
//! before. Both sides read their files before the clock starts, WordNet too.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use chem::{FingerprintKind, Molecule};
use metrics::meteor::{WordNet, meteor};
use metrics::similarity::{EmptyFingerprints, similarity};
use metrics::wordpiece::WordPiece;
use metrics::{bleu, chrf, exact, levenshtein, rouge};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The best of so many runs counts.
const RUNS: usize = 3;

/// Output and reference.
type Pair = (String, String);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(folder) = arguments.first() else {
        return println!("usage: cargo bench -p metrics --bench scores -- DATA [--peer PYTHON]");
    };
    let folder = Path::new(folder);
    let peer =
        arguments.iter().position(|argument| argument == "--peer").and_then(|at| arguments.get(at + 1));
    let theirs = peer.map(|python| run_peer(python, folder)).unwrap_or_default();
    let ours = measure(folder);
    let threads = threads();
    println!("seconds by the clock for 3,300 pairs; here with {threads} threads, Python with one process");
    println!("{:<28}{:>10}{:>10}{:>8}", "", "here", "Python", "ratio");
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (group, name, seconds) in &ours {
        let python = theirs.get(*name).copied();
        print_line(name, *seconds, python);
        if let Some(python) = python {
            let sum = sums.entry(group).or_default();
            *sum = (sum.0 + seconds, sum.1 + python);
        }
    }
    for (group, (here, python)) in sums {
        print_line(&format!("all {group}"), here, Some(python));
    }
}

fn print_line(name: &str, here: f64, python: Option<f64>) {
    match python {
        Some(python) => println!("{name:<28}{here:>10.3}{python:>10.3}{:>8.1}", python / here),
        None => println!("{name:<28}{here:>10.3}"),
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn run_peer(python: &str, folder: &Path) -> BTreeMap<String, f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scores.py");
    let told = Command::new(python).arg(script).arg(folder).output().expect("Python starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = String::from_utf8(told.stdout).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(name, seconds)| (name.to_owned(), seconds.parse().expect("a number"))).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pairs(folder: &Path, direction: &str) -> Vec<Pair> {
    let packed = read(&folder.join(format!("chebi20/molt5_small_{direction}.tsv.gz")));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&packed[..]).read_to_string(&mut text).expect("gzip of UTF-8");
    let cells = text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    cells.map(|cells| (cells[2].to_owned(), cells[1].to_owned())).collect()
}

/// Measures everything: the group, what is measured, and how many seconds it takes.
fn measure(folder: &Path) -> Vec<(&'static str, &'static str, f64)> {
    let captions = pairs(folder, "mol2cap");
    let molecules = pairs(folder, "cap2mol");
    let vocabulary = String::from_utf8(read(&folder.join("scibert_uncased_vocab.txt"))).expect("UTF-8");
    let pieces = WordPiece::parse(&vocabulary).expect("a vocabulary");
    let wordnet = WordNet::open(&folder.join("wordnet-3.0.tar.xz")).expect("WordNet");
    let tokens: Vec<(Vec<&str>, Vec<&str>)> =
        captions.iter().map(|(output, reference)| (pieces.split(output), pieces.split(reference))).collect();
    let parse = |line: &str| Molecule::of_line(line).ok();
    let parsed: Vec<(Option<Molecule>, Option<Molecule>)> =
        molecules.iter().map(|(output, reference)| (parse(output), parse(reference))).collect();
    let like = |kind: FingerprintKind| {
        best(&parsed, |(output, reference)| match (output, reference) {
            (Some(output), Some(reference)) => {
                similarity(output, reference, kind, EmptyFingerprints::Zero).unwrap_or_default()
            }
            _ => 0.0,
        })
    };
    vec![
        (
            "tokens",
            "tokenise",
            best(&captions, |(output, reference)| {
                (pieces.split(output).len() + pieces.split(reference).len()) as f64
            }),
        ),
        (
            "captions",
            "bleu2 and bleu4",
            best(&tokens, |(output, reference)| bleu::Counts::of(output, reference).matched[0] as f64),
        ),
        (
            "captions",
            "rouge1, rouge2, rougeL",
            best(&captions, |(output, reference)| rouge::Rouge::of(output, reference).rouge_l),
        ),
        (
            "captions",
            "meteor",
            best(&tokens, |(output, reference)| meteor(output, reference, Some(&wordnet))),
        ),
        (
            "molecules",
            "parse, validity",
            best(&molecules, |(output, reference)| {
                f64::from(u8::from(parse(output).is_some() && parse(reference).is_some()))
            }),
        ),
        ("molecules", "maccs_fts", like(FingerprintKind::Maccs)),
        ("molecules", "rdk_fts", like(FingerprintKind::Rdk)),
        ("molecules", "morgan_fts", like(FingerprintKind::Morgan)),
        (
            "molecules",
            "exact_inchi",
            best(&parsed, |(output, reference)| match (output, reference) {
                (Some(output), Some(reference)) => {
                    f64::from(u8::from(exact::inchi(output, reference).unwrap_or_default()))
                }
                _ => 0.0,
            }),
        ),
        (
            "molecules",
            "bleu of characters",
            best(&molecules, |(output, reference)| {
                let [output, reference] = [output, reference].map(|text| text.chars().collect::<Vec<char>>());
                bleu::Counts::of(&output, &reference).matched[0] as f64
            }),
        ),
        (
            "molecules",
            "levenshtein",
            best(&molecules, |(output, reference)| levenshtein::distance(output, reference) as f64),
        ),
        ("molecules", "chrf", best(&molecules, |(output, reference)| chrf::chrf(output, reference, 1.0))),
    ]
}

/// Returns the least time that it takes to score all items, on all threads.
fn best<T: Sync>(items: &[T], score: impl Fn(&T) -> f64 + Sync) -> f64 {
    let share = items.len().div_ceil(threads() * 16);
    let time = || {
        let begun = Instant::now();
        let next = std::sync::Mutex::new(items.chunks(share));
        std::thread::scope(|scope| {
            for _ in 0..threads() {
                scope.spawn(|| {
                    while let Some(chunk) = { next.lock().expect("no thread panics").next() } {
                        std::hint::black_box(chunk.iter().map(&score).sum::<f64>());
                    }
                });
            }
        });
        begun.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| time()).fold(f64::INFINITY, f64::min)
}
