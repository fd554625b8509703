//! A model as the rest of the workspace sees it: folders in, folders out, no tensor between.

pub(crate) mod memory_estimate;
mod open;
mod random_model;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn_tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value, json};
use weights::{AdapterTensor, LowRank, ModelFolder};

pub use open::OpenError;
#[cfg(test)]
pub(crate) use open::open as open_network;
pub use random_model::{RandomModelError, shape, shapes, write_random};

use crate::adapters::{AdapterMethod, Lora};
use crate::models::Architecture;
use crate::network::{Network, RandomInit};
use crate::tensor::device::{self, DeviceError, DeviceName};
use crate::tensor::layers::{Storage, Weight};
use crate::tensor::low_rank::Adapter;
use crate::tensor::parameters::{Parameter, Parameters as _};
use crate::tensor::precision::{Precision, matmul_f32};
use crate::text::sequence::TokenLimit;
use crate::text::tokenizer::{self, Tokenizer, TokenizerError};

/// A model that cannot be opened, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The folder is no model.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A tokenizer does not say which tokens begin, end and fill a text.
    #[error("the tokenizer has no `<pad>`, `<s>` and `</s>`: use one that a `tokenizer` stage made")]
    NoSpecialTokens,
    /// The configuration does not say which token ends a text.
    #[error("{}: neither `generation_config.json` nor `config.json` has an `eos_token_id`", .folder.display())]
    NoEnd {
        /// The folder.
        folder: PathBuf,
    },
    /// No projection has such a name.
    #[error("no projection is named `{module}`; there are {known}")]
    NoSuchModule {
        /// The name.
        module: String,
        /// The names there are.
        known: String,
    },
    /// The folder is no adapter.
    #[error("cannot use the adapter {}", .folder.display())]
    Adapter {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: weights::ModelError,
    },
    /// An adapter does not fit the model.
    #[error("the adapter {} does not fit: {detail}", .folder.display())]
    AnotherBase {
        /// The adapter's folder.
        folder: PathBuf,
        /// The projection, and what does not fit.
        detail: String,
    },
    /// A file beside the weights says what cannot be.
    #[error("{}: {detail}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// It could not be written.
    #[error("cannot write the model")]
    Write(#[from] weights::ModelError),
    /// An adapter could not be written.
    #[error("cannot write the adapter to {}", .folder.display())]
    WriteAdapter {
        /// The folder.
        folder: PathBuf,
        /// The file, and what the system said.
        source: weights::ModelError,
    },
    /// A file beside the weights could not be copied.
    #[error("cannot copy {}", .path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A model with its tokenizer, on a device.
pub struct Model {
    network: Network,
    config: Map<String, Value>,
    tokenizer: Tokenizer,
    eos_token_ids: Vec<u32>,
    device: Device,
    lora: Option<Lora>,
    /// Where the files beside the weights come from.
    beside: PathBuf,
}

impl Model {
    /// Opens a model folder in the layout of Hugging Face.
    ///
    /// Tensors are read one by one: no more lies in memory than the model as it is kept, and one
    /// tensor.
    ///
    /// # Errors
    /// [`ModelError`], naming the folder and the tensor.
    pub fn open(folder: &Path, device: &DeviceName) -> Result<Self, ModelError> {
        Self::open_as(folder, Storage::Dense, device)
    }

    /// Opens a model folder as [`Model::open`] does, for an adapter that is to be put beside it:
    /// what the adapter wants packed is packed tensor by tensor as it is read.
    ///
    /// # Errors
    /// [`ModelError`], naming the folder and the tensor.
    pub fn open_to_adapt(
        folder: &Path,
        adapter: &AdapterMethod,
        device: &DeviceName,
    ) -> Result<Self, ModelError> {
        Self::open_as(folder, storage(adapter), device)
    }

    fn open_as(folder: &Path, storage: Storage, device: &DeviceName) -> Result<Self, ModelError> {
        let device = device::open(device)?;
        let read = ModelFolder::open(folder)
            .map_err(|source| OpenError::Folder { folder: folder.to_owned(), source })?;
        // Before the weights, which take longer.
        let tokenizer = Tokenizer::open(folder)?;
        let network = open::open(&read, storage, &device)?;
        let (tokens, embedded) = (tokenizer.vocabulary_size(), network.vocabulary_size());
        if tokens > embedded {
            return Err(OpenError::Vocabulary { folder: folder.to_owned(), tokens, embedded }.into());
        }
        let config = read.config().clone();
        let eos_token_ids = eos_token_ids(folder, &config)?
            .or_else(|| network.default_eos_token_ids())
            .ok_or_else(|| ModelError::NoEnd { folder: folder.to_owned() })?;
        Ok(Self { network, config, tokenizer, eos_token_ids, device, lora: None, beside: folder.to_owned() })
    }

    /// Makes a model that nobody has trained, for the tokenizer in a folder.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn from_scratch(
        architecture: &Architecture,
        tokenizer_folder: &Path,
        seed: u64,
        device: &DeviceName,
    ) -> Result<Self, ModelError> {
        let device = device::open(device)?;
        let tokenizer = Tokenizer::open(tokenizer_folder)?;
        let [pad, begin, end] = tokenizer::made_here(&tokenizer).ok_or(ModelError::NoSpecialTokens)?;
        let vocabulary = tokenizer.vocabulary_size();
        let model_config = architecture.model_config(vocabulary, pad);
        let mut config = model_config.write();
        let std = |name: &str| model_config.initial_std(name);
        let network = model_config.build(&mut RandomInit::new(seed, &std, &device));
        let network = network.expect("random numbers can always be drawn");
        for (name, id) in [("pad_token_id", pad), ("bos_token_id", begin), ("eos_token_id", end)] {
            config.insert(name.to_owned(), id.into());
        }
        let beside = tokenizer_folder.to_owned();
        Ok(Self { network, config, tokenizer, eos_token_ids: vec![end], device, lora: None, beside })
    }

    /// Freezes the weights and puts adapters beside them, which are trained instead.
    ///
    /// # Errors
    /// [`ModelError::NoSuchModule`] if a target module is none.
    pub fn adapt(&mut self, adapter: &AdapterMethod, seed: u64) -> Result<(), ModelError> {
        let lora = match adapter {
            AdapterMethod::Lora(lora) => lora.clone(),
            AdapterMethod::Qlora(qlora) => qlora.lora(),
        };
        let storage = storage(adapter);
        let known = self.modules();
        if let Some(module) = lora.target_modules.iter().find(|module| !known.contains(module)) {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(ModelError::NoSuchModule { module: module.clone(), known });
        }
        self.network.visit(&mut |_, mut parameter| parameter.set_requires_grad(false));
        for (number, (path, linear)) in self.network.linears().into_iter().enumerate() {
            if let Storage::Nf4 { double_quantization } = storage {
                linear.weight.pack(double_quantization, &self.device);
            }
            let is_target = |module: &String| module == last_part(&path);
            if lora.target_modules.is_empty() || lora.target_modules.iter().any(is_target) {
                let shape = linear.weight.shape();
                linear.adapter =
                    Some(Adapter::new(lora.r as usize, lora.alpha, shape, seed, number as u64, &self.device));
            }
        }
        self.lora = Some(lora);
        Ok(())
    }

    /// Computes products in something from now on. On a GPU what is not trained is then kept in it.
    ///
    /// # Errors
    /// [`DeviceError::Precision`] if the device does not know it.
    pub fn compute_in(&mut self, precision: Precision) -> Result<(), DeviceError> {
        if !precision.is_known_to(&self.device) {
            return Err(DeviceError::Precision);
        }
        self.network.compute_in(precision);
        Ok(())
    }

    /// The same of a model that is not trained.
    ///
    /// # Errors
    /// As [`Model::compute_in`].
    pub fn only_compute_in(&mut self, precision: Precision) -> Result<(), DeviceError> {
        self.network.visit(&mut |_, mut parameter| parameter.set_requires_grad(false));
        self.compute_in(precision)
    }

    /// Begins the adapters with the numbers of others, in the layout of PEFT.
    ///
    /// # Errors
    /// [`ModelError::Adapter`], and [`ModelError::AnotherBase`] if projections, ranks or scales are
    /// not those of [`Model::adapt`].
    pub fn continue_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let device = self.device.clone();
        let mut products = read_products(folder)?;
        let unfit = |detail: String| ModelError::AnotherBase { folder: folder.to_owned(), detail };
        for (path, linear) in self.network.linears() {
            let [output, input] = linear.weight.shape();
            let Some(adapter) = &mut linear.adapter else { continue };
            let Some(product) = products.remove(&path) else {
                return Err(unfit(format!("it has nothing for `{path}`, which is to learn")));
            };
            let rank = adapter.a.value.dims()[0];
            let (found, expected) = (product.shape, [output, rank, input]);
            if found != expected {
                return Err(unfit(format!(
                    "for `{path}` it has [out, rank, in] {found:?}, and {expected:?} is needed"
                )));
            }
            if (product.scale - adapter.scale).abs() > 1e-9 * adapter.scale {
                return Err(unfit(format!(
                    "its products are scaled by {}, and `alpha` over `r` is {}",
                    product.scale, adapter.scale
                )));
            }
            let tensor = |numbers, shape| Tensor::from_data(TensorData::new(numbers, shape), &device);
            adapter.a.value = tensor(product.a, [rank, input]);
            adapter.b.value = tensor(product.b, [output, rank]);
        }
        match products.into_keys().next() {
            Some(path) => Err(unfit(format!("it has something for `{path}`, which is not to learn"))),
            None => Ok(()),
        }
    }

    /// Adds an adapter in the layout of PEFT to the weights.
    ///
    /// # Errors
    /// [`ModelError::Adapter`], and [`ModelError::AnotherBase`] if the model has no such projections.
    pub fn add_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let device = self.device.clone();
        let mut products = read_products(folder)?;
        let unfit = |detail: String| ModelError::AnotherBase { folder: folder.to_owned(), detail };
        for (path, linear) in self.network.linears() {
            let Some(product) = products.remove(&path) else { continue };
            let [output, rank, input] = product.shape;
            let own = linear.weight.shape();
            if own != [output, input] {
                let theirs = [output, input];
                return Err(unfit(format!("`{path}` is {own:?}, and the adapter was made for {theirs:?}")));
            }
            let tensor = |numbers, shape| Tensor::<2>::from_data(TensorData::new(numbers, shape), &device);
            let added = matmul_f32(tensor(product.b, [output, rank]), tensor(product.a, [rank, input]));
            let weight = linear.weight.get(&device) + added.mul_scalar(product.scale);
            linear.weight = Weight::Dense(Parameter::new(weight));
        }
        match products.into_keys().next() {
            Some(path) => Err(unfit(format!("the model has no projection `{path}`"))),
            None => Ok(()),
        }
    }

    /// Writes the adapters as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::WriteAdapter`].
    pub fn save_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let Some(lora) = self.lora.clone() else { return Ok(()) };
        let modules =
            if lora.target_modules.is_empty() { self.modules() } else { lora.target_modules.clone() };
        let config = json!({
            "peft_type": "LORA",
            "task_type": self.network.peft_task_type(),
            "base_model_name_or_path": null,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "r": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": modules,
        });
        let mut tensors = Vec::new();
        self.network.visit(&mut |name, parameter| {
            if name.contains(".lora_") {
                let numbers = parameter.flat().into_data().try_into_vec::<f32>().expect("parameters are f32");
                tensors.push(AdapterTensor { name, shape: parameter.shape(), values: numbers });
            }
        });
        weights::Adapter::write(folder, &config, &tensors)
            .map_err(|source| ModelError::WriteAdapter { folder: folder.to_owned(), source })
    }

    /// Writes the model folder: weights in f32, configuration, tokenizer. What adapters
    /// learned is added to the weights that are written; packed ones are written as the numbers that
    /// they stand for, beside which it was learned.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn save(&mut self, folder: &Path) -> Result<(), ModelError> {
        let mut config = self.config.clone();
        config.remove("torch_dtype");
        config.insert("dtype".to_owned(), "float32".into());
        open::save(&mut self.network, &config, folder, &self.device)?;
        let copy = |path: &Path, source| ModelError::Copy { path: path.to_owned(), source };
        for entry in fs::read_dir(&self.beside).map_err(|error| copy(&self.beside, error))? {
            let path = entry.map_err(|error| copy(&self.beside, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_weights = name.contains(".safetensors") || name.starts_with("pytorch_model");
            if path.is_file() && name != "config.json" && !is_weights && !name.starts_with('.') {
                // The bytes, not the permissions: an input may be read-only.
                let copied = fs::File::open(&path).and_then(|mut from| {
                    let mut to = fs::File::create(folder.join(&name))?;
                    io::copy(&mut from, &mut to)
                });
                copied.map_err(|error| copy(&path, error))?;
            }
        }
        Ok(())
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the tokens that end an output; the first is the one that targets end with.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// Returns how many tokens a prompt and its output may have.
    pub fn limit(&self) -> TokenLimit {
        self.network.limit()
    }

    /// Returns how many numbers it has, and how many of them are trained.
    pub fn parameters(&mut self) -> (u64, u64) {
        let (mut all, mut learning) = (0, 0);
        for (_, linear) in self.network.linears().into_iter().filter(|(_, linear)| linear.is_packed()) {
            all += linear.weight.shape().iter().map(|size| *size as u64).product::<u64>();
        }
        self.network.visit(&mut |_, parameter| {
            let count = parameter.shape().iter().map(|size| *size as u64).product::<u64>();
            all += count;
            learning += if parameter.requires_grad() { count } else { 0 };
        });
        (all, learning)
    }

    /// Returns how many bytes the projections take that are packed into four bits, if any are.
    pub fn packed_bytes(&mut self) -> Option<u64> {
        let packed = self.network.linears().into_iter().filter_map(|(_, linear)| match &linear.weight {
            Weight::Packed(packed) => Some(packed.host.bytes() as u64),
            Weight::Dense(_) => None,
        });
        Some(packed.sum()).filter(|bytes| *bytes > 0)
    }

    /// Returns the last parts of the projections' names, each once.
    fn modules(&mut self) -> Vec<String> {
        let mut modules: Vec<String> = Vec::new();
        for (path, _) in self.network.linears() {
            let module = last_part(&path);
            if !modules.iter().any(|known| known == module) {
                modules.push(module.to_owned());
            }
        }
        modules
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn dropout(&self) -> f64 {
        self.lora.as_ref().map_or(0.0, |lora| lora.dropout)
    }
}

/// Reads the products of an adapter, by the projections that they stand beside.
fn read_products(folder: &Path) -> Result<BTreeMap<String, LowRank>, ModelError> {
    let unusable = |source| ModelError::Adapter { folder: folder.to_owned(), source };
    let products = weights::Adapter::open(folder).and_then(|adapter| adapter.products()).map_err(unusable)?;
    Ok(products.into_iter().map(|product| (product.path.clone(), product)).collect())
}

/// Returns how an adapter wants the projections kept.
fn storage(adapter: &AdapterMethod) -> Storage {
    match adapter {
        AdapterMethod::Lora(_) => Storage::Dense,
        AdapterMethod::Qlora(qlora) => Storage::Nf4 { double_quantization: qlora.double_quantization },
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

const GENERATION_CONFIG: &str = "generation_config.json";

/// Returns the tokens that end an output: `generation_config.json` before `config.json`.
fn eos_token_ids(folder: &Path, config: &Map<String, Value>) -> Result<Option<Vec<u32>>, ModelError> {
    const FIELD: &str = "eos_token_id";
    let unusable = |file: &str, detail: String| ModelError::Unusable { path: folder.join(file), detail };
    let path = folder.join(GENERATION_CONFIG);
    let generation = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(GENERATION_CONFIG, error.to_string())),
        Ok(metadata) if !metadata.is_file() => {
            return Err(unusable(GENERATION_CONFIG, "it is no file".to_owned()));
        }
        Ok(_) => {
            let text = fs::read(&path).map_err(|error| unusable(GENERATION_CONFIG, error.to_string()))?;
            let read: Map<String, Value> = serde_json::from_slice(&text)
                .map_err(|error| unusable(GENERATION_CONFIG, format!("it is no JSON object: {error}")))?;
            Some(read)
        }
    };
    let written = |file: &'static str, config: &Map<String, Value>| {
        config.get(FIELD).filter(|ids| !ids.is_null()).cloned().map(|ids| (file, ids))
    };
    let first = generation.and_then(|generation| written(GENERATION_CONFIG, &generation));
    let Some((file, ids)) = first.or_else(|| written("config.json", config)) else { return Ok(None) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let read = match &ids {
        Value::Array(ids) => ids.iter().map(id).collect::<Option<Vec<_>>>(),
        one => id(one).map(|id| vec![id]),
    };
    let read = read.ok_or_else(|| unusable(file, format!("`{FIELD}` is {ids}, and no number of a token")))?;
    Ok(Some(read).filter(|ids| !ids.is_empty()))
}

#[cfg(test)]
mod tests;
