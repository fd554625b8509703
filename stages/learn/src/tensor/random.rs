//! Numbers that look random and follow from a seed alone.
//!
//! ChaCha8, whose output is fixed by its specification, so that neither a platform nor a new
//! version of a library moves a result. Every use has a stream of its own: what is drawn for one
//! purpose never shifts what is drawn for another.

use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// What numbers are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first weights of a model.
    Weights = 1,
    /// The first weights of an adapter.
    Adapter = 2,
    /// The order of the rows in an epoch.
    Order = 3,
    /// Which numbers a dropout leaves out.
    Dropout = 4,
    /// The tokens of an output.
    Sampling = 5,
}

/// A stream of random numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// Begins the stream of one purpose, the one of a number.
    pub(crate) fn new(seed: u64, purpose: Purpose, stream: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
        key[16..24].copy_from_slice(&stream.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Draws numbers from the normal distribution around 0.
    pub(crate) fn normal(&mut self, count: usize, std: f32) -> Vec<f32> {
        (0..count).map(|_| self.0.sample::<f32, _>(StandardNormal) * std).collect()
    }

    /// Draws numbers evenly from `-bound` to `bound`.
    pub(crate) fn uniform(&mut self, count: usize, bound: f32) -> Vec<f32> {
        (0..count).map(|_| (self.0.random::<f32>() * 2.0 - 1.0) * bound).collect()
    }

    /// Draws a number evenly from 0 to below 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0.random::<f64>()
    }

    /// Draws 0 with a probability, and else what keeps the mean at 1.
    pub(crate) fn dropout(&mut self, count: usize, probability: f32) -> Vec<f32> {
        let kept = 1.0 / (1.0 - probability);
        (0..count).map(|_| if self.0.random::<f32>() < probability { 0.0 } else { kept }).collect()
    }

    /// Draws an order of `0..count`.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut self.0);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_apart() {
        let draw = |purpose, stream| Random::new(42, purpose, stream).normal(4, 1.0);
        assert_eq!(draw(Purpose::Weights, 0), draw(Purpose::Weights, 0));
        assert_ne!(draw(Purpose::Weights, 0), draw(Purpose::Weights, 1));
        assert_ne!(draw(Purpose::Weights, 0), draw(Purpose::Adapter, 0));
        // Pinned: a library that draws otherwise throws every trained model away.
        assert_eq!(Random::new(42, Purpose::Order, 0).order(8), [1, 5, 7, 6, 0, 2, 3, 4]);
    }

    #[test]
    fn the_numbers_are_distributed_as_they_should_be() {
        let mean = |numbers: &[f32]| numbers.iter().sum::<f32>() / numbers.len() as f32;
        let normal = Random::new(1, Purpose::Weights, 0).normal(20_000, 2.0);
        assert!(mean(&normal).abs() < 0.05);
        let squares: Vec<f32> = normal.iter().map(|number| number * number).collect();
        assert!((mean(&squares) - 4.0).abs() < 0.15);
        let dropout = Random::new(1, Purpose::Dropout, 0).dropout(20_000, 0.25);
        assert!((mean(&dropout) - 1.0).abs() < 0.02);
        assert!(dropout.iter().all(|kept| *kept == 0.0 || *kept == 4.0 / 3.0));
        let uniform = Random::new(1, Purpose::Adapter, 0).uniform(20_000, 0.5);
        assert!(mean(&uniform).abs() < 0.01 && uniform.iter().all(|number| number.abs() <= 0.5));
    }
}
