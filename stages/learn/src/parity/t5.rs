//! T5, computed again: version 1.0 and version 1.1.

use weights::ModelFolder;

use super::{GoldenTensors, difference, expected, golden, masked_difference, network, numbers};
use crate::models::t5::{T5Config, T5ForConditionalGeneration};
use crate::network::FolderTensors;
use crate::tensor::device::tested_device;
use crate::tensor::layers::Storage;
use crate::tensor::low_rank::Dropout;
use crate::tensor::parameters::Parameters as _;
use crate::text::batches::Packed;
use crate::text::sequence::{Sequence, TokenLimit};
use crate::train::gradients::{self, Activations};

pub(super) fn t5(name: &str) -> T5ForConditionalGeneration {
    let (folder, device) = (ModelFolder::open(golden(name)).unwrap(), tested_device());
    let config = T5Config::read(folder.config()).unwrap();
    let mut tensors = FolderTensors::new(&folder, Storage::Dense, &device);
    T5ForConditionalGeneration::open(config, &mut tensors).unwrap()
}

fn rows(tensors: &GoldenTensors, name: &str) -> Vec<Vec<u32>> {
    tensors.rows(name).iter().map(|row| super::ids(row)).collect()
}

/// The inputs without their filling.
fn inputs(tensors: &GoldenTensors) -> Vec<Vec<u32>> {
    let lengths = tensors.rows("attention_mask").into_iter().map(|mask| mask.iter().sum::<i64>() as usize);
    rows(tensors, "input_ids").into_iter().zip(lengths).map(|(row, length)| row[..length].to_vec()).collect()
}

/// The inputs, each with its labels.
fn sequences(tensors: &GoldenTensors) -> Vec<Sequence> {
    let labels = tensors.rows("labels").into_iter();
    let labels = labels.map(|row| row.into_iter().filter(|id| *id >= 0).collect::<Vec<_>>());
    let pairs = inputs(tensors).into_iter().zip(labels);
    let sequence = |(input, labels): (Vec<u32>, Vec<i64>)| {
        Sequence::new(&input, &super::ids(&labels), TokenLimit::Each(100)).unwrap().0
    };
    pairs.map(sequence).collect()
}

#[test]
fn encoder_states_and_decoder_logits() {
    for name in ["t5_v10", "t5_v11"] {
        let (model, tensors) = (t5(name), GoldenTensors::open(&format!("{name}/expected.safetensors")));
        let inputs = inputs(&tensors);
        let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
        let (states, logits) = model.states_and_logits(&inputs, &rows(&tensors, "decoder_input_ids"));
        let mask = tensors.rows("attention_mask");
        let off = masked_difference(&numbers(states), &tensors.floats("encoder_last_hidden_state"), &mask);
        assert!(off < 1e-5, "{name}: {off}");
        let off = difference(&numbers(logits), &tensors.floats("logits"));
        assert!(off < 1.5e-5, "{name}: {off}");
    }
}

/// No two sizes alike, fewer layers in the encoder, another token to begin with.
#[test]
fn states_and_logits_of_other_shapes() {
    let (model, tensors) = (t5("t5_other"), GoldenTensors::open("t5_other/expected.safetensors"));
    let inputs = rows(&tensors, "input_ids");
    let (states, logits) = model.states_and_logits(&[&inputs[0]], &rows(&tensors, "decoder_input_ids"));
    let off = difference(&numbers(states), &tensors.floats("encoder_last_hidden_state"));
    assert!(off < 1e-5, "{off}");
    let off = difference(&numbers(logits), &tensors.floats("logits"));
    // The reference itself is 5.2e-5 from what it computes in double precision, and this 4.2e-5.
    assert!(off < 6e-5, "{off}");
}

#[test]
fn the_loss_of_labels() {
    for name in ["t5_v10", "t5_v11"] {
        let (network, tensors) =
            (network(name), GoldenTensors::open(&format!("{name}/expected.safetensors")));
        let sequences = sequences(&tensors);
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        let logps = gradients::logps(&network, &Packed::new(&sequences), &tested_device());
        let tokens: usize = logps.iter().map(|logp| logp.tokens).sum();
        let loss = -logps.iter().map(|logp| logp.sum).sum::<f64>() / tokens as f64;
        let wanted = expected(name)["loss_mean_over_labels"].as_f64().unwrap();
        assert!((loss - wanted).abs() < 1e-5, "{name}: {loss} {wanted}");
    }
}

#[test]
fn names_are_those_of_the_file() {
    for name in ["t5_v10", "t5_v11"] {
        let mut names = network(name).names();
        names.sort();
        let bytes = std::fs::read(super::golden(&format!("{name}/model.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut written: Vec<String> = file.names().iter().map(|name| (*name).to_owned()).collect();
        written.sort();
        assert_eq!(names, written, "{name}");
    }
}

#[test]
fn recomputed_layers_change_no_bit() {
    let dropout = Dropout { probability: 0.1, seed: 7, stream: 1 << 40 };
    for name in ["t5_v10", "t5_v11"] {
        let sequences = sequences(&GoldenTensors::open(&format!("{name}/expected.safetensors")));
        super::compare_recomputed(name, network(name), &sequences, None);
        super::compare_recomputed(name, network(name), &sequences, Some(dropout));
    }
}

#[test]
fn gradients_of_the_loss() {
    let mut compared = 0;
    for name in ["t5_v10", "t5_v11"] {
        let (mut network, tensors) =
            (network(name), GoldenTensors::open(&format!("{name}/expected.safetensors")));
        let wanted = GoldenTensors::open(&format!("{name}/gradients.safetensors"));
        let sequences = sequences(&tensors);
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        let tokens: usize = sequences.iter().map(|sequence| sequence.output_tokens()).sum();
        let packed = Packed::new(&sequences);
        let gradients =
            gradients::gradients(&network, &packed, None, Activations::Kept, &tested_device(), |logps| {
                vec![-1.0 / tokens as f64; logps.len()]
            });
        for (parameter, gradient) in network.names().iter().zip(gradients) {
            let gradient = numbers(gradient.unwrap_or_else(|| panic!("{name}: {parameter} has no gradient")));
            if safetensors::SafeTensors::deserialize(&wanted.0).unwrap().tensor(parameter).is_ok() {
                let expected = wanted.floats(parameter);
                let off = difference(&gradient, &expected);
                let largest = expected.iter().fold(0.0f32, |most, number| most.max(number.abs()));
                assert!(off < 1e-5 * largest.max(1.0), "{name}: {parameter}: {off} of {largest}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 25);
}
