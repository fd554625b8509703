//! The cores, the memory and the GPUs of this machine.

use std::process::{Command, Stdio};

use engine::{Device, Machine};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Returns the number of cores that this process may use.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Returns the memory that this process may use: the machine's, or less if a control group limits it.
pub(crate) fn memory_bytes() -> u64 {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(kind) else {
        return u64::MAX;
    };
    let machine = system.total_memory();
    let limit = system.cgroup_limits().map_or(machine, |limits| limits.total_memory);
    // A group without a limit can report nothing, or more than there is.
    if limit == 0 { machine } else { limit.min(machine) }
}

/// Returns the memory of a device that has its own, if the system reports it.
pub(crate) fn device_memory_bytes(device: &str) -> Option<u64> {
    // Of several devices the first: each holds a whole model.
    let number: usize = match device.split(',').next()?.trim().strip_prefix("cuda")? {
        "" => 0,
        rest => rest.strip_prefix(':')?.parse().ok()?,
    };
    gpus().get(number).map(|gpu| gpu.memory_bytes)
}

/// A GPU as its driver describes it.
pub(crate) struct Gpu {
    /// Its name.
    pub name: String,
    /// The size of its memory.
    pub memory_bytes: u64,
}

/// Returns the NVIDIA GPUs that this process may use, in the order in which devices count them;
/// none where there is no driver.
pub(crate) fn gpus() -> Vec<Gpu> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    let Ok(output) = Command::new("nvidia-smi").args(query).stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let gpu = |line: &str| {
        let (name, mebibytes) = line.rsplit_once(',')?;
        let mebibytes: u64 = mebibytes.trim().parse().ok()?;
        Some(Gpu { name: name.trim().to_owned(), memory_bytes: mebibytes << 20 })
    };
    let mut all: Vec<Option<Gpu>> = text.lines().map(gpu).collect();
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        // Only numbers: other names do not say which GPU is meant.
        Ok(visible) => {
            let numbers = visible.split(',').map_while(|number| number.trim().parse::<usize>().ok());
            numbers.map_while(|number| all.get_mut(number)?.take()).collect()
        }
        Err(_) => all.into_iter().flatten().collect(),
    }
}

/// Returns the machine for a plan: all of this one, or as much as is allowed.
pub(crate) fn machine(device: String, cores: Option<u32>, memory_bytes: Option<u64>) -> Machine {
    let device_memory_bytes = device_memory_bytes(&device);
    Machine {
        cores: cores.unwrap_or_else(self::cores),
        memory_bytes: memory_bytes.unwrap_or_else(self::memory_bytes),
        device: Device(device),
        device_memory_bytes,
    }
}
