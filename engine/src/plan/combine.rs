//! A stage's own axes multiplied out: one variant of each, merged over the stage's table.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::experiment::axes::{Assignment, Axis, AxisId, Variant};
use crate::experiment::combinations::Combination;
use crate::experiment::layers::Choices;
use crate::experiment::reference::Choice;
use crate::experiment::spec::StageSpec;
use crate::plan::wanted::Lists;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, TomlTable, Value};

/// More than this many nodes of one stage is a mistake in its axes.
pub(crate) const MOST_NODES_PER_STAGE: usize = 100_000;

/// One own variant per axis of a stage, with its table.
pub(crate) struct OwnCombination<'a> {
    pub assignment: Assignment,
    pub table: Cow<'a, TomlTable>,
    /// Whether `only` and `except` leave it out whatever the axes of its inputs are.
    pub is_ruled_out: bool,
    /// Says that one of its axes reaches into a choice that another made otherwise.
    pub contradiction: Option<Diagnostic>,
}

/// For each axis of a stage, its variant. None where the axis does not exist.
type Variants = Vec<Option<usize>>;

/// Multiplies a stage's own axes out, the last one fastest.
pub(crate) fn combine<'a>(
    stage: usize,
    spec: &'a StageSpec,
    lists: &Lists,
    sources: &SourceMap,
) -> Result<Vec<OwnCombination<'a>>, Diagnostic> {
    for (position, axis) in spec.axes.iter().enumerate() {
        check_condition(spec, position, axis)?;
    }
    let mut pairs = CheckedPairs { spec, sources, leaves: Vec::new(), checked: BTreeSet::new() };
    let mut combinations = Vec::new();
    for variants in multiply(spec)? {
        let is_ruled_out = is_listed(spec, &lists.except, &variants) == Some(true)
            || lists.only.as_ref().is_some_and(|only| is_listed(spec, only, &variants) == Some(false));
        if !is_ruled_out {
            pairs.check(&variants)?;
        }
        let assignment = variants.iter().enumerate();
        let assignment =
            assignment.filter_map(|(axis, variant)| Some((AxisId::Stage(stage, axis), (*variant)?)));
        let (mut table, contradiction) = merged(spec, &variants, sources);
        match (spec.pick(&mut table), contradiction.clone()) {
            (Ok(()), _) => {}
            // Nobody wants it, so it need not make sense.
            (Err(_), _) if is_ruled_out => continue,
            (Err(diagnostic), contradiction) => return Err(contradiction.unwrap_or(diagnostic)),
        }
        combinations.push(OwnCombination {
            assignment: assignment.collect(),
            table,
            is_ruled_out,
            contradiction,
        });
    }
    Ok(combinations)
}

/// Returns the table of one node: the stage's, overlaid with the node's own variants.
pub(crate) fn table_of(spec: &StageSpec, stage: usize, assignment: &Assignment) -> TomlTable {
    let mut variants: Variants = vec![None; spec.axes.len()];
    for (axis, variant) in assignment {
        match axis {
            AxisId::Stage(of, position) if *of == stage => variants[*position] = Some(*variant),
            _ => {}
        }
    }
    let mut table = spec.table.clone();
    for (axis, variant) in in_order(spec, &variants) {
        spec.overlay(&mut table, axis, variant);
    }
    let mut table = Cow::Owned(table);
    // What cannot be picked was reported when the node was planned.
    let _ = spec.pick(&mut table);
    table.into_owned()
}

/// Returns all combinations in which each axis exists where its `only` says so. What its `only` says of
/// the axes of inputs is not known here.
fn multiply(spec: &StageSpec) -> Result<Vec<Variants>, Diagnostic> {
    let mut all: Vec<Variants> = vec![Vec::new()];
    for axis in &spec.axes {
        let absent = axis.only.is_some().then_some(None);
        let options: Vec<Option<usize>> =
            absent.into_iter().chain((0..axis.variants.len()).map(Some)).collect();
        if all.len() * options.len() > 2 * MOST_NODES_PER_STAGE {
            return Err(too_many(spec));
        }
        let longer = |variants: Variants| {
            let options = options.clone();
            options.into_iter().map(move |option| {
                let mut variants = variants.clone();
                variants.push(option);
                variants
            })
        };
        all = all.into_iter().flat_map(longer).filter(|variants| exist(spec, variants)).collect();
        if all.len() > MOST_NODES_PER_STAGE {
            return Err(too_many(spec));
        }
    }
    Ok(all)
}

/// Says that a stage has more nodes than it may.
pub(crate) fn too_many(spec: &StageSpec) -> Diagnostic {
    let message =
        format!("the axes of stage `{}` make more than {MOST_NODES_PER_STAGE} combinations", spec.name);
    Diagnostic::new(spec.key.clone(), message).help("leave some out with `only`")
}

/// Returns whether the axes may exist together, as far as it is known.
fn exist(spec: &StageSpec, variants: &Variants) -> bool {
    spec.axes.iter().zip(variants).all(|(axis, variant)| match &axis.only {
        Some(only) => is_listed(spec, only, variants).is_none_or(|holds| holds == variant.is_some()),
        None => true,
    })
}

/// Returns whether a combination of a stage's own variants is listed. None if other axes decide.
fn is_listed(spec: &StageSpec, list: &[Combination], variants: &Variants) -> Option<bool> {
    let mut is_open = false;
    for combination in list {
        let mut matches = Some(true);
        for (name, choice) in &combination.selectors {
            let axis = spec.own_axis(name).and_then(|axis| Some((&spec.axes[axis], variants.get(axis)?)));
            match (axis, choice) {
                (Some((axis, variant)), Choice::One(wanted)) => {
                    if variant.is_none() || axis.position(wanted) != *variant {
                        matches = Some(false);
                        break;
                    }
                }
                (Some(_), Choice::All) => {}
                (None, _) => matches = None,
            }
        }
        match matches {
            Some(true) => return Some(true),
            Some(false) => {}
            None => is_open = true,
        }
    }
    (!is_open).then_some(false)
}

/// Checks what an axis says of its own stage's axes for which it exists.
fn check_condition(spec: &StageSpec, position: usize, axis: &Axis) -> Result<(), Diagnostic> {
    for combination in axis.only.iter().flatten() {
        for ((name, choice), (name_span, variant_span)) in
            combination.selectors.iter().zip(&combination.spans)
        {
            let (Some(other), Choice::One(wanted)) = (spec.own_axis(name), choice) else {
                continue;
            };
            if depends_on(spec, other, position, &mut BTreeSet::new()) {
                let message =
                    format!("whether axis `{}` of stage `{}` exists depends on itself", axis.name, spec.name);
                return Err(Diagnostic::new(name_span.clone(), message)
                    .help("its `only` names other axes, whose own `only` does not name it"));
            }
            let other = &spec.axes[other];
            if other.position(wanted).is_none() {
                let names = other.variants.iter().map(|variant| variant.name.as_str());
                let message = format!("axis `{}` has no variant `{wanted}`", other.name);
                return Err(Diagnostic::new(variant_span.clone(), message)
                    .maybe_help(nearest_or_all(wanted, "variants", names)));
            }
        }
    }
    Ok(())
}

/// Returns whether an axis is another, or exists only for variants of it, directly or through others.
fn depends_on(spec: &StageSpec, axis: usize, other: usize, seen: &mut BTreeSet<usize>) -> bool {
    axis == other
        || seen.insert(axis)
            && spec.axes[axis]
                .only
                .iter()
                .flatten()
                .flat_map(|combination| &combination.selectors)
                .filter_map(|(name, _)| spec.own_axis(name))
                .any(|next| depends_on(spec, next, other, seen))
}

/// Returns the axes that exist, in the order in which they are merged over the table: scalar ones last,
/// since they change a field of what a named one chose.
fn in_order<'a>(spec: &'a StageSpec, variants: &Variants) -> impl Iterator<Item = (&'a Axis, usize)> {
    let there =
        || spec.axes.iter().zip(variants.clone()).filter_map(|(axis, variant)| Some((axis, variant?)));
    there().filter(|(axis, _)| !axis.is_scalar()).chain(there().filter(|(axis, _)| axis.is_scalar()))
}

/// Merges variants over a stage's table, and says whether one of them reaches into a choice that
/// another axis made otherwise.
fn merged<'a>(
    spec: &'a StageSpec,
    variants: &Variants,
    sources: &SourceMap,
) -> (Cow<'a, TomlTable>, Option<Diagnostic>) {
    let mut table = Cow::Borrowed(&spec.table);
    let mut contradiction = None;
    let mut before: Vec<(&Axis, usize)> = Vec::new();
    for (axis, variant) in in_order(spec, variants) {
        if let Some((field, _)) = &axis.field {
            let new = || contradicts(spec, &table, (axis, field), &before, sources);
            contradiction = contradiction.or_else(new);
        }
        spec.overlay(table.to_mut(), axis, variant);
        before.push((axis, variant));
    }
    (table, contradiction)
}

/// Says that the field of a scalar axis lies in a choice that another axis made otherwise.
fn contradicts(
    spec: &StageSpec,
    table: &TomlTable,
    (axis, field): (&Axis, &[String]),
    before: &[(&Axis, usize)],
    sources: &SourceMap,
) -> Option<Diagnostic> {
    let is_inside = |choice: &&Vec<String>| field.len() > choice.len() + 1 && field.starts_with(choice);
    for choice in spec.choices.iter().filter(is_inside) {
        let chosen = match at(table, choice).map(|value| &value.content) {
            Some(Content::Table(chosen)) => chosen.keys().next().map(String::as_str),
            Some(Content::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        // The choice, and the method that the field belongs to.
        let wanted = &field[..=choice.len()];
        let Some(chosen) = chosen.filter(|chosen| *chosen != field[choice.len()]) else {
            continue;
        };
        let leaves_of = |(axis, variant): (&Axis, usize)| leaves(&axis.variants[variant].overlay);
        let touches = |of: (&Axis, usize)| {
            leaves_of(of).into_iter().find(|(path, _)| path.starts_with(choice)).map(|(_, span)| span)
        };
        let Some((other, variant, span)) = before
            .iter()
            .rev()
            .find_map(|(axis, variant)| Some((*axis, *variant, touches((*axis, *variant))?)))
        else {
            continue;
        };
        let choice = choice.join(".");
        let message = format!(
            "axis `{}` of stage `{}` sets `{}`, but its axis `{}` chooses `{choice}.{chosen}` for `{}`",
            axis.name,
            spec.name,
            field.join("."),
            other.name,
            other.variants[variant].name,
        );
        let fits =
            |variant: &&Variant| leaves(&variant.overlay).iter().any(|(path, _)| path.starts_with(wanted));
        let place = sources.line(&span);
        let help = match other.variants.iter().find(fits) {
            Some(fitting) => format!(
                "let it exist where it fits: `only = {{ {} = \"{}\" }}` beside `values`; `{chosen}` is chosen \
                 in {place}",
                other.name, fitting.name
            ),
            None => format!(
                "`{chosen}` is chosen in {place}; change one of them, or leave these out with `except`"
            ),
        };
        let (_, span) = axis.field.as_ref().expect("a scalar axis has a field");
        return Some(
            Diagnostic::new(span.clone(), message).label("is no field of what was chosen").help(help),
        );
    }
    None
}

fn at<'a>(table: &'a TomlTable, place: &[String]) -> Option<&'a Value> {
    let (first, rest) = place.split_first()?;
    table.get(first)?.value.at(rest)
}

/// A path from a stage's table, and where it is written.
type Leaf = (Vec<String>, Span);

/// Returns all that a table sets: its values, and its empty tables, which choose a method without
/// parameters.
fn leaves(table: &TomlTable) -> Vec<Leaf> {
    fn below(table: &TomlTable, place: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
        for (name, entry) in table {
            place.push(name.clone());
            match &entry.value.content {
                Content::Table(inside) if !inside.is_empty() => below(inside, place, leaves),
                _ => leaves.push((place.clone(), entry.key.clone())),
            }
            place.pop();
        }
    }
    let mut all = Vec::new();
    below(table, &mut Vec::new(), &mut all);
    all
}

/// Checks that no two axes of a stage set the same, each pair of variants once.
struct CheckedPairs<'a> {
    spec: &'a StageSpec,
    sources: &'a SourceMap,
    /// For each axis and variant, what it sets. Filled when there is a pair.
    leaves: Vec<Vec<Vec<Leaf>>>,
    checked: BTreeSet<[(usize, usize); 2]>,
}

impl CheckedPairs<'_> {
    fn check(&mut self, variants: &Variants) -> Result<(), Diagnostic> {
        // All variants of a scalar axis set one field.
        let representative = |(axis, variant): (usize, &Option<usize>)| {
            let variant = (*variant)?;
            Some((axis, if self.spec.axes[axis].is_scalar() { 0 } else { variant }))
        };
        let there: Vec<(usize, usize)> = variants.iter().enumerate().filter_map(representative).collect();
        if there.len() > 1 && self.leaves.is_empty() {
            let of_axis = |axis: &Axis| match &axis.field {
                Some((field, span)) => vec![vec![(field.clone(), span.clone())]],
                None => axis.variants.iter().map(|variant| leaves(&variant.overlay)).collect(),
            };
            self.leaves = self.spec.axes.iter().map(of_axis).collect();
        }
        for (position, first) in there.iter().enumerate() {
            for second in &there[position + 1..] {
                if self.checked.insert([*first, *second]) {
                    self.check_pair(*first, *second)?;
                }
            }
        }
        Ok(())
    }

    fn check_pair(&self, first: (usize, usize), second: (usize, usize)) -> Result<(), Diagnostic> {
        let (one, other) = (&self.spec.axes[first.0], &self.spec.axes[second.0]);
        for (path, span) in &self.leaves[first.0][first.1] {
            for (other_path, other_span) in &self.leaves[second.0][second.1] {
                let are_scalar = (one.is_scalar(), other.is_scalar());
                if !collide((path, other_path), are_scalar, &self.spec.choices) {
                    continue;
                }
                let (path, other_path) = (path.join("."), other_path.join("."));
                let message = if path == other_path {
                    format!(
                        "axis `{}` of stage `{}` sets `{path}`, which its axis `{}` sets too",
                        other.name, self.spec.name, one.name
                    )
                } else {
                    format!(
                        "axis `{}` of stage `{}` sets `{other_path}`, which replaces or is replaced by \
                         `{path}` of its axis `{}`",
                        other.name, self.spec.name, one.name
                    )
                };
                let place = self.sources.line(span);
                let help = format!(
                    "`{}` sets `{path}` in {place}: take it out of one of the two axes, or leave these \
                     combinations out with `except`",
                    one.name
                );
                return Err(Diagnostic::new(other_span.clone(), message).label("is set twice").help(help));
            }
        }
        Ok(())
    }
}

/// Returns whether what two axes set excludes the other. A scalar axis may change a field of what
/// a variant of the other chose.
fn collide(
    (path, other): (&[String], &[String]),
    (is_scalar, is_other_scalar): (bool, bool),
    choices: &Choices,
) -> bool {
    let mut is_inside = false;
    for choice in choices.iter().filter(|choice| path.starts_with(choice) && other.starts_with(choice)) {
        let is_deep = |path: &[String]| path.len() > choice.len() + 1;
        match (is_scalar, is_other_scalar) {
            (false, false) => return true,
            (true, false) if is_deep(path) => is_inside = true,
            (false, true) if is_deep(other) => is_inside = true,
            (true, true) if is_deep(path) && is_deep(other) => {}
            _ => return true,
        }
    }
    !is_inside && (path.starts_with(other) || other.starts_with(path))
}
