//! Models of random numbers, and how long opening, running and adapting them takes, for commands.

use std::path::Path;
use std::time::Instant;

use engine::with_causes;
use learn::{
    AdamW, AdapterMethod, Example, Examples, Fit, Generation, Length, Model, Objective, Point, Precision,
    Qlora, ReferenceSource, Schedule, Sequence, Sizes, Strategy, TrainHooks, TrainingConfig, generate, train,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How to run a model that is measured.
#[derive(Debug, Clone)]
pub struct ModelBench {
    /// Where to compute.
    pub device: String,
    /// How many threads compute, a batch each.
    pub threads: u32,
    /// The prompts of a batch.
    pub prompts: u32,
    /// The tokens of a prompt.
    pub prompt_tokens: u32,
    /// The tokens of an output.
    pub new_tokens: u32,
    /// Whether the projections are packed into NF4 as they are read.
    pub is_packed: bool,
    /// What products are computed in.
    pub precision: Precision,
}

/// What came of it. Peaks are none where the system does not report them.
#[derive(Debug, Clone, Serialize)]
pub struct ModelMeasured {
    /// The numbers of the model.
    pub parameters: u64,
    /// The bytes of its files of weights.
    pub file_bytes: u64,
    /// The bytes of its weights in memory.
    pub weight_bytes: u64,
    /// How long opening it took.
    pub load_seconds: f64,
    /// The most memory that the process had until then.
    pub load_peak_bytes: Option<u64>,
    /// Tokens of prompts that are read per second.
    pub prefill_tokens_per_second: f64,
    /// Tokens that are made per second.
    pub decode_tokens_per_second: f64,
    /// The most memory that the process had.
    pub peak_bytes: Option<u64>,
    /// The most memory that it had of a GPU.
    pub device_peak_bytes: Option<u64>,
    /// What was estimated of it.
    pub estimated_bytes: u64,
}

/// Writes a folder with a model of random numbers, of a known shape such as `7b`, in shards.
///
/// # Errors
/// What is wrong, and what to do.
pub fn write_random_model(shape: &str, dtype: &str, folder: &Path) -> Result<(), String> {
    let config = shape_named(shape)?;
    let dtype = weight_type(dtype)?;
    let sizes = Sizes::read(&config).map_err(|error| error.to_string())?;
    let bytes = sizes.parameters() * dtype.bitsize() as u64 / 8;
    learn::write_random(&config, dtype, (bytes / 4).max(1 << 20), folder).map_err(|error| with_causes(&error))
}

/// Checks the name of a shape.
///
/// # Errors
/// Which shapes there are.
pub fn check_shape(shape: &str) -> Result<(), String> {
    shape_named(shape).map(|_| ())
}

/// Checks the name of a type of weights.
///
/// # Errors
/// Which types there are.
pub fn check_weight_type(name: &str) -> Result<(), String> {
    weight_type(name).map(|_| ())
}

fn weight_type(name: &str) -> Result<weights::Dtype, String> {
    match name {
        "f32" => Ok(weights::Dtype::F32),
        "f16" => Ok(weights::Dtype::F16),
        "bf16" => Ok(weights::Dtype::BF16),
        other => Err(format!("there is no type `{other}`; there are `f32`, `f16` and `bf16`")),
    }
}

/// Returns the `config.json` of a shape.
pub(crate) fn shape_named(shape: &str) -> Result<Map<String, Value>, String> {
    let names = || learn::shapes().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    learn::shape(shape).ok_or_else(|| format!("there is no shape `{shape}`; there are {}", names()))
}

/// Opens a model and has it read prompts and write outputs.
///
/// # Errors
/// What is wrong, and what to do.
pub fn bench_model(folder: &Path, bench: &ModelBench) -> Result<ModelMeasured, String> {
    let device: learn::DeviceName = bench.device.parse().map_err(|error| with_causes(&error))?;
    let is_on_cpu = device == learn::DeviceName::Cpu;
    // A GPU computes one batch after the other.
    let threads = if is_on_cpu { bench.threads } else { 1 };
    let read = weights::ModelFolder::open(folder).map_err(|error| with_causes(&error))?;
    let sizes = Sizes::read(read.config()).map_err(|error| error.to_string())?;
    let qlora: Qlora = serde_json::from_str("{}").expect("everything has a default");
    let kept = if bench.is_packed {
        learn::Kept::Nf4 { double_quantization: qlora.double_quantization }
    } else {
        learn::Kept::F32
    };
    let began = Instant::now();
    let model = if bench.is_packed {
        Model::open_to_adapt(folder, &AdapterMethod::Qlora(qlora), &device)
    } else {
        Model::open(folder, &device)
    };
    let mut model = model.map_err(|error| with_causes(&error))?;
    model.only_compute_in(bench.precision).map_err(|error| with_causes(&error))?;
    let load_seconds = began.elapsed().as_secs_f64();
    let load_peak_bytes = peak_bytes();
    let prompts = u64::from(bench.prompts) * u64::from(threads);
    // Words that the tokenizer has; what they are does not matter.
    let prompt = |number: u64| -> Vec<u32> {
        (0..u64::from(bench.prompt_tokens)).map(|at| ((number * 7 + at * 11) % 13 + 2) as u32).collect()
    };
    let all: Vec<Vec<u32>> = (0..prompts).map(prompt).collect();
    let time = |new_tokens: u32| -> Result<(f64, u64), String> {
        let generation = Generation {
            strategy: Strategy::default(),
            max_new_tokens: new_tokens as usize,
            batch_size: bench.prompts as usize,
        };
        let began = Instant::now();
        let made = generate(&model, &all, &generation, threads as usize, &|_| true);
        let made = made.map_err(|error| with_causes(&error))?;
        let tokens = made.iter().flatten().map(|output| output.tokens.len() as u64).sum();
        Ok((began.elapsed().as_secs_f64(), tokens))
    };
    // What is computed for the first time takes longer.
    time(1)?;
    let (prefill, first) = time(1)?;
    let (both, tokens) = time(bench.new_tokens)?;
    // A GPU keeps what is not packed in the precision of products.
    let estimated_kept = match bench.precision {
        Precision::Bf16 if !is_on_cpu && !bench.is_packed => learn::Kept::Bf16,
        _ => kept,
    };
    let estimated = sizes.generation(&learn::Continuing {
        prompts: u64::from(bench.prompts),
        beams: 1,
        prompt_tokens: u64::from(bench.prompt_tokens),
        new_tokens: u64::from(bench.new_tokens),
        threads: u64::from(threads),
        kept: estimated_kept,
        is_on_cpu,
    });
    Ok(ModelMeasured {
        parameters: sizes.parameters(),
        file_bytes: read.bytes(),
        weight_bytes: sizes.weights(kept),
        load_seconds,
        load_peak_bytes,
        prefill_tokens_per_second: (prompts * u64::from(bench.prompt_tokens)) as f64 / prefill,
        decode_tokens_per_second: tokens.saturating_sub(first) as f64 / (both - prefill).max(1e-9),
        peak_bytes: peak_bytes(),
        device_peak_bytes: learn::device_memory(&device).map_err(|error| with_causes(&error))?,
        estimated_bytes: estimated.all(),
    })
}

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
    let device: learn::DeviceName = bench.device.parse().map_err(|error| with_causes(&error))?;
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
    let example = |number: u32| -> Result<Example, String> {
        let token = |at: u32| (number * 7 + at * 11) % 13 + 2;
        let output: Vec<u32> = (1..bench.tokens).map(token).collect();
        let chosen = match Sequence::new(&[1], &output, model.limit()) {
            Some((sequence, Fit::Whole)) => sequence,
            _ => return Err(format!("the model takes no text of {} tokens", bench.tokens)),
        };
        Ok(Example { id: number.to_string(), chosen, rejected: None, desirable: None })
    };
    let examples = Examples {
        train: (0..bench.batch).map(example).collect::<Result<_, _>>()?,
        validation: Vec::new(),
        limit: model.limit(),
    };
    // The first steps are compiled, and tried out; on the CPU there is nothing to compile.
    let early = if device == learn::DeviceName::Cpu { 1 } else { 2 };
    let objective: Objective =
        serde_json::from_value(json!({ "sft": {} })).expect("everything has a default");
    let config = TrainingConfig {
        objective,
        optimizer: AdamW::default(),
        learning_rate: 1e-4,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        length: Length::Steps(bench.steps + early),
        batch_size: bench.batch as usize,
        micro_batch_size: bench.batch as usize,
        max_grad_norm: 0.3,
        evals_per_epoch: 0,
        precision: bench.precision,
        seed: 0,
    };
    let mut hooks =
        TrainHooks { threads, others: &[], recomputes: true, checkpoints: None, on_event: &mut |_| true };
    let report = train(&mut model, ReferenceSource::Itself, &examples, &config, &mut hooks);
    let report = report.map_err(|error| with_causes(&error))?;
    let peak = peak_bytes();
    let device_peak_bytes = learn::device_memory(&device).map_err(|error| with_causes(&error))?;
    let limit = learn::matmul_rate(&device, bench.precision, threads).map_err(|error| with_causes(&error))?;
    let mut timed: Vec<f64> = report.throughput[early as usize..].iter().map(|step| step.seconds).collect();
    timed.sort_by(f64::total_cmp);
    let loss = report.points.iter().rev().find_map(|point| match point {
        Point::Step(step) => Some(step.loss),
        Point::Validation(_) => None,
    });
    let step_seconds = timed[timed.len() / 2];
    let tokens = f64::from(bench.batch * bench.tokens);
    let estimated = sizes.training(&learn::Training {
        adapter: Some(&adapter),
        tokens: u64::from(bench.tokens),
        outputs: u64::from(bench.batch),
        threads: u64::from(bench.threads),
        compared: learn::Compared::Nothing,
        recomputes: true,
        is_on_cpu: device == learn::DeviceName::Cpu,
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

fn peak_bytes() -> Option<u64> {
    Some(learn::process_memory()?.peak_bytes)
}
