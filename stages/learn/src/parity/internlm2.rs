//! InternLM2, computed again: the reference's logits are LLaMA's with the unpacked weights.

use burn_tensor::Device;

use super::{GoldenTensors, difference, logits, model, network};
use crate::models::llama::{LlamaConfig, LlamaForCausalLM, RopeScaling, TensorNaming};
use crate::network::{TensorError, WeightSource};
use crate::tensor::device::tested_device;
use crate::tensor::parameters::Parameters as _;
use crate::tensor::random::{Purpose, Random};

#[test]
fn logits_of_packed_weights() {
    let (model, tensors) = (model("internlm2"), GoldenTensors::open("internlm2/expected.safetensors"));
    let off = difference(&logits(&model, &tensors.rows("input_ids")), &tensors.floats("logits"));
    assert!(off < 8e-6, "{off}");
}

#[test]
fn names_are_those_of_the_file() {
    let mut names = network("internlm2").names();
    names.sort();
    let bytes = std::fs::read(super::golden("internlm2/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut written: Vec<String> = file.names().iter().map(|name| (*name).to_owned()).collect();
    written.sort();
    assert_eq!(names, written);
}

/// The reference has no biases. A LLaMA with them, packed, computes what it did.
#[test]
fn biases_are_packed_like_weights() {
    let device = tested_device();
    let sizes = serde_json::json!({
        "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "bias": true,
        "rope_scaling": { "type": "dynamic", "factor": 2.0 },
    });
    let sizes = sizes.as_object().unwrap();
    let packed_sizes = crate::models::internlm2::read(sizes).unwrap();
    assert!(packed_sizes.attention_bias && packed_sizes.rope.scaling == RopeScaling::None);
    let plain = LlamaConfig { naming: TensorNaming::Llama, ..packed_sizes.clone() };
    let mut random = Random::new(3, Purpose::Weights, 9);
    let mut whole = std::collections::BTreeMap::new();
    let mut draw = |name: &str, count: usize| {
        let numbers = random.normal(count, 0.4);
        whole.insert(name.to_owned(), numbers.clone());
        numbers
    };
    let unpacked = LlamaForCausalLM::build(plain, &mut Named(&mut draw, &device)).unwrap();
    // For each key-value head its two query heads, then its key, then its value.
    let (head, group) = (4, 2);
    let mut pack = |name: &str, count: usize| {
        let Some((path, part)) = name.split_once("attention.wqkv.") else {
            let renamed = name
                .replace("tok_embeddings", "embed_tokens")
                .replace("attention.wo", "self_attn.o_proj")
                .replace("attention_norm", "input_layernorm")
                .replace("ffn_norm", "post_attention_layernorm")
                .replace("feed_forward.w1", "mlp.gate_proj")
                .replace("feed_forward.w2", "mlp.down_proj")
                .replace("feed_forward.w3", "mlp.up_proj");
            return whole[if name == "output.weight" { "lm_head.weight" } else { &renamed }].clone();
        };
        let of = |which: &str| &whole[&format!("{path}self_attn.{which}_proj.{part}")];
        let rows = |from: &[f32], first: usize, count: usize, width: usize| {
            from[first * head * width..(first + count) * head * width].to_vec()
        };
        let width = count / (head * 3 * (group + 2));
        let packed = (0..3).flat_map(|key| {
            let parts = [
                rows(of("q"), key * group, group, width),
                rows(of("k"), key, 1, width),
                rows(of("v"), key, 1, width),
            ];
            parts.concat()
        });
        packed.collect()
    };
    let packed = LlamaForCausalLM::build(packed_sizes, &mut Named(&mut pack, &device)).unwrap();
    let rows = [(0..17).collect::<Vec<i64>>()];
    let off = difference(&logits(&packed, &rows), &logits(&unpacked, &rows));
    assert!(off < 1e-5, "{off}");
}

/// Takes parameters from a function of name and count.
struct Named<'a>(&'a mut dyn FnMut(&str, usize) -> Vec<f32>, &'a Device);

impl WeightSource for Named<'_> {
    fn device(&self) -> &Device {
        self.1
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        Ok((self.0)(name, shape.iter().product()))
    }
}
