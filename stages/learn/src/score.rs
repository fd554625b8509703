//! From outputs to log-probabilities, and from slopes back to gradients.
//!
//! The model's blocks are on burn's tape; the head and the softmax are not. Their derivative is
//! known, `slope * (one-hot - softmax)`, and needs the slope, which an objective knows only when
//! it has seen the log-probabilities. Written out, nothing of the size of the vocabulary is ever
//! recorded, and hidden states that predict nothing of an output never reach the head.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, IndexingUpdateOp, Tensor, TensorData};

use crate::adapters::Dropout;
use crate::batches::Packed;
use crate::models::llama::LlamaForCausalLM;
use crate::objectives::Logp;
use crate::parameters::{Parameters, Slot};

/// Gradients in the order in which a model shows its parameters; none where it does not learn.
pub(crate) type Gradients = Vec<Option<Tensor<1>>>;

/// Returns the log-probabilities of sequences.
pub(crate) fn logps(model: &LlamaForCausalLM, packed: &Packed, device: &Device) -> Vec<Logp> {
    let hidden = model.hidden(packed.ids(device), packed.rows).select(0, packed.picks(device));
    let logits = hidden.matmul(model.head().get().transpose());
    sums(log_softmax(logits, 1).gather(1, packed.targets(device)), packed)
}

/// Returns the gradients of whatever has, by a function of the log-probabilities, these slopes.
pub(crate) fn gradients(
    model: &LlamaForCausalLM,
    packed: &Packed,
    dropout: Option<Dropout>,
    device: &Device,
    slopes: impl FnOnce(&[Logp]) -> Vec<f64>,
) -> Gradients {
    let mut tape = model.clone();
    tape.visit(&mut |_, mut slot| slot.record());
    if let Some(dropout) = dropout {
        let mut number = 0;
        for layer in &mut tape.layers {
            for (_, linear) in layer.linears() {
                if let Some(adapter) = &mut linear.adapter {
                    let occasion = dropout.occasion + number;
                    adapter.dropout = Some(Dropout { occasion, ..dropout });
                    number += 1;
                }
            }
        }
    }
    let recorded = tape.hidden(packed.ids(device), packed.rows).select(0, packed.picks(device).autodiff());
    let hidden = recorded.clone().inner();
    let head = model.head();
    let log_softmax = log_softmax(hidden.clone().matmul(head.get().transpose()), 1);
    let targets = packed.targets(device);
    let sums = sums(log_softmax.clone().gather(1, targets.clone()), packed);
    let slopes = slopes(&sums);
    let per_token = slopes.iter().zip(&packed.lengths);
    let per_token: Vec<f32> =
        per_token.flat_map(|(slope, length)| std::iter::repeat_n(*slope as f32, *length)).collect();
    let count = per_token.len();
    let per_token = Tensor::<2>::from_data(TensorData::new(per_token, [count, 1]), device);
    let by_logits =
        (log_softmax.exp() * per_token.clone().neg()).scatter(1, targets, per_token, IndexingUpdateOp::Add);
    let by_hidden = by_logits.clone().matmul(head.get());
    let mut found = (recorded * by_hidden.autodiff()).sum().backward();
    let by_head = head.learns.then(|| by_logits.transpose().matmul(hidden).flatten::<1>(0, 1));
    let head_name = if model.lm_head.is_some() { "lm_head.weight" } else { "model.embed_tokens.weight" };
    let mut gradients = Gradients::new();
    tape.visit(&mut |name, slot: Slot<'_>| {
        let mut gradient = if slot.learns() { slot.take_gradient(&mut found) } else { None };
        if let Some(by_head) = by_head.as_ref().filter(|_| name == head_name) {
            gradient = Some(match gradient {
                Some(gradient) => gradient + by_head.clone(),
                None => by_head.clone(),
            });
        }
        gradients.push(gradient);
    });
    gradients
}

/// Adds the log-probabilities of each sequence's tokens up.
fn sums(per_token: Tensor<2>, packed: &Packed) -> Vec<Logp> {
    let per_token = per_token.into_data().try_into_vec::<f32>().expect("log-probabilities are single floats");
    let mut rest = per_token.as_slice();
    let mut sums = Vec::with_capacity(packed.lengths.len());
    for length in &packed.lengths {
        let (own, others) = rest.split_at(*length);
        sums.push(Logp { sum: own.iter().map(|logp| f64::from(*logp)).sum(), tokens: *length });
        rest = others;
    }
    sums
}
