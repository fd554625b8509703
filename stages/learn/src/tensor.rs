//! Tensors and what is computed with them: devices, layers, operations. No model, no text.

pub(crate) mod device;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod device_matmul;
#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
#[path = "tensor/no_device_matmul.rs"]
mod device_matmul;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod device_nf4;
#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
#[path = "tensor/no_device_nf4.rs"]
mod device_nf4;
pub(crate) mod exponential;
pub(crate) mod fused;
pub(crate) mod indices;
pub(crate) mod layers;
pub(crate) mod low_rank;
pub(crate) mod nf4;
pub(crate) mod parallel;
pub(crate) mod parameters;
pub(crate) mod precision;
pub(crate) mod random;
