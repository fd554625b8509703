//! `pipeline bench`: the speed and the memory of models on this machine.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use stages::{
    MatmulMeasured, ModelBench, ModelMeasured, Precision, QloraBench, QloraMeasured, TrainBench,
    TrainMeasured,
};

use crate::error::CliError;
use crate::terminal;
use crate::units::bytes;

/// Measure the speed and the memory of models on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Load a model and generate with it.
    Model(ModelArguments),
    /// Train adapters on a model whose projections are quantised to four bits.
    Qlora(QloraArguments),
    /// Train a model for many steps, and report its losses and its memory after each.
    Train(TrainArguments),
    /// Multiply large matrices, and compare the products with exact ones.
    Matmul(MatmulArguments),
    /// Write a model with random weights and keep it, for several measurements of one model.
    Write(WriteArguments),
}

/// The model and where it runs.
#[derive(Debug, Clone, clap::Args)]
struct Subject {
    /// Make a model with random weights in this shape: `tiny`, `small`, `1b` (TinyLlama-1.1B) or `7b`
    /// (LLaMA-2-7B).
    #[arg(long, value_name = "SHAPE", default_value = "tiny", conflicts_with = "model", value_parser = shape)]
    shape: String,
    /// The type of its weights in files: `f32`, `f16` or `bf16`.
    #[arg(long, value_name = "TYPE", default_value = "bf16", conflicts_with = "model", value_parser = dtype)]
    dtype: String,
    /// The folder to write it to; it must not exist, and is removed afterwards [default: in the
    /// system's folder for temporary files].
    #[arg(long, value_name = "FOLDER", conflicts_with = "model")]
    scratch: Option<PathBuf>,
    /// Use the model in this folder instead.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// The device: `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// The number of threads [default: all cores].
    #[arg(long, value_name = "THREADS")]
    threads: Option<u32>,
    /// The precision of matrix products: `f32`, `tf32`, `bf16` or `bf16_weights`.
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// The work of a model: a batch on each thread.
#[derive(Debug, Clone, clap::Args)]
struct ModelArguments {
    #[command(flatten)]
    subject: Subject,
    /// Quantise its projections to NF4 while loading.
    #[arg(long)]
    nf4: bool,
    /// The number of prompts in a batch.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    batch: u32,
    /// The length of a prompt in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    prompt: u32,
    /// The length of an output in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    new: u32,
}

/// The training of adapters.
#[derive(Debug, Clone, clap::Args)]
struct QloraArguments {
    #[command(flatten)]
    subject: Subject,
    /// The number of texts in a step.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    batch: u32,
    /// The length of a text in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    tokens: u32,
    /// The number of steps that are timed, after two that are not.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    steps: u32,
    /// The rank of the adapters, which are on all projections.
    #[arg(long, value_name = "RANK", default_value_t = 64)]
    rank: u32,
}

/// A training of many steps.
#[derive(Debug, Clone, clap::Args)]
struct TrainArguments {
    #[command(flatten)]
    subject: Subject,
    /// The number of texts in a step.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    batch: u32,
    /// The length of a text in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    tokens: u32,
    /// The number of steps.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    steps: u32,
    /// The learning rate, which stays the same.
    #[arg(long, value_name = "RATE", default_value_t = 3e-4)]
    learning_rate: f64,
    /// Train LoRA adapters of this rank on all projections, in place of all weights.
    #[arg(long, value_name = "RANK")]
    rank: Option<u32>,
}

/// Products of matrices.
#[derive(Debug, Clone, clap::Args)]
struct MatmulArguments {
    /// The device: `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// The number of threads [default: all cores].
    #[arg(long, value_name = "THREADS")]
    threads: Option<u32>,
    /// The precision of the products [default: all that the device computes in].
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    precision: Option<Precision>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// A model to keep.
#[derive(Debug, Clone, clap::Args)]
struct WriteArguments {
    /// The folder to write it to; it must not exist.
    folder: PathBuf,
    /// The shape: `tiny`, `small`, `1b` (TinyLlama-1.1B) or `7b` (LLaMA-2-7B).
    #[arg(long, value_name = "SHAPE", default_value = "tiny", value_parser = shape)]
    shape: String,
    /// The type of its weights: `f32`, `f16` or `bf16`.
    #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = dtype)]
    dtype: String,
}

fn shape(text: &str) -> Result<String, String> {
    stages::check_shape(text).map(|()| text.to_owned())
}

fn dtype(text: &str) -> Result<String, String> {
    stages::check_weight_type(text).map(|()| text.to_owned())
}

fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "the precision must be `f32`, `tf32`, `bf16` or `bf16_weights`".to_owned())
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    match arguments.what {
        What::Model(arguments) => {
            if arguments.batch == 0 || arguments.prompt == 0 {
                return Err(CliError::Usage("`--batch` and `--prompt` must be at least 1".to_owned()));
            }
            if arguments.new < 2 {
                let why = "`--new` must be at least 2: the first token is computed with the prompt";
                return Err(CliError::Usage(why.to_owned()));
            }
            arguments.subject.with_folder(|folder, device| measure_model(folder, device, &arguments))
        }
        What::Qlora(arguments) => {
            let QloraArguments { batch, tokens, steps, rank, .. } = arguments;
            if batch == 0 || steps == 0 || rank == 0 {
                return Err(CliError::Usage(
                    "`--batch`, `--steps` and `--rank` must be at least 1".to_owned(),
                ));
            }
            if tokens < 2 {
                let why = "`--tokens` must be at least 2: a text has a prompt and an output";
                return Err(CliError::Usage(why.to_owned()));
            }
            arguments.subject.with_folder(|folder, device| measure_qlora(folder, device, &arguments))
        }
        What::Train(arguments) => {
            let TrainArguments { batch, tokens, steps, rank, learning_rate, .. } = arguments;
            if batch == 0 || steps == 0 || rank == Some(0) {
                return Err(CliError::Usage(
                    "`--batch`, `--steps` and `--rank` must be at least 1".to_owned(),
                ));
            }
            if tokens < 2 {
                let why = "`--tokens` must be at least 2: a text has a prompt and an output";
                return Err(CliError::Usage(why.to_owned()));
            }
            if !(learning_rate.is_finite() && learning_rate > 0.0) {
                return Err(CliError::Usage("`--learning-rate` must be above 0".to_owned()));
            }
            arguments.subject.with_folder(|folder, device| measure_train(folder, device, &arguments))
        }
        What::Matmul(arguments) => measure_matmul(&arguments),
        What::Write(WriteArguments { folder, shape, dtype }) => {
            create_folder(&folder)?;
            stages::write_random_model(&shape, &dtype, &folder).map_err(CliError::Io)
        }
    }
}

impl Subject {
    /// Measures the model in a folder; or writes one and measures it in a separate process, so that the
    /// memory for writing it does not count.
    fn with_folder(
        &self,
        measure: impl FnOnce(&Path, String) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if self.threads == Some(0) {
            return Err(CliError::Usage("`--threads` must be at least 1".to_owned()));
        }
        let device = stages::check_device(&self.device).map_err(CliError::Usage)?;
        if let Some(folder) = &self.model {
            return measure(folder, device);
        }
        let name = format!("pipeline-bench-{}-{}", self.shape, std::process::id());
        let folder = self.scratch.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        create_folder(&folder)?;
        let measured = stages::write_random_model(&self.shape, &self.dtype, &folder)
            .map_err(CliError::Io)
            .and_then(|()| measure_in_new_process(&folder));
        let removed = fs::remove_dir_all(&folder)
            .map_err(|error| CliError::failed(&format!("remove the folder {}", folder.display()), &error));
        measured.and(removed)
    }

    fn threads(&self) -> u32 {
        self.threads.unwrap_or_else(crate::machine::cores)
    }
}

/// Creates a folder that must not exist yet.
fn create_folder(folder: &Path) -> Result<(), CliError> {
    fs::create_dir(folder).map_err(|error| {
        let message = format!("failed to create the folder {}: {error}", folder.display());
        match error.kind() {
            // The command line names a wrong folder.
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                CliError::Usage(message)
            }
            _ => CliError::Io(message),
        }
    })
}

/// Runs this command again in a new process, with the model in a folder.
fn measure_in_new_process(folder: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::failed("start the program again", &error);
    let program = std::env::current_exe().map_err(failed)?;
    let status = command_for(&program, folder).status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(CliError::Stage) }
}

/// Returns this command with the model in a folder.
fn command_for(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let options_of_writing = ["--shape", "--dtype", "--scratch"];
        if options_of_writing.contains(&text.as_str()) {
            arguments.next();
        } else if !options_of_writing.iter().any(|name| text.starts_with(&format!("{name}="))) {
            command.arg(argument);
        }
    }
    command.arg("--model").arg(folder);
    command
}

fn peak(bytes_at_most: Option<u64>) -> String {
    bytes_at_most.map_or_else(|| "unknown".to_owned(), bytes)
}

fn write_memory(
    out: &mut impl io::Write,
    measured: Option<u64>,
    estimated: u64,
    on_device: Option<u64>,
) -> Result<(), CliError> {
    writeln!(out, "memory    peak {}; estimated {}", peak(measured), bytes(estimated))?;
    if let Some(on_device) = on_device {
        writeln!(out, "device    peak {} of its memory", bytes(on_device))?;
    }
    Ok(())
}

fn write_json(out: &mut impl io::Write, measured: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(measured).expect("plain data");
    writeln!(out, "{}", terminal::json(&text))?;
    Ok(())
}

fn measure_model(folder: &Path, device: String, arguments: &ModelArguments) -> Result<(), CliError> {
    let bench = ModelBench {
        device,
        threads: arguments.subject.threads(),
        prompts: arguments.batch,
        prompt_tokens: arguments.prompt,
        new_tokens: arguments.new,
        is_packed: arguments.nf4,
        precision: arguments.subject.precision,
    };
    let measured = stages::bench_model(folder, &bench).map_err(CliError::Input)?;
    let mut out = terminal::stdout();
    if arguments.subject.json {
        return write_json(&mut out, &measured);
    }
    let ModelMeasured { load_seconds, load_peak_bytes, peak_bytes, .. } = measured;
    let kept = if bench.is_packed { "projections in NF4" } else { "f32" };
    writeln!(
        out,
        "model     {} parameters, {} in files, {} in memory ({kept})",
        measured.parameters,
        bytes(measured.file_bytes),
        bytes(measured.weight_bytes)
    )?;
    writeln!(
        out,
        "load      {load_seconds:.2} s, {}/s; peak memory {}",
        bytes((measured.file_bytes as f64 / load_seconds) as u64),
        peak(load_peak_bytes)
    )?;
    writeln!(
        out,
        "prefill   {:.1} tokens/s: {} threads, {} prompts each, of {} tokens",
        measured.prefill_tokens_per_second, measured.threads, bench.prompts, bench.prompt_tokens
    )?;
    writeln!(
        out,
        "decode    {:.1} tokens/s: {} tokens per prompt",
        measured.decode_tokens_per_second, bench.new_tokens
    )?;
    write_memory(&mut out, peak_bytes, measured.estimated_bytes, measured.device_peak_bytes)
}

fn measure_qlora(folder: &Path, device: String, arguments: &QloraArguments) -> Result<(), CliError> {
    let bench = QloraBench {
        device,
        threads: arguments.subject.threads(),
        batch: arguments.batch,
        tokens: arguments.tokens,
        steps: arguments.steps,
        rank: arguments.rank,
        precision: arguments.subject.precision,
    };
    let measured: QloraMeasured = stages::bench_qlora(folder, &bench).map_err(CliError::Input)?;
    let mut out = terminal::stdout();
    if arguments.subject.json {
        return write_json(&mut out, &measured);
    }
    writeln!(out, "model     {} parameters, {} of them trained", measured.parameters, measured.learning)?;
    writeln!(out, "load      {:.2} s, with quantisation", measured.load_seconds)?;
    writeln!(
        out,
        "step      {:.3} s: {} texts of {} tokens, {:.1} tokens/s",
        measured.step_seconds, bench.batch, bench.tokens, measured.tokens_per_second
    )?;
    writeln!(
        out,
        "matmul    {:.2} TFLOP/s, {:.0} % of the {:.2} of large matrix products alone",
        measured.step_operations_per_second / 1e12,
        100.0 * measured.step_operations_per_second / measured.limit_operations_per_second,
        measured.limit_operations_per_second / 1e12
    )?;
    write_memory(&mut out, measured.peak_bytes, measured.estimated_bytes, measured.device_peak_bytes)
}

fn measure_train(folder: &Path, device: String, arguments: &TrainArguments) -> Result<(), CliError> {
    let bench = TrainBench {
        device,
        threads: arguments.subject.threads(),
        batch: arguments.batch,
        tokens: arguments.tokens,
        steps: arguments.steps,
        learning_rate: arguments.learning_rate,
        rank: arguments.rank,
        precision: arguments.subject.precision,
    };
    let measured: TrainMeasured = stages::bench_train(folder, &bench).map_err(CliError::Input)?;
    let mut out = terminal::stdout();
    if arguments.subject.json {
        return write_json(&mut out, &measured);
    }
    writeln!(out, "model     {} parameters, {} of them trained", measured.parameters, measured.learning)?;
    writeln!(
        out,
        "step      {:.3} s: {} texts of {} tokens, {:.1} tokens/s",
        measured.step_seconds, bench.batch, bench.tokens, measured.tokens_per_second
    )?;
    // The first step, the last, and some between.
    let last = measured.losses.len() - 1;
    let mut steps: Vec<usize> = (0..=4).map(|quarter| quarter * last / 4).collect();
    steps.dedup();
    for step in steps {
        let device = measured.device_memory_bytes[step];
        let device = device.map_or_else(String::new, |held| format!(", {} of the device", bytes(held)));
        let held = peak(measured.memory_bytes[step]);
        writeln!(
            out,
            "loss      {:.4} in step {}; {held} in memory{device}",
            measured.losses[step],
            step + 1
        )?;
    }
    write_memory(&mut out, measured.peak_bytes, measured.estimated_bytes, measured.device_peak_bytes)
}

fn measure_matmul(arguments: &MatmulArguments) -> Result<(), CliError> {
    if arguments.threads == Some(0) {
        return Err(CliError::Usage("`--threads` must be at least 1".to_owned()));
    }
    let device = stages::check_device(&arguments.device).map_err(CliError::Usage)?;
    let threads = arguments.threads.unwrap_or_else(crate::machine::cores);
    let measured = stages::bench_matmul(&device, arguments.precision, threads).map_err(CliError::Input)?;
    let mut out = terminal::stdout();
    if arguments.json {
        return write_json(&mut out, &measured);
    }
    for product in &measured {
        let MatmulMeasured { precision, operations_per_second, accuracy, .. } = product;
        let precision = serde_json::to_value(precision).expect("plain data");
        let name = precision.as_str().unwrap_or_default();
        let Some(operations_per_second) = operations_per_second else {
            writeln!(out, "{name:<10}this device does not compute in it")?;
            continue;
        };
        let sums = match (product.is_tf32, product.accumulates_in_f32) {
            (true, _) => "factors are rounded to TF32",
            (false, Some(true)) => "sums are accumulated in f32",
            (false, _) => "sums are accumulated in less than f32",
        };
        let errors: Vec<String> =
            accuracy.iter().map(|accuracy| format!("{:.1e}", accuracy.relative_error)).collect();
        writeln!(
            out,
            "{name:<10}{:.3} TFLOP/s; relative error {}, of a vector {}; {sums}",
            operations_per_second / 1e12,
            errors[0],
            errors[1]
        )?;
    }
    Ok(())
}
