//! Where the parameters of a model come from.

use std::path::PathBuf;

use burn_tensor::{Device, Tensor, TensorData};

use crate::tensor::layers::Weight;
use crate::tensor::random::{Purpose, Random};

/// Where a model's parameters come from.
///
/// A model asks for each of them once, by name and shape, and says nowhere else what they are.
pub(crate) trait WeightSource {
    /// Returns the device that they are put on.
    fn device(&self) -> &Device;

    /// Says whether what is returned has numbers, and the shapes that were asked for.
    fn has_numbers(&self) -> bool {
        true
    }

    /// Returns the numbers of a tensor, row by row.
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError>;

    /// Returns a matrix.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, TensorError> {
        let numbers = self.numbers(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(numbers, shape), self.device()))
    }

    /// Returns a vector.
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, TensorError> {
        let numbers = self.numbers(name, &[length])?;
        Ok(Tensor::from_data(TensorData::new(numbers, [length]), self.device()))
    }

    /// Returns the matrix of a layer's projection, which may be packed.
    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, TensorError> {
        self.matrix(name, shape).map(Weight::from)
    }

    /// Returns the matrix of a layer's projection, `[out, in]` in files, as `[in, out]`.
    fn transposed(&mut self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Tensor<2>, TensorError> {
        let numbers = transposed(&self.numbers(name, &[outputs, inputs])?, outputs, inputs);
        Ok(Tensor::from_data(TensorData::new(numbers, [inputs, outputs]), self.device()))
    }
}

/// A folder whose tensors do not make the model that its configuration describes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A tensor is not there.
    #[error("{}: there is no tensor `{tensor}`", .folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, and `config.json` makes it {expected:?}", .file.display())]
    Shape {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// The shape it should have.
        expected: Vec<u64>,
    },
    /// A tensor belongs to no part of the model.
    #[error("{}: tensor `{tensor}` belongs to no part of the model that `config.json` describes", .file.display())]
    Extra {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that repeats another one has other numbers.
    #[error("{}: tensor `{tensor}` should repeat `{other}`, and has other numbers", .file.display())]
    Differs {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The one that it should repeat.
        other: &'static str,
    },
    /// A tensor holds what is no number, or none that can be computed with.
    #[error("{}: tensor `{tensor}` holds {nan} NaN and {infinite} infinite numbers", .file.display())]
    NotFinite {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How many NaN.
        nan: usize,
        /// How many infinities.
        infinite: usize,
    },
    /// A tensor cannot be read as f32.
    #[error("{}", .file.display())]
    Unreadable {
        /// The file that the tensor is in.
        file: PathBuf,
        /// What is wrong with it.
        source: weights::ModelError,
    },
}

/// The first weights of a model that nobody has trained, as transformers draws them: norms at 1,
/// biases at 0, everything else normal.
pub(crate) struct RandomInit<'a> {
    random: Random,
    std: &'a dyn Fn(&str) -> f64,
    device: &'a Device,
}

impl<'a> RandomInit<'a> {
    /// Begins to draw; `std` says how far the numbers of a matrix of some name are spread.
    pub(crate) fn new(seed: u64, std: &'a dyn Fn(&str) -> f64, device: &'a Device) -> Self {
        Self { random: Random::new(seed, Purpose::Weights, 0), std, device }
    }
}

impl WeightSource for RandomInit<'_> {
    fn device(&self) -> &Device {
        self.device
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        let count = shape.iter().product();
        Ok(match (shape.len(), name.ends_with(".bias")) {
            (1, true) => vec![0.0; count],
            (1, false) => vec![1.0; count],
            _ => self.random.normal(count, (self.std)(name) as f32),
        })
    }
}

/// Turns rows into columns, in blocks that fit a cache.
fn transposed(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut found = vec![0.0; numbers.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for row in top..(top + BLOCK).min(rows) {
                for column in left..(left + BLOCK).min(columns) {
                    found[column * rows + row] = numbers[row * columns + column];
                }
            }
        }
    }
    found
}
