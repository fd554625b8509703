//! `only` and `except`: which combinations of a stage are made, and which axes they have.

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::combinations::{Combination, read_combinations};
use crate::experiment::spec::StageSpec;
use crate::plan::lookup::{Lookup, Selection, SelectionError};
use crate::toml::diagnostic::Diagnostic;

/// The lists of a stage, as read.
pub(crate) struct Lists {
    pub only: Option<Vec<Combination>>,
    pub except: Vec<Combination>,
}

impl Lists {
    pub(crate) fn read(spec: &StageSpec) -> Result<Self, Diagnostic> {
        Ok(Self {
            only: spec.only.as_ref().map(read_combinations).transpose()?,
            except: spec.except.as_ref().map(read_combinations).transpose()?.unwrap_or_default(),
        })
    }
}

/// A list that is compared with one combination after the other.
struct Listed<'a>(Vec<(&'a Combination, Selection<'a>)>);

/// The lists of a stage and of its axes, compared with one combination after the other.
pub(crate) struct Wanted<'a> {
    stage: &'a str,
    only: Option<Listed<'a>>,
    except: Listed<'a>,
    /// The axes that exist only for some variants of the axes of inputs.
    axes: Vec<(AxisId, Listed<'a>)>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(lookup: Lookup<'a>, stage: usize, lists: &'a Lists) -> Self {
        let spec = &lookup.stages[stage];
        let mut axes = Vec::new();
        for (position, axis) in spec.axes.iter().enumerate() {
            let Some(only) = &axis.only else { continue };
            let mut names = only.iter().flat_map(|combination| &combination.selectors);
            if names.any(|(name, _)| spec.own_axis(name).is_none()) {
                axes.push((AxisId::Stage(stage, position), Listed::new(lookup, only)));
            }
        }
        let only = lists.only.as_ref().map(|only| Listed::new(lookup, only));
        Self { stage: &spec.name, only, except: Listed::new(lookup, &lists.except), axes }
    }

    /// Returns whether a combination is made.
    pub(crate) fn wants(&mut self, assignment: &Assignment) -> Result<bool, Diagnostic> {
        let mut is_wanted = !self.except.has(self.stage, assignment)?;
        if let Some(only) = &mut self.only {
            is_wanted &= only.has(self.stage, assignment)?;
        }
        for (axis, only) in &mut self.axes {
            let exists = assignment.iter().any(|(other, _)| other == axis);
            is_wanted &= only.has(self.stage, assignment)? == exists;
        }
        Ok(is_wanted)
    }

    /// Says which axis or variant of the lists is in no combination.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        let of_axes = self.axes.into_iter().map(|(_, only)| only);
        for list in [self.except].into_iter().chain(self.only).chain(of_axes) {
            for (combination, selection) in list.0 {
                selection.finish().map_err(|error| wrong(self.stage, combination, error))?;
            }
        }
        Ok(())
    }
}

impl<'a> Listed<'a> {
    fn new(lookup: Lookup<'a>, list: &'a [Combination]) -> Self {
        let of = |combination: &'a Combination| (combination, Selection::new(lookup, &combination.selectors));
        Self(list.iter().map(of).collect())
    }

    fn has(&mut self, stage: &str, assignment: &Assignment) -> Result<bool, Diagnostic> {
        let mut is_listed = false;
        // All are compared, for a list is wrong only if an axis of it is in no combination.
        for (combination, selection) in &mut self.0 {
            let selected = selection.select(assignment);
            is_listed |= selected.map_err(|error| wrong(stage, combination, error))?.is_some();
        }
        Ok(is_listed)
    }
}

fn wrong(stage: &str, combination: &Combination, error: SelectionError) -> Diagnostic {
    let (axis, variant) = &combination.spans[error.selector];
    let span = if error.is_variant { variant.clone() } else { axis.clone() };
    let (message, help) = error.of_stage(stage);
    Diagnostic::new(span, message).maybe_help(help)
}
