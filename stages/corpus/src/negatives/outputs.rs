//! A model's outputs, looked up by the row they were made for.

use super::report::NegativesReport;
use crate::direction::Direction;
use crate::record::Prediction;
use crate::row::{MissingField, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Says what makes an output the output of a row.
///
/// Molecules are compared however their SMILES are written, and captions without the white space
/// around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchedBy {
    /// The input and the reference: one molecule can occur twice, with two captions.
    #[default]
    Pair,
    /// The input alone, for outputs without a reference. Rows of one input share an output.
    Input,
    /// The `id`, for outputs that were made of these very rows.
    Id,
}

/// Holds one output, and what is known of the row it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'t> {
    /// The row's `id`.
    pub id: &'t str,
    /// What was given.
    pub input: Option<&'t str>,
    /// The answer of the row.
    pub reference: Option<&'t str>,
    /// What the model made of it.
    pub text: &'t str,
}

/// Holds the outputs of one direction.
#[derive(Clone, Debug)]
pub struct Outputs {
    pub(super) direction: Direction,
    matched_by: MatchedBy,
    by_key: HashMap<[String; 2], StoredOutput>,
    pub(super) report: NegativesReport,
}

/// The first output of a row.
#[derive(Clone, Debug)]
pub(super) struct StoredOutput {
    pub text: String,
    /// What was given, if the output says so.
    pub input: Option<String>,
    is_used: bool,
}

impl<'t> Output<'t> {
    /// Reads an output from a row that holds it in `field`, beside the fields of its own row.
    pub fn of(
        row: &'t Row,
        field: &str,
        direction: Direction,
        matched_by: MatchedBy,
    ) -> Result<Self, MissingField> {
        let text = row.needed(field)?;
        let (input, reference) = match matched_by {
            MatchedBy::Pair => (Some(direction.input(row)?), Some(direction.target(row)?)),
            MatchedBy::Input => (Some(direction.input(row)?), None),
            MatchedBy::Id => (row.text(direction.input_field()), None),
        };
        Ok(Self { id: row.id(), input, reference, text })
    }
}

impl<'t> From<&'t Prediction> for Output<'t> {
    fn from(prediction: &'t Prediction) -> Self {
        Self {
            id: &prediction.id,
            input: Some(&prediction.input),
            reference: Some(&prediction.reference),
            text: &prediction.prediction,
        }
    }
}

impl Outputs {
    /// Starts without outputs.
    pub fn new(direction: Direction, matched_by: MatchedBy) -> Self {
        Self { direction, matched_by, by_key: HashMap::new(), report: NegativesReport::default() }
    }

    /// Adds an output. Those after the first of a row are counted and left out.
    pub fn add(&mut self, output: Output<'_>) {
        self.report.outputs += 1;
        let key = self.key(output.id, output.input, output.reference);
        match self.by_key.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => self.report.further_outputs += 1,
            std::collections::hash_map::Entry::Vacant(place) => {
                let (text, input) = (output.text.to_owned(), output.input.map(str::to_owned));
                place.insert(StoredOutput { text, input, is_used: false });
            }
        }
    }

    /// Returns the output of a row, if there is one.
    pub(super) fn take(&mut self, row: &Row) -> Result<Option<&StoredOutput>, MissingField> {
        let (input, target) = (self.direction.input(row)?, self.direction.target(row)?);
        let key = self.key(row.id(), Some(input), Some(target));
        let output = self.by_key.get_mut(&key);
        Ok(output.map(|output| {
            output.is_used = true;
            &*output
        }))
    }

    /// Returns what became of the rows and the outputs so far.
    pub fn report(&self) -> NegativesReport {
        let unused = self.by_key.values().filter(|output| !output.is_used).count() as u64;
        NegativesReport { outputs_without_row: unused, ..self.report }
    }

    /// Returns what distinguishes rows. A reference or input that is not there is that of no row.
    fn key(&self, id: &str, input: Option<&str>, reference: Option<&str>) -> [String; 2] {
        let known = |text: Option<&str>, field| text.map_or_else(String::new, |text| identity(text, field));
        let input_field = self.direction.input_field();
        match self.matched_by {
            MatchedBy::Id => [id.to_owned(), String::new()],
            MatchedBy::Input => [known(input, input_field), String::new()],
            MatchedBy::Pair => [known(input, input_field), known(reference, self.direction.target_field())],
        }
    }
}

/// Returns what a text is compared by.
fn identity(text: &str, field: &str) -> String {
    let text = text.trim();
    match field {
        "molecule" => chem::canonical(text).unwrap_or_else(|_| text.to_owned()),
        _ => text.to_owned(),
    }
}
