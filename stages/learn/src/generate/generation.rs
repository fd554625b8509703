//! Outputs of a model: one token after the other, the keys and values of earlier ones kept.

use std::sync::Mutex;

use super::strategy::Strategy;
use super::task::{GenerateError, Generated, Task};
use crate::model::Model;
use crate::tensor::parallel::{largest_first, threads_for};

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

/// Writes outputs to prompts, the best first where there are several to one.
///
/// Prompts are token ids. They are put in batches by length, each batch on one thread, so that the
/// number of threads changes nothing. `on_progress` is called with how many are done, and says whether to go on.
///
/// # Errors
/// [`GenerateError`], naming the prompt.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    generation: &Generation,
    threads: usize,
    on_progress: &(dyn Fn(usize) -> bool + Sync),
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
        let outputs = match continue_batch(model, &batch, places, generation) {
            Ok(outputs) => outputs,
            Err(error) => {
                *failed.lock().expect("nothing panics while it holds an error") = Some(error);
                return None;
            }
        };
        let before = done.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
        on_progress(before + batch.len()).then_some(outputs)
    };
    let batch_size = generation.batch_size.max(1);
    let outputs = largest_first(&sizes, &pool, |order| order.chunks(batch_size).collect(), compute);
    let failed = failed.into_inner().expect("nothing panics while it holds an error");
    outputs.ok_or(failed.unwrap_or(GenerateError::Cancelled))
}

fn continue_batch(
    model: &Model,
    prompts: &[&[u32]],
    places: &[usize],
    generation: &Generation,
) -> Result<Vec<Vec<Generated>>, GenerateError> {
    let room = |prompt: &&[u32]| model.limit().room(prompt.len()).min(generation.max_new_tokens);
    let most: Vec<usize> = prompts.iter().map(room).collect();
    let (state, logits) = model.network().begin(prompts, model.device());
    generation.strategy.run(Task { state, logits, most, eos_token_ids: model.eos_token_ids(), places })
}

/// Continues prompts on a network that is no whole model.
#[cfg(test)]
pub(crate) fn continue_with(
    network: &crate::network::Network,
    strategy: &Strategy,
    prompts: &[&[u32]],
    max_new_tokens: usize,
    eos_token_ids: &[u32],
) -> Vec<Vec<Generated>> {
    let device = network.head().value.device();
    let most: Vec<usize> =
        prompts.iter().map(|prompt| network.limit().room(prompt.len()).min(max_new_tokens)).collect();
    let places: Vec<usize> = (0..prompts.len()).collect();
    let (state, logits) = network.begin(prompts, &device);
    strategy.run(Task { state, logits, most, eos_token_ids, places: &places }).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Architecture;
    use crate::text::TokenizerModel;

    fn model(architecture: &str) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let bpe: TokenizerModel = serde_json::from_str(r#"{"bpe": {"vocab_size": 270}}"#).unwrap();
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
                let outputs = generate(model, &prompts, &generation, 1, &|_| true).unwrap();
                assert_eq!(
                    outputs,
                    generate(model, &prompts, &generation, 3, &|_| true).unwrap(),
                    "{strategy}"
                );
                let one_by_one = Generation { batch_size: 1, ..generation.clone() };
                let alone = generate(model, &prompts, &one_by_one, 2, &|_| true).unwrap();
                let tokens = |outputs: &[Vec<Generated>]| -> Vec<Vec<Vec<u32>>> {
                    outputs
                        .iter()
                        .map(|outputs| outputs.iter().map(|output| output.tokens.clone()).collect())
                        .collect()
                };
                assert_eq!(tokens(&outputs), tokens(&alone), "{strategy}");
                for (prompt, outputs) in prompts.iter().zip(&outputs) {
                    assert_eq!(outputs.len(), generation.strategy.outputs());
                    let most = model.limit().room(prompt.len()).min(6);
                    assert!(outputs.iter().all(|output| output.tokens.len() <= most), "{strategy}");
                }
            }
        }
    }

    /// Numbers that are finite, and too large to compute with.
    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        use crate::tensor::parameters::Parameters as _;
        for mut model in both() {
            model.network_mut().visit(&mut |_, mut parameter| {
                let large = parameter.flat().mul_scalar(1e30);
                parameter.set_flat(large);
            });
            for strategy in [r#"{"greedy": {}}"#, r#"{"beam": {"num_beams": 3}}"#, r#"{"sample": {}}"#] {
                let outputs =
                    generate(&model, &[vec![5, 6], vec![7, 8, 9]], &generation(strategy), 1, &|_| true);
                let error = outputs.unwrap_err();
                assert!(matches!(error, GenerateError::NotFinite { tokens: 0, .. }), "{strategy}: {error}");
            }
        }
    }
}
