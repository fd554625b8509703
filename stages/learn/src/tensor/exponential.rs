//! Exponentials of many numbers at once: without branches or tables, so that compilers can
//! compute several side by side. Results have an error of one unit in the last place at most,
//! and are the same on every machine.

/// Beyond these the result is 0 or too large for f32.
const LEAST: f32 = -87.0;
const MOST: f32 = 88.0;

/// Adding it leaves a whole number in the last bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has so few digits that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Returns e to the power of a number between -87 and 88; beyond, that of the nearer end.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(LEAST, MOST);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = rounded - ROUND;
    let r = whole.mul_add(-LN_2_HIGH, x);
    let r = whole.mul_add(-LN_2_LOW, r);
    // Cephes' polynomial for exp(r), |r| <= ln 2 / 2.
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    (p.mul_add(r * r, r) + 1.0) * power
}

/// Returns 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Returns the hyperbolic tangent, with an error of 1e-7 at most.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Returns the share of a normal distribution that lies below a number, with an error of 2e-7 at
/// most, and of 2e-6 of itself where it is small.
///
/// By the complementary error function as Press et al. fit it (Numerical Recipes, 2nd ed., section
/// 6.2, `erfcc`).
#[inline(always)]
pub(crate) fn normal_distribution(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77;
    p = p * t - 0.822_152_2;
    p = p * t + 1.488_515_9;
    p = p * t - 1.135_204;
    p = p * t + 0.278_868_07;
    p = p * t - 0.186_288_06;
    p = p * t + 0.096_784_18;
    p = p * t + 0.374_091_96;
    p = p * t + 1.000_023_7;
    let beyond = 0.5 * t * exp(-z * z - 1.265_512_2 + t * p);
    if x < 0.0 { beyond } else { 1.0 - beyond }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_near_those_of_the_standard_library() {
        for step in -80_000..=80_000i32 {
            let x = step as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(off < 1e-7, "exp({x}) is off by {off}");
            let (actual, exact) = (f64::from(sigmoid(x)), 1.0 / (1.0 + (-f64::from(x)).exp()));
            assert!((actual - exact).abs() < 1e-7, "sigmoid({x}) is {actual}");
            let (actual, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((actual - exact).abs() < 2e-7, "tanh({x}) is {actual}");
        }
        assert_eq!((tanh(1e30), tanh(-1e30), sigmoid(1e30)), (1.0, -1.0, 1.0));
        assert!(sigmoid(-1e30) < 1e-37);
    }

    /// The values are of scipy's `norm.cdf`, at -8, -7.5 and so on up to 2.
    #[test]
    fn a_normal_distribution_is_the_normal_distribution() {
        let expected = [
            6.220960574271786e-16,
            3.190891672910896e-14,
            1.2798125438858348e-12,
            4.0160005838590854e-11,
            9.865876450377012e-10,
            1.898956246588768e-8,
            2.866515718791945e-07,
            3.3976731247300603e-06,
            3.167124183311986e-05,
            0.00023262907903552502,
            0.0013498980316300933,
            0.006209665325776132,
            0.022750131948179195,
            0.06680720126885806,
            0.15865525393145707,
            0.3085375387259869,
            0.5,
            0.6914624612740131,
            0.8413447460685429,
            0.9331927987311419,
            0.9772498680518208,
        ];
        for (half, expected) in expected.into_iter().enumerate() {
            let x = half as f32 / 2.0 - 8.0;
            let off = (f64::from(normal_distribution(x)) - expected).abs();
            assert!(off < 2e-7 && off < 2e-6 * expected.max(1e-7), "at {x} it is off by {off}");
        }
        let mut last = 0.0;
        for step in -6000..=6000 {
            let actual = normal_distribution(step as f32 / 1000.0);
            assert!(actual >= last - 1e-7 && actual <= 1.0);
            last = actual;
        }
    }
}
