//! What memory trainings and generations take, beside what `memory.rs` foretells.
//!
//! `cargo bench -p learn --bench memory [-- SHAPE[:WORK]...]`. Shapes are those of `pipeline bench
//! model`; `tiny` and `small` if none are named. `1b:QLoRA` is one kind of work only. Each line is a process of its own, which opens a model of
//! random numbers, bf16 in several files, and trains it for three steps of four texts, with
//! validation rows and checkpoints, or continues prompts. The peak is the system's, `VmHWM`.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::Path;
use std::process::Command;

use learn::{
    AdamW, AdapterMethod, Compared, Continuing, Example, Examples, Generation, Kept, Length, Model, Need,
    Precision, ReferenceSource, Schedule, Sequence, Sizes, Strategy, TokenLimit, TrainHooks, Training,
    TrainingConfig, generate, train,
};

#[path = "../../../src/allocator.rs"]
mod allocator;

/// What each process does: a name, the adapter, and the tokens of a text.
const WORK: [(&str, &str, usize); 9] = [
    ("training", "", 64),
    ("training", "", 256),
    ("training, recomputed", "", 256),
    ("LoRA", r#"{"lora": {}}"#, 256),
    ("LoRA, recomputed", r#"{"lora": {}}"#, 256),
    ("LoRA, no dropout", r#"{"lora": {"dropout": 0.0}}"#, 256),
    ("QLoRA", r#"{"qlora": {}}"#, 256),
    ("generation", "", 64),
    ("generation", "", 256),
];

/// How the names of trainings with `gradient_checkpointing` end.
const RECOMPUTED: &str = "recomputed";

const THREADS: usize = 2;

/// The texts of a step.
const TEXTS: usize = 4;

/// The prompts of a batch.
const PROMPTS: usize = 4;

fn main() {
    allocator::configure();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [at, number, folder] = &arguments[..]
        && at == "--at"
    {
        let (name, adapter, tokens) = WORK[number.parse::<usize>().expect("a number")];
        let peak = run(name, adapter, tokens, Path::new(folder));
        println!("{peak}");
        return;
    }
    let shapes = if arguments.is_empty() { vec!["tiny".to_owned(), "small".to_owned()] } else { arguments };
    println!("MiB; {THREADS} threads");
    println!("{:<8}{:<22}{:>8}{:>10}{:>10}{:>8}", "shape", "work", "tokens", "taken", "estimated", "ratio");
    for shape in shapes {
        let (shape, asked) = shape.split_once(':').unwrap_or((&shape, ""));
        let folder = std::env::temp_dir().join(format!("pipeline-memory-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let config = learn::shape(shape).expect("a shape");
        let sizes = Sizes::read(&config).expect("sizes");
        learn::write_random(&config, weights::Dtype::BF16, 1 << 28, &folder).expect("a model");
        for (number, (name, adapter, tokens)) in WORK.into_iter().enumerate() {
            if !name.starts_with(asked) {
                continue;
            }
            let mut process = Command::new(std::env::current_exe().expect("this program"));
            let told = process.args(["--at", &number.to_string()]).arg(&folder).output();
            let told = told.expect("it starts");
            assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
            let taken: f64 = String::from_utf8_lossy(&told.stdout).trim().parse().expect("a number");
            let need = estimate(&sizes, name, adapter, tokens as u64);
            let estimated = need.all() as f64 / (1 << 20) as f64;
            println!(
                "{shape:<8}{name:<22}{tokens:>8}{taken:>10.0}{estimated:>10.0}{:>8.2}",
                taken / estimated
            );
            if std::env::var_os("PIPELINE_BENCH_TRACE").is_some() {
                println!("        {need:?}");
            }
        }
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }
}

fn adapter_of(text: &str) -> Option<AdapterMethod> {
    (!text.is_empty()).then(|| serde_json::from_str(text).expect("an adapter"))
}

fn estimate(sizes: &Sizes, name: &str, adapter: &str, tokens: u64) -> Need {
    match name {
        "generation" => sizes.generation(&Continuing {
            prompts: PROMPTS as u64,
            beams: 1,
            prompt_tokens: tokens,
            new_tokens: 64,
            threads: THREADS as u64,
            kept: Kept::F32,
            is_on_cpu: true,
        }),
        _ => sizes.training(&Training {
            adapter: adapter_of(adapter).as_ref(),
            tokens,
            outputs: TEXTS as u64,
            threads: THREADS as u64,
            compared: Compared::Nothing,
            recomputes: name.ends_with(RECOMPUTED),
            precision: Precision::F32,
            is_on_cpu: true,
        }),
    }
}

/// Does the work, and returns the most memory that the process had, in MiB.
fn run(name: &str, adapter: &str, tokens: usize, folder: &Path) -> u64 {
    let device = "cpu".parse().expect("a device");
    let adapter = adapter_of(adapter);
    let opened = match &adapter {
        Some(adapter) => Model::open_to_adapt(folder, adapter, &device),
        None => Model::open(folder, &device),
    };
    let mut model = opened.expect("the model can be opened");
    if let Some(adapter) = &adapter {
        model.adapt(adapter, 0).expect("it can be adapted");
    }
    let ids = |row: usize, count: usize| -> Vec<u32> {
        (0..count).map(|at| ((row * 7 + at * 11) % 900 + 2) as u32).collect()
    };
    if name == "generation" {
        let prompts: Vec<Vec<u32>> = (0..PROMPTS * THREADS).map(|row| ids(row, tokens)).collect();
        let generation =
            Generation { strategy: Strategy::default(), max_new_tokens: 64, batch_size: PROMPTS };
        generate(&model, &prompts, &generation, THREADS, &|_| true).expect("it generates");
        return peak();
    }
    let example = |row: usize| {
        let ids = ids(row, tokens);
        let (chosen, _) = Sequence::new(&ids[..1], &ids[1..], TokenLimit::Together(4096)).expect("it fits");
        Example { id: String::new(), chosen, rejected: None, desirable: None }
    };
    let examples = Examples {
        train: (0..2 * TEXTS).map(example).collect(),
        validation: (0..2).map(example).collect(),
        limit: TokenLimit::Together(4096),
    };
    let recipe = TrainingConfig {
        objective: serde_json::from_str(r#"{"sft": {}}"#).expect("an objective"),
        optimizer: AdamW::default(),
        learning_rate: 1e-4,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        length: Length::Steps(3),
        batch_size: TEXTS,
        micro_batch_size: TEXTS,
        max_grad_norm: 1.0,
        evals_per_epoch: 2,
        precision: Precision::F32,
        seed: 0,
    };
    let kept = folder.join("kept");
    std::fs::create_dir_all(&kept).expect("a folder");
    let mut on_event = |_: learn::TrainEvent<'_>| true;
    let mut watch = TrainHooks {
        threads: THREADS,
        others: &[],
        recomputes: name.ends_with(RECOMPUTED),
        checkpoints: Some(&kept),
        on_event: &mut on_event,
    };
    train(&mut model, ReferenceSource::Itself, &examples, &recipe, &mut watch).expect("it trains");
    let written = folder.join("written");
    std::fs::create_dir_all(&written).expect("a folder");
    model.save(&written).expect("it can be written");
    let peak = peak();
    for left in [kept, written] {
        let _ = std::fs::remove_dir_all(left);
    }
    peak
}

fn peak() -> u64 {
    learn::process_memory().expect("the system tells").peak_bytes >> 20
}
