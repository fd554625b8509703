//! Where vertices stand across their layers.

use crate::graph::layout::order::{Order, Ordered, rank};

const NODE_GAP: f64 = 26.0;
const BEND_GAP: f64 = 12.0;

/// Returns the centres of all vertices across the layers, the first border at zero.
///
/// `extents` are their sizes; the first `nodes` of them are nodes, the others bends.
pub(crate) fn across(order: &Order, extents: &[f64], nodes: usize) -> Vec<f64> {
    let offsets = order.layers.iter().map(|layer| offsets(layer, extents, nodes)).collect();
    let mut across = Across { order, nodes, offsets, centres: vec![0.0; extents.len()] };
    across.pack();
    across.relax();
    across.align_sources();
    across.gather();
    across.straighten();
    let centres = across.centres;
    let borders = centres.iter().zip(extents).map(|(centre, extent)| centre - extent / 2.0);
    let low = borders.fold(f64::INFINITY, f64::min);
    centres.iter().map(|centre| centre - low).collect()
}

struct Across<'a> {
    order: &'a Order,
    nodes: usize,
    /// Lists the centres of each layer's vertices if packed as closely as may be.
    offsets: Vec<Vec<f64>>,
    centres: Vec<f64>,
}

impl Across<'_> {
    fn pack(&mut self) {
        for (layer, offsets) in self.order.layers.iter().zip(&self.offsets) {
            let half = offsets.last().copied().unwrap_or(0.0) / 2.0;
            for (&vertex, offset) in layer.iter().zip(offsets) {
                self.centres[vertex] = offset - half;
            }
        }
    }

    /// Moves every layer towards its neighbours, to and fro.
    fn relax(&mut self) {
        // Odd, so that the last pass runs forth and a chain ends in line.
        let passes = (1_000_000 / self.centres.len().max(1)).clamp(20, 60) | 1;
        let last = self.order.layers.len().saturating_sub(1);
        for pass in 0..passes {
            let forth = pass % 2 == 0;
            // The later passes look both ways, so that no side has the last word.
            let pull = match (pass * 2 > passes, forth) {
                (true, _) => Pull::Both,
                (false, true) => Pull::Before,
                (false, false) => Pull::After,
            };
            for step in 0..self.order.layers.len() {
                let at = if forth { step } else { last - step };
                let layer = &self.order.layers[at];
                let wishes: Vec<(f64, f64)> = layer.iter().map(|&vertex| self.wish(vertex, pull)).collect();
                for (&vertex, centre) in layer.iter().zip(isotonic(&wishes, &self.offsets[at])) {
                    self.centres[vertex] = centre;
                }
            }
        }
    }

    /// Puts nodes without inputs in line with their readers, which have moved since.
    fn align_sources(&mut self) {
        // So firm that no source pushes another vertex aside.
        let firm = 1e6;
        for (layer, offsets) in self.order.layers.iter().zip(&self.offsets) {
            let wish = |&vertex: &usize| {
                if self.order.before[vertex].is_empty() {
                    self.wish(vertex, Pull::After)
                } else {
                    (self.centres[vertex], firm)
                }
            };
            let wishes: Vec<(f64, f64)> = layer.iter().map(wish).collect();
            for (&vertex, centre) in layer.iter().zip(isotonic(&wishes, offsets)) {
                self.centres[vertex] = centre;
            }
        }
    }

    /// Returns where a vertex would like to be and how strongly: bends insist, since a long edge
    /// that wavers catches the eye.
    fn wish(&self, vertex: usize, pull: Pull) -> (f64, f64) {
        let bends = |vertex: usize| vertex >= self.nodes;
        let (before, after) = (&self.order.before[vertex], &self.order.after[vertex]);
        let (before, after) = match pull {
            Pull::Before => (before.as_slice(), [].as_slice()),
            Pull::After => ([].as_slice(), after.as_slice()),
            Pull::Both => (before.as_slice(), after.as_slice()),
        };
        let (mut sum, mut weight) = (0.0, 0.0);
        for &next in before.iter().chain(after) {
            let strength = if bends(vertex) && bends(next) { 8.0 } else { 1.0 };
            sum += strength * self.centres[next];
            weight += strength;
        }
        let insistence = if bends(vertex) { 4.0 } else { 1.0 };
        if weight > 0.0 { (sum / weight, insistence) } else { (self.centres[vertex], 0.1) }
    }

    /// Moves the parts of the graph that no link joins as close together as their order allows:
    /// nothing else pulls at them.
    fn gather(&mut self) {
        let mut parts = self.parts();
        let first = |part: &Vec<usize>| {
            let centres = part.iter().map(|&vertex| self.centres[vertex]);
            Ordered(centres.fold(f64::INFINITY, f64::min))
        };
        parts.sort_by_cached_key(first);
        let mut part_of = vec![0; self.centres.len()];
        for (at, part) in parts.iter().enumerate() {
            part.iter().for_each(|&vertex| part_of[vertex] = at);
        }
        let ranks = self.ranks();
        let low = self.centres.iter().copied().fold(f64::INFINITY, f64::min);
        // A part can be held up by one that moves after it; the second round lets it follow.
        for part in parts.iter().chain(&parts) {
            let slack = |&vertex: &usize| {
                let layer = &self.order.layers[self.order.layer_of[vertex]];
                match ranks[vertex].checked_sub(1).map(|rank| layer[rank]) {
                    Some(before) if part_of[before] == part_of[vertex] => f64::INFINITY,
                    Some(_) => self.centres[vertex] - self.room(vertex, ranks[vertex]).0,
                    None => self.centres[vertex] - low,
                }
            };
            let shift = part.iter().map(slack).fold(f64::INFINITY, f64::min).max(0.0);
            if shift.is_finite() {
                part.iter().for_each(|&vertex| self.centres[vertex] -= shift);
            }
        }
    }

    /// Returns the vertices of each part of the graph that links hold together.
    fn parts(&self) -> Vec<Vec<usize>> {
        let mut seen = vec![false; self.centres.len()];
        let mut parts = Vec::new();
        for root in 0..seen.len() {
            if seen[root] {
                continue;
            }
            seen[root] = true;
            let mut part = vec![root];
            let mut next = 0;
            while let Some(&vertex) = part.get(next) {
                next += 1;
                for &other in self.order.before[vertex].iter().chain(&self.order.after[vertex]) {
                    if !seen[other] {
                        seen[other] = true;
                        part.push(other);
                    }
                }
            }
            parts.push(part);
        }
        parts
    }

    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![0; self.centres.len()];
        for layer in &self.order.layers {
            rank(&mut ranks, layer);
        }
        ranks
    }

    /// Puts the bends of each link in line as far as the vertices beside them leave room.
    fn straighten(&mut self) {
        let ranks = self.ranks();
        for chain in &self.order.chains {
            let mut rest = chain.bends.as_slice();
            while !rest.is_empty() {
                let (mut low, mut high, mut count) = (f64::NEG_INFINITY, f64::INFINITY, 0);
                for &bend in rest {
                    let (least, most) = self.room(bend, ranks[bend]);
                    if low.max(least) > high.min(most) {
                        break;
                    }
                    (low, high, count) = (low.max(least), high.min(most), count + 1);
                }
                // Rounding can leave a bend no room at all; then it stays.
                let (run, others) = rest.split_at(count.max(1));
                if count > 1 {
                    let mean = run.iter().map(|&bend| self.centres[bend]).sum::<f64>() / count as f64;
                    for &bend in run {
                        self.centres[bend] = mean.max(low).min(high);
                    }
                }
                rest = others;
            }
        }
    }

    /// Returns the least and the greatest centre that a vertex may have between its neighbours.
    fn room(&self, vertex: usize, rank: usize) -> (f64, f64) {
        let at = self.order.layer_of[vertex];
        let (layer, offsets) = (&self.order.layers[at], &self.offsets[at]);
        let low = rank.checked_sub(1).map_or(f64::NEG_INFINITY, |before| {
            self.centres[layer[before]] + (offsets[rank] - offsets[before])
        });
        let high = layer
            .get(rank + 1)
            .map_or(f64::INFINITY, |&after| self.centres[after] - (offsets[rank + 1] - offsets[rank]));
        (low, high)
    }
}

/// Says which neighbours a vertex is pulled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pull {
    Before,
    After,
    Both,
}

/// Returns the centres of a layer's vertices if it is packed as closely as it may be.
fn offsets(layer: &[usize], extents: &[f64], nodes: usize) -> Vec<f64> {
    let mut at = 0.0;
    let mut last: Option<usize> = None;
    layer
        .iter()
        .map(|&vertex| {
            if let Some(last) = last {
                let bends = vertex >= nodes && last >= nodes;
                let gap = if bends { BEND_GAP } else { NODE_GAP };
                at += (extents[last] + extents[vertex]) / 2.0 + gap;
            }
            last = Some(vertex);
            at
        })
        .collect()
}

/// Returns the centres nearest to the wishes, by weighted squares, that keep the distances of
/// `offsets`: pool adjacent violators.
fn isotonic(wishes: &[(f64, f64)], offsets: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<(f64, f64, usize)> = Vec::with_capacity(wishes.len());
    for (&(wish, weight), offset) in wishes.iter().zip(offsets) {
        let (mut place, mut weight, mut count) = (wish - offset, weight, 1);
        while let Some(&(before, heft, many)) = blocks.last()
            && before > place
        {
            place = (before * heft + place * weight) / (heft + weight);
            weight += heft;
            count += many;
            blocks.pop();
        }
        blocks.push((place, weight, count));
    }
    let places = blocks.iter().flat_map(|&(place, _, count)| std::iter::repeat_n(place, count));
    places.zip(offsets).map(|(place, offset)| place + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::layout::geometry::{LayoutInput, Link, Size};

    fn across_of(count: usize, pairs: &[(usize, usize)]) -> Vec<f64> {
        let links = pairs.iter().map(|&(from, to)| Link { from, to }).collect();
        let sizes = vec![Size { width: 100.0, height: 40.0 }; count];
        let order = Order::of(&LayoutInput { sizes, links });
        let mut extents = vec![40.0; count];
        extents.resize(order.before.len(), 6.0);
        across(&order, &extents, count)
    }

    #[test]
    fn vertices_keep_their_distance() {
        let places = isotonic(&[(5.0, 1.0), (5.0, 1.0), (100.0, 1.0)], &[0.0, 10.0, 20.0]);
        assert_eq!(places, [0.0, 10.0, 100.0]);
    }

    #[test]
    fn a_chain_is_straight() {
        assert_eq!(across_of(3, &[(0, 1), (1, 2)]), [20.0, 20.0, 20.0]);
    }

    #[test]
    fn a_long_link_is_straight_between_its_ends() {
        let centres = across_of(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]);
        assert_eq!(centres[5], centres[6]);
        assert_eq!(centres[6], centres[7]);
    }

    #[test]
    fn parts_stand_close() {
        let centres = across_of(6, &[(1, 2), (1, 3), (1, 4)]);
        assert_eq!(centres[0] - centres[1], 40.0 + NODE_GAP);
        assert_eq!(centres[5] - centres[0], 40.0 + NODE_GAP);
    }
}
