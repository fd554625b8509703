//! Attention without the matrices of scores ever being whole: Dao et al., 2022, as CPUs like it.
//!
//! Scores are made for a block of queries at a time, from the keys that these may see, and stay in
//! the cache of a core. The backward pass recomputes them from the log-sum-exp of each query,
//! which is all that is kept.

use std::ops::Range;
use std::sync::Arc;

use burn_flex::Flex;
use burn_tensor::activation::softmax;
use burn_tensor::{Device, Tensor, TensorData};
use weights::wide;

use super::gemm::{View, multiply_into};
use super::operation::{Matrix, Operation, all_here, apply, matrix, numbers, tensor};
use super::rope::{Angles, Rope, RotaryTable, apply_rope, apply_rope_inverse};
use super::simd::{dot, largest, sum};
use crate::tensor::device::is_cpu;
use crate::tensor::exponential::exp;
use crate::tensor::precision::Precision;

/// How many queries are processed together.
const BLOCK: usize = 64;

/// Attention of rows that begin at position 0, where a place sees itself and those before, with
/// rotary positions.
#[derive(Debug, Clone)]
pub(crate) struct Causal {
    shape: AttentionShape,
    /// Where it is composed of other operations.
    composed: Option<Composed>,
}

#[derive(Debug, Clone)]
struct AttentionShape {
    rows: usize,
    heads: usize,
    /// How many heads keys and values have: the heads of a group share them.
    keys: usize,
    table: Arc<RotaryTable>,
}

#[derive(Debug, Clone)]
struct Composed {
    angles: Angles,
    /// `[1, 1, group * width, width]`.
    bias: Tensor<4>,
    precision: Precision,
}

impl Causal {
    /// Prepares it for rows of a width.
    pub(crate) fn new(
        rope: &Rope,
        [rows, width]: [usize; 2],
        [heads, keys]: [usize; 2],
        precision: Precision,
        device: &Device,
    ) -> Self {
        let positions: Vec<usize> = (0..width).collect();
        let table = Arc::new(rope.table(&positions));
        let composed =
            (!is_cpu(device)).then(|| Composed::new(rope, [rows, width], heads / keys, precision, device));
        Self { shape: AttentionShape { rows, heads, keys, table }, composed }
    }

    /// Puts it beside a tape.
    pub(crate) fn autodiff(self) -> Self {
        let composed = self.composed.map(|Composed { angles, bias, precision }| Composed {
            angles: angles.autodiff(),
            bias: bias.autodiff(),
            precision,
        });
        Self { composed, ..self }
    }
}

/// Attends: queries `[rows * width, heads * head]` to keys and values `[rows * width, keys * head]`,
/// none of them rotated yet.
pub(crate) fn causal_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, causal: &Causal) -> Tensor<2> {
    match &causal.composed {
        None => {
            debug_assert!(all_here(&[&q, &k, &v]));
            apply(causal.shape.clone(), [q, k, v])
        }
        Some(parts) => composed([q, k, v], &causal.shape, parts),
    }
}

impl Composed {
    fn new(
        rope: &Rope,
        [rows, width]: [usize; 2],
        group: usize,
        precision: Precision,
        device: &Device,
    ) -> Self {
        let positions: Vec<usize> = (0..rows).flat_map(|_| 0..width).collect();
        let mut bias = Vec::with_capacity(group * width * width);
        for _ in 0..group {
            for query in 0..width {
                // Every query sees something, so what is hidden can be infinite, whose exponential
                // is cheaper.
                bias.extend((0..width).map(|key| if key <= query { 0.0 } else { f32::NEG_INFINITY }));
            }
        }
        Self {
            angles: rope.on_device(&rope.table(&positions), device),
            bias: Tensor::from_data(TensorData::new(bias, [1, 1, group * width, width]), device),
            precision,
        }
    }
}

fn composed([q, k, v]: [Tensor<2>; 3], shape: &AttentionShape, parts: &Composed) -> Tensor<2> {
    let split = |x: Tensor<2>, heads: usize| {
        let [tokens, wide] = x.dims();
        x.reshape([shape.rows, tokens / shape.rows, heads, wide / heads]).swap_dims(1, 2)
    };
    let (q, k) = (parts.angles.rotate(q), parts.angles.rotate(k));
    let (q, k, v) = (split(q, shape.heads), split(k, shape.keys), split(v, shape.keys));
    attend(q, k, v, parts.bias.clone(), parts.precision)
}

/// Attention of `[rows, heads, width, head]` over `[rows, keys, seen, head]`, as
/// `[rows * width, heads * head]`. The bias is broadcast over rows and keys' heads. On the CPU it
/// is computed in f32.
pub(crate) fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    precision: Precision,
) -> Tensor<2> {
    let precision = if is_cpu(&q.device()) { Precision::F32 } else { precision };
    let [rows, heads, width, head] = q.dims();
    let [_, keys, _, _] = k.dims();
    // The queries of a group lie behind one another and share their keys.
    let q = q.mul_scalar((head as f64).powf(-0.5)).reshape([rows, keys, heads / keys * width, head]);
    let weights = softmax(precision.matmul(q, k.swap_dims(2, 3)) + bias, 3);
    let seen = precision.matmul(weights, v).reshape([rows, heads, width, head]);
    seen.swap_dims(1, 2).reshape([rows * width, heads * head])
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.table.tokens()
    }

    fn head(&self) -> usize {
        2 * self.table.half
    }

    fn scale(&self) -> f32 {
        (self.head() as f32).sqrt().recip()
    }

    /// Returns the numbers of one row and one head.
    fn slice<'a>(&self, x: &'a [f32], heads: usize, row: usize, head: usize) -> (&'a [f32], usize) {
        let stride = heads * self.head();
        (&x[row * self.width() * stride + head * self.head()..], stride)
    }

    fn slice_mut<'a>(
        &self,
        x: &'a mut [f32],
        heads: usize,
        row: usize,
        head: usize,
    ) -> (&'a mut [f32], usize) {
        let stride = heads * self.head();
        (&mut x[row * self.width() * stride + head * self.head()..], stride)
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = self.width();
        (0..width).step_by(BLOCK).map(move |begin| begin..(begin + BLOCK).min(width))
    }
}

/// Keeps the log-sum-exp of each query's scores, `[rows, heads, width]`.
impl Operation<3> for AttentionShape {
    fn shape(&self, [q, k, v]: [[usize; 2]; 3]) -> [usize; 2] {
        let tokens = self.rows * self.width();
        assert_eq!(q, [tokens, self.heads * self.head()]);
        assert_eq!([k, v], [[tokens, self.keys * self.head()]; 2]);
        q
    }

    fn forward(&self, [q, k, v]: [Matrix<'_>; 3]) -> (Vec<f32>, Vec<f32>) {
        let (width, head, group) = (self.width(), self.head(), self.heads / self.keys);
        let mut output = vec![0.0; q.numbers.len()];
        let mut log_sum_exps = vec![0.0; self.rows * self.heads * width];
        let (mut rotated_q, mut rotated_k) = (vec![0.0; width * head], vec![0.0; width * head]);
        let mut scores = vec![0.0; BLOCK.min(width) * width];
        for row in 0..self.rows {
            for key in 0..self.keys {
                let (k, stride) = self.slice(k.numbers, self.keys, row, key);
                apply_rope(k, stride, &self.table, 1.0, &mut rotated_k, head);
                let (v, v_stride) = self.slice(v.numbers, self.keys, row, key);
                for number in key * group..(key + 1) * group {
                    let (q, stride) = self.slice(q.numbers, self.heads, row, number);
                    apply_rope(q, stride, &self.table, self.scale(), &mut rotated_q, head);
                    let (into, into_stride) = self.slice_mut(&mut output, self.heads, row, number);
                    let log_sum_exps = &mut log_sum_exps[(row * self.heads + number) * width..][..width];
                    for block in self.blocks() {
                        let (count, seen) = (block.len(), block.end);
                        let queries = View::new(&rotated_q[block.start * head..], [count, head], head);
                        let keys = View::new(&rotated_k, [seen, head], head);
                        let scores = &mut scores[..count * seen];
                        multiply_into(queries, keys.transposed(), scores, seen, false);
                        masked_softmax(scores, seen, block.start, &mut log_sum_exps[block.clone()]);
                        let values = View::new(v, [seen, head], v_stride);
                        let scores = View::new(scores, [count, seen], seen);
                        let into = &mut into[block.start * into_stride..];
                        multiply_into(scores, values, into, into_stride, false);
                    }
                }
            }
        }
        (output, log_sum_exps)
    }

    fn backward(
        &self,
        [q, k, v]: [Matrix<'_>; 3],
        log_sum_exps: &[f32],
        gradient: &[f32],
        _wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let (width, head, group) = (self.width(), self.head(), self.heads / self.keys);
        let mut grad_q = vec![0.0; q.numbers.len()];
        let (mut grad_k, mut grad_v) = (vec![0.0; k.numbers.len()], vec![0.0; v.numbers.len()]);
        let scratch = || vec![0.0; width * head];
        let (mut rotated_q, mut rotated_k) = (scratch(), scratch());
        let (mut grad_rotated_q, mut grad_rotated_k, mut grad_values) = (scratch(), scratch(), scratch());
        let mut scores = vec![0.0; BLOCK.min(width) * width];
        let mut grad_scores = scores.clone();
        for row in 0..self.rows {
            for key in 0..self.keys {
                let (k, stride) = self.slice(k.numbers, self.keys, row, key);
                apply_rope(k, stride, &self.table, 1.0, &mut rotated_k, head);
                let (v, v_stride) = self.slice(v.numbers, self.keys, row, key);
                grad_rotated_k.fill(0.0);
                grad_values.fill(0.0);
                for number in key * group..(key + 1) * group {
                    let (q, stride) = self.slice(q.numbers, self.heads, row, number);
                    apply_rope(q, stride, &self.table, self.scale(), &mut rotated_q, head);
                    let (gradient, gradient_stride) = self.slice(gradient, self.heads, row, number);
                    let log_sum_exps = &log_sum_exps[(row * self.heads + number) * width..][..width];
                    for block in self.blocks() {
                        let (count, seen) = (block.len(), block.end);
                        let shape = [count, seen];
                        let queries = View::new(&rotated_q[block.start * head..], [count, head], head);
                        let keys = View::new(&rotated_k, [seen, head], head);
                        let values = View::new(v, [seen, head], v_stride);
                        let gradient = View::new(
                            &gradient[block.start * gradient_stride..],
                            [count, head],
                            gradient_stride,
                        );
                        let scores = &mut scores[..count * seen];
                        multiply_into(queries, keys.transposed(), scores, seen, false);
                        masked_softmax_again(scores, seen, block.start, &log_sum_exps[block.clone()]);
                        let weights = View::new(scores, shape, seen);
                        multiply_into(weights.transposed(), gradient, &mut grad_values, head, true);
                        let grad_scores = &mut grad_scores[..count * seen];
                        multiply_into(gradient, values.transposed(), grad_scores, seen, false);
                        backward_into(scores, grad_scores, seen, block.start);
                        let grad_scores = View::new(grad_scores, shape, seen);
                        let grad_queries = &mut grad_rotated_q[block.start * head..];
                        multiply_into(grad_scores, keys, grad_queries, head, false);
                        multiply_into(grad_scores.transposed(), queries, &mut grad_rotated_k, head, true);
                    }
                    let (into, stride) = self.slice_mut(&mut grad_q, self.heads, row, number);
                    apply_rope_inverse(&grad_rotated_q, head, &self.table, self.scale(), into, stride);
                }
                let (into, stride) = self.slice_mut(&mut grad_k, self.keys, row, key);
                apply_rope_inverse(&grad_rotated_k, head, &self.table, 1.0, into, stride);
                let (into, stride) = self.slice_mut(&mut grad_v, self.keys, row, key);
                for (into, from) in into.chunks_mut(stride).zip(grad_values.chunks_exact(head)) {
                    into[..head].copy_from_slice(from);
                }
            }
        }
        [grad_q, grad_k, grad_v]
    }
}

/// What weighs less than e^-60 of the largest weighs nothing, and no number so small that
/// processors compute slowly with it ever appears.
#[inline(always)]
fn weight(x: f32) -> f32 {
    if x < -60.0 { 0.0 } else { exp(x) }
}

wide! {
    /// Turns rows of scores into weights that add up to 1; the first row is of query `first`, and
    /// each sees the keys up to its own.
    fn masked_softmax(scores: &mut [f32], width: usize, first: usize, log_sum_exps: &mut [f32]) {
        for (place, (scores, log_sum_exp)) in scores.chunks_exact_mut(width).zip(log_sum_exps).enumerate() {
            let (seen, hidden) = scores.split_at_mut(first + place + 1);
            let most = largest(seen);
            for score in &mut *seen {
                *score = weight(*score - most);
            }
            let sum = sum(seen);
            for weight in &mut *seen {
                *weight /= sum;
            }
            *log_sum_exp = most + sum.ln();
            hidden.fill(0.0);
        }
    }
}

wide! {
    /// The same, where the log-sum-exps are known.
    fn masked_softmax_again(scores: &mut [f32], width: usize, first: usize, log_sum_exps: &[f32]) {
        for (place, (scores, log_sum_exp)) in scores.chunks_exact_mut(width).zip(log_sum_exps).enumerate() {
            let (seen, hidden) = scores.split_at_mut(first + place + 1);
            for score in seen {
                *score = weight(*score - log_sum_exp);
            }
            hidden.fill(0.0);
        }
    }
}

wide! {
    /// Turns the gradients of the weights into those of the scores.
    fn backward_into(weights: &[f32], by: &mut [f32], width: usize, first: usize) {
        for (place, (weights, by)) in weights.chunks_exact(width).zip(by.chunks_exact_mut(width)).enumerate() {
            let (by, hidden) = by.split_at_mut(first + place + 1);
            let weights = &weights[..by.len()];
            let mean = dot(weights, by);
            for (by, weight) in by.iter_mut().zip(weights) {
                *by = weight * (*by - mean);
            }
            hidden.fill(0.0);
        }
    }
}

/// One new place of each row, which looks at some of the row's places.
#[derive(Debug, Clone)]
pub(crate) struct SingleQuery {
    /// The places that each row looks at.
    pub seen: Vec<Range<usize>>,
    /// What scores are multiplied with.
    pub scale: f32,
    /// What is added to them, `[heads, places]`, if anything is.
    pub bias: Option<Vec<f32>>,
}

/// Attention of one query in each row, `[rows, heads * head]`, over keys and values of which there
/// is room for more, `[rows, keys, room, head]`. On the CPU only, and not on a tape.
pub(crate) fn single_query_attention(
    q: Tensor<2>,
    keys: Tensor<4>,
    values: Tensor<4>,
    step: &SingleQuery,
) -> Tensor<2> {
    let [rows, wide] = q.dims();
    let [_, groups, room, head] = keys.dims();
    let flat = |x: Tensor<4>| numbers(x.reshape([rows * groups * room, head]));
    let (q, keys, values) = (numbers(q), flat(keys), flat(values));
    let (q, keys, values) = (matrix(&q).numbers, matrix(&keys).numbers, matrix(&values).numbers);
    let heads = wide / head;
    let mut output = vec![0.0; rows * wide];
    let mut scores = vec![0.0; room];
    let queries = q.chunks_exact(head).zip(output.chunks_exact_mut(head)).enumerate();
    for (number, (query, output)) in queries {
        let (row, number) = (number / heads, number % heads);
        let seen = step.seen[row].clone();
        let begin = ((row * groups + number / (heads / groups)) * room + seen.start) * head;
        let places = begin..begin + seen.len() * head;
        let bias = step.bias.as_deref().map(|bias| {
            let places = bias.len() / heads;
            &bias[number * places..][seen.clone()]
        });
        let (keys, values) = (&keys[places.clone()], &values[places]);
        attend_one(query, keys, values, step.scale, bias.unwrap_or(&[]), &mut scores[..seen.len()], output);
    }
    Tensor::from_primitive::<Flex>(tensor(output, [rows, wide]))
}

wide! {
    /// Adds values up by how well their keys fit a query.
    fn attend_one(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        bias: &[f32],
        scores: &mut [f32],
        output: &mut [f32],
    ) {
        let head = query.len();
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head)) {
            *score = dot(query, key) * scale;
        }
        for (score, bias) in scores.iter_mut().zip(bias) {
            *score += bias;
        }
        let most = largest(scores);
        for score in &mut *scores {
            *score = weight(*score - most);
        }
        let sum = sum(scores);
        for (weight, value) in scores.iter().zip(values.chunks_exact(head)) {
            let weight = weight / sum;
            for (output, value) in output.iter_mut().zip(value) {
                *output += weight * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fused::operation::same;

    fn frequencies(half: usize) -> Vec<f64> {
        (0..half).map(|pair| 100f64.powf(-(pair as f64) / half as f64)).collect()
    }

    #[test]
    fn it_is_what_it_is_composed_of() {
        let device = Device::flex();
        for (rows, width, heads, keys) in [(1, 1, 1, 1), (2, 5, 2, 2), (2, 70, 4, 2), (1, 130, 3, 1)] {
            let half = 3;
            let rope = Rope::new(frequencies(half), &device);
            let causal = Causal::new(&rope, [rows, width], [heads, keys], Precision::F32, &device);
            let parts = Composed::new(&rope, [rows, width], heads / keys, Precision::F32, &device);
            let beside = Composed {
                angles: parts.angles.clone().autodiff(),
                bias: parts.bias.clone().autodiff(),
                precision: Precision::F32,
            };
            let (tokens, head) = (rows * width, 2 * half);
            let shape = [[tokens, heads * head], [tokens, keys * head], [tokens, keys * head]];
            same(
                shape,
                |[q, k, v]| causal_attention(q, k, v, &causal),
                |inputs| {
                    let parts = if inputs[0].is_autodiff() { &beside } else { &parts };
                    composed(inputs, &causal.shape, parts)
                },
            );
        }
    }

    #[test]
    fn far_scores_weigh_nothing() {
        let mut scores = vec![0.0, 500.0, -90.0, 500.0];
        let mut log_sum_exps = vec![0.0];
        masked_softmax(&mut scores, 4, 3, &mut log_sum_exps);
        assert_eq!(scores, [0.0, 0.5, 0.0, 0.5]);
        assert!((log_sum_exps[0] - 500.693_15).abs() < 1e-3);
    }

    #[test]
    fn a_step_sees_what_the_last_query_of_a_whole_row_sees() {
        let device = Device::flex();
        let (rows, places, heads, keys, head) = (2, 9, 4, 2, 6);
        let spread = burn_tensor::Distribution::Normal(0.0, 1.0);
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, spread, &device);
        let q = random([rows, heads, 1, head]);
        let (k, v) = (random([rows, keys, places, head]), random([rows, keys, places, head]));
        // The first row sees all places, the second all but the first two.
        let hidden = |row: usize, place: usize| if row == 1 && place < 2 { f32::NEG_INFINITY } else { 0.0 };
        let bias: Vec<f32> = (0..rows)
            .flat_map(|row| {
                (0..heads / keys).flat_map(move |_| (0..places).map(move |place| hidden(row, place)))
            })
            .collect();
        let bias = Tensor::from_data(TensorData::new(bias, [rows, 1, heads / keys, places]), &device);
        let expected = attend(q.clone(), k.clone(), v.clone(), bias, Precision::F32);
        let step =
            SingleQuery { seen: vec![0..places, 2..places], scale: (head as f32).powf(-0.5), bias: None };
        let more = |x: Tensor<4>| Tensor::cat(vec![x, Tensor::zeros([rows, keys, 3, head], &device)], 2);
        let output = single_query_attention(q.reshape([rows, heads * head]), more(k), more(v), &step);
        let difference = (output - expected).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
    }
}
