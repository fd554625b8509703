//! Rows by name: which nodes each is made of, before it is known which columns they fill.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::reference::Reference;
use crate::experiment::spec::unknown_stage;
use crate::experiment::table_layers::{Part, Removed};
use crate::experiment::table_spec::{RowSpec, TableSpec};
use crate::plan::lookup::Lookup;
use crate::plan::table::template::Template;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::Spanned;

/// A row, and the nodes that its cells can come from.
#[derive(Debug, Clone)]
pub(crate) struct DraftRow {
    pub label: String,
    /// The label without the axes that make more rows of it.
    pub base: String,
    pub suffix: Suffix,
    /// The name of the published row beside it.
    pub published: String,
    /// Where the row is named.
    pub span: Span,
    /// In the order of its references; empty for a row that is only published.
    pub sources: Vec<Source>,
}

/// The axes that make more rows of one, each with a variant.
pub(crate) type Suffix = Vec<(String, String)>;

/// Nodes of one stage, over which cells are averaged.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub stage: usize,
    pub nodes: Vec<usize>,
}

/// Plans the rows of a table.
pub(crate) fn plan_rows(
    spec: &TableSpec,
    lookup: Lookup<'_>,
    sources: &SourceMap,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<DraftRow> {
    let mut planner = RowPlanner { spec, lookup, diagnostics };
    planner.check_average();
    let mut rows = match &spec.rows {
        Some(rows) => rows.iter().flat_map(|row| planner.rows_of(row)).collect(),
        None => planner.default_rows(),
    };
    planner.add_more_sources(&mut rows);
    planner.remove(&mut rows);
    diagnostics.extend(equal_labels(&rows, sources));
    rows
}

/// Returns the published names of the rows that were removed.
pub(crate) fn removed_rows(spec: &TableSpec, lookup: Lookup<'_>) -> Vec<String> {
    // What is wrong with a row that was removed does no harm.
    let mut diagnostics = Vec::new();
    let mut planner = RowPlanner { spec, lookup, diagnostics: &mut diagnostics };
    let rows: Vec<DraftRow> = spec.removed_rows.iter().flat_map(|row| planner.rows_of(row)).collect();
    rows.into_iter().flat_map(|row| [row.base, row.label, row.published]).collect()
}

struct RowPlanner<'a> {
    spec: &'a TableSpec,
    lookup: Lookup<'a>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

/// The nodes of one reference that belong to one row.
struct Item {
    base: String,
    suffix: Suffix,
    published: String,
    reference: usize,
    source: Source,
}

impl<'a> RowPlanner<'a> {
    fn complain(&mut self, span: &Span, message: impl Into<String>, help: Option<String>) {
        self.diagnostics.push(Diagnostic::new(span.clone(), message).maybe_help(help));
    }

    fn check_average(&mut self) {
        let known = self.lookup.axis_names();
        for name in &self.spec.average {
            if !known.contains(&name.text) {
                let help = nearest_or_all(&name.text, "axes", known.iter().map(String::as_str));
                let message = format!("there is no axis `{}` to average over", name.text);
                self.complain(&name.span, message, help);
            }
        }
    }

    fn is_averaged(&self, axis: AxisId) -> bool {
        let name = self.lookup.axis_name(axis);
        self.lookup.is_seed_axis(axis) || self.spec.average.iter().any(|average| average.text == name)
    }

    /// Returns the rows of one name.
    fn rows_of(&mut self, row: &RowSpec) -> Vec<DraftRow> {
        let template = Template::parse(&row.name);
        let published = row.published.as_ref().map_or_else(|| template.clone(), Template::parse);
        let (template, published) = match (template, published) {
            (Ok(template), Ok(published)) => (template, published),
            (template, published) => {
                self.diagnostics.extend(template.err());
                self.diagnostics.extend(published.err());
                return Vec::new();
            }
        };
        if row.from.is_empty() {
            return self.published_row(row, &template, &published).into_iter().collect();
        }
        let mut items = Vec::new();
        for (reference, from) in row.from.iter().enumerate() {
            let Some((stage, nodes)) = self.stage_of(from) else { return Vec::new() };
            let places = [(&row.name.span, &template), (row.published_span(), &published)];
            for (span, template) in places {
                if !self.check_axes(span, template, stage, &nodes) {
                    return Vec::new();
                }
            }
            items.extend(self.items_of(&template, &published, reference, &Source { stage, nodes }));
        }
        joined(&items, &row.name.span)
    }

    /// Adds the stages that make more columns for all rows: to each row those of their nodes that have
    /// the variants of the row's own nodes.
    fn add_more_sources(&mut self, rows: &mut [DraftRow]) {
        for from in &self.spec.also_from {
            let Some((stage, nodes)) = self.stage_of(from) else { continue };
            let mut is_used = false;
            for row in rows.iter_mut() {
                let Some(first) = row.sources.first() else { continue };
                let belongs = |node: usize| {
                    let assignment = self.assignment(node);
                    first.nodes.iter().any(|own| {
                        let own = self.assignment(*own);
                        assignment.iter().all(|variant| own.contains(variant))
                    })
                };
                let nodes: Vec<usize> = nodes.iter().copied().filter(|node| belongs(*node)).collect();
                if !nodes.is_empty() {
                    is_used = true;
                    row.sources.push(Source { stage, nodes });
                }
            }
            if !is_used && !rows.is_empty() {
                let message = format!("`{}` has no node with the variants of any row", from.text);
                let help = "it must read what the stages of the rows read, so that it has their axes";
                self.complain(&from.span, message, Some(help.to_owned()));
            }
        }
    }

    fn published_row(&mut self, row: &RowSpec, name: &Template, published: &Template) -> Option<DraftRow> {
        if name.axes().chain(published.axes()).next().is_some() {
            let message = format!("row `{}` has axes in its name and no `from`", row.name.text);
            self.complain(&row.name.span, message, Some("say with `from` which stage has them".to_owned()));
            return None;
        }
        Some(DraftRow {
            label: row.name.text.clone(),
            base: row.name.text.clone(),
            suffix: Vec::new(),
            published: published.fill(&[]),
            span: row.name.span.clone(),
            sources: Vec::new(),
        })
    }

    /// Checks that the stage has the axes of a name.
    fn check_axes(&mut self, span: &Span, template: &Template, stage: usize, nodes: &[usize]) -> bool {
        for name in template.axes() {
            let mut is_somewhere = false;
            for node in nodes {
                match self.lookup.axis_in(self.assignment(*node), name) {
                    Ok(axis) => is_somewhere |= axis.is_some(),
                    Err((problem, help)) => {
                        let message = format!("stage `{}` {problem}", self.lookup.stage_name(stage));
                        self.complain(span, message, help);
                        return false;
                    }
                }
            }
            if !is_somewhere {
                let (problem, help) = self.lookup.no_axis(&self.lookup.axes_of(nodes), name);
                let message = format!("stage `{}` {problem}", self.lookup.stage_name(stage));
                self.complain(span, message, help);
                return false;
            }
        }
        true
    }

    /// Divides the nodes of a reference into rows: by the axes in the name, then by all others that
    /// are not averaged.
    fn items_of(
        &self,
        name: &Template,
        published: &Template,
        reference: usize,
        source: &Source,
    ) -> Vec<Item> {
        // A node without an axis of the name belongs to no row of it.
        let place = |node: usize| -> Option<Vec<(AxisId, usize)>> {
            name.axes().chain(published.axes()).map(|axis| self.variant_in(node, axis)).collect()
        };
        let mut items = Vec::new();
        for (place, nodes) in grouped(&source.nodes, place) {
            let variants: Vec<&str> =
                place.iter().map(|(axis, variant)| self.lookup.variant_name(*axis, *variant)).collect();
            let (of_name, of_published) = variants.split_at(name.axes().count());
            let named: Vec<AxisId> = place.iter().map(|(axis, _)| *axis).collect();
            let others: Vec<AxisId> = self.varying(&nodes).filter(|axis| !named.contains(axis)).collect();
            let rest = |node: usize| -> Option<Vec<Option<usize>>> {
                Some(others.iter().map(|axis| variant_of(self.assignment(node), *axis)).collect())
            };
            for (rest, nodes) in grouped(&nodes, rest) {
                let suffix = others.iter().zip(rest).filter_map(|(axis, variant)| {
                    let variant = self.lookup.variant_name(*axis, variant?);
                    Some((self.lookup.axis_name(*axis).to_owned(), variant.to_owned()))
                });
                items.push(Item {
                    base: name.fill(of_name),
                    suffix: suffix.collect(),
                    published: published.fill(of_published),
                    reference,
                    source: Source { stage: source.stage, nodes },
                });
            }
        }
        items
    }

    /// Returns the axes in which some nodes differ, but for those that are averaged.
    fn varying(&self, nodes: &[usize]) -> impl Iterator<Item = AxisId> {
        let varies = |axis: &AxisId| {
            let first = variant_of(self.assignment(nodes[0]), *axis);
            nodes.iter().any(|node| variant_of(self.assignment(*node), *axis) != first)
        };
        self.lookup.axes_of(nodes).into_iter().filter(move |axis| varies(axis) && !self.is_averaged(*axis))
    }

    /// Makes the rows of a table that names none: one for each combination of the axes of the stages
    /// that make its columns.
    fn default_rows(&mut self) -> Vec<DraftRow> {
        let mut sources: Vec<Source> = Vec::new();
        for from in &self.spec.from {
            let Some((stage, nodes)) = self.stage_of(from) else { return Vec::new() };
            sources.push(Source { stage, nodes });
        }
        if self.spec.from.is_empty() {
            let stages = self.stages_with_columns();
            sources = stages
                .into_iter()
                .map(|stage| Source { stage, nodes: self.lookup.nodes_of(stage).to_vec() })
                .collect();
        }
        sources.retain(|source| !source.nodes.is_empty());
        let rows: Vec<Vec<(String, Vec<usize>)>> =
            sources.iter().map(|source| self.default_rows_of(source)).collect();
        // Two stages that make the same number for the same variants need two rows.
        let mut producers: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (at, (source, rows)) in sources.iter().zip(&rows).enumerate() {
            for column in self.columns_of(source) {
                for (label, _) in rows {
                    producers.entry((label, column)).or_default().push(at);
                }
            }
        }
        let collide: BTreeSet<usize> = producers.into_values().filter(|at| at.len() > 1).flatten().collect();
        let mut drafts: IndexMap<String, DraftRow> = IndexMap::new();
        for (at, (source, rows)) in sources.iter().zip(&rows).enumerate() {
            let stage = self.lookup.stage_name(source.stage);
            for (label, nodes) in rows {
                let is_prefixed = collide.contains(&at) && label != stage;
                let label = if is_prefixed { format!("{stage}/{label}") } else { label.clone() };
                let draft = drafts.entry(label.clone()).or_insert_with(|| DraftRow {
                    base: label.clone(),
                    published: label.clone(),
                    label,
                    suffix: Vec::new(),
                    span: self.spec.span.clone(),
                    sources: Vec::new(),
                });
                if draft.sources.iter().any(|other| other.stage == source.stage) {
                    let message = format!("two rows would have the label `{}`", draft.label);
                    let help = "name the rows: `[table.rows.\"{axis}\"]` with `from`".to_owned();
                    let diagnostic = Diagnostic::new(self.spec.span.clone(), message).help(help);
                    self.diagnostics.push(diagnostic);
                    return Vec::new();
                }
                draft.sources.push(Source { stage: source.stage, nodes: nodes.clone() });
            }
        }
        drafts.into_values().collect()
    }

    fn default_rows_of(&self, source: &Source) -> Vec<(String, Vec<usize>)> {
        let axes: Vec<AxisId> = self.varying(&source.nodes).collect();
        let place = |node: usize| -> Option<Vec<Option<usize>>> {
            Some(axes.iter().map(|axis| variant_of(self.assignment(node), *axis)).collect())
        };
        let label = |place: &[Option<usize>]| {
            let variants = axes.iter().zip(place);
            let names: Vec<&str> = variants
                .filter_map(|(axis, variant)| Some(self.lookup.variant_name(*axis, (*variant)?)))
                .collect();
            if names.is_empty() { self.lookup.stage_name(source.stage).to_owned() } else { names.join("/") }
        };
        grouped(&source.nodes, place).into_iter().map(|(place, nodes)| (label(&place), nodes)).collect()
    }

    /// Returns the stages that make the columns of the table, or, if it names none, those with numbers
    /// that nothing reads.
    fn stages_with_columns(&mut self) -> Vec<usize> {
        let all = 0..self.lookup.stage_count();
        let with_columns: Vec<usize> = all
            .filter(|stage| {
                let nodes = self.lookup.nodes_of(*stage).to_vec();
                !self.columns_of(&Source { stage: *stage, nodes }).is_empty()
            })
            .collect();
        if self.spec.columns.list.is_some() {
            return with_columns;
        }
        let mut is_read = vec![false; self.lookup.stage_count()];
        for edge in self.lookup.nodes.iter().flat_map(|node| &node.inputs) {
            is_read[self.lookup.nodes[edge.from].stage] = true;
        }
        let unread: Vec<usize> = with_columns.iter().copied().filter(|stage| !is_read[*stage]).collect();
        if with_columns.is_empty() {
            let help = "stages of kind `evaluate` make numbers, and commands that declare `columns`";
            let message = "no stage makes numbers for a table";
            self.complain(&self.spec.span.clone(), message, Some(help.to_owned()));
        }
        if unread.is_empty() { with_columns } else { unread }
    }

    /// Returns the columns of a source that the table would show.
    fn columns_of(&self, source: &Source) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        let nodes = source.nodes.iter().map(|node| &self.lookup.nodes[*node]);
        for column in nodes.flat_map(|node| &node.outputs).flat_map(|output| &output.columns) {
            let is_shown = match &self.spec.columns.list {
                Some(list) => list.iter().any(|shown| shown.metric.text == column.name),
                None => column.is_default,
            };
            if is_shown && !names.contains(&column.name.as_str()) {
                names.push(&column.name);
            }
        }
        names
    }

    /// Finds the stage of a reference, and the nodes that it selects.
    fn stage_of(&mut self, from: &Spanned) -> Option<(usize, Vec<usize>)> {
        let reference = Reference::parse_at(&from.text, from.span.clone());
        let reference = reference.map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()?;
        let Some(stage) = self.lookup.stage_named(&reference.stage) else {
            let unknown = unknown_stage(&reference.stage, from.span.clone(), self.lookup.stages);
            self.diagnostics.push(unknown);
            return None;
        };
        match self.lookup.select(stage, &reference) {
            // The stage itself is wrong, and has been reported.
            Ok(nodes) if nodes.is_empty() => None,
            Ok(nodes) => Some((stage, nodes)),
            Err((message, help)) => {
                self.complain(&from.span, message, help);
                None
            }
        }
    }

    /// Takes the rows off that are removed by their labels.
    fn remove(&mut self, rows: &mut Vec<DraftRow>) {
        let removed: Vec<&Removed> =
            self.spec.removed.iter().filter(|removed| removed.part == Part::Rows).collect();
        let mut of_removed: Option<Vec<String>> = None;
        for removed in removed.into_iter().filter(|removed| removed.is_pending) {
            let count = rows.len();
            let labels: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
            rows.retain(|row| row.label != removed.name && row.base != removed.name);
            let of_removed = of_removed.get_or_insert_with(|| removed_rows(self.spec, self.lookup));
            if rows.len() == count && self.diagnostics.is_empty() && !of_removed.contains(&removed.name) {
                let message = format!("there is no row `{}` to remove", removed.name);
                let help = nearest_or_all(&removed.name, "rows", labels.iter().map(String::as_str));
                self.diagnostics.push(
                    Diagnostic::new(removed.span.clone(), message).label("removes nothing").maybe_help(help),
                );
            }
        }
    }

    fn assignment(&self, node: usize) -> &'a Assignment {
        &self.lookup.nodes[node].assignment
    }

    fn variant_in(&self, node: usize, name: &str) -> Option<(AxisId, usize)> {
        let axis = self.lookup.axis_in(self.assignment(node), name).ok().flatten()?;
        Some((axis, variant_of(self.assignment(node), axis)?))
    }
}

impl RowSpec {
    fn published_span(&self) -> &Span {
        self.published.as_ref().map_or(&self.name.span, |published| &published.span)
    }
}

/// Refuses two rows of one label.
fn equal_labels(rows: &[DraftRow], sources: &SourceMap) -> Option<Diagnostic> {
    let mut labels: BTreeMap<&str, &Span> = BTreeMap::new();
    let (row, other) = rows.iter().find_map(|row| Some((row, labels.insert(&row.label, &row.span)?)))?;
    let message = if *other == row.span {
        format!("two rows would have the label `{}`", row.label)
    } else {
        format!("row `{}` is there already: {} makes it", row.label, sources.line(other))
    };
    let help = "give one of them another name, or `remove` it: a label means one row";
    Some(Diagnostic::new(row.span.clone(), message).help(help))
}

/// Makes rows of the nodes of all references. A reference whose nodes lack an axis that others have
/// fills all rows of its variants.
fn joined(items: &[Item], span: &Span) -> Vec<DraftRow> {
    let mut by_base: IndexMap<&str, Vec<&Item>> = IndexMap::new();
    for item in items {
        by_base.entry(&item.base).or_default().push(item);
    }
    let mut rows = Vec::new();
    for items in by_base.values() {
        let is_covered = |item: &Item| {
            items.iter().any(|other| {
                other.suffix.len() > item.suffix.len()
                    && other.reference != item.reference
                    && is_within(&item.suffix, &other.suffix)
            })
        };
        for (at, item) in items.iter().enumerate() {
            let is_repeated = items[..at]
                .iter()
                .any(|other| other.reference != item.reference && other.suffix == item.suffix);
            if !is_repeated && !is_covered(item) {
                rows.push(row_of(item, items, span));
            }
        }
    }
    rows
}

/// Makes the row of an item, with what other references have for it.
fn row_of(item: &Item, items: &[&Item], span: &Span) -> DraftRow {
    let axes: String = item.suffix.iter().map(|(axis, variant)| format!(", {axis}={variant}")).collect();
    let belongs = |other: &Item| {
        std::ptr::eq(other, item)
            || other.reference != item.reference && is_within(&other.suffix, &item.suffix)
    };
    DraftRow {
        label: format!("{}{axes}", item.base),
        base: item.base.clone(),
        suffix: item.suffix.clone(),
        published: item.published.clone(),
        span: span.clone(),
        sources: items.iter().filter(|other| belongs(other)).map(|other| other.source.clone()).collect(),
    }
}

/// Returns whether all of the first stands in the second.
pub(crate) fn is_within(suffix: &Suffix, other: &Suffix) -> bool {
    suffix.iter().all(|part| other.contains(part))
}

fn variant_of(assignment: &Assignment, axis: AxisId) -> Option<usize> {
    assignment.iter().find(|(id, _)| *id == axis).map(|(_, variant)| *variant)
}

/// Groups nodes by what a function says of each, in the order of what it says, which is the order in
/// which axes declare their variants. Leaves out nodes of which it says nothing.
fn grouped<K: Ord>(nodes: &[usize], key: impl Fn(usize) -> Option<K>) -> Vec<(K, Vec<usize>)> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for node in nodes {
        if let Some(key) = key(*node) {
            groups.entry(key).or_default().push(*node);
        }
    }
    groups.into_iter().collect()
}
