//! Products of low rank beside projections: LoRA's `(alpha / r) B A x`.

use burn_tensor::{Device, Tensor, TensorData};

use crate::tensor::parameters::{Parameter, ParameterRef};
use crate::tensor::precision::{Precision, matmul_f32};
use crate::tensor::random::{Purpose, Random};

/// The low-rank product beside one projection.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    /// `[r, in]`.
    pub a: Parameter<2>,
    /// `[out, r]`.
    pub b: Parameter<2>,
    /// `alpha / r`.
    pub scale: f64,
    /// What this step leaves out of the input, where it is training.
    pub dropout: Option<Dropout>,
}

/// Which inputs one step leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// The share.
    pub probability: f64,
    /// The experiment's seed.
    pub seed: u64,
    /// A number that no other adapter and step has.
    pub stream: u64,
}

impl Adapter {
    /// Begins the adapter number `number` of a model, beside a projection of shape `[out, in]`.
    pub(crate) fn new(
        rank: usize,
        alpha: f64,
        [output, input]: [usize; 2],
        seed: u64,
        number: u64,
        device: &Device,
    ) -> Self {
        let mut random = Random::new(seed, Purpose::Adapter, number);
        let a = TensorData::new(random.uniform(rank * input, 1.0 / (input as f32).sqrt()), [rank, input]);
        let a = Tensor::from_data(a, device);
        let b = Tensor::zeros([output, rank], device);
        let scale = alpha / rank as f64;
        Self { a: Parameter::new(a), b: Parameter::new(b), scale, dropout: None }
    }

    /// Returns what it adds: `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = match self.dropout {
            Some(Dropout { probability, seed, stream }) if probability > 0.0 => {
                let [tokens, width] = x.dims();
                let kept =
                    Random::new(seed, Purpose::Dropout, stream).dropout(tokens * width, probability as f32);
                let kept = Tensor::from_data(TensorData::new(kept, [tokens, width]), &x.device());
                x * kept
            }
            _ => x,
        };
        let low = precision.linear(x, self.a.get());
        precision.linear(low, self.b.get()).mul_scalar(self.scale)
    }

    /// Returns `(alpha / r) B A`, what it adds to the weight.
    pub(crate) fn delta(&self) -> Tensor<2> {
        matmul_f32(self.b.get(), self.a.get()).mul_scalar(self.scale)
    }

    /// Shows its parameters, by PEFT's names without the prefix.
    pub(crate) fn visit(&mut self, path: &str, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        see(format!("{path}.lora_A.weight"), ParameterRef::Matrix(&mut self.a));
        see(format!("{path}.lora_B.weight"), ParameterRef::Matrix(&mut self.b));
    }
}
