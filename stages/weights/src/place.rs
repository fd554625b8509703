//! Where in a model a tensor stands, told by its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Queries, keys, values and outputs of attention.
    Attention,
    /// The feed-forward layers.
    Mlp,
    /// Normalisations, wherever they are.
    Norms,
    /// Token embeddings, and the head that turns hidden states into tokens.
    Embeddings,
}

/// Where in a model a tensor stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The tensor's name.
    pub name: String,
    /// How deep its layer is: 0 for the first one, 1 for the last, and 0 outside of the layers.
    /// The only layer of a stack is the last one.
    pub depth: f64,
    /// The number of its layer, if it is in one.
    pub layer: Option<u64>,
    /// What kind of tensor it is, if it is one of the kinds.
    pub group: Option<Group>,
}

impl Place {
    /// Reads the place off a name, in a stack of so many layers.
    pub fn of(name: &str, layers: u64) -> Self {
        let layer = layer(name).map(|(_, number)| number);
        let depth = match layer {
            None => 0.0,
            Some(_) if layers <= 1 => 1.0,
            Some(layer) => layer as f64 / (layers - 1) as f64,
        };
        Self { name: name.to_owned(), depth, layer, group: group(name) }
    }
}

/// Returns what stands before the number of the layer in a name, and the number.
///
/// An encoder and a decoder have a stack each.
pub(crate) fn layer(name: &str) -> Option<(&str, u64)> {
    for list in [".layers.", ".layer.", ".h.", ".block.", ".blocks."] {
        // The first one: T5 has lists of sublayers inside of a block.
        for (at, _) in name.match_indices(list) {
            let number = name[at + list.len()..].split('.').next().unwrap_or_default();
            if let Ok(number) = number.parse() {
                let is_sublayer = list == ".layer." && name[..at].contains(".block.");
                if !is_sublayer {
                    return Some((&name[..at], number));
                }
            }
        }
    }
    None
}

fn group(name: &str) -> Option<Group> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    // A norm belongs to the norms wherever it stands, such as `self_attn.q_norm`.
    if has(&["norm", "ln_", "LayerNorm"]) {
        Some(Group::Norms)
    } else if has(&["embed", "lm_head", "wte", "shared.weight", "tok_embeddings", "output.weight"])
        && layer(name).is_none()
    {
        Some(Group::Embeddings)
    } else if has(&["attn", "attention", "Attention"]) {
        Some(Group::Attention)
    } else if has(&["mlp", "feed_forward", "DenseReluDense", "intermediate", "ffn"])
        || (layer(name).is_some() && name.contains(".output.dense"))
    {
        Some(Group::Mlp)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_layers_and_groups() {
        use Group::{Attention, Embeddings, Mlp, Norms};
        for (name, layer_number, expected) in [
            ("model.embed_tokens.weight", None, Some(Embeddings)),
            ("lm_head.weight", None, Some(Embeddings)),
            ("model.norm.weight", None, Some(Norms)),
            ("model.layers.3.self_attn.q_proj.weight", Some(3), Some(Attention)),
            ("model.layers.3.self_attn.q_norm.weight", Some(3), Some(Norms)),
            ("model.layers.11.mlp.down_proj.weight", Some(11), Some(Mlp)),
            ("model.layers.0.input_layernorm.weight", Some(0), Some(Norms)),
            ("model.layers.2.attention.wqkv.weight", Some(2), Some(Attention)),
            ("model.layers.2.feed_forward.w1.weight", Some(2), Some(Mlp)),
            ("model.tok_embeddings.weight", None, Some(Embeddings)),
            ("shared.weight", None, Some(Embeddings)),
            ("encoder.block.5.layer.0.SelfAttention.q.weight", Some(5), Some(Attention)),
            ("decoder.block.5.layer.1.EncDecAttention.k.weight", Some(5), Some(Attention)),
            ("encoder.block.5.layer.1.DenseReluDense.wi_0.weight", Some(5), Some(Mlp)),
            ("encoder.block.5.layer.1.layer_norm.weight", Some(5), Some(Norms)),
            ("deberta.encoder.layer.7.attention.self.query_proj.weight", Some(7), Some(Attention)),
            ("deberta.encoder.layer.7.intermediate.dense.weight", Some(7), Some(Mlp)),
            ("deberta.encoder.layer.7.output.dense.weight", Some(7), Some(Mlp)),
            ("classifier.weight", None, None),
        ] {
            assert_eq!(layer(name).map(|(_, number)| number), layer_number, "{name}");
            assert_eq!(group(name), expected, "{name}");
        }
    }

    #[test]
    fn depth_goes_from_the_first_layer_to_the_last() {
        let depth = |name: &str, layers| Place::of(name, layers).depth;
        assert_eq!(depth("model.layers.0.x", 5), 0.0);
        assert_eq!(depth("model.layers.2.x", 5), 0.5);
        assert_eq!(depth("model.layers.4.x", 5), 1.0);
        assert_eq!(depth("model.layers.0.x", 1), 1.0);
        assert_eq!(depth("model.norm.weight", 5), 0.0);
    }
}
