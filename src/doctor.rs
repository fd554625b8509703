//! `pipeline doctor`: this machine and the program's settings.

use std::io::Write as _;

use engine::Sandbox;
use stages::ModelNeeds;

use crate::error::CliError;
use crate::machine::{cores, device_memory_bytes, gpus, memory_bytes};
use crate::session::CacheArguments;
use crate::terminal;
use crate::units::bytes;

/// Print the cores, memory and devices of this machine, and the folders that the program uses.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    /// Estimate the memory for this model instead: a model folder, or `tiny`, `small`, `1b` or `7b`.
    #[arg(long, value_name = "FOLDER|SHAPE")]
    model: Option<String>,
    /// The length of the texts in tokens [default: 512, or the model's limit if that is lower].
    #[arg(long, value_name = "COUNT", requires = "model")]
    tokens: Option<u32>,
    /// The number of prompts that each thread, or a GPU, generates for at once.
    #[arg(long, value_name = "COUNT", requires = "model", default_value_t = 1)]
    batch: u32,
    /// The device: `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", requires = "model", default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    if let Some(model) = &arguments.model {
        return print_needs(model, &arguments);
    }
    let mut out = terminal::stdout();
    writeln!(out, "program   pipeline {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "cores     {}", cores())?;
    writeln!(out, "memory    {}", bytes(memory_bytes()))?;
    for device in stages::devices() {
        match stages::check_device(&device) {
            Ok(name) => writeln!(out, "device    {name}")?,
            Err(problem) => writeln!(out, "device    {device}: {problem}")?,
        }
    }
    for (number, gpu) in gpus().iter().enumerate() {
        writeln!(out, "gpu       cuda:{number}, {}, {}", gpu.name, bytes(gpu.memory_bytes))?;
    }
    match Sandbox::available() {
        Sandbox::Enforced => {
            let signals = if Sandbox::confines_signals() {
                "; their signals reach only processes that they start"
            } else {
                "; this system cannot confine their signals"
            };
            writeln!(out, "sandbox   programs may write only below their own folder{signals}")?;
        }
        Sandbox::Unavailable => {
            writeln!(
                out,
                "sandbox   this system cannot confine programs; they work on copies of their inputs"
            )?;
        }
    }
    let folder = arguments.cache.folder(None);
    let state = match folder.join("index.sqlite").try_exists() {
        Ok(true) => String::new(),
        Ok(false) => " (not created yet)".to_owned(),
        Err(error) => format!(" (cannot be read: {error})"),
    };
    writeln!(out, "cache     {}{state}", folder.display())?;
    match std::env::var_os("PIPELINE_DATA") {
        Some(data) => writeln!(out, "data      {}", data.display())?,
        None => writeln!(out, "data      `$PIPELINE_DATA` is not set")?,
    }
    Ok(())
}

/// Prints the memory that a model needs for each use, and whether the machine has it.
fn print_needs(model: &str, arguments: &Arguments) -> Result<(), CliError> {
    let device = arguments.device.as_str();
    let needs = stages::model_needs(model, arguments.tokens, arguments.batch, (device, cores()));
    let ModelNeeds { model_type, parameters, tokens, work } = needs.map_err(CliError::Input)?;
    let own = device_memory_bytes(device);
    let available = if device == "cpu" { Some(memory_bytes()) } else { own };
    let mut out = terminal::stdout();
    writeln!(out, "model     {model_type}, {parameters} parameters")?;
    let has = available.map_or_else(|| "unknown memory".to_owned(), bytes);
    let threads = if device == "cpu" { format!("{} threads, ", cores()) } else { String::new() };
    writeln!(out, "device    {device}, {has}; {threads}texts of {tokens} tokens")?;
    writeln!(out)?;
    let heads = ["weights", "moments", "gradients", "activations", "cache", "logits", "total"];
    let heads: Vec<String> = heads.iter().map(|head| format!("{head:>12}")).collect();
    writeln!(out, "{:<10}{}", "", heads.concat())?;
    for (name, need) in work {
        let parts = [
            need.weights,
            need.moments,
            need.gradients,
            need.activations,
            need.cache,
            need.logits,
            need.all(),
        ];
        let put = |part: &u64| format!("{:>12}", if *part == 0 { "-".to_owned() } else { bytes(*part) });
        let fits = match available {
            Some(available) if need.least() > available => "  does not fit",
            Some(available) if need.all() > available => "  may not fit",
            Some(_) => "  fits",
            None => "",
        };
        writeln!(out, "{name:<10}{}{fits}", parts.iter().map(put).collect::<String>())?;
    }
    Ok(())
}
