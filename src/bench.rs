//! `pipeline bench`: how long models take on this machine, and how much memory.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use stages::{ModelBench, ModelMeasured, Precision, QloraBench, QloraMeasured};

use crate::exit::Stop;
use crate::house::bytes;
use crate::terminal;

/// Measure how fast models are on this machine, and how much memory they take.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Open a model, have it read prompts and write outputs.
    Model(ModelArguments),
    /// Train adapters beside a model whose projections are in four bits.
    Qlora(QloraArguments),
}

/// Which model.
#[derive(Debug, Clone, clap::Args)]
struct Subject {
    /// Make a model of random numbers in this shape: `tiny`, `small`, `1b` (TinyLlama-1.1B) or `7b`
    /// (LLaMA-2-7B).
    #[arg(long, value_name = "SHAPE", default_value = "tiny", conflicts_with = "model")]
    shape: String,
    /// The type of its numbers in files: `f32`, `f16` or `bf16`.
    #[arg(long, value_name = "TYPE", default_value = "bf16", conflicts_with = "model")]
    dtype: String,
    /// Where it is written, and removed again; a folder that is not there yet [default: below the
    /// system's folder for temporary files].
    #[arg(long, value_name = "FOLDER", conflicts_with = "model")]
    scratch: Option<PathBuf>,
    /// Take the model in this folder instead.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Compute on `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// How many threads compute [default: all cores].
    #[arg(long, value_name = "THREADS")]
    threads: Option<u32>,
    /// What matrix products are computed in: `f32` or `bf16`.
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What a model is to do: a batch on each thread.
#[derive(Debug, Clone, clap::Args)]
struct ModelArguments {
    #[command(flatten)]
    subject: Subject,
    /// Pack its projections into NF4 as they are read.
    #[arg(long)]
    nf4: bool,
    /// The prompts of a batch.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    batch: u32,
    /// The tokens of a prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    prompt: u32,
    /// The tokens of an output.
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    new: u32,
}

/// How a model is to learn.
#[derive(Debug, Clone, clap::Args)]
struct QloraArguments {
    #[command(flatten)]
    subject: Subject,
    /// The texts of a step.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    batch: u32,
    /// The tokens of a text.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    tokens: u32,
    /// The steps that are timed, behind two that are not.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    steps: u32,
    /// The rank of the adapters, which lie beside all projections.
    #[arg(long, value_name = "RANK", default_value_t = 64)]
    rank: u32,
}

fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(text.into()).map_err(|_| "`f32` and `bf16` are known".to_owned())
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    match arguments.what {
        What::Model(arguments) => {
            if arguments.batch == 0 || arguments.prompt == 0 {
                return Err(Stop::Usage("`--batch` and `--prompt` are at least 1".to_owned()));
            }
            if arguments.new < 2 {
                let why = "`--new` is at least 2: the first token comes with the prompt";
                return Err(Stop::Usage(why.to_owned()));
            }
            arguments.subject.with_folder(|folder, device| measure_model(folder, device, &arguments))
        }
        What::Qlora(arguments) => {
            let QloraArguments { batch, tokens, steps, rank, .. } = arguments;
            if batch == 0 || steps == 0 || rank == 0 {
                return Err(Stop::Usage("`--batch`, `--steps` and `--rank` are at least 1".to_owned()));
            }
            if tokens < 2 {
                let why = "`--tokens` is at least 2: a text has a prompt and an output";
                return Err(Stop::Usage(why.to_owned()));
            }
            arguments.subject.with_folder(|folder, device| measure_qlora(folder, device, &arguments))
        }
    }
}

impl Subject {
    /// Measures a model in a folder; or writes one and has it measured by a process of its own, for
    /// what writing took must not count.
    fn with_folder(&self, measure: impl FnOnce(&Path, String) -> Result<(), Stop>) -> Result<(), Stop> {
        if self.threads == Some(0) {
            return Err(Stop::Usage("`--threads` is at least 1".to_owned()));
        }
        let device = stages::check_device(&self.device).map_err(Stop::Usage)?;
        if let Some(folder) = &self.model {
            return measure(folder, device);
        }
        let name = format!("pipeline-bench-{}-{}", self.shape, std::process::id());
        let folder = self.scratch.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        fs::create_dir(&folder).map_err(|error| {
            Stop::Usage(format!("failed to make the folder {}: {error}", folder.display()))
        })?;
        let measured = stages::write_random_model(&self.shape, &self.dtype, &folder)
            .map_err(Stop::Usage)
            .and_then(|()| Ok(again(&folder)?.status()?));
        let removed = fs::remove_dir_all(&folder);
        if !measured?.success() {
            return Err(Stop::Stage);
        }
        Ok(removed?)
    }

    fn threads(&self) -> u32 {
        self.threads.unwrap_or_else(crate::doctor::cores)
    }
}

/// Returns this command once more, with the model in a folder.
fn again(folder: &Path) -> Result<Command, Stop> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let of_writing = ["--shape", "--dtype", "--scratch"];
        if of_writing.contains(&text.as_str()) {
            arguments.next();
        } else if !of_writing.iter().any(|name| text.starts_with(&format!("{name}="))) {
            command.arg(argument);
        }
    }
    command.arg("--model").arg(folder);
    Ok(command)
}

fn peak(bytes_at_most: Option<u64>) -> String {
    bytes_at_most.map_or_else(|| "not known".to_owned(), bytes)
}

fn write_memory(
    out: &mut impl io::Write,
    taken: Option<u64>,
    foretold: u64,
    on_device: Option<u64>,
) -> Result<(), Stop> {
    writeln!(out, "memory    {} at most; {} foretold", peak(taken), bytes(foretold))?;
    if let Some(on_device) = on_device {
        writeln!(out, "device    {} of its memory at most", bytes(on_device))?;
    }
    Ok(())
}

fn measure_model(folder: &Path, device: String, arguments: &ModelArguments) -> Result<(), Stop> {
    let threads = arguments.subject.threads();
    let bench = ModelBench {
        device,
        threads,
        prompts: arguments.batch,
        prompt_tokens: arguments.prompt,
        new_tokens: arguments.new,
        is_packed: arguments.nf4,
        precision: arguments.subject.precision,
    };
    let found = stages::bench_model(folder, &bench).map_err(Stop::Usage)?;
    let mut out = terminal::stdout();
    if arguments.subject.json {
        let text = serde_json::to_string_pretty(&found).expect("plain data");
        writeln!(out, "{}", terminal::json(&text))?;
        return Ok(());
    }
    let ModelMeasured { load_seconds, load_peak_bytes, peak_bytes, .. } = found;
    let kept = if bench.is_packed { "projections in NF4" } else { "single floats" };
    writeln!(
        out,
        "model     {} parameters, {} in files, {} in memory ({kept})",
        found.parameters,
        bytes(found.file_bytes),
        bytes(found.weight_bytes)
    )?;
    writeln!(
        out,
        "load      {load_seconds:.2} s, {}/s; peak memory {}",
        bytes((found.file_bytes as f64 / load_seconds) as u64),
        peak(load_peak_bytes)
    )?;
    writeln!(
        out,
        "prefill   {:.1} tokens/s: {threads} times {} prompts of {} tokens",
        found.prefill_tokens_per_second, bench.prompts, bench.prompt_tokens
    )?;
    writeln!(
        out,
        "decode    {:.1} tokens/s: {} tokens behind each",
        found.decode_tokens_per_second, bench.new_tokens
    )?;
    write_memory(&mut out, peak_bytes, found.foretold_bytes, found.device_peak_bytes)
}

fn measure_qlora(folder: &Path, device: String, arguments: &QloraArguments) -> Result<(), Stop> {
    let bench = QloraBench {
        device,
        threads: arguments.subject.threads(),
        batch: arguments.batch,
        tokens: arguments.tokens,
        steps: arguments.steps,
        rank: arguments.rank,
        precision: arguments.subject.precision,
    };
    let found: QloraMeasured = stages::bench_qlora(folder, &bench).map_err(Stop::Usage)?;
    let mut out = terminal::stdout();
    if arguments.subject.json {
        let text = serde_json::to_string_pretty(&found).expect("plain data");
        writeln!(out, "{}", terminal::json(&text))?;
        return Ok(());
    }
    writeln!(out, "model     {} parameters, of which {} learn", found.parameters, found.learning)?;
    writeln!(out, "load      {:.2} s, packing among it", found.load_seconds)?;
    writeln!(
        out,
        "step      {:.3} s: {} texts of {} tokens, {:.1} tokens/s",
        found.step_seconds, bench.batch, bench.tokens, found.tokens_per_second
    )?;
    writeln!(
        out,
        "products  {:.2} TFLOP/s, {:.0} % of the {:.2} that large products alone make here",
        found.step_operations_per_second / 1e12,
        100.0 * found.step_operations_per_second / found.limit_operations_per_second,
        found.limit_operations_per_second / 1e12
    )?;
    write_memory(&mut out, found.peak_bytes, found.foretold_bytes, found.device_peak_bytes)
}
