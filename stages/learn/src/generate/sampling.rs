//! Sampling: each token drawn by the probability that the model gives it, sharpened and cut as
//! transformers does it: the logits are divided by `temperature`, then all but the `top_k` largest
//! are left out (Fan et al., 2018), then those with which the rest still has less than `top_p`
//! (Holtzman et al., 2020).
//!
//! `temperature` and `top_p` default to 1, and there is no `top_k`, so that nothing is cut unless
//! it is asked for; transformers' own `top_k` is 50. What is drawn for a row follows from `seed`,
//! the row's place among all rows, and the token's place in the output: neither from the batch nor
//! from threads. The draws are not torch's.

use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task::{CheckStrategy, GenerateError, Generated, Task, one_by_one};
use crate::tensor::random::{Purpose, Random};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What logits are divided by: below 1 for the likelier, above 1 for the less likely.
    #[serde(default = "one")]
    pub temperature: f64,
    /// How many of the likeliest tokens are drawn from; all if not given.
    pub top_k: Option<u32>,
    /// The share of the probability that is drawn from, the likeliest first.
    #[serde(default = "one")]
    pub top_p: f64,
    /// What the draws follow from.
    #[serde(default)]
    pub seed: u64,
}

fn one() -> f64 {
    1.0
}

impl CheckStrategy for Sample {
    fn check(&self) -> Result<(), FieldError> {
        let Self { temperature, top_k, top_p, .. } = self;
        if !(temperature.is_finite() && *temperature > 0.0) {
            let message = format!("`temperature` is a number above 0, not {temperature}");
            return Err(FieldError::new("temperature", message));
        }
        if *top_k == Some(0) {
            let error = FieldError::new("top_k", "`top_k` is at least 1");
            return Err(error.help("leave it out to draw from all tokens"));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            let message = format!("`top_p` is a share above 0 and at most 1, not {top_p}");
            return Err(FieldError::new("top_p", message));
        }
        Ok(())
    }
}

impl Sample {
    pub(super) fn run(&self, task: Task<'_>) -> Result<Vec<Vec<Generated>>, GenerateError> {
        let stream = |place: &usize| Random::new(self.seed, Purpose::Sampling, *place as u64);
        // A row draws once for each of its tokens, so that its stream knows the token's place.
        let mut streams: Vec<Random> = task.places.iter().map(stream).collect();
        one_by_one(task, |row, logits| draw(&self.probabilities(logits), streams[row].share()))
    }

    /// Returns the probability of each token, 0 for those that are left out.
    fn probabilities(&self, logits: &[f32]) -> Vec<f64> {
        let mut scores: Vec<f32> = logits.iter().map(|logit| logit / self.temperature as f32).collect();
        if let Some(top_k) = self.top_k.map(|top_k| top_k as usize).filter(|top_k| *top_k < scores.len()) {
            let mut sorted = scores.clone();
            let (_, least, _) = sorted.select_nth_unstable_by(top_k - 1, |one, other| other.total_cmp(one));
            let least = *least;
            for score in scores.iter_mut().filter(|score| **score < least) {
                *score = f32::NEG_INFINITY;
            }
        }
        let mut probabilities = softmax(&scores);
        if self.top_p < 1.0 {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|one, other| scores[*one].total_cmp(&scores[*other]));
            let mut sum = 0.0;
            // The likeliest always stays.
            for place in &order[..order.len() - 1] {
                sum += probabilities[*place];
                if sum > 1.0 - self.top_p {
                    break;
                }
                scores[*place] = f32::NEG_INFINITY;
            }
            probabilities = softmax(&scores);
        }
        probabilities
    }
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raised: Vec<f64> = scores.iter().map(|score| f64::from(score - largest).exp()).collect();
    let sum: f64 = raised.iter().sum();
    raised.iter().map(|raised| raised / sum).collect()
}

/// Returns the token up to which the probabilities add up to more than a share in `[0, 1)`.
fn draw(probabilities: &[f64], share: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (place, probability) in
        probabilities.iter().enumerate().filter(|(_, probability)| **probability > 0.0)
    {
        (sum, last) = (sum + probability, place);
        if share < sum {
            break;
        }
    }
    last as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(temperature: f64, top_k: Option<u32>, top_p: f64) -> Sample {
        Sample { temperature, top_k, top_p, seed: 7 }
    }

    /// Values of transformers 5.23.0: `TemperatureLogitsWarper`, `TopKLogitsWarper` and
    /// `TopPLogitsWarper`, each only where it changes anything, then the softmax.
    #[test]
    fn probabilities_are_those_of_transformers() {
        let logits = [0.5, 2.0, -1.0, 2.0, 0.0, 3.25, -4.0, 1.5];
        let (whole, third) = (
            [0.0342876, 0.1536664, 0.0076506, 0.1536664, 0.0207965, 0.5363483, 0.0003809, 0.0932034],
            0.182138,
        );
        let cases = [
            (sample(1.0, None, 1.0), whole),
            (
                sample(0.7, None, 1.0),
                [0.0135753, 0.1157128, 0.0015926, 0.1157128, 0.0066457, 0.6900925, 2.19e-05, 0.0566462],
            ),
            // Equals at the edge all stay.
            (sample(1.0, Some(2), 1.0), [0.0, third, 0.0, third, 0.0, 0.635724, 0.0, 0.0]),
            (sample(1.0, Some(3), 1.0), [0.0, third, 0.0, third, 0.0, 0.635724, 0.0, 0.0]),
            (sample(1.0, Some(90), 1.0), whole),
            (sample(1.0, None, 0.9), [0.0, 0.1640185, 0.0, 0.1640185, 0.0, 0.5724808, 0.0, 0.0994822]),
            (sample(1.5, Some(4), 0.8), [0.0, 0.2325054, 0.0, 0.2325054, 0.0, 0.5349892, 0.0, 0.0]),
            (sample(0.25, None, 0.99), [0.0, 0.0, 0.0, 0.0066929, 0.0, 0.9933072, 0.0, 0.0]),
            (sample(1.0, None, 0.01), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ];
        for (sample, wanted) in cases {
            let actual = sample.probabilities(&logits);
            let off = actual.iter().zip(wanted).map(|(actual, wanted)| (actual - wanted).abs());
            assert!(off.fold(0.0, f64::max) < 2e-7, "{sample:?}: {actual:?}");
        }
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely() {
        let probabilities = [0.0, 0.25, 0.0, 0.75, 0.0];
        assert_eq!([0.0, 0.2499, 0.25, 0.9999].map(|share| draw(&probabilities, share)), [1, 1, 3, 3]);
        let mut random = Random::new(3, Purpose::Sampling, 0);
        let drawn = (0..20_000).filter(|_| draw(&probabilities, random.share()) == 1).count();
        assert!((4_800..5_200).contains(&drawn), "{drawn}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (sample, message) in [
            (sample(0.0, None, 1.0), "`temperature` is a number above 0, not 0"),
            (sample(1.0, Some(0), 1.0), "`top_k` is at least 1"),
            (sample(1.0, None, 0.0), "`top_p` is a share above 0 and at most 1, not 0"),
            (sample(1.0, None, f64::NAN), "`top_p` is a share above 0 and at most 1, not NaN"),
        ] {
            assert_eq!(sample.check().unwrap_err().message, message);
        }
        assert_eq!(sample(0.5, Some(1), 0.1).check(), Ok(()));
    }
}
