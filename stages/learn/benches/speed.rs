//! How long a training step and a generation take on the CPU, beside PyTorch and transformers.
//!
//! `cargo bench -p learn --bench speed [-- --threads N] [--peer PYTHON]`. The model is a LLaMA of
//! 3.2 million parameters (vocabulary 512, hidden 256, MLP 688, 4 layers, 8 heads), random; a
//! step is one of 8 sequences of 256 tokens, whole with clipping and AdamW; a CPO step takes 4
//! pairs of such. A generation makes 128 tokens behind each of 8 prompts of 32; one with a T5 of
//! T5-small's shape (60 million parameters, version 1.0) makes 64. PYTHON is an
//! interpreter with torch and transformers; with it `benches/speed.py` does the same, in turn with
//! us, three times each, and the best median of each counts.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use learn::{
    AdamW, Architecture, Example, Examples, Generation, Length, Model, Precision, ReferenceSource, Schedule,
    Sequence, Strategy, TokenLimit, TokenizerModel, TrainEvent, TrainHooks, TrainingConfig, generate, train,
};

#[path = "../../../src/allocator.rs"]
mod allocator;

/// The median of so many counts.
const RUNS: usize = 9;

/// How often each is measured.
const TURNS: usize = 3;

fn main() {
    allocator::configure();
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let threads = value("--threads").map_or(2, |threads| threads.parse().expect("a number of threads"));
    let peer = value("--peer");
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..TURNS {
        keep_best(&mut ours, measure(threads));
        if let Some(python) = &peer {
            keep_best(&mut theirs, run_peer(python, threads));
        }
    }
    println!("milliseconds by the clock, {threads} threads, best of {TURNS} medians of {RUNS}");
    println!("{:<24}{:>10}{:>10}{:>8}", "", "here", "PyTorch", "ratio");
    for (name, seconds) in ours {
        match theirs.get(&name) {
            Some(theirs) => {
                println!("{name:<24}{:>10.0}{:>10.0}{:>8.2}", 1e3 * seconds, 1e3 * theirs, seconds / theirs)
            }
            None => println!("{name:<24}{:>10.0}", 1e3 * seconds),
        }
    }
}

fn keep_best(best: &mut BTreeMap<String, f64>, found: Vec<(String, f64)>) {
    for (name, seconds) in found {
        let best = best.entry(name).or_insert(seconds);
        *best = best.min(seconds);
    }
}

fn run_peer(python: &str, threads: usize) -> Vec<(String, f64)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/speed.py");
    let told = Command::new(python).arg(script).arg(threads.to_string()).output().expect("Python starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = String::from_utf8(told.stdout).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(name, seconds)| (name.to_owned(), seconds.parse().expect("a number"))).collect()
}

/// Random token ids, the same each time.
fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        3 + (state >> 33) as u32 % 500
    };
    (0..count).map(|_| next()).collect()
}

/// Makes a random model with a vocabulary of a size.
fn model(folder: &Path, architecture: &str, vocabulary: usize) -> Model {
    let letters: Vec<String> = (0..400)
        .map(|text| tokens(text, 60).iter().map(|id| char::from(97 + (id % 26) as u8)).collect())
        .collect();
    let tokenizer: TokenizerModel =
        serde_json::from_str(r#"{"bpe": {"vocabulary_size": 512}}"#).expect("a tokenizer");
    tokenizer.train(&letters).and_then(|tokenizer| tokenizer.save(folder)).expect("a tokenizer is made");
    let path = folder.join(learn::TOKENIZER_FILE);
    let mut written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("JSON");
    let words = written["model"]["vocab"].as_object_mut().expect("a vocabulary");
    for id in words.len()..vocabulary {
        // Tokens that no text has: they only make the model as large as it is to be.
        words.insert(format!("more{id}"), id.into());
    }
    std::fs::write(&path, written.to_string()).expect("it can be written");
    let architecture: Architecture = serde_json::from_str(architecture).expect("an architecture");
    Model::from_scratch(&architecture, folder, 0, &"cpu".parse().expect("a device")).expect("a model")
}

const LLAMA: &str = r#"{"llama": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
    "num_attention_heads": 8, "max_position_embeddings": 1024}}"#;

const T5_SMALL: &str =
    r#"{"t5": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}}"#;

fn measure(threads: usize) -> Vec<(String, f64)> {
    let folder = std::env::temp_dir().join(format!("pipeline-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut llama = model(&folder, LLAMA, 512);
    let t5 = model(&folder, T5_SMALL, 32_128);
    let sequence = |seed: u64| {
        let ids = tokens(seed, 257);
        Sequence::new(&ids[..1], &ids[1..], TokenLimit::Together(1024)).expect("it fits").0
    };
    let targets = (0..8).map(|row| Example {
        id: String::new(),
        chosen: sequence(row),
        rejected: None,
        desirable: None,
    });
    let pairs = (0..4).map(|row| Example {
        id: String::new(),
        chosen: sequence(row),
        rejected: Some(sequence(row + 4)),
        desirable: None,
    });
    let found = vec![
        ("training step", steps(&mut llama, r#"{"sft": {}}"#, targets.collect(), threads)),
        ("CPO step", steps(&mut llama, r#"{"cpo": {}}"#, pairs.collect(), threads)),
        // A model that caches hold gains from a batch on each core; what they do not hold is read once
        // for all.
        ("generation", generation(&llama, 128, 8_usize.div_ceil(threads), threads)),
        ("T5-small generation", generation(&t5, 64, 8, threads)),
    ];
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    found.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect()
}

/// Returns the seconds of a step.
fn steps(model: &mut Model, objective: &str, examples: Vec<Example>, threads: usize) -> f64 {
    let batch = examples.len();
    let recipe = TrainingConfig {
        objective: serde_json::from_str(objective).expect("an objective"),
        optimizer: AdamW::default(),
        learning_rate: 1e-5,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        length: Length::Steps(RUNS as u32 + 3),
        batch_size: batch,
        micro_batch_size: batch,
        max_grad_norm: 1.0,
        evals_per_epoch: 0,
        precision: Precision::F32,
        seed: 0,
    };
    let examples = Examples { train: examples, validation: Vec::new(), limit: TokenLimit::Together(1024) };
    let (mut last, mut seconds) = (Instant::now(), Vec::new());
    let mut on_event = |_: TrainEvent<'_>| {
        if std::env::var_os("PIPELINE_BENCH_TRACE").is_some() {
            eprintln!("{:.3}", last.elapsed().as_secs_f64());
        }
        seconds.push(last.elapsed().as_secs_f64());
        last = Instant::now();
        true
    };
    let mut watch =
        TrainHooks { threads, others: &[], recomputes: false, checkpoints: None, on_event: &mut on_event };
    train(model, ReferenceSource::Itself, &examples, &recipe, &mut watch).expect("it trains");
    median(seconds.split_off(3))
}

/// Returns the seconds of a generation.
fn generation(model: &Model, length: usize, batch_size: usize, threads: usize) -> f64 {
    let candidates: Vec<Vec<u32>> = (0..64).map(|row| tokens(100 + row, 32)).collect();
    let continued = |prompts: &[Vec<u32>], batch_size: usize| {
        let generation = Generation { strategy: Strategy::default(), max_new_tokens: length, batch_size };
        generate(model, prompts, &generation, threads, &|_| true).expect("it goes on")
    };
    // A random model may end an output at any token: prompts that it goes on from are taken.
    let made = continued(&candidates, 8);
    let whole = candidates.into_iter().zip(&made).filter(|(_, output)| output[0].tokens.len() == length);
    let prompts: Vec<Vec<u32>> = whole.map(|(prompt, _)| prompt).take(8).collect();
    assert_eq!(prompts.len(), 8, "too many outputs end early");
    let once = || {
        let begin = Instant::now();
        let made = continued(&prompts, batch_size);
        assert!(made.iter().all(|output| output[0].tokens.len() == length), "an output ended early");
        begin.elapsed().as_secs_f64()
    };
    once();
    median((0..RUNS).map(|_| once()).collect())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
