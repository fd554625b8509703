//! `silu(gate) * up`, the middle of an MLP with SwiGLU: Shazeer, 2020, eq. 5.

use burn_tensor::Tensor;
use burn_tensor::activation::silu;
use weights::wide;

use super::operation::{Matrix, Operation, all_here, apply};
use crate::tensor::exponential::sigmoid;

/// Multiplies `silu(gate)` with `up`, both of one shape.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if all_here(&[&gate, &up]) { apply(Swiglu, [gate, up]) } else { composed([gate, up]) }
}

fn composed([gate, up]: [Tensor<2>; 2]) -> Tensor<2> {
    silu(gate) * up
}

#[derive(Debug, Clone)]
struct Swiglu;

impl Operation<2> for Swiglu {
    fn shape(&self, [gate, up]: [[usize; 2]; 2]) -> [usize; 2] {
        assert_eq!(gate, up, "a gate is as large as what it gates");
        gate
    }

    fn forward(&self, [gate, up]: [Matrix<'_>; 2]) -> (Vec<f32>, Vec<f32>) {
        let mut output = vec![0.0; gate.numbers.len()];
        gated(gate.numbers, up.numbers, &mut output);
        (output, Vec::new())
    }

    fn backward(
        &self,
        [gate, up]: [Matrix<'_>; 2],
        _kept: &[f32],
        gradient: &[f32],
        _wanted: [bool; 2],
    ) -> [Vec<f32>; 2] {
        let (mut grad_gate, mut grad_up) = (vec![0.0; gradient.len()], vec![0.0; gradient.len()]);
        backward_into(gate.numbers, up.numbers, gradient, &mut grad_gate, &mut grad_up);
        [grad_gate, grad_up]
    }
}

wide! {
    fn gated(gate: &[f32], up: &[f32], output: &mut [f32]) {
        for ((output, gate), up) in output.iter_mut().zip(gate).zip(up) {
            *output = gate * sigmoid(*gate) * up;
        }
    }
}

wide! {
    fn backward_into(gate: &[f32], up: &[f32], gradient: &[f32], grad_gate: &mut [f32], grad_up: &mut [f32]) {
        let by = grad_gate.iter_mut().zip(grad_up);
        for ((grad_gate, grad_up), ((gate, up), gradient)) in by.zip(gate.iter().zip(up).zip(gradient)) {
            let open = sigmoid(*gate);
            *grad_up = gradient * gate * open;
            *grad_gate = gradient * up * open * (1.0 + gate * (1.0 - open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;

    #[test]
    fn it_is_what_it_is_composed_of() {
        same([[7, 19], [7, 19]], |[gate, up]| swiglu(gate, up), composed);
    }
}
