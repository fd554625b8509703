//! DeBERTa: He et al., 2021, in its second and third version, as transformers'
//! `DebertaV2ForSequenceClassification` computes it.
//!
//! Attention is disentangled: beside what a query says to a key's content, a query's content looks
//! at the key's relative position (c2p), and a key's content at the query's (p2c). Distances fall
//! into buckets, one for each up to half of them, then ever wider. The first token's last hidden
//! state goes through a pooler and a linear classifier.
//!
//! A configuration is read with transformers' defaults. A model with a convolution beside its
//! first layer (`conv_kernel_size`, DeBERTa-v2-xlarge) is refused.
//!
//! Departs from transformers' code, with the same result: what positions project to is computed
//! once; a query meets each distance that occurs once, in the order of keys, and not each bucket;
//! all texts of a batch are of one length, so that nothing is masked.

mod config;

use burn_tensor::module::layer_norm;
use burn_tensor::{Device, Tensor, TensorData};
use weights::ModelFolder;

pub(crate) use config::DebertaConfig;

use crate::network::{EncoderEntry, FolderTensors, Outline, TensorError, WeightSource, list_stacks};
use crate::tensor::fused::softmax;
use crate::tensor::indices::{places, token_ids};
use crate::tensor::layers::Storage;
use crate::tensor::precision::matmul_f32;

/// Says what it is in the list of models.
pub(crate) const ENTRY: EncoderEntry = EncoderEntry {
    model_type: Some("deberta-v2"),
    architecture: "DebertaV2ForSequenceClassification",
    outline: Some(|config| Ok(outline(&DebertaConfig::read(config)?))),
};

/// Returns what memory is estimated from.
fn outline(config: &DebertaConfig) -> Outline {
    let (outside, layers) = list_stacks(
        config,
        |config| vec![&mut config.layers],
        |config, source| DebertaV2ForSequenceClassification::build(config, source).map(drop),
    );
    config.outline(outside, layers)
}

/// A projection with a bias.
struct Affine {
    /// `[in, out]`, unlike in files: where both sides of a small product lie along what is summed
    /// up, it is computed in an order that depends on how many rows there are.
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Affine {
    fn build(
        source: &mut dyn WeightSource,
        path: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, TensorError> {
        let weight = source.transposed(&format!("{path}.weight"), [outputs, inputs])?;
        Ok(Self { weight, bias: source.vector(&format!("{path}.bias"), outputs)? })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        matmul_f32(x, self.weight.clone()) + self.bias.clone().unsqueeze()
    }
}

/// A layer normalisation: Ba et al., 2016.
struct Norm {
    gain: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
}

impl Norm {
    fn build(source: &mut dyn WeightSource, path: &str, config: &DebertaConfig) -> Result<Self, TensorError> {
        let gain = source.vector(&format!("{path}.weight"), config.hidden_size)?;
        let bias = source.vector(&format!("{path}.bias"), config.hidden_size)?;
        Ok(Self { gain, bias, epsilon: config.epsilon })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.gain.clone(), Some(self.bias.clone()), self.epsilon)
    }
}

/// A projection of single rows, on the host, whose sums do not depend on how many rows there are.
struct RowAffine {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl RowAffine {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        let sum = |(weights, bias): (&[f32], &f32)| {
            let products = weights.iter().zip(x).map(|(weight, x)| f64::from(*weight) * f64::from(*x));
            (products.sum::<f64>() + f64::from(*bias)) as f32
        };
        rows.map(sum).collect()
    }
}

/// One layer.
struct Layer {
    query: Affine,
    key: Affine,
    value: Affine,
    /// What a query's content meets: `[heads, head, 2 span]`.
    position_keys: Option<Tensor<3>>,
    /// What a key's content meets.
    position_queries: Option<Tensor<3>>,
    attention_output: Affine,
    attention_norm: Norm,
    intermediate: Affine,
    output: Affine,
    output_norm: Norm,
}

/// The whole model.
pub(crate) struct DebertaV2ForSequenceClassification {
    pub config: DebertaConfig,
    words: Tensor<2>,
    positions: Option<Tensor<2>>,
    types: Option<Tensor<2>>,
    /// `[embedding, hidden]`, where words are embedded in another width.
    projection: Option<Tensor<2>>,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    pooler: RowAffine,
    classifier: RowAffine,
    device: Device,
}

impl DebertaV2ForSequenceClassification {
    /// Opens a model, and checks that every tensor of its folder has a place in it.
    pub(crate) fn open(
        folder: &ModelFolder,
        config: DebertaConfig,
        device: &Device,
    ) -> Result<Self, TensorError> {
        let mut tensors = FolderTensors::new(folder, Storage::Dense, device);
        let model = Self::build(config, &mut tensors)?;
        // What transformers leaves aside as well: places that are numbered or not used, and the
        // heads of pre-training.
        tensors.finish(|name| {
            name.ends_with("position_ids")
                || name.contains("position_embeddings")
                || name.starts_with("mask_predictions.")
                || name.starts_with("lm_predictions.")
        })?;
        Ok(model)
    }

    /// Makes a model of a configuration, of what a source has.
    pub(crate) fn build(config: DebertaConfig, source: &mut dyn WeightSource) -> Result<Self, TensorError> {
        let (hidden, embedding) = (config.hidden_size, config.embedding_size);
        let path = "deberta.embeddings";
        let words =
            source.matrix(&format!("{path}.word_embeddings.weight"), [config.vocab_size, embedding])?;
        let mut optional = |is_there: bool, name: &str, shape: [usize; 2]| {
            is_there.then(|| source.matrix(&format!("{path}.{name}.weight"), shape)).transpose()
        };
        let positions = optional(
            config.has_absolute_positions,
            "position_embeddings",
            [config.max_positions, embedding],
        )?;
        let types = optional(config.types > 0, "token_type_embeddings", [config.types, embedding])?;
        let projection = (embedding != hidden)
            .then(|| source.transposed(&format!("{path}.embed_proj.weight"), [hidden, embedding]))
            .transpose()?;
        let embedding_norm = Norm::build(source, &format!("{path}.LayerNorm"), &config)?;
        let encoder_norm = config
            .has_encoder_norm
            .then(|| Norm::build(source, "deberta.encoder.LayerNorm", &config))
            .transpose()?;
        let relative = match &config.relative {
            None => None,
            Some(relative) => {
                let name = "deberta.encoder.rel_embeddings.weight";
                let embeddings = source.matrix(name, [2 * relative.span, hidden])?;
                // Nothing is projected of positions that are only listed.
                source.has_numbers().then(|| match &encoder_norm {
                    Some(norm) => norm.forward(embeddings),
                    None => embeddings,
                })
            }
        };
        let layers = (0..config.layers)
            .map(|number| Layer::build(source, number, &config, relative.as_ref()))
            .collect::<Result<_, _>>()?;
        let mut row_affine = |path: &str, outputs: usize| -> Result<RowAffine, TensorError> {
            let weight = source.numbers(&format!("{path}.weight"), &[outputs, hidden])?;
            Ok(RowAffine { weight, bias: source.numbers(&format!("{path}.bias"), &[outputs])? })
        };
        let pooler = row_affine("pooler.dense", hidden)?;
        let classifier = row_affine("classifier", config.labels.len())?;
        let device = source.device().clone();
        Ok(Self {
            config,
            words,
            positions,
            types,
            projection,
            embedding_norm,
            layers,
            pooler,
            classifier,
            device,
        })
    }

    /// Returns the last hidden states, `[rows * length, hidden]`, of rows of one length. Types are
    /// used where the model tells them apart, and are then as many as there are ids.
    pub(crate) fn hidden(&self, ids: &[u32], types: &[u32], rows: usize) -> Tensor<2> {
        let length = ids.len() / rows;
        let mut x = self.words.clone().select(0, token_ids(ids, &self.device));
        if let Some(positions) = &self.positions {
            let numbers: Vec<usize> = (0..rows).flat_map(|_| 0..length).collect();
            x = x + positions.clone().select(0, places(&numbers, &self.device));
        }
        if let Some(embeddings) = &self.types {
            x = x + embeddings.clone().select(0, token_ids(types, &self.device));
        }
        if let Some(projection) = &self.projection {
            x = matmul_f32(x, projection.clone());
        }
        x = self.embedding_norm.forward(x);
        let distances = self
            .config
            .relative
            .as_ref()
            .map(|relative| relative.embeddings(length).map(|numbers| places(&numbers, &self.device)));
        for layer in &self.layers {
            let [keys, queries] =
                [(0, &layer.position_keys), (1, &layer.position_queries)].map(|(kind, of)| {
                    let (of, distances) = (of.as_ref()?, distances.as_ref()?);
                    Some(of.clone().select(2, distances[kind].clone()))
                });
            x = layer.forward(x, rows, [keys, queries], &self.config);
        }
        x
    }

    /// Returns the pooled hidden state of each row's first token, row by row.
    fn pooled(&self, ids: &[u32], types: &[u32], rows: usize) -> Vec<f32> {
        let (length, hidden) = (ids.len() / rows, self.config.hidden_size);
        let states = self.hidden(ids, types, rows).reshape([rows, length, hidden]);
        let first = host(states.narrow(1, 0, 1).reshape([rows, hidden]));
        let pooled: Vec<f32> = first.chunks_exact(hidden).flat_map(|row| self.pooler.forward(row)).collect();
        let pooled = Tensor::from_data(TensorData::new(pooled, [rows, hidden]), &self.device);
        host(self.config.pooler_activation.apply(pooled))
    }

    /// Returns the logits of each of some rows of one length.
    pub(crate) fn logits(&self, ids: &[u32], types: &[u32], rows: usize) -> Vec<Vec<f32>> {
        let pooled = self.pooled(ids, types, rows);
        pooled.chunks_exact(self.config.hidden_size).map(|row| self.classifier.forward(row)).collect()
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().expect("numbers are f32")
}

impl Layer {
    fn build(
        source: &mut dyn WeightSource,
        number: usize,
        config: &DebertaConfig,
        embeddings: Option<&Tensor<2>>,
    ) -> Result<Self, TensorError> {
        let path = format!("deberta.encoder.layer.{number}");
        let own = format!("{path}.attention.self");
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let query = Affine::build(source, &format!("{own}.query_proj"), hidden, hidden)?;
        let key = Affine::build(source, &format!("{own}.key_proj"), hidden, hidden)?;
        let value = Affine::build(source, &format!("{own}.value_proj"), hidden, hidden)?;
        let split = |x: Tensor<2>| {
            let [count, _] = x.dims();
            x.transpose().reshape([config.heads, config.head_size, count])
        };
        let (mut position_keys, mut position_queries) = (None, None);
        if let Some(relative) = &config.relative {
            let mut project = |shared: &Affine, name: &str| {
                let own = if relative.shares_projections {
                    None
                } else {
                    Some(Affine::build(source, &format!("{own}.{name}"), hidden, hidden)?)
                };
                let affine = own.as_ref().unwrap_or(shared);
                Ok(embeddings.map(|embeddings| split(affine.forward(embeddings.clone()))))
            };
            if config.content_to_position {
                position_keys = project(&key, "pos_key_proj")?;
            }
            if config.position_to_content {
                let scale = config.attention_scale();
                position_queries = project(&query, "pos_query_proj")?.map(|x| x.mul_scalar(scale));
            }
        }
        Ok(Self {
            query,
            key,
            value,
            position_keys,
            position_queries,
            attention_output: Affine::build(
                source,
                &format!("{path}.attention.output.dense"),
                hidden,
                hidden,
            )?,
            attention_norm: Norm::build(source, &format!("{path}.attention.output.LayerNorm"), config)?,
            intermediate: Affine::build(source, &format!("{path}.intermediate.dense"), hidden, wide)?,
            output: Affine::build(source, &format!("{path}.output.dense"), wide, hidden)?,
            output_norm: Norm::build(source, &format!("{path}.output.LayerNorm"), config)?,
        })
    }

    /// Moves the hidden states of rows on by one layer. Distances are `[heads, head, 2 length - 1]`,
    /// for queries and for keys.
    fn forward(
        &self,
        x: Tensor<2>,
        rows: usize,
        distances: [Option<Tensor<3>>; 2],
        config: &DebertaConfig,
    ) -> Tensor<2> {
        let [tokens, hidden] = x.dims();
        let (heads, head, length) = (config.heads, config.head_size, tokens / rows);
        let split = |x: Tensor<2>| x.reshape([tokens, heads, head]).swap_dims(0, 1);
        let by_row = |x: Tensor<3>| x.reshape([heads, rows, length, head]);
        let q = split(self.query.forward(x.clone()).mul_scalar(config.attention_scale()));
        let k = split(self.key.forward(x.clone()));
        let v = split(self.value.forward(x.clone()));
        let mut scores = matmul_f32(by_row(q.clone()), by_row(k.clone()).swap_dims(2, 3));
        let [keys, queries] = distances;
        if let Some(keys) = keys {
            scores = scores + in_order(matmul_f32(q, keys), rows);
        }
        if let Some(queries) = queries {
            scores = scores + in_order(matmul_f32(k, queries), rows).swap_dims(2, 3);
        }
        let seen = matmul_f32(softmax(scores), by_row(v));
        let seen = seen.reshape([heads, tokens, head]).swap_dims(0, 1).reshape([tokens, hidden]);
        let x = self.attention_norm.forward(self.attention_output.forward(seen) + x);
        let wide = config.activation.apply(self.intermediate.forward(x.clone()));
        self.output_norm.forward(self.output.forward(wide) + x)
    }
}

/// Turns what each token says to each distance, `[heads, rows * length, 2 length - 1]`, into what
/// it says to each token of its row, `[heads, rows, length, length]`.
///
/// The distances of the first token that occur are the last ones, and those of each token after it
/// begin one place earlier: in rows that are one place shorter they lie below one another.
fn in_order(x: Tensor<3>, rows: usize) -> Tensor<4> {
    let [heads, tokens, distances] = x.dims();
    let length = tokens / rows;
    if length == 1 {
        return x.reshape([heads, rows, 1, 1]);
    }
    x.reshape([heads, rows, length * distances])
        .narrow(2, length - 1, length * (distances - 1))
        .reshape([heads, rows, length, distances - 1])
        .narrow(3, 0, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::{GoldenTensors as Expected, difference, numbers};
    use crate::tensor::device::tested_device;
    use crate::testing::golden;

    fn open(name: &str) -> DebertaV2ForSequenceClassification {
        let folder = ModelFolder::open(golden(name)).unwrap();
        let config = DebertaConfig::read(folder.config()).unwrap();
        DebertaV2ForSequenceClassification::open(&folder, config, &tested_device()).unwrap()
    }

    /// fp32 differs from fp64 by 6e-6 in the reference itself.
    const CLOSE: f32 = 2e-5;

    #[test]
    fn deberta_v3_is_transformers() {
        let model = open("deberta_v3");
        assert_eq!(model.config.labels, ["entailment", "neutral", "contradiction"]);
        let expected = Expected::open("deberta_v3/expected.safetensors");
        let (ids, masks) = (expected.rows("input_ids"), expected.rows("attention_mask"));
        let width = ids[0].len() * model.config.hidden_size;
        let (hidden, pooled) = (expected.floats("hidden_last"), expected.floats("pooled"));
        let logits = expected.floats("logits");
        for (row, (ids, mask)) in ids.iter().zip(&masks).enumerate() {
            let length = mask.iter().filter(|seen| **seen == 1).count();
            let ids: Vec<u32> = ids[..length].iter().map(|id| *id as u32).collect();
            let found = numbers(model.hidden(&ids, &[], 1));
            let off = difference(&found, &hidden[row * width..][..found.len()]);
            assert!(off < CLOSE, "hidden states of row {row} are off by {off}");
            let off = difference(&model.pooled(&ids, &[], 1), &pooled[row * 32..][..32]);
            assert!(off < CLOSE, "row {row} is pooled to what is off by {off}");
            let off = difference(&model.logits(&ids, &[], 1).concat(), &logits[row * 3..][..3]);
            assert!(off < CLOSE, "logits of row {row} are off by {off}");
        }
    }

    #[test]
    fn other_settings_are_transformers() {
        #[derive(serde::Deserialize)]
        struct Row {
            ids: Vec<u32>,
            types: Vec<u32>,
            hidden: Vec<f32>,
            pooled: Vec<f32>,
            logits: Vec<f32>,
        }
        for name in ["own_projections", "content_to_position", "position_to_content", "absolute"] {
            let model = open(&format!("deberta_v2/{name}"));
            let text = std::fs::read(golden("deberta_v2").join(name).join("expected.json")).unwrap();
            let rows: Vec<Row> = serde_json::from_slice(&text).unwrap();
            assert_eq!(rows.len(), 4);
            for Row { ids, types, hidden, pooled, logits } in rows {
                let (found, found_logits) =
                    (model.pooled(&ids, &types, 1), model.logits(&ids, &types, 1).concat());
                let states = numbers(model.hidden(&ids, &types, 1));
                let pairs = [(&states, &hidden), (&found, &pooled), (&found_logits, &logits)];
                for (part, (found, expected)) in pairs.into_iter().enumerate() {
                    let off = difference(found, expected);
                    assert!(off < 3e-5, "{name}, {} tokens, part {part}: off by {off}", ids.len());
                }
            }
        }
    }

    #[test]
    fn what_comes_out_for_a_row_does_not_depend_on_the_others() {
        let model = open("deberta_v3");
        let row = |number: u32, length: u32| (0..length).map(|at| 3 + (at * 7 + number * 13) % 120).collect();
        for length in [3, 16, 33] {
            let rows: Vec<Vec<u32>> = (0..7).map(|number| row(number, length)).collect();
            let together = model.logits(&rows.concat(), &[], rows.len());
            for (row, together) in rows.iter().zip(together) {
                assert_eq!(model.logits(row, &[], 1), [together]);
            }
        }
    }
}
