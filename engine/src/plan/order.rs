//! The order of stages: inputs first, and no cycles.

use std::collections::BTreeMap;

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use crate::experiment::reference::Reference;
use crate::experiment::spec::Experiment;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;

/// Sorts stages so that inputs come first; reports cycles.
pub(crate) fn order(experiment: &Experiment) -> (Vec<usize>, Vec<Diagnostic>) {
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let indices: Vec<_> = (0..experiment.stages.len()).map(|stage| graph.add_node(stage)).collect();
    let mut edges: BTreeMap<(usize, usize), Span> = BTreeMap::new();
    for (stage, spec) in experiment.stages.values().enumerate() {
        let of_variants = spec.axes.iter().flat_map(|axis| &axis.variants).map(|variant| &variant.overlay);
        for table in std::iter::once(&spec.table).chain(of_variants) {
            let inputs = table.get("inputs").and_then(|entry| entry.value.as_table());
            for node in inputs.into_iter().flatten().flat_map(|(_, entry)| entry.value.items()) {
                let reference = node.as_text().and_then(|text| Reference::parse(text).ok());
                if let Some(from) =
                    reference.and_then(|reference| experiment.stages.get_index_of(&reference.stage))
                {
                    edges.entry((from, stage)).or_insert_with(|| node.span.clone());
                }
            }
        }
    }
    for (from, to) in edges.keys() {
        graph.add_edge(indices[*from], indices[*to], ());
    }
    let mut order = Vec::new();
    let mut diagnostics = Vec::new();
    // Tarjan gives components so that what depends on them comes before them.
    for component in tarjan_scc(&graph).into_iter().rev() {
        let mut stages: Vec<usize> = component.into_iter().map(|index| graph[index]).collect();
        stages.sort_unstable();
        let is_cycle = stages.len() > 1 || edges.contains_key(&(stages[0], stages[0]));
        if !is_cycle {
            order.push(stages[0]);
            continue;
        }
        let names: Vec<String> =
            stages.iter().map(|stage| format!("`{}`", experiment.stages[*stage].name)).collect();
        let inside = edges.iter().find(|((from, to), _)| stages.contains(from) && stages.contains(to));
        let span = inside.map_or(0..0, |(_, span)| span.clone());
        let message = match names.as_slice() {
            [only] => format!("stage {only} is its own input"),
            several => format!("stages {} depend on each other", several.join(", ")),
        };
        diagnostics.push(
            Diagnostic::new(span, message)
                .label("closes the cycle")
                .help("an input must be made before the stage that reads it"),
        );
    }
    (order, diagnostics)
}
