//! A row and a model's output to a preference, unless the output is as good as the target.
//!
//! A negative is never a positive: an output that says what the target says is left out. For
//! captions that is the same text; for molecules also the same molecule written otherwise.
//! White space around an output or a target says nothing, and is cut off.

use super::outputs::Outputs;
use crate::direction::Direction;
use crate::record::{Preference, Unpaired};
use crate::row::{MissingField, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Says what to do about an output that is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEmpty {
    /// Leave the row out.
    #[default]
    Skip,
    /// Disprefer saying nothing.
    Keep,
}

/// Says why an output cannot be held against its row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegativesError {
    /// The row lacks the input or the target.
    #[error(transparent)]
    MissingField(#[from] MissingField),
    /// The output was made of another row that has the same `id`.
    #[error(
        "the output with the id `{id}` was made of another {field}, `{theirs}`, than that of the row, \
         `{ours}`"
    )]
    OtherInput {
        /// The id.
        id: String,
        /// The field that is given.
        field: &'static str,
        /// The output's input.
        theirs: String,
        /// The row's.
        ours: String,
    },
}

/// Says what became of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The output is dispreferred.
    Preference(Preference),
    /// There is no output.
    Missing,
    /// The output is empty.
    Empty,
    /// The output is the target's text.
    SameText,
    /// The output is the target's molecule, written otherwise.
    SameMolecule,
}

/// How much is shown of an input.
const SHOWN_CHARACTERS: usize = 80;

impl Outputs {
    /// Holds the row's target against its output, and counts what comes of it.
    pub fn reject(&mut self, row: &Row, on_empty: OnEmpty) -> Result<Rejected, NegativesError> {
        let direction = self.direction;
        let rejected = match self.take(row)? {
            None => Rejected::Missing,
            Some(output) => {
                let input = direction.input(row)?;
                if let Some(theirs) = &output.input {
                    expect_same(row.id(), direction, theirs, input)?;
                }
                let (chosen, text) = (direction.target(row)?.trim(), output.text.trim());
                match () {
                    () if text.is_empty() && on_empty == OnEmpty::Skip => Rejected::Empty,
                    () if text == chosen => Rejected::SameText,
                    () if direction == Direction::Cap2mol && is_same_molecule(text, chosen) => {
                        Rejected::SameMolecule
                    }
                    () => Rejected::Preference(Preference {
                        id: format!("{}/{direction}", row.id()),
                        direction,
                        input: input.to_owned(),
                        chosen: chosen.to_owned(),
                        rejected: text.to_owned(),
                    }),
                }
            }
        };
        let report = &mut self.report;
        report.rows += 1;
        *match &rejected {
            Rejected::Preference(_) => &mut report.taken,
            Rejected::Missing => &mut report.rows_without_output,
            Rejected::Empty => &mut report.empty,
            Rejected::SameText => &mut report.same_text,
            Rejected::SameMolecule => &mut report.same_molecule,
        } += 1;
        Ok(rejected)
    }
}

/// Returns the two answers of a preference one by one, as unpaired objectives take them.
pub fn unpaired(preference: Preference) -> [Unpaired; 2] {
    let Preference { id, direction, input, chosen, rejected } = preference;
    let good = Unpaired {
        id: format!("{id}/chosen"),
        direction,
        input: input.clone(),
        output: chosen,
        desirable: true,
    };
    let bad = Unpaired { id: format!("{id}/rejected"), direction, input, output: rejected, desirable: false };
    [good, bad]
}

fn expect_same(id: &str, direction: Direction, theirs: &str, ours: &str) -> Result<(), NegativesError> {
    let is_same = theirs.trim() == ours.trim()
        || direction == Direction::Mol2cap && is_same_molecule(theirs.trim(), ours.trim());
    if is_same {
        return Ok(());
    }
    let shown = |text: &str| text.chars().take(SHOWN_CHARACTERS).collect();
    Err(NegativesError::OtherInput {
        id: id.to_owned(),
        field: direction.input_field(),
        theirs: shown(theirs),
        ours: shown(ours),
    })
}

fn is_same_molecule(a: &str, b: &str) -> bool {
    chem::canonical(a).is_ok_and(|a| chem::canonical(b).is_ok_and(|b| a == b))
}

#[cfg(test)]
mod tests {
    use super::super::{MatchedBy, NegativesReport, Output};
    use super::*;
    use proptest::prelude::*;

    fn row(id: &str, molecule: &str, caption: &str) -> Row {
        let row = serde_json::json!({"id": id, "molecule": molecule, "caption": caption});
        serde_json::from_value(row).unwrap()
    }

    fn output<'t>(id: &'t str, input: &'t str, reference: &'t str, text: &'t str) -> Output<'t> {
        Output { id, input: Some(input), reference: Some(reference), text }
    }

    fn rejected(outputs: &mut Outputs, row: &Row) -> Result<String, String> {
        match outputs.reject(row, OnEmpty::Skip).map_err(|error| error.to_string())? {
            Rejected::Preference(preference) => Ok(preference.rejected),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_preference_holds_the_target_against_the_output() {
        let mut outputs = Outputs::new(Direction::Mol2cap, MatchedBy::Id);
        outputs.add(output("7", "CCO", "an alcohol", " a wax\n"));
        let found = outputs.reject(&row("7", "OCC", "an alcohol "), OnEmpty::Skip).unwrap();
        let preference = Preference {
            id: "7/mol2cap".to_owned(),
            direction: Direction::Mol2cap,
            input: "OCC".to_owned(),
            chosen: "an alcohol".to_owned(),
            rejected: "a wax".to_owned(),
        };
        assert_eq!(found, Rejected::Preference(preference.clone()));
        let both = unpaired(preference).map(|one| (one.id, one.output, one.desirable));
        let good = ("7/mol2cap/chosen".to_owned(), "an alcohol".to_owned(), true);
        let bad = ("7/mol2cap/rejected".to_owned(), "a wax".to_owned(), false);
        assert_eq!(both, [good, bad]);
    }

    #[test]
    fn a_molecule_that_occurs_twice_is_told_apart_by_its_caption() {
        let mut outputs = Outputs::new(Direction::Mol2cap, MatchedBy::Pair);
        outputs.add(output("1", "CCO", "an alcohol", "a wax"));
        outputs.add(output("2", "OCC", "a solvent", "a salt"));
        outputs.add(output("3", "C(C)O", "a solvent", "a dye"));
        outputs.add(output("4", "CCN", "an amine", "a sugar"));
        assert_eq!(rejected(&mut outputs, &row("a", "C(O)C", "a solvent")).as_deref(), Ok("a salt"));
        assert_eq!(rejected(&mut outputs, &row("b", "CCO", "an alcohol")).as_deref(), Ok("a wax"));
        assert_eq!(rejected(&mut outputs, &row("c", "CCO", "a fuel")), Err("Missing".to_owned()));
        let expected = NegativesReport {
            rows: 3,
            outputs: 4,
            further_outputs: 1,
            outputs_without_row: 1,
            rows_without_output: 1,
            taken: 2,
            ..NegativesReport::default()
        };
        assert_eq!(outputs.report(), expected);
    }

    #[test]
    fn rows_of_one_input_share_an_output_without_reference() {
        let mut outputs = Outputs::new(Direction::Mol2cap, MatchedBy::Input);
        outputs.add(Output { reference: None, ..output("1", "CCO", "", "a wax") });
        for (id, caption) in [("a", "an alcohol"), ("b", "a solvent")] {
            assert_eq!(rejected(&mut outputs, &row(id, "OCC", caption)).as_deref(), Ok("a wax"));
        }
    }

    #[test]
    fn what_says_the_same_is_not_rejected() {
        let mut outputs = Outputs::new(Direction::Cap2mol, MatchedBy::Id);
        for (id, text) in [("1", " OCC"), ("2", "C(C)O"), ("3", " \t"), ("4", "C1CC("), ("5", "CCCO")] {
            outputs.add(output(id, "an alcohol", "OCC", text));
        }
        let found: Vec<_> = ["1", "2", "3", "4", "5"]
            .map(|id| rejected(&mut outputs, &row(id, "OCC", "an alcohol")))
            .map(|found| found.unwrap_or_else(|other| other))
            .into();
        assert_eq!(found, ["SameText", "SameMolecule", "Empty", "C1CC(", "CCCO"]);
        let NegativesReport { same_text, same_molecule, empty, taken, .. } = outputs.report();
        assert_eq!((same_text, same_molecule, empty, taken), (1, 1, 1, 2));
        let kept = outputs.reject(&row("3", "OCC", "an alcohol"), OnEmpty::Keep).unwrap();
        assert!(matches!(kept, Rejected::Preference(found) if found.rejected.is_empty()));
    }

    #[test]
    fn a_caption_that_is_a_smiles_is_compared_as_text() {
        let mut outputs = Outputs::new(Direction::Mol2cap, MatchedBy::Id);
        outputs.add(output("1", "CCO", "OCC", "CCO"));
        assert_eq!(rejected(&mut outputs, &row("1", "CCO", "OCC")).as_deref(), Ok("CCO"));
    }

    #[test]
    fn an_output_of_another_row_with_the_same_id_is_a_mistake() {
        let mut outputs = Outputs::new(Direction::Mol2cap, MatchedBy::Id);
        outputs.add(output("1", "CCN", "an amine", "a salt"));
        let expected = "the output with the id `1` was made of another molecule, `CCN`, than that of \
                        the row, `CCO`";
        assert_eq!(rejected(&mut outputs, &row("1", "CCO", "an alcohol")), Err(expected.to_owned()));
        let error = rejected(&mut outputs, &serde_json::from_str(r#"{"id":"1","molecule":"C"}"#).unwrap());
        assert_eq!(error, Err("row `1` has no text `caption`; its fields are `id`, `molecule`".to_owned()));
    }

    #[test]
    fn an_output_is_read_with_what_it_is_matched_by() {
        let row: Row = serde_json::from_str(r#"{"id":"1","molecule":"CCO","output":"a wax"}"#).unwrap();
        let of = |matched_by| Output::of(&row, "output", Direction::Mol2cap, matched_by);
        assert_eq!(of(MatchedBy::Input).unwrap().input, Some("CCO"));
        assert_eq!((of(MatchedBy::Id).unwrap().id, of(MatchedBy::Id).unwrap().text), ("1", "a wax"));
        assert_eq!(of(MatchedBy::Pair).unwrap_err().field, "caption");
    }

    fn text() -> impl Strategy<Value = String> {
        "( |C|O|CO|OC|CCO|OCC|a|b){0,3}"
    }

    proptest! {
        #[test]
        fn a_negative_is_never_a_positive(
            rows in prop::collection::vec((text(), text(), text()), 1..9), is_mol2cap: bool
        ) {
            let direction = Direction::ALL[usize::from(is_mol2cap)];
            for matched_by in [MatchedBy::Pair, MatchedBy::Input, MatchedBy::Id] {
                let mut outputs = Outputs::new(direction, matched_by);
                let mut of = Vec::new();
                for (number, (molecule, caption, output)) in rows.iter().enumerate() {
                    let row = row(&format!("r{number}"), molecule, caption);
                    let (input, reference) = (direction.input(&row).unwrap(), direction.target(&row).unwrap());
                    outputs.add(Output { id: row.id(), input: Some(input), reference: Some(reference), text: output });
                    of.push(row);
                }
                for row in &of {
                    if let Rejected::Preference(found) = outputs.reject(row, OnEmpty::Keep).unwrap() {
                        prop_assert_ne!(&found.chosen, &found.rejected);
                        if direction == Direction::Cap2mol && let Ok(chosen) = chem::canonical(&found.chosen) {
                            prop_assert_ne!(Ok(chosen), chem::canonical(&found.rejected));
                        }
                    }
                }
                let report = outputs.report();
                let parts = report.taken + report.rows_without_output + report.empty
                    + report.same_text + report.same_molecule;
                prop_assert_eq!((parts, report.rows), (report.rows, of.len() as u64));
                prop_assert_eq!((report.outputs_without_row, report.outputs), (0, of.len() as u64));
            }
        }
    }
}
