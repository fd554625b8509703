//! Stages, axes and nodes by their names, in a plan or in one that is being made.

use indexmap::IndexMap;

use crate::experiment::axes::{Assignment, Axis, AxisId};
use crate::experiment::reference::{Choice, Reference};
use crate::experiment::spec::StageSpec;
use crate::kind::name::split_namespace;
use crate::plan::node::Node;
use crate::toml::diagnostic::nearest_or_all;

/// What is wrong with a name, and what would be right.
pub(crate) type Problem = (String, Option<String>);

/// The stages of an experiment, and the nodes that they have so far.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub stages: &'a IndexMap<String, StageSpec>,
    /// The axes over the seeds of the experiment.
    pub seeds: &'a [Axis],
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

    pub(crate) fn axis(self, axis: AxisId) -> &'a Axis {
        match axis {
            AxisId::Stage(stage, position) => &self.stages[stage].axes[position],
            AxisId::Seeds(position) => &self.seeds[position],
        }
    }

    pub(crate) fn axis_name(self, axis: AxisId) -> &'a str {
        &self.axis(axis).name
    }

    /// Returns what declares an axis: a stage, or the experiment.
    fn owner_name(self, axis: AxisId) -> &'a str {
        match axis {
            AxisId::Stage(stage, _) => self.stage_name(stage),
            AxisId::Seeds(_) => "experiment",
        }
    }

    pub(crate) fn variant_name(self, axis: AxisId, variant: usize) -> &'a str {
        &self.axis(axis).variants[variant].name
    }

    /// Returns whether the variants of an axis are seeds.
    pub(crate) fn is_seed_axis(self, axis: AxisId) -> bool {
        let axis = self.axis(axis);
        axis.is_scalar() && axis.variants.iter().all(|variant| variant.overlay.contains_key("seed"))
    }

    pub(crate) fn axis_names(self) -> Vec<String> {
        let axes = self.stages.values().flat_map(|spec| &spec.axes).chain(self.seeds);
        let mut names: Vec<String> = axes.map(|axis| axis.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Finds the axis that a name means among those of an assignment. None if there is no such axis:
    /// nodes of one stage may have different axes.
    pub(crate) fn axis_in(self, assignment: &Assignment, name: &str) -> Result<Option<AxisId>, Problem> {
        self.axis_among(assignment.iter().map(|(axis, _)| *axis), name)
    }

    /// Returns the axes of some nodes, each once, in the order of their first appearance.
    pub(crate) fn axes_of(self, nodes: &[usize]) -> Vec<AxisId> {
        let mut axes = Vec::new();
        for (axis, _) in nodes.iter().flat_map(|node| &self.nodes[*node].assignment) {
            if !axes.contains(axis) {
                axes.push(*axis);
            }
        }
        axes
    }

    fn axis_among(
        self,
        axes: impl Iterator<Item = AxisId> + Clone,
        name: &str,
    ) -> Result<Option<AxisId>, Problem> {
        let named = |is_owner: &dyn Fn(&str, &str) -> bool| -> Vec<AxisId> {
            let is_meant = |axis: &AxisId| {
                let own = self.axis_name(*axis);
                let owner = || name.strip_suffix(own)?.strip_suffix('.');
                own == name || owner().is_some_and(|owner| is_owner(owner, self.owner_name(*axis)))
            };
            axes.clone().filter(is_meant).collect()
        };
        let mut matching = named(&|written, owner| written == owner);
        if matching.is_empty() && name.contains('.') {
            // A file that is included under a name writes its own stages without that name.
            matching = named(&|written, owner| split_namespace(owner).1 == written);
        }
        match matching.as_slice() {
            [] => Ok(None),
            [axis] => Ok(Some(*axis)),
            several => {
                let full: Vec<String> =
                    several.iter().map(|axis| format!("`{}.{name}`", self.owner_name(*axis))).collect();
                Err((format!("has several axes `{name}`"), Some(format!("write {}", full.join(" or ")))))
            }
        }
    }

    /// Says that none of these axes has this name.
    pub(crate) fn no_axis(self, axes: &[AxisId], name: &str) -> Problem {
        let mut known: Vec<&str> = Vec::new();
        for axis in axes {
            if !known.contains(&self.axis_name(*axis)) {
                known.push(self.axis_name(*axis));
            }
        }
        let help = nearest_or_all(name, "its axes", known).unwrap_or("it has no axes".to_owned());
        (format!("has no axis `{name}`"), Some(help))
    }

    /// Returns the nodes of a stage that the selectors of a reference leave.
    pub(crate) fn select(self, stage: usize, reference: &Reference) -> Result<Vec<usize>, Problem> {
        let mut selection = Selection::new(self, &reference.selectors);
        let of_stage = |error: SelectionError| error.of_stage(&reference.stage);
        let mut selected = Vec::new();
        for node in self.nodes_of(stage) {
            if selection.select(&self.nodes[*node].assignment).map_err(of_stage)?.is_some() {
                selected.push(*node);
            }
        }
        selection.finish().map_err(of_stage)?;
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
                let prefix = if is_shared { format!("{}.", self.owner_name(*axis)) } else { String::new() };
                format!("{prefix}{name}={}", self.variant_name(*axis, *variant))
            })
            .collect();
        format!("{}[{}]", stage, parts.join(","))
    }
}

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelectionError {
    /// The position of the selector.
    pub selector: usize,
    /// Whether its variant is wrong, not its axis.
    pub is_variant: bool,
    pub problem: Problem,
}

impl SelectionError {
    /// Says which stage has no such axis.
    pub(crate) fn of_stage(self, stage: &str) -> Problem {
        let (message, help) = self.problem;
        if self.is_variant { (message, help) } else { (format!("stage `{stage}` {message}"), help) }
    }
}

/// Selectors that are compared with one node after the other. A node that has no such axis or variant
/// is not selected; it is an error only if no node has it.
pub(crate) struct Selection<'a> {
    lookup: Lookup<'a>,
    selectors: &'a [(String, Choice)],
    /// The axes that each selector means, and whether one of them has its variant.
    meant: Vec<(Vec<AxisId>, bool)>,
    /// All axes of the nodes so far.
    axes: Vec<AxisId>,
    is_empty: bool,
}

impl<'a> Selection<'a> {
    pub(crate) fn new(lookup: Lookup<'a>, selectors: &'a [(String, Choice)]) -> Self {
        let meant = vec![(Vec::new(), false); selectors.len()];
        Self { lookup, selectors, meant, axes: Vec::new(), is_empty: true }
    }

    /// Returns the axis that each selector means in a node, if they select it.
    pub(crate) fn select(&mut self, assignment: &Assignment) -> Result<Option<Vec<AxisId>>, SelectionError> {
        self.is_empty = false;
        if self.selectors.is_empty() {
            return Ok(Some(Vec::new()));
        }
        for (axis, _) in assignment {
            if !self.axes.contains(axis) {
                self.axes.push(*axis);
            }
        }
        let mut axes = Vec::with_capacity(self.selectors.len());
        let mut are_selected = true;
        for (selector, (name, choice)) in self.selectors.iter().enumerate() {
            let error = |problem| SelectionError { selector, is_variant: false, problem };
            let Some(axis) = self.lookup.axis_in(assignment, name).map_err(error)? else {
                are_selected = false;
                continue;
            };
            if axes.contains(&axis) {
                return Err(error((format!("has its axis `{name}` selected twice"), None)));
            }
            axes.push(axis);
            let (meant, has_variant) = &mut self.meant[selector];
            if !meant.contains(&axis) {
                meant.push(axis);
            }
            if let Choice::One(wanted) = choice {
                let variant = self.lookup.axis(axis).position(wanted);
                *has_variant |= variant.is_some();
                are_selected &= variant.is_some_and(|variant| assignment.contains(&(axis, variant)));
            }
        }
        Ok(are_selected.then_some(axes))
    }

    /// Says which selector means nothing in any of the nodes.
    pub(crate) fn finish(self) -> Result<(), SelectionError> {
        if self.is_empty {
            return Ok(());
        }
        for (selector, ((name, choice), (meant, has_variant))) in
            self.selectors.iter().zip(&self.meant).enumerate()
        {
            match (choice, meant.as_slice()) {
                (_, []) => {
                    let problem = self.lookup.no_axis(&self.axes, name);
                    return Err(SelectionError { selector, is_variant: false, problem });
                }
                (Choice::One(wanted), [first, ..]) if !has_variant => {
                    let variants = meant.iter().flat_map(|axis| &self.lookup.axis(*axis).variants);
                    let names: Vec<&str> = variants.map(|variant| variant.name.as_str()).collect();
                    let message =
                        format!("axis `{}` has no variant `{wanted}`", self.lookup.axis_name(*first));
                    let problem = (message, nearest_or_all(wanted, "variants", names));
                    return Err(SelectionError { selector, is_variant: true, problem });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
