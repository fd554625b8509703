//! A network of whatever kind: what training, generation and adapters need of it.

use burn_tensor::{Device, Tensor};

use super::llama::LlamaForCausalLM;
use super::t5::T5ForConditionalGeneration;
use crate::models::decoding::{Continuation, Pieces};
use crate::tensor::layers::Linear;
use crate::tensor::low_rank::Dropout;
use crate::tensor::parameters::{Parameter, Parameters, Slot};
use crate::tensor::precision::Precision;
use crate::text::batches::Packed;
use crate::text::sequence::TokenLimit;

/// A network that writes outputs to prompts.
#[derive(Debug, Clone)]
// There is one of it, and what it holds is megabytes.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Network {
    /// A decoder, which reads a prompt as the beginning of its output: LLaMA, InternLM2.
    Decoder(LlamaForCausalLM),
    /// An encoder, which reads prompts, and a decoder, which looks at what it made of them: T5.
    EncoderDecoder(T5ForConditionalGeneration),
}

impl Network {
    /// Returns the pieces that read sequences.
    pub fn pieces<'a>(&'a self, packed: &Packed, device: &Device) -> Box<dyn Pieces + 'a> {
        match self {
            Self::Decoder(network) => Box::new(network.pieces(packed, device)),
            Self::EncoderDecoder(network) => Box::new(network.pieces(packed, device)),
        }
    }

    /// Returns the states before the tokens of outputs, `[output tokens, hidden]`, as the head takes
    /// them.
    pub fn predicting(&self, packed: &Packed, device: &Device) -> Tensor<2> {
        let pieces = self.pieces(packed, device);
        let mut left = (0..pieces.count()).fold(Vec::new(), |taken, number| pieces.compute(number, taken));
        left.pop().expect("the last piece leaves the states")
    }

    /// Returns the matrix that turns them into logits, `[vocabulary, hidden]`.
    pub fn head(&self) -> &Parameter<2> {
        match self {
            Self::Decoder(network) => network.head(),
            Self::EncoderDecoder(network) => network.head(),
        }
    }

    /// Returns the matrix's name.
    pub fn head_name(&self) -> &'static str {
        match self {
            Self::Decoder(network) => network.head_name(),
            Self::EncoderDecoder(network) => network.head_name(),
        }
    }

    /// Returns what products are computed in.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Decoder(network) => network.precision,
            Self::EncoderDecoder(network) => network.precision,
        }
    }

    /// Computes products in something from now on.
    pub fn compute_in(&mut self, precision: Precision) {
        match self {
            Self::Decoder(network) => network.precision = precision,
            Self::EncoderDecoder(network) => network.precision = precision,
        }
        for (_, linear) in self.linears() {
            linear.precision = precision;
        }
        if precision == Precision::Bf16 {
            self.visit(&mut |_, mut slot| slot.halve());
        }
    }

    /// Says whether projections are packed into fewer bits.
    pub fn is_packed(&self) -> bool {
        match self {
            Self::Decoder(network) => network.is_packed(),
            Self::EncoderDecoder(network) => network.is_packed(),
        }
    }

    /// Returns how many tokens it embeds.
    pub fn vocabulary_size(&self) -> usize {
        match self {
            Self::Decoder(network) => network.config.vocab_size,
            Self::EncoderDecoder(network) => network.config.vocab_size,
        }
    }

    /// Returns how many tokens it takes.
    pub fn limit(&self) -> TokenLimit {
        match self {
            Self::Decoder(network) => network.limit(),
            Self::EncoderDecoder(network) => network.limit(),
        }
    }

    /// Returns the tokens that end an output where no configuration says so: T5's has a default.
    pub fn usual_ends(&self) -> Option<Vec<u32>> {
        match self {
            Self::Decoder(_) => None,
            Self::EncoderDecoder(_) => Some(vec![1]),
        }
    }

    /// Returns a copy on a device.
    pub fn on(&self, device: &Device) -> Self {
        let mut copy = self.clone();
        if let Self::Decoder(network) = &mut copy {
            network.move_tables(device);
        }
        copy.visit(&mut |_, mut slot| slot.move_to(device));
        for (_, linear) in copy.linears() {
            linear.weight.move_packed_to(device);
        }
        copy
    }

    /// Shows the projections, each with its full path, in a fixed order.
    pub fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        match self {
            Self::Decoder(network) => network.linears(),
            Self::EncoderDecoder(network) => network.linears(),
        }
    }

    /// Says what a training step leaves out of the inputs of adapters, a share of `dropout`, and of
    /// the network's own numbers, the share that its configuration has.
    pub fn leave_out(&mut self, dropout: Dropout) {
        let mut number = 0;
        for (_, linear) in self.linears() {
            if let Some(adapter) = &mut linear.adapter {
                adapter.dropout = Some(Dropout { occasion: dropout.occasion + number, ..dropout });
                number += 1;
            }
        }
        if let Self::EncoderDecoder(network) = self {
            network.dropout = Some(Dropout { probability: network.config.dropout, ..dropout });
        }
    }

    /// Begins outputs for prompts, and returns the logits of their first tokens, row by row.
    pub fn begin<'a>(
        &'a self,
        prompts: &[&[u32]],
        device: &'a Device,
    ) -> (Box<dyn Continuation + 'a>, Vec<f32>) {
        match self {
            Self::Decoder(network) => {
                let (begun, logits) = network.begin(prompts, device);
                (Box::new(begun), logits)
            }
            Self::EncoderDecoder(network) => {
                let (begun, logits) = network.begin(prompts, device);
                (Box::new(begun), logits)
            }
        }
    }
}

impl Parameters for Network {
    fn visit(&mut self, see: &mut dyn FnMut(String, Slot<'_>)) {
        match self {
            Self::Decoder(network) => network.visit(see),
            Self::EncoderDecoder(network) => network.visit(see),
        }
    }
}
