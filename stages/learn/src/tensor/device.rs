//! Devices by name. Which backends there are is known here and in `fused/operation.rs`, which
//! computes on the CPU, and nowhere else.

use std::fmt;
use std::str::FromStr;

use burn_dispatch::DispatchDevice;
use burn_tensor::{Device, Tensor};

/// A device by name: `cpu`, `cuda`, `cuda:1`, `wgpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor, through burn's flex backend.
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
    /// Any GPU that WebGPU reaches.
    Wgpu,
}

/// A device that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The name means nothing.
    #[error("`{0}` is no device: write `cpu`, `cuda`, `cuda:N` or `wgpu`")]
    Unknown(String),
    /// The program was built without it.
    #[error("this program was built without `{0}`: build it with `--features {0}`")]
    NotBuilt(&'static str),
    /// There is no such device in this machine.
    #[error("there is no device `{name}` in this machine; there is {}{}", .available.join(", "), detail(.problem))]
    Absent {
        /// The device requested.
        name: String,
        /// What there is.
        available: Vec<String>,
        /// What its driver said, if it failed when it was asked.
        problem: Option<String>,
    },
    /// It has no numbers of 16 bits.
    #[error("this device does not compute in `bf16`: leave `precision` at `f32`")]
    Precision,
    /// The device is there, and does not compute.
    #[error("device `{name}` does not compute: {detail}")]
    Broken {
        /// The device requested.
        name: String,
        /// What happened.
        detail: String,
    },
}

fn detail(problem: &Option<String>) -> String {
    problem.as_ref().map_or_else(String::new, |problem| format!("; its driver failed: {problem}"))
}

impl DeviceName {
    /// Says whether burn sums over devices of this kind.
    pub(crate) fn has_collectives(&self) -> bool {
        matches!(self, Self::Cuda(_))
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "wgpu" => Ok(Self::Wgpu),
                _ => Err(unknown()),
            },
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

/// Says whether tensors on a device can be computed here.
pub(crate) fn is_cpu(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
        #[allow(unreachable_patterns, reason = "which devices there are depends on the features")]
        _ => false,
    }
}

/// Returns the devices that this program can use on this machine.
pub fn available() -> Vec<DeviceName> {
    let mut found = vec![DeviceName::Cpu];
    found.extend(cuda_devices());
    found.extend(wgpu_devices());
    found
}

/// Checks that a device is there and computes.
///
/// # Errors
/// [`DeviceError`], saying what to do.
pub fn check(name: &DeviceName) -> Result<(), DeviceError> {
    let device = open(name)?;
    if *name == DeviceName::Cpu {
        // It runs this very line; no driver can be missing or broken.
        return Ok(());
    }
    computes(&device).map_err(|detail| DeviceError::Broken { name: name.to_string(), detail })
}

/// Has a device compute something whose result is known.
fn computes(device: &Device) -> Result<(), String> {
    let sum = std::panic::catch_unwind(|| {
        let ones = Tensor::<2>::ones([4, 4], device);
        ones.clone().matmul(ones).sum().into_scalar::<f32>()
    });
    match sum {
        Ok(64.0) => Ok(()),
        Ok(other) => Err(format!("the sum of a product of ones is {other}, not 64")),
        Err(panic) => Err(format!("its driver failed: {}", panic_message(&*panic))),
    }
}

/// Returns the first line of what a panic says.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    message
        .and_then(|message| message.lines().find(|line| !line.trim().is_empty()))
        .unwrap_or("no reason")
        .trim()
        .to_owned()
}

/// Opens a device for inference.
pub(crate) fn open(name: &DeviceName) -> Result<Device, DeviceError> {
    let is_there = available().contains(name);
    let absent = || DeviceError::Absent {
        name: name.to_string(),
        available: available().iter().map(ToString::to_string).collect(),
        problem: driver_problem(name),
    };
    match name {
        DeviceName::Cpu => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        DeviceName::Cuda(number) if is_there => Ok(Device::cuda(*number)),
        #[cfg(feature = "wgpu")]
        DeviceName::Wgpu if is_there => Ok(Device::wgpu(burn_tensor::DeviceKind::DefaultDevice)),
        DeviceName::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt("cuda")),
        DeviceName::Wgpu if !cfg!(feature = "wgpu") => Err(DeviceError::NotBuilt("wgpu")),
        DeviceName::Cuda(_) | DeviceName::Wgpu => {
            debug_assert!(!is_there);
            Err(absent())
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> Vec<DeviceName> {
    (0..count(burn_tensor::DeviceType::Cuda)).map(DeviceName::Cuda).collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Vec<DeviceName> {
    Vec::new()
}

#[cfg(feature = "wgpu")]
fn wgpu_devices() -> Vec<DeviceName> {
    if count(burn_tensor::DeviceType::Wgpu) > 0 { vec![DeviceName::Wgpu] } else { Vec::new() }
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_devices() -> Vec<DeviceName> {
    Vec::new()
}

/// Counts devices.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn count(kind: burn_tensor::DeviceType) -> usize {
    enumerated(kind).unwrap_or(0)
}

/// Counts devices; where a driver is missing or too old, asking can panic.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn enumerated(kind: burn_tensor::DeviceType) -> Result<usize, String> {
    std::panic::catch_unwind(|| Device::enumerate(kind).into_iter().count())
        .map_err(|panic| panic_message(&*panic))
}

/// Returns what the driver of a device says, if it fails when it is asked which devices there are.
fn driver_problem(name: &DeviceName) -> Option<String> {
    match name {
        #[cfg(feature = "cuda")]
        DeviceName::Cuda(_) => enumerated(burn_tensor::DeviceType::Cuda).err(),
        #[cfg(feature = "wgpu")]
        DeviceName::Wgpu => enumerated(burn_tensor::DeviceType::Wgpu).err(),
        _ => None,
    }
}

/// Returns the device that tests of models compute on: the CPU, or the one that
/// `PIPELINE_TEST_DEVICE` names.
#[cfg(test)]
pub(crate) fn tested_device() -> Device {
    let name = std::env::var("PIPELINE_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    open(&name.parse().unwrap()).unwrap_or_else(|error| panic!("PIPELINE_TEST_DEVICE: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, name) in [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("wgpu", "wgpu")] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("tpu".parse::<DeviceName>(), Err(DeviceError::Unknown("tpu".to_owned())));
        assert!("cuda:x".parse::<DeviceName>().is_err());
    }

    #[test]
    fn a_driver_that_fails_is_quoted() {
        let panic =
            std::panic::catch_unwind(|| panic!("\n  CUDA driver version is insufficient\nmore")).unwrap_err();
        assert_eq!(panic_message(&*panic), "CUDA driver version is insufficient");
        let error = |problem: Option<String>| DeviceError::Absent {
            name: "cuda:0".to_owned(),
            available: vec!["cpu".to_owned()],
            problem,
        };
        assert_eq!(error(None).to_string(), "there is no device `cuda:0` in this machine; there is cpu");
        assert_eq!(
            error(Some("too old".to_owned())).to_string(),
            "there is no device `cuda:0` in this machine; there is cpu; its driver failed: too old"
        );
    }

    #[test]
    fn the_cpu_computes() {
        assert_eq!(computes(&Device::flex()), Ok(()));
        assert_eq!(check(&DeviceName::Cpu), Ok(()));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_built_in_says_so() {
        assert_eq!(check(&DeviceName::Cuda(0)), Err(DeviceError::NotBuilt("cuda")));
    }
}
