//! `only` and `except` of a stage: which combinations are made.

use crate::experiment::axes::Assignment;
use crate::experiment::combinations::{Combination, read_combinations};
use crate::experiment::spec::StageSpec;
use crate::plan::lookup::{Lookup, Selection, SelectionError};
use crate::toml::diagnostic::Diagnostic;

/// The lists of a stage, as read.
pub(crate) struct Lists {
    only: Option<Vec<Combination>>,
    except: Vec<Combination>,
}

impl Lists {
    pub(crate) fn read(spec: &StageSpec) -> Result<Self, Diagnostic> {
        Ok(Self {
            only: spec.only.as_ref().map(read_combinations).transpose()?,
            except: spec.except.as_ref().map(read_combinations).transpose()?.unwrap_or_default(),
        })
    }
}

/// The lists of a stage, compared with one combination after the other.
pub(crate) struct Wanted<'a> {
    stage: &'a str,
    only: Option<Vec<(&'a Combination, Selection<'a>)>>,
    except: Vec<(&'a Combination, Selection<'a>)>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(lookup: Lookup<'a>, stage: &'a str, lists: &'a Lists) -> Self {
        let selections = |list: &'a Vec<Combination>| {
            let of =
                |combination: &'a Combination| (combination, Selection::new(lookup, &combination.selectors));
            list.iter().map(of).collect()
        };
        Self { stage, only: lists.only.as_ref().map(selections), except: selections(&lists.except) }
    }

    /// Returns whether a combination is made.
    pub(crate) fn wants(&mut self, assignment: &Assignment) -> Result<bool, Diagnostic> {
        // All are compared, for a list is wrong only if an axis of it is in no combination.
        let matches = |list: &mut Vec<(&Combination, Selection<'_>)>| -> Result<bool, Diagnostic> {
            let mut is_listed = false;
            for (combination, selection) in list {
                let selected = selection.select(assignment);
                is_listed |= selected.map_err(|error| wrong(self.stage, combination, error))?.is_some();
            }
            Ok(is_listed)
        };
        let is_excepted = matches(&mut self.except)?;
        let is_listed = self.only.as_mut().map(matches).transpose()?;
        Ok(!is_excepted && is_listed.unwrap_or(true))
    }

    /// Says which axis or variant of the lists is in no combination.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        for (combination, selection) in self.except.into_iter().chain(self.only.into_iter().flatten()) {
            selection.finish().map_err(|error| wrong(self.stage, combination, error))?;
        }
        Ok(())
    }
}

fn wrong(stage: &str, combination: &Combination, error: SelectionError) -> Diagnostic {
    let (axis, variant) = &combination.spans[error.selector];
    let span = if error.is_variant { variant.clone() } else { axis.clone() };
    let (message, help) = error.of_stage(stage);
    Diagnostic::new(span, message).maybe_help(help)
}
