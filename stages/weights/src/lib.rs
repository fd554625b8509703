//! Named tensors on the host, in the layout of Hugging Face.
//!
//! [`ModelFolder`] reads the configuration of a model, and the name, type, shape and position of
//! every tensor. The bytes of the tensors stay in their files, which are
//! mapped, until one is read. [`ModelWriter`] writes such a folder tensor by tensor.
//! The crate refuses to know what computes with them: no device, no layer, no forward pass. It
//! trusts no file: whatever a header claims is checked against the bytes that are there.
//!
//! ```no_run
//! use weights::{Durability, MOST_SHARD_BYTES, ModelFolder, ModelWriter, TensorSpec};
//!
//! let model = ModelFolder::open("models/meditron-7b")?;
//! println!("{:?}, {} parameters", model.model_type(), model.parameters());
//! let specs = model.tensors().iter().map(TensorSpec::from).collect();
//! let writer = ModelWriter::create("models/halved", model.config(), specs, MOST_SHARD_BYTES)?;
//! writer.carry_over(&model)?;
//! for tensor in model.tensors() {
//!     let halves: Vec<f32> = model.read_f32(&tensor.name)?.iter().map(|value| value / 2.0).collect();
//!     writer.write_f32(&tensor.name, &halves)?;
//! }
//! writer.finish(Durability::Buffered)?;
//! # Ok::<(), weights::ModelError>(())
//! ```

mod agreement;
mod error;
mod expert;
pub mod floats;
mod folder;
mod header;
mod lora;
mod magnitudes;
mod map;
mod merge;
pub mod mergekit;
pub mod merges;
mod operands;
mod ops;
mod place;
mod setting;
mod tensors;
mod wide;
mod writer;

pub use error::{MergeError, ModelError};
pub use expert::{Expert, Normalization};
pub use folder::ModelFolder;
pub use header::Tensor;
pub use lora::{Adapter, AdapterTensor, LowRank};
pub use merge::{MergeOptions, MergeReport, Recipe, merge};
pub use safetensors::Dtype;
pub use setting::Setting;
pub use writer::{Durability, MOST_SHARD_BYTES, ModelWriter, TensorSpec};
