//! What a training compares with: a model that is not trained, and what it makes of the rows.

use burn_tensor::Device;
use rayon::ThreadPool;

use crate::model::Model;
use crate::network::Network;
use crate::tensor::parallel::threads_for;
use crate::text::sequence::{Example, Sequence, TokenLimit};
use crate::train::config::{Examples, TrainingConfig};
use crate::train::error::TrainError;
use crate::train::gradients;

/// What objectives that need a reference compare with.
pub enum ReferenceSource<'a> {
    /// The model as it begins.
    Itself,
    /// Another model.
    Model(&'a Model),
    /// What a model was found to make of the same rows.
    Known(ReferenceLogps),
}

/// The log-probabilities that a model gives the outputs of rows: of each row the chosen one's, and
/// the rejected one's, or 0 where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReferenceLogps {
    /// Those of the training rows.
    pub train: Vec<[f64; 2]>,
    /// Those of the validation rows.
    pub validation: Vec<[f64; 2]>,
}

/// Computes what a model makes of rows, as a training that compares with it would.
pub fn reference_logps(model: &Model, examples: &Examples, threads: usize) -> ReferenceLogps {
    let pool = threads_for(model.device(), threads);
    logps(model.network(), examples, model.device(), &pool)
}

fn logps(network: &Network, examples: &Examples, device: &Device, pool: &ThreadPool) -> ReferenceLogps {
    let of = |examples: &[Example]| -> Vec<[f64; 2]> {
        let sequences: Vec<&Sequence> = examples.iter().flat_map(Example::outputs).collect();
        let logps = gradients::all_logps(network, &sequences, device, pool);
        let mut logps = logps.into_iter().map(|logp| logp.sum);
        let mut next = || logps.next().expect("every sequence has a log-probability");
        let pair = |example: &Example| [next(), if example.rejected.is_some() { next() } else { 0.0 }];
        examples.iter().map(pair).collect()
    };
    ReferenceLogps { train: of(&examples.train), validation: of(&examples.validation) }
}

/// A reference in a training.
pub(crate) struct Reference {
    /// Where more than what is known is asked of it.
    network: Option<Network>,
    pub logps: ReferenceLogps,
}

impl Reference {
    /// Makes the reference of a training of `model`.
    ///
    /// # Errors
    /// [`TrainError::OtherVocabulary`], [`TrainError::OtherRows`] and
    /// [`TrainError::NeedsReferenceModel`].
    pub(super) fn of(
        source: ReferenceSource<'_>,
        model: &Network,
        config: &TrainingConfig,
        examples: &Examples,
        device: &Device,
        pool: &ThreadPool,
    ) -> Result<Self, TrainError> {
        let needs_network = config.objective.needs_divergence();
        let network = match source {
            ReferenceSource::Itself => model.clone(),
            ReferenceSource::Model(reference) => {
                let (reference, model) = (reference.network(), model.vocabulary_size());
                if reference.vocabulary_size() != model {
                    let reference = reference.vocabulary_size();
                    return Err(TrainError::OtherVocabulary { reference, model });
                }
                let mut reference = reference.clone();
                reference.compute_in(config.precision);
                reference
            }
            ReferenceSource::Known(_) if needs_network => return Err(TrainError::NeedsReferenceModel),
            ReferenceSource::Known(logps) => {
                let found = [logps.train.len(), logps.validation.len()];
                let expected = [examples.train.len(), examples.validation.len()];
                if found != expected {
                    return Err(TrainError::OtherRows { found, expected });
                }
                return Ok(Self { network: None, logps });
            }
        };
        let logps = logps(&network, examples, device, pool);
        Ok(Self { network: needs_network.then_some(network), logps })
    }

    /// Returns how far a model is from it: the mean log-ratio over prompts with the output of the
    /// row before, and never below 0.
    pub(super) fn divergence(
        &self,
        model: &Network,
        rows: &[&Example],
        limit: TokenLimit,
        device: &Device,
        pool: &ThreadPool,
    ) -> f64 {
        let reference = self.network.as_ref().expect("an objective that needs it has a reference");
        let mismatched: Vec<Sequence> = rows
            .iter()
            .enumerate()
            .filter_map(|(place, row)| {
                let other = &rows[(place + rows.len() - 1) % rows.len()].chosen;
                row.chosen.with_output_of(other, limit)
            })
            .collect();
        let mismatched: Vec<&Sequence> = mismatched.iter().collect();
        let sum = |network: &Network| -> f64 {
            let logps = gradients::all_logps(network, &mismatched, device, pool);
            logps.iter().map(|logp| logp.sum).sum()
        };
        ((sum(model) - sum(reference)) / mismatched.len() as f64).max(0.0)
    }
}
