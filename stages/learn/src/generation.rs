//! Outputs of a model: one token after the other, the keys and values of earlier ones kept.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::layers::token_ids;
use crate::model::Model;
use crate::models::llama::LlamaForCausalLM;

/// How outputs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// The most tokens of an output.
    pub max_new_tokens: usize,
    /// How many prompts are continued at once.
    pub batch_size: usize,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Whether it came to its end, and was not cut off.
    pub ended: bool,
}

/// Continues prompts greedily: the likeliest token each time, the first of equals.
///
/// Prompts are token ids, none empty and each shorter than the context. They are put in batches
/// by length, each batch on one thread, so that the number of threads changes nothing. `hear` is
/// told how many are done, and says whether to go on; if not, there is no result.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    generation: &Generation,
    threads: usize,
    hear: &(dyn Fn(usize) -> bool + Sync),
) -> Option<Vec<Generated>> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    // The longest first: they take longest, and no thread should begin them last.
    order.sort_by_key(|place| std::cmp::Reverse(prompts[*place].len()));
    let batches: Vec<&[usize]> = order.chunks(generation.batch_size.max(1)).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    let pool = pool.expect("threads can be started");
    let found: Option<Vec<Vec<Generated>>> = pool.install(|| {
        batches
            .par_iter()
            .map(|batch| {
                let prompts: Vec<&[u32]> = batch.iter().map(|place| prompts[*place].as_slice()).collect();
                let found = greedy(
                    model.llama(),
                    &prompts,
                    generation.max_new_tokens,
                    model.end_tokens(),
                    model.device(),
                );
                let before = done.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
                hear(before + batch.len()).then_some(found)
            })
            .collect()
    });
    let mut outputs = vec![None; prompts.len()];
    for (place, output) in order.iter().zip(found?.into_iter().flatten()) {
        outputs[*place] = Some(output);
    }
    Some(outputs.into_iter().map(|output| output.expect("every prompt is in one batch")).collect())
}

/// One prompt's output so far, and its row in the batch.
struct Row {
    output: Vec<u32>,
    ended: bool,
    most: usize,
}

impl Row {
    fn is_done(&self) -> bool {
        self.ended || self.output.len() == self.most
    }
}

pub(crate) fn greedy(
    model: &LlamaForCausalLM,
    prompts: &[&[u32]],
    max_new_tokens: usize,
    ends: &[u32],
    device: &Device,
) -> Vec<Generated> {
    let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let mut rows: Vec<Row> = prompts
        .iter()
        .map(|prompt| {
            let room = model.config.max_positions.saturating_sub(prompt.len());
            Row { output: Vec::new(), ended: false, most: max_new_tokens.min(room) }
        })
        .collect();
    let most = rows.iter().map(|row| row.most).max().unwrap_or(0);
    let mut filled: Vec<usize> = prompts.iter().map(|prompt| width - prompt.len()).collect();
    let mut ids: Vec<u32> = Vec::with_capacity(width * prompts.len());
    for (prompt, filled) in prompts.iter().zip(&filled) {
        ids.resize(ids.len() + filled, 0);
        ids.extend(*prompt);
    }
    let mut cache = model.cache(prompts.len(), width + most, device);
    let head: Tensor<2> = model.head().get().transpose();
    // The rows of the batch that are still going on.
    let mut live: Vec<usize> = (0..prompts.len()).collect();
    while !live.is_empty() {
        let hidden = model.extend(token_ids(&ids, device), &filled, &mut cache);
        let logits =
            hidden.matmul(head.clone()).into_data().try_into_vec::<f32>().expect("logits are single floats");
        let vocabulary = logits.len() / live.len();
        ids.clear();
        for (row, logits) in live.iter().zip(logits.chunks_exact(vocabulary)) {
            let next = first_largest(logits);
            ids.push(next);
            let row = &mut rows[*row];
            if !row.is_done() {
                row.ended = ends.contains(&next);
                if !row.ended {
                    row.output.push(next);
                }
            }
        }
        let going = live.iter().filter(|row| !rows[**row].is_done()).count();
        // Rows that are done cost as much as the others until they are taken out, and taking
        // them out costs a copy of the cache.
        if going * 4 <= live.len() * 3 {
            let kept: Vec<usize> = (0..live.len()).filter(|place| !rows[live[*place]].is_done()).collect();
            if !kept.is_empty() {
                cache.keep(&kept, device);
            }
            let keep = |of: &Vec<usize>| kept.iter().map(|place| of[*place]).collect::<Vec<_>>();
            ids = kept.iter().map(|place| ids[*place]).collect();
            (filled, live) = (keep(&filled), keep(&live));
        }
    }
    rows.into_iter().map(|row| Generated { tokens: row.output, ended: row.ended }).collect()
}

/// Returns the place of the largest number, of equals the first.
fn first_largest(numbers: &[f32]) -> u32 {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equals_the_first_wins() {
        assert_eq!(first_largest(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(first_largest(&[f32::NEG_INFINITY, -1.0]), 1);
    }
}
