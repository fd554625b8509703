//! Examples, in the order in which steps see them and in the shape that a device computes.
//!
//! A step takes a batch; a batch is divided into micro-batches, over which objectives take their
//! means; and a micro-batch into shards, which are what is computed at once. Shards hold outputs
//! of like length and are a matter of speed alone: a sum over them is the micro-batch's. How
//! large they are does not depend on the machine, so neither does a result.

use burn_tensor::{Device, Int, Tensor};

use super::sequence::{Example, Sequence};
use crate::tensor::device::is_cpu;
use crate::tensor::indices::{places, token_ids};
use crate::tensor::random::{Purpose, Random};

/// How many sequences a thread of the CPU computes at once, at most.
pub(crate) const SHARD: usize = 2;

/// How many a GPU does, which is fast with many tokens only.
pub(crate) const GPU_SHARD: usize = 16;

/// Returns how many sequences a device computes at once, at most.
pub(crate) fn shard_size(device: &Device) -> usize {
    if is_cpu(device) { SHARD } else { GPU_SHARD }
}

/// Divides a micro-batch into shards of like length and at most so many sequences, each a list of
/// places in it. A pair is never divided.
pub(crate) fn shards(micro_batch: &[&Example], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..micro_batch.len()).collect();
    // The longest first, so that no thread begins them last.
    order.sort_by_key(|place| std::cmp::Reverse(micro_batch[*place].width()));
    let mut shards: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for place in order {
        let sequences = micro_batch[place].sequences();
        if room < sequences {
            shards.push(Vec::new());
            room = most;
        }
        room -= sequences;
        shards.last_mut().expect("there is a shard with room").push(place);
    }
    shards
}

/// Sequences as a device computes them: filled up on the right to one width.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    sequences: Vec<&'a Sequence>,
    ids: Vec<u32>,
    /// How many rows there are.
    pub rows: usize,
    /// The places whose hidden states predict output tokens.
    picks: Vec<usize>,
    /// The tokens that they are to predict.
    pub targets: Vec<u32>,
    /// How many output tokens each sequence has.
    pub lengths: Vec<usize>,
}

impl<'a> Packed<'a> {
    /// Packs sequences.
    pub(crate) fn new(sequences: &[&'a Sequence]) -> Self {
        let width = sequences.iter().map(|sequence| sequence.width()).max().unwrap_or(0);
        let mut packed = Self {
            sequences: sequences.to_vec(),
            ids: Vec::with_capacity(width * sequences.len()),
            rows: sequences.len(),
            picks: Vec::new(),
            targets: Vec::new(),
            lengths: Vec::new(),
        };
        for sequence in sequences {
            let begin = packed.ids.len();
            packed.ids.extend(&sequence.tokens()[..sequence.width()]);
            packed.ids.resize(begin + width, 0);
            packed.picks.extend((sequence.prompt_tokens() - 1..sequence.width()).map(|place| begin + place));
            packed.targets.extend(&sequence.tokens()[sequence.prompt_tokens()..]);
            packed.lengths.push(sequence.output_tokens());
        }
        packed
    }

    /// Returns the tokens to read, row by row.
    pub(crate) fn ids(&self, device: &Device) -> Tensor<1, Int> {
        token_ids(&self.ids, device)
    }

    /// Returns the places whose hidden states are wanted.
    pub(crate) fn picks(&self, device: &Device) -> Tensor<1, Int> {
        places(&self.picks, device)
    }

    /// Returns the prompts alone, for models that read them apart from outputs.
    pub(crate) fn prompts(&self) -> Vec<&'a [u32]> {
        self.sequences.iter().map(|sequence| &sequence.tokens()[..sequence.prompt_tokens()]).collect()
    }

    /// Returns what a decoder of such a model reads, row by row: each output, put off by one place
    /// behind a token that begins it; and the places whose states predict the output's tokens.
    pub(crate) fn outputs(&self, start: u32) -> (Vec<u32>, Vec<usize>) {
        let width = self.lengths.iter().copied().max().unwrap_or(0);
        let (mut ids, mut picks) = (Vec::with_capacity(width * self.rows), Vec::new());
        for sequence in &self.sequences {
            let begin = ids.len();
            ids.push(start);
            ids.extend_from_slice(&sequence.tokens()[sequence.prompt_tokens()..sequence.width()]);
            picks.extend(begin..ids.len());
            ids.resize(begin + width, 0);
        }
        (ids, picks)
    }
}

/// Returns the order of the examples in an epoch.
pub(crate) fn order(seed: u64, epoch: usize, examples: usize) -> Vec<usize> {
    Random::new(seed, Purpose::Order, epoch as u64).order(examples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::sequence::TokenLimit;
    use proptest::prelude::*;

    fn sequence(prompt: usize, output: usize) -> Sequence {
        let ids = |count: usize, from: u32| (0..count as u32).map(|id| id + from).collect::<Vec<_>>();
        Sequence::new(&ids(prompt, 10), &ids(output, 50), TokenLimit::Together(1000)).unwrap().0
    }

    #[test]
    fn the_places_before_the_targets_are_picked() {
        let (one, other) = (sequence(2, 3), sequence(3, 1));
        let packed = Packed::new(&[&one, &other]);
        assert_eq!(packed.ids, [10, 11, 50, 51, 10, 11, 12, 0]);
        assert_eq!((&packed.picks, &packed.targets), (&vec![1, 2, 3, 6], &vec![50, 51, 52, 50]));
        assert_eq!(packed.prompts(), [&[10, 11][..], &[10, 11, 12]]);
        assert_eq!(packed.outputs(7), (vec![7, 50, 51, 7, 0, 0], vec![0, 1, 2, 3]));
        assert_eq!((packed.rows, packed.lengths), (2, vec![3, 1]));
    }

    proptest! {
        #[test]
        fn shards_hold_everything_once(widths in prop::collection::vec((1..9usize, 1..9usize, any::<bool>()), 1..40)) {
            let examples: Vec<Example> = widths.iter().map(|(chosen, rejected, paired)| Example {
                id: String::new(),
                chosen: sequence(2, *chosen),
                rejected: paired.then(|| sequence(2, *rejected)),
                desirable: None,
            }).collect();
            let examples: Vec<&Example> = examples.iter().collect();
            let found = shards(&examples, SHARD);
            let mut places: Vec<usize> = found.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..examples.len()).collect::<Vec<_>>());
            let sizes = found.iter().map(|shard| shard.iter().map(|place| examples[*place].sequences()).sum::<usize>());
            prop_assert!(sizes.into_iter().all(|size| size <= SHARD));
        }
    }
}
