//! `x Wᵀ`, of `[tokens, in]` and `[out, in]`.

use burn::tensor::Tensor;
use weights::wide;

use super::lanes::dots;
use super::product::{View, multiply};
use super::{Matrix, Operation, all_here, apply};

/// Multiplies `[tokens, in]` with the transpose of `[out, in]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    match all_here(&[&x, &weight]) {
        true => apply(Linear, [x, weight]),
        false => composed([x, weight]),
    }
}

fn composed([x, weight]: [Tensor<2>; 2]) -> Tensor<2> {
    x.matmul(weight.transpose())
}

/// So few tokens that reading the matrix takes longer than computing.
const FEW: usize = 8;

#[derive(Debug, Clone)]
struct Linear;

impl Operation<2> for Linear {
    fn shape(&self, [x, weight]: [[usize; 2]; 2]) -> [usize; 2] {
        assert_eq!(x[1], weight[1], "a projection takes what it is given");
        [x[0], weight[0]]
    }

    fn forward(&self, [x, weight]: [Matrix<'_>; 2]) -> (Vec<f32>, Vec<f32>) {
        let found = match x.rows <= FEW {
            true => {
                let mut found = vec![0.0; x.rows * weight.rows];
                few(x.numbers, weight.numbers, x.columns, &mut found);
                found
            }
            false => multiply(x.into(), View::from(weight).transposed()),
        };
        (found, Vec::new())
    }

    fn backward(
        &self,
        [x, weight]: [Matrix<'_>; 2],
        _kept: &[f32],
        slope: &[f32],
        [by_x, by_weight]: [bool; 2],
    ) -> [Vec<f32>; 2] {
        let slope = View::new(slope, [x.rows, weight.rows], weight.rows);
        let when = |wanted: bool, compute: &dyn Fn() -> Vec<f32>| if wanted { compute() } else { Vec::new() };
        [
            when(by_x, &|| multiply(slope, weight.into())),
            when(by_weight, &|| multiply(slope.transposed(), x.into())),
        ]
    }
}

wide! {
    /// Multiplies a few rows of a length with the rows of a matrix, each of which is read once for
    /// four of them.
    fn few(x: &[f32], weight: &[f32], length: usize, found: &mut [f32]) {
        let rows: usize = x.len() / length;
        let columns: usize = weight.len() / length;
        let row = |number: usize| &x[number * length..(number + 1) * length];
        let mut begin = 0;
        while begin < rows {
            for (column, weight) in weight.chunks_exact(length).enumerate() {
                let mut put = |number: usize, product: f32| found[number * columns + column] = product;
                match rows - begin {
                    1 => put(begin, dots([row(begin)], weight)[0]),
                    2 => {
                        let [a, b] = dots([row(begin), row(begin + 1)], weight);
                        put(begin, a);
                        put(begin + 1, b);
                    }
                    3 => {
                        let [a, b, c] = dots([row(begin), row(begin + 1), row(begin + 2)], weight);
                        put(begin, a);
                        put(begin + 1, b);
                        put(begin + 2, c);
                    }
                    _ => {
                        let four = [row(begin), row(begin + 1), row(begin + 2), row(begin + 3)];
                        let [a, b, c, d] = dots(four, weight);
                        put(begin, a);
                        put(begin + 1, b);
                        put(begin + 2, c);
                        put(begin + 3, d);
                    }
                }
            }
            begin += 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::same;

    #[test]
    fn it_is_a_product_with_the_transpose() {
        for tokens in [1, 2, 3, 4, 7, 8, 9, 40] {
            same([[tokens, 33], [21, 33]], |[x, weight]| linear(x, weight), composed);
        }
    }
}
