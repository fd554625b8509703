//! How fast models learn and what memory that takes, for commands: adapters beside packed weights, and
//! trainings of many steps.

use std::path::Path;
use std::time::Instant;

use engine::with_causes;
use learn::{
    AdamW, AdapterMethod, DeviceName, Example, Examples, Fit, Length, Lora, Model, Objective, Point,
    Precision, Qlora, ReferenceSource, Schedule, Sequence, Sizes, TokenLimit, TrainHooks, TrainReport,
    TrainingConfig, train,
};
use serde::Serialize;
use serde_json::json;

use super::bench::peak_bytes;

/// How to train adapters beside packed weights.
#[derive(Debug, Clone)]
pub struct QloraBench {
    /// Where to compute.
    pub device: String,
    /// How many threads compute on the CPU.
    pub threads: u32,
    /// The texts of a step.
    pub batch: u32,
    /// The tokens of a text.
    pub tokens: u32,
    /// The steps that are timed.
    pub steps: u32,
    /// The rank of the adapters.
    pub rank: u32,
    /// What products are computed in.
    pub precision: Precision,
}

/// What came of it. Peaks are none where the system does not report them.
#[derive(Debug, Clone, Serialize)]
pub struct QloraMeasured {
    /// The numbers of the model.
    pub parameters: u64,
    /// Those that learn.
    pub learning: u64,
    /// How long opening and packing it took.
    pub load_seconds: f64,
    /// The median of the steps.
    pub step_seconds: f64,
    /// Tokens that are learnt from per second.
    pub tokens_per_second: f64,
    /// The operations of products that a second of a step needs, without what is recomputed.
    pub step_operations_per_second: f64,
    /// The operations a second of large products alone, on the same device in the same precision.
    pub limit_operations_per_second: f64,
    /// The most memory that the process had.
    pub peak_bytes: Option<u64>,
    /// The most memory that it had of a GPU.
    pub device_peak_bytes: Option<u64>,
    /// What was estimated of it.
    pub estimated_bytes: u64,
    /// The loss after the steps.
    pub loss: f64,
}

/// Opens a model with its projections in NF4, and trains adapters beside them for some steps.
///
/// # Errors
/// What is wrong, and what to do.
pub fn bench_qlora(folder: &Path, bench: &QloraBench) -> Result<QloraMeasured, String> {
    let device: DeviceName = bench.device.parse().map_err(|error| with_causes(&error))?;
    let read = weights::ModelFolder::open(folder).map_err(|error| with_causes(&error))?;
    let sizes = Sizes::read(read.config()).map_err(|error| error.to_string())?;
    let qlora: Qlora =
        serde_json::from_value(json!({ "r": bench.rank })).expect("everything else has a default");
    let adapter = AdapterMethod::Qlora(qlora);
    let threads = bench.threads as usize;
    let began = Instant::now();
    let mut model = Model::open_to_adapt(folder, &adapter, &device).map_err(|error| with_causes(&error))?;
    model.adapt(&adapter, 0).map_err(|error| with_causes(&error))?;
    let load_seconds = began.elapsed().as_secs_f64();
    let (_, learning) = model.parameters();
    // Words that the tokenizer has; what they are does not matter.
    let token = |text: u32, at: u32| (text * 7 + at * 11) % 13 + 2;
    let examples = examples(bench.batch, bench.tokens, model.limit(), token)?;
    // The first steps are compiled, and tried out; on the CPU there is nothing to compile.
    let early = if device == DeviceName::Cpu { 1 } else { 2 };
    let config = config(bench.batch, bench.steps + early, 1e-4, bench.precision);
    let report = steps(&mut model, &examples, &config, threads, true)?;
    let peak = peak_bytes();
    let device_peak_bytes = learn::device_memory(&device).map_err(|error| with_causes(&error))?;
    let limit = learn::matmul_rate(&device, bench.precision, threads).map_err(|error| with_causes(&error))?;
    let step_seconds = median_seconds(&report, early as usize);
    let loss = losses(&report).last().copied();
    let tokens = f64::from(bench.batch * bench.tokens);
    let estimated = sizes.training(&learn::Training {
        adapter: Some(&adapter),
        tokens: u64::from(bench.tokens),
        outputs: u64::from(bench.batch),
        threads: u64::from(bench.threads),
        compared: learn::Compared::Nothing,
        recomputes: true,
        precision: bench.precision,
        is_on_cpu: device == DeviceName::Cpu,
    });
    Ok(QloraMeasured {
        parameters: sizes.parameters(),
        learning,
        load_seconds,
        step_seconds,
        tokens_per_second: tokens / step_seconds,
        step_operations_per_second: sizes.adapting_operations(&adapter) as f64 * tokens / step_seconds,
        limit_operations_per_second: limit,
        peak_bytes: peak,
        device_peak_bytes,
        estimated_bytes: estimated.all(),
        loss: loss.expect("a step was made"),
    })
}

/// How to train a model for many steps.
#[derive(Debug, Clone)]
pub struct TrainBench {
    /// Where to compute.
    pub device: String,
    /// How many threads compute on the CPU.
    pub threads: u32,
    /// The texts of a step.
    pub batch: u32,
    /// The tokens of a text.
    pub tokens: u32,
    /// The steps.
    pub steps: u32,
    /// The learning rate, which stays the same.
    pub learning_rate: f64,
    /// The rank of LoRA's adapters on all projections; without one all weights are trained.
    pub rank: Option<u32>,
    /// What products are computed in.
    pub precision: Precision,
}

/// What came of it. Memory is none where the system does not report it.
#[derive(Debug, Clone, Serialize)]
pub struct TrainMeasured {
    /// The numbers of the model.
    pub parameters: u64,
    /// Those that learn.
    pub learning: u64,
    /// The median of the steps but the first two.
    pub step_seconds: f64,
    /// Tokens that are learnt from per second.
    pub tokens_per_second: f64,
    /// The loss of each step.
    pub losses: Vec<f64>,
    /// The memory of the process after each step.
    pub memory_bytes: Vec<Option<u64>>,
    /// What is reserved of a GPU's memory after each step.
    pub device_memory_bytes: Vec<Option<u64>>,
    /// The most memory that the process had.
    pub peak_bytes: Option<u64>,
    /// The most memory that it had of a GPU.
    pub device_peak_bytes: Option<u64>,
    /// What was estimated of it.
    pub estimated_bytes: u64,
}

/// Opens a model and trains it for some steps. All texts are the same on each device and in each precision, so
/// that losses can be compared.
///
/// # Errors
/// What is wrong, and what to do.
pub fn bench_train(folder: &Path, bench: &TrainBench) -> Result<TrainMeasured, String> {
    let device: DeviceName = bench.device.parse().map_err(|error| with_causes(&error))?;
    let read = weights::ModelFolder::open(folder).map_err(|error| with_causes(&error))?;
    let sizes = Sizes::read(read.config()).map_err(|error| error.to_string())?;
    let adapter = bench.rank.map(|rank| {
        let lora: Lora = serde_json::from_value(json!({ "r": rank })).expect("everything else has a default");
        AdapterMethod::Lora(lora)
    });
    let model = match &adapter {
        Some(adapter) => Model::open_to_adapt(folder, adapter, &device),
        None => Model::open(folder, &device),
    };
    let mut model = model.map_err(|error| with_causes(&error))?;
    if let Some(adapter) = &adapter {
        model.adapt(adapter, 0).map_err(|error| with_causes(&error))?;
    }
    let (_, learning) = model.parameters();
    // Mostly a rule that can be learnt, and every fourth token one that can only be remembered.
    let token = |text: u32, at: u32| {
        let mixed = (text * 8191 + at).wrapping_mul(2_654_435_761) >> 16;
        if at % 4 == 3 { mixed % 997 + 2 } else { (text * 7 + at * 11) % 13 + 2 }
    };
    let examples = examples(4 * bench.batch, bench.tokens, model.limit(), token)?;
    let config = config(bench.batch, bench.steps, bench.learning_rate, bench.precision);
    let report = steps(&mut model, &examples, &config, bench.threads as usize, false)?;
    let step_seconds = median_seconds(&report, 2.min(report.throughput.len() - 1));
    let estimated = sizes.training(&learn::Training {
        adapter: adapter.as_ref(),
        tokens: u64::from(bench.tokens),
        outputs: u64::from(bench.batch),
        threads: u64::from(bench.threads),
        compared: learn::Compared::Nothing,
        recomputes: false,
        precision: bench.precision,
        is_on_cpu: device == DeviceName::Cpu,
    });
    Ok(TrainMeasured {
        parameters: sizes.parameters(),
        learning,
        step_seconds,
        tokens_per_second: f64::from(bench.batch * bench.tokens) / step_seconds,
        losses: losses(&report),
        memory_bytes: report.throughput.iter().map(|step| step.memory_bytes).collect(),
        device_memory_bytes: report.throughput.iter().map(|step| step.device_memory_bytes).collect(),
        peak_bytes: peak_bytes(),
        device_peak_bytes: learn::device_memory(&device).map_err(|error| with_causes(&error))?,
        estimated_bytes: estimated.all(),
    })
}

/// Makes texts of tokens, one of which is the prompt.
fn examples(
    texts: u32,
    tokens: u32,
    limit: TokenLimit,
    token: impl Fn(u32, u32) -> u32,
) -> Result<Examples, String> {
    let example = |text: u32| -> Result<Example, String> {
        let output: Vec<u32> = (1..tokens).map(|at| token(text, at)).collect();
        let chosen = match Sequence::new(&[1], &output, limit) {
            Some((sequence, Fit::Whole)) => sequence,
            _ => return Err(format!("the model takes no text of {tokens} tokens")),
        };
        Ok(Example { id: text.to_string(), chosen, rejected: None, desirable: None })
    };
    let train = (0..texts).map(example).collect::<Result<_, _>>()?;
    Ok(Examples { train, validation: Vec::new(), limit })
}

fn config(batch: u32, steps: u32, learning_rate: f64, precision: Precision) -> TrainingConfig {
    let objective: Objective =
        serde_json::from_value(json!({ "sft": {} })).expect("everything has a default");
    TrainingConfig {
        objective,
        optimizer: AdamW::default(),
        learning_rate,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        length: Length::Steps(steps),
        batch_size: batch as usize,
        micro_batch_size: batch as usize,
        max_grad_norm: 0.3,
        evals_per_epoch: 0,
        precision,
        seed: 0,
    }
}

fn steps(
    model: &mut Model,
    examples: &Examples,
    config: &TrainingConfig,
    threads: usize,
    recomputes: bool,
) -> Result<TrainReport, String> {
    let mut hooks =
        TrainHooks { threads, others: &[], recomputes, checkpoints: None, on_event: &mut |_| true };
    train(model, ReferenceSource::Itself, examples, config, &mut hooks).map_err(|error| with_causes(&error))
}

fn losses(report: &TrainReport) -> Vec<f64> {
    let loss = |point: &Point| match point {
        Point::Step(step) => Some(step.loss),
        Point::Validation(_) => None,
    };
    report.points.iter().filter_map(loss).collect()
}

/// Returns the median time of the steps but the first ones.
fn median_seconds(report: &TrainReport, first: usize) -> f64 {
    let mut seconds: Vec<f64> = report.throughput[first..].iter().map(|step| step.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
