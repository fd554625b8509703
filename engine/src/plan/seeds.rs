//! The seeds of an experiment: one axis over all stages that use its seed.

use crate::experiment::axes::{Assignment, Axis, AxisId};
use crate::experiment::seeds::seed_of;
use crate::experiment::spec::{Experiment, StageSpec};
use crate::toml::diagnostic::Diagnostic;

/// Where a combination of a stage has its seed from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SeedOf {
    /// It uses none.
    Nothing,
    /// It says so itself.
    Stage(u64),
    /// The experiment's.
    Experiment(u64),
}

/// The seeds of an experiment, for one stage.
pub(crate) struct Seeds<'a>(Option<(AxisId, &'a Axis)>);

impl<'a> Seeds<'a> {
    /// Checks that a stage has no axis of its own over the seed where the experiment has one.
    pub(crate) fn new(experiment: &'a Experiment, spec: &StageSpec) -> Result<Self, Diagnostic> {
        let Some(position) = experiment.seeds_of(&spec.name) else {
            return Ok(Self(None));
        };
        let seeds = &experiment.seed_axes[position];
        for axis in &spec.axes {
            let set = axis.variants.iter().find_map(|variant| variant.overlay.get("seed"));
            let Some(entry) = set else { continue };
            let (_, place) = seeds.field.as_ref().expect("the seeds are values of a field");
            let message = format!(
                "axis `{}` of stage `{}` sets `seed`, and the experiment has `seeds`",
                axis.name, spec.name
            );
            let help = format!(
                "`seeds` in {} is an axis over the seed of every stage: take one of the two out",
                experiment.sources.line(place)
            );
            return Err(Diagnostic::new(entry.key.clone(), message)
                .label("is a second axis over it")
                .help(help));
        }
        Ok(Self(Some((AxisId::Seeds(position), seeds))))
    }

    /// Returns what becomes of a combination: itself with its seed, or itself with each of the
    /// experiment's, unless its inputs have one of them already.
    pub(crate) fn assign(&self, mut assignment: Assignment, seed: SeedOf) -> Vec<(Assignment, Option<u64>)> {
        let Some((id, axis)) = self.0 else {
            return match seed {
                SeedOf::Nothing => vec![(assignment, None)],
                SeedOf::Stage(seed) | SeedOf::Experiment(seed) => vec![(assignment, Some(seed))],
            };
        };
        // Last, as if the stage itself declared it.
        let position = assignment.iter().position(|(axis, _)| *axis == id);
        let inherited = position.map(|position| assignment.remove(position).1);
        let with = |variant: usize| assignment.iter().copied().chain([(id, variant)]).collect::<Assignment>();
        let value = |variant: usize| seed_of(&axis.variants[variant].overlay);
        match (seed, inherited) {
            (SeedOf::Experiment(_), Some(variant)) => vec![(with(variant), value(variant))],
            (SeedOf::Experiment(_), None) => {
                (0..axis.variants.len()).map(|variant| (with(variant), value(variant))).collect()
            }
            (SeedOf::Stage(seed), Some(variant)) => vec![(with(variant), Some(seed))],
            (SeedOf::Stage(seed), None) => vec![(assignment, Some(seed))],
            (SeedOf::Nothing, Some(variant)) => vec![(with(variant), None)],
            (SeedOf::Nothing, None) => vec![(assignment, None)],
        }
    }
}
