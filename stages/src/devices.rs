//! The devices that stages can compute on, for commands.

use engine::Failure;
use learn::DeviceName;

/// Returns the names of the devices that this program can use on this machine.
pub fn devices() -> Vec<String> {
    learn::available().iter().map(ToString::to_string).collect()
}

/// Checks that a device is there and computes; returns its full name.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_device(name: &str) -> Result<String, String> {
    let device: DeviceName = name.parse().map_err(|error: learn::DeviceError| error.to_string())?;
    learn::check(&device).map_err(|error| error.to_string())?;
    Ok(device.to_string())
}

/// Reads the name of the device that a stage is to compute on.
///
/// # Errors
/// [`Failure`] if it means nothing.
pub fn parse_device(name: &str) -> Result<DeviceName, Failure> {
    name.parse().map_err(|error: learn::DeviceError| Failure::new(error.to_string()))
}
