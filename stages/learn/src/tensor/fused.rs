//! Operations that the CPU computes in one go where burn would take many, with their derivatives
//! written out.
//!
//! Each is one file of plain functions on slices. On a tape it is one step, and what it keeps for
//! the backward pass is said there. Other devices, and other types than f32, go through the
//! same operation composed of burn's, which stands beside each; tests compare the two.
//!
//! Operations run on the thread that calls them, which has its share of the work; only a large
//! matrix times a few tokens is divided further, and no result depends on how.

mod attention;
mod cross_entropy;
mod gelu;
mod gemm;
mod linear;
pub(crate) mod operation;
mod rms_norm;
mod rope;
mod simd;
mod skinny_gemm;
mod softmax;
mod swiglu;

pub(crate) use attention::{Causal, SingleQuery, attend, causal_attention, single_query_attention};
pub(crate) use cross_entropy::SoftmaxCrossEntropy;
pub(crate) use gelu::gelu;
pub(crate) use linear::linear;
pub(crate) use rms_norm::rms_norm;
pub(crate) use rope::Rope;
pub(crate) use softmax::softmax;
pub(crate) use swiglu::swiglu;
