//! What a device can do, for benches.

use std::time::Instant;

use burn_tensor::{Device, Distribution, FloatDType, Tensor, TensorData};
use rayon::prelude::*;

use crate::tensor::device::{self, DeviceError, DeviceName, is_cpu};
use crate::tensor::parallel::threads_for;
use crate::tensor::precision::Precision;
use crate::tensor::random::{Purpose, Random};

/// How often a product is made.
const TIMES: usize = 8;

/// Returns how many floating-point operations a second a device makes of large products of square
/// matrices, a multiplication and an addition being two. On the CPU so many threads make one each; on
/// a GPU matrices are as large as it multiplies in about a second, and 8,192 wide at most.
///
/// # Errors
/// [`DeviceError`].
pub fn matmul_rate(name: &DeviceName, precision: Precision, threads: usize) -> Result<f64, DeviceError> {
    let device = device::open(name)?;
    if !precision.is_known_to(&device) {
        return Err(DeviceError::Precision);
    }
    let is_cpu = is_cpu(&device);
    let threads = if is_cpu { threads.max(1) } else { 1 };
    let pool = threads_for(&device, threads);
    let seconds = |size: usize, times: usize| -> f64 {
        let matrix = || {
            let matrix = Tensor::<2>::random([size, size], Distribution::Normal(0.0, 1.0), &device);
            // As a GPU keeps it, so that only products are timed.
            if precision == Precision::Bf16 && !is_cpu { matrix.cast(FloatDType::BF16) } else { matrix }
        };
        let matrices: Vec<[Tensor<2>; 2]> = (0..threads).map(|_| [matrix(), matrix()]).collect();
        let make = |times: usize| {
            pool.install(|| {
                matrices.par_iter().for_each(|[a, b]| {
                    let mut product = None;
                    for _ in 0..times {
                        product = Some(precision.linear(a.clone(), b.clone()));
                    }
                    // Asking for a number waits for all of them.
                    product.map(|product| product.slice([0..1, 0..1]).into_scalar::<f32>());
                });
            });
        };
        // What is computed for the first time is compiled, and tried out.
        make(2);
        let began = Instant::now();
        make(times);
        began.elapsed().as_secs_f64()
    };
    let size = if is_cpu {
        1024
    } else {
        // The largest that takes about a second; a small one says how long that is.
        let small = 512;
        let one = seconds(small, 1);
        let takes = |size: usize| one * ((size / small) as f64).powi(3);
        [8192, 4096, 2048, 1024].into_iter().find(|size| takes(*size) < 1.0).unwrap_or(small)
    };
    let operations = 2.0 * (size as f64).powi(3) * (TIMES * threads) as f64;
    Ok(operations / seconds(size, TIMES))
}

/// How near the matrix products of a device are to exact ones.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MatmulAccuracy {
    /// The rows of the left factor. One is a product of a vector with a matrix, as in generation.
    pub rows: usize,
    /// The error of a product of random factors with 4,096 numbers to each sum: the norm of the difference from the
    /// product in double precision, over its norm. The factors are those that the precision allows.
    pub relative_error: f64,
    /// What a sum of 8,192 ones is. It is 8,192 where sums are accumulated in f32, and less in bfloat16.
    pub sum_of_ones: f64,
}

/// Compares products of a device with those of the host in double precision, for matrices and for
/// vectors.
///
/// # Errors
/// [`DeviceError`].
pub fn matmul_accuracy(name: &DeviceName, precision: Precision) -> Result<Vec<MatmulAccuracy>, DeviceError> {
    let device = device::open(name)?;
    if !precision.is_known_to(&device) {
        return Err(DeviceError::Precision);
    }
    Ok([256, 1].into_iter().map(|rows| accuracy(rows, precision, &device)).collect())
}

fn accuracy(rows: usize, precision: Precision, device: &Device) -> MatmulAccuracy {
    const INNER: usize = 4096;
    const ONES: usize = 8192;
    const COLUMNS: usize = 256;
    let mut random = Random::new(0, Purpose::Weights, rows as u64);
    let mut factor = |rows: usize| precision.rounded(random.normal(rows * INNER, 1.0));
    let (x, weight) = (factor(rows), factor(COLUMNS));
    let on_device = |numbers: &[f32], rows: usize| {
        Tensor::<2>::from_data(TensorData::new(numbers.to_vec(), [rows, INNER]), device)
    };
    let product = precision.linear(on_device(&x, rows), on_device(&weight, COLUMNS));
    let product: Vec<f32> = product.into_data().try_into_vec().expect("products are f32");
    let (mut errors, mut squares) = (0.0, 0.0);
    for (at, number) in product.iter().enumerate() {
        let row = &x[at / COLUMNS * INNER..][..INNER];
        let column = &weight[at % COLUMNS * INNER..][..INNER];
        let exact: f64 = row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        errors += (f64::from(*number) - exact).powi(2);
        squares += exact.powi(2);
    }
    let ones = |rows: usize| Tensor::<2>::ones([rows, ONES], device);
    let sums = precision.linear(ones(rows), ones(COLUMNS)).into_data().try_into_vec::<f32>();
    let sums = sums.expect("products are f32");
    let least = sums.into_iter().fold(f32::INFINITY, f32::min);
    MatmulAccuracy { rows, relative_error: (errors / squares).sqrt(), sum_of_ones: f64::from(least) }
}

/// The memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// What it holds now, in bytes.
    pub resident_bytes: u64,
    /// The most that it has held.
    pub peak_bytes: u64,
}

/// Returns what memory this process takes; none where the system does not tell.
pub fn process_memory() -> Option<ProcessMemory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |field: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    let resident_bytes = bytes("VmRSS:")?;
    // Linux counts the two apart, and the peak now and then later.
    Some(ProcessMemory { resident_bytes, peak_bytes: bytes("VmHWM:")?.max(resident_bytes) })
}

/// Returns the bytes that a GPU's memory pool holds for this process, which is the most it has held:
/// nothing is given back. None on the CPU.
///
/// # Errors
/// [`DeviceError`].
pub fn device_memory(name: &DeviceName) -> Result<Option<u64>, DeviceError> {
    Ok(pool_bytes(&device::open(name)?))
}

/// As [`device_memory`], of a device that is open.
pub(crate) fn pool_bytes(device: &Device) -> Option<u64> {
    if is_cpu(device) { None } else { device.memory_pool_usage().map(|usage| usage.bytes_reserved) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_multiplies_and_has_no_pool() {
        assert!(matmul_rate(&DeviceName::Cpu, Precision::F32, 1).unwrap() > 1e7);
        assert_eq!(device_memory(&DeviceName::Cpu).unwrap(), None);
    }

    #[test]
    fn the_cpus_sums_are_accumulated_in_f32() {
        for (precision, most) in [(Precision::F32, 2e-6), (Precision::Bf16, 2e-3)] {
            let measured = matmul_accuracy(&DeviceName::Cpu, precision).unwrap();
            assert_eq!(measured.iter().map(|accuracy| accuracy.rows).collect::<Vec<_>>(), [256, 1]);
            for accuracy in measured {
                assert!(accuracy.relative_error < most, "{accuracy:?}");
                assert_eq!(accuracy.sum_of_ones, 8192.0);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_process_holds_is_seen() {
        let before = process_memory().unwrap();
        let held = vec![1_u8; 256 << 20];
        let during = process_memory().unwrap();
        // Other tests take and give back memory meanwhile, but not that much.
        assert!(during.resident_bytes >= before.resident_bytes + (128 << 20), "{before:?} {during:?}");
        assert!(during.peak_bytes >= during.resident_bytes);
        drop(held);
        assert!(process_memory().unwrap().peak_bytes >= during.peak_bytes - (64 << 20));
    }
}
