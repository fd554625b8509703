//! The stages of a plan as a graph, each with all its nodes.

use std::collections::BTreeSet;

use crate::plan::graph::Plan;

/// The stages of a plan and what flows between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageGraph {
    /// The stages that have nodes; inputs stand before what reads them.
    pub stages: Vec<PlannedStage>,
    /// What flows between them, each port once.
    pub edges: Vec<StageEdge>,
}

/// One stage with all its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its nodes, one for each combination of its axes.
    pub nodes: Vec<usize>,
}

/// An edge between two stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageEdge {
    /// The position of the stage that makes the artifact.
    pub from: usize,
    /// The position of the stage that reads it.
    pub to: usize,
    /// The port it enters by.
    pub port: String,
}

/// Returns the stages of a plan as a graph.
pub fn stage_graph(plan: &Plan) -> StageGraph {
    let by_stage = plan.by_stage();
    let mut order: Vec<usize> = (0..by_stage.len()).filter(|stage| !by_stage[*stage].is_empty()).collect();
    // Inputs stand before what reads them in the plan, so the first nodes give the order of stages.
    order.sort_by_key(|stage| by_stage[*stage].first().copied());
    let mut positions = vec![usize::MAX; by_stage.len()];
    for (position, stage) in order.iter().enumerate() {
        positions[*stage] = position;
    }
    let stages = order.iter().map(|stage| PlannedStage {
        name: plan.stage_name(*stage).to_owned(),
        kind: plan.kind_name(by_stage[*stage][0]).to_owned(),
        nodes: by_stage[*stage].clone(),
    });
    let mut edges = Vec::new();
    let mut seen: BTreeSet<(usize, usize, &str)> = BTreeSet::new();
    for node in plan.nodes() {
        for edge in node.inputs() {
            let (from, to) = (positions[plan.nodes()[edge.from].stage], positions[node.stage]);
            if seen.insert((from, to, &edge.port)) {
                edges.push(StageEdge { from, to, port: edge.port.to_string() });
            }
        }
    }
    StageGraph { stages: stages.collect(), edges }
}
