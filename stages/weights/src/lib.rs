//! Named tensors on the host, in the layout of Hugging Face.
//!
//! [`ModelFolder`] reads what a folder says of its model: the configuration, and of every tensor
//! its name, type, shape and place. The bytes of the tensors stay where they are. The crate
//! refuses to know what computes with them: no device, no layer, no forward pass. It trusts no
//! file: whatever a header claims is checked against the bytes that are there.
//!
//! ```no_run
//! use weights::ModelFolder;
//!
//! let model = ModelFolder::open("models/meditron-7b")?;
//! println!("{:?}, {} parameters", model.model_type(), model.parameters());
//! for tensor in model.tensors() {
//!     println!("{} {:?} {:?} in {}", tensor.name, tensor.dtype, tensor.shape, tensor.file);
//! }
//! # Ok::<(), weights::ModelError>(())
//! ```

mod error;
mod folder;
mod header;

pub use error::{HeaderFault, ModelError};
pub use folder::ModelFolder;
pub use header::{LARGEST_HEADER_BYTES, Tensor};
pub use safetensors::Dtype;
