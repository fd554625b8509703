//! What a judge of natural-language inference (NLI) says of two texts in parts, pooled.
//!
//! *Less for More*: with premises P from the reference and hypotheses H from the caption,
//! hallucination is the mean over H of the least P(contradiction) over P; with premises from the
//! caption and hypotheses from the reference, coverage is the mean over H of the greatest
//! P(entailment) over P. Of sentences the latter is SummaC's zero-shot score (Laban et al., 2022).

use serde::{Deserialize, Serialize};

use crate::summary::sum;

/// How likely a hypothesis follows from a premise, is neither, or contradicts it; written as a
/// list of three numbers in this order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 3]", into = "[f32; 3]")]
pub struct Verdict {
    /// The probability that it follows.
    pub entailment: f32,
    /// The probability that it neither follows nor contradicts.
    pub neutral: f32,
    /// The probability that it contradicts.
    pub contradiction: f32,
}

impl From<[f32; 3]> for Verdict {
    fn from([entailment, neutral, contradiction]: [f32; 3]) -> Self {
        Self { entailment, neutral, contradiction }
    }
}

impl From<Verdict> for [f32; 3] {
    fn from(verdict: Verdict) -> Self {
        [verdict.entailment, verdict.neutral, verdict.contradiction]
    }
}

impl Verdict {
    /// Says whether it is likelier that the hypothesis follows than either other thing.
    pub fn is_entailment(&self) -> bool {
        self.entailment > self.neutral && self.entailment > self.contradiction
    }
}

/// A row for each premise, with a verdict on each hypothesis.
pub type Verdicts = [Vec<Verdict>];

/// Returns the mean over hypotheses of the least probability, over premises, that they contradict;
/// nothing where there are no premises or no hypotheses.
pub fn hallucination(verdicts: &Verdicts) -> Option<f64> {
    by_hypothesis(verdicts, |column| column.map(|one| f64::from(one.contradiction)).reduce(f64::min))
}

/// Returns the mean over hypotheses of the greatest probability, over premises, that they are
/// entailed; nothing where there are no premises or no hypotheses.
pub fn coverage(verdicts: &Verdicts) -> Option<f64> {
    by_hypothesis(verdicts, |column| column.map(|one| f64::from(one.entailment)).reduce(f64::max))
}

/// Returns the mean over hypotheses and premises of the probability that they are entailed.
pub fn mean_entailment(verdicts: &Verdicts) -> Option<f64> {
    let premises = verdicts.len() as f64;
    by_hypothesis(verdicts, |column| Some(sum(column.map(|one| f64::from(one.entailment))) / premises))
}

fn by_hypothesis(
    verdicts: &Verdicts,
    pool: impl Fn(&mut dyn Iterator<Item = &Verdict>) -> Option<f64>,
) -> Option<f64> {
    let hypotheses = verdicts.iter().map(Vec::len).min()?;
    let pooled: Option<Vec<f64>> =
        (0..hypotheses).map(|at| pool(&mut verdicts.iter().map(|row| &row[at]))).collect();
    pooled.filter(|pooled| !pooled.is_empty()).map(|pooled| sum(pooled) / hypotheses as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(rows: &[&[[f32; 3]]]) -> Vec<Vec<Verdict>> {
        rows.iter().map(|row| row.iter().map(|one| (*one).into()).collect()).collect()
    }

    #[test]
    fn two_premises_and_three_hypotheses_by_hand() {
        let matrix = verdicts(&[
            &[[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.25, 0.75, 0.0]],
            &[[0.75, 0.25, 0.0], [0.25, 0.25, 0.5], [0.0, 0.5, 0.5]],
        ]);
        assert_eq!(hallucination(&matrix), Some(0.5 / 3.0));
        assert_eq!(coverage(&matrix), Some((0.75 + 0.25 + 0.25) / 3.0));
        assert_eq!(mean_entailment(&matrix), Some((0.625 + 0.125 + 0.125) / 3.0));
    }

    #[test]
    fn of_one_premise_and_one_hypothesis_it_is_their_probability() {
        let matrix = verdicts(&[&[[0.625, 0.25, 0.125]]]);
        assert_eq!((hallucination(&matrix), coverage(&matrix)), (Some(0.125), Some(0.625)));
        assert_eq!(mean_entailment(&matrix), Some(0.625));
    }

    #[test]
    fn of_nothing_there_is_no_number() {
        for matrix in [verdicts(&[]), verdicts(&[&[], &[]])] {
            assert_eq!(
                (hallucination(&matrix), coverage(&matrix), mean_entailment(&matrix)),
                (None, None, None)
            );
        }
    }

    #[test]
    fn a_tie_is_no_entailment() {
        assert!(Verdict::from([0.5, 0.3, 0.2]).is_entailment());
        assert!(!Verdict::from([0.4, 0.4, 0.2]).is_entailment());
        assert!(!Verdict::from([0.4, 0.1, 0.5]).is_entailment());
    }
}
