//! Whether models are compatible: their configurations and vocabularies.

use crate::error::MergeError;
use crate::expert::Expert;
use crate::folder::ModelFolder;
use crate::writer::TensorSpec;
use safetensors::Dtype;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What the result takes from the models, and notes on their differences.
pub(crate) struct Agreement<'a> {
    pub config: Map<String, Value>,
    pub files: &'a ModelFolder,
    pub notes: Vec<String>,
}

/// Keys of a configuration that say how it was made, not what it is.
const INCIDENTAL: [&str; 6] =
    ["_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash"];

/// Keys of a configuration that are equal in compatible models.
const STRUCTURAL: [&str; 26] = [
    "model_type",
    "architectures",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "hidden_act",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "feed_forward_proj",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "position_buckets",
];

/// Compares models, each with the first.
pub(crate) fn check<'a>(
    experts: &'a [Expert],
    base: Option<&ModelFolder>,
    tokenizer_from: Option<&str>,
) -> Result<Agreement<'a>, MergeError> {
    let wanted = tokenizer_from.unwrap_or_else(|| experts.first().map_or("", |expert| &expert.name));
    let from = experts.iter().find(|expert| expert.name == wanted);
    let from =
        from.ok_or_else(|| MergeError::Method { what: format!("`{wanted}` is not among the models") })?;
    let mut notes = Vec::new();
    let others = experts.iter().map(|expert| (expert.name.as_str(), &expert.model));
    for (name, other) in others.chain(base.map(|base| ("base", base))) {
        compare_configs((wanted, from.model.config()), (name, other.config()), &mut notes)?;
    }
    let carried = tokenizer_folder(from);
    let vocabulary = Vocabulary::of(carried);
    for expert in experts.iter().filter(|expert| expert.name != wanted) {
        let other = Vocabulary::of(tokenizer_folder(expert));
        let named = [wanted, &expert.name];
        match (&vocabulary, &other) {
            (Some(one), Some(other)) => compare_vocabularies(named, one, other, &mut notes)?,
            (Some(_), None) => {
                notes.push(format!("`{}` has no `tokenizer.json` to compare with `{wanted}`'s", expert.name));
            }
            (None, Some(_)) => {
                notes.push(format!("`{wanted}` has no `tokenizer.json`, though `{}` has", expert.name));
            }
            (None, None) => {}
        }
    }
    Ok(Agreement { config: from.model.config().clone(), files: carried, notes })
}

/// Returns the tensors that are tied to another and that only some of the models store.
pub(crate) fn omitted_tensors(models: &[(&str, &ModelFolder)]) -> BTreeSet<String> {
    let is_tied = |model: &ModelFolder| model.config().get("tie_word_embeddings") == Some(&Value::Bool(true));
    let head = "lm_head.weight";
    let have_it = models.iter().filter(|(_, model)| model.tensor(head).is_some()).count();
    let is_omitted = have_it < models.len() && have_it > 0 && models.iter().all(|(_, model)| is_tied(model));
    is_omitted.then(|| head.to_owned()).into_iter().collect()
}

/// Sets the type of the tensors in a configuration, if they all have the same type.
pub(crate) fn set_dtype(config: &mut Map<String, Value>, tensors: &[TensorSpec]) {
    let types: BTreeSet<_> = tensors.iter().map(|tensor| tensor.dtype).collect();
    let name = |dtype: &Dtype| match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        _ => None,
    };
    let floats: Vec<_> = types.iter().filter_map(name).collect();
    let &[dtype] = floats.as_slice() else { return };
    let key = if config.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
    config.insert(key.to_owned(), dtype.into());
}

fn tokenizer_folder(expert: &Expert) -> &ModelFolder {
    let adapter = expert.adapter.as_ref().map(crate::lora::Adapter::tensors);
    adapter.filter(|adapter| adapter.has_tokenizer()).unwrap_or(&expert.model)
}

fn compare_configs(
    (one_name, one): (&str, &Map<String, Value>),
    (other_name, other): (&str, &Map<String, Value>),
    notes: &mut Vec<String>,
) -> Result<(), MergeError> {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "not given".to_owned(), Value::to_string);
    for key in keys.into_iter().filter(|key| !INCIDENTAL.contains(&key.as_str())) {
        let values = [one.get(key), other.get(key)];
        if values[0] == values[1] {
            continue;
        }
        let [one_value, other_value] = values.map(shown);
        // A key that only one version of a library writes is not a difference.
        if STRUCTURAL.contains(&key.as_str()) && values.iter().all(Option::is_some) {
            return Err(MergeError::Configs {
                key: key.clone(),
                one: one_name.to_owned(),
                one_value,
                other: other_name.to_owned(),
                other_value,
            });
        }
        notes.push(format!(
            "`{key}` of config.json is {one_value} in `{one_name}` and {other_value} in `{other_name}`; the former is carried over"
        ));
    }
    Ok(())
}

/// A tokenizer: its tokens, and the rest.
struct Vocabulary {
    tokens: BTreeMap<String, u64>,
    rest: Map<String, Value>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`; `None` if it is missing or its vocabulary has another form.
    fn of(model: &ModelFolder) -> Option<Self> {
        let text = std::fs::read(model.path().join("tokenizer.json")).ok()?;
        let Ok(Value::Object(mut rest)) = serde_json::from_slice(&text) else { return None };
        let mut tokens = BTreeMap::new();
        let vocab = rest.get_mut("model").and_then(|model| model.get_mut("vocab")).map(Value::take);
        match vocab {
            Some(Value::Object(entries)) => {
                tokens.extend(entries.into_iter().filter_map(|(token, id)| Some((token, id.as_u64()?))));
            }
            // Unigram: tokens with their scores, in the order of their ids.
            Some(Value::Array(entries)) => {
                for (id, entry) in entries.iter().enumerate() {
                    let token = entry.get(0).and_then(Value::as_str);
                    tokens.extend(token.map(|token| (token.to_owned(), id as u64)));
                }
            }
            _ => return None,
        }
        for added in rest.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let token = added.get("content").and_then(Value::as_str);
            let id = added.get("id").and_then(Value::as_u64);
            tokens.extend(token.map(str::to_owned).zip(id));
        }
        Some(Self { tokens, rest })
    }
}

fn compare_vocabularies(
    [one_name, other_name]: [&str; 2],
    one: &Vocabulary,
    other: &Vocabulary,
    notes: &mut Vec<String>,
) -> Result<(), MergeError> {
    let tokens: BTreeSet<&String> = one.tokens.keys().chain(other.tokens.keys()).collect();
    let mut differing = tokens.into_iter().filter(|token| one.tokens.get(*token) != other.tokens.get(*token));
    if let Some(token) = differing.next() {
        let shown = |id: Option<&u64>| id.map_or_else(|| "missing".into(), |id| id.to_string().into());
        return Err(MergeError::Vocabularies {
            one: one_name.to_owned(),
            other: other_name.to_owned(),
            token: token.clone(),
            one_id: shown(one.tokens.get(token)),
            other_id: shown(other.tokens.get(token)),
            more: differing.count() as u64,
        });
    }
    let keys: BTreeSet<&String> = one.rest.keys().chain(other.rest.keys()).collect();
    let keys: Vec<String> = keys
        .into_iter()
        .filter(|key| one.rest.get(*key) != other.rest.get(*key))
        .map(|key| format!("`{key}`"))
        .collect();
    if !keys.is_empty() {
        notes.push(format!(
            "the tokenizers of `{one_name}` and `{other_name}` have the same tokens and differ in {}; the former is carried over",
            keys.join(", ")
        ));
    }
    Ok(())
}
