//! What matrix products are computed in.

use burn_tensor::{DType, Device, FloatDType, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tensor::device::is_cpu;
use crate::tensor::device_matmul;
use crate::tensor::fused;

/// What the matrix products of projections, adapters and the head are computed in.
///
/// Weights that are trained, what an optimiser remembers, norms, softmaxes and losses are f32
/// either way, as are the numbers between products: what torch calls autocast. Attention's own
/// products follow on GPUs, and stay in f32 on the CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// f32, and factors of products rounded to TF32, with ten bits in place of 23, by GPUs that multiply
    /// such factors faster.
    Tf32,
    /// Factors and products rounded to 16 bits, eight of them for the exponent (bfloat16); what is
    /// added up in between is in f32.
    Bf16,
    /// Weights rounded to bfloat16, and products as with TF32: for devices whose sums of bf16 products
    /// are not accumulated in f32.
    Bf16Weights,
}

impl Precision {
    /// Says whether it is what there was before there was a choice, which is not part of a key.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::Bf16Weights];

    /// Says whether a device computes in it.
    pub(crate) fn is_known_to(self, device: &Device) -> bool {
        !self.has_bf16() || is_cpu(device) || device.supports_dtype(DType::BF16)
    }

    /// Says whether weights are rounded to bfloat16.
    pub fn has_bf16(self) -> bool {
        matches!(self, Self::Bf16 | Self::Bf16Weights)
    }

    /// Returns a weight as products have it.
    pub(crate) fn weight(self, weight: Tensor<2>) -> Tensor<2> {
        if self.has_bf16() { round(weight) } else { weight }
    }

    /// Multiplies `[tokens, in]` with the transpose of `[out, in]`.
    pub(crate) fn linear(self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        match self {
            Self::F32 if !is_cpu(&x.device()) => matmul_f32(x, weight.transpose()),
            Self::F32 | Self::Tf32 => fused::linear(x, weight),
            Self::Bf16 if is_cpu(&x.device()) => round(fused::linear(round(x), round(weight))),
            Self::Bf16 => to_bf16(x).matmul(to_bf16(weight).transpose()).cast(FloatDType::F32),
            Self::Bf16Weights => fused::linear(x, self.weight(weight)),
        }
    }

    /// Returns numbers as weights in products have them.
    pub(crate) fn rounded(self, numbers: Vec<f32>) -> Vec<f32> {
        if !self.has_bf16() {
            return numbers;
        }
        let count = numbers.len();
        let rounded = round(Tensor::<1>::from_data(TensorData::new(numbers, [count]), &Device::flex()));
        rounded.into_data().try_into_vec().expect("rounded numbers are f32")
    }

    /// Multiplies matrices, or stacks of them, as they stand.
    pub(crate) fn matmul<const D: usize>(self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => matmul_f32(a, b),
            Self::Tf32 => a.matmul(b),
            Self::Bf16Weights => a.cast(FloatDType::F32).matmul(b.cast(FloatDType::F32)),
            Self::Bf16 if is_cpu(&a.device()) => round(round(a).matmul(round(b))),
            Self::Bf16 => to_bf16(a).matmul(to_bf16(b)).cast(FloatDType::F32),
        }
    }
}

/// Multiplies f32 matrices, or stacks of them, and rounds no factor on any device.
pub(crate) fn matmul_f32<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    if is_cpu(&a.device()) { a.matmul(b) } else { device_matmul::product(a, b) }
}

fn to_bf16<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(FloatDType::BF16)
}

/// Rounds numbers, and their derivatives in the backward pass.
fn round<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    to_bf16(x).cast(FloatDType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_tensor::Distribution;
    use half::bf16;

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    fn rounded(numbers: &[f32]) -> Vec<f32> {
        numbers.iter().map(|number| bf16::from_f32(*number).to_f32()).collect()
    }

    /// `a b` with rounded factors, and the result rounded.
    fn expected(a: &[f32], b: &[f32], [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
        let (a, b) = (rounded(a), rounded(b));
        let place = |at: usize| -> f32 {
            let (row, column) = (at / columns, at % columns);
            (0..inner).map(|inside| a[row * inner + inside] * b[inside * columns + column]).sum()
        };
        rounded(&(0..rows * columns).map(place).collect::<Vec<_>>())
    }

    /// Sums of another order are sometimes rounded the other way.
    fn assert_near(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        let scale = expected.iter().fold(0f32, |most, number| most.max(number.abs()));
        for (actual, expected) in actual.iter().zip(expected) {
            assert!(
                (actual - expected).abs() <= expected.abs() / 128.0 + 1e-6 * scale,
                "{actual} {expected}"
            );
            assert_eq!(*actual, bf16::from_f32(*actual).to_f32());
        }
        let same = actual.iter().zip(expected).filter(|(actual, expected)| actual == expected).count();
        assert!(same * 10 >= actual.len() * 9, "{same} of {}", actual.len());
    }

    #[test]
    fn weights_alone_are_rounded_and_products_are_in_f32() {
        let [tokens, inner, out] = [5, 48, 7];
        let device = Device::flex();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, weight) = (random([tokens, inner]), random([out, inner]));
        let expected = fused::linear(x.clone(), round(weight.clone()));
        for weight in [weight.clone(), to_bf16(weight)] {
            let x = x.clone().autodiff().require_grad();
            let actual = Precision::Bf16Weights.linear(x.clone(), weight.clone().autodiff());
            let mut gradients = actual.clone().sum().backward();
            assert_eq!(numbers(actual.inner()), numbers(expected.clone()));
            let grad_x = numbers(x.grad_remove(&mut gradients).unwrap());
            let ones = Tensor::<2>::ones([tokens, out], &device);
            let exact = numbers(ones.matmul(round(weight)));
            for (actual, expected) in grad_x.iter().zip(&exact) {
                assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
            }
        }
        let (a, b) = (random([3, 4]), random([4, 2]));
        for precision in [Precision::Tf32, Precision::Bf16Weights] {
            let product = precision.matmul(a.clone(), b.clone());
            assert_eq!(numbers(product), numbers(a.clone().matmul(b.clone())));
        }
    }

    #[test]
    fn factors_and_products_are_rounded_forwards_and_backwards() {
        let [tokens, inner, out] = [5, 48, 7];
        let device = Device::flex();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, weight, gradient) = (random([tokens, inner]), random([out, inner]), random([tokens, out]));
        let leaves = [&x, &weight].map(|tensor| tensor.clone().autodiff().require_grad());
        let [x_leaf, weight_leaf] = leaves.clone();
        let actual = Precision::Bf16.linear(x_leaf, weight_leaf);
        let mut gradients = (actual.clone() * gradient.clone().autodiff()).sum().backward();
        let [grad_x, grad_weight] = leaves.map(|leaf| numbers(leaf.grad_remove(&mut gradients).unwrap()));
        let transposed = |tensor: &Tensor<2>| numbers(tensor.clone().transpose());
        let plain = |tensor: &Tensor<2>| numbers(tensor.clone());
        assert_near(
            &numbers(actual.inner()),
            &expected(&plain(&x), &transposed(&weight), [tokens, inner, out]),
        );
        assert_near(&grad_x, &expected(&plain(&gradient), &plain(&weight), [tokens, out, inner]));
        assert_near(&grad_weight, &expected(&transposed(&gradient), &plain(&x), [out, tokens, inner]));
        let product = Precision::Bf16.matmul(x.clone(), weight.clone().transpose());
        assert_near(&numbers(product), &expected(&plain(&x), &transposed(&weight), [tokens, inner, out]));
    }
}
