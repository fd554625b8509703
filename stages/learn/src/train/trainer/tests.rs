use super::*;
use crate::model::{open_network, write_random};
use crate::models::Architecture;
use crate::network::Network;
use crate::tensor::device::{is_cpu, tested_device};
use crate::tensor::layers::Storage;
use crate::tensor::precision::Precision;
use crate::testing::golden;
use crate::text::sequence::{Sequence, TokenLimit};
use crate::train::adamw::AdamW;
use crate::train::config::Length;
use crate::train::lr_schedule::Schedule;
use safetensors::SafeTensors;
use weights::{Dtype, ModelFolder};

fn config(batch_size: usize) -> TrainingConfig {
    TrainingConfig {
        objective: serde_json::from_str(r#"{"sft": {}}"#).unwrap(),
        optimizer: AdamW::default(),
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        length: Length::Steps(20),
        batch_size,
        micro_batch_size: batch_size,
        max_grad_norm: 0.3,
        evals_per_epoch: 0,
        precision: Precision::F32,
        seed: 0,
    }
}

/// The batches of the reference, row after row.
fn examples() -> Vec<Example> {
    let bytes = std::fs::read(golden("sft/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| -> Vec<Vec<i64>> {
        let numbers = file.tensor(name).unwrap().data().chunks_exact(8);
        let numbers: Vec<i64> = numbers.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        numbers.chunks(24).map(<[i64]>::to_vec).collect()
    };
    let rows = rows("input_ids").into_iter().zip(rows("attention_mask")).zip(rows("labels"));
    let example = |((ids, mask), labels): ((Vec<i64>, Vec<i64>), Vec<i64>)| {
        let all = mask.iter().sum::<i64>() as usize;
        let prompt = labels.iter().take_while(|label| **label == -100).count();
        let ids: Vec<u32> = ids[..all].iter().map(|id| *id as u32).collect();
        let (chosen, _) = Sequence::new(&ids[..prompt], &ids[prompt..], TokenLimit::Together(100)).unwrap();
        Example { id: String::new(), chosen, rejected: None, desirable: None }
    };
    rows.map(example).collect()
}

/// Twenty steps, and the losses of each.
fn trajectory(micro_batch_size: usize, threads: usize, precision: Precision) -> (Network, Vec<StepPoint>) {
    let device = tested_device();
    let mut model =
        open_network(&ModelFolder::open(golden("llama")).unwrap(), Storage::Dense, &device).unwrap();
    model.compute_in(precision);
    let config = TrainingConfig { micro_batch_size, precision, ..config(4) };
    let examples = Examples { train: examples(), validation: Vec::new(), limit: TokenLimit::Together(100) };
    let steps = Steps::new(&config, examples.train.len());
    let pool = threads_for(&device, threads);
    let mut training = Training::of(vec![Replica::new(&mut model, device)], &config, &examples, pool);
    for step in 0..20 {
        let first = step % 5 * 4;
        training.advance(&[first, first + 1, first + 2, first + 3], &steps).unwrap();
    }
    let points = training.points.iter().map(|point| match point {
        Point::Step(step) => step.clone(),
        Point::Validation(look) => unreachable!("{look:?}"),
    });
    let points = points.collect();
    (model, points)
}

#[test]
fn twenty_steps_are_the_references() {
    let expected = std::fs::read(golden("sft/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let bytes = std::fs::read(golden("sft/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // With the mean over the tokens of all micro-batches, how many there are changes nothing.
    for micro_batch_size in [4, 1] {
        let (mut model, points) = trajectory(micro_batch_size, 2, Precision::F32);
        for (point, expected) in points.iter().zip(expected["trajectory"].as_array().unwrap()) {
            let off = (point.loss - expected["loss"].as_f64().unwrap()).abs();
            assert!(off < 2e-5, "{point:?} {expected}");
            let off = (point.gradient_norm - expected["grad_norm_before_clip"].as_f64().unwrap()).abs();
            assert!(off < 5e-5, "{point:?} {expected}");
        }
        let mut compared = 0;
        model.visit(&mut |name, parameter| {
            if let Ok(view) = file.tensor(&format!("final.{name}")) {
                let expected = view.data().chunks_exact(4);
                let expected = expected.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                let off = host(parameter.flat())
                    .iter()
                    .zip(expected)
                    .map(|(one, other)| (one - other).abs())
                    .fold(0.0, f32::max);
                assert!(off < 2e-5, "{name}: {off}");
                compared += 1;
            }
        });
        assert_eq!(compared, 2);
    }
}

/// Rounded factors and products: another path, to the same place.
#[test]
fn sixteen_bits_learn_what_single_floats_do() {
    let losses = |precision: Precision| -> Vec<f64> {
        let (_, points) = trajectory(4, 2, precision);
        points.iter().map(|point| point.loss).collect()
    };
    if !Precision::Bf16.is_known_to(&tested_device()) {
        return eprintln!("skipped: PIPELINE_TEST_DEVICE does not compute in bf16");
    }
    let (single, half) = (losses(Precision::F32), losses(Precision::Bf16));
    assert_ne!(single, half);
    for (step, (single, half)) in single.iter().zip(&half).enumerate() {
        assert!((single - half).abs() < 5e-3 * single, "step {step}: {half}, in f32 {single}");
    }
    assert!(half[19] < half[0] - 0.9 * (single[0] - single[19]), "{half:?}");
}

#[test]
fn threads_change_no_bit() {
    if !is_cpu(&tested_device()) {
        return eprintln!("skipped: GPUs add in orders of their own");
    }
    let bits = |threads: usize| -> Vec<u64> {
        let (mut model, points) = trajectory(4, threads, Precision::F32);
        let mut bits: Vec<u64> = points.iter().map(|point| point.loss.to_bits()).collect();
        model.visit(&mut |_, parameter| {
            bits.extend(host(parameter.flat()).iter().map(|number| u64::from(number.to_bits())))
        });
        bits
    };
    let one = bits(1);
    assert!([2, 3].into_iter().all(|threads| bits(threads) == one));
}

/// In a deep T5 many layers take one tensor, whose gradient is a sum of many: they are added in one
/// order, whatever thread has which shard and whether layers are recomputed.
#[test]
fn threads_and_recomputed_layers_change_no_bit_of_a_deep_model() {
    const VOCABULARY: usize = 40;
    if !is_cpu(&tested_device()) {
        return eprintln!("skipped: GPUs add in orders of their own");
    }
    let tokens = |seed: usize, count: usize| -> Vec<u32> {
        (0..count).map(|place| ((seed * 17 + place * place * 7) % (VOCABULARY - 3) + 3) as u32).collect()
    };
    let example = |seed: usize| {
        let (prompt, output) = (tokens(seed, 3 + 5 * seed % 11), tokens(seed + 50, 2 + 7 * seed % 9));
        let (chosen, _) = Sequence::new(&prompt, &output, TokenLimit::Each(64)).unwrap();
        Example { id: String::new(), chosen, rejected: None, desirable: None }
    };
    let examples = Examples {
        train: (0..24).map(example).collect(),
        validation: Vec::new(),
        limit: TokenLimit::Each(64),
    };
    let t5 = r#"{"t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 5, "num_heads": 2}}"#;
    let llama = r#"{"llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}}"#;
    for architecture in [t5, llama] {
        let architecture: Architecture = serde_json::from_str(architecture).unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        write_random(&architecture.config(VOCABULARY), Dtype::F32, 1 << 30, folder.path()).unwrap();
        let bits = |threads: usize, activations: Activations| -> Vec<u32> {
            let (device, folder) = (tested_device(), ModelFolder::open(folder.path()).unwrap());
            let mut model = open_network(&folder, Storage::Dense, &device).unwrap();
            let config = TrainingConfig { micro_batch_size: 12, ..config(24) };
            let steps = Steps::new(&config, examples.train.len());
            let pool = threads_for(&device, threads);
            let mut training = Training::of(vec![Replica::new(&mut model, device)], &config, &examples, pool);
            training.activations = activations;
            let all: Vec<usize> = (0..examples.train.len()).collect();
            for _ in 0..3 {
                training.advance(&all, &steps).unwrap();
            }
            drop(training);
            let mut bits = Vec::new();
            model.visit(&mut |_, parameter| {
                bits.extend(host(parameter.flat()).iter().map(|number| number.to_bits()));
            });
            bits
        };
        let expected = bits(1, Activations::Kept);
        for threads in [1, 2, 3] {
            for activations in [Activations::Kept, Activations::Recomputed] {
                assert!(bits(threads, activations) == expected, "{threads} threads, {activations:?}");
            }
        }
    }
}

#[test]
fn validation_falls_on_shares_of_an_epoch() {
    let steps = |batch: usize, times: usize| {
        let config = TrainingConfig { evals_per_epoch: times, length: Length::Epochs(2.0), ..config(batch) };
        let steps = Steps::new(&config, 10);
        (0..=steps.all).filter(|step| steps.evaluates(*step)).collect::<Vec<_>>()
    };
    assert_eq!(steps(1, 2), [0, 5, 10, 15, 20]);
    assert_eq!(steps(4, 1), [0, 3, 6]);
    assert_eq!(steps(5, 4), [0, 1, 2, 3, 4]);
    assert_eq!(steps(1, 0), [0, 20]);
}
