//! The configuration of DeBERTa, with transformers' defaults.

use std::collections::BTreeSet;

use burn_tensor::Tensor;
use burn_tensor::activation::{gelu_approximate, relu, sigmoid, silu, tanh};
use serde_json::{Map, Value};

use crate::network::{LayerStack, Limit, ListedParameter, Outline, Reader, UnusableConfig};
use crate::tensor::fused::gelu;

/// What `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DebertaConfig {
    pub vocab_size: usize,
    pub embedding_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub head_size: usize,
    pub max_positions: usize,
    /// The kinds of tokens, such as the first and the second text; 0 if they are not told apart.
    pub types: usize,
    pub epsilon: f64,
    /// Whether a token's place is added to its embedding.
    pub has_absolute_positions: bool,
    pub relative: Option<Relative>,
    /// Whether the embeddings of relative positions are normalised.
    pub has_encoder_norm: bool,
    pub content_to_position: bool,
    pub position_to_content: bool,
    pub activation: DebertaActivation,
    pub pooler_activation: DebertaActivation,
    /// The labels, in the order of the classifier's outputs.
    pub labels: Vec<String>,
}

/// How relative positions are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relative {
    /// How many distances there are in either direction, or buckets of them.
    pub span: usize,
    /// The number of buckets, if distances fall into buckets.
    pub buckets: Option<usize>,
    pub max_positions: usize,
    /// Whether positions are projected by the matrices of contents.
    pub shares_projections: bool,
}

/// What bends the numbers between two projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DebertaActivation {
    Gelu,
    GeluTanh,
    QuickGelu,
    Relu,
    Silu,
    Tanh,
    Sigmoid,
    Linear,
}

impl DebertaActivation {
    fn read(reader: &Reader<'_>, field: &str) -> Result<Self, UnusableConfig> {
        Ok(match reader.text_or(field, "gelu")? {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                Self::GeluTanh
            }
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            "linear" => Self::Linear,
            other => return Err(reader.unusable(field, format!("the activation `{other}` is not known"))),
        })
    }

    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            Self::QuickGelu => x.clone() * sigmoid(x.mul_scalar(1.702)),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
            Self::Tanh => tanh(x),
            Self::Sigmoid => sigmoid(x),
            Self::Linear => x,
        }
    }
}

/// Reads a whole number that may be 0 or below.
fn whole(reader: &Reader<'_>, field: &str, default: i32) -> Result<i32, UnusableConfig> {
    let number = reader.number_or(field, f64::from(default))?;
    if number.fract() == 0.0 && number.abs() < f64::from(1 << 30) {
        Ok(number as i32)
    } else {
        Err(reader.unusable(field, format!("{number} is not a whole number")))
    }
}

/// Reads the kinds of attention to positions: a list, or names with `|` between them.
fn attention_kinds(
    reader: &Reader<'_>,
    config: &Map<String, Value>,
) -> Result<BTreeSet<String>, UnusableConfig> {
    let wrong = |value: &Value| reader.unusable("pos_att_type", format!("{value} is not a list of texts"));
    match config.get("pos_att_type") {
        None | Some(Value::Null) => Ok(BTreeSet::new()),
        Some(Value::String(text)) => {
            Ok(text.to_lowercase().split('|').map(|one| one.trim().to_owned()).collect())
        }
        Some(value @ Value::Array(list)) => {
            let names = list.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(|| wrong(value)));
            names.collect()
        }
        Some(value) => Err(wrong(value)),
    }
}

/// Reads the labels, by their numbers.
fn labels(reader: &Reader<'_>, config: &Map<String, Value>) -> Result<Vec<String>, UnusableConfig> {
    let Some(named) = config.get("id2label").filter(|value| !value.is_null()) else {
        // A damaged file must not have labels made up until memory is full.
        const MOST: usize = 1 << 16;
        let count = reader.size_or("num_labels", 2)?;
        if count > MOST {
            return Err(reader.unusable("num_labels", format!("{count} labels are more than {MOST}")));
        }
        return Ok((0..count).map(|number| format!("LABEL_{number}")).collect());
    };
    let wrong = |problem: &str| reader.unusable("id2label", problem.to_owned());
    let named = named.as_object().ok_or_else(|| wrong("is not a table"))?;
    let mut labels = vec![None; named.len()];
    for (number, label) in named {
        let place = number.parse().ok().and_then(|number: usize| labels.get_mut(number));
        let label = label.as_str().ok_or_else(|| wrong("holds a label that is not a text"))?;
        *place.ok_or_else(|| wrong("does not number its labels from 0"))? = Some(label.to_owned());
    }
    let labels: Option<Vec<String>> = labels.into_iter().collect();
    labels.filter(|labels| !labels.is_empty()).ok_or_else(|| wrong("does not number its labels from 0"))
}

impl DebertaConfig {
    /// Reads a configuration.
    pub(crate) fn read(config: &Map<String, Value>) -> Result<Self, UnusableConfig> {
        let reader = Reader::new(config);
        let hidden_size = reader.size_or("hidden_size", 1536)?;
        let heads = reader.size_or("num_attention_heads", 24)?;
        let head_size = match reader.optional_size("attention_head_size")? {
            Some(size) => size,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                let problem = format!("{hidden_size} is not a multiple of `num_attention_heads`, {heads}");
                return Err(reader.unusable("hidden_size", problem));
            }
        };
        if heads * head_size != hidden_size {
            let problem = format!("{heads} heads of {head_size} do not make `hidden_size`, {hidden_size}");
            return Err(reader.unusable("attention_head_size", problem));
        }
        let pooler = reader.size_or("pooler_hidden_size", hidden_size)?;
        if pooler != hidden_size {
            let problem = format!("{pooler} is not `hidden_size`, {hidden_size}");
            return Err(reader.unusable("pooler_hidden_size", problem));
        }
        if whole(&reader, "conv_kernel_size", 0)? > 0 {
            let problem = "models with a convolution, such as DeBERTa-v2-xlarge, are not known";
            return Err(reader.unusable("conv_kernel_size", problem));
        }
        let max_positions = reader.size_or("max_position_embeddings", 512)?;
        let relative = if !reader.truth_or("relative_attention", false)? {
            None
        } else {
            let most = whole(&reader, "max_relative_positions", -1)?;
            let most = if most < 1 { max_positions } else { most as usize };
            let buckets = match whole(&reader, "position_buckets", -1)? {
                1 => return Err(reader.unusable("position_buckets", "1 bucket cannot be halved")),
                buckets if buckets > 0 => Some(buckets as usize),
                _ => None,
            };
            Some(Relative {
                span: buckets.unwrap_or(most),
                buckets,
                max_positions: most,
                shares_projections: reader.truth_or("share_att_key", false)?,
            })
        };
        let kinds = attention_kinds(&reader, config)?;
        let types = whole(&reader, "type_vocab_size", 0)?;
        let norms = reader.text_or("norm_rel_ebd", "none")?.to_lowercase();
        Ok(Self {
            vocab_size: reader.size_or("vocab_size", 128_100)?,
            embedding_size: reader.size_or("embedding_size", hidden_size)?,
            hidden_size,
            intermediate_size: reader.size_or("intermediate_size", 6144)?,
            layers: reader.size_or("num_hidden_layers", 24)?,
            heads,
            head_size,
            max_positions,
            types: types.max(0) as usize,
            epsilon: reader.positive_or("layer_norm_eps", 1e-7)?,
            has_absolute_positions: reader.truth_or("position_biased_input", true)?,
            relative,
            has_encoder_norm: norms.split('|').any(|one| one.trim() == "layer_norm"),
            content_to_position: kinds.contains("c2p"),
            position_to_content: kinds.contains("p2c"),
            activation: DebertaActivation::read(&reader, "hidden_act")?,
            pooler_activation: DebertaActivation::read(&reader, "pooler_hidden_act")?,
            labels: labels(&reader, config)?,
        })
    }

    /// Returns how many relative positions are embedded, and how many kinds of attention look at
    /// them.
    pub(crate) fn relative_positions(&self) -> (usize, usize) {
        let kinds = usize::from(self.content_to_position) + usize::from(self.position_to_content);
        self.relative.map_or((0, 0), |relative| (2 * relative.span, kinds))
    }

    /// Returns what memory is estimated from, for parameters outside of layers and those of one.
    pub(crate) fn outline(
        &self,
        outside: Vec<ListedParameter>,
        layers: Vec<Vec<ListedParameter>>,
    ) -> Outline {
        let (positions, kinds) = self.relative_positions();
        let positions = self.layers as u128 * kinds as u128 * positions as u128;
        let stack = |layer: Vec<ListedParameter>| LayerStack {
            layers: self.layers,
            layer,
            heads: self.heads,
            queries: self.hidden_size,
            keys: self.hidden_size,
            wide: self.intermediate_size,
            keeps_scores: true,
            is_crossing: false,
        };
        Outline {
            vocabulary: self.vocab_size,
            hidden: self.embedding_size,
            outside,
            stacks: layers.into_iter().map(stack).collect(),
            // What positions project to, in each layer.
            derived: positions * self.hidden_size as u128,
            limit: Limit::Together(self.max_positions),
            dropout: false,
        }
    }

    /// Returns what a score is multiplied by: it is a sum of up to three products.
    pub(crate) fn attention_scale(&self) -> f32 {
        let products = 1 + usize::from(self.content_to_position) + usize::from(self.position_to_content);
        1.0 / ((self.head_size * products) as f32).sqrt()
    }
}

impl Relative {
    /// Returns the bucket of a distance, query less key. In f32, as transformers has it:
    /// a bucket more or less is a matter of a last bit.
    fn bucket(&self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else { return distance };
        let mid = (buckets / 2) as i64;
        let far = distance.abs();
        if far <= mid {
            return distance;
        }
        let log = |of: f32| of.ln();
        let widest = log(((self.max_positions as f64 - 1.0) / mid as f64) as f32);
        let log = (log(far as f32 / mid as f32) / widest * (mid - 1) as f32).ceil() + mid as f32;
        (log * distance.signum() as f32) as i64
    }

    /// Returns the embedding of each distance from one less than a length to the opposite, for
    /// queries that look at keys and for keys that look at queries.
    pub(crate) fn embeddings(&self, length: usize) -> [Vec<usize>; 2] {
        let furthest = length as i64 - 1;
        let last = 2 * self.span as i64 - 1;
        let place = |bucket: i64| (bucket.saturating_add(self.span as i64)).clamp(0, last) as usize;
        let distances = || (-furthest..=furthest).rev();
        [
            distances().map(|distance| place(self.bucket(distance))).collect(),
            distances().map(|distance| place(self.bucket(distance).saturating_neg())).collect(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn buckets_are_transformers() {
        #[derive(serde::Deserialize)]
        struct Case {
            position_buckets: usize,
            max_relative_positions: usize,
            buckets: Vec<i64>,
        }
        let text = std::fs::read(golden("deberta_v2/buckets.json")).unwrap();
        for case in serde_json::from_slice::<Vec<Case>>(&text).unwrap() {
            let relative = Relative {
                span: case.position_buckets,
                buckets: Some(case.position_buckets),
                max_positions: case.max_relative_positions,
                shares_projections: true,
            };
            for (distance, bucket) in (0..).zip(case.buckets) {
                let found = (relative.bucket(distance), relative.bucket(-distance));
                assert_eq!(found, (bucket, -bucket), "{distance} of {relative:?}");
            }
        }
    }

    fn read(change: impl Fn(&mut Map<String, Value>)) -> Result<DebertaConfig, String> {
        let text = std::fs::read(golden("deberta_v3/config.json")).unwrap();
        let mut config = serde_json::from_slice(&text).unwrap();
        change(&mut config);
        DebertaConfig::read(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn configurations_that_no_model_has_say_why() {
        let with = |field: &str, value: Value| {
            read(|config| drop(config.insert(field.to_owned(), value.clone()))).unwrap_err()
        };
        assert_eq!(
            with("conv_kernel_size", 3.into()),
            "`config.json`: `conv_kernel_size`: models with a convolution, such as DeBERTa-v2-xlarge, are not known"
        );
        assert_eq!(
            with("num_attention_heads", 5.into()),
            "`config.json`: `hidden_size`: 32 is not a multiple of `num_attention_heads`, 5"
        );
        assert!(
            with("attention_head_size", 16.into()).contains("4 heads of 16 do not make `hidden_size`, 32")
        );
        assert!(with("hidden_act", "gleu".into()).contains("the activation `gleu` is not known"));
        assert!(with("pos_att_type", 3.into()).contains("3 is not a list of texts"));
        assert!(with("position_buckets", 1.into()).contains("1 bucket cannot be halved"));
        assert!(with("max_relative_positions", 1.5.into()).contains("1.5 is not a whole number"));
        assert!(with("pooler_hidden_size", 16.into()).contains("16 is not `hidden_size`, 32"));
        assert!(with("id2label", serde_json::json!({ "1": "a", "2": "b" })).contains("from 0"));
        let many = |config: &mut Map<String, Value>| {
            config.remove("id2label");
            config.insert("num_labels".to_owned(), (1u64 << 31).into());
        };
        assert!(read(many).unwrap_err().contains("`num_labels`: 2147483648 labels are more than 65536"));
    }

    #[test]
    fn what_a_configuration_leaves_out_is_as_in_transformers() {
        let config = DebertaConfig::read(&Map::new()).unwrap();
        assert_eq!((config.hidden_size, config.layers, config.heads), (1536, 24, 24));
        assert_eq!((config.relative, config.has_absolute_positions, config.types), (None, true, 0));
        assert_eq!((config.labels, config.epsilon), (vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()], 1e-7));
        let v3 = read(|config| drop(config.insert("pos_att_type".to_owned(), "C2P|p2c".into()))).unwrap();
        assert!(v3.content_to_position && v3.position_to_content);
    }
}
