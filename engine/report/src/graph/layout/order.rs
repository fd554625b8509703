//! The layers of a graph and the order within them.

use crate::graph::layout::geometry::{LayoutInput, Link};

/// Holds nodes and bends in their layers. Vertices below the number of nodes are nodes, the others
/// are bends.
pub(crate) struct Order {
    pub layers: Vec<Vec<usize>>,
    pub before: Vec<Vec<usize>>,
    pub after: Vec<Vec<usize>>,
    pub layer_of: Vec<usize>,
    /// Lists for each link the vertices from its earlier to its later end.
    pub chains: Vec<Chain>,
}

pub(crate) struct Chain {
    pub bends: Vec<usize>,
    pub flow: Flow,
}

impl Chain {
    /// Returns the earlier and the later end of the chain's link.
    pub(super) fn ends(&self, link: Link) -> (usize, usize) {
        match self.flow {
            Flow::Forth => (link.from, link.to),
            Flow::Back => (link.to, link.from),
        }
    }
}

/// Says whether a link runs with the layers, or back against them to close a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Forth,
    Back,
}

impl Order {
    pub(super) fn of(graph: &LayoutInput) -> Self {
        let count = graph.sizes.len();
        let flows = flows(count, &graph.links);
        let arcs: Vec<Link> = (graph.links.iter().zip(&flows))
            .map(|(link, flow)| match flow {
                Flow::Forth => *link,
                Flow::Back => Link { from: link.to, to: link.from },
            })
            .collect();
        let layer_of = layers(count, &arcs);
        let mut order = Self {
            layers: Vec::new(),
            before: vec![Vec::new(); count],
            after: vec![Vec::new(); count],
            layer_of,
            chains: flows.iter().map(|&flow| Chain { bends: Vec::new(), flow }).collect(),
        };
        order.bend(&arcs);
        order.layers = vec![Vec::new(); order.layer_of.iter().max().map_or(0, |last| last + 1)];
        let joined = |&vertex: &usize| !(order.before[vertex].is_empty() && order.after[vertex].is_empty());
        let (joined, alone): (Vec<usize>, Vec<usize>) = (0..order.before.len()).partition(joined);
        for vertex in joined {
            order.layers[order.layer_of[vertex]].push(vertex);
        }
        order.untangle();
        for vertex in alone {
            // Last, where nothing has to run around it.
            order.layers[order.layer_of[vertex]].push(vertex);
        }
        order
    }

    /// Joins the ends of all arcs, short ones first, with a bend in every layer between them. Those
    /// left when the bends are used up are drawn straight and do not count in the order.
    fn bend(&mut self, arcs: &[Link]) {
        let mut budget = 20_000 + 4 * self.before.len();
        let span = |arc: &Link| self.layer_of[arc.to] - self.layer_of[arc.from];
        let mut by_span: Vec<(usize, usize)> =
            arcs.iter().enumerate().map(|(at, arc)| (span(arc), at)).collect();
        by_span.sort_unstable();
        for (span, at) in by_span {
            if span - 1 > budget {
                return;
            }
            budget -= span - 1;
            let Link { from, to } = arcs[at];
            let mut last = from;
            for step in 1..span {
                let bend = self.before.len();
                self.before.push(Vec::new());
                self.after.push(Vec::new());
                self.layer_of.push(self.layer_of[from] + step);
                self.chains[at].bends.push(bend);
                self.join(last, bend);
                last = bend;
            }
            self.join(last, to);
        }
    }

    fn join(&mut self, from: usize, to: usize) {
        self.after[from].push(to);
        self.before[to].push(from);
    }

    /// Sorts every layer by the barycentres of its neighbours, to and fro, and keeps the order with
    /// the fewest crossings. It starts from the order of the file, which often means something.
    fn untangle(&mut self) {
        let weight = self.before.len() + self.before.iter().map(Vec::len).sum::<usize>();
        let sweeps = (2_000_000 / weight.max(1)).clamp(4, 24);
        let mut ranks = vec![0; self.before.len()];
        for layer in &self.layers {
            rank(&mut ranks, layer);
        }
        let mut fewest = self.crossings(&ranks);
        let mut best = self.layers.clone();
        for sweep in 0..sweeps {
            if fewest == 0 {
                break;
            }
            let forth = sweep % 2 == 0;
            for step in 0..self.layers.len() {
                let at = if forth { step } else { self.layers.len() - 1 - step };
                let neighbours = if forth { &self.before } else { &self.after };
                let layer = &mut self.layers[at];
                sort_by_barycentre(layer, neighbours, &ranks);
                rank(&mut ranks, layer);
            }
            let crossings = self.crossings(&ranks);
            if crossings < fewest {
                fewest = crossings;
                best.clone_from(&self.layers);
            }
        }
        self.layers = best;
    }

    fn crossings(&self, ranks: &[usize]) -> usize {
        let between = |layer: &Vec<usize>| {
            let mut ends = Vec::new();
            for &vertex in layer {
                let start = ends.len();
                ends.extend(self.after[vertex].iter().map(|&next| ranks[next]));
                ends[start..].sort_unstable();
            }
            inversions(&ends)
        };
        self.layers.iter().map(between).sum()
    }
}

/// Returns for each link whether it closes a cycle, found by a walk without recursion: a graph may
/// be deeper than the stack.
fn flows(count: usize, links: &[Link]) -> Vec<Flow> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (at, link) in links.iter().enumerate() {
        leaving[link.from].push(at);
    }
    let mut flows = vec![Flow::Forth; links.len()];
    let mut marks = vec![Mark::New; count];
    for root in 0..count {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let Some(&at) = leaving[*node].get(*next) else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            let to = links[at].to;
            match marks[to] {
                Mark::New => {
                    marks[to] = Mark::Open;
                    path.push((to, 0));
                }
                Mark::Open => flows[at] = Flow::Back,
                Mark::Done => {}
            }
        }
    }
    flows
}

/// Returns the layer of each node: the length of the longest path to it. A node without inputs
/// stands just before its first reader, or data used late would cross the whole drawing.
fn layers(count: usize, arcs: &[Link]) -> Vec<usize> {
    let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut waiting = vec![0_usize; count];
    for arc in arcs {
        leaving[arc.from].push(arc.to);
        waiting[arc.to] += 1;
    }
    let roots: Vec<usize> = (0..count).filter(|&node| waiting[node] == 0).collect();
    let mut layers = vec![0; count];
    let mut ready = roots.clone();
    while let Some(node) = ready.pop() {
        for &next in &leaving[node] {
            layers[next] = layers[next].max(layers[node] + 1);
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    for root in roots {
        if let Some(first) = leaving[root].iter().map(|&next| layers[next]).min() {
            layers[root] = first - 1;
        }
    }
    layers
}

pub(crate) fn rank(ranks: &mut [usize], layer: &[usize]) {
    for (rank, &vertex) in layer.iter().enumerate() {
        ranks[vertex] = rank;
    }
}

fn sort_by_barycentre(layer: &mut [usize], neighbours: &[Vec<usize>], ranks: &[usize]) {
    let centre = |vertex: usize| match neighbours[vertex].len() {
        // Nothing pulls at it; it stays where it is.
        0 => ranks[vertex] as f64,
        count => neighbours[vertex].iter().map(|&next| ranks[next]).sum::<usize>() as f64 / count as f64,
    };
    layer.sort_by_cached_key(|&vertex| Ordered(centre(vertex)));
}

/// Orders finite numbers.
#[derive(PartialEq)]
pub(crate) struct Ordered(pub f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Counts the pairs that stand in the wrong order, with a Fenwick tree.
fn inversions(values: &[usize]) -> usize {
    let mut tree = vec![0_usize; values.iter().max().map_or(0, |most| most + 2)];
    let mut count = 0;
    for (seen, &value) in values.iter().enumerate() {
        let mut not_above = 0;
        let mut at = value + 1;
        while at > 0 {
            not_above += tree[at];
            at &= at - 1;
        }
        count += seen - not_above;
        let mut at = value + 1;
        while at < tree.len() {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::layout::geometry::Size;

    fn links(pairs: &[(usize, usize)]) -> Vec<Link> {
        pairs.iter().map(|&(from, to)| Link { from, to }).collect()
    }

    #[test]
    fn layers_are_longest_paths() {
        assert_eq!(layers(4, &links(&[(0, 1), (1, 2), (0, 2), (3, 2)])), [0, 1, 2, 1]);
    }

    #[test]
    fn a_cycle_has_one_link_back() {
        let flows = flows(3, &links(&[(0, 1), (1, 2), (2, 0)]));
        assert_eq!(flows, [Flow::Forth, Flow::Forth, Flow::Back]);
    }

    #[test]
    fn long_links_bend_in_every_layer() {
        let sizes = vec![Size { width: 100.0, height: 40.0 }; 4];
        let order = Order::of(&LayoutInput { sizes, links: links(&[(0, 1), (1, 2), (2, 3), (0, 3)]) });
        assert_eq!(order.chains[3].bends.len(), 2);
        assert_eq!(order.layers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 2, 1]);
    }

    #[test]
    fn a_tangle_is_untangled() {
        let sizes = vec![Size { width: 100.0, height: 40.0 }; 4];
        let order = Order::of(&LayoutInput { sizes, links: links(&[(0, 3), (1, 2)]) });
        assert_eq!(order.layers, [[0, 1], [3, 2]]);
    }

    #[test]
    fn inversions_are_counted() {
        assert_eq!(inversions(&[0, 1, 1, 2]), 0);
        assert_eq!(inversions(&[3, 2, 1, 0]), 6);
        assert_eq!(inversions(&[]), 0);
    }
}
