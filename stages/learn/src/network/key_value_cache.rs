//! What a decoder remembers of the tokens so far: their keys and values, layer by layer.

use burn_tensor::{Device, Tensor};

use crate::tensor::indices::places;

/// For how many more tokens room is made at once. Most outputs end long before they must, and
/// room costs a copy wherever rows are reordered.
const MORE: usize = 64;

/// The keys and values of the tokens so far.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    /// How many tokens each row has, its filling among them.
    pub length: usize,
    /// One for each layer.
    pub layers: Vec<CachedLayer>,
}

impl KeyValueCache {
    /// Makes an empty cache of layers for rows of `[heads, head]`, with room for some tokens.
    pub(crate) fn new(
        layers: usize,
        rows: usize,
        [heads, head]: [usize; 2],
        room: usize,
        device: &Device,
    ) -> Self {
        let empty = || Some(Tensor::zeros([rows, heads, room + MORE, head], device));
        let layer = || CachedLayer { keys: empty(), values: empty() };
        Self { length: 0, layers: (0..layers).map(|_| layer()).collect() }
    }

    /// Keeps rows, in the order given, each as often as it is named.
    pub(crate) fn reorder(&mut self, rows: &[usize], device: &Device) {
        for layer in &mut self.layers {
            for cached in [&mut layer.keys, &mut layer.values] {
                *cached = cached.take().map(|whole| whole.select(0, places(rows, device)));
            }
        }
    }
}

/// Those of one layer, `[rows, heads, capacity, head]`.
#[derive(Debug)]
pub(crate) struct CachedLayer {
    // Taken while they are written, so that they are written in place.
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
}

impl CachedLayer {
    /// Adds those of new tokens behind the first `begin`.
    pub(crate) fn extend(&mut self, keys: Tensor<4>, values: Tensor<4>, begin: usize) {
        fn add(cached: &mut Option<Tensor<4>>, new: Tensor<4>, begin: usize) {
            let [rows, heads, width, head] = new.dims();
            let mut whole = cached.take().expect("a cache is put back after each step");
            if begin + width > whole.dims()[2] {
                let more = Tensor::zeros([rows, heads, width + MORE, head], &new.device());
                whole = Tensor::cat(vec![whole, more], 2);
            }
            *cached = Some(whole.slice_assign([0..rows, 0..heads, begin..begin + width, 0..head], new));
        }
        add(&mut self.keys, keys, begin);
        add(&mut self.values, values, begin);
    }

    /// Returns keys and values with the room behind them.
    pub(crate) fn whole(&self) -> (Tensor<4>, Tensor<4>) {
        let whole = |cached: &Option<Tensor<4>>| cached.clone().expect("a cache is put back after each step");
        (whole(&self.keys), whole(&self.values))
    }

    /// Returns the first keys and values.
    pub(crate) fn first(&self, count: usize) -> (Tensor<4>, Tensor<4>) {
        let (keys, values) = self.whole();
        (keys.narrow(2, 0, count), values.narrow(2, 0, count))
    }
}
