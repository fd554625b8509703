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
mod loss;
mod robust_dpo;
mod sft;
mod simpo;

use choice::choices;

pub use loss::{Feed, Logp, Loss, MicroBatch, Outputs, Share};

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

#[cfg(test)]
mod tests {
    use super::loss::log_sigmoid;
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
            r#"{"hinge": {"beta": 0.05, "use_reference": true, "alpha": 0.0}}"#,
            r#"{"robust_dpo": {}}"#,
            r#"{"simpo": {"alpha": 0.4}}"#,
            r#"{"apo_zero": {}}"#,
            r#"{"apo_zero_unpaired": {}}"#,
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
            r#"{"robust_dpo": {"label_smoothing": 0.7}}"#,
            r#"{"simpo": {"gamma": -0.5}}"#,
            r#"{"apo_zero": {"beta": 0.0}}"#,
            r#"{"apo_zero_unpaired": {"beta": 0.0}}"#,
        ] {
            let objective: Objective = serde_json::from_str(text).unwrap();
            let error = objective.check().unwrap_err();
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            let (_, fields) = json.as_object().unwrap().iter().next().unwrap();
            assert!(fields.get(&error.path).is_some(), "{text}: {error:?}");
        }
        assert!(all().iter().all(|objective| objective.check().is_ok()));
    }

    proptest! {
        #[test]
        fn gradients_are_derivatives(
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
                let gradient = |one: Share, other: Share| (one.loss - other.loss) / (2.0 * step);
                let by_chosen = gradient(at(chosen + step, rejected), at(chosen - step, rejected));
                let by_rejected = gradient(at(chosen, rejected + step), at(chosen, rejected - step));
                // A hinge has a corner, which a difference may reach across.
                let corner = matches!(&objective, Objective::Hinge(_));
                let near = |found: f64, gradient: f64| (found - gradient).abs() < if corner { 0.05 } else { 1e-6 };
                prop_assert!(near(by_chosen, here.chosen_gradient), "{objective:?} {by_chosen} {here:?}");
                prop_assert!(near(by_rejected, here.rejected_gradient), "{objective:?} {by_rejected} {here:?}");
            }
        }
    }
}
