//! How fast a device multiplies matrices in each precision, and how near to exact, for commands.

use engine::with_causes;
use learn::{DeviceError, DeviceName, MatmulAccuracy, Precision};
use serde::Serialize;

/// The error of f32 products beyond which their factors must have been rounded: TF32 keeps ten bits.
const MOST_F32_ERROR: f64 = 2e-5;

/// The error of bf16 products beyond which more than the result is rounded.
const MOST_BF16_ERROR: f64 = 3e-3;

/// The products of one precision.
#[derive(Debug, Clone, Serialize)]
pub struct MatmulMeasured {
    /// What they are computed in.
    pub precision: Precision,
    /// The operations a second of large square matrices; none if the device does not compute in it.
    pub operations_per_second: Option<f64>,
    /// How near to exact they are, for matrices and for vectors.
    pub accuracy: Vec<MatmulAccuracy>,
    /// Whether sums are accumulated in f32, as the precision promises; none if there are no products.
    pub accumulates_in_f32: Option<bool>,
    /// Whether factors in f32 are multiplied as TF32, which has ten bits in place of 23.
    pub is_tf32: bool,
}

impl MatmulMeasured {
    fn new(precision: Precision, operations_per_second: Option<f64>, accuracy: Vec<MatmulAccuracy>) -> Self {
        let is_exact = |accuracy: &MatmulAccuracy| {
            accuracy.sum_of_ones == 8192.0 && accuracy.relative_error < MOST_BF16_ERROR
        };
        let is_rounded = |accuracy: &MatmulAccuracy| accuracy.relative_error > MOST_F32_ERROR;
        Self {
            accumulates_in_f32: (!accuracy.is_empty()).then(|| accuracy.iter().all(is_exact)),
            is_tf32: matches!(precision, Precision::F32 | Precision::Tf32) && accuracy.iter().any(is_rounded),
            precision,
            operations_per_second,
            accuracy,
        }
    }
}

/// Multiplies matrices on a device in each precision, or in one.
///
/// # Errors
/// What is wrong, and what to do.
pub fn bench_matmul(
    device: &str,
    precision: Option<Precision>,
    threads: u32,
) -> Result<Vec<MatmulMeasured>, String> {
    let device: DeviceName = device.parse().map_err(|error| with_causes(&error))?;
    let all =
        Precision::ALL.into_iter().filter(|known| precision.is_none_or(|precision| precision == *known));
    let measure = |precision: Precision| {
        let accuracy = match learn::matmul_accuracy(&device, precision) {
            // One that was asked for by name is an error, and any other is reported as absent.
            Err(DeviceError::Precision) if all.clone().count() > 1 => {
                return Ok(MatmulMeasured::new(precision, None, Vec::new()));
            }
            accuracy => accuracy.map_err(|error| with_causes(&error))?,
        };
        let rate = learn::matmul_rate(&device, precision, threads as usize);
        let operations_per_second = Some(rate.map_err(|error| with_causes(&error))?);
        Ok(MatmulMeasured::new(precision, operations_per_second, accuracy))
    };
    all.clone().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(precision: Precision, relative_error: f64, sum_of_ones: f64) -> MatmulMeasured {
        let accuracy = [256, 1].map(|rows| MatmulAccuracy { rows, relative_error, sum_of_ones });
        MatmulMeasured::new(precision, Some(1.0), accuracy.to_vec())
    }

    #[test]
    fn errors_say_what_products_are_computed_in() {
        // Expected: the result alone is rounded; TF32 factors; sums in bfloat16.
        let exact = measured(Precision::Bf16, 1.2e-3, 8192.0);
        assert_eq!((exact.accumulates_in_f32, exact.is_tf32), (Some(true), false));
        let rounded = measured(Precision::F32, 3e-4, 8192.0);
        assert_eq!((rounded.accumulates_in_f32, rounded.is_tf32), (Some(true), true));
        for (relative_error, sum_of_ones) in [(4e-2, 8192.0), (1.2e-3, 4096.0)] {
            let short = measured(Precision::Bf16, relative_error, sum_of_ones);
            assert_eq!(short.accumulates_in_f32, Some(false));
        }
    }
}
