//! `pipeline doctor`: what this machine has, and what the program makes of it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use engine::Sandbox;
use stages::ModelNeeds;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::exit::Stop;
use crate::house::{CacheArguments, bytes};
use crate::terminal;

/// Say what this machine has, and what the program makes of it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    /// Say what memory computing with this model takes: a model folder, or `1b` or `7b`.
    #[arg(long, value_name = "FOLDER|SHAPE")]
    model: Option<String>,
    /// The tokens of its texts [default: 512, or as many as it takes].
    #[arg(long, value_name = "COUNT", requires = "model")]
    tokens: Option<u32>,
    /// The prompts that it continues at once, on each thread.
    #[arg(long, value_name = "COUNT", requires = "model", default_value_t = 1)]
    batch: u32,
    /// Where it computes: `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, value_name = "DEVICE", requires = "model", default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    if let Some(model) = &arguments.model {
        return tell_needs(model, &arguments);
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
            let signals = match Sandbox::confines_signals() {
                true => "; signals reach only what they start",
                false => "; this system cannot confine their signals",
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
        Ok(false) => " (not there yet)".to_owned(),
        Err(error) => format!(" (cannot be looked into: {error})"),
    };
    writeln!(out, "cache     {}{state}", folder.display())?;
    match std::env::var_os("PIPELINE_DATA") {
        Some(data) => writeln!(out, "data      {}", data.display())?,
        None => writeln!(out, "data      `$PIPELINE_DATA` is not set")?,
    }
    Ok(())
}

/// Says what computing with a model takes, and whether there is that much.
fn tell_needs(model: &str, arguments: &Arguments) -> Result<(), Stop> {
    let device = arguments.device.as_str();
    let needs = stages::model_needs(model, arguments.tokens, arguments.batch, (device, cores()));
    let ModelNeeds { model_type, parameters, tokens, work } = needs.map_err(Stop::Usage)?;
    let own = device_memory_bytes(device);
    let there_is = if device == "cpu" { Some(memory_bytes()) } else { own };
    let mut out = terminal::stdout();
    writeln!(out, "model     {model_type}, {parameters} parameters")?;
    let has = there_is.map_or_else(|| "memory that is not known".to_owned(), bytes);
    writeln!(out, "device    {device}, {has}; {} threads, texts of {tokens} tokens", cores())?;
    writeln!(out)?;
    let heads = ["weights", "moments", "gradients", "activations", "cache", "logits", "together"];
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
        let fits = match there_is {
            Some(there_is) if need.least() > there_is => "  does not fit",
            Some(there_is) if need.all() > there_is => "  may not fit",
            Some(_) => "  fits",
            None => "",
        };
        writeln!(out, "{name:<10}{}{fits}", parts.iter().map(put).collect::<String>())?;
    }
    Ok(())
}

/// Returns how many cores there are for us.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Returns how much memory there is for us: the machine's, or less if a control group says so.
pub fn memory_bytes() -> u64 {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(kind) else {
        return u64::MAX;
    };
    let machine = system.total_memory();
    let limit = system.cgroup_limits().map_or(machine, |limits| limits.total_memory);
    // A group without a limit can report nothing, or more than there is.
    if limit == 0 { machine } else { limit.min(machine) }
}

/// Returns how much memory a device has of its own, if the system tells it.
pub fn device_memory_bytes(device: &str) -> Option<u64> {
    // Of several the first: each has a model of its own.
    let number: usize = match device.split(',').next()?.trim().strip_prefix("cuda")? {
        "" => 0,
        rest => rest.strip_prefix(':')?.parse().ok()?,
    };
    gpus().get(number).map(|gpu| gpu.memory_bytes)
}

/// A GPU as its driver describes it.
struct Gpu {
    name: String,
    memory_bytes: u64,
}

/// Returns the NVIDIA GPUs that this process may use, in the order in which devices count them;
/// none where there is no driver.
fn gpus() -> Vec<Gpu> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    let Ok(told) = Command::new("nvidia-smi").args(query).stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&told.stdout);
    let gpu = |line: &str| {
        let (name, mebibytes) = line.rsplit_once(',')?;
        let mebibytes: u64 = mebibytes.trim().parse().ok()?;
        Some(Gpu { name: name.trim().to_owned(), memory_bytes: mebibytes << 20 })
    };
    let mut all: Vec<Option<Gpu>> = text.lines().map(gpu).collect();
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        // By number; by other names it cannot be told which are meant.
        Ok(visible) => {
            let numbers = visible.split(',').map_while(|number| number.trim().parse::<usize>().ok());
            numbers.map_while(|number| all.get_mut(number)?.take()).collect()
        }
        Err(_) => all.into_iter().flatten().collect(),
    }
}
