//! Each row over its root mean square, times a gain: Zhang and Sennrich, 2019, eq. 4, with the
//! small number inside the root as in LLaMA.

use burn_tensor::Tensor;
use weights::wide;

use super::operation::{Matrix, Operation, all_here, apply};
use super::simd::{LANES, squares, total};

/// Divides each row of `[tokens, hidden]` by its root mean square, and scales it by `[hidden]`.
pub(crate) fn rms_norm(x: Tensor<2>, gain: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let gain = gain.unsqueeze::<2>();
    if all_here(&[&x, &gain]) { apply(RmsNorm { epsilon }, [x, gain]) } else { composed([x, gain], epsilon) }
}

fn composed([x, gain]: [Tensor<2>; 2], epsilon: f64) -> Tensor<2> {
    let root = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
    x * root * gain
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f64,
}

/// Keeps the inverse root of each row.
impl Operation<2> for RmsNorm {
    fn shape(&self, [x, gain]: [[usize; 2]; 2]) -> [usize; 2] {
        assert_eq!([1, x[1]], gain, "a norm has a gain for each column");
        x
    }

    fn forward(&self, [x, gain]: [Matrix<'_>; 2]) -> (Vec<f32>, Vec<f32>) {
        let (mut output, mut inverses) = (vec![0.0; x.numbers.len()], vec![0.0; x.rows]);
        normalise(x.numbers, gain.numbers, self.epsilon, &mut output, &mut inverses);
        (output, inverses)
    }

    fn backward(
        &self,
        [x, gain]: [Matrix<'_>; 2],
        inverses: &[f32],
        gradient: &[f32],
        _wanted: [bool; 2],
    ) -> [Vec<f32>; 2] {
        let (mut grad_x, mut grad_gain) = (vec![0.0; x.numbers.len()], vec![0.0; gain.columns]);
        backward_into(x.numbers, gain.numbers, inverses, gradient, &mut grad_x, &mut grad_gain);
        [grad_x, grad_gain]
    }
}

wide! {
    fn normalise(x: &[f32], gain: &[f32], epsilon: f64, output: &mut [f32], inverses: &mut [f32]) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(output.chunks_exact_mut(width));
        for ((x, output), inverse) in rows.zip(inverses) {
            *inverse = (squares(x) / width as f64 + epsilon).sqrt().recip() as f32;
            for ((output, x), gain) in output.iter_mut().zip(x).zip(gain) {
                *output = x * *inverse * gain;
            }
        }
    }
}

wide! {
    fn backward_into(
        x: &[f32],
        gain: &[f32],
        inverses: &[f32],
        gradient: &[f32],
        grad_x: &mut [f32],
        grad_gain: &mut [f32],
    ) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(grad_x.chunks_exact_mut(width));
        for (((x, gradient), grad_x), inverse) in rows.zip(inverses) {
            // grad_x holds gradient times gain first.
            let mut along = [0f32; LANES];
            let (whole, _) = grad_x.as_chunks_mut::<LANES>();
            for (place, grad_x) in whole.iter_mut().enumerate() {
                let at = place * LANES;
                let (x, gradient, gain) = (&x[at..at + LANES], &gradient[at..at + LANES], &gain[at..at + LANES]);
                for lane in 0..LANES {
                    grad_x[lane] = gradient[lane] * gain[lane];
                    along[lane] += grad_x[lane] * x[lane];
                }
            }
            let mut along = total(along);
            for at in width - width % LANES..width {
                grad_x[at] = gradient[at] * gain[at];
                along += grad_x[at] * x[at];
            }
            let along = along * inverse * inverse / width as f32;
            for ((grad_x, x), (grad_gain, gradient)) in grad_x.iter_mut().zip(x).zip(grad_gain.iter_mut().zip(gradient)) {
                *grad_x = inverse * (*grad_x - x * along);
                *grad_gain += gradient * x * inverse;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;

    #[test]
    fn it_is_what_it_is_composed_of() {
        for width in [5, 16, 40] {
            same(
                [[7, width], [1, width]],
                |[x, gain]| rms_norm(x, gain.flatten(0, 1), 1e-5),
                |inputs| composed(inputs, 1e-5),
            );
        }
    }
}
