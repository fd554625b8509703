//! Reads the recipes of mergekit.
//!
//! What a recipe asks for and this crate does otherwise, or cannot do, is told: what would change
//! the result is an error, the rest is a note. Written for mergekit 0.1.5.

use crate::merges::Method;
use crate::setting::Setting;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use yaml_rust2::{Yaml, YamlLoader};

/// A recipe of mergekit, in our words.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The models by the names that they are given here, and where mergekit would look for them.
    pub models: BTreeMap<String, String>,
    /// The model that they were tuned from, where the method needs it.
    pub base: Option<String>,
    /// The method.
    pub method: Method,
    /// How much each model counts against the others; else `weights` are given.
    pub ratio: Option<BTreeMap<String, Setting>>,
    /// What each model is multiplied with.
    pub weights: Option<BTreeMap<String, Setting>>,
    /// The type of the result: `f32`, `f16` or `bf16`.
    pub dtype: Option<&'static str>,
    /// What is different here, or left to do.
    pub notes: Vec<String>,
}

/// Reads a recipe.
///
/// # Errors
/// What is not YAML, no recipe, or asks for what this crate does not do.
pub fn import(text: &str) -> Result<Imported, String> {
    let recipe = document(text)?;
    let recipe = recipe.as_object().ok_or("a recipe is a table with `merge_method`")?;
    if let Some(key) = recipe.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!("`{key}` is not understood"));
    }
    let mut notes = Vec::new();
    for (key, note) in UNUSED {
        if recipe.get(key).is_some_and(|value| !value.is_null()) {
            notes.push(format!("`{key}`: {note}"));
        }
    }
    let scopes = Scopes::of(recipe, &mut notes)?;
    let base = recipe.get("base_model").and_then(Value::as_str);
    let method = recipe.get("merge_method").and_then(Value::as_str).ok_or("there is no `merge_method`")?;
    let dtype = recipe.get("dtype").filter(|value| !value.is_null());
    let bf16 = dtype.and_then(Value::as_str) == Some("bfloat16");
    let imported = match method {
        "slerp" => slerp(&scopes, base)?,
        "linear" => weighed(&scopes, None, true, |_| Ok(json!({ "soup": {} })))?,
        "task_arithmetic" => weighed(&scopes, needed(base)?, false, |scopes| {
            let mut method = json!({ "lambda": scopes.lambda()? });
            note_intermediates(&mut method, bf16, dtype.is_some(), &mut notes);
            Ok(json!({ "task-arithmetic": method }))
        })?,
        "ties" => weighed(&scopes, needed(base)?, true, |scopes| {
            if scopes.flag("rescale", false)? {
                return Err("`rescale` of ties is not supported".to_owned());
            }
            let mut method = json!({ "lambda": scopes.lambda()?, "density": scopes.densities(base)? });
            note_intermediates(&mut method, bf16, dtype.is_some(), &mut notes);
            Ok(json!({ "ties": method }))
        })?,
        "dare_linear" | "dare_ties" => weighed(&scopes, needed(base)?, false, |scopes| {
            if !scopes.flag("rescale", true)? {
                return Err("dare without `rescale` is not supported".to_owned());
            }
            notes.push(
                "dare: what is kept is divided by the density, and not scaled to the old sum of magnitudes; \
                 which numbers are dropped follows from `seed`"
                    .to_owned(),
            );
            let join = if method == "dare_ties" { "ties" } else { "sum" };
            Ok(json!({ "dare": {
                "lambda": scopes.lambda()?, "density": scopes.densities(base)?, "join": join,
            } }))
        })?,
        other => {
            let known = "slerp, linear, task_arithmetic, ties, dare_linear and dare_ties";
            return Err(format!("`merge_method: {other}` is not supported; {known} are"));
        }
    };
    let out = recipe.get("out_dtype").filter(|value| !value.is_null()).or(dtype);
    let dtype = match out.map(|dtype| dtype.as_str().unwrap_or_default()) {
        None => None,
        Some("float32") => Some("f32"),
        Some("float16") => Some("f16"),
        Some("bfloat16") => Some("bf16"),
        Some(other) => return Err(format!("`dtype: {other}` is not supported")),
    };
    Ok(Imported { dtype, notes, ..imported })
}

/// What a recipe may hold at the top.
const KNOWN: [&str; 11] = [
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "name",
];

/// What is read and not followed.
const UNUSED: [(&str, &str); 3] = [
    ("tokenizer_source", "vocabularies have to be the same here; `files_from` says whose tokenizer is taken"),
    ("tokenizer", "vocabularies have to be the same here; `files_from` says whose tokenizer is taken"),
    ("chat_template", "the template is that of the model that `files_from` names"),
];

fn needed(base: Option<&str>) -> Result<Option<&str>, String> {
    base.map(Some).ok_or_else(|| "the method needs a `base_model`".to_owned())
}

fn note_intermediates(method: &mut Value, bf16: bool, is_told: bool, notes: &mut Vec<String>) {
    if bf16 {
        method["intermediates"] = "bf16".into();
    } else if !is_told {
        notes.push(
            "without `dtype` mergekit computes in the type of the models: for models of bf16 add \
             `intermediates = \"bf16\"` to have its rounding"
                .to_owned(),
        );
    }
}

/// Where parameters are looked for: by model, then in the slice, then at the top.
struct Scopes {
    models: Vec<(String, Map<String, Value>)>,
    shared: Vec<Map<String, Value>>,
}

impl Scopes {
    fn of(recipe: &Map<String, Value>, notes: &mut Vec<String>) -> Result<Self, String> {
        let mut shared = Vec::new();
        let listed = match (recipe.get("models"), recipe.get("slices")) {
            (Some(Value::Array(models)), None) => models,
            (None, Some(Value::Array(slices))) => {
                let [Value::Object(slice)] = slices.as_slice() else {
                    return Err(
                        "more than one slice, which would rearrange layers, is not supported".to_owned()
                    );
                };
                shared.push(parameters(slice)?);
                notes.push("the slice is taken for all of the layers".to_owned());
                let sources = slice.get("sources").and_then(Value::as_array);
                let sources = sources.ok_or("a slice has no `sources`")?;
                let ranges = sources.iter().map(|source| source.get("layer_range"));
                let ranges: Vec<_> = ranges.collect();
                let begins = ranges.iter().map(|range| range.and_then(|range| range.get(0)?.as_i64()));
                if ranges.windows(2).any(|pair| pair[0] != pair[1])
                    || begins.flatten().any(|begin| begin != 0)
                {
                    return Err("slices of other layers than all of them are not supported".to_owned());
                }
                sources
            }
            _ => return Err("a recipe has either `models` or `slices`".to_owned()),
        };
        let mut models = Vec::with_capacity(listed.len());
        for model in listed {
            let name = model.get("model").and_then(Value::as_str).ok_or("a model has no `model`")?;
            if name.contains('+') {
                let help = "list the base as `base` and the adapter in `adapters`";
                return Err(format!("`{name}` is a model with an adapter: {help}"));
            }
            models.push((name.to_owned(), parameters(model.as_object().expect("it has a key"))?));
        }
        shared.push(parameters(recipe)?);
        Ok(Self { models, shared })
    }

    /// Returns a parameter of a model: its own, and what it leaves open from further out.
    fn setting(&self, model: Option<usize>, key: &str) -> Result<Option<Value>, String> {
        let own = model.map(|model| &self.models[model].1);
        let mut rules: Vec<Value> = Vec::new();
        for scope in own.into_iter().chain(&self.shared) {
            let Some(value) = scope.get(key) else { continue };
            match translated(value).map_err(|what| format!("`{key}`: {what}"))? {
                Value::Array(items) if items.iter().all(Value::is_object) => {
                    let is_closed = items.iter().any(|rule| rule.get("name_has").is_none());
                    rules.extend(items);
                    if is_closed {
                        return Ok(Some(Value::Array(rules)));
                    }
                }
                value if rules.is_empty() => return Ok(Some(value)),
                value => {
                    rules.push(json!({ "value": value }));
                    return Ok(Some(Value::Array(rules)));
                }
            }
        }
        Ok((!rules.is_empty()).then_some(Value::Array(rules)))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.shared.iter().find_map(|scope| scope.get(key)) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| format!("`{key}` is true or false")),
        }
    }

    fn lambda(&self) -> Result<f64, String> {
        match self.setting(None, "lambda")? {
            None => Ok(1.0),
            Some(value) => value.as_f64().ok_or_else(|| "`lambda` is one number here".to_owned()),
        }
    }

    /// Returns the models but for the base, with the names that they have here.
    fn experts(&self, base: Option<&str>) -> Vec<(usize, String)> {
        let listed = self.models.iter().enumerate().filter(|(_, (path, _))| Some(path.as_str()) != base);
        let mut named: Vec<(usize, String)> = Vec::new();
        for (at, (path, _)) in listed {
            let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            let plain: String = last
                .chars()
                .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
                .collect();
            let mut name = if plain == "base" || plain.is_empty() { format!("model_{plain}") } else { plain };
            while named.iter().any(|(_, other)| *other == name) {
                name.push_str("_2");
            }
            named.push((at, name));
        }
        named
    }

    fn densities(&self, base: Option<&str>) -> Result<Value, String> {
        let mut densities = Map::new();
        for (at, name) in self.experts(base) {
            densities.insert(name, self.setting(Some(at), "density")?.unwrap_or_else(|| json!(1.0)));
        }
        let first = densities.values().next().cloned();
        // One for all, where it is the same for all.
        match first {
            Some(first) if densities.values().all(|density| *density == first) => Ok(first),
            _ => Ok(Value::Object(densities)),
        }
    }
}

fn parameters(scope: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    match scope.get("parameters") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(parameters)) => {
            let known = ["weight", "density", "t", "normalize", "lambda", "int8_mask", "rescale"];
            match parameters.keys().find(|key| !known.contains(&key.as_str())) {
                Some(key) => Err(format!("the parameter `{key}` is not supported")),
                None => Ok(parameters.clone()),
            }
        }
        Some(_) => Err("`parameters` is a table".to_owned()),
    }
}

fn weighed(
    scopes: &Scopes,
    base: Option<&str>,
    normalize: bool,
    method: impl FnOnce(&Scopes) -> Result<Value, String>,
) -> Result<Imported, String> {
    let mut weights = BTreeMap::new();
    let mut models = BTreeMap::new();
    for (at, name) in scopes.experts(base) {
        let path = &scopes.models[at].0;
        let weight = scopes.setting(Some(at), "weight")?;
        let weight = weight.ok_or_else(|| format!("`{path}` has no `weight`"))?;
        weights.insert(name.clone(), setting(weight)?);
        models.insert(name, path.clone());
    }
    let method = method(scopes)?;
    let method = serde_json::from_value(method).map_err(|error| error.to_string())?;
    let (ratio, weights) =
        if scopes.flag("normalize", normalize)? { (Some(weights), None) } else { (None, Some(weights)) };
    let base = base.map(str::to_owned);
    Ok(Imported { models, base, method, ratio, weights, dtype: None, notes: Vec::new() })
}

fn slerp(scopes: &Scopes, base: Option<&str>) -> Result<Imported, String> {
    let first = needed(base)?.unwrap_or_default();
    let named = scopes.experts(None);
    let [(_, one), (_, other)] = named.as_slice() else {
        return Err(format!("slerp is between two models, and there are {}", named.len()));
    };
    // `t` is the share of the model that is not called the base.
    let (from, to) = match scopes.models.iter().position(|(path, _)| path == first) {
        Some(0) => (one, other),
        Some(_) => (other, one),
        None => return Err(format!("`base_model: {first}` is not among the two models")),
    };
    let share = scopes.setting(None, "t")?.ok_or("slerp has no `t`")?;
    let ratio = BTreeMap::from([(from.clone(), setting(complement(&share))?), (to.clone(), setting(share)?)]);
    let models = named.iter().map(|(at, name)| (name.clone(), scopes.models[*at].0.clone())).collect();
    let method = serde_json::from_value(json!({ "slerp": {} })).map_err(|error| error.to_string())?;
    Ok(Imported {
        models,
        base: None,
        method,
        ratio: Some(ratio),
        weights: None,
        dtype: None,
        notes: Vec::new(),
    })
}

fn setting(value: Value) -> Result<Setting, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Returns what is left of 1.
fn complement(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(1.0 - number.as_f64().unwrap_or_default()),
        Value::Array(items) => items.iter().map(complement).collect(),
        Value::Object(rule) => {
            let mut rule = rule.clone();
            if let Some(value) = rule.get_mut("value") {
                *value = complement(value);
            }
            Value::Object(rule)
        }
        other => other.clone(),
    }
}

/// Turns a setting of mergekit into one of ours.
fn translated(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        // YAML 1.1 reads `1e-5` as a text.
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => Ok(json!(number)),
            Err(_) => Err(format!("`{text}` is not a number")),
        },
        Value::Array(items) => items.iter().map(translated).collect(),
        Value::Object(rule) if rule.contains_key("value") => {
            let mut ours = Map::new();
            if let Some(filter) = rule.get("filter").and_then(Value::as_str).filter(|filter| *filter != "*") {
                ours.insert("name_has".to_owned(), filter.into());
            }
            ours.insert("value".to_owned(), translated(&rule["value"])?);
            Ok(Value::Object(ours))
        }
        other => Err(format!("{other} is not a number, a list or a rule")),
    }
}

/// The longest recipe that is read: one may name a part of itself often.
const LONGEST_BYTES: usize = 1 << 18;

fn document(text: &str) -> Result<Value, String> {
    if text.len() > LONGEST_BYTES {
        return Err(format!("a recipe has at most {LONGEST_BYTES} bytes, and this one {}", text.len()));
    }
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("this is not YAML: {error}"))?;
    match documents.as_slice() {
        [document] => json_of(document),
        _ => Err(format!("a recipe is one document, and there are {}", documents.len())),
    }
}

fn json_of(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Real(_) => json!(yaml.as_f64().ok_or("a number cannot be read")?),
        Yaml::Integer(number) => json!(number),
        Yaml::String(text) => json!(text),
        Yaml::Boolean(truth) => json!(truth),
        Yaml::Array(items) => Value::Array(items.iter().map(json_of).collect::<Result<_, _>>()?),
        Yaml::Hash(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = key.as_str().ok_or_else(|| "a key is not a text".to_owned())?;
                Ok((key.to_owned(), json_of(value)?))
            });
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => return Err("a value cannot be read".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: Option<&BTreeMap<String, Setting>>) -> Value {
        serde_json::to_value(given.expect("they are given")).unwrap()
    }

    fn method(imported: &Imported) -> Value {
        serde_json::to_value(&imported.method).unwrap()
    }

    #[test]
    fn a_slerp_with_gradients_is_read() {
        let imported = import(
            "slices:
  - sources:
      - model: OpenPipe/mistral-ft-optimized-1218
        layer_range: [0, 32]
      - model: mlabonne/NeuralHermes-2.5
        layer_range: [0, 32]
merge_method: slerp
base_model: OpenPipe/mistral-ft-optimized-1218
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.75, 1]
    - filter: mlp
      value: [1, 0.5]
    - value: 0.25
dtype: bfloat16
",
        )
        .unwrap();
        assert_eq!(
            settings(imported.ratio.as_ref()),
            json!({
                "mistral_ft_optimized_1218": [
                    { "name_has": "self_attn", "value": [1.0, 0.5, 0.7, 0.25, 0.0] },
                    { "name_has": "mlp", "value": [0.0, 0.5] },
                    { "value": 0.75 },
                ],
                "neuralhermes_2_5": [
                    { "name_has": "self_attn", "value": [0.0, 0.5, 0.3, 0.75, 1.0] },
                    { "name_has": "mlp", "value": [1.0, 0.5] },
                    { "value": 0.25 },
                ],
            })
        );
        assert_eq!((imported.base, imported.dtype), (None, Some("bf16")));
        assert_eq!(imported.models["neuralhermes_2_5"], "mlabonne/NeuralHermes-2.5");
    }

    #[test]
    fn a_ties_with_densities_by_model_is_read() {
        let imported = import(
            "models:
  - model: psmathur/orca_mini_v3_13b
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: garage-bAInd/Platypus2-13B
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: WizardLM/WizardMath-13B-V1.0
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
  - model: TheBloke/Llama-2-13B-fp16
merge_method: ties
base_model: TheBloke/Llama-2-13B-fp16
parameters:
  normalize: true
  int8_mask: true
dtype: float16
",
        )
        .unwrap();
        assert_eq!(imported.base.as_deref(), Some("TheBloke/Llama-2-13B-fp16"));
        assert_eq!(
            settings(imported.ratio.as_ref()),
            json!({
                "orca_mini_v3_13b": 1.0,
                "platypus2_13b": [0.0, 0.3, 0.7, 1.0],
                "wizardmath_13b_v1_0": [{ "name_has": "mlp", "value": 0.5 }, { "value": 0.0 }],
            })
        );
        assert_eq!(
            method(&imported)["ties"]["density"],
            json!({ "orca_mini_v3_13b": [1.0, 0.7, 0.1], "platypus2_13b": 0.5, "wizardmath_13b_v1_0": 0.33 })
        );
        assert_eq!((imported.dtype, imported.notes.len()), (Some("f16"), 0));
    }

    #[test]
    fn what_is_not_normalised_is_weights() {
        let recipe = |method: &str, more: &str| {
            import(&format!(
                "merge_method: {method}\nbase_model: o\nmodels:\n  - {{model: x/a, parameters: {{weight: 0.3}}}}\n  \
                 - {{model: y/a, parameters: {{weight: '7e-1'}}}}\n{more}"
            ))
        };
        let weights = json!({ "a": 0.3, "a_2": 0.7 });
        let arithmetic = recipe("task_arithmetic", "parameters: {lambda: 0.5}\ndtype: bfloat16").unwrap();
        assert_eq!(settings(arithmetic.weights.as_ref()), weights);
        assert_eq!(
            method(&arithmetic),
            json!({ "task-arithmetic": { "lambda": 0.5, "intermediates": "bf16" } })
        );
        let linear = recipe("linear", "parameters: {normalize: false}").unwrap();
        assert_eq!((settings(linear.weights.as_ref()), linear.ratio), (weights.clone(), None));
        assert_eq!(settings(recipe("linear", "").unwrap().ratio.as_ref()), weights);
        let dare = recipe("dare_ties", "parameters: {density: 0.5}").unwrap();
        assert_eq!(method(&dare)["dare"]["join"], "ties");
        assert_eq!((dare.notes.len(), dare.base.as_deref()), (1, Some("o")));
        // mergekit keeps everything where no density is given.
        assert_eq!(method(&recipe("ties", "").unwrap())["ties"]["density"], 1.0);
        assert!(recipe("ties", "").unwrap().notes[0].contains("intermediates"));
    }

    #[test]
    fn rules_fall_through_to_what_is_further_out() {
        let imported = import(
            "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: [{filter: mlp, value: 2}]}}\n  \
             - {model: b}\nparameters: {weight: 3}",
        )
        .unwrap();
        let expected = json!({ "a": [{ "name_has": "mlp", "value": 2.0 }, { "value": 3.0 }], "b": 3.0 });
        assert_eq!(settings(imported.ratio.as_ref()), expected);
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let refused = |text: &str| import(text).unwrap_err();
        assert!(
            refused("merge_method: karcher\nmodels: []").contains("`merge_method: karcher` is not supported")
        );
        assert!(refused("models: []").contains("no `merge_method`"));
        assert!(refused("a: [").starts_with("this is not YAML"));
        assert!(refused("merge_method: ties\nmodels: [{model: a}]").contains("needs a `base_model`"));
        assert!(refused("merge_method: linear\nmodels: [{model: a}]").contains("`a` has no `weight`"));
        assert!(refused("merge_method: linear\nmodels: [{model: a+b}]").contains("`adapters`"));
        assert!(
            refused("merge_method: linear\nmodels: [{model: a, parameters: {epsilon: 1}}]")
                .contains("`epsilon`")
        );
        assert!(refused("merge_method: linear\nslices: [{}, {}]").contains("rearrange layers"));
        assert!(refused("merge_method: linear\nmodules: {}").contains("`modules` is not understood"));
        let density =
            "merge_method: ties\nbase_model: o\nmodels: [{model: a, parameters: {weight: 1, density: 0}}]";
        assert!(refused(density).contains("0 is not a density"));
    }
}
