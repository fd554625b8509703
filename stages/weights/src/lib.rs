//! Named tensors on the host, in the layout of Hugging Face.
//!
//! [`ModelFolder`] reads what a folder says of its model: the configuration, and of every tensor
//! its name, type, shape and place. The bytes of the tensors stay in their files, which are
//! mapped, until somebody asks for one. [`ModelWriter`] writes such a folder tensor by tensor.
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
mod place;
mod setting;
pub mod verbs;
mod wide;
mod writer;

pub use error::{HeaderFault, MergeError, ModelError};
pub use folder::ModelFolder;
pub use header::{LARGEST_HEADER_BYTES, Tensor};
pub use lora::{Adapter, AdapterTensor, LowRank};
pub use merge::{Expert, Merged, Recipe, Running, Tensors, Weighing, merge};
pub use operands::{Operands, PIECE, Piece};
pub use place::{Group, Place};
pub use safetensors::Dtype;
pub use setting::{PerModel, Rule, Setting};
pub use writer::{Durability, MOST_SHARD_BYTES, ModelWriter, TensorSpec};
