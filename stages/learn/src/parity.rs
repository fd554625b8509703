//! What the reference implementations compute, computed again.
//!
//! The values were made with torch 2.15.0 (CPU, fp32), transformers 5.23.0, trl 1.16.0 and peft
//! 0.21.2, on tiny random models; `tests/golden` holds models and values. Where a tolerance is
//! given, it is what fp32 differs from fp64 by in the reference itself, with room for two such.
//!
//! On another device than the CPU: `PIPELINE_TEST_DEVICE=wgpu cargo test -p learn --features wgpu`.

mod generation;
mod internlm2;
mod recomputed;
mod t5;

use burn_tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::Value;
use weights::ModelFolder;

use crate::model::open_network;
use crate::models::llama::{self, LlamaForCausalLM};
use crate::network::{FolderTensors, LanguageModel as _, Network};
use crate::objectives::{Feed, Logp, MicroBatch, Objective, Outputs};
use crate::tensor::device::{is_cpu, tested_device};
use crate::tensor::layers::Storage;
use crate::tensor::low_rank::Dropout;
use crate::tensor::parameters::Parameters;
use crate::testing::golden;
use crate::text::batches::Packed;
use crate::text::sequence::{Sequence, TokenLimit};
use crate::train::gradients::{self, Activations};

/// Longer than any text here.
const LONG: TokenLimit = TokenLimit::Together(1000);

fn network(name: &str) -> Network {
    open_network(&ModelFolder::open(golden(name)).unwrap(), Storage::Dense, &tested_device()).unwrap()
}

fn model(name: &str) -> LlamaForCausalLM {
    let (folder, device) = (ModelFolder::open(golden(name)).unwrap(), tested_device());
    let config = match folder.model_type() {
        Some("internlm2") => crate::models::internlm2::read(folder.config()),
        _ => llama::LlamaConfig::read(folder.config()),
    };
    let mut tensors = FolderTensors::new(&folder, Storage::Dense, &device);
    LlamaForCausalLM::open(config.unwrap(), &mut tensors).unwrap()
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name).join("expected.json")).unwrap()).unwrap()
}

/// The tensors of a file.
pub(crate) struct GoldenTensors(Vec<u8>);

impl GoldenTensors {
    pub(crate) fn open(name: &str) -> Self {
        Self(std::fs::read(golden(name)).unwrap())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let actual = SafeTensors::deserialize(&self.0).unwrap();
        let data = actual.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Whole numbers, row by row.
    pub(crate) fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let actual = SafeTensors::deserialize(&self.0).unwrap();
        let view = actual.tensor(name).unwrap();
        let numbers: Vec<i64> =
            view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        numbers.chunks(*view.shape().last().unwrap()).map(<[i64]>::to_vec).collect()
    }
}

fn ids(row: &[i64]) -> Vec<u32> {
    row.iter().map(|id| *id as u32).collect()
}

/// Returns the largest difference.
pub(crate) fn difference(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    actual.iter().zip(expected).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Logits of rows of one width, row by row.
fn logits(model: &LlamaForCausalLM, rows: &[Vec<i64>]) -> Vec<f32> {
    let flat: Vec<u32> = rows.iter().flat_map(|row| ids(row)).collect();
    let hidden = model.hidden(crate::tensor::indices::token_ids(&flat, &tested_device()), rows.len());
    numbers(hidden.matmul(model.head().get().transpose()))
}

/// The largest difference of logits where the mask says that there is a token.
fn masked_difference(actual: &[f32], expected: &[f32], mask: &[Vec<i64>]) -> f32 {
    let places = mask.concat();
    let width = expected.len() / places.len();
    let rows = actual.chunks(width).zip(expected.chunks(width)).zip(places);
    rows.filter(|(_, seen)| *seen == 1)
        .map(|((actual, expected), _)| difference(actual, expected))
        .fold(0.0, f32::max)
}

#[test]
fn llama_logits() {
    let (model, tensors) = (model("llama"), GoldenTensors::open("llama/expected.safetensors"));
    let actual = logits(&model, &tensors.rows("input_ids"));
    let off = masked_difference(&actual, &tensors.floats("logits"), &tensors.rows("attention_mask"));
    assert!(off < 8e-6, "{off}");
    let actual = logits(&model, &tensors.rows("long_input_ids"));
    let expected = tensors.floats("long_logits_last16");
    let off = difference(&actual[actual.len() - expected.len()..], &expected);
    assert!(off < 8e-6, "{off}");
}

#[test]
fn llama3_rope_logits() {
    let (model, tensors) = (model("llama3rope"), GoldenTensors::open("llama3rope/expected.safetensors"));
    let names: Vec<String> =
        SafeTensors::deserialize(&tensors.0).unwrap().names().iter().map(|name| (*name).to_owned()).collect();
    let frequencies: Vec<f32> =
        model.config.rope.frequencies(model.config.head_size).iter().map(|f| *f as f32).collect();
    assert!(difference(&frequencies, &tensors.floats("inv_freq")) < 1e-7, "{names:?}");
    let actual = logits(&model, &tensors.rows("input_ids"));
    let off = masked_difference(&actual, &tensors.floats("logits"), &tensors.rows("attention_mask"));
    assert!(off < 1e-5, "{off}");
}

/// The pairs of the objectives' reference, each its prompt and both outputs.
fn pairs(tensors: &GoldenTensors) -> Vec<(Sequence, Sequence)> {
    let tokens = tensors.rows("pref.input_ids");
    let (masks, outputs) = (tensors.rows("pref.attention_mask"), tensors.rows("pref.completion_mask"));
    let sequence = |row: usize| {
        let all = masks[row].iter().sum::<i64>() as usize;
        let prompt = all - outputs[row].iter().sum::<i64>() as usize;
        let tokens = ids(&tokens[row][..all]);
        Sequence::new(&tokens[..prompt], &tokens[prompt..], LONG).unwrap().0
    };
    let half = tokens.len() / 2;
    (0..half).map(|row| (sequence(row), sequence(row + half))).collect()
}

/// Compares an objective's loss and gradients on outputs with the reference's.
fn compare_objective(
    name: &str,
    text: &str,
    model: &mut Network,
    sequences: &[&Sequence],
    micro_batch: &MicroBatch,
    outputs: &dyn Fn(&[Logp]) -> Vec<Outputs>,
) {
    let (tensors, expected) =
        (GoldenTensors::open("objectives/expected.safetensors"), expected("objectives"));
    let objective: Objective = serde_json::from_str(text).unwrap();
    let mut shares = Vec::new();
    let gradients = gradients::gradients(
        model,
        &Packed::new(sequences),
        None,
        Activations::Kept,
        &tested_device(),
        |logps| {
            let outputs = outputs(logps);
            shares = outputs.iter().map(|outputs| objective.share(outputs, micro_batch)).collect();
            let logp_gradients = shares.iter().zip(&outputs).flat_map(|(share, outputs)| {
                std::iter::once(share.chosen_gradient)
                    .chain(outputs.rejected.map(|_| share.rejected_gradient))
            });
            logp_gradients.collect()
        },
    );
    let loss: f64 = shares.iter().map(|share| share.loss).sum();
    let wanted = expected[name]["loss"].as_f64().unwrap();
    assert!((loss - wanted).abs() < 1e-5 * wanted.max(1.0), "{name}: {loss} {wanted}");
    let all: Vec<Tensor<1>> = gradients.iter().flatten().cloned().collect();
    let norm = crate::train::adamw::global_norm(&all);
    let wanted = expected[name]["grad_norm"].as_f64().unwrap();
    assert!((norm - wanted).abs() < 1e-5 * wanted.max(1.0), "{name}: {norm} {wanted}");
    for (reward, which) in [("rewards/chosen", 0), ("rewards/rejected", 1)] {
        let Some(wanted) = expected[name]["metrics"][reward].as_f64() else { continue };
        let of = shares.iter().filter_map(|share| [share.chosen_reward, share.rejected_reward][which]);
        let of: Vec<f64> = of.collect();
        let actual = of.iter().sum::<f64>() / of.len() as f64;
        assert!((actual - wanted).abs() < 1e-5, "{name}, {reward}: {actual} {wanted}");
    }
    let short = if name.starts_with("sft") { "sft" } else { name };
    for (parameter, gradient) in model.names().iter().zip(&gradients) {
        let key = format!("grad.{short}.{parameter}");
        if SafeTensors::deserialize(&tensors.0).unwrap().tensor(&key).is_ok() {
            let off = difference(&numbers(gradient.clone().unwrap()), &tensors.floats(&key));
            assert!(off < 1e-5, "{key}: {off}");
        }
    }
}

#[test]
fn objectives_of_pairs_and_their_gradients() {
    let (mut model, reference) = (network("objectives/policy"), network("objectives/ref"));
    let (tensors, device) = (GoldenTensors::open("objectives/expected.safetensors"), tested_device());
    let (wanted, pairs) = (expected("objectives"), pairs(&tensors));
    let sequences: Vec<&Sequence> = pairs.iter().flat_map(|(chosen, rejected)| [chosen, rejected]).collect();
    let packed = Packed::new(&sequences);
    for (model, name) in [(&model, "policy"), (&reference, "ref")] {
        let logps = gradients::logps(model, &packed, &device);
        for (output, begin) in [("chosen", 0), ("rejected", 1)] {
            let of: Vec<f64> =
                serde_json::from_value(wanted["logps"][format!("{name}_{output}")].clone()).unwrap();
            for (actual, expected) in logps.iter().skip(begin).step_by(2).zip(of) {
                assert!((actual.sum - expected).abs() < 1e-5, "{name} {actual:?} {expected}");
            }
        }
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let by_reference = gradients::all_logps(&reference, &sequences, &device, &pool);
    let cases = [
        (r#"{"dpo": {"beta": 0.1}}"#, "dpo_b0.1"),
        (r#"{"dpo": {"beta": 0.5}}"#, "dpo_b0.5"),
        (r#"{"dpo": {"alpha": 1.0}}"#, "dpo_sigmoid_plus_sft"),
        (r#"{"ipo": {}}"#, "dpo_ipo_b0.1"),
        (r#"{"robust_dpo": {"label_smoothing": 0.1}}"#, "dpo_robust_b0.1_ls0.1"),
        (r#"{"cpo": {"beta": 0.1}}"#, "cpo_b0.1_a1"),
        (r#"{"cpo": {"beta": 0.1, "alpha": 0.0}}"#, "cpo_b0.1_a0"),
        (r#"{"cpo": {"beta": 0.1, "label_smoothing": 0.1}}"#, "cpo_b0.1_a1_ls0.1"),
        (r#"{"simpo": {}}"#, "cpo_simpo"),
        (r#"{"hinge": {}}"#, "cpo_hinge"),
        (r#"{"sft": {}}"#, "sft_chosen_completion_only"),
    ];
    let micro_batch = MicroBatch {
        examples: pairs.len(),
        target_tokens: pairs.iter().map(|(chosen, _)| chosen.output_tokens()).sum(),
        divergence: 0.0,
    };
    for (text, name) in cases {
        compare_objective(name, text, &mut model, &sequences, &micro_batch, &|logps| {
            let with = |place: usize| Logp { reference: Some(by_reference[place].sum), ..logps[place] };
            let pair = |place: usize| Outputs {
                chosen: with(2 * place),
                rejected: Some(with(2 * place + 1)),
                desirable: None,
            };
            (0..pairs.len()).map(pair).collect()
        });
    }
}

#[test]
fn objectives_of_labels_and_their_gradients() {
    let (tensors, wanted, device) =
        (GoldenTensors::open("objectives/expected.safetensors"), expected("objectives"), tested_device());
    let sequences = |ids_name: &str, mask_name: &str, output_name: &str| -> Vec<Sequence> {
        let (tokens, masks, outputs) =
            (tensors.rows(ids_name), tensors.rows(mask_name), tensors.rows(output_name));
        let of = |row: usize| {
            let all = masks[row].iter().sum::<i64>() as usize;
            let prompt = all - outputs[row].iter().sum::<i64>() as usize;
            let tokens = ids(&tokens[row][..all]);
            Sequence::new(&tokens[..prompt], &tokens[prompt..], LONG).unwrap().0
        };
        (0..tokens.len()).map(of).collect()
    };
    let rows = sequences("kto.input_ids", "kto.attention_mask", "kto.completion_mask");
    let mismatched = sequences("kto.KL_input_ids", "kto.KL_attention_mask", "kto.KL_completion_mask");
    // The reference's mismatched rows are ours: each prompt with the output of the row before.
    for (place, mismatched) in mismatched.iter().enumerate() {
        let ours = rows[place].with_output_of(&rows[(place + rows.len() - 1) % rows.len()], LONG);
        assert_eq!(ours.as_ref(), Some(mismatched), "{place}");
    }
    let labels = SafeTensors::deserialize(&tensors.0).unwrap().tensor("kto.label").unwrap().data().to_vec();
    let labels: Vec<bool> = labels.chunks_exact(8).map(|bytes| bytes[0] == 1).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (rows, mismatched): (Vec<&Sequence>, Vec<&Sequence>) =
        (rows.iter().collect(), mismatched.iter().collect());
    let cases = [
        (r#"{"kto": {"beta": 0.1}}"#, "kto_b0.1", ["policy", "ref"]),
        (r#"{"kto": {"undesirable_weight": 1.5}}"#, "kto_b0.1_w", ["policy", "ref"]),
        (r#"{"kto": {}}"#, "kto_b0.1_swapped_policy_ref", ["ref", "policy"]),
        (r#"{"apo_zero_unpaired": {}}"#, "kto_apo_zero_unpaired", ["policy", "ref"]),
    ];
    for (text, name, [policy, reference]) in cases {
        let mut policy = network(&format!("objectives/{policy}"));
        let reference = network(&format!("objectives/{reference}"));
        let all = |model: &Network, of: &[&Sequence]| -> Vec<f64> {
            gradients::all_logps(model, of, &device, &pool).iter().map(|logp| logp.sum).collect()
        };
        let by_reference = all(&reference, &rows);
        let divergence =
            all(&policy, &mismatched).iter().sum::<f64>() - all(&reference, &mismatched).iter().sum::<f64>();
        let objective: Objective = serde_json::from_str(text).unwrap();
        assert_eq!(objective.feed(), Feed::Labelled);
        let divergence =
            if objective.needs_divergence() { (divergence / rows.len() as f64).max(0.0) } else { 0.0 };
        let z = wanted[name]["z_ref"].as_f64().unwrap();
        assert!((divergence - z).abs() < 1e-5, "{name}: {divergence} {z}");
        let micro_batch = MicroBatch { examples: rows.len(), target_tokens: 1, divergence };
        compare_objective(name, text, &mut policy, &rows, &micro_batch, &|logps| {
            let output = |place: usize| Outputs {
                chosen: Logp { reference: Some(by_reference[place]), ..logps[place] },
                rejected: None,
                desirable: Some(labels[place]),
            };
            (0..rows.len()).map(output).collect()
        });
    }
}

#[test]
fn recomputed_activations_change_no_bit() {
    let tensors = GoldenTensors::open("objectives/expected.safetensors");
    let pairs = pairs(&tensors);
    let sequences: Vec<Sequence> =
        pairs.into_iter().flat_map(|(chosen, rejected)| [chosen, rejected]).collect();
    compare_recomputed("objectives/policy", network("objectives/policy"), &sequences, None);
}

/// Compares the gradients of a network that keeps everything with those of one that recomputes
/// its layers.
fn compare_recomputed(name: &str, mut model: Network, sequences: &[Sequence], dropout: Option<Dropout>) {
    let sequences: Vec<&Sequence> = sequences.iter().collect();
    let mut gradients = |activations: Activations| -> Vec<(String, Vec<f32>)> {
        let packed = Packed::new(&sequences);
        let actual = gradients::gradients(&model, &packed, dropout, activations, &tested_device(), |logps| {
            logps.iter().map(|logp| 0.01 * logp.sum).collect()
        });
        let actual = actual.into_iter().map(|gradient| numbers(gradient.unwrap()));
        model.names().into_iter().zip(actual).collect()
    };
    let (kept, recomputed) = (gradients(Activations::Kept), gradients(Activations::Recomputed));
    for ((parameter, kept), (_, recomputed)) in kept.iter().zip(&recomputed) {
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        let largest = kept.iter().fold(0.0, |largest: f32, number| largest.max(number.abs()));
        // GPUs add what one embedding gets from several places in an order of their own.
        let is_same = if is_cpu(&tested_device()) {
            bits(kept) == bits(recomputed)
        } else {
            difference(kept, recomputed) < 1e-6 * largest
        };
        assert!(is_same && largest > 0.0, "{name}: {parameter}");
    }
}

#[test]
fn products_with_packed_weights() {
    use crate::tensor::layers::{Linear, Packed as PackedMatrix, Weight};
    use crate::tensor::nf4::{Nf4, Scales};
    use std::sync::Arc;

    let (tensors, device) = (GoldenTensors::open("nf4/expected.safetensors"), tested_device());
    let weight =
        Tensor::<1>::from_floats(tensors.floats("w0.weight").as_slice(), &device).reshape([160, 128]);
    let mut linear = Linear::new(weight);
    linear.weight.pack(true, &device);
    let Weight::Packed(packed) = &linear.weight else { panic!("it is packed") };
    assert!(packed.host.bytes() < 160 * 128 * 5 / 8);
    // The reference's own codes of the scales, which are not always the nearest.
    let codes = SafeTensors::deserialize(&tensors.0).unwrap();
    let codes = codes.tensor("w0.dq.absmax_u8").unwrap().data().to_vec();
    let nested = tensors.floats("w0.dq.nested_absmax");
    let scales = Scales::Double { codes, nested, offset: tensors.floats("w0.dq.offset")[0] };
    linear.weight =
        Weight::Packed(Arc::new(PackedMatrix::new(Nf4 { scales, ..packed.host.clone() }, &device)));
    let x = Tensor::<1>::from_floats(tensors.floats("w0.x").as_slice(), &device).reshape([5, 128]);
    let off = difference(&numbers(linear.forward(x)), &tensors.floats("w0.y_matmul_dequant"));
    assert!(off < 1e-5, "{off}");
}

#[test]
fn lora_logits_gradients_and_merged_weights() {
    let mut model = model("llama");
    let (tensors, adapters) = (
        GoldenTensors::open("lora/expected.safetensors"),
        GoldenTensors::open("lora/adapter_model.safetensors"),
    );
    model.visit(&mut |_, mut parameter| parameter.set_requires_grad(false));
    let device = tested_device();
    for (place, layer) in model.layers.iter_mut().enumerate() {
        for (path, linear) in layer.linears() {
            let shape = linear.weight.shape();
            let mut adapter = crate::tensor::low_rank::Adapter::new(8, 16.0, shape, 0, 0, &device);
            let name = format!("base_model.model.model.layers.{place}.{path}");
            let take = |part: &str| adapters.floats(&format!("{name}.{part}.weight"));
            adapter.a.value =
                Tensor::<1>::from_floats(take("lora_A").as_slice(), &device).reshape(adapter.a.value.dims());
            adapter.b.value =
                Tensor::<1>::from_floats(take("lora_B").as_slice(), &device).reshape(adapter.b.value.dims());
            linear.adapter = Some(adapter);
        }
    }
    let (rows, mask) = (tensors.rows("input_ids"), tensors.rows("attention_mask"));
    let off = masked_difference(&logits(&model, &rows), &tensors.floats("logits_adapter"), &mask);
    assert!(off < 2e-5, "{off}");
    // The reference's loss is the mean over all tokens but the first of each row.
    let sequences: Vec<Sequence> = rows
        .iter()
        .zip(&mask)
        .map(|(row, mask)| {
            let all = mask.iter().sum::<i64>() as usize;
            Sequence::new(&ids(&row[..1]), &ids(&row[1..all]), LONG).unwrap().0
        })
        .collect();
    let sequences: Vec<&Sequence> = sequences.iter().collect();
    let tokens: usize = sequences.iter().map(|sequence| sequence.output_tokens()).sum();
    let mut loss = 0.0;
    let whole = Network::from(model.clone());
    let gradients =
        gradients::gradients(&whole, &Packed::new(&sequences), None, Activations::Kept, &device, |logps| {
            loss = -logps.iter().map(|logp| logp.sum).sum::<f64>() / tokens as f64;
            vec![-1.0 / tokens as f64; logps.len()]
        });
    assert!((loss - expected("lora")["loss"].as_f64().unwrap()).abs() < 1e-5, "{loss}");
    let mut compared = 0;
    for (name, gradient) in model.names().iter().zip(&gradients) {
        assert_eq!(gradient.is_some(), name.contains(".lora_"), "{name}");
        let key = format!(
            "grad.base_model.model.{}",
            name.replace("_A.weight", "_A.default.weight").replace("_B.weight", "_B.default.weight")
        );
        if SafeTensors::deserialize(&tensors.0).unwrap().tensor(&key).is_ok() {
            let off = difference(&numbers(gradient.clone().unwrap()), &tensors.floats(&key));
            assert!(off < 1e-5, "{key}: {off}");
            compared += 1;
        }
    }
    assert_eq!(compared, 4);
    for (place, path) in [(0, "mlp.up_proj"), (0, "self_attn.k_proj"), (1, "self_attn.q_proj")] {
        let linears = model.layers[place].linears();
        let (_, linear) = linears.into_iter().find(|(name, _)| *name == path).unwrap();
        let merged = numbers(linear.weight.get(&device) + linear.adapter.as_ref().unwrap().delta());
        let off = difference(&merged, &tensors.floats(&format!("merged.model.layers.{place}.{path}.weight")));
        assert!(off < 1e-6, "{path}: {off}");
    }
}

/// Fifty steps of AdamW with warm-up, cosine, clipping and accumulation, on a small network.
#[test]
fn the_optimisers_trajectory() {
    use crate::train::adamw::{AdamW, Moments, Update, clip_coefficient, global_norm, step};
    use burn_tensor::activation::{log_softmax, tanh};

    let (tensors, expected) = (GoldenTensors::open("optim/expected.safetensors"), expected("optim"));
    let device = tested_device();
    let (x, y) = (tensors.floats("x"), tensors.rows("y"));
    let names = ["w1", "b1", "w2", "b2"];
    let shapes = [[16, 12], [1, 16], [5, 16], [1, 5]];
    let flat = |numbers: Vec<f32>| Tensor::<1>::from_floats(numbers.as_slice(), &device);
    let mut weights: Vec<Tensor<1>> =
        names.iter().map(|name| flat(tensors.floats(&format!("init.{name}")))).collect();
    let mut moments: Vec<Moments> = weights
        .iter()
        .map(|weights| Moments { first_moment: weights.zeros_like(), second_moment: weights.zeros_like() })
        .collect();
    let adam = AdamW { weight_decay: 0.01, ..AdamW::default() };
    let rate =
        crate::LearningRate { peak: 0.01, warmup_steps: 5, steps: 50, schedule: crate::Schedule::Cosine };
    for number in 0..50 {
        let (mut loss, mut sum): (f64, Option<Vec<Tensor<1>>>) = (0.0, None);
        for micro in 0..4 {
            let place = number * 4 + micro;
            let x = flat(x[place * 72..(place + 1) * 72].to_vec()).reshape([6, 12]).autodiff();
            let targets =
                crate::tensor::indices::token_ids(&ids(&y[place]), &device).reshape([6, 1]).autodiff();
            let leaves: Vec<Tensor<2>> = weights
                .iter()
                .zip(shapes)
                .map(|(weights, shape)| weights.clone().reshape(shape).autodiff().require_grad())
                .collect();
            let hidden = tanh(x.matmul(leaves[0].clone().transpose()) + leaves[1].clone());
            let logits = hidden.matmul(leaves[2].clone().transpose()) + leaves[3].clone();
            let micro_loss = log_softmax(logits, 1).gather(1, targets).mean().neg().div_scalar(4.0);
            loss += f64::from(micro_loss.clone().into_scalar::<f32>());
            let mut actual = micro_loss.backward();
            let actual = leaves.iter().map(|leaf| leaf.grad_remove(&mut actual).unwrap().flatten(0, 1));
            sum = Some(match sum {
                None => actual.collect(),
                Some(sum) => sum.into_iter().zip(actual).map(|(sum, actual)| sum + actual).collect(),
            });
        }
        let gradients = sum.unwrap();
        let norm = global_norm(&gradients);
        let wanted = &expected["trajectory"][number];
        assert!((loss - wanted["loss"].as_f64().unwrap()).abs() < 1e-5, "step {number}: {loss} {wanted}");
        let wanted = wanted["grad_norm_before_clip"].as_f64().unwrap();
        assert!((norm - wanted).abs() < 1e-5, "step {number}: {norm} {wanted}");
        let clip = clip_coefficient(norm, 0.3);
        let updates =
            gradients.into_iter().zip(&weights).zip(&moments).map(|((gradient, weights), moments)| Update {
                weights: weights.clone(),
                gradient,
                moments: moments.clone(),
                decays: true,
            });
        (weights, moments) =
            step(&adam, rate.at(number), clip, number + 1, updates.collect()).into_iter().unzip();
        for (name, weights) in names.iter().zip(&weights) {
            if number == 0 || number == 9 {
                let wanted = tensors.floats(&format!("after_step{number}.{name}"));
                let off = difference(&numbers(weights.clone()), &wanted);
                assert!(off < 1e-6, "step {number}, {name}: {off}");
            }
        }
    }
    for (name, weights) in names.iter().zip(&weights) {
        let off = difference(&numbers(weights.clone()), &tensors.floats(&format!("final.{name}")));
        assert!(off < 2e-6, "{name}: {off}");
    }
    for (name, actual) in [("exp_avg", &moments[0].first_moment), ("exp_avg_sq", &moments[0].second_moment)] {
        let off = difference(&numbers(actual.clone()), &tensors.floats(&format!("final.{name}.w1")));
        assert!(off < 1e-6, "{name}: {off}");
    }
}
