//! What a device can do, for benches.

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use rayon::prelude::*;

use crate::device::{self, DeviceError, DeviceName};
use crate::fused::is_cpu;
use crate::pieces::threads_for;
use crate::precision::Precision;

/// How often a product is made.
const TIMES: usize = 8;

/// Returns how many floating-point operations a second a device makes of large products of square
/// matrices, a multiplication and an addition being two. On the CPU so many threads make one each.
///
/// # Errors
/// [`DeviceError`].
pub fn product_rate(name: &DeviceName, precision: Precision, threads: usize) -> Result<f64, DeviceError> {
    let device = device::open(name)?;
    if !precision.is_known_to(&device) {
        return Err(DeviceError::Precision);
    }
    let (size, threads) = if is_cpu(&device) { (1024, threads.max(1)) } else { (8192, 1) };
    let spread = Distribution::Normal(0.0, 1.0);
    let matrix = || Tensor::<2>::random([size, size], spread, &device);
    let matrices: Vec<[Tensor<2>; 2]> = (0..threads).map(|_| [matrix(), matrix()]).collect();
    let pool = threads_for(&device, threads);
    let make = |times: usize| {
        pool.install(|| {
            matrices.par_iter().for_each(|[a, b]| {
                let mut found = None;
                for _ in 0..times {
                    found = Some(precision.linear(a.clone(), b.clone()));
                }
                // Asking for a number waits for all of them.
                found.map(|found| found.slice([0..1, 0..1]).into_scalar::<f32>());
            });
        });
    };
    // What is computed for the first time is compiled, and tried out.
    make(2);
    let began = Instant::now();
    make(TIMES);
    let operations = 2.0 * (size as f64).powi(3) * (TIMES * threads) as f64;
    Ok(operations / began.elapsed().as_secs_f64())
}

/// Returns the bytes that a GPU's memory pool holds for this process, which is the most it has held:
/// nothing is given back. None on the CPU.
///
/// # Errors
/// [`DeviceError`].
pub fn device_memory(name: &DeviceName) -> Result<Option<u64>, DeviceError> {
    let device = device::open(name)?;
    match is_cpu(&device) {
        true => Ok(None),
        false => Ok(device.memory_pool_usage().map(|usage| usage.bytes_reserved)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_multiplies_and_has_no_pool() {
        assert!(product_rate(&DeviceName::Cpu, Precision::F32, 1).unwrap() > 1e7);
        assert_eq!(device_memory(&DeviceName::Cpu).unwrap(), None);
    }
}
