//! From outputs to log-probabilities, and from their gradients back to those of parameters.
//!
//! The model's blocks are on burn's tape; the head and the softmax are not. Their derivative is
//! known, `gradient * (one-hot - softmax)`, and needs the gradient, which an objective knows only when
//! it has seen the log-probabilities. Written out, nothing of the size of the vocabulary is ever
//! recorded, and hidden states that predict nothing of an output never reach the head.

use burn_tensor::{Device, Tensor};

use rayon::ThreadPool;

use crate::network::Network;
use crate::objectives::Logp;
use crate::tensor::fused::SoftmaxCrossEntropy;
use crate::tensor::low_rank::Dropout;
use crate::tensor::parallel::largest_first;
use crate::tensor::parameters::{ParameterRef, Parameters};
use crate::text::batches::{Packed, shard_size};
use crate::text::sequence::Sequence;

/// Gradients in the order in which a model shows its parameters; none where it is not trained.
pub(crate) type Gradients = Vec<Option<Tensor<1>>>;

/// Returns the log-probabilities of sequences.
pub(crate) fn logps(model: &Network, packed: &Packed<'_>, device: &Device) -> Vec<Logp> {
    let hidden = model.predicting(packed, device);
    let logits = model.precision().linear(hidden, model.head().get());
    sums(&SoftmaxCrossEntropy::of(logits, &packed.targets).logps(), packed)
}

/// Returns the log-probabilities of any number of sequences, a shard on a thread.
pub(crate) fn all_logps(
    model: &Network,
    sequences: &[&Sequence],
    device: &Device,
    pool: &ThreadPool,
) -> Vec<Logp> {
    let sizes: Vec<usize> = sequences.iter().map(|sequence| sequence.width()).collect();
    let compute = |shard: &[usize]| {
        let sequences: Vec<&Sequence> = shard.iter().map(|place| sequences[*place]).collect();
        Some(logps(model, &Packed::new(&sequences), device))
    };
    let logps = largest_first(&sizes, pool, |order| order.chunks(shard_size(device)).collect(), compute);
    logps.expect("every shard is computed")
}

/// How a backward pass gets at what the forward pass computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activations {
    /// It is all kept.
    Kept,
    /// Only each layer's input is kept, and the layer recomputed: a third more work, and
    /// the memory of one layer. The same bits.
    Recomputed,
}

/// Returns the gradients of whatever has, by a function of the log-probabilities, these gradients.
pub(crate) fn gradients(
    model: &Network,
    packed: &Packed<'_>,
    dropout: Option<Dropout>,
    activations: Activations,
    device: &Device,
    logp_gradients: impl FnOnce(&[Logp]) -> Vec<f64>,
) -> Gradients {
    let mut tape = model.clone();
    if let Some(dropout) = dropout {
        tape.set_dropout(dropout);
    }
    tape.visit(&mut |_, mut parameter| parameter.record());
    let mut collected = Collected::new(&mut tape);
    let grad_head = match activations {
        Activations::Recomputed => {
            segment_by_segment(model, &mut tape, &mut collected, packed, device, logp_gradients)
        }
        Activations::Kept => {
            let recorded = tape.predicting(packed, device);
            let (grad_hidden, grad_head) =
                head_gradients(model, recorded.clone().inner(), packed, logp_gradients);
            let mut tape_gradients = (recorded * grad_hidden.autodiff()).sum().backward();
            collected.take(&mut tape, &mut tape_gradients);
            grad_head
        }
    };
    if let Some(grad_head) = grad_head {
        collected.add(&mut tape, model.head_name(), grad_head);
    }
    collected.0
}

/// Collects the gradients of all but the head, which it returns, with what one segment of the network
/// keeps at a time.
fn segment_by_segment(
    model: &Network,
    tape: &mut Network,
    collected: &mut Collected,
    packed: &Packed<'_>,
    device: &Device,
    logp_gradients: impl FnOnce(&[Logp]) -> Vec<f64>,
) -> Option<Tensor<1>> {
    // As on the tape, for off it some operations round differently; but with no leaf, so that
    // nothing is kept for a backward pass.
    let mut constant = tape.clone();
    constant.visit(&mut |_, mut parameter| parameter.forget());
    let passing = constant.segments(packed, device);
    let last = passing.count() - 1;
    let mut taken: Vec<Vec<Tensor<2>>> = vec![Vec::new()];
    for number in 0..last {
        let before = taken[number].iter().map(|x| x.clone().autodiff()).collect();
        taken.push(passing.compute(number, before).into_iter().map(Tensor::inner).collect());
    }
    // The same leaves, beside which `tape` can be asked for their gradients.
    let recording = tape.clone();
    let segments = recording.segments(packed, device);
    let (mut grad_outputs, mut grad_head): (Vec<Option<Tensor<2>>>, _) = (Vec::new(), None);
    let mut logp_gradients = Some(logp_gradients);
    for (number, taken) in taken.into_iter().enumerate().rev() {
        if number == 0 && !segments.first_requires_grad() {
            break;
        }
        let leaves: Vec<Tensor<2>> = taken.into_iter().map(|x| x.autodiff().require_grad()).collect();
        let left = segments.compute(number, leaves.clone());
        if let Some(logp_gradients) = logp_gradients.take() {
            let (grad_hidden, head_gradient) =
                head_gradients(model, left[0].clone().inner(), packed, logp_gradients);
            (grad_outputs, grad_head) = (vec![Some(grad_hidden)], head_gradient);
        }
        let product = |(left, grad_outputs): (Tensor<2>, Option<Tensor<2>>)| {
            grad_outputs.map(|grad_outputs| (left * grad_outputs.autodiff()).sum())
        };
        let products = left.into_iter().zip(grad_outputs).filter_map(product);
        let sum = products.reduce(|sum, more| sum + more).expect("what a segment leaves matters");
        let mut tape_gradients = sum.backward();
        // None where what a segment takes is no longer needed.
        grad_outputs = leaves.iter().map(|leaf| leaf.grad_remove(&mut tape_gradients)).collect();
        collected.take(tape, &mut tape_gradients);
    }
    grad_head
}

/// Returns the derivatives by the hidden states that predict output tokens and, where the head
/// is trained, by the head.
fn head_gradients(
    model: &Network,
    hidden: Tensor<2>,
    packed: &Packed<'_>,
    logp_gradients: impl FnOnce(&[Logp]) -> Vec<f64>,
) -> (Tensor<2>, Option<Tensor<1>>) {
    let (head, precision) = (model.head(), model.precision());
    let softmax = SoftmaxCrossEntropy::of(precision.linear(hidden.clone(), head.get()), &packed.targets);
    let sums = sums(&softmax.logps(), packed);
    let logp_gradients = logp_gradients(&sums);
    let per_token = logp_gradients.iter().zip(&packed.lengths);
    let per_token: Vec<f32> =
        per_token.flat_map(|(gradient, length)| std::iter::repeat_n(normal(*gradient), *length)).collect();
    let grad_logits = softmax.gradient(&per_token);
    let grad_hidden = precision.matmul(grad_logits.clone(), precision.weight(head.get()));
    let grad_head =
        head.requires_grad.then(|| precision.matmul(grad_logits.transpose(), hidden).flatten::<1>(0, 1));
    (grad_hidden, grad_head)
}

/// Returns a gradient, or 0 for one that no optimiser can see: a preference that a model is sure of
/// has a gradient like e^-90, and a backward pass over such numbers takes twenty times as long, since
/// processors compute slowly with what is below 1e-38.
fn normal(gradient: f64) -> f32 {
    if gradient.abs() < 1e-20 { 0.0 } else { gradient as f32 }
}

/// Adds to a gradient, or begins one.
pub(crate) fn add_to(gradient: &mut Option<Tensor<1>>, more: Tensor<1>) {
    *gradient = Some(match gradient.take() {
        Some(gradient) => gradient + more,
        None => more,
    });
}

/// Gradients, as the segments of a backward pass find them.
struct Collected(Gradients);

impl Collected {
    fn new(tape: &mut Network) -> Self {
        let mut none = Gradients::new();
        tape.visit(&mut |_, _| none.push(None));
        Self(none)
    }

    /// Takes what one segment found. What several segments share has the sum.
    fn take(&mut self, tape: &mut Network, tape_gradients: &mut burn_tensor::Gradients) {
        let mut places = self.0.iter_mut();
        tape.visit(&mut |_, parameter: ParameterRef<'_>| {
            let place = places.next().expect("a model shows the same parameters each time");
            if parameter.requires_grad()
                && let Some(more) = parameter.take_gradient(tape_gradients)
            {
                add_to(place, more);
            }
        });
    }

    /// Adds to the gradient of one parameter.
    fn add(&mut self, tape: &mut Network, of: &str, more: Tensor<1>) {
        let mut places = self.0.iter_mut();
        tape.visit(&mut |name, _| {
            let place = places.next().expect("a model shows the same parameters each time");
            if name == of {
                add_to(place, more.clone());
            }
        });
    }
}

/// Adds the log-probabilities of each sequence's tokens up.
fn sums(per_token: &[f32], packed: &Packed<'_>) -> Vec<Logp> {
    let mut rest = per_token;
    let mut sums = Vec::with_capacity(packed.lengths.len());
    for length in &packed.lengths {
        let (own, others) = rest.split_at(*length);
        let sum = own.iter().map(|logp| f64::from(*logp)).sum();
        sums.push(Logp { sum, tokens: *length, reference: None });
        rest = others;
    }
    sums
}
