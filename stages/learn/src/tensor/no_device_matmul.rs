//! Products of f32 matrices on a GPU, in a program that knows no GPU.

use burn_tensor::Tensor;

/// Multiplies matrices, or stacks of them.
pub(super) fn product<const D: usize>(a: Tensor<D>, _: Tensor<D>) -> Tensor<D> {
    unreachable!("{:?} is no CPU, and was not built in", a.device())
}
