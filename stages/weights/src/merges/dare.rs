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

use super::common::{ComputeDtype, Density, Merge, PerTensor, at_least};
use super::ties::{Join as Joining, Rule};
use crate::error::MergeError;
use crate::expert::Normalization;
use crate::operands::Piece;
use crate::ops::{add, scale, subtract, sum};
use crate::tensors::Tensors;
use crate::wide::wide;
use choice::FieldError;
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
    #[serde(default = "super::common::default_lambda")]
    lambda: f64,
}

/// What happens to what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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

    fn passes(&self) -> u64 {
        1
    }

    fn check(&self, models: &[&str], _: Normalization) -> Result<(), FieldError> {
        self.density.check(models)?;
        at_least(1, models)
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let normalization = tensors.normalization();
        let lambda = self.lambda;
        Ok(Box::new(move |tensor| {
            let densities = self.density.at(tensor);
            let mut drops: Vec<DropMask> = tensor
                .labels()
                .iter()
                .zip(densities)
                .map(|(model, density)| DropMask::new(self.seed, [model, &tensor.place.name], density))
                .collect();
            let shares = match normalization {
                Normalization::SumToOne => tensor.shares(),
                Normalization::None => tensor.weights.clone(),
            };
            let joining =
                Joining { rule: Rule::Mergekit, normalization, lambda, compute_dtype: ComputeDtype::F32 };
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
                            scale(model, *share as f32, |value| value);
                        }
                        sum(models, out);
                        scale(out, lambda as f32, |value| value);
                        add(out, base, |value| value);
                    }
                    Join::Ties => elect(piece, out),
                }
            }))
        }))
    }
}

/// Drops numbers of one tensor of one model, in order.
struct DropMask {
    key: u64,
    next: u64,
    keep_below: u64,
    scale: f32,
}

impl DropMask {
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
        let mut rest = values;
        while !rest.is_empty() {
            // What is above 32 bits of the place is the same for all of these.
            let room = (1 << 32) - (self.next & 0xffff_ffff);
            let (here, behind) = rest.split_at_mut(rest.len().min(room as usize));
            let keys = [self.key as u32, (self.key >> 32) as u32 ^ (self.next >> 32) as u32];
            if let Ok(keep_below) = u32::try_from(self.keep_below) {
                drop_some(here, keys, self.next as u32, keep_below);
            }
            scale(here, self.scale, |value| value);
            self.next += here.len() as u64;
            rest = behind;
        }
    }
}

wide! {
    fn drop_some(values: &mut [f32], keys: [u32; 2], start: u32, keep_below: u32) {
        for (at, value) in values.iter_mut().enumerate() {
            let random = mix(mix(start.wrapping_add(at as u32) ^ keys[0]).wrapping_add(keys[1]));
            let mask = if random < keep_below { u32::MAX } else { 0 };
            *value = f32::from_bits(value.to_bits() & mask);
        }
    }
}

/// The end of MurmurHash3: Appleby, 2011.
#[inline(always)]
fn mix(state: u32) -> u32 {
    let state = (state ^ (state >> 16)).wrapping_mul(0x85eb_ca6b);
    let state = (state ^ (state >> 13)).wrapping_mul(0xc2b2_ae35);
    state ^ (state >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_scaled_and_does_not_depend_on_cuts() {
        let whole = |seed, names, at: usize| {
            let mut values = vec![1.0; 100_000];
            let mut drops = DropMask::new(seed, names, 0.2);
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
        DropMask::new(0, ["a", "t"], 1.0).apply(&mut all);
        assert_eq!(all, [3.0; 9]);
    }
}
