//! `x Wᵀ`, of `[tokens, in]` and `[out, in]`.

use burn_tensor::Tensor;
use rayon::prelude::*;

use super::gemm::{View, multiply};
use super::operation::{Matrix, Operation, all_here, apply};
use super::skinny_gemm::{MAX_SKINNY_ROWS, skinny_gemm};

/// Multiplies `[tokens, in]` with the transpose of `[out, in]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if all_here(&[&x, &weight]) { apply(Linear, [x, weight]) } else { composed([x, weight]) }
}

fn composed([x, weight]: [Tensor<2>; 2]) -> Tensor<2> {
    x.matmul(weight.transpose())
}

/// How many rows of a large matrix one thread takes at once, and what is large: what no cache near
/// a core holds is read by several cores faster than by one.
const PIECE: usize = 64;
const LARGE: usize = 1 << 18;

#[derive(Debug, Clone)]
struct Linear;

impl Operation<2> for Linear {
    fn shape(&self, [x, weight]: [[usize; 2]; 2]) -> [usize; 2] {
        assert_eq!(x[1], weight[1], "a projection takes what it is given");
        [x[0], weight[0]]
    }

    fn forward(&self, [x, weight]: [Matrix<'_>; 2]) -> (Vec<f32>, Vec<f32>) {
        let output = if x.rows <= MAX_SKINNY_ROWS {
            times_skinny(x, weight)
        } else {
            multiply(x.into(), View::from(weight).transposed())
        };
        (output, Vec::new())
    }

    fn backward(
        &self,
        [x, weight]: [Matrix<'_>; 2],
        _kept: &[f32],
        gradient: &[f32],
        [grad_x, grad_weight]: [bool; 2],
    ) -> [Vec<f32>; 2] {
        let gradient = View::new(gradient, [x.rows, weight.rows], weight.rows);
        let when = |wanted: bool, compute: &dyn Fn() -> Vec<f32>| if wanted { compute() } else { Vec::new() };
        [
            when(grad_x, &|| multiply(gradient, weight.into())),
            when(grad_weight, &|| multiply(gradient.transposed(), x.into())),
        ]
    }
}

fn times_skinny(x: Matrix<'_>, weight: Matrix<'_>) -> Vec<f32> {
    let (rows, columns, length) = (x.rows, weight.rows, x.columns);
    // Column after column first.
    let mut transposed = vec![0.0; rows * columns];
    if weight.numbers.len() < LARGE || length == 0 {
        skinny_gemm(x.numbers, weight.numbers, length, &mut transposed);
    } else {
        let pieces = transposed.par_chunks_mut(PIECE * rows).zip(weight.numbers.par_chunks(PIECE * length));
        pieces.for_each(|(transposed, weight)| skinny_gemm(x.numbers, weight, length, transposed));
    }
    if rows == 1 {
        return transposed;
    }
    let mut output = vec![0.0; rows * columns];
    for (column, transposed) in transposed.chunks_exact(rows).enumerate() {
        for (row, number) in transposed.iter().enumerate() {
            output[row * columns + column] = *number;
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;

    #[test]
    fn it_is_a_product_with_the_transpose() {
        for tokens in [1, 2, 3, 4, 7, 8, 9, 40] {
            same([[tokens, 33], [21, 33]], |[x, weight]| linear(x, weight), composed);
        }
    }

    #[test]
    fn threads_change_no_bit_of_a_large_product() {
        let device = burn_tensor::Device::flex();
        let random = |shape: [usize; 2]| {
            Tensor::<2>::random(shape, burn_tensor::Distribution::Normal(0.0, 1.0), &device)
        };
        let (x, weight) = (random([5, 512]), random([1000, 512]));
        let on = |threads: usize| -> Vec<f32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let output = pool.install(|| linear(x.clone(), weight.clone()));
            output.into_data().try_into_vec().unwrap()
        };
        assert_eq!(on(1), on(3));
        same([[5, 512], [1000, 512]], |[x, weight]| linear(x, weight), composed);
    }
}
