//! Models of random numbers, and how long opening and running them takes, for commands.

use std::path::Path;
use std::time::Instant;

use engine::with_causes;
use learn::{AdapterMethod, Generation, Model, Precision, Qlora, Sizes, Strategy, generate};
use serde::Serialize;
use serde_json::{Map, Value};

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
    /// How many threads computed a batch each; one on a GPU.
    pub threads: u32,
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
        precision if precision.has_bf16() && !is_on_cpu && !bench.is_packed => learn::Kept::Bf16,
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
        threads,
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

pub(super) fn peak_bytes() -> Option<u64> {
    Some(learn::process_memory()?.peak_bytes)
}
