//! Exponentials of many numbers at once: without branches or tables, so that compilers can
//! compute several side by side. Results have an error of two units in the last place at most,
//! and are the same on every machine.

/// Beyond these the result is 0 or too large for a single float.
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
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let r = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    // Cephes' polynomial for exp(r), |r| <= ln 2 / 2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    (p * (r * r) + r + 1.0) * power
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_near_those_of_the_standard_library() {
        for step in -80_000..=80_000i32 {
            let x = step as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(off < 2.5e-7, "exp({x}) is off by {off}");
            let (found, exact) = (f64::from(sigmoid(x)), 1.0 / (1.0 + (-f64::from(x)).exp()));
            assert!((found - exact).abs() < 1e-7, "sigmoid({x}) is {found}");
            let (found, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((found - exact).abs() < 2e-7, "tanh({x}) is {found}");
        }
        assert_eq!((tanh(1e30), tanh(-1e30), sigmoid(1e30)), (1.0, -1.0, 1.0));
        assert!(sigmoid(-1e30) < 1e-37);
    }
}
