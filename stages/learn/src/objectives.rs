//! What training minimises: functions of log-probabilities, and of nothing else.
//!
//! An objective never sees a model. It gets the log-probabilities of the outputs of one example
//! and what the whole micro-batch is divided by, and returns the example's share of the loss and
//! how that share changes with each log-probability. The chain rule through the model is the
//! trainer's.

mod apo_zero;
mod apo_zero_unpaired;
mod cpo;
mod dpo;
mod hinge;
mod ipo;
mod kto;
mod robust_dpo;
mod sft;
mod simpo;

use choice::choices;

choices! {
    /// What is minimised.
    pub enum Objective: Loss in "objective" {
        /// Supervised fine-tuning: the target's negative log-likelihood.
        sft::Sft,
        /// Direct preference optimisation.
        dpo::Dpo,
        /// Contrastive preference optimisation.
        cpo::Cpo,
        /// Kahneman-Tversky optimisation, from single outputs that are good or bad.
        kto::Kto,
        /// Identity preference optimisation.
        ipo::Ipo,
        /// A hinge on the difference of the outputs: SLiC.
        hinge::Hinge,
        /// DPO that allows for preferences that are the wrong way round.
        robust_dpo::RobustDpo,
        /// Simple preference optimisation: per token, without a reference.
        simpo::Simpo,
        /// Anchored preference optimisation, for chosen outputs better than the model's own.
        apo_zero::ApoZero,
        /// The same from single outputs that are good or bad.
        apo_zero_unpaired::ApoZeroUnpaired,
    }
}

/// What an objective learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Targets.
    Targets,
    /// Pairs of a chosen and a rejected output.
    Pairs,
    /// Single outputs, each said to be desirable or not.
    Labelled,
}

/// One objective.
pub trait Loss: Send + Sync {
    /// Says what it learns from.
    fn feed(&self) -> Feed;

    /// Says whether it compares with what a reference model makes of the same outputs.
    fn needs_reference(&self) -> bool {
        false
    }

    /// Says whether it wants to know how far the model is from the reference, estimated on
    /// prompts with the outputs of others.
    fn needs_divergence(&self) -> bool {
        false
    }

    /// Says what is wrong with the parameters.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns one example's share of the loss of its micro-batch.
    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share;
}

/// What a model makes of one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logp {
    /// The sum of its tokens' log-probabilities, the end token's among them.
    pub sum: f64,
    /// How many tokens that are.
    pub tokens: usize,
    /// The same sum by the reference model, for objectives that need one.
    pub reference: Option<f64>,
}

impl Logp {
    /// Returns the log-ratio of the model to the reference.
    fn ratio(&self) -> f64 {
        self.sum - self.reference.expect("an objective that needs a reference gets one")
    }
}

/// What a model makes of the outputs of one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outputs {
    /// The target; where outputs are labelled, the output.
    pub chosen: Logp,
    /// What is dispreferred, for objectives that learn from pairs.
    pub rejected: Option<Logp>,
    /// Whether the output is a good one, where outputs are labelled.
    pub desirable: Option<bool>,
}

impl Outputs {
    fn rejected(&self) -> Logp {
        self.rejected.expect("an objective of pairs gets pairs")
    }

    fn desirable(&self) -> bool {
        self.desirable.expect("an objective of labels gets labels")
    }
}

/// What an objective knows of the whole micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MicroBatch {
    /// Its examples.
    pub examples: usize,
    /// The tokens of its targets.
    pub target_tokens: usize,
    /// How far the model is from the reference, in nats per sequence and never below 0; 0 where
    /// an objective does not ask.
    pub divergence: f64,
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
    /// The reward of the chosen or desirable output that the objective implies, if any.
    pub chosen_reward: Option<f64>,
    /// That of the rejected or undesirable one.
    pub rejected_reward: Option<f64>,
}

impl Share {
    /// Returns the share of a pair: a mean over pairs of a loss with these derivatives.
    fn of_pair(micro_batch: &MicroBatch, loss: f64, slopes: [f64; 2], rewards: [f64; 2]) -> Self {
        let pairs = micro_batch.examples as f64;
        Self {
            loss: loss / pairs,
            chosen_slope: slopes[0] / pairs,
            rejected_slope: slopes[1] / pairs,
            chosen_reward: Some(rewards[0]),
            rejected_reward: Some(rewards[1]),
        }
    }

    /// Adds `weight` times the negative log-likelihood of the chosen output, as one mean over all
    /// tokens of the chosen outputs of the micro-batch.
    fn with_likelihood(mut self, weight: f64, chosen: &Logp, micro_batch: &MicroBatch) -> Self {
        let slope = weight / micro_batch.target_tokens as f64;
        self.loss -= slope * chosen.sum;
        self.chosen_slope -= slope;
        self
    }
}

/// Returns `log sigmoid(x)` and its derivative `sigmoid(-x)`.
fn log_sigmoid(x: f64) -> (f64, f64) {
    let tail = (-x.abs()).exp();
    let value = x.min(0.0) - tail.ln_1p();
    let slope = if x >= 0.0 { tail / (1.0 + tail) } else { 1.0 / (1.0 + tail) };
    (value, slope)
}

/// Returns `sigmoid(x)` and its derivative.
fn sigmoid(x: f64) -> (f64, f64) {
    let value = log_sigmoid(x).0.exp();
    (value, value * log_sigmoid(-x).0.exp())
}

/// Returns `-(1 - smoothing) log sigmoid(x) - smoothing log sigmoid(-x)`, the loss of a preference
/// that is the wrong way round with a probability of `smoothing`, and its derivative.
fn smoothed(x: f64, smoothing: f64) -> (f64, f64) {
    let ((right, right_slope), (wrong, wrong_slope)) = (log_sigmoid(x), log_sigmoid(-x));
    let loss = -(1.0 - smoothing) * right - smoothing * wrong;
    (loss, -(1.0 - smoothing) * right_slope + smoothing * wrong_slope)
}

/// Checks a parameter that is above 0.
fn above_0(name: &str, number: f64) -> Result<(), String> {
    match number.is_finite() && number > 0.0 {
        true => Ok(()),
        false => Err(format!("`{name}` is a number above 0, not {number}")),
    }
}

/// Checks a parameter that is 0 or more.
fn from_0(name: &str, number: f64) -> Result<(), String> {
    match number.is_finite() && number >= 0.0 {
        true => Ok(()),
        false => Err(format!("`{name}` is a number from 0, not {number}")),
    }
}

/// Checks a share of preferences that are the wrong way round.
fn below_half(name: &str, number: f64) -> Result<(), String> {
    match (0.0..0.5).contains(&number) {
        true => Ok(()),
        false => Err(format!("`{name}` is a share from 0 to below 0.5, not {number}")),
    }
}

/// The default of `beta`: ALMol, section 3.2; Less for More, section 4; and TRL.
fn default_beta() -> f64 {
    0.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Objective> {
        let texts = [
            r#"{"sft": {}}"#,
            r#"{"dpo": {}}"#,
            r#"{"dpo": {"beta": 0.5, "label_smoothing": 0.2, "alpha": 0.7}}"#,
            r#"{"cpo": {}}"#,
            r#"{"cpo": {"beta": 0.5, "alpha": 0.3, "label_smoothing": 0.1}}"#,
            r#"{"kto": {}}"#,
            r#"{"kto": {"beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 0.5}}"#,
            r#"{"ipo": {}}"#,
            r#"{"hinge": {"beta": 0.05}}"#,
            r#"{"hinge": {"beta": 0.05, "against_reference": true, "alpha": 0.0}}"#,
            r#"{"robust-dpo": {}}"#,
            r#"{"simpo": {"alpha": 0.4}}"#,
            r#"{"apo-zero": {}}"#,
            r#"{"apo-zero-unpaired": {}}"#,
        ];
        texts.iter().map(|text| serde_json::from_str::<Objective>(text).unwrap()).collect()
    }

    #[test]
    fn log_sigmoid_is_right_at_the_ends() {
        assert_eq!(log_sigmoid(0.0), (-std::f64::consts::LN_2, 0.5));
        assert_eq!(log_sigmoid(-800.0), (-800.0, 1.0));
        assert_eq!(log_sigmoid(800.0).0, 0.0);
    }

    #[test]
    fn every_objective_refuses_what_means_nothing() {
        for text in [
            r#"{"dpo": {"beta": 0.0}}"#,
            r#"{"dpo": {"label_smoothing": 0.5}}"#,
            r#"{"cpo": {"alpha": -1.0}}"#,
            r#"{"kto": {"desirable_weight": -1.0}}"#,
            r#"{"ipo": {"beta": -0.1}}"#,
            r#"{"hinge": {"alpha": -0.1}}"#,
            r#"{"robust-dpo": {"label_smoothing": 0.7}}"#,
            r#"{"simpo": {"gamma": -0.5}}"#,
            r#"{"apo-zero": {"beta": 0.0}}"#,
            r#"{"apo-zero-unpaired": {"beta": 0.0}}"#,
        ] {
            let objective: Objective = serde_json::from_str(text).unwrap();
            assert!(objective.check().is_err(), "{text}");
        }
        assert!(all().iter().all(|objective| objective.check().is_ok()));
    }

    proptest! {
        #[test]
        fn slopes_are_derivatives(
            chosen in -60.0..-0.1f64,
            rejected in -60.0..-0.1f64,
            reference in -60.0..-0.1f64,
            desirable: bool,
        ) {
            let micro_batch = MicroBatch { examples: 3, target_tokens: 20, divergence: 0.3 };
            for objective in all() {
                let at = |chosen: f64, rejected: f64| {
                    let logp = |sum: f64, tokens: usize| Logp { sum, tokens, reference: Some(reference) };
                    let outputs = Outputs {
                        chosen: logp(chosen, 7),
                        rejected: Some(logp(rejected, 9)),
                        desirable: Some(desirable),
                    };
                    objective.share(&outputs, &micro_batch)
                };
                let (here, step) = (at(chosen, rejected), 1e-4);
                let slope = |one: Share, other: Share| (one.loss - other.loss) / (2.0 * step);
                let by_chosen = slope(at(chosen + step, rejected), at(chosen - step, rejected));
                let by_rejected = slope(at(chosen, rejected + step), at(chosen, rejected - step));
                // A hinge has a corner, which a difference may reach across.
                let corner = matches!(&objective, Objective::Hinge(_));
                let near = |found: f64, slope: f64| (found - slope).abs() < if corner { 0.05 } else { 1e-6 };
                prop_assert!(near(by_chosen, here.chosen_slope), "{objective:?} {by_chosen} {here:?}");
                prop_assert!(near(by_rejected, here.rejected_slope), "{objective:?} {by_rejected} {here:?}");
            }
        }
    }
}
