//! What a sample needs to know of a row.

use super::max_chars::MaxChars;
use crate::row::{MissingField, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Says what makes two rows the same: `identity.field = "id"` or `identity.molecule = "molecule"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The text of this field.
    Field(String),
    /// The molecule that this field holds, however its SMILES is written.
    ///
    /// A SMILES that cannot be read is its own identity, as text.
    Molecule(String),
}

/// Says which rows resemble each other and stay together: `group.field = "class"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Those with one text in this field.
    Field(String),
}

/// Holds the identity of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The field's text, or the canonical SMILES.
    pub text: String,
    /// Whether a molecule was asked for and could not be read.
    pub unparsable: bool,
}

/// Says which of a row's fields matter to a sample.
#[derive(Clone, Copy, Debug)]
pub struct Traits<'p> {
    /// What makes two rows the same.
    pub identity: &'p Identity,
    /// The field with the stratum.
    pub stratify: Option<&'p str>,
    /// What makes two rows of one group.
    pub group: Option<&'p Group>,
    /// How long fields may be.
    pub max_chars: Option<&'p MaxChars>,
}

/// Holds what a sample needs to know of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What makes it the same as another.
    pub identity: Identified,
    /// The stratum it is counted in. Rows without one are a stratum of their own.
    pub stratum: Option<String>,
    /// The group that it stays with.
    pub group: Option<String>,
    /// The field that is too long, if one is.
    pub too_long: Option<String>,
}

impl Identity {
    /// Returns the identity of a row.
    pub fn of(&self, row: &Row) -> Result<Identified, MissingField> {
        match self {
            Identity::Field(field) => {
                Ok(Identified { text: row.needed(field)?.to_owned(), unparsable: false })
            }
            Identity::Molecule(field) => {
                let smiles = row.needed(field)?;
                Ok(match chem::canonical(smiles) {
                    Ok(text) => Identified { text, unparsable: false },
                    Err(_) => Identified { text: smiles.to_owned(), unparsable: true },
                })
            }
        }
    }
}

impl Group {
    /// Returns the name of a row's group.
    pub fn of(&self, row: &Row) -> Result<String, MissingField> {
        match self {
            Group::Field(field) => Ok(row.needed(field)?.to_owned()),
        }
    }
}

impl Candidate {
    /// Returns what a sample needs to know of a row.
    pub fn of(row: &Row, traits: &Traits<'_>) -> Result<Self, MissingField> {
        let stratum = traits.stratify.map(|field| row.needed(field).map(str::to_owned));
        let exceeded = traits.max_chars.map(|max_chars| max_chars.exceeded_by(row)).transpose()?;
        Ok(Self {
            identity: traits.identity.of(row)?,
            stratum: stratum.transpose()?,
            group: traits.group.map(|group| group.of(row)).transpose()?,
            too_long: exceeded.flatten().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(smiles: &str) -> Row {
        serde_json::from_value(serde_json::json!({"id": "7", "molecule": smiles})).unwrap()
    }

    fn molecule() -> Identity {
        Identity::Molecule("molecule".to_owned())
    }

    #[test]
    fn one_molecule_has_one_identity() {
        let written = ["OCC", "CCO", "C(O)C", "[CH3]CO"];
        let found = written.map(|smiles| molecule().of(&row(smiles)).unwrap());
        assert!(found.iter().all(|one| *one == found[0] && !one.unparsable), "{found:?}");
        let other = Identity::Field("molecule".to_owned()).of(&row("OCC")).unwrap();
        assert_eq!(other.text, "OCC");
    }

    #[test]
    fn what_is_no_molecule_is_itself() {
        let found = molecule().of(&row("C1CC(")).unwrap();
        assert_eq!(found, Identified { text: "C1CC(".to_owned(), unparsable: true });
    }

    #[test]
    fn a_missing_field_is_named() {
        let identity = molecule();
        let traits = Traits { identity: &identity, stratify: Some("split"), group: None, max_chars: None };
        let error = Candidate::of(&row("C"), &traits).unwrap_err();
        let expected = "row `7` has no text `split`; its fields are `id`, `molecule`";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn identities_are_named_tables() {
        #[derive(Deserialize)]
        struct Params {
            identity: Identity,
        }
        let params: Params = toml::from_str("identity.molecule = 'molecule'").unwrap();
        assert_eq!(params.identity, molecule());
        let params: Params = toml::from_str("identity = { field = 'id' }").unwrap();
        assert_eq!(params.identity, Identity::Field("id".to_owned()));
    }
}
