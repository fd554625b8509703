//! Softmax cross-entropy: the log-probability of one token of each row of logits.

use burn_flex::Flex;
use burn_tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use weights::wide;

use super::operation::{all_here, tensor};
use super::simd::{largest, sum};
use crate::tensor::exponential::exp;
use crate::tensor::indices::token_ids;

/// What is less likely than e^-60 counts as that: processors compute slowly with what is below
/// 1e-38, and it changes no sum.
const LEAST: f32 = -60.0;

/// Softmaxes, not yet divided by their sums.
#[expect(clippy::large_enum_variant, reason = "there are few of them, and what they hold is megabytes")]
pub(crate) enum SoftmaxCrossEntropy {
    /// On the CPU.
    Cpu {
        /// The exponentials of the logits less the largest of their row.
        weights: Vec<f32>,
        /// What those of a row add up to.
        sums: Vec<f32>,
        /// The token of each row.
        targets: Vec<u32>,
        /// Its logit, less the largest.
        shifted: Vec<f32>,
    },
    /// On another device.
    Device {
        /// As above, `[rows, vocabulary]`.
        weights: Tensor<2>,
        /// `[rows, 1]`.
        sums: Tensor<2>,
        /// `[rows, 1]`.
        targets: Tensor<2, Int>,
        /// `[rows, 1]`.
        shifted: Tensor<2>,
    },
}

impl SoftmaxCrossEntropy {
    /// Prepares it for `[rows, vocabulary]`, and a token of each row.
    pub(crate) fn of(logits: Tensor<2>, targets: &[u32]) -> Self {
        if all_here(&[&logits]) { Self::on_cpu(logits, targets) } else { Self::on_device(logits, targets) }
    }

    fn on_cpu(logits: Tensor<2>, targets: &[u32]) -> Self {
        let mut weights = logits.into_data().try_into_vec::<f32>().expect("logits are f32");
        let (mut sums, mut shifted) = (vec![0.0; targets.len()], vec![0.0; targets.len()]);
        exponentiate(&mut weights, targets, &mut sums, &mut shifted);
        Self::Cpu { weights, sums, targets: targets.to_vec(), shifted }
    }

    fn on_device(logits: Tensor<2>, targets: &[u32]) -> Self {
        let targets = token_ids(targets, &logits.device()).reshape([targets.len(), 1]);
        let all = logits.clone() - logits.max_dim(1);
        let weights = all.clone().clamp_min(LEAST).exp();
        let sums = weights.clone().sum_dim(1);
        Self::Device { shifted: all.gather(1, targets.clone()), weights, sums, targets }
    }

    /// Returns the log-probability of each row's token.
    pub(crate) fn logps(&self) -> Vec<f32> {
        match self {
            Self::Cpu { sums, shifted, .. } => {
                shifted.iter().zip(sums).map(|(shifted, sum)| shifted - sum.ln()).collect()
            }
            Self::Device { sums, shifted, .. } => {
                let output = (shifted.clone() - sums.clone().log()).into_data();
                output.try_into_vec().expect("log-probabilities are f32")
            }
        }
    }

    /// Returns the derivatives by the logits of something whose derivatives by the log-probabilities
    /// are known: `gradient * (one-hot - softmax)`.
    pub(crate) fn gradient(self, by: &[f32]) -> Tensor<2> {
        match self {
            Self::Cpu { mut weights, sums, targets, .. } => {
                scale(&mut weights, &sums, by);
                let (rows, vocabulary) = (by.len(), weights.len() / by.len());
                for ((row, target), by) in weights.chunks_exact_mut(vocabulary).zip(targets).zip(by) {
                    row[target as usize] += by;
                }
                Tensor::from_primitive::<Flex>(tensor(weights, [rows, vocabulary]))
            }
            Self::Device { weights, sums, targets, .. } => {
                let by = TensorData::new(by.to_vec(), [by.len(), 1]);
                let by = Tensor::<2>::from_data(by, &weights.device());
                let all = weights * (by.clone().neg() / sums);
                all.scatter(1, targets, by, IndexingUpdateOp::Add)
            }
        }
    }
}

wide! {
    fn exponentiate(logits: &mut [f32], targets: &[u32], sums: &mut [f32], shifted: &mut [f32]) {
        let vocabulary = logits.len() / targets.len();
        let rows = logits.chunks_exact_mut(vocabulary).zip(targets).zip(sums.iter_mut().zip(shifted));
        for ((row, target), (output, shifted)) in rows {
            let most = largest(row);
            *shifted = row[*target as usize] - most;
            for logit in &mut *row {
                let less = *logit - most;
                *logit = exp(if less < LEAST { LEAST } else { less });
            }
            *output = sum(row);
        }
    }
}

wide! {
    fn scale(weights: &mut [f32], sums: &[f32], by: &[f32]) {
        let vocabulary = weights.len() / sums.len();
        for (row, (sum, by)) in weights.chunks_exact_mut(vocabulary).zip(sums.iter().zip(by)) {
            let by = -by / sum;
            for weight in row {
                *weight *= by;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_tensor::{Device, Distribution};

    #[test]
    fn both_ways_agree() {
        let logits = Tensor::<2>::random([5, 37], Distribution::Normal(0.0, 30.0), &Device::flex());
        let (targets, by) = ([0, 36, 7, 7, 20], [1.0, -0.5, 0.0, 2.0, 0.1]);
        let on_cpu = SoftmaxCrossEntropy::on_cpu(logits.clone(), &targets);
        let on_device = SoftmaxCrossEntropy::on_device(logits, &targets);
        for (output, expected) in on_cpu.logps().iter().zip(on_device.logps()) {
            assert!((output - expected).abs() < 1e-5, "{output}, not {expected}");
        }
        let difference = (on_cpu.gradient(&by) - on_device.gradient(&by)).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
    }

    #[test]
    fn nothing_is_too_small_to_compute_with() {
        let logits = Tensor::<2>::from_floats([[0.0, -1000.0, f32::NEG_INFINITY]], &Device::flex());
        let SoftmaxCrossEntropy::Cpu { weights, .. } = SoftmaxCrossEntropy::of(logits, &[0]) else {
            panic!("it is the CPU")
        };
        assert!(weights.iter().all(|weight| weight.is_normal()), "{weights:?}");
    }
}
