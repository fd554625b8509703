//! DARE: Yu et al., 2024, eq. 2-4: each number of a task vector is dropped with probability
//! 1 - p, and what is left divided by p; then the task vectors are joined.
//!
//! `density` is p; it has no default, as in the paper. `join = "sum"` (mergekit's `dare_linear`,
//! the paper with task arithmetic) or `"ties"` (`dare_ties`: signs are elected, no trimming).
//! Which numbers are dropped follows from `seed`, the names of the model and of the tensor, and
//! the place in it: not from the order of anything, nor from the other numbers.
//!
//! Departs from mergekit 0.1.5: it rescales so that each tensor keeps its sum of magnitudes; here
//! it is by 1/p, as in the paper. Its random numbers are torch's, so no result is the same.

use super::ties::{Join as Joining, Rule};
use super::{Density, Intermediates, Merge, PerTensor, at_least};
use crate::error::MergeError;
use crate::merge::{Tensors, Weighing};
use crate::operands::Piece;
use crate::verbs::{add, subtract, sum, weigh};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when the same parameters give other numbers.
pub const VERSION: u32 = 1;

/// Task vectors of which a random part is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dare {
    /// The share of each task vector that is kept.
    density: Density,
    /// Which numbers are dropped follows from it.
    #[serde(default)]
    seed: u64,
    /// What happens to what is left.
    #[serde(default)]
    join: Join,
    /// What the sum or the mean is multiplied with.
    #[serde(default = "super::one")]
    lambda: f64,
}

/// What happens to what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Join {
    /// It is weighted and added up.
    #[default]
    Sum,
    /// Signs are elected as in TIES, and the weighted mean is taken.
    Ties,
}

impl Merge for Dare {
    fn needs_base(&self) -> bool {
        true
    }

    fn readings(&self) -> u64 {
        1
    }

    fn check(&self, models: &[&str], _: Weighing) -> Result<(), String> {
        self.density.check(models)?;
        at_least(1, models)
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let weighing = tensors.weighing();
        let lambda = self.lambda;
        Ok(Box::new(move |tensor| {
            let densities = self.density.at(tensor);
            let mut drops: Vec<Drops> = tensor
                .labels()
                .iter()
                .zip(densities)
                .map(|(model, density)| Drops::new(self.seed, [model, &tensor.place.name], density))
                .collect();
            let shares = match weighing {
                Weighing::Ratio => tensor.shares(),
                Weighing::AsIs => tensor.weights.clone(),
            };
            let joining =
                Joining { rule: Rule::Mergekit, weighing, lambda, intermediates: Intermediates::F32 };
            let mut elect = joining.of(&tensor.weights);
            Ok(Box::new(move |piece, out| {
                let Piece { base, models } = &mut *piece;
                for (model, drops) in models.iter_mut().zip(&mut drops) {
                    subtract(model, base, |value| value);
                    drops.apply(model);
                }
                match self.join {
                    Join::Sum => {
                        for (model, share) in models.iter_mut().zip(&shares) {
                            weigh(model, *share as f32, |value| value);
                        }
                        sum(models, out);
                        weigh(out, lambda as f32, |value| value);
                        add(out, base, |value| value);
                    }
                    Join::Ties => elect(piece, out),
                }
            }))
        }))
    }
}

/// Drops numbers of one tensor of one model, in order.
struct Drops {
    key: u64,
    next: u64,
    keep_below: u64,
    scale: f32,
}

impl Drops {
    fn new(seed: u64, names: [&str; 2], density: f64) -> Self {
        // FNV-1a over what names the tensor, each name with an end.
        let bytes = names.iter().flat_map(|name| name.bytes().chain([0xff]));
        let key = seed.to_le_bytes().into_iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // In 32 bits, of which 2³² itself keeps all.
        let keep_below = (density * (1u64 << 32) as f64).round() as u64;
        Self { key, next: 0, keep_below, scale: (1.0 / density) as f32 }
    }

    fn apply(&mut self, values: &mut [f32]) {
        for value in values {
            let is_kept = mix(self.key.wrapping_add(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 32
                < self.keep_below;
            *value = if is_kept { *value * self.scale } else { 0.0 };
            self.next += 1;
        }
    }
}

/// The end of splitmix64: Steele et al., 2014.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_scaled_and_does_not_depend_on_cuts() {
        let whole = |seed, names, at: usize| {
            let mut values = vec![1.0; 100_000];
            let mut drops = Drops::new(seed, names, 0.2);
            drops.apply(&mut values[..at]);
            drops.apply(&mut values[at..]);
            values
        };
        let values = whole(1, ["a", "t"], 0);
        let kept = values.iter().filter(|value| **value == 5.0).count();
        assert!((19_500..20_500).contains(&kept), "{kept}");
        assert_eq!(kept + values.iter().filter(|value| **value == 0.0).count(), values.len());
        assert_eq!(values, whole(1, ["a", "t"], 777));
        for (seed, names) in [(2, ["a", "t"]), (1, ["b", "t"]), (1, ["a", "u"]), (1, ["at", ""])] {
            let same =
                values.iter().zip(whole(seed, names, 0)).filter(|(one, other)| **one == *other).count();
            // What is dropped or kept in both by chance: 0.68.
            assert!((67_000..69_000).contains(&same), "{seed} {names:?} {same}");
        }
        let mut all = vec![3.0; 9];
        Drops::new(0, ["a", "t"], 1.0).apply(&mut all);
        assert_eq!(all, [3.0; 9]);
    }
}
