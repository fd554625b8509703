//! Stages, axes and nodes by their names, in a plan or in one that is being made.

use indexmap::IndexMap;

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::reference::{Choice, Reference};
use crate::experiment::spec::StageSpec;
use crate::kind::name::split_namespace;
use crate::plan::node::Node;
use crate::toml::diagnostic::nearest_or_all;

/// The stages of an experiment, and the nodes that they have so far.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub stages: &'a IndexMap<String, StageSpec>,
    pub nodes: &'a [Node],
    /// The nodes of each stage, in the order of the experiment.
    pub by_stage: &'a [Vec<usize>],
}

impl<'a> Lookup<'a> {
    pub(crate) fn stage_count(self) -> usize {
        self.stages.len()
    }

    pub(crate) fn stage_name(self, stage: usize) -> &'a str {
        &self.stages[stage].name
    }

    pub(crate) fn stage_named(self, name: &str) -> Option<usize> {
        self.stages.get_index_of(name)
    }

    pub(crate) fn nodes_of(self, stage: usize) -> &'a [usize] {
        &self.by_stage[stage]
    }

    pub(crate) fn axis_name(self, axis: AxisId) -> &'a str {
        &self.stages[axis.0].axes[axis.1].name
    }

    pub(crate) fn variant_name(self, axis: AxisId, variant: usize) -> &'a str {
        &self.stages[axis.0].axes[axis.1].variants[variant].name
    }

    /// Returns whether the variants of an axis are seeds.
    pub(crate) fn is_seed_axis(self, axis: AxisId) -> bool {
        let axis = &self.stages[axis.0].axes[axis.1];
        axis.is_scalar && axis.variants.iter().all(|variant| variant.overlay.contains_key("seed"))
    }

    pub(crate) fn axis_names(self) -> Vec<String> {
        let mut names: Vec<String> =
            self.stages.values().flat_map(|spec| spec.axes.iter().map(|axis| axis.name.clone())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Finds the axis that a name means, among those of an assignment; else says what is wrong
    /// with the name, and what would be right.
    pub(crate) fn axis_named(
        self,
        assignment: &Assignment,
        name: &str,
    ) -> Result<AxisId, (String, Option<String>)> {
        let named = |is_stage: &dyn Fn(&str, &str) -> bool| -> Vec<AxisId> {
            let axes = assignment.iter().map(|(axis, _)| *axis);
            axes.filter(|axis| {
                let own = self.axis_name(*axis);
                own == name
                    || name.split_once('.').is_some_and(|(stage, axis_name)| {
                        axis_name == own && is_stage(stage, self.stage_name(axis.0))
                    })
            })
            .collect()
        };
        let mut matching = named(&|written, stage| written == stage);
        if matching.is_empty() {
            // A file that is included under a name writes its own stages without that name.
            matching = named(&|written, stage| split_namespace(stage).1 == written);
        }
        match matching.as_slice() {
            [axis] => Ok(*axis),
            [] => {
                let known: Vec<&str> = assignment.iter().map(|(axis, _)| self.axis_name(*axis)).collect();
                let help = nearest_or_all(name, "its axes", known).unwrap_or("it has no axes".to_owned());
                Err((format!("has no axis `{name}`"), Some(help)))
            }
            several => {
                let full: Vec<String> =
                    several.iter().map(|axis| format!("`{}.{name}`", self.stage_name(axis.0))).collect();
                Err((format!("has several axes `{name}`"), Some(format!("write {}", full.join(" or ")))))
            }
        }
    }

    /// Finds the variant of an axis that a name means; else says what is wrong with the name.
    pub(crate) fn variant_named(self, axis: AxisId, name: &str) -> Result<usize, (String, Option<String>)> {
        let of = &self.stages[axis.0].axes[axis.1];
        of.position(name).ok_or_else(|| {
            let names = of.variants.iter().map(|variant| variant.name.as_str());
            let message = format!("axis `{}` has no variant `{name}`", of.name);
            (message, nearest_or_all(name, "variants", names))
        })
    }

    /// Returns the nodes of a stage that the selectors of a reference leave.
    pub(crate) fn select(
        self,
        stage: usize,
        reference: &Reference,
    ) -> Result<Vec<usize>, (String, Option<String>)> {
        let mut selected = Vec::new();
        for node in self.nodes_of(stage) {
            let assignment = &self.nodes[*node].assignment;
            let mut is_selected = true;
            for (name, choice) in &reference.selectors {
                let axis = self
                    .axis_named(assignment, name)
                    .map_err(|(problem, help)| (format!("stage `{}` {problem}", reference.stage), help))?;
                if let Choice::One(wanted) = choice {
                    is_selected &= assignment.contains(&(axis, self.variant_named(axis, wanted)?));
                }
            }
            if is_selected {
                selected.push(*node);
            }
        }
        Ok(selected)
    }

    /// Returns the label of a node: `stage`, or `stage[axis=variant,…]`.
    pub(crate) fn label(self, stage: &str, assignment: &Assignment) -> String {
        if assignment.is_empty() {
            return stage.to_owned();
        }
        let parts: Vec<String> = assignment
            .iter()
            .map(|(axis, variant)| {
                let name = self.axis_name(*axis);
                let is_shared =
                    assignment.iter().filter(|(other, _)| self.axis_name(*other) == name).count() > 1;
                let prefix = if is_shared { format!("{}.", self.stage_name(axis.0)) } else { String::new() };
                format!("{prefix}{name}={}", self.variant_name(*axis, *variant))
            })
            .collect();
        format!("{}[{}]", stage, parts.join(","))
    }
}
