//! The operations that methods of merging are composed of: pure functions over slices.
//!
//! A task vector is the difference between a fine-tuned model and its base. Where a function takes
//! `round`, it is applied to every intermediate result: the identity keeps f32.

use crate::magnitudes::Cut;
use crate::wide::wide;

wide! {
    /// Turns a model into its task vector.
    pub(crate) fn subtract(model: &mut [f32], base: &[f32], round: impl Fn(f32) -> f32) {
        for (value, base) in model.iter_mut().zip(base) {
            *value = round(*value - base);
        }
    }
}

wide! {
    /// Multiplies by a weight.
    pub(crate) fn scale(deltas: &mut [f32], weight: f32, round: impl Fn(f32) -> f32) {
        for delta in deltas {
            *delta = round(*delta * weight);
        }
    }
}

/// Keeps the largest by magnitude and sets the rest to zero.
pub(crate) fn trim(deltas: &mut [f32], cut: &mut Cut) {
    cut.apply(deltas);
}

wide! {
    /// Writes the sum over models.
    pub(crate) fn sum(models: &[Vec<f32>], out: &mut [f32]) {
        out.fill(0.0);
        for model in models {
            for (sum, value) in out.iter_mut().zip(model) {
                *sum += value;
            }
        }
    }
}

wide! {
    /// Writes the elected sign of each number, 1 or -1: the sign of the sum over models. 0 counts as
    /// positive.
    pub(crate) fn elect_sign(deltas: &[Vec<f32>], signs: &mut [f32]) {
        sum(deltas, signs);
        for sign in signs {
            *sign = if *sign >= 0.0 { 1.0 } else { -1.0 };
        }
    }
}

wide! {
    /// Writes the sum over the models whose sign was elected; `weights` receives the sum of their
    /// weights, or 1 where there is none.
    pub(crate) fn disjoint_sum(
        deltas: &[Vec<f32>],
        shares: &[f32],
        signs: &[f32],
        out: &mut [f32],
        weights: &mut [f32],
    ) {
        out.fill(0.0);
        weights.fill(0.0);
        let count = out.len();
        let (out, weights, signs) = (&mut out[..count], &mut weights[..count], &signs[..count]);
        for (deltas, share) in deltas.iter().zip(shares) {
            let deltas = &deltas[..count];
            for at in 0..count {
                // All bits or none in place of a branch, which would be taken by chance.
                let mask = if deltas[at] * signs[at] > 0.0 { u32::MAX } else { 0 };
                out[at] += f32::from_bits(deltas[at].to_bits() & mask);
                weights[at] += f32::from_bits(share.to_bits() & mask);
            }
        }
        for weight in weights {
            *weight = if *weight == 0.0 { 1.0 } else { *weight };
        }
    }
}

wide! {
    /// Where signs differ between models, keeps the numbers with the sign of the largest magnitude,
    /// and sets the others to zero. If the largest magnitudes of both signs are equal, none is kept.
    pub(crate) fn magnitude_consensus(deltas: &mut [Vec<f32>], up: &mut [f32], down: &mut [f32]) {
        up.fill(0.0);
        down.fill(0.0);
        for deltas in &*deltas {
            for ((up, down), delta) in up.iter_mut().zip(&mut *down).zip(deltas) {
                *up = up.max(*delta);
                *down = down.max(-delta);
            }
        }
        for deltas in deltas {
            for ((delta, up), down) in deltas.iter_mut().zip(&*up).zip(&*down) {
                *delta = if *delta * (up - down) > 0.0 { *delta } else { 0.0 };
            }
        }
    }
}

wide! {
    /// Writes the sum of weighted models, added up in f64 and rounded once.
    pub(crate) fn interpolate(models: &[Vec<f32>], weights: &[f64], out: &mut [f32]) {
        match (models, weights) {
            // Most merges are of two models.
            ([one, other], [one_weight, other_weight]) => {
                for ((out, one), other) in out.iter_mut().zip(one).zip(other) {
                    *out = (f64::from(*one) * one_weight + f64::from(*other) * other_weight) as f32;
                }
            }
            _ => {
                for (at, out) in out.iter_mut().enumerate() {
                    let weighted =
                        models.iter().zip(weights).map(|(model, weight)| f64::from(model[at]) * weight);
                    *out = weighted.sum::<f64>() as f32;
                }
            }
        }
    }
}

wide! {
    /// Divides element by element.
    pub(crate) fn divide(values: &mut [f32], divisors: &[f32], round: impl Fn(f32) -> f32) {
        for (value, divisor) in values.iter_mut().zip(divisors) {
            *value = round(round(*value) / round(*divisor));
        }
    }
}

wide! {
    /// Adds the base.
    pub(crate) fn add(out: &mut [f32], base: &[f32], round: impl Fn(f32) -> f32) {
        for (value, base) in out.iter_mut().zip(base) {
            *value = round(base + *value);
        }
    }
}

/// The sums that give the angle between two vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Angle {
    /// The squared norm of the first.
    pub first: f64,
    /// The squared norm of the second.
    pub second: f64,
    /// Their dot product.
    pub dot: f64,
}

impl Angle {
    /// Adds a piece of the two vectors, in f64, always in the same order.
    pub(crate) fn update(&mut self, first: &[f32], second: &[f32]) {
        let [first, second, dot] = dot_products(first, second);
        self.add(&Self { first, second, dot });
    }

    /// Adds the sums of another piece.
    pub(crate) fn add(&mut self, more: &Self) {
        self.first += more.first;
        self.second += more.second;
        self.dot += more.dot;
    }

    /// Returns the cosine; 0 where one of the vectors is 0.
    pub(crate) fn cosine(&self) -> f64 {
        let lengths = self.first.sqrt() * self.second.sqrt();
        if lengths == 0.0 { 0.0 } else { (self.dot / lengths).clamp(-1.0, 1.0) }
    }
}

wide! {
    /// Returns the squared norms of two vectors and their dot product.
    fn dot_products(one: &[f32], other: &[f32]) -> [f64; 3] {
        const LANES: usize = 8;
        let mut sums = [[0.0f64; LANES]; 3];
        let (ones, rest) = one.as_chunks::<LANES>();
        let (others, other_rest) = other.as_chunks::<LANES>();
        for (one, other) in ones.iter().zip(others) {
            for lane in 0..LANES {
                let (one, other) = (f64::from(one[lane]), f64::from(other[lane]));
                sums[0][lane] += one * one;
                sums[1][lane] += other * other;
                sums[2][lane] += one * other;
            }
        }
        for (lane, (one, other)) in rest.iter().zip(other_rest).enumerate() {
            let (one, other) = (f64::from(*one), f64::from(*other));
            sums[0][lane] += one * one;
            sums[1][lane] += other * other;
            sums[2][lane] += one * other;
        }
        sums.map(|lanes| lanes.iter().sum::<f64>())
    }
}

/// Returns the weights of two vectors in a spherical interpolation: `share` of the way along the arc
/// from the first to the second, or along the line if they are nearly parallel.
pub(crate) fn slerp_weights(cosine: f64, share: f64) -> [f64; 2] {
    // As in mergekit: beyond this the arc and the line are equal in f32.
    const PARALLEL: f64 = 0.9995;
    if cosine.abs() > PARALLEL {
        return [1.0 - share, share];
    }
    let angle = cosine.acos();
    [1.0 - share, share].map(|share| (share * angle).sin() / angle.sin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(value: f32) -> f32 {
        value
    }

    #[test]
    fn the_sign_of_the_sum_is_elected_and_zero_is_plus() {
        let mut signs = [0.0; 4];
        elect_sign(&[vec![1.0, -3.0, 0.0, 2.0], vec![-2.0, 1.0, 0.0, -2.0]], &mut signs);
        assert_eq!(signs, [-1.0, -1.0, 1.0, 1.0]);
    }

    #[test]
    fn only_what_agrees_is_added() {
        let deltas = [vec![1.0, -3.0, 0.0, 2.0], vec![18.0, 6.0, 0.0, 0.0]];
        let (mut out, mut weights) = ([0.0; 4], [0.0; 4]);
        disjoint_sum(&deltas, &[1.0, 18.0], &[1.0; 4], &mut out, &mut weights);
        assert_eq!(out, [19.0, 6.0, 0.0, 2.0]);
        assert_eq!(weights, [19.0, 18.0, 1.0, 1.0]);
    }

    #[test]
    fn signs_follow_the_largest_magnitude() {
        let mut deltas = [vec![1.0, -3.0, 2.0, -2.0, 0.0], vec![2.0, 1.0, -2.0, 0.0, 5.0]];
        magnitude_consensus(&mut deltas, &mut [0.0; 5], &mut [0.0; 5]);
        assert_eq!(deltas, [vec![1.0, -3.0, 0.0, -2.0, 0.0], vec![2.0, 0.0, 0.0, 0.0, 5.0]]);
    }

    #[test]
    fn the_arc_is_a_line_between_what_is_parallel() {
        assert_eq!(slerp_weights(0.9996, 0.25), [0.75, 0.25]);
        assert_eq!(slerp_weights(-1.0, 0.25), [0.75, 0.25]);
        let [one, other] = slerp_weights(0.0, 0.5);
        assert!((one - 0.5f64.sqrt()).abs() < 1e-15 && (one - other).abs() < 1e-15);
        assert_eq!(Angle::default().cosine(), 0.0);
    }

    proptest! {
        #[test]
        fn both_ends_of_the_arc_are_exact(cosine in -1.0f64..=1.0) {
            prop_assert_eq!(slerp_weights(cosine, 0.0), [1.0, 0.0]);
            prop_assert_eq!(slerp_weights(cosine, 1.0), [0.0, 1.0]);
        }

        #[test]
        fn the_arc_has_no_direction(cosine in -0.999f64..=0.999, share in 0.0f64..=1.0) {
            let [one, other] = slerp_weights(cosine, share);
            let [back_other, back_one] = slerp_weights(cosine, 1.0 - share);
            prop_assert!((one - back_one).abs() < 1e-12 && (other - back_other).abs() < 1e-12);
        }

        #[test]
        fn unit_vectors_stay_on_the_sphere(angle in 0.04f64..3.1, share in 0.0f64..=1.0) {
            let [one, other] = slerp_weights(angle.cos(), share);
            let squared = one * one + other * other + 2.0 * one * other * angle.cos();
            prop_assert!((squared - 1.0).abs() < 1e-9, "{}", squared);
        }

        #[test]
        fn a_mean_of_equals_is_itself(
            model in proptest::collection::vec(-1e3f32..1e3, 1..40), weights in proptest::collection::vec(0.1f64..20.0, 1..5),
        ) {
            let total: f64 = weights.iter().sum();
            let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
            let mut out = vec![0.0; model.len()];
            interpolate(&vec![model.clone(); shares.len()], &shares, &mut out);
            prop_assert_eq!(out, model);
        }

        #[test]
        fn what_is_subtracted_can_be_added(model in proptest::collection::vec(-4.0f32..4.0, 8)) {
            let base = [0.5; 8];
            let mut delta = model.clone();
            subtract(&mut delta, &base, exact);
            add(&mut delta, &base, exact);
            prop_assert!(delta.iter().zip(&model).all(|(actual, expected)| (actual - expected).abs() < 1e-6));
        }

        #[test]
        fn angles_do_not_depend_on_the_pieces(values in proptest::collection::vec(-1.0f32..1.0, 2..100)) {
            let other: Vec<f32> = values.iter().rev().copied().collect();
            let (mut whole, mut parts) = (Angle::default(), Angle::default());
            whole.update(&values, &other);
            let middle = values.len() / 2;
            parts.update(&values[..middle], &other[..middle]);
            parts.update(&values[middle..], &other[middle..]);
            prop_assert!((whole.cosine() - parts.cosine()).abs() < 1e-12);
        }
    }
}
