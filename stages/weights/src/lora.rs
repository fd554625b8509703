//! Adapters as PEFT writes them: W + (alpha / r) B A.
//!
//! LoRA: Hu et al., 2021, eq. 3. The scale is `lora_alpha / r`, or `lora_alpha / sqrt(r)` with
//! `use_rslora`; `rank_pattern` shows in the shapes, `alpha_pattern` is followed. What changes
//! the formula (DoRA, transposed layers, biases) is refused, not ignored.

use crate::error::ModelError;
use crate::folder::{self, ModelFolder};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// A low-rank change of a model.
#[derive(Clone, Debug)]
pub struct Adapter {
    tensors: ModelFolder,
    config: Map<String, Value>,
}

/// What an adapter does to one tensor.
pub(crate) enum Change {
    /// It adds a product of low rank.
    Added(Added),
    /// It brings another tensor in its place, by that name.
    Replaced(String),
}

/// A product of low rank, to be added to a matrix.
pub(crate) struct Added {
    columns: usize,
    rank: usize,
    /// B, already scaled: row by row, as many numbers as the rank.
    left: Vec<f32>,
    /// A: as many rows as the rank.
    right: Vec<f32>,
}

/// A product of low rank beside one projection, as files have it.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// The projection: its weight's name without `.weight`.
    pub path: String,
    /// A, `[rank, in]`.
    pub a: Vec<f32>,
    /// B, `[out, rank]`.
    pub b: Vec<f32>,
    /// `[out, rank, in]`.
    pub shape: [usize; 3],
    /// What the product is multiplied with.
    pub scale: f64,
}

/// One half of a product, as it is written.
#[derive(Clone, Debug)]
pub struct AdapterTensor {
    /// The projection's path, with `.lora_A.weight` or `.lora_B.weight` behind it.
    pub name: String,
    /// Its rows and columns.
    pub shape: Vec<usize>,
    /// Its numbers, row by row.
    pub values: Vec<f32>,
}

impl Adapter {
    /// Writes an adapter as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Write`], naming the file.
    pub fn write(folder: &Path, config: &Value, tensors: &[AdapterTensor]) -> Result<(), ModelError> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
            (format!("{PREFIX}{}", tensor.name), view.expect("the bytes fit the shape"))
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let weights = safetensors::serialize(views, Some(metadata)).expect("the tensors fit their shapes");
        let config = serde_json::to_string_pretty(config).expect("a table is JSON") + "\n";
        for (name, bytes) in [(WEIGHTS, weights), (CONFIG, config.into_bytes())] {
            std::fs::write(folder.join(name), bytes)
                .map_err(|source| ModelError::Write { file: name.to_owned(), source })?;
        }
        Ok(())
    }

    /// Says whether a folder holds an adapter and not a whole model.
    pub fn is_in(path: impl AsRef<Path>) -> bool {
        path.as_ref().join(CONFIG).exists()
    }

    /// Reads a folder with `adapter_config.json` and `adapter_model.safetensors`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let config = folder::object(path, CONFIG, "; an adapter is in the layout of PEFT")?;
        let unsupported = |what: String| ModelError::Adapter { what };
        if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(unsupported("only adapters of `peft_type` LORA can be merged".to_owned()));
        }
        for option in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"] {
            if config.get(option).is_some_and(|value| *value == Value::Bool(true)) {
                return Err(unsupported(format!("`{option}` is not supported")));
            }
        }
        // PEFT writes a rank always; one that is left out is the tensors'.
        if let Some(rank) = config.get("r") {
            rank_of("r", rank)?;
        }
        for (pattern, rank) in table(&config, "rank_pattern")? {
            rank_of(&format!("rank_pattern.{pattern}"), rank)?;
        }
        for (pattern, alpha) in table(&config, "alpha_pattern")? {
            alpha_of(&format!("alpha_pattern.{pattern}"), alpha)?;
        }
        if let Some(alpha) = config.get("lora_alpha") {
            alpha_of("lora_alpha", alpha)?;
        }
        let tensors = ModelFolder::of_one_file(path, WEIGHTS)?;
        let adapter = Self { tensors, config };
        for tensor in adapter.tensors.tensors() {
            let name = &tensor.name;
            let target = name.strip_prefix(PREFIX).filter(|name| !name.contains("lora_embedding"));
            if target.is_none() || name.contains(".lora_") && adapter.path_of(name).is_none() {
                return Err(unsupported(format!("tensor `{name}` of `{WEIGHTS}` is not understood")));
            }
        }
        Ok(adapter)
    }

    /// Returns the names of the tensors of the base that it changes.
    pub fn targets(&self) -> BTreeSet<String> {
        let names = self.tensors.tensors().iter().map(|tensor| match self.path_of(&tensor.name) {
            Some(path) => format!("{path}.weight"),
            None => tensor.name[PREFIX.len()..].to_owned(),
        });
        names.collect()
    }

    /// Returns its products, by the order of their names.
    ///
    /// # Errors
    /// [`ModelError`] if a half of one is missing, if halves do not fit each other, and if the
    /// adapter brings whole tensors besides.
    pub fn products(&self) -> Result<Vec<LowRank>, ModelError> {
        let paths: BTreeSet<&str> =
            self.tensors.tensors().iter().filter_map(|tensor| self.path_of(&tensor.name)).collect();
        if let Some(whole) = self.tensors.tensors().iter().find(|tensor| self.path_of(&tensor.name).is_none())
        {
            let what =
                format!("tensor `{}` replaces one of the base; merge it with `merge` first", whole.name);
            return Err(ModelError::Adapter { what });
        }
        let product = |path: &str| {
            let [right, left] = ["lora_A", "lora_B"].map(|part| format!("{PREFIX}{path}.{part}.weight"));
            let half = |name: &str| match self.tensors.tensor(name) {
                Some(tensor) => Ok(tensor),
                None => Err(ModelError::Adapter { what: format!("there is no tensor `{name}`") }),
            };
            let (&[rank, input], &[output, other]) = (&half(&right)?.shape[..], &half(&left)?.shape[..])
            else {
                return Err(ModelError::Adapter {
                    what: format!("`{right}` and its counterpart are no matrices"),
                });
            };
            if rank != other || rank == 0 {
                let what = format!("`{right}` has rank {rank}, and `{left}` has {other}");
                return Err(ModelError::Adapter { what });
            }
            Ok(LowRank {
                path: path.to_owned(),
                a: self.tensors.read_f32(&right)?,
                b: self.tensors.read_f32(&left)?,
                shape: [output, rank, input].map(|size| size as usize),
                scale: self.scale(path, rank)?,
            })
        };
        let product = |path: &str| {
            let product = product(path)?;
            if product.a.iter().chain(&product.b).all(|number| number.is_finite()) {
                Ok(product)
            } else {
                Err(ModelError::Adapter { what: format!("`{path}` holds NaN or infinity") })
            }
        };
        paths.into_iter().map(product).collect()
    }

    /// Returns the folder with its tensors.
    pub(crate) fn tensors(&self) -> &ModelFolder {
        &self.tensors
    }

    /// Returns what it does to a tensor of the base, if anything.
    pub(crate) fn change(&self, name: &str, shape: &[u64]) -> Result<Option<Change>, ModelError> {
        let replaced = format!("{PREFIX}{name}");
        if let Some(found) = self.tensors.tensor(&replaced) {
            self.expect_shape(&replaced, &found.shape, shape)?;
            return Ok(Some(Change::Replaced(replaced)));
        }
        let path = name.strip_suffix(".weight").unwrap_or(name);
        let [right, left] = ["lora_A", "lora_B"].map(|part| format!("{PREFIX}{path}.{part}.weight"));
        let (Some(found), Some(_)) = (self.tensors.tensor(&right), self.tensors.tensor(&left)) else {
            return match self.tensors.tensor(&right).or(self.tensors.tensor(&left)) {
                Some(half) => {
                    Err(ModelError::Adapter { what: format!("`{}` has no counterpart", half.name) })
                }
                None => Ok(None),
            };
        };
        let rank = found.shape.first().copied().unwrap_or_default();
        let &[rows, columns] = shape else {
            return Err(ModelError::Adapter { what: format!("`{name}` is not a matrix") });
        };
        self.expect_shape(&right, &found.shape, &[rank, columns])?;
        self.expect_shape(&left, &self.tensors.tensor(&left).expect("just found").shape, &[rows, rank])?;
        let scale = self.scale(path, rank)?;
        let mut left = self.tensors.read_f32(&left)?;
        left.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        let right = self.tensors.read_f32(&right)?;
        Ok(Some(Change::Added(Added { columns: columns as usize, rank: rank as usize, left, right })))
    }

    fn path_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let name = name.strip_prefix(PREFIX)?;
        name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight"))
    }

    /// Returns what a product is multiplied with, if its rank is the one that the configuration says.
    fn scale(&self, path: &str, rank: u64) -> Result<f64, ModelError> {
        self.check_rank(path, rank)?;
        let alpha = match matching(table(&self.config, "alpha_pattern")?, path) {
            Some(alpha) => Some(alpha),
            None => self.config.get("lora_alpha"),
        };
        let alpha = alpha.and_then(Value::as_f64);
        let alpha =
            alpha.ok_or_else(|| ModelError::Adapter { what: "there is no `lora_alpha`".to_owned() })?;
        let by_root = self.config.get("use_rslora").is_some_and(|value| *value == Value::Bool(true));
        Ok(alpha / if by_root { (rank as f64).sqrt() } else { rank as f64 })
    }

    /// A tensor of another rank than the configuration says is of another adapter, or cut.
    fn check_rank(&self, path: &str, rank: u64) -> Result<(), ModelError> {
        let patterns = table(&self.config, "rank_pattern")?;
        let known: Vec<u64> = match matching(patterns.clone(), path) {
            Some(only) => vec![rank_of("rank_pattern", only)?],
            None => {
                // PEFT takes patterns for regular expressions, which are not looked for here.
                let is_plain = |pattern: &str| {
                    pattern.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
                };
                let others = patterns.filter(|(pattern, _)| !is_plain(pattern)).map(|(_, rank)| rank);
                let all = self.config.get("r").into_iter().chain(others);
                all.map(|rank| rank_of("r", rank)).collect::<Result<_, _>>()?
            }
        };
        if known.is_empty() || known.contains(&rank) || !self.config.contains_key("r") {
            return Ok(());
        }
        let known = known.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ");
        let what =
            format!("`{CONFIG}` says that `r` of `{path}` is {known}, and its tensors have rank {rank}");
        Err(ModelError::Adapter { what })
    }

    fn expect_shape(&self, name: &str, found: &[u64], expected: &[u64]) -> Result<(), ModelError> {
        if found == expected {
            return Ok(());
        }
        let what = format!("tensor `{name}` has the shape {found:?}, and {expected:?} is needed");
        Err(ModelError::Adapter { what })
    }
}

/// Returns the entries of a table of the configuration that may be absent.
fn table<'a>(
    config: &'a Map<String, Value>,
    field: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)> + Clone + use<'a>, ModelError> {
    match config.get(field) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(table)) => Ok(Some(table).into_iter().flatten()),
        Some(other) => {
            Err(ModelError::Adapter { what: format!("`{field}` of `{CONFIG}` is {other}, and no table") })
        }
    }
}

/// Returns the entry whose name is the end of a path.
fn matching<'a>(mut entries: impl Iterator<Item = (&'a String, &'a Value)>, path: &str) -> Option<&'a Value> {
    let is_end =
        |pattern: &str| path.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    entries.find(|(pattern, _)| is_end(pattern)).map(|(_, value)| value)
}

fn rank_of(field: &str, value: &Value) -> Result<u64, ModelError> {
    // Beyond this no matrix has a rank.
    const LARGEST: u64 = 1 << 31;
    let rank = value.as_u64().filter(|rank| (1..=LARGEST).contains(rank));
    rank.ok_or_else(|| ModelError::Adapter {
        what: format!("`{field}` of `{CONFIG}` is {value}, and no whole number above 0"),
    })
}

fn alpha_of(field: &str, value: &Value) -> Result<f64, ModelError> {
    let what = || format!("`{field}` of `{CONFIG}` is {value}, and no number");
    value.as_f64().ok_or_else(|| ModelError::Adapter { what: what() })
}

impl Added {
    /// Adds some of its numbers, counted row by row.
    pub(crate) fn add_to(&self, start: usize, values: &mut [f32]) {
        let mut at = start;
        let mut rest = values;
        while !rest.is_empty() {
            let (row, column) = (at / self.columns, at % self.columns);
            let (here, behind) = rest.split_at_mut((self.columns - column).min(rest.len()));
            for step in 0..self.rank {
                let factor = self.left[row * self.rank + step];
                let right = &self.right[step * self.columns + column..][..here.len()];
                for (value, right) in here.iter_mut().zip(right) {
                    *value += factor * right;
                }
            }
            at += here.len();
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_that_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let half = |part: &str, shape: [usize; 2]| AdapterTensor {
            name: format!("model.layers.0.self_attn.q_proj.{part}.weight"),
            shape: shape.to_vec(),
            values: (0..shape[0] * shape[1]).map(|value| value as f32 / 4.0).collect(),
        };
        let tensors = [half("lora_A", [2, 3]), half("lora_B", [4, 2])];
        let config = serde_json::json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 6.0 });
        Adapter::write(folder.path(), &config, &tensors).unwrap();
        let products = Adapter::open(folder.path()).unwrap().products().unwrap();
        let [product] = products.as_slice() else { panic!("{products:?}") };
        assert_eq!(product.path, "model.layers.0.self_attn.q_proj");
        assert_eq!((product.shape, product.scale), ([4, 2, 3], 3.0));
        assert_eq!((&product.a, &product.b), (&tensors[0].values, &tensors[1].values));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(CONFIG)).unwrap();
        let error = Adapter::write(folder.path(), &Value::Null, &[]).unwrap_err().to_string();
        assert!(error.starts_with("cannot write `adapter_config.json`: "), "{error}");
    }
}
