//! A language model of whatever kind: what training, generation and adapters need of it.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};

use burn_tensor::{Device, Tensor};

use super::decoding::Continuation;
use crate::tensor::layers::Linear;
use crate::tensor::low_rank::Dropout;
use crate::tensor::parameters::{Parameter, ParameterRef, Parameters};
use crate::tensor::precision::Precision;
use crate::text::batches::Packed;
use crate::text::sequence::TokenLimit;

/// A model that writes outputs to prompts: a decoder, which reads a prompt as the beginning of its
/// output, or an encoder and a decoder.
pub(crate) trait LanguageModel: Parameters + Debug + Send + Sync {
    /// Returns a copy.
    fn copy(&self) -> Network;

    /// Returns the segments that read sequences.
    fn segments<'a>(&'a self, packed: &Packed<'_>, device: &Device) -> Box<dyn Segments + 'a>;

    /// Begins outputs for prompts, and returns the logits of their first tokens, row by row.
    fn begin<'a>(&'a self, prompts: &[&[u32]], device: &'a Device) -> (Box<dyn Continuation + 'a>, Vec<f32>);

    /// Returns the matrix that table hidden states into logits, `[vocabulary, hidden]`.
    fn head(&self) -> &Parameter<2>;

    /// Returns the matrix's name.
    fn head_name(&self) -> &'static str;

    /// Shows the projections, each with its full path, in a fixed order.
    fn linears(&mut self) -> Vec<(String, &mut Linear)>;

    /// Says whether projections are packed into fewer bits.
    fn is_packed(&self) -> bool;

    /// Returns what products are computed in.
    fn precision(&self) -> Precision;

    /// Computes products other than those of projections in something from now on.
    fn set_precision(&mut self, precision: Precision);

    /// Says what a training step leaves out of the model's own numbers, where its configuration says
    /// how much.
    fn set_own_dropout(&mut self, _dropout: Dropout) {}

    /// Moves what is no parameter to a device.
    fn move_tables(&mut self, _device: &Device) {}

    /// Returns how many tokens it embeds.
    fn vocabulary_size(&self) -> usize;

    /// Returns how many tokens it takes.
    fn limit(&self) -> TokenLimit;

    /// Returns the tokens that end an output where no configuration says so.
    fn default_eos_token_ids(&self) -> Option<Vec<u32>> {
        None
    }

    /// Returns what PEFT calls the task of such a model.
    fn peft_task_type(&self) -> &'static str;
}

/// A network that reads sequences, as segments that are computed one after the other.
///
/// What a segment leaves is what the next one takes, and nothing else that has a derivative passes
/// between them: each can be computed again from what it took.
pub(crate) trait Segments {
    /// Returns how many there are.
    fn count(&self) -> usize;

    /// Computes one of them. The first takes nothing; the last leaves one matrix, the states before
    /// the tokens of outputs, `[output tokens, hidden]`, as the head takes them.
    fn compute(&self, number: usize, taken: Vec<Tensor<2>>) -> Vec<Tensor<2>>;

    /// Says whether anything in the first one is trained.
    fn first_requires_grad(&self) -> bool;
}

/// A language model, whichever it is.
#[derive(Debug)]
pub(crate) struct Network(Box<dyn LanguageModel>);

impl<M: LanguageModel + 'static> From<M> for Network {
    fn from(model: M) -> Self {
        Self(Box::new(model))
    }
}

impl Clone for Network {
    fn clone(&self) -> Self {
        self.0.copy()
    }
}

impl Deref for Network {
    type Target = dyn LanguageModel;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Network {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

impl Parameters for Network {
    fn visit(&mut self, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        self.0.visit(see);
    }
}

impl Network {
    /// Returns the states before the tokens of outputs, `[output tokens, hidden]`, as the head takes
    /// them.
    pub(crate) fn predicting(&self, packed: &Packed<'_>, device: &Device) -> Tensor<2> {
        let segments = self.segments(packed, device);
        let mut left =
            (0..segments.count()).fold(Vec::new(), |taken, number| segments.compute(number, taken));
        left.pop().expect("the last segment leaves the states")
    }

    /// Computes products in something from now on.
    pub(crate) fn compute_in(&mut self, precision: Precision) {
        self.set_precision(precision);
        for (_, linear) in self.linears() {
            linear.precision = precision;
        }
        if precision.has_bf16() {
            self.visit(&mut |_, mut parameter| parameter.cast_to_bf16());
        }
    }

    /// Returns a copy on a device.
    pub(crate) fn on(&self, device: &Device) -> Self {
        let mut copy = self.clone();
        copy.move_tables(device);
        copy.visit(&mut |_, mut parameter| parameter.move_to(device));
        for (_, linear) in copy.linears() {
            linear.weight.move_packed_to(device);
        }
        copy
    }

    /// Says what a training step leaves out of the inputs of adapters, a share of `dropout`, and of
    /// the network's own numbers, the share that its configuration has.
    pub(crate) fn set_dropout(&mut self, dropout: Dropout) {
        let mut number = 0;
        for (_, linear) in self.linears() {
            if let Some(adapter) = &mut linear.adapter {
                adapter.dropout = Some(Dropout { stream: dropout.stream + number, ..dropout });
                number += 1;
            }
        }
        self.set_own_dropout(dropout);
    }
}
