//! What the engine makes as the plain values that `report` renders.

use engine::{Plan, stage_graph};
use report::{graph, table};

/// Returns a finished table as a value to render.
pub(crate) fn table(finished: &engine::Table) -> table::Table {
    table::Table {
        name: finished.name.clone(),
        title: finished.title.clone(),
        columns: finished.columns.iter().map(column).collect(),
        rows: finished.rows.iter().map(row).collect(),
        deltas: finished.deltas.iter().map(delta).collect(),
        notes: finished.notes.clone(),
    }
}

fn column(column: &engine::Column) -> table::Column {
    table::Column {
        name: column.name.clone(),
        label: column.label.clone(),
        digits: column.digits,
        better: column.better.map(|better| match better {
            engine::Better::Higher => table::Better::Higher,
            engine::Better::Lower => table::Better::Lower,
        }),
    }
}

fn row(row: &engine::Row) -> table::Row {
    table::Row {
        label: row.label.clone(),
        origin: match &row.origin {
            engine::RowOrigin::Made { stage } => table::RowOrigin::Made { stage: stage.clone() },
            engine::RowOrigin::PublishedOnly => table::RowOrigin::PublishedOnly,
        },
        cells: row.cells.iter().map(cell).collect(),
    }
}

fn cell(cell: &engine::Cell) -> table::Cell {
    let provenance = cell.provenance.iter().map(|provenance| table::Provenance {
        stage: provenance.stage.clone(),
        artifact: provenance.artifact.clone(),
        path: provenance.path.clone(),
    });
    table::Cell {
        value: match &cell.value {
            engine::CellValue::Number(number) => table::CellValue::Number(*number),
            engine::CellValue::Mean { mean, std, n } => {
                table::CellValue::Mean { mean: *mean, std: *std, n: *n }
            }
            engine::CellValue::Absent { reason } => table::CellValue::Absent { reason: reason.clone() },
            engine::CellValue::Missing { reason } => table::CellValue::Missing { reason: reason.clone() },
        },
        published: cell.published,
        provenance: provenance.collect(),
        definition: cell.definition.clone(),
        differs: cell.differs.clone(),
    }
}

fn delta(delta: &engine::Delta) -> table::Delta {
    let cells = delta.cells.iter().map(|cell| table::DeltaCell {
        ours: cell.ours,
        is_absent: cell.is_absent,
        published: cell.published,
        printed: cell.printed,
        printed_scale: cell.printed_scale,
    });
    table::Delta { label: delta.label.clone(), cells: cells.collect() }
}

/// Returns the stages of a plan as a graph to draw, each with the most urgent state of its nodes.
pub(crate) fn graph(plan: &Plan, states: &[graph::State]) -> graph::Graph {
    let stages = stage_graph(plan);
    let urgency = |state: &graph::State| match state {
        graph::State::Failed => 4,
        graph::State::Run => 3,
        graph::State::Maybe => 2,
        graph::State::Unknown => 1,
        graph::State::Hit => 0,
    };
    let nodes = stages.stages.into_iter().map(|stage| graph::Node {
        copies: stage.nodes.len(),
        state: stage
            .nodes
            .iter()
            .map(|node| states[*node])
            .max_by_key(urgency)
            .unwrap_or(graph::State::Unknown),
        name: stage.name,
        kind: stage.kind.clone(),
    });
    let edges =
        stages.edges.into_iter().map(|edge| graph::Edge { from: edge.from, to: edge.to, port: edge.port });
    graph::Graph { title: plan.experiment().title(), nodes: nodes.collect(), edges: edges.collect() }
}
