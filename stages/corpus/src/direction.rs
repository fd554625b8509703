//! Which of molecule and caption is given, and which is wanted.

use crate::row::{MissingField, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a direction of translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a molecule to its caption.
    Mol2cap,
    /// From a caption to its molecule.
    Cap2mol,
}

impl Direction {
    /// Lists both.
    pub const ALL: &'static [Direction] = &[Direction::Mol2cap, Direction::Cap2mol];

    /// Returns the name, as in `direction = "mol2cap"`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Mol2cap => "mol2cap",
            Direction::Cap2mol => "cap2mol",
        }
    }

    /// Returns the field of a row that is given.
    pub fn input_field(self) -> &'static str {
        match self {
            Direction::Mol2cap => "molecule",
            Direction::Cap2mol => "caption",
        }
    }

    /// Returns the field of a row that is wanted.
    pub fn target_field(self) -> &'static str {
        match self {
            Direction::Mol2cap => "caption",
            Direction::Cap2mol => "molecule",
        }
    }

    /// Returns what is given in a row.
    pub fn input(self, row: &Row) -> Result<&str, MissingField> {
        row.needed(self.input_field())
    }

    /// Returns what is wanted of a row.
    pub fn target(self, row: &Row) -> Result<&str, MissingField> {
        row.needed(self.target_field())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_is_written() {
        for direction in Direction::ALL {
            let written = serde_json::to_string(direction).unwrap();
            assert_eq!(written, format!("\"{direction}\""));
            assert_eq!(serde_json::from_str::<Direction>(&written).unwrap(), *direction);
        }
    }

    #[test]
    fn one_directions_input_is_the_others_target() {
        let row = serde_json::json!({"id": "7", "molecule": "CCO", "caption": "an alcohol"});
        let row: Row = serde_json::from_value(row).unwrap();
        let ends = |direction: Direction| (direction.input(&row).unwrap(), direction.target(&row).unwrap());
        assert_eq!(ends(Direction::Mol2cap), ("CCO", "an alcohol"));
        assert_eq!(ends(Direction::Cap2mol), ("an alcohol", "CCO"));
    }

    #[test]
    fn a_missing_end_is_named() {
        let row: Row = serde_json::from_value(serde_json::json!({"id": "7", "molecule": "CCO"})).unwrap();
        let error = Direction::Mol2cap.target(&row).unwrap_err().to_string();
        assert_eq!(error, "row `7` has no text `caption`; its fields are `id`, `molecule`");
    }
}
