//! The tensors of a model folder, each checked against what a model asks for.
//!
//! They are read one by one, in the order in which a model asks: no more lies in memory at once
//! than what was made of the earlier ones, and one tensor. What is packed is packed as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use burn_tensor::Device;
use weights::ModelFolder;

use super::source::{TensorError, WeightSource};
use crate::tensor::layers::{Storage, Weight};

/// Reads the tensors of a folder.
pub(crate) struct FolderTensors<'a> {
    folder: &'a ModelFolder,
    device: &'a Device,
    /// How the matrices of projections are kept.
    storage: Storage,
    seen: BTreeSet<String>,
    /// FolderTensors that are in the folder under another name.
    found_as: BTreeMap<&'static str, &'static str>,
}

impl<'a> FolderTensors<'a> {
    /// Begins with none of them read.
    pub(crate) fn new(folder: &'a ModelFolder, storage: Storage, device: &'a Device) -> Self {
        Self { folder, device, storage, seen: BTreeSet::new(), found_as: BTreeMap::new() }
    }

    /// Takes one tensor wherever another is asked for.
    pub(crate) fn read_as(&mut self, name: &'static str, found: &'static str) {
        self.found_as.insert(name, found);
    }

    /// Counts a tensor as asked for, whether it is there or not.
    pub(crate) fn leave_aside(&mut self, name: impl Into<String>) {
        self.seen.insert(name.into());
    }

    /// Says whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.folder.tensor(name).is_some()
    }

    /// Returns the numbers of a tensor that has this shape.
    fn read(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, TensorError> {
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

    /// Says whether the head is the embedding: a folder that has a head with other numbers has one of
    /// its own, whatever the configuration says; so does transformers 5.
    pub(crate) fn is_tied(&self, configured: bool, head: &str, embedding: &str) -> Result<bool, TensorError> {
        Ok(configured && (!self.has(head) || self.repeats(head, embedding)?))
    }

    /// Says whether the folder has both tensors, with the same numbers.
    pub(crate) fn repeats(&self, one: &str, other: &str) -> Result<bool, TensorError> {
        let [Some(found), Some(wanted)] = [one, other].map(|name| self.folder.tensor(name)) else {
            return Ok(false);
        };
        let is_alike = found.shape == wanted.shape && found.dtype == wanted.dtype;
        let is_repeated = || self.folder.is_repeated(one, other);
        Ok(is_alike && is_repeated().map_err(|source| self.unreadable(one, source))?)
    }

    /// Checks that every tensor of the folder was asked for, or is one that may lie there.
    pub(crate) fn finish(self, may_lie_there: impl Fn(&str) -> bool) -> Result<(), TensorError> {
        let mut others = self.folder.tensors().iter().filter(|tensor| !self.seen.contains(&tensor.name));
        match others.find(|tensor| !may_lie_there(&tensor.name)) {
            Some(extra) => {
                Err(TensorError::Extra { file: self.file(&extra.name), tensor: extra.name.clone() })
            }
            None => Ok(()),
        }
    }

    /// Returns the path of the file that a tensor is in.
    pub(crate) fn file(&self, tensor: &str) -> PathBuf {
        let file = self.folder.tensor(tensor).map(|tensor| tensor.file.as_str());
        self.folder.path().join(file.unwrap_or_default())
    }

    fn unreadable(&self, tensor: &str, source: weights::ModelError) -> TensorError {
        TensorError::Unreadable { file: self.file(tensor), source }
    }
}

impl WeightSource for FolderTensors<'_> {
    fn device(&self) -> &Device {
        self.device
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        self.read(name, shape)
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, TensorError> {
        Ok(Weight::new(self.read(name, &shape)?, shape, self.storage, self.device))
    }
}
