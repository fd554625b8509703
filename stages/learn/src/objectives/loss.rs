//! What every objective takes and returns, and the functions that several are made of.

use choice::FieldError;

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
    fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn ratio(&self) -> f64 {
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
    pub(super) fn rejected(&self) -> Logp {
        self.rejected.expect("an objective of pairs gets pairs")
    }

    pub(super) fn desirable(&self) -> bool {
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
    pub chosen_gradient: f64,
    /// The same by the rejected output's; 0 without one.
    pub rejected_gradient: f64,
    /// The reward of the chosen or desirable output that the objective implies, if any.
    pub chosen_reward: Option<f64>,
    /// That of the rejected or undesirable one.
    pub rejected_reward: Option<f64>,
}

impl Share {
    /// Returns the share of a pair: a mean over pairs of a loss with these derivatives.
    pub(super) fn of_pair(
        micro_batch: &MicroBatch,
        loss: f64,
        gradients: [f64; 2],
        rewards: [f64; 2],
    ) -> Self {
        let pairs = micro_batch.examples as f64;
        Self {
            loss: loss / pairs,
            chosen_gradient: gradients[0] / pairs,
            rejected_gradient: gradients[1] / pairs,
            chosen_reward: Some(rewards[0]),
            rejected_reward: Some(rewards[1]),
        }
    }

    /// Adds `weight` times the negative log-likelihood of the chosen output, as one mean over all
    /// tokens of the chosen outputs of the micro-batch.
    pub(super) fn with_likelihood(mut self, weight: f64, chosen: &Logp, micro_batch: &MicroBatch) -> Self {
        let gradient = weight / micro_batch.target_tokens as f64;
        self.loss -= gradient * chosen.sum;
        self.chosen_gradient -= gradient;
        self
    }
}

/// Returns `log sigmoid(x)` and its derivative `sigmoid(-x)`.
pub(super) fn log_sigmoid(x: f64) -> (f64, f64) {
    let tail = (-x.abs()).exp();
    let value = x.min(0.0) - tail.ln_1p();
    let gradient = if x >= 0.0 { tail / (1.0 + tail) } else { 1.0 / (1.0 + tail) };
    (value, gradient)
}

/// Returns `sigmoid(x)` and its derivative.
pub(super) fn sigmoid(x: f64) -> (f64, f64) {
    let value = log_sigmoid(x).0.exp();
    (value, value * log_sigmoid(-x).0.exp())
}

/// Returns `-(1 - smoothing) log sigmoid(x) - smoothing log sigmoid(-x)`, the loss of a preference
/// that is the wrong way round with a probability of `smoothing`, and its derivative.
pub(super) fn smoothed(x: f64, smoothing: f64) -> (f64, f64) {
    let ((right, right_gradient), (wrong, wrong_gradient)) = (log_sigmoid(x), log_sigmoid(-x));
    let loss = -(1.0 - smoothing) * right - smoothing * wrong;
    (loss, -(1.0 - smoothing) * right_gradient + smoothing * wrong_gradient)
}

/// Checks a parameter that is above 0.
pub(super) fn above_0(name: &str, number: f64) -> Result<(), FieldError> {
    if number.is_finite() && number > 0.0 {
        Ok(())
    } else {
        Err(FieldError::new(name, format!("`{name}` is a number above 0, not {number}")))
    }
}

/// Checks a parameter that is 0 or more.
pub(super) fn from_0(name: &str, number: f64) -> Result<(), FieldError> {
    if number.is_finite() && number >= 0.0 {
        Ok(())
    } else {
        Err(FieldError::new(name, format!("`{name}` is a number from 0, not {number}")))
    }
}

/// Checks a share of preferences that are the wrong way round.
pub(super) fn below_half(name: &str, number: f64) -> Result<(), FieldError> {
    if (0.0..0.5).contains(&number) {
        Ok(())
    } else {
        Err(FieldError::new(name, format!("`{name}` is a share from 0 to below 0.5, not {number}")))
    }
}

/// The default of `beta`: ALMol, section 3.2; Less for More, section 4; and TRL.
pub(super) fn default_beta() -> f64 {
    0.1
}
