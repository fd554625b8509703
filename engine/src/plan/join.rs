//! What enters a stage: joined on shared axes, crossed on others, pinned or gathered.

use std::collections::{BTreeMap, BTreeSet};

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::load::{StageSpec, unknown_stage};
use crate::experiment::reference::{Choice, Reference};
use crate::kind::name::Name;
use crate::kind::stage::Ports;
use crate::plan::expand::{Combination, Draft, texts};
use crate::plan::graph::{Edge, Node};
use crate::toml::diagnostic::{Finding, nearest_or_all};
use crate::toml::value::{Content, Node as Toml, Table as TomlTable};

/// One artifact, or one of several gathered ones, on its way into a port.
#[derive(Clone)]
struct Arrival {
    assignment: Assignment,
    edges: Vec<(Option<String>, usize, String)>,
}

impl Draft<'_> {
    /// Joins everything that enters a stage: on shared axes equal, on others crossed.
    pub fn arrivals(
        &self,
        spec: &StageSpec,
        combination: &Combination<'_>,
        ports: &Ports,
        used: &mut BTreeSet<String>,
    ) -> Result<Vec<(Assignment, Vec<Edge>)>, Finding> {
        let nothing = TomlTable::new();
        let inputs = match combination.table.get("inputs").map(|entry| &entry.node) {
            None => &nothing,
            Some(node) => node.as_table().ok_or_else(|| {
                Finding::new(node.span.clone(), format!("`inputs` is a table, not {}", node.describe()))
                    .help("write `inputs = { PORT = \"STAGE\" }`")
            })?,
        };
        for port in ports.inputs.iter().filter(|port| port.arity.is_needed()) {
            let entry = inputs.get(&port.name);
            if entry.is_none_or(|entry| texts(&entry.node).is_empty()) {
                let inputs = combination.table.get("inputs").map(|entry| entry.key.clone());
                let span = entry.map(|entry| entry.node.span.clone()).or(inputs);
                let span = span.unwrap_or_else(|| spec.key.clone());
                let message = format!("stage `{}` needs an input `{}`", spec.name, port.name);
                let wants = format!("of type {}", port.accepts.describe());
                return Err(Finding::new(span, message).label(format!("needs `{}` {wants}", port.name)));
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
                Finding::new(entry.key.clone(), format!("stage `{}`: {invalid}", spec.name))
                    .label("names a port")
                    .help("a port is a folder `inputs/PORT` of the stage")
            })?;
            let is_list = matches!(entry.node.content, Content::List(_));
            if is_list && !arity.takes_several() {
                let message = format!("port `{name}` of stage `{}` takes one input, not a list", spec.name);
                return Err(Finding::new(entry.node.span.clone(), message));
            }
            for (position, item) in texts(&entry.node).into_iter().enumerate() {
                let arrivals = self.arrivals_of(item, spec, name)?;
                for (_, from, output) in arrivals.iter().flat_map(|arrival| &arrival.edges) {
                    let outputs = &self.nodes[*from].outputs;
                    let made = outputs.iter().find(|found| found.name == *output).expect("found above");
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
                        return Err(Finding::new(item.span.clone(), message)
                            .label(format!("wants {wanted}"))
                            .help(format!("its outputs: {}", all.join(", "))));
                    }
                }
                if !arity.takes_several() && arrivals.iter().any(|arrival| arrival.edges.len() > 1) {
                    let message =
                        format!("port `{name}` of stage `{}` takes one input and cannot gather", spec.name);
                    return Err(Finding::new(item.span.clone(), message));
                }
                let list_label = is_list.then(|| position.to_string());
                joined = join(joined, &arrivals, &port, list_label.as_deref());
            }
            if let Some(label) = joined.iter().find_map(|(_, edges)| repeated_label(edges, name)) {
                let message = format!("port `{name}` of stage `{}` gathers two `{label}`", spec.name);
                return Err(Finding::new(entry.node.span.clone(), message)
                    .help("gather over axes whose variants have different names"));
            }
        }
        Ok(joined)
    }

    /// Finds what a reference brings: one arrival per combination of the axes that stay.
    fn arrivals_of(&self, item: &Toml, spec: &StageSpec, port: &str) -> Result<Vec<Arrival>, Finding> {
        let Some(text) = item.as_text() else {
            let message =
                format!("port `{port}` of stage `{}` names a stage, not {}", spec.name, item.describe());
            return Err(Finding::new(item.span.clone(), message));
        };
        let reference = Reference::parse_at(text, item.span.clone())?;
        let Some(from) = self.stage_named(&reference.stage) else {
            return Err(unknown_stage(&reference.stage, item.span.clone(), self.stages));
        };
        let mut brought: Vec<(Vec<usize>, Arrival)> = Vec::new();
        for node in self.nodes_of(from) {
            let found = &self.nodes[*node];
            let output = self
                .output_of(found, &reference)
                .map_err(|finding| Finding { span: item.span.clone(), ..finding })?;
            let mut stays = found.assignment.clone();
            let mut gathered = Vec::new();
            let mut labels = Vec::new();
            let mut is_selected = true;
            for (name, choice) in &reference.selectors {
                let axis = self.axis_named(&found.assignment, name).map_err(|(problem, help)| {
                    Finding::new(item.span.clone(), format!("stage `{}` {problem}", reference.stage))
                        .maybe_help(help)
                })?;
                let position = stays.iter().position(|(id, _)| *id == axis);
                let Some(position) = position else {
                    let message = format!("stage `{}` is asked for its axis `{name}` twice", reference.stage);
                    return Err(Finding::new(item.span.clone(), message));
                };
                let (_, variant) = stays.remove(position);
                match choice {
                    Choice::All => {
                        gathered.push(variant);
                        labels.push(self.variant_name(axis, variant).to_owned());
                    }
                    Choice::One(wanted) => {
                        let wanted = self.variant_named(axis, wanted).map_err(|(problem, help)| {
                            Finding::new(item.span.clone(), problem).maybe_help(help)
                        })?;
                        is_selected &= variant == wanted;
                    }
                }
            }
            if !is_selected {
                continue;
            }
            let label = (!labels.is_empty()).then(|| labels.join("/"));
            let edge = (label, *node, output.to_owned());
            brought.push((gathered, Arrival { assignment: stays, edges: vec![edge] }));
        }
        // Gathered in the order in which the axes declare their variants, whatever the order in
        // which the axes themselves are written.
        brought.sort_by(|a, b| a.0.cmp(&b.0));
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut places: BTreeMap<Assignment, usize> = BTreeMap::new();
        for (gathered, arrival) in brought {
            match places.get(&arrival.assignment) {
                Some(place) => arrivals[*place].edges.extend(arrival.edges),
                None => {
                    if !gathered.is_empty() {
                        places.insert(arrival.assignment.clone(), arrivals.len());
                    }
                    arrivals.push(arrival);
                }
            }
        }
        if arrivals.is_empty() {
            let message = format!("`{text}` selects nothing of stage `{}`", reference.stage);
            return Err(Finding::new(item.span.clone(), message)
                .help("its `only` or `except` leaves this combination out"));
        }
        Ok(arrivals)
    }

    fn output_of<'n>(&self, node: &'n Node, reference: &Reference) -> Result<&'n str, Finding> {
        let found = match &reference.output {
            None => node.outputs.first(),
            Some(name) => node.outputs.iter().find(|output| output.name == *name),
        };
        found.map(|output| output.name.as_str()).ok_or_else(|| {
            let name = reference.output.as_deref().unwrap_or_default();
            let names = node.outputs.iter().map(|output| output.name.as_str());
            Finding::new(0..0, format!("stage `{}` has no output `{name}`", reference.stage))
                .maybe_help(nearest_or_all(name, "its outputs", names))
        })
    }
}

/// Joins what is there with what arrives at one more port.
fn join(
    there: Vec<(Assignment, Vec<Edge>)>,
    arrivals: &[Arrival],
    port: &Name,
    list_label: Option<&str>,
) -> Vec<(Assignment, Vec<Edge>)> {
    // Sought by the axes that all have, or joining long axes would take their product.
    let axes_of = |assignment: &Assignment| assignment.iter().map(|(axis, _)| *axis).collect::<BTreeSet<_>>();
    let all =
        there.iter().map(|(assignment, _)| assignment).chain(arrivals.iter().map(|found| &found.assignment));
    let shared = all.map(axes_of).reduce(|a, b| &a & &b).unwrap_or_default();
    let place = |assignment: &Assignment| -> Vec<(AxisId, usize)> {
        let mut place: Vec<_> =
            assignment.iter().filter(|(axis, _)| shared.contains(axis)).copied().collect();
        place.sort_unstable();
        place
    };
    let mut by_place: BTreeMap<_, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        by_place.entry(place(&arrival.assignment)).or_default().push(arrival);
    }
    let mut joined = Vec::new();
    for (assignment, edges) in there {
        for arrival in by_place.get(&place(&assignment)).into_iter().flatten() {
            let agrees = arrival
                .assignment
                .iter()
                .all(|(axis, variant)| assignment.iter().all(|(id, found)| id != axis || found == variant));
            if !agrees {
                continue;
            }
            let mut all = assignment.clone();
            for pair in &arrival.assignment {
                if !all.contains(pair) {
                    all.push(*pair);
                }
            }
            let mut edges = edges.clone();
            for (label, from, output) in &arrival.edges {
                let label = label.clone().or_else(|| list_label.map(str::to_owned));
                edges.push(Edge { port: port.clone(), label, from: *from, output: output.clone() });
            }
            joined.push((all, edges));
        }
    }
    joined
}

/// Returns a label that two inputs of one port have: they would lie in one folder.
fn repeated_label<'e>(edges: &'e [Edge], port: &str) -> Option<&'e str> {
    let mut seen = BTreeSet::new();
    edges
        .iter()
        .filter(|edge| edge.port.as_str() == port)
        .filter_map(|edge| edge.label.as_deref())
        .find(|label| !seen.insert(*label))
}
