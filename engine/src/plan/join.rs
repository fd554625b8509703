//! What enters a stage: joined on shared axes, crossed on others, pinned or gathered.

use std::collections::{BTreeMap, BTreeSet};

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::reference::{Choice, Reference};
use crate::experiment::spec::{StageSpec, unknown_stage};
use crate::kind::name::Name;
use crate::kind::ports::Ports;
use crate::plan::lookup::{Lookup, Selection, SelectionError};
use crate::plan::node::{Edge, Node};
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::{Content, TomlTable, Value as TomlValue};

/// What one item of a port brings for one combination of axes: an artifact, or several gathered ones.
#[derive(Clone)]
struct JoinedInput {
    assignment: Assignment,
    edges: Vec<(Option<String>, usize, String)>,
}

/// Joins everything that enters a stage: on shared axes equal, on others crossed.
pub(crate) fn join_inputs(
    lookup: Lookup<'_>,
    spec: &StageSpec,
    table: &TomlTable,
    ports: &Ports,
    used: &mut BTreeSet<String>,
) -> Result<Vec<(Assignment, Vec<Edge>)>, Diagnostic> {
    let nothing = TomlTable::new();
    let inputs = match table.get("inputs").map(|entry| &entry.value) {
        None => &nothing,
        Some(node) => node.as_table().ok_or_else(|| {
            Diagnostic::new(node.span.clone(), format!("`inputs` is a table, not {}", node.describe()))
                .help("write `inputs = { PORT = \"STAGE\" }`")
        })?,
    };
    for port in ports.inputs.iter().filter(|port| port.arity.is_needed()) {
        let entry = inputs.get(&port.name);
        if entry.is_none_or(|entry| entry.value.items().is_empty()) {
            let inputs = table.get("inputs").map(|entry| entry.key.clone());
            let span = entry.map(|entry| entry.value.span.clone()).or(inputs);
            let span = span.unwrap_or_else(|| spec.key.clone());
            let message = format!("stage `{}` needs an input `{}`", spec.name, port.name);
            let wants = format!("of type {}", port.accepts.describe());
            return Err(Diagnostic::new(span, message).label(format!("needs `{}` {wants}", port.name)));
        }
    }
    let mut joined: Vec<(Assignment, Vec<Edge>)> = vec![(Vec::new(), Vec::new())];
    // By name, for the order of inputs in the text means nothing.
    let mut inputs: Vec<_> = inputs.iter().collect();
    inputs.sort_by_key(|(name, _)| *name);
    for (name, entry) in inputs {
        let Some((accepts, arity)) = ports.port(name) else {
            // Kept for the complaint about inputs that no variant uses.
            continue;
        };
        used.insert(name.clone());
        // Ports that a kind declares are named well; others are named by whoever writes them.
        let port = Name::new(name).map_err(|invalid| {
            Diagnostic::new(entry.key.clone(), format!("stage `{}`: {invalid}", spec.name))
                .label("names a port")
                .help("a port is a folder `inputs/PORT` of the stage")
        })?;
        let is_list = matches!(entry.value.content, Content::List(_));
        if is_list && !arity.takes_several() {
            let message = format!("port `{name}` of stage `{}` takes one input, not a list", spec.name);
            return Err(Diagnostic::new(entry.value.span.clone(), message));
        }
        for (position, item) in entry.value.items().iter().enumerate() {
            let joined_inputs = resolve_input(lookup, item, spec, name)?;
            for (_, from, output) in joined_inputs.iter().flat_map(|input| &input.edges) {
                let outputs = &lookup.nodes[*from].outputs;
                let made = outputs.iter().find(|port| port.name == *output).expect("found above");
                if !accepts.takes(&made.artifact_type) {
                    let (wanted, made) = (accepts.describe(), &made.artifact_type);
                    let message = format!(
                        "port `{name}` of stage `{}` wants {wanted}, but `{}` makes {made}",
                        spec.name,
                        item.as_text().unwrap_or_default()
                    );
                    let all: Vec<String> = outputs
                        .iter()
                        .map(|output| format!("`{}` ({})", output.name, output.artifact_type))
                        .collect();
                    return Err(Diagnostic::new(item.span.clone(), message)
                        .label(format!("wants {wanted}"))
                        .help(format!("its outputs: {}", all.join(", "))));
                }
            }
            if !arity.takes_several() && joined_inputs.iter().any(|input| input.edges.len() > 1) {
                let message =
                    format!("port `{name}` of stage `{}` takes one input and cannot gather", spec.name);
                return Err(Diagnostic::new(item.span.clone(), message));
            }
            let list_label = is_list.then(|| position.to_string());
            joined = join(joined, &joined_inputs, &port, list_label.as_deref());
        }
        if let Some(label) = joined.iter().find_map(|(_, edges)| repeated_label(edges, name)) {
            let message = format!("port `{name}` of stage `{}` gathers two `{label}`", spec.name);
            return Err(Diagnostic::new(entry.value.span.clone(), message)
                .help("gather over axes whose variants have different names"));
        }
    }
    Ok(joined)
}

/// Finds what a reference brings: one input per combination of the axes that stay.
fn resolve_input(
    lookup: Lookup<'_>,
    item: &TomlValue,
    spec: &StageSpec,
    port: &str,
) -> Result<Vec<JoinedInput>, Diagnostic> {
    let Some(text) = item.as_text() else {
        let message =
            format!("port `{port}` of stage `{}` names a stage, not {}", spec.name, item.describe());
        return Err(Diagnostic::new(item.span.clone(), message));
    };
    let reference = Reference::parse_at(text, item.span.clone())?;
    let Some(from) = lookup.stage_named(&reference.stage) else {
        return Err(unknown_stage(&reference.stage, item.span.clone(), lookup.stages));
    };
    let mut brought: Vec<(Vec<usize>, JoinedInput)> = Vec::new();
    let mut selection = Selection::new(lookup, &reference.selectors);
    let wrong = |error: SelectionError| {
        let (message, help) = error.of_stage(&reference.stage);
        Diagnostic::new(item.span.clone(), message).maybe_help(help)
    };
    for position in lookup.nodes_of(from) {
        let node = &lookup.nodes[*position];
        let output = output_of(node, &reference)
            .map_err(|diagnostic| Diagnostic { span: item.span.clone(), ..diagnostic })?;
        let Some(axes) = selection.select(&node.assignment).map_err(wrong)? else {
            continue;
        };
        let mut stays = node.assignment.clone();
        let mut gathered = Vec::new();
        let mut labels = Vec::new();
        for ((_, choice), axis) in reference.selectors.iter().zip(axes) {
            let position = stays.iter().position(|(id, _)| *id == axis).expect("an axis of the node");
            let (_, variant) = stays.remove(position);
            if *choice == Choice::All {
                gathered.push(variant);
                labels.push(lookup.variant_name(axis, variant).to_owned());
            }
        }
        let label = (!labels.is_empty()).then(|| labels.join("/"));
        let edge = (label, *position, output.to_owned());
        brought.push((gathered, JoinedInput { assignment: stays, edges: vec![edge] }));
    }
    selection.finish().map_err(wrong)?;
    // Gathered in the order in which the axes declare their variants, whatever the order in
    // which the axes themselves are written.
    brought.sort_by(|a, b| a.0.cmp(&b.0));
    let mut joined_inputs: Vec<JoinedInput> = Vec::new();
    let mut places: BTreeMap<Assignment, usize> = BTreeMap::new();
    for (gathered, input) in brought {
        if gathered.is_empty() {
            joined_inputs.push(input);
            continue;
        }
        // Nodes with different axes may have the same ones in another order.
        let mut place = input.assignment.clone();
        place.sort_unstable();
        match places.get(&place) {
            Some(place) => joined_inputs[*place].edges.extend(input.edges),
            None => {
                places.insert(place, joined_inputs.len());
                joined_inputs.push(input);
            }
        }
    }
    if joined_inputs.is_empty() {
        let message = format!("`{text}` selects nothing of stage `{}`", reference.stage);
        return Err(Diagnostic::new(item.span.clone(), message)
            .help("its `only` or `except` leaves this combination out"));
    }
    Ok(joined_inputs)
}

fn output_of<'n>(node: &'n Node, reference: &Reference) -> Result<&'n str, Diagnostic> {
    let port = match &reference.output {
        None => node.outputs.first(),
        Some(name) => node.outputs.iter().find(|output| output.name == *name),
    };
    port.map(|output| output.name.as_str()).ok_or_else(|| {
        let name = reference.output.as_deref().unwrap_or_default();
        let names = node.outputs.iter().map(|output| output.name.as_str());
        Diagnostic::new(0..0, format!("stage `{}` has no output `{name}`", reference.stage))
            .maybe_help(nearest_or_all(name, "its outputs", names))
    })
}

/// Joins what is there with what arrives at one more port.
fn join(
    there: Vec<(Assignment, Vec<Edge>)>,
    joined_inputs: &[JoinedInput],
    port: &Name,
    list_label: Option<&str>,
) -> Vec<(Assignment, Vec<Edge>)> {
    // Sought by the axes that all have, or joining long axes would take their product.
    let axes_of = |assignment: &Assignment| assignment.iter().map(|(axis, _)| *axis).collect::<BTreeSet<_>>();
    let all = there
        .iter()
        .map(|(assignment, _)| assignment)
        .chain(joined_inputs.iter().map(|input| &input.assignment));
    let shared = all.map(axes_of).reduce(|a, b| &a & &b).unwrap_or_default();
    let place = |assignment: &Assignment| -> Vec<(AxisId, usize)> {
        let mut place: Vec<_> =
            assignment.iter().filter(|(axis, _)| shared.contains(axis)).copied().collect();
        place.sort_unstable();
        place
    };
    let mut by_place: BTreeMap<_, Vec<&JoinedInput>> = BTreeMap::new();
    for input in joined_inputs {
        by_place.entry(place(&input.assignment)).or_default().push(input);
    }
    let mut joined = Vec::new();
    for (assignment, edges) in there {
        for input in by_place.get(&place(&assignment)).into_iter().flatten() {
            let agrees = input
                .assignment
                .iter()
                .all(|(axis, variant)| assignment.iter().all(|(id, other)| id != axis || other == variant));
            if !agrees {
                continue;
            }
            let mut all = assignment.clone();
            for pair in &input.assignment {
                if !all.contains(pair) {
                    all.push(*pair);
                }
            }
            let mut edges = edges.clone();
            for (label, from, output) in &input.edges {
                let label = label.clone().or_else(|| list_label.map(str::to_owned));
                edges.push(Edge { port: port.clone(), label, from: *from, output: output.clone() });
            }
            joined.push((all, edges));
        }
    }
    joined
}

/// Returns a label that two inputs of one port share: they would need the same folder.
fn repeated_label<'e>(edges: &'e [Edge], port: &str) -> Option<&'e str> {
    let mut seen = BTreeSet::new();
    edges
        .iter()
        .filter(|edge| edge.port.as_str() == port)
        .filter_map(|edge| edge.label.as_deref())
        .find(|label| !seen.insert(*label))
}
