//! Writes a folder that holds one model, tensor by tensor, never the whole in memory.

use crate::error::ModelError;
use crate::floats;
use crate::folder::{CONFIG, INDEX, ModelFolder, WEIGHTS};
use crate::header::Tensor;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest file of weights that is written unless told otherwise, in bytes.
pub const MOST_SHARD_BYTES: u64 = 5_000_000_000;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its extents, outermost first.
    pub shape: Vec<u64>,
}

impl From<&Tensor> for TensorSpec {
    fn from(tensor: &Tensor) -> Self {
        Self { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() }
    }
}

/// Says whether a model has to be on the disk before it counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The system writes it when it sees fit.
    Buffered,
    /// It outlives a power cut.
    Synced,
}

/// A model folder in the making.
///
/// All tensors are announced first, so that each has its place: they may then be written in any
/// order and from several threads, and the bytes are the same. Files have other names until
/// [`ModelWriter::finish`]; a writer that is dropped before leaves none behind.
#[derive(Debug)]
pub struct ModelWriter {
    folder: PathBuf,
    config: Map<String, Value>,
    files: Vec<PartialFile>,
    places: BTreeMap<String, Place>,
    /// The files that have their names already.
    made: Mutex<Vec<String>>,
    is_finished: bool,
}

#[derive(Debug)]
struct PartialFile {
    name: String,
    file: File,
}

#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    begin: u64,
    bytes: u64,
    written: AtomicU64,
}

impl ModelWriter {
    /// Begins a model: `config.json` as given, and the tensors, in one file or in shards of at
    /// most so many bytes. A tensor larger than that has a shard of its own.
    ///
    /// The room on the disk is taken at once where the file system can, so that a full disk is
    /// noticed before the work.
    pub fn create(
        folder: impl AsRef<Path>,
        config: &Map<String, Value>,
        mut tensors: Vec<TensorSpec>,
        most_shard_bytes: u64,
    ) -> Result<Self, ModelError> {
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ModelError::WrittenTwice { tensor: pair[0].name.clone() });
        }
        let shards = shards(tensors, most_shard_bytes)?;
        let mut writer = Self {
            folder: folder.as_ref().to_owned(),
            config: config.clone(),
            files: Vec::with_capacity(shards.len()),
            places: BTreeMap::new(),
            made: Mutex::default(),
            is_finished: false,
        };
        let count = shards.len();
        for (number, tensors) in shards.into_iter().enumerate() {
            let name = match count {
                1 => WEIGHTS.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            writer.begin_file(name, tensors)?;
        }
        Ok(writer)
    }

    fn begin_file(&mut self, name: String, tensors: Vec<(TensorSpec, u64)>) -> Result<(), ModelError> {
        let (header, end) = header(&tensors);
        let path = self.folder.join(partial(&name));
        let failed = |source| ModelError::Write { file: name.clone(), source };
        let file = File::options().write(true).create(true).truncate(true).open(path).map_err(failed)?;
        let index = self.files.len();
        self.files.push(PartialFile { name: name.clone(), file });
        let file = &self.files[index].file;
        let start = header.len() as u64;
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, start + end) {
            // Not every file system can; the room is then taken by writing.
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                return Err(failed(rustix::io::Errno::NOSPC.into()));
            }
            _ => file.set_len(start + end).map_err(failed)?,
        }
        file.write_all_at(&header, 0).map_err(failed)?;
        let mut begin = start;
        for (TensorSpec { name, dtype, .. }, bytes) in tensors {
            let place = Place { file: index, dtype, begin, bytes, written: AtomicU64::new(0) };
            self.places.insert(name, place);
            begin += bytes;
        }
        Ok(())
    }

    /// Writes a tensor, narrowed to its type.
    pub fn write_f32(&self, name: &str, values: &[f32]) -> Result<(), ModelError> {
        let dtype = self.place(name)?.dtype;
        let width =
            floats::width(dtype).ok_or_else(|| ModelError::NotFloats { tensor: name.to_owned(), dtype })?;
        let bytes = (values.len() * width) as u64;
        self.expect_length(name, bytes)?;
        let mut buffer = vec![0; (values.len() * width).min(ENCODED_BYTES)];
        let mut offset = 0;
        for values in values.chunks(ENCODED_BYTES / width) {
            let buffer = &mut buffer[..values.len() * width];
            floats::encode(dtype, values, buffer);
            self.write_at(name, offset, buffer)?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    /// Writes a tensor as it is to be in the file.
    pub fn write_raw(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        self.expect_length(name, bytes.len() as u64)?;
        self.write_at(name, 0, bytes)
    }

    /// Writes some bytes of a tensor, `offset` bytes from its beginning. Each byte is written once.
    pub fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), ModelError> {
        let place = self.place(name)?;
        let end = offset + bytes.len() as u64;
        if end > place.bytes {
            let (expected, found) = (place.bytes, end);
            return Err(ModelError::WrongLength { tensor: name.to_owned(), expected, found });
        }
        let PartialFile { name: shard, file } = &self.files[place.file];
        file.write_all_at(bytes, place.begin + offset).map_err(|source| ModelError::WriteTensor {
            tensor: name.to_owned(),
            file: shard.clone(),
            source,
        })?;
        place.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a small file beside the tensors, such as a tokenizer.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        self.put(name, bytes, Durability::Buffered)
    }

    /// Copies what lies beside the tensors of another model: tokenizer, vocabulary, templates.
    ///
    /// Its configuration and weights in any format stay behind.
    pub fn carry_over(&self, from: &ModelFolder) -> Result<(), ModelError> {
        for name in from.other_files()? {
            let read = |source| ModelError::Io { file: name.clone(), source };
            let write = |source| ModelError::Write { file: name.clone(), source };
            let mut source = File::open(from.path().join(&name)).map_err(read)?;
            let mut target = self.begin_small(&name).map_err(write)?;
            io::copy(&mut source, &mut target).map_err(write)?;
        }
        Ok(())
    }

    /// Ends the model: everything gets its name, and the index of shards is written.
    ///
    /// A tensor that was announced and not written whole is an error.
    pub fn finish(mut self, durability: Durability) -> Result<(), ModelError> {
        for (tensor, place) in &self.places {
            let (expected, found) = (place.bytes, place.written.load(Ordering::Relaxed));
            if expected != found {
                return Err(ModelError::WrongLength { tensor: tensor.clone(), expected, found });
            }
        }
        for PartialFile { name, file } in &self.files {
            let failed = |source| ModelError::Write { file: name.clone(), source };
            if durability == Durability::Synced {
                file.sync_all().map_err(failed)?;
            }
            fs::rename(self.folder.join(partial(name)), self.folder.join(name)).map_err(failed)?;
            self.note_made(name);
        }
        if self.files.len() > 1 {
            let map: Map<String, Value> = self
                .places
                .iter()
                .map(|(tensor, place)| (tensor.clone(), self.files[place.file].name.clone().into()))
                .collect();
            let total: u64 = self.places.values().map(|place| place.bytes).sum();
            let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
            self.put(INDEX, &pretty(&index), durability)?;
        }
        // Last, for a folder without it is no model.
        self.put(CONFIG, &pretty(&self.config), durability)?;
        if durability == Durability::Synced {
            let failed = |source| ModelError::Write { file: ".".to_owned(), source };
            File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        self.is_finished = true;
        Ok(())
    }

    fn place(&self, name: &str) -> Result<&Place, ModelError> {
        self.places.get(name).ok_or_else(|| ModelError::NoSuchTensor { tensor: name.to_owned() })
    }

    fn expect_length(&self, name: &str, found: u64) -> Result<(), ModelError> {
        match self.place(name)?.bytes {
            expected if expected == found => Ok(()),
            expected => Err(ModelError::WrongLength { tensor: name.to_owned(), expected, found }),
        }
    }

    fn begin_small(&self, name: &str) -> io::Result<File> {
        let file = File::create(self.folder.join(name))?;
        self.note_made(name);
        Ok(file)
    }

    fn note_made(&self, name: &str) {
        self.made.lock().expect("nobody panics with the lock").push(name.to_owned());
    }

    fn put(&self, name: &str, bytes: &[u8], durability: Durability) -> Result<(), ModelError> {
        let write = || -> io::Result<()> {
            let mut file = self.begin_small(name)?;
            file.write_all(bytes)?;
            if durability == Durability::Synced { file.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| ModelError::Write { file: name.to_owned(), source })
    }
}

impl Drop for ModelWriter {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let partial = self.files.iter().map(|file| partial(&file.name));
        let made = self.made.lock().map(|made| made.clone()).unwrap_or_default();
        for name in partial.chain(made) {
            // What led here is told; that some of it cannot be removed as well is not worth more.
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}

/// How many bytes are narrowed before they are written.
const ENCODED_BYTES: usize = 1 << 20;

fn partial(name: &str) -> String {
    format!("{name}.partial")
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value is written to memory");
    text.push(b'\n');
    text
}

/// Deals tensors out to files, in order; each comes with its bytes.
fn shards(
    tensors: Vec<TensorSpec>,
    most_shard_bytes: u64,
) -> Result<Vec<Vec<(TensorSpec, u64)>>, ModelError> {
    let mut shards = vec![Vec::new()];
    let mut held = 0;
    for tensor in tensors {
        let elements = tensor.shape.iter().try_fold(1u64, |product, extent| product.checked_mul(*extent));
        let bits = elements.and_then(|elements| elements.checked_mul(tensor.dtype.bitsize() as u64));
        let bits = bits.filter(|bits| bits.is_multiple_of(8) && *bits < 1 << 60);
        let bytes = bits.ok_or_else(|| ModelError::Header {
            file: WEIGHTS.to_owned(),
            fault: crate::error::HeaderFault::Shape { tensor: tensor.name.clone() },
        })? / 8;
        if held > 0 && held + bytes > most_shard_bytes {
            shards.push(Vec::new());
            held = 0;
        }
        held += bytes;
        shards.last_mut().expect("there is always one").push((tensor, bytes));
    }
    for shard in &mut shards {
        // As the crate `safetensors` does, so that each begins at a multiple of its width.
        shard.sort_by(|(one, _), (other, _)| {
            other.dtype.bitsize().cmp(&one.dtype.bitsize()).then_with(|| one.name.cmp(&other.name))
        });
    }
    Ok(shards)
}

/// Returns the length and the header of a file, and how many bytes of tensors follow.
fn header(tensors: &[(TensorSpec, u64)]) -> (Vec<u8>, u64) {
    let mut entries = Map::new();
    // What transformers writes, and refuses to read without.
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut end = 0;
    for (tensor, bytes) in tensors {
        let begin = end;
        end += bytes;
        let entry = json!({
            "dtype": format!("{:?}", tensor.dtype), "shape": tensor.shape, "data_offsets": [begin, end],
        });
        entries.insert(tensor.name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&entries).expect("a JSON value is written to memory");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    (header, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn spec(name: &str, dtype: Dtype, shape: &[u64]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    fn config() -> Map<String, Value> {
        json!({ "model_type": "llama", "vocab_size": 7 }).as_object().unwrap().clone()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = TempDir::new().unwrap();
        let tensors = vec![
            spec("short", Dtype::BF16, &[3]),
            spec("long", Dtype::F32, &[2, 2]),
            spec("empty", Dtype::F16, &[0, 4]),
            spec("bytes", Dtype::U8, &[3]),
        ];
        let writer = ModelWriter::create(folder.path(), &config(), tensors, MOST_SHARD_BYTES).unwrap();
        writer.write_raw("bytes", b"abc").unwrap();
        writer.write_at("long", 8, &[0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
        writer.write_at("long", 0, &[0; 8]).unwrap();
        writer.write_f32("short", &[1.0, -2.0, 1.0 + 1.0 / 512.0]).unwrap();
        writer.write_f32("empty", &[]).unwrap();
        writer.write_file("tokenizer.json", b"{}").unwrap();
        writer.finish(Durability::Synced).unwrap();
        assert_eq!(names(&folder), ["config.json", "model.safetensors", "tokenizer.json"]);
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!((model.config(), model.has_tokenizer()), (&config(), true));
        assert_eq!(model.read_f32("long").unwrap(), [0.0, 0.0, 1.0, 2.0]);
        assert_eq!(model.read_f32("short").unwrap(), [1.0, -2.0, 1.0]);
        assert!(model.read_f32("empty").unwrap().is_empty());
        assert_eq!(model.raw("bytes").unwrap(), b"abc");
        let refused = [model.read_f32("bytes").unwrap_err(), model.read_f32("none").unwrap_err()];
        assert_eq!(
            refused.map(|error| error.to_string()),
            [
                "tensor `bytes` is U8; only F32, F16 and BF16 can be computed with",
                "the model has no tensor `none`"
            ]
        );
    }

    #[test]
    fn shards_are_filled_in_order_and_indexed() {
        let folder = TempDir::new().unwrap();
        let tensors: Vec<_> = ["a", "b", "c", "d"].map(|name| spec(name, Dtype::F32, &[2])).into();
        let writer = ModelWriter::create(folder.path(), &config(), tensors, 16).unwrap();
        for (name, value) in [("d", 3.0), ("b", 1.0), ("c", 2.0), ("a", 0.0)] {
            writer.write_f32(name, &[value; 2]).unwrap();
        }
        writer.finish(Durability::Buffered).unwrap();
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(names(&folder), ["config.json", shards[0], shards[1], INDEX]);
        let model = ModelFolder::open(folder.path()).unwrap();
        let places: Vec<_> = model.tensors().iter().map(|tensor| tensor.file.as_str()).collect();
        assert_eq!(places, [shards[0], shards[0], shards[1], shards[1]]);
        assert_eq!(model.read_f32("d").unwrap(), [3.0, 3.0]);
    }

    #[test]
    fn a_model_that_is_not_whole_leaves_nothing() {
        let folder = TempDir::new().unwrap();
        let begin = || {
            let tensors = vec![spec("a", Dtype::F32, &[2]), spec("b", Dtype::F32, &[1])];
            ModelWriter::create(folder.path(), &config(), tensors, MOST_SHARD_BYTES).unwrap()
        };
        let writer = begin();
        writer.write_f32("a", &[1.0, 2.0]).unwrap();
        let message = writer.finish(Durability::Buffered).unwrap_err().to_string();
        assert_eq!(message, "tensor `b` has 4 bytes to be written, and was given 0");
        let writer = begin();
        assert!(writer.write_f32("a", &[1.0]).is_err());
        assert!(writer.write_at("a", 4, &[0; 8]).is_err());
        assert!(writer.write_f32("c", &[1.0]).is_err());
        drop(writer);
        assert_eq!(names(&folder), Vec::<String>::new());
        let twice = vec![spec("a", Dtype::F32, &[2]); 2];
        let error = ModelWriter::create(folder.path(), &config(), twice, MOST_SHARD_BYTES).unwrap_err();
        assert_eq!(error.to_string(), "two tensors to be written are named `a`");
    }

    #[test]
    fn what_cannot_fit_on_any_disk_is_refused_at_once() {
        let folder = TempDir::new().unwrap();
        let huge = vec![spec("a", Dtype::U8, &[1 << 50])];
        let error = ModelWriter::create(folder.path(), &config(), huge, u64::MAX).unwrap_err();
        assert!(matches!(error, ModelError::Write { .. }), "{error}");
        assert_eq!(names(&folder), Vec::<String>::new());
        let beyond = vec![spec("a", Dtype::U8, &[u64::MAX, 2])];
        let error = ModelWriter::create(folder.path(), &config(), beyond, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("no file can hold"), "{error}");
    }

    #[test]
    fn small_files_are_carried_over_and_weights_are_not() {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let tensors = || vec![spec("a", Dtype::F32, &[])];
        let create = |folder: &TempDir| {
            let writer = ModelWriter::create(folder.path(), &config(), tensors(), MOST_SHARD_BYTES).unwrap();
            writer.write_f32("a", &[1.0]).unwrap();
            writer
        };
        create(&from).finish(Durability::Buffered).unwrap();
        for name in ["tokenizer.json", "merges.txt", "pytorch_model.bin", ".hidden"] {
            fs::write(from.path().join(name), "{}").unwrap();
        }
        let writer = create(&to);
        writer.carry_over(&ModelFolder::open(from.path()).unwrap()).unwrap();
        writer.finish(Durability::Buffered).unwrap();
        assert_eq!(names(&to), ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]);
    }
}
