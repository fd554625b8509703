//! A folder that holds one model.

use crate::error::ModelError;
use crate::floats;
use crate::header::{self, Tensor};
use crate::map::MappedFile;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Files that hold weights in formats that are not read.
const WEIGHT_ENDINGS: [&str; 9] =
    [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".ot"];
/// Files that are about one model and true of no other.
const NOT_CARRIED: [&str; 4] = [CONFIG, "adapter_config.json", "README.md", "trainer_state.json"];
const TOKENIZER: &str = "tokenizer.json";
/// How many bytes of a file are looked at before they are let go of.
const READ_BYTES: usize = 4 << 20;

/// Says what a folder holds: a configuration and tensors, and whether a tokenizer.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    config: Map<String, Value>,
    files: Vec<String>,
    maps: Vec<Arc<MappedFile>>,
    tensors: Vec<Tensor>,
    has_tokenizer: bool,
}

impl ModelFolder {
    /// Reads a folder and checks that it is whole, without reading the tensors: their files are
    /// mapped, and read where and when somebody looks.
    ///
    /// `model.safetensors` is taken if it is there, else the shards that
    /// `model.safetensors.index.json` names, as transformers does.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let config = object(path, CONFIG, "; a model folder is in the layout of Hugging Face")?;
        let (files, maps, mut tensors) = if exists(path, WEIGHTS)? {
            let (map, tensors) = tensors_of(path, WEIGHTS)?;
            (vec![WEIGHTS.to_owned()], vec![map], tensors)
        } else if exists(path, INDEX)? {
            sharded(path)?
        } else {
            let hint = " and no index of shards; weights in another format have to be converted";
            return Err(ModelError::MissingFile { file: WEIGHTS.to_owned(), hint });
        };
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        let has_tokenizer = exists(path, TOKENIZER)?;
        if has_tokenizer {
            let _: BTreeMap<String, IgnoredAny> = json(path, TOKENIZER, "")?;
        }
        Ok(Self { path: path.to_owned(), config, files, maps, tensors, has_tokenizer })
    }

    /// Reads a folder of which one file of tensors is all that matters.
    pub(crate) fn of_one_file(path: &Path, file: &str) -> Result<Self, ModelError> {
        let (map, mut tensors) = tensors_of(path, file)?;
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        let has_tokenizer = exists(path, TOKENIZER)?;
        let (files, maps) = (vec![file.to_owned()], vec![map]);
        Ok(Self { path: path.to_owned(), config: Map::new(), files, maps, tensors, has_tokenizer })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what `config.json` says.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Returns the `model_type` of the configuration, such as `llama`.
    pub fn model_type(&self) -> Option<&str> {
        self.config.get("model_type")?.as_str()
    }

    /// Returns the `architectures` of the configuration, such as `LlamaForCausalLM`.
    pub fn architectures(&self) -> Vec<&str> {
        let listed = self.config.get("architectures").and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Returns the names of the files that hold tensors, in order.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Returns the tensors, by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Returns one tensor.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let place = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name));
        place.ok().map(|place| &self.tensors[place])
    }

    /// Returns the bytes of a tensor as they are in its file.
    pub fn raw(&self, name: &str) -> Result<&[u8], ModelError> {
        let missing = || ModelError::NoSuchTensor { tensor: name.to_owned() };
        let tensor = self.tensor(name).ok_or_else(missing)?;
        let file = self.files.iter().position(|file| *file == tensor.file);
        let map = &self.maps[file.expect("a tensor lies in one of the files")];
        Ok(map.bytes(tensor.bytes.clone()))
    }

    /// Lets go of some bytes of a tensor that were looked at: they are no longer counted as this
    /// process's memory, and looking at them again reads them again.
    pub fn release(&self, name: &str, bytes: Range<u64>) {
        let Some(tensor) = self.tensor(name) else { return };
        let file = self.files.iter().position(|file| *file == tensor.file);
        let map = &self.maps[file.expect("a tensor lies in one of the files")];
        let [start, end] = [bytes.start, bytes.end].map(|at| (tensor.bytes.start + at).min(tensor.bytes.end));
        map.release(start..end);
    }

    /// Reads a tensor of F32, F16 or BF16, piece by piece: of its file no more is in memory at once
    /// than a piece.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let bytes = self.raw(name)?;
        let dtype = self.tensor(name).expect("its bytes were found").dtype;
        let width =
            floats::width(dtype).ok_or_else(|| ModelError::NotFloats { tensor: name.to_owned(), dtype })?;
        let mut values = vec![0.0; bytes.len() / width];
        let pieces = values.chunks_mut(READ_BYTES / width).zip(bytes.chunks(READ_BYTES));
        for (number, (values, bytes)) in (0..).zip(pieces) {
            floats::decode(dtype, bytes, values);
            let begin = number * READ_BYTES as u64;
            self.release(name, begin..begin + bytes.len() as u64);
        }
        Ok(values)
    }

    /// Says whether two tensors have the same bytes, of which no more are in memory at once than a
    /// piece.
    pub fn is_repeated(&self, one: &str, other: &str) -> Result<bool, ModelError> {
        let [first, second] = [self.raw(one)?, self.raw(other)?];
        if first.len() != second.len() {
            return Ok(false);
        }
        for (number, (first, second)) in (0..).zip(first.chunks(READ_BYTES).zip(second.chunks(READ_BYTES))) {
            let is_equal = first == second;
            let begin = number * READ_BYTES as u64;
            for name in [one, other] {
                self.release(name, begin..begin + first.len() as u64);
            }
            if !is_equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns how many numbers the tensors hold.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).sum()
    }

    /// Returns how many bytes the tensors hold.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes.end - tensor.bytes.start).sum()
    }

    /// Returns the names of the files that are neither the configuration nor weights nor about
    /// this very model, in order: tokenizer, vocabulary, templates. Hidden files and folders are no part of a model.
    pub fn other_files(&self) -> Result<Vec<String>, ModelError> {
        let io = |source| ModelError::Io { file: ".".to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_weights = name.contains(".safetensors")
                || WEIGHT_ENDINGS.iter().any(|ending| name.ends_with(ending))
                || name.ends_with(".index.json");
            if !NOT_CARRIED.contains(&name.as_str())
                && !is_weights
                && !name.starts_with('.')
                && entry.path().is_file()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Says whether there is a `tokenizer.json`.
    pub fn has_tokenizer(&self) -> bool {
        self.has_tokenizer
    }
}

type Found = (Vec<String>, Vec<Arc<MappedFile>>, Vec<Tensor>);

fn sharded(path: &Path) -> Result<Found, ModelError> {
    let index = object(path, INDEX, "")?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| ModelError::NoWeightMap { file: INDEX.to_owned() })?;
    let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, shard) in map {
        let name = shard.as_str().filter(|name| is_file_name(name));
        let name = name.ok_or_else(|| ModelError::ShardName {
            tensor: tensor.clone(),
            shard: shard.as_str().map_or_else(|| shard.to_string(), str::to_owned),
        })?;
        shards.entry(name).or_default().insert(tensor);
    }
    let mut tensors = Vec::with_capacity(map.len());
    let mut maps = Vec::with_capacity(shards.len());
    for (shard, mut wanted) in shards.iter().map(|(shard, wanted)| (*shard, wanted.clone())) {
        let (map, held) = tensors_of(path, shard)?;
        maps.push(map);
        for tensor in held {
            if !wanted.remove(tensor.name.as_str()) {
                return Err(ModelError::ExtraTensor { tensor: tensor.name, shard: tensor.file });
            }
            tensors.push(tensor);
        }
        if let Some(tensor) = wanted.first() {
            let (tensor, shard) = ((*tensor).to_owned(), shard.to_owned());
            return Err(ModelError::MissingTensor { tensor, shard });
        }
    }
    Ok((shards.into_keys().map(str::to_owned).collect(), maps, tensors))
}

/// Says whether a name stays in the folder.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains('\\')
}

fn tensors_of(path: &Path, file: &str) -> Result<(Arc<MappedFile>, Vec<Tensor>), ModelError> {
    let source = open(path, file, ", which the index names: fetch the missing shards")?;
    let io = |source| ModelError::Io { file: file.to_owned(), source };
    let file_bytes = source.metadata().map_err(io)?.len();
    let read = header::read(file, file_bytes, BufReader::new(&source)).map_err(io)?;
    let tensors = read.map_err(|fault| ModelError::Header { file: file.to_owned(), fault })?;
    let map = MappedFile::of(&source).map_err(io)?;
    if map.length() != file_bytes {
        let changed = std::io::Error::other("its length changed while it was opened");
        return Err(io(changed));
    }
    Ok((Arc::new(map), tensors))
}

fn exists(path: &Path, file: &str) -> Result<bool, ModelError> {
    let io = |source| ModelError::Io { file: file.to_owned(), source };
    path.join(file).try_exists().map_err(io)
}

fn open(path: &Path, file: &str, hint: &'static str) -> Result<File, ModelError> {
    let path = path.join(file);
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => ModelError::MissingFile { file: file.to_owned(), hint },
        _ => ModelError::Io { file: file.to_owned(), source },
    };
    // A pipe may never end, and opening one may wait for ever.
    if !std::fs::metadata(&path).map_err(failed)?.is_file() {
        return Err(ModelError::NotAFile { file: file.to_owned() });
    }
    File::open(&path).map_err(failed)
}

pub(crate) fn object(path: &Path, file: &str, hint: &'static str) -> Result<Map<String, Value>, ModelError> {
    json(path, file, hint)
}

fn json<T: serde::de::DeserializeOwned>(
    path: &Path,
    file: &str,
    hint: &'static str,
) -> Result<T, ModelError> {
    let source = BufReader::new(open(path, file, hint)?);
    serde_json::from_reader(source).map_err(|source| match source.classify() {
        serde_json::error::Category::Data => ModelError::NotAnObject { file: file.to_owned() },
        serde_json::error::Category::Io => ModelError::Io { file: file.to_owned(), source: source.into() },
        _ => ModelError::Json { file: file.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    /// A file of tensors of one byte each.
    fn shard(names: &[&str]) -> Vec<u8> {
        let entries = names.iter().enumerate().map(|(at, name)| {
            format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1)
        });
        let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + names.len(), 0);
        bytes
    }

    fn config() -> (&'static str, Vec<u8>) {
        (CONFIG, br#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#.to_vec())
    }

    fn index(map: &str) -> (&'static str, Vec<u8>) {
        (INDEX, format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).into_bytes())
    }

    fn refused(files: &[(&str, Vec<u8>)]) -> String {
        ModelFolder::open(folder(files).path()).unwrap_err().to_string()
    }

    #[test]
    fn one_file_is_a_model() {
        let tokenizer = (TOKENIZER, b"{\"model\":{}}".to_vec());
        let folder = folder(&[config(), (WEIGHTS, shard(&["b", "a"])), tokenizer]);
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!((model.model_type(), model.architectures()), (Some("llama"), vec!["LlamaForCausalLM"]));
        assert_eq!((model.parameters(), model.bytes(), model.has_tokenizer()), (2, 2, true));
        assert_eq!((model.tensors()[0].name.as_str(), model.files()), ("a", &[WEIGHTS.to_owned()][..]));
        assert_eq!(model.tensor("b").unwrap().bytes.end, model.tensor("a").unwrap().bytes.start);
        assert!(model.tensor("c").is_none());
    }

    #[test]
    fn shards_are_a_model() {
        let folder = folder(&[
            config(),
            index(r#"{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}"#),
            ("1.safetensors", shard(&["c", "a"])),
            ("2.safetensors", shard(&["b"])),
        ]);
        let model = ModelFolder::open(folder.path()).unwrap();
        let places = model.tensors().iter().map(|t| (t.name.as_str(), t.file.as_str()));
        let expected = [("a", "1.safetensors"), ("b", "2.safetensors"), ("c", "1.safetensors")];
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn shards_and_index_must_agree() {
        let with =
            |map: &str, names: &[&str]| refused(&[config(), index(map), ("1.safetensors", shard(names))]);
        assert_eq!(
            with(r#"{"a":"1.safetensors","b":"1.safetensors"}"#, &["a"]),
            "the index puts tensor `b` in `1.safetensors`, which does not hold it"
        );
        assert_eq!(
            with(r#"{"a":"1.safetensors"}"#, &["a", "b"]),
            "`1.safetensors` holds tensor `b`, which the index does not put there"
        );
        assert_eq!(
            with(r#"{"a":"2.safetensors"}"#, &["a"]),
            "there is no `2.safetensors`, which the index names: fetch the missing shards"
        );
        for name in ["../1.safetensors", "/1.safetensors", "a/1.safetensors", "..", "", "1/"] {
            let message = with(&format!(r#"{{"a":"{name}"}}"#), &["a"]);
            assert!(message.contains("not the name of a file here"), "{name}: {message}");
        }
        assert!(with("7", &[]).contains("has no `weight_map`"));
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = folder(&[(WEIGHTS, shard(&["a"]))]);
        std::fs::create_dir(folder.path().join(CONFIG)).unwrap();
        let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
        assert_eq!(error, "`config.json` is no file");
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let weights = (WEIGHTS, shard(&["a"]));
        assert!(refused(&[]).starts_with("there is no `config.json`"));
        assert!(refused(&[config()]).starts_with("there is no `model.safetensors` and no index"));
        let array = (CONFIG, b"[]".to_vec());
        assert_eq!(refused(&[array, weights.clone()]), "`config.json` is not a json object");
        let half = (CONFIG, b"{".to_vec());
        assert!(refused(&[half, weights.clone()]).starts_with("`config.json` is not valid json"));
        let tokenizer = (TOKENIZER, b"{".to_vec());
        assert!(refused(&[config(), weights, tokenizer]).starts_with("`tokenizer.json` is not"));
        let message = refused(&[config(), (WEIGHTS, vec![1, 2])]);
        assert!(message.starts_with("`model.safetensors`: the file has 2 bytes"), "{message}");
    }
}
