//! What a killed training needs to go on, on disk.
//!
//! A checkpoint is a folder, written under another name and renamed when it is whole; the one
//! before it goes only then. It names the recipe that it belongs to.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView, View};
use serde::{Deserialize, Serialize};

use crate::curves::{Point, Throughput};
use crate::recipe::Recipe;

/// A checkpoint that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("cannot {doing} the checkpoint {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is damaged.
    #[error("the checkpoint {} is damaged: {detail}; remove its folder to begin again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        detail: String,
    },
    /// It was made by another recipe.
    #[error("the checkpoint {} belongs to another recipe; remove its folder to begin again", .path.display())]
    OtherRecipe {
        /// The folder.
        path: PathBuf,
    },
}

/// The state of a training after a step.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub step: usize,
    /// The step and the loss of the best weights.
    pub best: Option<(usize, f64)>,
    pub points: Vec<Point>,
    pub throughput: Vec<Throughput>,
    pub tensors: Vec<(String, Tensor<1>)>,
}

/// Numbers of a device on their way to a file: they are fetched when they are written, so that no
/// second copy of them all is ever there.
struct Held<'a> {
    numbers: &'a Tensor<1>,
    shape: [usize; 1],
}

impl View for Held<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = self.numbers.clone().into_data().try_into_vec::<f32>();
        let numbers = numbers.expect("parameters are single floats");
        Cow::Owned(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.shape[0]
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    recipe: serde_json::Value,
    step: usize,
    best: Option<(usize, f64)>,
    points: Vec<Point>,
    throughput: Vec<Throughput>,
}

const BEGUN: &str = "begun";
const PREFIX: &str = "step-";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";

fn recipe_value(recipe: &Recipe) -> serde_json::Value {
    serde_json::to_value(recipe).expect("a recipe is JSON")
}

/// Writes a checkpoint, and removes the ones before it; if it fails, they stay, and what was begun
/// goes, so that there is room to say so on a full disk.
pub(crate) fn write(folder: &Path, recipe: &Recipe, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    write_whole(folder, recipe, checkpoint).inspect_err(|_| {
        let _ = fs::remove_dir_all(folder.join(BEGUN));
    })
}

fn write_whole(folder: &Path, recipe: &Recipe, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { doing: "write", path, source }
    };
    let (begun, whole) = (folder.join(BEGUN), folder.join(format!("{PREFIX}{}", checkpoint.step)));
    for left_over in [&begun, &whole] {
        if left_over.exists() {
            fs::remove_dir_all(left_over).map_err(failed(left_over))?;
        }
    }
    fs::create_dir_all(&begun).map_err(failed(&begun))?;
    let state = State {
        recipe: recipe_value(recipe),
        step: checkpoint.step,
        best: checkpoint.best,
        points: checkpoint.points.clone(),
        throughput: checkpoint.throughput.clone(),
    };
    let held = checkpoint
        .tensors
        .iter()
        .map(|(name, numbers)| (name.as_str(), Held { numbers, shape: numbers.dims() }));
    let path = begun.join(TENSORS);
    safetensors::serialize_to_file(held, None, &path).map_err(|error| match error {
        SafeTensorError::IoError(source) => failed(&path)(source),
        error => CheckpointError::Damaged { path: path.clone(), detail: error.to_string() },
    })?;
    let path = begun.join(STATE);
    fs::write(&path, serde_json::to_string(&state).expect("a state is JSON")).map_err(failed(&path))?;
    for name in [TENSORS, STATE] {
        let path = begun.join(name);
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
    }
    fs::rename(&begun, &whole).map_err(failed(&whole))?;
    for (step, older) in all(folder)? {
        if step != checkpoint.step {
            fs::remove_dir_all(&older).map_err(failed(&older))?;
        }
    }
    Ok(())
}

/// Reads the latest whole checkpoint of a folder.
pub(crate) fn latest(
    folder: &Path,
    recipe: &Recipe,
    device: &Device,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let Some((_, found)) = all(folder)?.into_iter().max_by_key(|(step, _)| *step) else { return Ok(None) };
    let damaged = |path: &Path, detail: String| CheckpointError::Damaged { path: path.to_owned(), detail };
    let read = |path: &Path| {
        fs::read(path).map_err(|source| CheckpointError::Io { doing: "read", path: path.to_owned(), source })
    };
    let path = found.join(STATE);
    let state: State =
        serde_json::from_slice(&read(&path)?).map_err(|error| damaged(&path, error.to_string()))?;
    if state.recipe != recipe_value(recipe) {
        return Err(CheckpointError::OtherRecipe { path: found });
    }
    let path = found.join(TENSORS);
    let bytes = read(&path)?;
    let tensors =
        safetensors::SafeTensors::deserialize(&bytes).map_err(|error| damaged(&path, error.to_string()))?;
    let numbers = |view: &TensorView<'_>| {
        let numbers = view.data().chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four"))).collect();
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), device)
    };
    let tensors = tensors.tensors().iter().map(|(name, view)| (name.clone(), numbers(view))).collect();
    Ok(Some(Checkpoint {
        step: state.step,
        best: state.best,
        points: state.points,
        throughput: state.throughput,
        tensors,
    }))
}

/// Returns the whole checkpoints of a folder.
fn all(folder: &Path) -> Result<Vec<(usize, PathBuf)>, CheckpointError> {
    let failed = |source| CheckpointError::Io { doing: "read", path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let step =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|step| step.parse().ok());
        found.extend(step.map(|step| (step, entry.path())));
    }
    Ok(found)
}
