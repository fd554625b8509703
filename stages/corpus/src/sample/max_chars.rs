//! Rows that are too long to be used.

use crate::row::{MissingField, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Says how many characters a field may have: `max_chars = { molecule = 120, caption = 400 }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MaxChars(pub BTreeMap<String, NonZeroU32>);

impl MaxChars {
    /// Returns the first field, by name, that is too long.
    pub fn exceeded_by(&self, row: &Row) -> Result<Option<&str>, MissingField> {
        for (field, most) in &self.0 {
            // Only one more than are allowed are looked at.
            let most = most.get() as usize;
            if row.needed(field)?.chars().nth(most).is_some() {
                return Ok(Some(field));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(molecule: &str, caption: &str) -> Row {
        let row = serde_json::json!({"id": "7", "molecule": molecule, "caption": caption});
        serde_json::from_value(row).unwrap()
    }

    #[derive(Deserialize)]
    struct Params {
        max_chars: MaxChars,
    }

    #[test]
    fn characters_are_counted_and_not_bytes() {
        let params: Params = toml::from_str("max_chars = { molecule = 3, caption = 4 }").unwrap();
        let exceeded = |row: &Row| params.max_chars.exceeded_by(row).unwrap().map(str::to_owned);
        assert_eq!(exceeded(&row("CCO", "säßé")), None);
        assert_eq!(exceeded(&row("CCO", "säßé!")).as_deref(), Some("caption"));
        assert_eq!(exceeded(&row("CCCO", "an alcohol")).as_deref(), Some("caption"));
        assert_eq!(exceeded(&row("CCCO", "")).as_deref(), Some("molecule"));
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error() {
        let params: Params = toml::from_str("max_chars.name = 3").unwrap();
        assert_eq!(params.max_chars.exceeded_by(&row("C", "c")).unwrap_err().field, "name");
        assert!(toml::from_str::<Params>("max_chars.name = 0").is_err());
    }
}
