//! GELU: Hendrycks and Gimpel, 2016: `x Φ(x)`, with the normal distribution itself.

use burn_tensor::Tensor;
use burn_tensor::activation::gelu as composed;
use weights::wide;

use super::operation::{Matrix, Operation, all_here, apply};
use crate::tensor::exponential::{exp, normal_distribution};

/// Multiplies each number with the share of a normal distribution that lies below it.
pub(crate) fn gelu(x: Tensor<2>) -> Tensor<2> {
    if all_here(&[&x]) { apply(Gelu, [x]) } else { composed(x) }
}

#[derive(Debug, Clone)]
struct Gelu;

impl Operation<1> for Gelu {
    fn shape(&self, [x]: [[usize; 2]; 1]) -> [usize; 2] {
        x
    }

    fn forward(&self, [x]: [Matrix<'_>; 1]) -> (Vec<f32>, Vec<f32>) {
        let mut output = vec![0.0; x.numbers.len()];
        weigh(x.numbers, &mut output);
        (output, Vec::new())
    }

    fn backward(&self, [x]: [Matrix<'_>; 1], _: &[f32], gradient: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut output = vec![0.0; gradient.len()];
        backward_into(x.numbers, gradient, &mut output);
        [output]
    }
}

wide! {
    fn weigh(x: &[f32], output: &mut [f32]) {
        for (output, x) in output.iter_mut().zip(x) {
            *output = x * normal_distribution(*x);
        }
    }
}

wide! {
    fn backward_into(x: &[f32], gradient: &[f32], output: &mut [f32]) {
        // 1 over the root of 2 pi.
        const PEAK: f32 = 0.398_942_3;
        for (output, (x, gradient)) in output.iter_mut().zip(x.iter().zip(gradient)) {
            *output = gradient * (normal_distribution(*x) + x * PEAK * exp(-0.5 * x * x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;

    #[test]
    fn it_is_what_it_is_composed_of() {
        same([[9, 31]], |[x]| gelu(x), |[x]| composed(x));
    }
}
