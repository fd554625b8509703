//! What memory is estimated from: the parameters of a model by name and shape, and how wide its
//! layers are.
//!
//! Names and shapes are said once, where a model is built. Here it is built of parameters that are
//! only noted: once without layers, and once with a single layer of each stack, since the layers of a
//! stack are alike, and there may be any number of them.

use burn_tensor::{Device, Tensor};

use super::source::{TensorError, WeightSource};
use crate::tensor::layers::Weight;

/// What memory is estimated from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outline {
    /// The tokens that are embedded.
    pub vocabulary: usize,
    /// The width of an embedding.
    pub hidden: usize,
    /// The parameters outside of layers.
    pub outside: Vec<ListedParameter>,
    /// The stacks of layers, the one that writes last.
    pub stacks: Vec<LayerStack>,
    /// The numbers that are made of the parameters once, and kept.
    pub derived: u128,
    /// How many tokens there can be.
    pub limit: Limit,
    /// Whether a training step leaves numbers out.
    pub dropout: bool,
}

/// The most tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// A prompt and its output have so many together.
    Together(usize),
    /// A prompt has so many, and so has an output.
    Each(usize),
}

/// Layers that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerStack {
    pub layers: usize,
    /// The parameters of one layer.
    pub layer: Vec<ListedParameter>,
    pub heads: usize,
    /// The width of queries.
    pub queries: usize,
    /// The width of keys.
    pub keys: usize,
    /// The width of the MLP.
    pub wide: usize,
    /// Whether scores are kept for the backward pass.
    pub keeps_scores: bool,
    /// Whether it looks at another stack.
    pub is_crossing: bool,
}

/// A parameter that a model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedParameter {
    pub name: String,
    pub shape: Vec<usize>,
    /// Whether it is the matrix of a layer's projection, which adapters stand beside.
    pub is_projection: bool,
}

impl ListedParameter {
    /// Returns how many numbers it has. No configuration, however damaged, makes this overflow.
    pub(crate) fn count(&self) -> u128 {
        self.shape.iter().map(|size| *size as u128).product()
    }
}

/// Returns what a model asks for as it is built, in that order.
pub(crate) fn list(
    build: impl FnOnce(&mut dyn WeightSource) -> Result<(), TensorError>,
) -> Vec<ListedParameter> {
    let mut list = ParameterList { parameters: Vec::new(), device: Device::flex() };
    build(&mut list).expect("a list has whatever is asked for");
    list.parameters
}

/// Returns the parameters outside of layers, and those of one layer of each stack.
///
/// `layers` shows how many layers the stacks of a configuration have, and `build` builds a model.
pub(crate) fn list_stacks<C: Clone>(
    config: &C,
    layers: impl Fn(&mut C) -> Vec<&mut usize>,
    build: impl Fn(C, &mut dyn WeightSource) -> Result<(), TensorError>,
) -> (Vec<ListedParameter>, Vec<Vec<ListedParameter>>) {
    let mut none = config.clone();
    layers(&mut none).into_iter().for_each(|count| *count = 0);
    let outside = list(|source| build(none.clone(), source));
    let stacks = layers(&mut none.clone()).len();
    let layer = |stack: usize| {
        let mut single = none.clone();
        *layers(&mut single)[stack] = 1;
        let mut parameters = list(|source| build(single, source));
        parameters.retain(|parameter| !outside.contains(parameter));
        parameters
    };
    let of_each = (0..stacks).map(layer).collect();
    (outside, of_each)
}

/// Notes what a model asks for, and gives it tensors of a single number.
struct ParameterList {
    parameters: Vec<ListedParameter>,
    device: Device,
}

impl ParameterList {
    fn note(&mut self, name: &str, shape: &[usize], is_projection: bool) {
        self.parameters.push(ListedParameter { name: name.to_owned(), shape: shape.to_vec(), is_projection });
    }
}

impl WeightSource for ParameterList {
    fn device(&self) -> &Device {
        &self.device
    }

    fn has_numbers(&self) -> bool {
        false
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        self.note(name, shape, false);
        Ok(Vec::new())
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, TensorError> {
        self.note(name, &shape, false);
        Ok(Tensor::zeros([1, 1], &self.device))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, TensorError> {
        self.note(name, &[length], false);
        Ok(Tensor::zeros([1], &self.device))
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, TensorError> {
        self.note(name, &shape, true);
        Ok(Tensor::zeros([1, 1], &self.device).into())
    }

    fn transposed(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, TensorError> {
        self.note(name, &shape, true);
        Ok(Tensor::zeros([1, 1], &self.device))
    }
}
