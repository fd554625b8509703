//! The learning rate over the steps of a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Along half a cosine to 0: `0.5 (1 + cos(pi * progress))`.
    Cosine,
    /// Along a line to 0.
    Linear,
    /// Not at all.
    Constant,
}

/// The learning rate's rise and fall, as transformers' schedulers have it: the first step is
/// made at 0 if there is a warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The highest.
    pub peak: f64,
    /// How many steps it rises for.
    pub warmup_steps: usize,
    /// All steps.
    pub steps: usize,
    /// How it falls.
    pub schedule: Schedule,
}

impl LearningRate {
    /// Returns the steps that a share of all steps makes: rounded up, as transformers does.
    pub fn warmup(ratio: f64, steps: usize) -> usize {
        (ratio * steps as f64).ceil() as usize
    }

    /// Returns the learning rate of a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (step - self.warmup_steps) as f64 / rest as f64;
        self.peak
            * match self.schedule {
                Schedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
                Schedule::Linear => (1.0 - progress).max(0.0),
                Schedule::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_cosine() {
        let rate = LearningRate { peak: 0.01, warmup_steps: 5, steps: 50, schedule: Schedule::Cosine };
        let path = crate::testing::golden("optim/expected.json");
        let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let steps = expected["trajectory"].as_array().unwrap();
        assert_eq!(steps.len(), 50);
        for (step, expected) in steps.iter().enumerate() {
            let expected = expected["lr_used"].as_f64().unwrap();
            assert!((rate.at(step) - expected).abs() < 1e-15, "{step}: {} {expected}", rate.at(step));
        }
        assert!(rate.at(50).abs() < 1e-15);
    }

    #[test]
    fn shares_of_steps_round_up() {
        assert_eq!((LearningRate::warmup(0.1, 50), LearningRate::warmup(0.1, 51)), (5, 6));
        assert_eq!(LearningRate::warmup(0.0, 50), 0);
    }

    #[test]
    fn other_schedules() {
        let rate = |schedule| LearningRate { peak: 1.0, warmup_steps: 0, steps: 4, schedule };
        assert_eq!([0, 1, 2, 4].map(|step| rate(Schedule::Linear).at(step)), [1.0, 0.75, 0.5, 0.0]);
        assert_eq!([0, 4].map(|step| rate(Schedule::Constant).at(step)), [1.0, 1.0]);
    }
}
