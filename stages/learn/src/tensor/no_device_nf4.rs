//! Matrices in four bits on a GPU, in a program that knows no GPU.

use burn_tensor::{Device, FloatDType, Tensor};

use crate::tensor::nf4::Nf4;

/// A matrix in four bits on a GPU, of which this program knows none.
#[derive(Debug, Clone)]
pub(crate) enum DevicePacked {}

impl DevicePacked {
    /// Moves a matrix to a GPU.
    pub(super) fn new(_: &Nf4, device: &Device) -> Self {
        unreachable!("{device:?} is no CPU, and was not built in")
    }

    /// Unpacks it, `[rows, columns]`.
    pub(super) fn unpack(&self, _: FloatDType) -> Tensor<2> {
        match *self {}
    }

    /// Multiplies a few tokens with its transpose.
    pub(super) fn times(&self, _: &Tensor<2>) -> Option<Tensor<2>> {
        match *self {}
    }
}
