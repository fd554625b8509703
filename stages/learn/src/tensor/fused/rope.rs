//! Rotary position embedding: Su et al., 2021, eq. 34, with halves in place of pairs as
//! transformers has it.

use std::sync::Arc;

use burn_tensor::{Device, Tensor, TensorData};
use weights::wide;

use super::operation::{Matrix, Operation, apply};
use crate::tensor::device::is_cpu;
use crate::tensor::precision::matmul_f32;

/// The rotation of the heads of one width.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    /// Radians per position, one per pair of dimensions.
    frequencies: Vec<f64>,
    /// `[head, head]`: what swaps the halves and negates the first.
    swap: Tensor<2>,
}

/// The cosines and sines of the angles of some tokens, `[tokens, half a head]`.
#[derive(Debug)]
pub(crate) struct RotaryTable {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    /// How many pairs of dimensions a head has.
    pub half: usize,
}

impl RotaryTable {
    /// Returns how many tokens there are.
    pub(crate) fn tokens(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// What rotates some tokens.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, and what they hold is megabytes")]
pub(crate) enum Angles {
    /// On the CPU.
    Cpu(Arc<RotaryTable>),
    /// On another device.
    Device {
        /// `[tokens, 1, head]`.
        cos: Tensor<3>,
        /// `[tokens, 1, head]`.
        sin: Tensor<3>,
        /// What swaps halves, `[head, head]`.
        swap: Tensor<2>,
    },
}

impl Rope {
    /// Makes the rotation of heads that are twice as wide as there are frequencies.
    pub(crate) fn new(frequencies: Vec<f64>, device: &Device) -> Self {
        let half = frequencies.len();
        let width = 2 * half;
        let mut swap = vec![0f32; width * width];
        for at in 0..half {
            swap[(at + half) * width + at] = -1.0;
            swap[at * width + at + half] = 1.0;
        }
        let swap = Tensor::from_data(TensorData::new(swap, [width, width]), device);
        Self { frequencies, swap }
    }

    /// Moves it to a device.
    pub(crate) fn move_to(&mut self, device: &Device) {
        self.swap = self.swap.clone().to_device(device);
    }

    /// Returns the cosines and sines of positions, one after the other.
    pub(crate) fn table(&self, positions: &[usize]) -> RotaryTable {
        let half = self.frequencies.len();
        let count = positions.len() * half;
        let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for position in positions {
            for frequency in &self.frequencies {
                // The product in single precision, as transformers computes it.
                let angle = *position as f32 * *frequency as f32;
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        RotaryTable { cos, sin, half }
    }

    /// Returns the angles of positions, one after the other.
    pub(crate) fn angles(&self, positions: &[usize], device: &Device) -> Angles {
        let table = self.table(positions);
        if is_cpu(device) { Angles::Cpu(Arc::new(table)) } else { self.on_device(&table, device) }
    }

    /// Returns angles as devices other than the CPU take them.
    pub(crate) fn on_device(&self, table: &RotaryTable, device: &Device) -> Angles {
        let shape = [table.tokens(), 1, 2 * table.half];
        let twice = |numbers: &[f32]| {
            let both = numbers.chunks_exact(table.half).flat_map(|half| [half, half].concat());
            Tensor::from_data(TensorData::new(both.collect(), shape), device)
        };
        Angles::Device { cos: twice(&table.cos), sin: twice(&table.sin), swap: self.swap.clone() }
    }
}

impl Angles {
    /// Puts them beside a tape.
    pub(crate) fn autodiff(self) -> Self {
        match self {
            Self::Cpu(table) => Self::Cpu(table),
            Self::Device { cos, sin, swap } => {
                Self::Device { cos: cos.autodiff(), sin: sin.autodiff(), swap: swap.autodiff() }
            }
        }
    }

    /// Rotates `[tokens, heads * head]`.
    pub(crate) fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
        let (cos, sin, swap) = match self {
            Self::Cpu(table) => return rotate(x, table),
            Self::Device { cos, sin, swap } => (cos.clone(), sin.clone(), swap.clone()),
        };
        let [tokens, width] = x.dims();
        let [_, _, head] = cos.dims();
        let shape = [tokens, width / head, head];
        // A product with a matrix of 0, 1 and -1 is exact, and one step on the tape.
        let swapped = matmul_f32(x.clone().reshape([tokens * width / head, head]), swap);
        let rotated = x.reshape(shape) * cos + swapped.reshape(shape) * sin;
        rotated.reshape([tokens, width])
    }
}

/// Rotates `[tokens, heads * head]`, each token by its own angles.
fn rotate(x: Tensor<2>, table: &Arc<RotaryTable>) -> Tensor<2> {
    apply(Rotate(table.clone()), [x])
}

#[derive(Debug, Clone)]
struct Rotate(Arc<RotaryTable>);

impl Operation<1> for Rotate {
    fn shape(&self, [x]: [[usize; 2]; 1]) -> [usize; 2] {
        assert_eq!((x[0], x[1] % (2 * self.0.half)), (self.0.tokens(), 0), "each token has its angles");
        x
    }

    fn forward(&self, [x]: [Matrix<'_>; 1]) -> (Vec<f32>, Vec<f32>) {
        let mut output = vec![0.0; x.numbers.len()];
        for head in (0..x.columns).step_by(2 * self.0.half) {
            apply_rope(&x.numbers[head..], x.columns, &self.0, 1.0, &mut output[head..], x.columns);
        }
        (output, Vec::new())
    }

    fn backward(&self, [x]: [Matrix<'_>; 1], _: &[f32], gradient: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut output = vec![0.0; x.numbers.len()];
        for head in (0..x.columns).step_by(2 * self.0.half) {
            apply_rope_inverse(&gradient[head..], x.columns, &self.0, 1.0, &mut output[head..], x.columns);
        }
        [output]
    }
}

/// Rotates the pairs of one head by the angles of their places.
#[inline(always)]
pub(super) fn apply_rope(
    from: &[f32],
    stride: usize,
    table: &RotaryTable,
    scale: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    rotate_all(from, stride, table, 1.0, scale, to, to_stride);
}

/// Rotates them the other way, as the backward pass does.
#[inline(always)]
pub(super) fn apply_rope_inverse(
    from: &[f32],
    stride: usize,
    table: &RotaryTable,
    scale: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    rotate_all(from, stride, table, -1.0, scale, to, to_stride);
}

wide! {
    /// Rotates by the angles, or by their opposites where `direction` is -1.
    fn rotate_all(
        from: &[f32],
        stride: usize,
        table: &RotaryTable,
        direction: f32,
        scale: f32,
        to: &mut [f32],
        to_stride: usize,
    ) {
        let places = from.chunks(stride).zip(to.chunks_mut(to_stride));
        let half = table.half;
        let angles = table.cos.chunks_exact(half).zip(table.sin.chunks_exact(half));
        for ((from, to), (cos, sin)) in places.zip(angles) {
            let ((a, b), (to_a, to_b)) = (from.split_at(half), to.split_at_mut(half));
            for (at, (a, b)) in a.iter().zip(&b[..half]).enumerate() {
                let sin = direction * sin[at];
                to_a[at] = scale * (a * cos[at] - b * sin);
                to_b[at] = scale * (b * cos[at] + a * sin);
            }
        }
    }
}
