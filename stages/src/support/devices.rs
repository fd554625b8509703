//! The devices that stages can compute on, for commands.

use engine::StageFailure;
use learn::DeviceName;

/// Returns the names of the devices that this program can use on this machine.
pub fn devices() -> Vec<String> {
    learn::available().iter().map(ToString::to_string).collect()
}

/// Checks that a device, or each of several with commas between, is there and computes; returns
/// their full names.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_device(names: &str) -> Result<String, String> {
    let devices = read(names)?;
    for device in &devices {
        learn::check(device).map_err(|error| error.to_string())?;
    }
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    Ok(names.join(","))
}

fn read(names: &str) -> Result<Vec<DeviceName>, String> {
    let read = |name: &str| name.trim().parse().map_err(|error: learn::DeviceError| error.to_string());
    let devices: Vec<DeviceName> = names.split(',').map(read).collect::<Result<_, _>>()?;
    let kind = std::mem::discriminant(&devices[0]);
    match devices.iter().find(|device| std::mem::discriminant(*device) != kind) {
        Some(other) => {
            Err(format!("`{}` and `{other}` compute differently: give devices of one kind", devices[0]))
        }
        None => Ok(devices),
    }
}

/// Reads the names of the devices that a stage is to compute on.
///
/// # Errors
/// [`StageFailure`] if one means nothing.
pub(crate) fn parse_devices(names: &str) -> Result<Vec<DeviceName>, StageFailure> {
    read(names).map_err(StageFailure::new)
}

/// Reads the name of the device of a stage that computes on one: the first.
///
/// # Errors
/// [`StageFailure`] if it means nothing.
pub(crate) fn parse_device(names: &str) -> Result<DeviceName, StageFailure> {
    parse_devices(names).map(|mut devices| devices.swap_remove(0))
}
