//! Reads the recipes of mergekit.
//!
//! What a recipe asks for and this crate does otherwise, or cannot do, is told: what would change
//! the result is an error, the rest is a note. Written for mergekit 0.1.5.

use crate::merges::Method;
use crate::setting::Setting;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

/// A recipe of mergekit, in our words.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The models by the names that they are given here, and where mergekit would look for them.
    pub models: BTreeMap<String, String>,
    /// Those of them that are adapters on the base.
    pub adapters: BTreeSet<String>,
    /// The model that they were tuned from, where the method or an adapter needs it.
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
    /// The models, as the recipe calls them.
    models: Vec<String>,
    /// One, or several that follow upon each other.
    slices: Vec<Slice>,
    top: Map<String, Value>,
}

/// Where models are.
#[derive(Default)]
struct Places {
    models: BTreeMap<String, String>,
    adapters: BTreeSet<String>,
    base: Option<String>,
}

/// Some layers of all models.
struct Slice {
    /// From this one to before that one; all of them, if there is but one slice.
    layers: Option<[u64; 2]>,
    /// By model.
    own: Vec<Map<String, Value>>,
    shared: Map<String, Value>,
}

impl Scopes {
    fn of(recipe: &Map<String, Value>, notes: &mut Vec<String>) -> Result<Self, String> {
        let top = parameters(recipe)?;
        let (models, slices) = match (recipe.get("models"), recipe.get("slices")) {
            (Some(Value::Array(models)), None) => {
                let (names, own) = listed(models)?.into_iter().unzip();
                (names, vec![Slice { layers: None, own, shared: Map::new() }])
            }
            (None, Some(Value::Array(slices))) => {
                let slices = sliced(slices)?;
                notes.push(match slices.1.as_slice() {
                    [_] => "the slice is taken for all of the layers".to_owned(),
                    _ => "the slices are taken for all of the layers".to_owned(),
                });
                slices
            }
            _ => return Err("a recipe has either `models` or `slices`".to_owned()),
        };
        Ok(Self { models, slices, top })
    }

    /// Returns a parameter of a model: its own, and what it leaves open from further out.
    fn setting(&self, model: Option<usize>, key: &str) -> Result<Option<Value>, String> {
        let each = self.slices.iter().map(|slice| self.setting_in(slice, model, key));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        let [first, .., last] = each.as_slice() else { return Ok(each.into_iter().next().flatten()) };
        if each.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut rules = Vec::new();
        for (slice, value) in self.slices.iter().zip(&each) {
            for mut rule in closed(value.as_ref(), key)? {
                rule.insert("layers".to_owned(), json!(slice.layers));
                rules.push(Value::Object(rule));
            }
        }
        // What is in no layer has the parameters of the slice that it is next to, at its beginning.
        let outside = |value: &Option<Value>| -> Result<Vec<_>, String> {
            let mut rules = closed(value.as_ref(), key)?;
            rules.iter_mut().for_each(|rule| rule["value"] = first_of(&rule["value"]));
            Ok(rules)
        };
        let (before, after) = (outside(first)?, outside(last)?);
        match before.as_slice() {
            _ if before == after => {}
            [only] => rules.push(json!({ "name_has": "embed", "value": only["value"] })),
            _ => return Err(format!("filters of `{key}` in the first of several slices are not supported")),
        }
        rules.extend(after.into_iter().map(Value::Object));
        Ok(Some(Value::Array(rules)))
    }

    fn setting_in(&self, slice: &Slice, model: Option<usize>, key: &str) -> Result<Option<Value>, String> {
        let own = model.map(|model| &slice.own[model]);
        let mut rules: Vec<Value> = Vec::new();
        for scope in own.into_iter().chain([&slice.shared, &self.top]) {
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
        let each: Vec<_> =
            self.slices.iter().map(|slice| slice.shared.get(key).or(self.top.get(key))).collect();
        if each.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("`{key}` is the same in all slices here"));
        }
        match each.first().copied().flatten() {
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
        let listed = self.models.iter().enumerate().filter(|(_, path)| Some(path.as_str()) != base);
        let mut named: Vec<(usize, String)> = Vec::new();
        for (at, path) in listed {
            let last = path.trim_end_matches('/').rsplit(['/', '+']).next().unwrap_or(path);
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

    fn places(&self, named: &[(usize, String)], base: Option<&str>) -> Result<Places, String> {
        if let Some(base) = base.filter(|base| base.contains('+')) {
            return Err(format!("`base_model: {base}` is a model with an adapter, which is not supported"));
        }
        let mut places = Places { base: base.map(str::to_owned), ..Places::default() };
        for (at, name) in named {
            let mut path = self.models[*at].as_str();
            if let Some((under, adapter)) = path.split_once('+') {
                let base = places.base.get_or_insert_with(|| under.to_owned());
                if base != under {
                    return Err(format!("`{path}` is an adapter on another model than `{base}`"));
                }
                places.adapters.insert(name.clone());
                path = adapter;
            }
            places.models.insert(name.clone(), path.to_owned());
        }
        Ok(places)
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
    let named = scopes.experts(base);
    let mut weights = BTreeMap::new();
    for (at, name) in &named {
        let weight = scopes.setting(Some(*at), "weight")?;
        let weight = weight.ok_or_else(|| format!("`{}` has no `weight`", scopes.models[*at]))?;
        weights.insert(name.clone(), setting(weight)?);
    }
    let Places { models, adapters, base } = scopes.places(&named, base)?;
    let method = method(scopes)?;
    let method = serde_json::from_value(method).map_err(|error| error.to_string())?;
    let (ratio, weights) =
        if scopes.flag("normalize", normalize)? { (Some(weights), None) } else { (None, Some(weights)) };
    Ok(Imported { models, adapters, base, method, ratio, weights, dtype: None, notes: Vec::new() })
}

fn slerp(scopes: &Scopes, base: Option<&str>) -> Result<Imported, String> {
    let first = needed(base)?.unwrap_or_default();
    let named = scopes.experts(None);
    let [(_, one), (_, other)] = named.as_slice() else {
        return Err(format!("slerp is between two models, and there are {}", named.len()));
    };
    // `t` is the share of the model that is not called the base.
    let (from, to) = match scopes.models.iter().position(|path| path == first) {
        Some(0) => (one, other),
        Some(_) => (other, one),
        None => return Err(format!("`base_model: {first}` is not among the two models")),
    };
    let share = scopes.setting(None, "t")?.ok_or("slerp has no `t`")?;
    let ratio = BTreeMap::from([(from.clone(), setting(complement(&share))?), (to.clone(), setting(share)?)]);
    let Places { models, adapters, base } = scopes.places(&named, None)?;
    let method = serde_json::from_value(json!({ "slerp": {} })).map_err(|error| error.to_string())?;
    Ok(Imported {
        models,
        adapters,
        base,
        method,
        ratio: Some(ratio),
        weights: None,
        dtype: None,
        notes: Vec::new(),
    })
}

/// What a model is called, and its parameters.
type Listed = (String, Map<String, Value>);

/// Reads a list of models.
fn listed(models: &[Value]) -> Result<Vec<Listed>, String> {
    let mut found = Vec::with_capacity(models.len());
    for model in models {
        let name = model.get("model").and_then(Value::as_str).ok_or("a model has no `model`")?;
        found.push((name.to_owned(), parameters(model.as_object().expect("it has a key"))?));
    }
    Ok(found)
}

/// Reads slices, which must be the layers of all models in their order.
fn sliced(slices: &[Value]) -> Result<(Vec<String>, Vec<Slice>), String> {
    let rearranged = || "slices that rearrange layers or leave some out are not supported".to_owned();
    let mut models: Vec<String> = Vec::new();
    let mut read = Vec::new();
    let mut next = 0;
    for slice in slices {
        let slice = slice.as_object().ok_or("a slice is a table")?;
        let sources = slice.get("sources").and_then(Value::as_array).ok_or("a slice has no `sources`")?;
        let mut own = listed(sources)?;
        if models.is_empty() {
            models = own.iter().map(|(name, _)| name.clone()).collect();
        }
        // In the order of the first slice.
        own.sort_by_key(|(name, _)| models.iter().position(|model| model == name));
        if !own.iter().map(|(name, _)| name).eq(&models) {
            return Err("slices of different models are not supported".to_owned());
        }
        let ranges = sources.iter().map(|source| serde_json::from_value(source["layer_range"].clone()));
        let ranges: Vec<[u64; 2]> =
            ranges.collect::<Result<_, _>>().map_err(|_| "a source of a slice has no `layer_range`")?;
        let [start, end] = *ranges.first().ok_or("a slice has no `sources`")?;
        if ranges.iter().any(|range| *range != [start, end]) || start != next || end <= start {
            return Err(rearranged());
        }
        next = end;
        let own = own.into_iter().map(|(_, own)| own).collect();
        read.push(Slice { layers: Some([start, end]), own, shared: parameters(slice)? });
    }
    if models.is_empty() {
        return Err("there are no `slices`".to_owned());
    }
    Ok((models, read))
}

/// Returns a setting as rules of which one fits whatever is asked for.
fn closed(value: Option<&Value>, key: &str) -> Result<Vec<Map<String, Value>>, String> {
    let open = || format!("`{key}` is not given for every tensor of every slice");
    let rules: Vec<Map<String, Value>> = match value.ok_or_else(open)? {
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().filter_map(Value::as_object).cloned().collect()
        }
        value => vec![Map::from_iter([("value".to_owned(), value.clone())])],
    };
    if rules.iter().any(|rule| !rule.contains_key("name_has")) { Ok(rules) } else { Err(open()) }
}

/// Returns the number that a list begins with.
fn first_of(value: &Value) -> Value {
    value.get(0).unwrap_or(value).clone()
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

/// The longest recipe that is read, and how much it may be with a part wherever its name stands: a
/// few lines that name each other are more than any memory.
const LONGEST_BYTES: usize = 1 << 18;

/// How deep a recipe may be nested.
const DEEPEST: usize = 64;

fn document(text: &str) -> Result<Value, String> {
    if text.len() > LONGEST_BYTES {
        return Err(format!("a recipe has at most {LONGEST_BYTES} bytes, and this one {}", text.len()));
    }
    check_size(text)?;
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("this is not YAML: {error}"))?;
    match documents.as_slice() {
        [document] => json_of(document),
        _ => Err(format!("a recipe is one document, and there are {}", documents.len())),
    }
}

/// Checks how large and how deep a recipe is with every alias in full, of which none is written out.
fn check_size(text: &str) -> Result<(), String> {
    let mut parser = Parser::new_from_str(text);
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    // Of the parts that have begun, the names, as numbers, and the sizes so far; the whole is first.
    let mut begun: Vec<(usize, usize)> = vec![(0, 0)];
    loop {
        let (event, _) = parser.next_token().map_err(|error| format!("this is not YAML: {error}"))?;
        let mut ended = match event {
            Event::StreamEnd => return Ok(()),
            Event::SequenceStart(name, _) | Event::MappingStart(name, _) => {
                begun.push((name, 1));
                if begun.len() > DEEPEST {
                    return Err(format!("a recipe is nested at most {DEEPEST} deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => begun.pop().expect("what ends has begun"),
            Event::Scalar(text, _, name, _) => (name, 1 + text.len()),
            // One that is part of itself is an error of the loader.
            Event::Alias(name) => (0, sizes.get(&name).copied().unwrap_or(1)),
            _ => continue,
        };
        let (name, size) = &mut ended;
        let whole = &mut begun.last_mut().expect("the whole never ends").1;
        *whole = whole.saturating_add(*size);
        if *whole > LONGEST_BYTES {
            return Err(format!("a recipe with every alias in full has at most {LONGEST_BYTES} bytes"));
        }
        if *name > 0 {
            sizes.insert(*name, *size);
        }
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
    fn adapters_stand_on_their_base() {
        let imported = import(
            "merge_method: ties\nbase_model: org/root\nparameters: {density: 0.5}\nmodels:\n  \
             - {model: org/root+me/tuned, parameters: {weight: 1}}\n  - {model: org/whole, parameters: {weight: 2}}",
        )
        .unwrap();
        assert_eq!(imported.base.as_deref(), Some("org/root"));
        assert_eq!(imported.adapters.iter().collect::<Vec<_>>(), ["tuned"]);
        assert_eq!((&*imported.models["tuned"], &*imported.models["whole"]), ("me/tuned", "org/whole"));
        // A method that needs no base has one for the adapter.
        let slerp =
            "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: a+b}]\nparameters: {t: 0.25}";
        let imported = import(slerp).unwrap();
        assert_eq!((imported.base.as_deref(), imported.adapters.len()), (Some("a"), 1));
        assert_eq!(settings(imported.ratio.as_ref()), json!({ "a": 0.75, "b": 0.25 }));
    }

    #[test]
    fn slices_are_rules_for_their_layers() {
        let imported = import(
            "merge_method: linear
slices:
  - sources:
      - {model: a, layer_range: [0, 4], parameters: {weight: [1, 2]}}
      - {model: b, layer_range: [0, 4]}
  - sources:
      - {model: b, layer_range: [4, 8]}
      - {model: a, layer_range: [4, 8], parameters: {weight: [{filter: mlp, value: 3}, {value: 4}]}}
parameters: {weight: 5}
",
        )
        .unwrap();
        assert_eq!(
            settings(imported.ratio.as_ref()),
            json!({
                "a": [
                    { "layers": [0, 4], "value": [1.0, 2.0] },
                    { "layers": [4, 8], "name_has": "mlp", "value": 3.0 },
                    { "layers": [4, 8], "value": 4.0 },
                    { "name_has": "embed", "value": 1.0 },
                    { "name_has": "mlp", "value": 3.0 },
                    { "value": 4.0 },
                ],
                "b": [
                    { "layers": [0, 4], "value": 5.0 },
                    { "layers": [4, 8], "value": 5.0 },
                    { "value": 5.0 },
                ],
            })
        );
    }

    #[test]
    fn a_recipe_that_is_small_and_unfolds_to_anything_is_refused() {
        let mut bomb = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for (name, before) in ('b'..='z').zip('a'..) {
            bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
        }
        let refused = |text: &str| import(text).unwrap_err();
        assert_eq!(refused(&bomb), "a recipe with every alias in full has at most 262144 bytes");
        let text = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 16), ["*a"; 9].join(", "));
        assert!(refused(&text).contains("with every alias in full"));
        for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(60_000)] {
            let error = refused(&deep);
            // The parser has a limit of its own for brackets.
            assert!(error.contains("nested at most 64 deep") || error.contains("recursion limit"), "{error}");
        }
        // Aliases as people use them.
        let recipe = "merge_method: linear\nmodels:\n  - {model: a, parameters: &p {weight: 0.5}}\n  \
                      - {model: b, parameters: *p}\n";
        assert_eq!(settings(import(recipe).unwrap().ratio.as_ref()), json!({ "a": 0.5, "b": 0.5 }));
        assert!(import("a: &a [*a]").is_err());
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
        assert!(
            refused("merge_method: linear\nmodels: [{model: a+b}, {model: c+d}]\nparameters: {weight: 1}")
                .contains("`c+d` is an adapter on another model than `a`")
        );
        assert!(
            refused("merge_method: ties\nbase_model: a+b\nmodels: [{model: a}]\nparameters: {weight: 1}")
                .contains("`base_model: a+b` is a model with an adapter")
        );
        assert!(
            refused("merge_method: linear\nmodels: [{model: a, parameters: {epsilon: 1}}]")
                .contains("`epsilon`")
        );
        let slices = |second: &str, model: &str| {
            refused(&format!(
                "merge_method: linear\nslices:\n  - sources: [{{model: a, layer_range: [0, 4]}}]\n  \
                 - sources: [{{model: {model}, layer_range: {second}}}]\nparameters: {{weight: 1}}"
            ))
        };
        assert!(slices("[5, 8]", "a").contains("rearrange layers"));
        assert!(slices("[4, 8]", "b").contains("slices of different models"));
        assert!(refused("merge_method: linear\nslices: []").contains("no `slices`"));
        assert!(refused("merge_method: linear\nmodules: {}").contains("`modules` is not understood"));
        let density =
            "merge_method: ties\nbase_model: o\nmodels: [{model: a, parameters: {weight: 1, density: 0}}]";
        assert!(refused(density).contains("0 is not a density"));
    }
}
