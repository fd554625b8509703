//! `pipeline bench`: how long models take on this machine, and how much memory.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use stages::{ModelBench, ModelMeasured};

use crate::exit::Stop;
use crate::house::bytes;

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
}

/// Which model, and what it is to do.
#[derive(Debug, Clone, clap::Args)]
struct ModelArguments {
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
    /// Pack its projections into NF4 as they are read.
    #[arg(long)]
    nf4: bool,
    /// Compute on `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// How many threads compute, a batch each [default: all cores].
    #[arg(long, value_name = "THREADS")]
    threads: Option<u32>,
    /// The prompts of a batch.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    batch: u32,
    /// The tokens of a prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    prompt: u32,
    /// The tokens of an output.
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    new: u32,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let What::Model(arguments) = arguments.what;
    if arguments.batch == 0 || arguments.prompt == 0 || arguments.threads == Some(0) {
        return Err(Stop::Usage("`--batch`, `--prompt` and `--threads` are at least 1".to_owned()));
    }
    if arguments.new < 2 {
        return Err(Stop::Usage("`--new` is at least 2: the first token comes with the prompt".to_owned()));
    }
    let device = stages::check_device(&arguments.device).map_err(Stop::Usage)?;
    match &arguments.model {
        Some(folder) => measure(folder, device, &arguments),
        None => make_and_measure(&arguments),
    }
}

/// Writes a model and measures it in a process of its own, for what writing took must not count.
fn make_and_measure(arguments: &ModelArguments) -> Result<(), Stop> {
    let name = format!("pipeline-bench-{}-{}", arguments.shape, std::process::id());
    let folder = arguments.scratch.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    fs::create_dir(&folder)
        .map_err(|error| Stop::Usage(format!("failed to make the folder {}: {error}", folder.display())))?;
    let measured = stages::write_random_model(&arguments.shape, &arguments.dtype, &folder)
        .map_err(Stop::Usage)
        .and_then(|()| Ok(again(&folder, arguments)?.status()?));
    let removed = fs::remove_dir_all(&folder);
    if !measured?.success() {
        return Err(Stop::Stage);
    }
    Ok(removed?)
}

fn again(folder: &Path, arguments: &ModelArguments) -> Result<Command, Stop> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "model", "--device", &arguments.device]).arg("--model").arg(folder);
    let numbers = [("--batch", arguments.batch), ("--prompt", arguments.prompt), ("--new", arguments.new)];
    let threads = arguments.threads.map(|threads| ("--threads", threads));
    for (name, number) in numbers.into_iter().chain(threads) {
        command.arg(name).arg(number.to_string());
    }
    for (name, is_given) in [("--nf4", arguments.nf4), ("--json", arguments.json)] {
        command.args(is_given.then_some(name));
    }
    Ok(command)
}

fn measure(folder: &Path, device: String, arguments: &ModelArguments) -> Result<(), Stop> {
    let threads = arguments.threads.unwrap_or_else(crate::doctor::cores);
    let bench = ModelBench {
        device,
        threads,
        prompts: arguments.batch,
        prompt_tokens: arguments.prompt,
        new_tokens: arguments.new,
        is_packed: arguments.nf4,
    };
    let found = stages::bench_model(folder, &bench).map_err(Stop::Usage)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found).expect("plain data"))?;
        return Ok(());
    }
    let ModelMeasured { load_seconds, load_peak_bytes, peak_bytes, .. } = found;
    let peak = |bytes_at_most: Option<u64>| bytes_at_most.map_or_else(|| "not known".to_owned(), bytes);
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
    writeln!(out, "memory    {} at most; {} foretold", peak(peak_bytes), bytes(found.foretold_bytes))?;
    Ok(())
}
