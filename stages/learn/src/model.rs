//! A model as the rest of the house sees it: folders in, folders out, no tensor between.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use choice::choices;
use serde_json::{Map, Value, json};
use weights::{LowRank, ModelFolder};

use crate::adapters::{self, Adapter, AdapterMethod, Lora};
use crate::batches::TokenLimit;
use crate::device::{self, DeviceError, DeviceName};
use crate::layers::Weight;
use crate::models::llama::{self, LlamaForCausalLM};
use crate::models::t5::{self, T5ForConditionalGeneration};
use crate::models::{self, Network, OpenError, Untrained};
use crate::parameters::{Parameter, Parameters as _};
use crate::tokenizer::{self, Tokenizer, TokenizerError};

choices! {
    /// The architecture of a model made from scratch.
    pub enum Architecture: Shape in "model" {
        /// A decoder of LLaMA's kind.
        llama::Llama,
        /// An encoder and a decoder of T5's kind.
        t5::T5,
    }
}

/// The sizes of a model made from scratch.
pub trait Shape {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String>;

    /// Returns the parameters that such a model has with a vocabulary of this size.
    fn parameters(&self, vocabulary_size: usize) -> u64;
}

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
    /// It could not be written.
    #[error("cannot write the model")]
    Write(#[from] weights::ModelError),
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
    ends: Vec<u32>,
    device: Device,
    lora: Option<Lora>,
    /// Where the files beside the weights come from.
    beside: PathBuf,
}

impl Model {
    /// Opens a model folder in the layout of Hugging Face.
    ///
    /// # Errors
    /// [`ModelError`], naming the folder and the tensor.
    pub fn open(folder: &Path, device: &DeviceName) -> Result<Self, ModelError> {
        let device = device::open(device)?;
        let read = ModelFolder::open(folder)
            .map_err(|source| OpenError::Folder { folder: folder.to_owned(), source })?;
        let network = models::open(&read, &device)?;
        let tokenizer = Tokenizer::open(folder)?;
        let (tokens, embedded) = (tokenizer.vocabulary_size(), network.vocabulary_size());
        if tokens > embedded {
            return Err(OpenError::Vocabulary { folder: folder.to_owned(), tokens, embedded }.into());
        }
        let config = read.config().clone();
        let ends = ends(folder, &config)
            .or_else(|| network.usual_ends())
            .ok_or_else(|| ModelError::NoEnd { folder: folder.to_owned() })?;
        Ok(Self { network, config, tokenizer, ends, device, lora: None, beside: folder.to_owned() })
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
        let (mut config, network) = match architecture {
            Architecture::Llama(shape) => {
                let shape = shape.config(vocabulary);
                let (config, range) = (shape.write(), shape.initializer_range);
                let std = |_: &str| range;
                let Ok(network) =
                    LlamaForCausalLM::build(shape, &device, &mut Untrained::new(seed, &std, &device));
                (config, Network::Decoder(network))
            }
            Architecture::T5(shape) => {
                let shape = shape.config(vocabulary, pad);
                let (config, sizes) = (shape.write(), shape.clone());
                let std = |name: &str| sizes.std(name);
                let Ok(network) =
                    T5ForConditionalGeneration::build(shape, &mut Untrained::new(seed, &std, &device));
                (config, Network::EncoderDecoder(network))
            }
        };
        for (name, id) in [("pad_token_id", pad), ("bos_token_id", begin), ("eos_token_id", end)] {
            config.insert(name.to_owned(), id.into());
        }
        let beside = tokenizer_folder.to_owned();
        Ok(Self { network, config, tokenizer, ends: vec![end], device, lora: None, beside })
    }

    /// Freezes the weights and puts adapters beside them, which learn instead.
    ///
    /// # Errors
    /// [`ModelError::NoSuchModule`] if a target module is none.
    pub fn adapt(&mut self, adapter: &AdapterMethod, seed: u64) -> Result<(), ModelError> {
        let (lora, packing) = match adapter {
            AdapterMethod::Lora(lora) => (lora.clone(), None),
            AdapterMethod::Qlora(qlora) => (qlora.lora(), Some(qlora.double_quantization)),
        };
        let known = self.modules();
        if let Some(module) = lora.target_modules.iter().find(|module| !known.contains(module)) {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(ModelError::NoSuchModule { module: module.clone(), known });
        }
        self.network.visit(&mut |_, mut slot| slot.set_learns(false));
        for (number, (path, linear)) in self.network.linears().into_iter().enumerate() {
            if let Some(double_quantization) = packing {
                linear.weight.pack(double_quantization);
            }
            let is_target = |module: &String| module == last_part(&path);
            if lora.target_modules.is_empty() || lora.target_modules.iter().any(is_target) {
                let shape = linear.weight.shape();
                linear.adapter = Some(Adapter::new(&lora, shape, seed, number as u64, &self.device));
            }
        }
        self.lora = Some(lora);
        Ok(())
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
            let (found, asked) = (product.shape, [output, rank, input]);
            if found != asked {
                return Err(unfit(format!(
                    "for `{path}` it has [out, rank, in] {found:?}, and {asked:?} is asked for"
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
            let added = tensor(product.b, [output, rank]).matmul(tensor(product.a, [rank, input]));
            let weight = linear.weight.get(&device) + added.mul_scalar(product.scale);
            linear.weight = Weight::Dense(Parameter::new(weight));
        }
        match products.into_keys().next() {
            Some(path) => Err(unfit(format!("the model has no projection `{path}`"))),
            None => Ok(()),
        }
    }

    /// Adds the adapters to the weights, and takes them away. Packed weights are unpacked: what
    /// was learnt was learnt beside the numbers that they stand for.
    pub fn merge_adapters(&mut self) {
        for (_, linear) in self.network.linears() {
            let adapter = linear.adapter.take();
            if adapter.is_some() || linear.is_packed() {
                let weight = linear.weight.get(&self.device);
                let weight = match adapter {
                    Some(adapter) => weight + adapter.delta(),
                    None => weight,
                };
                linear.weight = Weight::Dense(Parameter::new(weight));
            }
        }
        self.lora = None;
    }

    /// Writes the adapters as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Write`].
    pub fn save_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let Some(lora) = self.lora.clone() else { return Ok(()) };
        let modules = match lora.target_modules.is_empty() {
            true => self.modules(),
            false => lora.target_modules.clone(),
        };
        let task = match self.network {
            Network::Decoder(_) => "CAUSAL_LM",
            Network::EncoderDecoder(_) => "SEQ_2_SEQ_LM",
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": task,
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
        self.network.visit(&mut |name, slot| {
            if name.contains(".lora_") {
                let numbers =
                    slot.flat().into_data().try_into_vec::<f32>().expect("parameters are single floats");
                tensors.push((format!("base_model.model.{name}"), slot.shape(), numbers));
            }
        });
        adapters::save(folder, &config, &tensors)
    }

    /// Writes the model folder: weights in single floats, configuration, tokenizer.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn save(&mut self, folder: &Path) -> Result<(), ModelError> {
        let mut config = self.config.clone();
        config.remove("torch_dtype");
        config.insert("dtype".to_owned(), "float32".into());
        models::save(&mut self.network, &config, folder)?;
        let copy = |path: &Path, source| ModelError::Copy { path: path.to_owned(), source };
        for entry in fs::read_dir(&self.beside).map_err(|error| copy(&self.beside, error))? {
            let path = entry.map_err(|error| copy(&self.beside, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_weights = name.contains(".safetensors") || name.starts_with("pytorch_model");
            if path.is_file() && name != "config.json" && !is_weights && !name.starts_with('.') {
                // The bytes, not the permissions: an input may be read-only.
                let bytes = fs::read(&path).map_err(|error| copy(&path, error))?;
                fs::write(folder.join(&name), bytes).map_err(|error| copy(&path, error))?;
            }
        }
        Ok(())
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the tokens that end an output; the first is the one that targets end with.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// Returns how many tokens a prompt and its output may have.
    pub fn limit(&self) -> TokenLimit {
        self.network.limit()
    }

    /// Returns how many numbers it has, and how many of them learn.
    pub fn parameters(&mut self) -> (u64, u64) {
        let (mut all, mut learning) = (0, 0);
        for (_, linear) in self.network.linears().into_iter().filter(|(_, linear)| linear.is_packed()) {
            all += linear.weight.shape().iter().map(|size| *size as u64).product::<u64>();
        }
        self.network.visit(&mut |_, slot| {
            let count = slot.shape().iter().map(|size| *size as u64).product::<u64>();
            all += count;
            learning += if slot.learns() { count } else { 0 };
        });
        (all, learning)
    }

    /// Returns how many bytes the projections take that are packed into four bits, if any are.
    pub fn packed_bytes(&mut self) -> Option<u64> {
        let packed = self.network.linears().into_iter().filter_map(|(_, linear)| match &linear.weight {
            Weight::Packed(packed) => Some(packed.bytes() as u64),
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

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Returns the tokens that end an output: `generation_config.json` before `config.json`.
fn ends(folder: &Path, config: &Map<String, Value>) -> Option<Vec<u32>> {
    let generation = fs::read(folder.join("generation_config.json")).ok();
    let generation: Option<Value> = generation.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let written = generation.as_ref().and_then(|generation| generation.get("eos_token_id"));
    let written = written.filter(|ids| !ids.is_null()).or_else(|| config.get("eos_token_id"))?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match written {
        Value::Array(ids) => ids.iter().map(id).collect::<Option<Vec<_>>>().filter(|ids| !ids.is_empty()),
        one => id(one).map(|id| vec![id]),
    }
}
