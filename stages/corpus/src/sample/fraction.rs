//! A share of the rows.

use schemars::JsonSchema;
use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Holds a number above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, JsonSchema)]
#[schemars(transparent, extend("exclusiveMinimum" = 0, "maximum" = 1))]
#[serde(transparent)]
pub struct Fraction(f64);

/// Says that a number is not in `(0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a fraction in (0, 1]")]
pub struct NotAFraction(pub f64);

impl Fraction {
    /// Makes a fraction of a number in `(0, 1]`.
    pub fn new(value: f64) -> Result<Self, NotAFraction> {
        if value > 0.0 && value <= 1.0 { Ok(Self(value)) } else { Err(NotAFraction(value)) }
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns this share of `total`, rounded half up, and at least 1 of what there is.
    pub fn of(self, total: u64) -> u64 {
        let share = (self.0 * total as f64 + 0.5).floor() as u64;
        share.max(1).min(total)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(FractionVisitor)
    }
}

struct FractionVisitor;

impl Visitor<'_> for FractionVisitor {
    type Value = Fraction;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a fraction in (0, 1]")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Fraction, E> {
        Fraction::new(value).map_err(|_| E::invalid_value(Unexpected::Other(&value.to_string()), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Fraction, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Fraction, E> {
        self.visit_f64(value as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct Holder {
        fraction: Fraction,
    }

    fn parsed(text: &str) -> Result<f64, String> {
        let holder: Result<Holder, toml::de::Error> = toml::from_str(&format!("fraction = {text}"));
        holder.map(|holder| holder.fraction.get()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn only_fractions_can_be_read() {
        assert_eq!(parsed("0.1"), Ok(0.1));
        assert_eq!(parsed("1"), Ok(1.0));
        for bad in ["1.5", "0", "-0.1", "2", "0.0"] {
            let value: f64 = bad.parse().unwrap();
            let expected = format!("invalid value: {value}, expected a fraction in (0, 1]");
            assert_eq!(parsed(bad), Err(expected));
        }
        assert!(parsed("nan").is_err() && parsed("'x'").is_err());
    }

    #[test]
    fn a_half_is_rounded_up_and_one_is_the_least() {
        let share = |fraction: f64, total| Fraction::new(fraction).unwrap().of(total);
        assert_eq!(share(0.5, 5), 3);
        assert_eq!(share(0.1, 14), 1);
        assert_eq!(share(0.1, 15), 2);
        assert_eq!(share(0.001, 10), 1);
        assert_eq!(share(1.0, 7), 7);
        assert_eq!(share(0.1, 155_569), 15_557);
        assert_eq!(share(0.1, 0), 0);
    }

    proptest! {
        #[test]
        fn a_share_is_neither_nothing_nor_more_than_all(
            fraction in 1e-9..=1.0f64, total in 1u64..1_000_000
        ) {
            let share = Fraction::new(fraction).unwrap().of(total);
            prop_assert!(1 <= share && share <= total);
            prop_assert!((share as f64 - fraction * total as f64).abs() <= 1.0);
        }
    }
}
