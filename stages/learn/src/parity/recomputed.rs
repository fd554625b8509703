//! Gradients of layers that are recomputed are those of layers that are kept, whatever
//! their number: from three on, the order in which a shared tensor's gradients are added matters.

use tempfile::TempDir;
use weights::{Dtype, ModelFolder};

use super::compare_recomputed;
use crate::model::{open_network, write_random};
use crate::models::Architecture;
use crate::network::Network;
use crate::tensor::device::tested_device;
use crate::tensor::layers::Storage;
use crate::tensor::low_rank::Dropout;
use crate::text::sequence::{Sequence, TokenLimit};

const VOCABULARY: usize = 40;

fn drawn(architecture: &str) -> Network {
    let architecture: Architecture = serde_json::from_str(architecture).unwrap();
    let folder = TempDir::new().unwrap();
    write_random(&architecture.config(VOCABULARY), Dtype::F32, 1 << 30, folder.path()).unwrap();
    open_network(&ModelFolder::open(folder.path()).unwrap(), Storage::Dense, &tested_device()).unwrap()
}

/// Prompts and outputs of several lengths, so that there is filling.
fn sequences() -> Vec<Sequence> {
    let tokens = |seed: u32, count: u32| -> Vec<u32> {
        (0..count)
            .map(|place| (seed * 17 + place * place * 7 + place * 3) % (VOCABULARY as u32 - 3) + 3)
            .collect()
    };
    let lengths = [(7, 4), (3, 9), (12, 6)];
    let of = |(seed, (prompt, output)): (u32, (u32, u32))| {
        Sequence::new(&tokens(seed, prompt), &tokens(seed + 50, output), TokenLimit::Each(64)).unwrap().0
    };
    (1..).zip(lengths).map(of).collect()
}

const DROPOUT: Dropout = Dropout { probability: 0.1, seed: 7, stream: 1 << 40 };

#[test]
fn any_number_of_layers_of_llama() {
    for layers in [1, 2, 3, 4, 6] {
        for is_tied in [false, true] {
            let name = format!("{layers} layers of LLaMA, tied: {is_tied}");
            let network = drawn(&format!(
                r#"{{"llama": {{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": {layers},
                    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
                    "tie_word_embeddings": {is_tied}}}}}"#
            ));
            compare_recomputed(&name, network, &sequences(), None);
        }
    }
}

#[test]
fn any_number_of_layers_of_t5() {
    for (layers, decoder_layers) in [(1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (2, 5), (5, 3)] {
        for (projection, is_tied) in [("relu", true), ("gated-gelu", false)] {
            let name = format!("{layers} and {decoder_layers} layers of T5, {projection}");
            let network = drawn(&format!(
                r#"{{"t5": {{"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": {layers},
                    "num_decoder_layers": {decoder_layers}, "num_heads": 2,
                    "feed_forward_proj": "{projection}", "tie_word_embeddings": {is_tied}}}}}"#
            ));
            for dropout in [None, Some(DROPOUT)] {
                compare_recomputed(&name, network.clone(), &sequences(), dropout);
            }
            // One text, so that nothing is filled up.
            compare_recomputed(&name, network, &sequences()[..1], None);
        }
    }
}
