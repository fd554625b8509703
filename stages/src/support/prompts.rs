//! The prompts of a stage: for each direction a file, and what it says.

use std::collections::BTreeMap;
use std::fs;

use corpus::{Direction, Prompt, TextPrompt};
use engine::{By, FieldError, InputFile, Pick, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The directions that prompts are for.
const DIRECTIONS: &[&str] = &["mol2cap", "cap2mol"];

/// `prompts`, of which `direction` picks the one `prompt`.
pub(crate) const BY_DIRECTION: Pick =
    Pick { from: "prompts", names: DIRECTIONS, by: By::Name { field: "direction", into: "prompt" } };

/// `prompts`, of which `directions` keeps some.
pub(crate) const BY_DIRECTIONS: Pick =
    Pick { from: "prompts", names: DIRECTIONS, by: By::List { field: "directions" } };

/// The files with the prompts, by direction.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prompts {
    /// What asks for a molecule's caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    mol2cap: Option<InputFile>,
    /// What asks for a caption's molecule.
    #[serde(skip_serializing_if = "Option::is_none")]
    cap2mol: Option<InputFile>,
}

impl Prompts {
    /// Checks that there is at least one, in the field `prompts` of a stage.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        if self.mol2cap.is_some() || self.cap2mol.is_some() {
            return Ok(());
        }
        Err(FieldError::new("prompts", "`prompts` is empty")
            .help("give `prompts.mol2cap`, `prompts.cap2mol` or both"))
    }

    /// Reads the prompts.
    ///
    /// # Errors
    /// [`StageFailure`], naming the file.
    pub(crate) fn read(&self) -> Result<BTreeMap<Direction, Prompt>, StageFailure> {
        let files = [(Direction::Mol2cap, &self.mol2cap), (Direction::Cap2mol, &self.cap2mol)];
        let given = files.into_iter().filter_map(|(direction, file)| Some((direction, file.as_ref()?)));
        given.map(|(direction, file)| Ok((direction, read_prompt(file, direction)?))).collect()
    }
}

/// Reads the prompt of a file.
///
/// # Errors
/// [`StageFailure`], naming the file.
pub(crate) fn read_prompt(file: &InputFile, direction: Direction) -> Result<Prompt, StageFailure> {
    let text = fs::read_to_string(file.path()).map_err(StageFailure::reading(file.origin()))?;
    Prompt::parse(&text, direction)
        .map_err(|error| StageFailure::caused(format!("read the prompt {}", file.origin().display()), error))
}

/// Reads a prompt about a text.
///
/// # Errors
/// [`StageFailure`], naming the file.
pub(crate) fn read_text_prompt(file: &InputFile) -> Result<TextPrompt, StageFailure> {
    let text = fs::read_to_string(file.path()).map_err(StageFailure::reading(file.origin()))?;
    TextPrompt::parse(&text)
        .map_err(|error| StageFailure::caused(format!("read the prompt {}", file.origin().display()), error))
}
