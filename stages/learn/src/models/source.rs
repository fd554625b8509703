//! Where the parameters of a model come from.

use burn_tensor::{Device, Tensor, TensorData};

use crate::tensor::layers::Weight;
use crate::tensor::random::{Purpose, Random};

/// Where a model's parameters come from.
pub(crate) trait Source<E> {
    /// Returns a matrix of this name and shape.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, E>;
    /// Returns a vector of this name and length.
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, E>;
    /// Returns the matrix of a projection, which may be packed.
    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, E> {
        self.matrix(name, shape).map(Weight::from)
    }
}

/// The first weights of a model that nobody has trained, as transformers draws them: norms at 1,
/// biases at 0, everything else normal.
pub(crate) struct Untrained<'a> {
    random: Random,
    std: &'a dyn Fn(&str) -> f64,
    device: &'a Device,
}

impl<'a> Untrained<'a> {
    /// Begins to draw; `std` says how far the numbers of a matrix of some name are spread.
    pub fn new(seed: u64, std: &'a dyn Fn(&str) -> f64, device: &'a Device) -> Self {
        Self { random: Random::new(seed, Purpose::Weights, 0), std, device }
    }
}

impl Source<std::convert::Infallible> for Untrained<'_> {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, std::convert::Infallible> {
        let numbers = self.random.normal(shape[0] * shape[1], (self.std)(name) as f32);
        Ok(Tensor::from_data(TensorData::new(numbers, shape), self.device))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, std::convert::Infallible> {
        Ok(if name.ends_with(".bias") {
            Tensor::zeros([length], self.device)
        } else {
            Tensor::ones([length], self.device)
        })
    }
}
