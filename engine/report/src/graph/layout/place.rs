//! Places the nodes of a graph in layers, after Sugiyama, Tagawa and Toda, 1981.
//!
//! Layers by longest path; order within a layer by sweeps of barycentres, keeping the best; places
//! by least squares towards the neighbours, which for a fixed order is isotonic regression and takes
//! linear time. Everything is bounded by the number of nodes and edges: a long edge gets a bend in
//! every layer only while there are not too many bends in all.

use crate::graph::layout::across::across;
use crate::graph::layout::geometry::{Direction, Layout, LayoutInput, Link, Point, Size};
use crate::graph::layout::order::{Chain, Flow, Order};

/// Is the width up to which a drawing runs to the right: that of a page.
const PAGE: f64 = 1000.0;
const BEND: f64 = 6.0;

/// Returns the places of everything: to the right if that fits a page, or else downwards if that is
/// narrower.
pub(crate) fn place(graph: &LayoutInput) -> Layout {
    let order = Order::of(graph);
    let right = placed(graph, &order, Direction::Right);
    if right.size.width <= PAGE {
        return right;
    }
    let down = placed(graph, &order, Direction::Down);
    if down.size.width < right.size.width { down } else { right }
}

fn placed(graph: &LayoutInput, order: &Order, direction: Direction) -> Layout {
    let grid = LayerGrid::of(graph, order, direction);
    let nodes = 0..graph.sizes.len();
    let far = (grid.across.iter().zip(&grid.sizes))
        .map(|(across, size)| across + size.across / 2.0)
        .fold(0.0, f64::max);
    let along = grid.starts.last().zip(grid.depths.last()).map_or(0.0, |(start, depth)| start + depth);
    let far = direction.point(along, far);
    Layout {
        direction,
        size: Size { width: far.x, height: far.y },
        centres: nodes.map(|node| direction.point(grid.middle(node), grid.across[node])).collect(),
        routes: routes(graph, &grid),
    }
}

/// Holds the places in terms of layers: along them and across them.
struct LayerGrid<'a> {
    order: &'a Order,
    direction: Direction,
    /// Lists the extents of all vertices.
    sizes: Vec<Extent>,
    /// Lists the centres of all vertices across the layers.
    across: Vec<f64>,
    /// Lists where each layer starts, and how deep it is.
    starts: Vec<f64>,
    depths: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    along: f64,
    across: f64,
}

impl<'a> LayerGrid<'a> {
    fn of(graph: &LayoutInput, order: &'a Order, direction: Direction) -> Self {
        let node = |size: &Size| match direction {
            Direction::Right => Extent { along: size.width, across: size.height },
            Direction::Down => Extent { along: size.height, across: size.width },
        };
        let mut sizes: Vec<Extent> = graph.sizes.iter().map(node).collect();
        sizes.resize(order.before.len(), Extent { along: 0.0, across: BEND });
        let extents: Vec<f64> = sizes.iter().map(|size| size.across).collect();
        let across = across(order, &extents, graph.sizes.len());
        let depth = |layer: &Vec<usize>| layer.iter().map(|&vertex| sizes[vertex].along).fold(0.0, f64::max);
        let depths: Vec<f64> = order.layers.iter().map(depth).collect();
        let starts = starts(order, &depths, &across);
        Self { order, direction, sizes, across, starts, depths }
    }

    /// Returns where a vertex's layer starts and ends.
    fn layer(&self, vertex: usize) -> (f64, f64) {
        let layer = self.order.layer_of[vertex];
        (self.starts[layer], self.starts[layer] + self.depths[layer])
    }

    fn middle(&self, vertex: usize) -> f64 {
        let (start, end) = self.layer(vertex);
        (start + end) / 2.0
    }
}

/// Returns where each layer starts. A gap is wider where edges have far to go across it.
fn starts(order: &Order, depths: &[f64], across: &[f64]) -> Vec<f64> {
    let mut at = 0.0;
    let mut starts = Vec::with_capacity(depths.len());
    for (layer, depth) in order.layers.iter().zip(depths) {
        starts.push(at);
        let steps = layer.iter().flat_map(|&vertex| {
            order.after[vertex].iter().map(move |&next| (across[next] - across[vertex]).abs())
        });
        at += depth + (34.0 + 0.1 * steps.fold(0.0, f64::max)).clamp(44.0, 140.0);
    }
    starts
}

fn routes(graph: &LayoutInput, grid: &LayerGrid) -> Vec<Vec<Point>> {
    let docks = Docks::of(graph, grid);
    let point = |along: f64, across: f64| grid.direction.point(along, across);
    let route = |(at, (&link, chain)): (usize, (&Link, &Chain))| {
        let (from, to) = chain.ends(link);
        let (leave, enter) = (docks.leaving[at], docks.entering[at]);
        // Borders of narrow nodes lie inside their layer, where wider ones must not be crossed.
        let border = grid.middle(from) + grid.sizes[from].along / 2.0;
        let mut route = vec![point(border, leave), point(grid.layer(from).1, leave)];
        for &bend in &chain.bends {
            let (start, end) = grid.layer(bend);
            route.extend([point(start, grid.across[bend]), point(end, grid.across[bend])]);
        }
        let border = grid.middle(to) - grid.sizes[to].along / 2.0;
        route.extend([point(grid.layer(to).0, enter), point(border, enter)]);
        if chain.flow == Flow::Back {
            route.reverse();
        }
        route
    };
    graph.links.iter().zip(&grid.order.chains).enumerate().map(route).collect()
}

/// Holds where links leave and enter, spread over the borders of the nodes in the order of their
/// other ends, so that arrow heads do not lie on one another.
struct Docks {
    leaving: Vec<f64>,
    entering: Vec<f64>,
}

impl Docks {
    fn of(graph: &LayoutInput, grid: &LayerGrid) -> Self {
        let mut leaves: Vec<Vec<(f64, usize)>> = vec![Vec::new(); graph.sizes.len()];
        let mut enters = leaves.clone();
        for (at, (&link, chain)) in graph.links.iter().zip(&grid.order.chains).enumerate() {
            let (from, to) = chain.ends(link);
            let second = chain.bends.first().copied().unwrap_or(to);
            let last = chain.bends.last().copied().unwrap_or(from);
            leaves[from].push((grid.across[second], at));
            enters[to].push((grid.across[last], at));
        }
        let spread = |sides: Vec<Vec<(f64, usize)>>| {
            let mut docks = vec![0.0; graph.links.len()];
            for (node, mut side) in sides.into_iter().enumerate() {
                side.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let steps = side.len().saturating_sub(1) as f64;
                let width = (12.0 * steps).min(grid.sizes[node].across * 0.6);
                for (place, (_, at)) in side.into_iter().enumerate() {
                    let part = if steps > 0.0 { place as f64 / steps - 0.5 } else { 0.0 };
                    docks[at] = grid.across[node] + part * width;
                }
            }
            docks
        };
        Self { leaving: spread(leaves), entering: spread(enters) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(count: usize, pairs: &[(usize, usize)]) -> LayoutInput {
        let links = pairs.iter().map(|&(from, to)| Link { from, to }).collect();
        LayoutInput { sizes: vec![Size { width: 100.0, height: 40.0 }; count], links }
    }

    #[test]
    fn short_graphs_run_to_the_right() {
        let placed = place(&graph(2, &[(0, 1)]));
        assert_eq!(placed.direction, Direction::Right);
        assert_eq!(placed.centres, [Point { x: 50.0, y: 20.0 }, Point { x: 194.0, y: 20.0 }]);
    }

    #[test]
    fn long_graphs_run_down() {
        let chain: Vec<(usize, usize)> = (1..20).map(|at| (at - 1, at)).collect();
        let placed = place(&graph(20, &chain));
        assert_eq!(placed.direction, Direction::Down);
        assert_eq!(placed.size.width, 100.0);
    }

    #[test]
    fn routes_go_from_border_to_border() {
        let placed = place(&graph(2, &[(0, 1), (1, 0)]));
        let ends = |route: &Vec<Point>| (route[0].x, route[route.len() - 1].x);
        assert_eq!(ends(&placed.routes[0]), (100.0, 144.0));
        assert_eq!(ends(&placed.routes[1]), (144.0, 100.0));
    }

    #[test]
    fn docks_are_spread() {
        let placed = place(&graph(3, &[(0, 2), (1, 2)]));
        let into: Vec<f64> = placed.routes.iter().map(|route| route[route.len() - 1].y).collect();
        assert_eq!(into[1] - into[0], 12.0);
    }
}
