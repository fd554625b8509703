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
        let mut output = x.numbers.to_vec();
        softmax_rows(&mut output, x.columns);
        let kept = output.clone();
        (output, kept)
    }

    fn backward(&self, [x]: [Matrix<'_>; 1], kept: &[f32], gradient: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut output = gradient.to_vec();
        backward_into(kept, x.columns, &mut output);
        [output]
    }
}

wide! {
    fn softmax_rows(rows: &mut [f32], width: usize) {
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
    fn backward_into(output: &[f32], width: usize, by: &mut [f32]) {
        for (output, by) in output.chunks_exact(width).zip(by.chunks_exact_mut(width)) {
            let mean = dot(output, by);
            for (by, output) in by.iter_mut().zip(output) {
                *by = output * (*by - mean);
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
        let output: Vec<f32> = softmax(x).into_data().try_into_vec().unwrap();
        assert_eq!(output, [0.5, 0.0, 0.5]);
    }
}
