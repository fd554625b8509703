//! `pipeline doctor`: what this machine has, and what the program makes of it.

use std::io::{self, Write as _};

use engine::Sandbox;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::exit::Stop;
use crate::house::{CacheArguments, bytes};

/// Say what this machine has, and what the program makes of it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    writeln!(out, "program   pipeline {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "cores     {}", cores())?;
    writeln!(out, "memory    {}", bytes(memory_bytes()))?;
    for device in stages::devices() {
        match stages::check_device(&device) {
            Ok(name) => writeln!(out, "device    {name}")?,
            Err(problem) => writeln!(out, "device    {device}: {problem}")?,
        }
    }
    match Sandbox::available() {
        Sandbox::Enforced => writeln!(out, "sandbox   programs may write only below their own folder")?,
        Sandbox::Unavailable => {
            writeln!(
                out,
                "sandbox   this system cannot confine programs; they work on copies of their inputs"
            )?;
        }
    }
    let folder = arguments.cache.folder(None);
    let state = if folder.join("index.sqlite").exists() { "" } else { " (not there yet)" };
    writeln!(out, "cache     {}{state}", folder.display())?;
    match std::env::var_os("PIPELINE_DATA") {
        Some(data) => writeln!(out, "data      {}", data.display())?,
        None => writeln!(out, "data      `$PIPELINE_DATA` is not set")?,
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
