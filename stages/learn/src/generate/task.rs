//! What strategies are given and return, and the loop that two of them share.

use crate::network::Continuation;
use crate::text::sequence::TokenLimit;
use choice::FieldError;

/// What every strategy can say of its parameters.
pub trait CheckStrategy {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), FieldError> {
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

/// What a strategy is to do.
pub(super) struct Task<'a> {
    pub state: Box<dyn Continuation + 'a>,
    /// Those of the first tokens, row by row.
    pub logits: Vec<f32>,
    /// The most tokens of each row's output.
    pub most: Vec<usize>,
    /// The tokens that end an output.
    pub eos_token_ids: &'a [u32],
    /// The place of each row among all prompts.
    pub places: &'a [usize],
}

impl Task<'_> {
    /// Checks what the model makes of a row: the likeliest of things that are no numbers is no token.
    pub(super) fn check(&self, row: usize, logits: &[f32], tokens: usize) -> Result<(), GenerateError> {
        if logits.iter().all(|logit| logit.is_finite()) {
            Ok(())
        } else {
            Err(GenerateError::NotFinite { number: self.places[row] + 1, tokens })
        }
    }
}

/// Continues each row by one token at a time, which `choose` picks from its logits; it is given the
/// row and how many tokens it has.
pub(super) fn one_by_one(
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
            output.ended = task.eos_token_ids.contains(&token);
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
            task.state.reorder(&kept);
            next = kept.iter().map(|place| next[*place]).collect();
            live = kept.iter().map(|place| live[*place]).collect();
        }
        task.logits = task.state.step(&next);
    }
}
