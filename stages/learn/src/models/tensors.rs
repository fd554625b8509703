//! The tensors of a model folder, each checked against what a model asks for.
//!
//! They are read one by one, in the order in which a model asks: no more lies in memory at once
//! than what was made of the earlier ones, and one tensor. What is packed is packed as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use burn_tensor::{Device, Tensor, TensorData};
use weights::ModelFolder;

use super::source::Source;
use crate::tensor::layers::{Storage, Weight};

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
    /// A tensor cannot be read as single floats.
    #[error("{}", .file.display())]
    Unreadable {
        /// The file that the tensor is in.
        file: PathBuf,
        /// What is wrong with it.
        source: weights::ModelError,
    },
}

/// Reads the tensors of a folder.
pub(crate) struct Tensors<'a> {
    pub folder: &'a ModelFolder,
    pub device: &'a Device,
    /// How the matrices of projections are kept.
    storage: Storage,
    seen: BTreeSet<String>,
    /// Tensors that are in the folder under another name.
    found_as: BTreeMap<&'static str, &'static str>,
}

impl<'a> Tensors<'a> {
    /// Begins with none of them read.
    pub fn new(folder: &'a ModelFolder, storage: Storage, device: &'a Device) -> Self {
        Self { folder, device, storage, seen: BTreeSet::new(), found_as: BTreeMap::new() }
    }

    /// Takes one tensor wherever another is asked for.
    pub fn read_as(&mut self, name: &'static str, found: &'static str) {
        self.found_as.insert(name, found);
    }

    /// Counts a tensor as asked for, whether it is there or not.
    pub fn leave_aside(&mut self, name: impl Into<String>) {
        self.seen.insert(name.into());
    }

    /// Says whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.folder.tensor(name).is_some()
    }

    /// Returns the numbers of a tensor that has this shape.
    pub fn numbers(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, TensorError> {
        let name = self.found_as.get(name).copied().unwrap_or(name);
        let missing =
            || TensorError::Missing { folder: self.folder.path().to_owned(), tensor: name.to_owned() };
        let tensor = self.folder.tensor(name).ok_or_else(missing)?;
        let expected: Vec<u64> = expected.iter().map(|size| *size as u64).collect();
        if tensor.shape != expected {
            let (file, found) = (self.file(name), tensor.shape.clone());
            return Err(TensorError::Shape { file, tensor: name.to_owned(), found, expected });
        }
        self.seen.insert(name.to_owned());
        let numbers = self.folder.read_f32(name).map_err(|source| self.unreadable(name, source))?;
        if !numbers.iter().all(|number| number.is_finite()) {
            let nan = numbers.iter().filter(|number| number.is_nan()).count();
            let infinite = numbers.iter().filter(|number| number.is_infinite()).count();
            return Err(TensorError::NotFinite {
                file: self.file(name),
                tensor: name.to_owned(),
                nan,
                infinite,
            });
        }
        Ok(numbers)
    }

    /// Says whether the folder has both tensors, with the same numbers.
    pub fn repeats(&self, one: &str, other: &str) -> Result<bool, TensorError> {
        let [Some(found), Some(wanted)] = [one, other].map(|name| self.folder.tensor(name)) else {
            return Ok(false);
        };
        let is_alike = found.shape == wanted.shape && found.dtype == wanted.dtype;
        let is_repeated = || self.folder.is_repeated(one, other);
        Ok(is_alike && is_repeated().map_err(|source| self.unreadable(one, source))?)
    }

    /// Checks that every tensor of the folder was asked for, or is one that may lie there.
    pub fn finish(self, may_lie_there: impl Fn(&str) -> bool) -> Result<(), TensorError> {
        let mut others = self.folder.tensors().iter().filter(|tensor| !self.seen.contains(&tensor.name));
        match others.find(|tensor| !may_lie_there(&tensor.name)) {
            Some(extra) => {
                Err(TensorError::Extra { file: self.file(&extra.name), tensor: extra.name.clone() })
            }
            None => Ok(()),
        }
    }

    /// Returns the path of the file that a tensor is in.
    pub fn file(&self, tensor: &str) -> PathBuf {
        let file = self.folder.tensor(tensor).map(|tensor| tensor.file.as_str());
        self.folder.path().join(file.unwrap_or_default())
    }

    fn unreadable(&self, tensor: &str, source: weights::ModelError) -> TensorError {
        TensorError::Unreadable { file: self.file(tensor), source }
    }
}

impl Source<TensorError> for Tensors<'_> {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, TensorError> {
        Ok(Tensor::from_data(TensorData::new(self.numbers(name, &shape)?, shape), self.device))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, TensorError> {
        Ok(Tensor::from_data(TensorData::new(self.numbers(name, &[length])?, [length]), self.device))
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, TensorError> {
        Ok(Weight::new(self.numbers(name, &shape)?, shape, self.storage, self.device))
    }
}
