//! What is asked of a sample.

use super::fraction::Fraction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// Says which rows to take: `take.fraction = 0.1`, `take.count = 3000` or `take.first = 2300`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// A share of the rows that can be taken, rounded half up, and at least one row.
    Fraction(Fraction),
    /// A number of rows. It is an error if there are fewer.
    Count(NonZeroU64),
    /// The first so many that can be taken, in their order. It is an error if there are fewer.
    First(NonZeroU64),
}

/// Says which sample to take of the candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// How many rows.
    pub take: Take,
    /// Picks among the samples of that size.
    pub seed: u64,
    /// Whether only the first row of each identity counts.
    pub distinct: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Params {
        take: Take,
    }

    fn parsed(text: &str) -> Result<Take, String> {
        let params: Result<Params, toml::de::Error> = toml::from_str(text);
        params.map(|params| params.take).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn all_spellings_are_read() {
        let fraction = Take::Fraction(Fraction::new(0.1).unwrap());
        assert_eq!(parsed("take = { fraction = 0.1 }"), Ok(fraction));
        assert_eq!(parsed("take.count = 3000"), Ok(Take::Count(3000.try_into().unwrap())));
        assert_eq!(parsed("take.first = 2300"), Ok(Take::First(2300.try_into().unwrap())));
        let text = toml::to_string(&Params { take: fraction }).unwrap();
        assert_eq!(text, "[take]\nfraction = 0.1\n");
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        let message = parsed("take.fraction = 1.5").unwrap_err();
        assert_eq!(message, "invalid value: 1.5, expected a fraction in (0, 1]");
        assert!(parsed("take.count = 0").unwrap_err().contains("nonzero"));
        assert!(parsed("take.all = true").unwrap_err().contains("one of `fraction`, `count`, `first`"));
    }

    #[test]
    fn the_schema_bounds_all() {
        let schema = schemars::schema_for!(Take).to_value().to_string();
        assert!(schema.contains("\"exclusiveMinimum\":0"), "{schema}");
        assert!(schema.contains("\"minimum\":1"), "{schema}");
    }
}
