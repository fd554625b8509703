//! What stages say of one row: what a model predicted, and which of two answers is preferred.

use crate::direction::Direction;
use crate::row::Row;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Is one line of a file.
pub trait Record: Serialize + DeserializeOwned {
    /// What a line is, with its article, as messages say it.
    const WHAT: &'static str;
}

impl Record for Row {
    const WHAT: &'static str = "a row";
}

/// Holds what a model made of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The row's `id`.
    pub id: String,
    /// What was asked for.
    pub direction: Direction,
    /// What was given.
    pub input: String,
    /// The answer of the row.
    pub reference: String,
    /// The answer of the model.
    pub prediction: String,
}

impl Record for Prediction {
    const WHAT: &'static str = "a prediction";
}

/// Holds two answers to one input, of which one is better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Names the preference: the row's `id`, a slash and the direction.
    pub id: String,
    /// What is asked for.
    pub direction: Direction,
    /// What is given.
    pub input: String,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
}

impl Record for Preference {
    const WHAT: &'static str = "a preference";
}

/// Holds one answer to one input, and whether it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpaired {
    /// Names the answer.
    pub id: String,
    /// What is asked for.
    pub direction: Direction,
    /// What is given.
    pub input: String,
    /// The answer.
    pub output: String,
    /// Whether it is a good one.
    pub desirable: bool,
}

impl Record for Unpaired {
    const WHAT: &'static str = "an unpaired answer";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{read_jsonl, write_jsonl};

    const LINE: &str =
        r#"{"id":"7/mol2cap","direction":"mol2cap","input":"CCO","chosen":"a","rejected":"b"}"#;

    fn preferences(text: &str) -> Result<Vec<Preference>, String> {
        read_jsonl(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_preference_is_one_line() {
        let read = preferences(&format!("{LINE}\n")).unwrap();
        let mut bytes = Vec::new();
        write_jsonl(&read, &mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("{LINE}\n"));
        assert_eq!((read[0].direction, read[0].chosen.as_str()), (Direction::Mol2cap, "a"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let without = LINE.replace(r#","rejected":"b""#, "");
        let error = preferences(&format!("{LINE}\n{without}\n")).unwrap_err();
        assert!(error.starts_with("line 2 is not a preference: missing field `rejected`"), "{error}");
        let other = LINE.replace("mol2cap\",\"input", "mol2mol\",\"input");
        let error = preferences(&other).unwrap_err();
        assert!(error.contains("unknown variant `mol2mol`, expected `mol2cap` or `cap2mol`"), "{error}");
        let more = LINE.replace("{", "{\"score\":1,");
        let error = preferences(&more).unwrap_err();
        assert!(error.contains("unknown field `score`"), "{error}");
    }

    #[test]
    fn every_kind_of_record_says_what_it_is() {
        let said = |error: Option<Result<(), crate::RowsError>>| error.unwrap().unwrap_err().to_string();
        let bytes = b"{}\n".as_slice();
        let found = [
            said(read_jsonl::<Row>(bytes).next().map(|one| one.map(drop))),
            said(read_jsonl::<Prediction>(bytes).next().map(|one| one.map(drop))),
            said(read_jsonl::<Unpaired>(bytes).next().map(|one| one.map(drop))),
        ];
        let begins = ["a row", "a prediction", "an unpaired answer"];
        for (found, what) in found.iter().zip(begins) {
            assert!(found.starts_with(&format!("line 1 is not {what}: ")), "{found}");
        }
    }
}
