//! The pieces that models are built of.
//!
//! Activations are matrices, one token in each row, so that every projection is one product.

use std::sync::Arc;

use burn_tensor::{Device, FloatDType, Tensor, TensorData};

use crate::tensor::device::is_cpu;
use crate::tensor::device_nf4::DevicePacked;
use crate::tensor::fused;
use crate::tensor::low_rank::Adapter;
use crate::tensor::nf4::Nf4;
use crate::tensor::parameters::{Parameter, ParameterRef};
use crate::tensor::precision::Precision;

/// The matrix of a projection, `[out, in]` as files have it.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, and what they hold is megabytes")]
pub(crate) enum Weight {
    /// In f32, which can be trained.
    Dense(Parameter<2>),
    /// Four bits each, which cannot; unpacked for each product.
    Packed(Arc<Packed>),
}

/// A matrix in four bits: on a GPU, where it computes, and on the host, from where it is written.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The bytes.
    pub host: Nf4,
    device: Option<DevicePacked>,
}

impl Packed {
    /// Keeps a matrix for computing on a device.
    pub(crate) fn new(host: Nf4, device: &Device) -> Self {
        let on_device = (!is_cpu(device)).then(|| DevicePacked::new(&host, device));
        Self { host, device: on_device }
    }

    /// Returns the numbers, in what products of a precision take.
    fn get(&self, device: &Device, precision: Precision) -> Tensor<2> {
        match &self.device {
            Some(packed) => packed.unpack(match precision {
                Precision::F32 | Precision::Tf32 => FloatDType::F32,
                Precision::Bf16 | Precision::Bf16Weights => FloatDType::BF16,
            }),
            None => Tensor::from_data(TensorData::new(self.host.dequantise(), self.host.shape), device),
        }
    }
}

/// How the matrices of projections are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In f32.
    Dense,
    /// In four bits each.
    Nf4 {
        /// Whether the scales of the blocks are packed too, in eight bits.
        double_quantization: bool,
    },
}

impl From<Tensor<2>> for Weight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(Parameter::new(weight))
    }
}

impl Weight {
    /// Keeps numbers of `[out, in]`, row by row.
    pub(crate) fn new(numbers: Vec<f32>, shape: [usize; 2], storage: Storage, device: &Device) -> Self {
        match storage {
            Storage::Dense => Tensor::from_data(TensorData::new(numbers, shape), device).into(),
            Storage::Nf4 { double_quantization } => {
                let host = Nf4::quantise(&numbers, shape, double_quantization);
                Self::Packed(Arc::new(Packed::new(host, device)))
            }
        }
    }

    /// Returns `[out, in]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.value.dims(),
            Self::Packed(packed) => packed.host.shape,
        }
    }

    /// Returns the numbers, as f32.
    pub(crate) fn get(&self, device: &Device) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.get().cast(FloatDType::F32),
            Self::Packed(packed) => packed.get(device, Precision::F32),
        }
    }

    /// Multiplies `[tokens, in]` with the transpose.
    fn times(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let mut weight = match self {
            Self::Dense(weight) => weight.get(),
            Self::Packed(packed) => {
                if let Some(found) = packed.device.as_ref().and_then(|packed| packed.times(&x)) {
                    return found;
                }
                packed.get(&x.device(), precision)
            }
        };
        if x.is_autodiff() && !weight.is_autodiff() {
            weight = weight.autodiff();
        }
        precision.linear(x, weight)
    }

    /// Moves a packed one to a device; a dense one is a parameter, which moves with the others.
    pub(crate) fn move_packed_to(&mut self, device: &Device) {
        if let Self::Packed(packed) = self {
            *packed = Arc::new(Packed::new(packed.host.clone(), device));
        }
    }

    /// Packs it into four bits.
    pub(crate) fn pack(&mut self, double_quantization: bool, device: &Device) {
        if let Self::Dense(weight) = self {
            let shape = weight.value.dims();
            let numbers = weight.get().into_data().try_into_vec::<f32>();
            let numbers = numbers.expect("parameters are f32");
            let host = Nf4::quantise(&numbers, shape, double_quantization);
            *self = Self::Packed(Arc::new(Packed::new(host, device)));
        }
    }
}

/// A projection `x Wᵀ`, with an adapter beside it or not.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// The matrix.
    pub weight: Weight,
    /// `[out]`, in models that have one.
    pub bias: Option<Parameter<1>>,
    /// What is learned instead of the weight.
    pub adapter: Option<Adapter>,
    /// What its products are computed in.
    pub precision: Precision,
}

impl Linear {
    /// Makes a projection without bias or adapter.
    pub(crate) fn new(weight: impl Into<Weight>) -> Self {
        Self { weight: weight.into(), bias: None, adapter: None, precision: Precision::F32 }
    }

    /// Returns the matrix with what the adapter adds to it, `[out, in]`.
    pub(crate) fn merged(&self, device: &Device) -> Tensor<2> {
        let weight = self.weight.get(device);
        match &self.adapter {
            Some(adapter) => weight + adapter.delta(),
            None => weight,
        }
    }

    /// Says whether its matrix is packed into fewer bits.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.weight, Weight::Packed(_))
    }

    /// Projects `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut y = self.weight.times(x.clone(), self.precision);
        if let Some(adapter) = &self.adapter {
            y = y + adapter.forward(x, self.precision);
        }
        match &self.bias {
            Some(bias) => y + bias.get().unsqueeze(),
            None => y,
        }
    }

    /// Shows its parameters.
    pub(crate) fn visit(&mut self, path: &str, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        if let Weight::Dense(weight) = &mut self.weight {
            see(format!("{path}.weight"), ParameterRef::Matrix(weight));
        }
        if let Some(bias) = &mut self.bias {
            see(format!("{path}.bias"), ParameterRef::Vector(bias));
        }
        if let Some(adapter) = &mut self.adapter {
            adapter.visit(path, see);
        }
    }
}

/// Divides each row by its root mean square, and scales it.
pub(crate) fn rms_norm(x: Tensor<2>, gain: &Parameter<1>, epsilon: f64) -> Tensor<2> {
    fused::rms_norm(x, gain.get(), epsilon)
}
