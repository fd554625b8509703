//! Softmax over the last dimension.

use burn_tensor::Tensor;
use burn_tensor::activation::softmax as composed;
use weights::wide;

use super::operation::{Matrix, Operation, all_here, apply};
use super::simd::{dot, largest, sum};
use crate::tensor::exponential::exp;

/// Returns numbers above 0 that add up to 1 along the last dimension. What is less than e^-60 of
/// the largest is 0.
pub(crate) fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !all_here(&[&x]) {
        return composed(x, D - 1);
    }
    let shape = x.dims();
    let width = shape[D - 1];
    let rows = shape.iter().product::<usize>() / width.max(1);
    apply(Softmax, [x.reshape([rows, width])]).reshape(shape)
}

#[derive(Debug, Clone)]
struct Softmax;

/// Keeps the result.
impl Operation<1> for Softmax {
    fn shape(&self, [x]: [[usize; 2]; 1]) -> [usize; 2] {
        x
    }

    fn forward(&self, [x]: [Matrix<'_>; 1]) -> (Vec<f32>, Vec<f32>) {
        let mut found = x.numbers.to_vec();
        soften(&mut found, x.columns);
        let kept = found.clone();
        (found, kept)
    }

    fn backward(&self, [x]: [Matrix<'_>; 1], kept: &[f32], slope: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut found = slope.to_vec();
        slopes(kept, x.columns, &mut found);
        [found]
    }
}

wide! {
    fn soften(rows: &mut [f32], width: usize) {
        for row in rows.chunks_exact_mut(width) {
            let most = largest(row);
            for number in &mut *row {
                let less = *number - most;
                *number = if less < -60.0 { 0.0 } else { exp(less) };
            }
            let sum = sum(row);
            for number in row {
                *number /= sum;
            }
        }
    }
}

wide! {
    fn slopes(found: &[f32], width: usize, by: &mut [f32]) {
        for (found, by) in found.chunks_exact(width).zip(by.chunks_exact_mut(width)) {
            let mean = dot(found, by);
            for (by, found) in by.iter_mut().zip(found) {
                *by = found * (*by - mean);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;
    use burn_tensor::Device;

    #[test]
    fn it_is_what_it_is_composed_of() {
        same([[7, 19]], |[x]| softmax(x), |[x]| composed(x, 1));
    }

    #[test]
    fn what_is_hidden_weighs_nothing() {
        let x = Tensor::<3>::from_floats([[[3.0, f32::NEG_INFINITY, 3.0]]], &Device::flex());
        let found: Vec<f32> = softmax(x).into_data().try_into_vec().unwrap();
        assert_eq!(found, [0.5, 0.0, 0.5]);
    }
}
