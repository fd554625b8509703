//! What training minimises: functions of log-probabilities, and of nothing else.
//!
//! An objective never sees a model. It gets the log-probabilities of the outputs of one example
//! and what the whole micro-batch is divided by, and returns the example's share of the loss and
//! how that share changes with each log-probability. The chain rule through the model is the
//! trainer's.

mod cpo;
mod sft;

use choice::choices;

choices! {
    /// What is minimised.
    pub enum Objective: Loss in "objective" {
        /// Supervised fine-tuning: the target's negative log-likelihood.
        sft::Sft,
        /// Contrastive preference optimisation.
        cpo::Cpo,
    }
}

/// One objective.
pub trait Loss: Send + Sync {
    /// Says whether an example has a rejected output beside the chosen one.
    fn is_paired(&self) -> bool;

    /// Says what is wrong with the parameters.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns one example's share of the loss of its micro-batch.
    fn share(&self, example: &Outputs, micro_batch: &Divisors) -> Share;
}

/// What a model makes of one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logp {
    /// The sum of its tokens' log-probabilities, the end token's among them.
    pub sum: f64,
    /// How many tokens that are.
    pub tokens: usize,
}

/// What a model makes of the outputs of one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outputs {
    /// The target.
    pub chosen: Logp,
    /// What is dispreferred, for objectives that are paired.
    pub rejected: Option<Logp>,
}

impl Outputs {
    fn rejected(&self) -> Logp {
        self.rejected.expect("a paired objective gets pairs")
    }
}

/// What the sums over a micro-batch are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divisors {
    /// Its examples.
    pub examples: usize,
    /// The tokens of its targets.
    pub target_tokens: usize,
}

/// One example's share of a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The share.
    pub loss: f64,
    /// The share's derivative by the chosen output's summed log-probability.
    pub chosen_slope: f64,
    /// The same by the rejected output's; 0 without one.
    pub rejected_slope: f64,
    /// The rewards of both outputs that the objective implies, where it implies any.
    pub rewards: Option<[f64; 2]>,
}

/// Returns `log sigmoid(x)` and its derivative `sigmoid(-x)`.
fn log_sigmoid(x: f64) -> (f64, f64) {
    let tail = (-x.abs()).exp();
    let value = x.min(0.0) - tail.ln_1p();
    let slope = if x >= 0.0 { tail / (1.0 + tail) } else { 1.0 / (1.0 + tail) };
    (value, slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn output(sum: f64) -> Logp {
        Logp { sum, tokens: 7 }
    }

    fn all() -> Vec<Objective> {
        let cpo = |text: &str| serde_json::from_str::<Objective>(text).unwrap();
        vec![
            Objective::Sft(sft::Sft {}),
            cpo(r#"{"cpo": {}}"#),
            cpo(r#"{"cpo": {"beta": 0.5, "alpha": 0.3}}"#),
        ]
    }

    #[test]
    fn log_sigmoid_is_right_at_the_ends() {
        assert_eq!(log_sigmoid(0.0), (-std::f64::consts::LN_2, 0.5));
        assert_eq!(log_sigmoid(-800.0), (-800.0, 1.0));
        assert_eq!(log_sigmoid(800.0).0, 0.0);
    }

    proptest! {
        #[test]
        fn slopes_are_derivatives(chosen in -60.0..-0.1f64, rejected in -60.0..-0.1f64) {
            let divisors = Divisors { examples: 3, target_tokens: 20 };
            for objective in all() {
                let at = |chosen: f64, rejected: f64| {
                    let outputs = Outputs { chosen: output(chosen), rejected: Some(output(rejected)) };
                    objective.share(&outputs, &divisors)
                };
                let (here, step) = (at(chosen, rejected), 1e-4);
                let by_chosen = (at(chosen + step, rejected).loss - at(chosen - step, rejected).loss) / (2.0 * step);
                let by_rejected = (at(chosen, rejected + step).loss - at(chosen, rejected - step).loss) / (2.0 * step);
                prop_assert!((by_chosen - here.chosen_slope).abs() < 1e-7, "{objective:?} {by_chosen} {here:?}");
                prop_assert!((by_rejected - here.rejected_slope).abs() < 1e-7, "{objective:?} {by_rejected} {here:?}");
            }
        }
    }
}
