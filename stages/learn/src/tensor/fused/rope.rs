//! Rotary position embedding: Su et al., 2021, eq. 34, with halves in place of pairs as
//! transformers has it.

use std::sync::Arc;

use burn_tensor::{Device, Tensor, TensorData};
use weights::wide;

use super::operation::{Matrix, Operation, apply};
use crate::tensor::device::is_cpu;

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
pub(crate) struct Turns {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    /// How many pairs of dimensions a head has.
    pub half: usize,
}

impl Turns {
    /// Returns how many tokens there are.
    pub fn tokens(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// What turns some tokens.
#[derive(Debug, Clone)]
// There is one for all layers, and what it holds is megabytes.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Angles {
    /// On the CPU.
    Here(Arc<Turns>),
    /// On another device.
    Elsewhere {
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
    pub fn new(frequencies: Vec<f64>, device: &Device) -> Self {
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
    pub fn move_to(&mut self, device: &Device) {
        self.swap = self.swap.clone().to_device(device);
    }

    /// Returns the cosines and sines of positions, one after the other.
    pub fn turns(&self, positions: &[usize]) -> Turns {
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
        Turns { cos, sin, half }
    }

    /// Returns the angles of positions, one after the other.
    pub fn angles(&self, positions: &[usize], device: &Device) -> Angles {
        let turns = self.turns(positions);
        if is_cpu(device) { Angles::Here(Arc::new(turns)) } else { self.elsewhere(&turns, device) }
    }

    /// Returns angles as devices other than the CPU take them.
    pub fn elsewhere(&self, turns: &Turns, device: &Device) -> Angles {
        let shape = [turns.tokens(), 1, 2 * turns.half];
        let twice = |numbers: &[f32]| {
            let both = numbers.chunks_exact(turns.half).flat_map(|half| [half, half].concat());
            Tensor::from_data(TensorData::new(both.collect(), shape), device)
        };
        Angles::Elsewhere { cos: twice(&turns.cos), sin: twice(&turns.sin), swap: self.swap.clone() }
    }
}

impl Angles {
    /// Puts them beside a tape.
    pub fn autodiff(self) -> Self {
        match self {
            Self::Here(turns) => Self::Here(turns),
            Self::Elsewhere { cos, sin, swap } => {
                Self::Elsewhere { cos: cos.autodiff(), sin: sin.autodiff(), swap: swap.autodiff() }
            }
        }
    }

    /// Rotates `[tokens, heads * head]`.
    pub fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
        let (cos, sin, swap) = match self {
            Self::Here(turns) => return rotate(x, turns),
            Self::Elsewhere { cos, sin, swap } => (cos.clone(), sin.clone(), swap.clone()),
        };
        let [tokens, width] = x.dims();
        let [_, _, head] = cos.dims();
        let shape = [tokens, width / head, head];
        // A product with a matrix of 0, 1 and -1 is exact, and one step on the tape.
        let swapped = x.clone().reshape([tokens * width / head, head]).matmul(swap);
        let rotated = x.reshape(shape) * cos + swapped.reshape(shape) * sin;
        rotated.reshape([tokens, width])
    }
}

/// Turns `[tokens, heads * head]`, each token by its own angles.
fn rotate(x: Tensor<2>, turns: &Arc<Turns>) -> Tensor<2> {
    apply(Rotate(turns.clone()), [x])
}

#[derive(Debug, Clone)]
struct Rotate(Arc<Turns>);

impl Operation<1> for Rotate {
    fn shape(&self, [x]: [[usize; 2]; 1]) -> [usize; 2] {
        assert_eq!((x[0], x[1] % (2 * self.0.half)), (self.0.tokens(), 0), "each token has its angles");
        x
    }

    fn forward(&self, [x]: [Matrix<'_>; 1]) -> (Vec<f32>, Vec<f32>) {
        let mut found = vec![0.0; x.numbers.len()];
        for head in (0..x.columns).step_by(2 * self.0.half) {
            turn(&x.numbers[head..], x.columns, &self.0, 1.0, &mut found[head..], x.columns);
        }
        (found, Vec::new())
    }

    fn backward(&self, [x]: [Matrix<'_>; 1], _: &[f32], slope: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut found = vec![0.0; x.numbers.len()];
        for head in (0..x.columns).step_by(2 * self.0.half) {
            turn_back(&slope[head..], x.columns, &self.0, 1.0, &mut found[head..], x.columns);
        }
        [found]
    }
}

/// Turns the pairs of one head by the angles of their places.
#[inline(always)]
pub(super) fn turn(from: &[f32], stride: usize, turns: &Turns, scale: f32, to: &mut [f32], to_stride: usize) {
    turn_all(from, stride, turns, 1.0, scale, to, to_stride);
}

/// Turns them the other way, which is how derivatives go.
#[inline(always)]
pub(super) fn turn_back(
    from: &[f32],
    stride: usize,
    turns: &Turns,
    scale: f32,
    to: &mut [f32],
    to_stride: usize,
) {
    turn_all(from, stride, turns, -1.0, scale, to, to_stride);
}

wide! {
    /// Turns by the angles, or by their opposites where `way` is -1.
    fn turn_all(
        from: &[f32],
        stride: usize,
        turns: &Turns,
        way: f32,
        scale: f32,
        to: &mut [f32],
        to_stride: usize,
    ) {
        let places = from.chunks(stride).zip(to.chunks_mut(to_stride));
        let half = turns.half;
        let angles = turns.cos.chunks_exact(half).zip(turns.sin.chunks_exact(half));
        for ((from, to), (cos, sin)) in places.zip(angles) {
            let ((a, b), (to_a, to_b)) = (from.split_at(half), to.split_at_mut(half));
            for (at, (a, b)) in a.iter().zip(&b[..half]).enumerate() {
                let sin = way * sin[at];
                to_a[at] = scale * (a * cos[at] - b * sin);
                to_b[at] = scale * (b * cos[at] + a * sin);
            }
        }
    }
}
