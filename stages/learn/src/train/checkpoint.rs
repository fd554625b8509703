//! What a killed training needs to go on, on disk.
//!
//! A checkpoint is a folder of three files: the tensors, the state, and, written last, how long
//! these two are and their BLAKE3 digests. It is written under another name and renamed when all
//! of it is on the disk. It names the configuration that it belongs to.
//!
//! Nothing of a checkpoint is believed before its digests fit: a model that goes on from a flipped
//! bit is another model under the same key. A checkpoint that does not fit is ignored, and the
//! one before it is tried; without any, the training starts again, which gives the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn_tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView, View};
use serde::{Deserialize, Serialize};

use crate::train::config::TrainingConfig;
use crate::train::curves::{Point, Throughput};

/// A checkpoint that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the checkpoint {}", .path.display())]
pub struct CheckpointError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CheckpointError {
    fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { doing: "write", path, source }
    }
}

/// A checkpoint that a training does not go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAside {
    name: String,
    why: String,
}

impl fmt::Display for LeftAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint `{}` of a killed training is ignored: {}", self.name, self.why)
    }
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
        let numbers = numbers.expect("parameters are f32");
        Cow::Owned(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.shape[0]
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Under the name that it has had on disk from the beginning.
    #[serde(rename = "recipe")]
    config: serde_json::Value,
    step: usize,
    best: Option<(usize, f64)>,
    points: Vec<Point>,
    throughput: Vec<Throughput>,
}

/// What the other files of a checkpoint are.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    format: u32,
    files: BTreeMap<String, FileDigest>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDigest {
    bytes: u64,
    blake3: String,
}

/// 2: with digests.
const FORMAT: u32 = 2;

const BEGUN: &str = "begun";
const GONE: &str = "gone";
const PREFIX: &str = "step-";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";
const DIGESTS: &str = "digests.json";

/// More than the digests of two files ever take.
const MOST_DIGESTS_BYTES: u64 = 4096;

fn config_value(config: &TrainingConfig) -> serde_json::Value {
    serde_json::to_value(config).expect("a configuration is JSON")
}

/// Writes a checkpoint, and leaves one other beside it: the newest of those before.
///
/// Two are kept, so that damage to one does not cost the whole training. The older of the two goes
/// before the new one is begun, so there are never more than two on the disk. If writing fails, what
/// was begun goes, so that there is room to say so on a full disk.
pub(crate) fn write(
    folder: &Path,
    config: &TrainingConfig,
    checkpoint: &Checkpoint,
) -> Result<(), CheckpointError> {
    write_whole(folder, config, checkpoint).inspect_err(|_| {
        let _ = fs::remove_dir_all(folder.join(BEGUN));
    })
}

fn write_whole(
    folder: &Path,
    config: &TrainingConfig,
    checkpoint: &Checkpoint,
) -> Result<(), CheckpointError> {
    let failed = CheckpointError::writing;
    let (begun, whole) = (folder.join(BEGUN), folder.join(name_of(checkpoint.step)));
    let known = all(folder)?;
    // Those of later steps were ignored, or this step would not be made once more.
    let before = known.range(..checkpoint.step).next_back().copied();
    let others = known.iter().filter(|step| Some(**step) != before).map(|step| folder.join(name_of(*step)));
    remove(&begun).map_err(failed(&begun))?;
    for left_over in others.chain([whole.clone()]) {
        discard(&left_over).map_err(failed(&left_over))?;
    }
    fs::create_dir_all(&begun).map_err(failed(&begun))?;
    let state = State {
        config: config_value(config),
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
        error => failed(&path)(io::Error::other(error)),
    })?;
    let path = begun.join(STATE);
    fs::write(&path, serde_json::to_string(&state).expect("a state is JSON")).map_err(failed(&path))?;
    let mut files = BTreeMap::new();
    for name in [TENSORS, STATE] {
        let path = begun.join(name);
        let digest = fs::File::open(&path).and_then(|file| {
            file.sync_all()?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&file)?;
            Ok(FileDigest { bytes: hasher.count(), blake3: hasher.finalize().to_string() })
        });
        files.insert(name.to_owned(), digest.map_err(failed(&path))?);
    }
    let path = begun.join(DIGESTS);
    fs::write(&path, Digests { format: FORMAT, files }.text()).map_err(failed(&path))?;
    for path in [&path, &begun] {
        sync(path).map_err(failed(path))?;
    }
    fs::rename(&begun, &whole).map_err(failed(&whole))?;
    // The name too is on the disk before any other checkpoint goes.
    sync(folder).map_err(failed(folder))
}

impl Digests {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("digests are JSON")
    }
}

/// Waits until a file or a folder is on the disk.
fn sync(path: &Path) -> io::Result<()> {
    match fs::File::open(path)?.sync_all() {
        // Some file systems of networks know no such thing for folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Removes a checkpoint, if it is there. It loses its name first: a kill leaves no half of one.
fn discard(path: &Path) -> io::Result<()> {
    let gone = path.with_file_name(GONE);
    remove(&gone)?;
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.and_then(|()| remove(&gone)),
    }
}

/// Removes whatever has a name, if anything has it.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Why a checkpoint is ignored.
enum Unfit {
    /// Its bytes are no use to anyone.
    Damaged(String),
    /// The system did not hand them over: this time, perhaps.
    Unreadable(String),
}

/// Reads the latest checkpoint of a folder that is whole and belongs to a configuration and to what is trained,
/// by name and size. What is ignored is reported, and removed if it is damaged.
pub(crate) fn latest(
    folder: &Path,
    config: &TrainingConfig,
    trained: &[(String, usize)],
    device: &Device,
    ignored: &mut dyn FnMut(LeftAside),
) -> Result<Option<Checkpoint>, CheckpointError> {
    for step in all(folder)?.into_iter().rev() {
        let path = folder.join(name_of(step));
        match read(&path, step, config, trained, device) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(unfit) => {
                let why = match unfit {
                    Unfit::Damaged(why) => {
                        // Where it cannot be removed, it is ignored the next time too.
                        let _ = discard(&path);
                        why
                    }
                    Unfit::Unreadable(why) => why,
                };
                ignored(LeftAside { name: name_of(step), why });
            }
        }
    }
    Ok(None)
}

fn read(
    folder: &Path,
    step: usize,
    config: &TrainingConfig,
    trained: &[(String, usize)],
    device: &Device,
) -> Result<Checkpoint, Unfit> {
    let damaged = |name: &str, detail: &dyn fmt::Display| Unfit::Damaged(format!("{name}: {detail}"));
    let text = read_file(&folder.join(DIGESTS), |bytes| bytes <= MOST_DIGESTS_BYTES)?;
    let digests: Digests = serde_json::from_slice(&text).map_err(|error| damaged(DIGESTS, &error))?;
    if digests.format != FORMAT {
        return Err(damaged(DIGESTS, &format!("its format is {}, and not {FORMAT}", digests.format)));
    }
    let checked = |name: &str| -> Result<Vec<u8>, Unfit> {
        let digest =
            digests.files.get(name).ok_or_else(|| damaged(DIGESTS, &format!("no digest of {name}")))?;
        let content = read_file(&folder.join(name), |bytes| bytes == digest.bytes)?;
        if blake3::hash(&content).to_string() == digest.blake3 {
            Ok(content)
        } else {
            Err(damaged(name, &"its bytes are not those that were written"))
        }
    };
    let state: State = serde_json::from_slice(&checked(STATE)?).map_err(|error| damaged(STATE, &error))?;
    if state.config != config_value(config) {
        return Err(damaged(STATE, &"it belongs to another training configuration"));
    }
    if state.step != step {
        return Err(damaged(STATE, &format!("it is of step {}", state.step)));
    }
    let content = checked(TENSORS)?;
    let tensors =
        safetensors::SafeTensors::deserialize(&content).map_err(|error| damaged(TENSORS, &error))?;
    let mut kinds = vec!["weights", "mean", "square"];
    kinds.extend(state.best.map(|_| "best"));
    for (name, count) in trained {
        for kind in &kinds {
            let name = format!("{kind}.{name}");
            let is_as_needed = |view: TensorView<'_>| view.dtype() == Dtype::F32 && view.shape() == [*count];
            if !tensors.tensor(&name).is_ok_and(is_as_needed) {
                return Err(damaged(TENSORS, &format!("`{name}` is not there with {count} numbers")));
            }
        }
    }
    let numbers = |view: &TensorView<'_>| {
        let numbers = view.data().chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four"))).collect();
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), device)
    };
    let tensors = tensors.tensors().iter().map(|(name, view)| (name.clone(), numbers(view))).collect();
    Ok(Checkpoint {
        step: state.step,
        best: state.best,
        points: state.points,
        throughput: state.throughput,
        tensors,
    })
}

/// Reads a file of a length that is as it should be. It is read and not mapped: what is checked
/// must be what is used.
fn read_file(path: &Path, is_length: impl Fn(u64) -> bool) -> Result<Vec<u8>, Unfit> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Unfit::Damaged(format!("{name} is missing"))
        }
        _ => Unfit::Unreadable(format!("{name} cannot be read: {error}")),
    };
    // A link or a pipe was not put there by a training.
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Unfit::Damaged(format!("{name} is no file")));
    }
    if !is_length(metadata.len()) {
        return Err(Unfit::Damaged(format!(
            "{name} has {} bytes, and not as many as were written",
            metadata.len()
        )));
    }
    fs::read(path).map_err(failed)
}

fn name_of(step: usize) -> String {
    format!("{PREFIX}{step}")
}

/// Returns the steps whose checkpoints a folder has, whole or not.
fn all(folder: &Path) -> Result<BTreeSet<usize>, CheckpointError> {
    let failed = |source| CheckpointError { doing: "look for", path: folder.to_owned(), source };
    let mut steps = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        // Only a name that was given here: not `step-007`.
        steps.extend(step.filter(|step| name.to_str() == Some(&name_of(*step))));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
