//! Outputs of a model: one token after the other, the keys and values of earlier ones kept.

mod beam;
mod greedy;
mod sampling;

use std::sync::Mutex;

use choice::choices;

use crate::batches::TokenLimit;
use crate::model::Model;
use crate::pieces::{largest_first, threads_for};

pub use beam::{Beam, EarlyStopping};
pub use greedy::Greedy;
pub use sampling::Sample;

choices! {
    /// How the tokens of an output are chosen.
    pub enum Strategy: CheckStrategy in "strategy" {
        /// The likeliest each time.
        greedy::Greedy,
        /// The likeliest together, as far as a search with several beams finds them.
        beam::Beam,
        /// At random, by how likely they are.
        sampling::Sample,
    }
}

/// What every strategy can say of its parameters.
pub trait CheckStrategy {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns how many outputs there are for a prompt.
    fn outputs(&self) -> usize {
        1
    }

    /// Returns how many texts are continued at once for a prompt.
    fn followed(&self) -> usize {
        1
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Greedy(Greedy {})
    }
}

/// How outputs are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// How their tokens are chosen.
    pub strategy: Strategy,
    /// The most tokens of an output.
    pub max_new_tokens: usize,
    /// How many prompts are continued at once.
    pub batch_size: usize,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Whether it came to its end, and was not cut off.
    pub ended: bool,
    /// What a beam search gave it: the sum of its tokens' log-probabilities, over its length to the
    /// power of the length penalty.
    pub score: Option<f64>,
}

/// Prompts that no outputs can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to do.
    #[error("there are no prompts")]
    NoPrompts,
    /// A prompt has no tokens.
    #[error("prompt {number} has no tokens")]
    EmptyPrompt {
        /// Its place, from 1.
        number: usize,
    },
    /// A prompt leaves no room for an output.
    #[error("prompt {number} has {tokens} tokens, and the model takes no prompts of {}", .limit.too_many())]
    PromptTooLong {
        /// Its place, from 1.
        number: usize,
        /// Its tokens.
        tokens: usize,
        /// What the model takes.
        limit: TokenLimit,
    },
    /// What the model makes of a prompt is no number.
    #[error(
        "the model's logits after {tokens} tokens of output to prompt {number} are not all finite numbers"
    )]
    NotFinite {
        /// The prompt, from 1.
        number: usize,
        /// How many tokens the output had.
        tokens: usize,
    },
    /// Whoever asked does not want it any more.
    #[error("the run was told to stop")]
    Cancelled,
}

/// A batch of texts on their way, with what a network remembers of their tokens.
pub(crate) trait Continuation {
    /// Adds a token to each row, and returns the logits of what follows, row by row.
    fn advance(&mut self, tokens: &[u32]) -> Vec<f32>;

    /// Keeps rows, in this order, each as often as it is named.
    fn keep(&mut self, rows: &[usize]);
}

/// What a strategy is to do.
struct Task<'a> {
    begun: Box<dyn Continuation + 'a>,
    /// Those of the first tokens, row by row.
    logits: Vec<f32>,
    /// The most tokens of each row's output.
    most: Vec<usize>,
    /// The tokens that end an output.
    ends: &'a [u32],
    /// The place of each row among all prompts.
    places: &'a [usize],
}

impl Task<'_> {
    /// Checks what the model makes of a row: the likeliest of things that are no numbers is no token.
    fn check(&self, row: usize, logits: &[f32], tokens: usize) -> Result<(), GenerateError> {
        match logits.iter().all(|logit| logit.is_finite()) {
            true => Ok(()),
            false => Err(GenerateError::NotFinite { number: self.places[row] + 1, tokens }),
        }
    }
}

/// Writes outputs to prompts, the best first where there are several to one.
///
/// Prompts are token ids. They are put in batches by length, each batch on one thread, so that the
/// number of threads changes nothing. `hear` is told how many are done, and says whether to go on.
///
/// # Errors
/// [`GenerateError`], naming the prompt.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    generation: &Generation,
    threads: usize,
    hear: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<Vec<Generated>>, GenerateError> {
    let limit = model.limit();
    if prompts.is_empty() {
        return Err(GenerateError::NoPrompts);
    }
    for (number, tokens) in (1..).zip(prompts.iter().map(Vec::len)) {
        if tokens == 0 {
            return Err(GenerateError::EmptyPrompt { number });
        }
        if limit.room(tokens) == 0 {
            return Err(GenerateError::PromptTooLong { number, tokens, limit });
        }
    }
    let done = std::sync::atomic::AtomicUsize::new(0);
    let pool = threads_for(model.device(), threads);
    let sizes: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let failed = Mutex::new(None);
    let compute = |places: &[usize]| {
        let batch: Vec<&[u32]> = places.iter().map(|place| prompts[*place].as_slice()).collect();
        let found = match continue_batch(model, &batch, places, generation) {
            Ok(found) => found,
            Err(error) => {
                *failed.lock().expect("nothing panics while it holds an error") = Some(error);
                return None;
            }
        };
        let before = done.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
        hear(before + batch.len()).then_some(found)
    };
    let batch_size = generation.batch_size.max(1);
    let found = largest_first(&sizes, &pool, |order| order.chunks(batch_size).collect(), compute);
    let failed = failed.into_inner().expect("nothing panics while it holds an error");
    found.ok_or(failed.unwrap_or(GenerateError::Cancelled))
}

fn continue_batch(
    model: &Model,
    prompts: &[&[u32]],
    places: &[usize],
    generation: &Generation,
) -> Result<Vec<Vec<Generated>>, GenerateError> {
    let room = |prompt: &&[u32]| model.limit().room(prompt.len()).min(generation.max_new_tokens);
    let most: Vec<usize> = prompts.iter().map(room).collect();
    let (begun, logits) = model.network().begin(prompts, model.device());
    run(&generation.strategy, Task { begun, logits, most, ends: model.end_tokens(), places })
}

fn run(strategy: &Strategy, task: Task<'_>) -> Result<Vec<Vec<Generated>>, GenerateError> {
    match strategy {
        Strategy::Greedy(_) => greedy::run(task),
        Strategy::Beam(beam) => beam.run(task),
        Strategy::Sample(sample) => sample.run(task),
    }
}

/// Continues each row by one token at a time, which `choose` picks from its logits; it is told the
/// row and how many tokens it has.
fn one_by_one(
    mut task: Task<'_>,
    mut choose: impl FnMut(usize, &[f32]) -> u32,
) -> Result<Vec<Vec<Generated>>, GenerateError> {
    let rows = task.most.len();
    let mut outputs = vec![Generated { tokens: Vec::new(), ended: false, score: None }; rows];
    // The rows that are still in the batch, and those of them that are going on.
    let mut live: Vec<usize> = (0..rows).collect();
    let mut is_done: Vec<bool> = task.most.iter().map(|most| *most == 0).collect();
    loop {
        let vocabulary = task.logits.len() / live.len();
        let mut next = Vec::with_capacity(live.len());
        for (row, logits) in live.iter().zip(task.logits.chunks_exact(vocabulary)) {
            if is_done[*row] {
                // Whatever it is, nobody looks at it.
                next.push(0);
                continue;
            }
            task.check(*row, logits, outputs[*row].tokens.len())?;
            let token = choose(*row, logits);
            next.push(token);
            let output = &mut outputs[*row];
            output.ended = task.ends.contains(&token);
            if !output.ended {
                output.tokens.push(token);
            }
            is_done[*row] = output.ended || output.tokens.len() == task.most[*row];
        }
        let kept: Vec<usize> = (0..live.len()).filter(|place| !is_done[live[*place]]).collect();
        if kept.is_empty() {
            return Ok(outputs.into_iter().map(|output| vec![output]).collect());
        }
        // Rows that are done cost as much as the others until they are taken out, and taking
        // them out costs a copy of the cache.
        if kept.len() * 4 <= live.len() * 3 {
            task.begun.keep(&kept);
            next = kept.iter().map(|place| next[*place]).collect();
            live = kept.iter().map(|place| live[*place]).collect();
        }
        task.logits = task.begun.advance(&next);
    }
}

/// Continues prompts on a network that is no whole model.
#[cfg(test)]
pub(crate) fn continue_with(
    network: &crate::models::Network,
    strategy: &Strategy,
    prompts: &[&[u32]],
    max_new_tokens: usize,
    ends: &[u32],
) -> Vec<Vec<Generated>> {
    let device = network.head().value.device();
    let most: Vec<usize> =
        prompts.iter().map(|prompt| network.limit().room(prompt.len()).min(max_new_tokens)).collect();
    let places: Vec<usize> = (0..prompts.len()).collect();
    let (begun, logits) = network.begin(prompts, &device);
    run(strategy, Task { begun, logits, most, ends, places: &places }).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Architecture, Model};
    use crate::tokenizer::TokenizerModel;

    fn model(architecture: &str) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let bpe: TokenizerModel = serde_json::from_str(r#"{"bpe": {"vocabulary_size": 270}}"#).unwrap();
        bpe.train(&["CC(=O)O is an acid".to_owned()]).unwrap().save(folder.path()).unwrap();
        let architecture: Architecture = serde_json::from_str(architecture).unwrap();
        Model::from_scratch(&architecture, folder.path(), 1, &"cpu".parse().unwrap()).unwrap()
    }

    fn both() -> [Model; 2] {
        [
            r#"{"llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
                "num_attention_heads": 2, "max_position_embeddings": 12}}"#,
            r#"{"t5": {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 1, "num_heads": 2, "n_positions": 8}}"#,
        ]
        .map(model)
    }

    fn generation(strategy: &str) -> Generation {
        let strategy = serde_json::from_str(strategy).unwrap();
        Generation { strategy, max_new_tokens: 6, batch_size: 3 }
    }

    #[test]
    fn prompts_that_do_not_fit_are_named() {
        let [llama, t5] = both();
        let greedy = generation(r#"{"greedy": {}}"#);
        let refused = |model: &Model, prompts: &[Vec<u32>]| {
            generate(model, prompts, &greedy, 1, &|_| true).unwrap_err().to_string()
        };
        assert_eq!(refused(&t5, &[]), "there are no prompts");
        assert_eq!(refused(&t5, &[vec![5], vec![]]), "prompt 2 has no tokens");
        assert_eq!(
            refused(&llama, &[vec![5; 11], vec![5; 12]]),
            "prompt 2 has 12 tokens, and the model takes no prompts of 12 tokens or more"
        );
        assert_eq!(
            refused(&t5, &[vec![5; 8], vec![5; 9]]),
            "prompt 2 has 9 tokens, and the model takes no prompts of more than 8 tokens"
        );
        let stopped = generate(&llama, &[vec![5; 3]], &greedy, 1, &|_| false);
        assert_eq!(stopped, Err(GenerateError::Cancelled));
    }

    /// Whatever the strategy: what is beside a prompt and how many threads there are change nothing,
    /// and no output is longer than there is room for.
    #[test]
    fn neither_threads_nor_neighbours_change_an_output() {
        let prompts: Vec<Vec<u32>> =
            (1..9).map(|length| (0..length).map(|id| 20 + 7 * id).collect()).collect();
        for model in &both() {
            for strategy in [
                r#"{"greedy": {}}"#,
                r#"{"beam": {"num_beams": 3, "num_return_sequences": 2}}"#,
                r#"{"sample": {"temperature": 1.5, "seed": 4}}"#,
            ] {
                let generation = generation(strategy);
                let found = generate(model, &prompts, &generation, 1, &|_| true).unwrap();
                assert_eq!(
                    found,
                    generate(model, &prompts, &generation, 3, &|_| true).unwrap(),
                    "{strategy}"
                );
                let one_by_one = Generation { batch_size: 1, ..generation.clone() };
                let alone = generate(model, &prompts, &one_by_one, 2, &|_| true).unwrap();
                let tokens = |found: &[Vec<Generated>]| -> Vec<Vec<Vec<u32>>> {
                    found.iter().map(|found| found.iter().map(|one| one.tokens.clone()).collect()).collect()
                };
                assert_eq!(tokens(&found), tokens(&alone), "{strategy}");
                for (prompt, found) in prompts.iter().zip(&found) {
                    assert_eq!(found.len(), generation.strategy.outputs());
                    let most = model.limit().room(prompt.len()).min(6);
                    assert!(found.iter().all(|one| one.tokens.len() <= most), "{strategy}");
                }
            }
        }
    }

    /// Numbers that are finite, and too large to compute with.
    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        use crate::parameters::Parameters as _;
        for mut model in both() {
            model.network_mut().visit(&mut |_, mut slot| {
                let large = slot.flat().mul_scalar(1e30);
                slot.set_flat(large);
            });
            for strategy in [r#"{"greedy": {}}"#, r#"{"beam": {"num_beams": 3}}"#, r#"{"sample": {}}"#] {
                let found =
                    generate(&model, &[vec![5, 6], vec![7, 8, 9]], &generation(strategy), 1, &|_| true);
                let error = found.unwrap_err();
                assert!(matches!(error, GenerateError::NotFinite { tokens: 0, .. }), "{strategy}: {error}");
            }
        }
    }
}
