//! The parameters of a recipe, which are given by model, by slice or for the whole recipe.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The parameters: of a model, then of a slice, then of the whole recipe.
pub(super) struct Scopes {
    /// The models by their names in the recipe.
    pub models: Vec<String>,
    /// One slice, or several consecutive ones.
    slices: Vec<Slice>,
    top: Map<String, Value>,
}

/// The paths of models.
#[derive(Default)]
pub(super) struct ModelPaths {
    pub models: BTreeMap<String, String>,
    pub adapters: BTreeSet<String>,
    pub base: Option<String>,
}

/// A range of layers of all models.
struct Slice {
    /// From this one to before that one; all of them, if there is but one slice.
    layers: Option<[u64; 2]>,
    /// By model.
    own: Vec<Map<String, Value>>,
    shared: Map<String, Value>,
}

impl Scopes {
    pub(super) fn of(recipe: &Map<String, Value>, notes: &mut Vec<String>) -> Result<Self, String> {
        let top = parameters(recipe)?;
        let (models, slices) = match (recipe.get("models"), recipe.get("slices")) {
            (Some(Value::Array(models)), None) => {
                let (names, own) = model_entries(models)?.into_iter().unzip();
                (names, vec![Slice { layers: None, own, shared: Map::new() }])
            }
            (None, Some(Value::Array(slices))) => {
                let slices = read_slices(slices)?;
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

    /// Returns a parameter of a model: its own value, completed by those of the slice and the recipe.
    pub(super) fn setting(&self, model: Option<usize>, key: &str) -> Result<Option<Value>, String> {
        let each = self.slices.iter().map(|slice| self.setting_in(slice, model, key));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        let [first, .., last] = each.as_slice() else { return Ok(each.into_iter().next().flatten()) };
        if each.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut rules = Vec::new();
        for (slice, value) in self.slices.iter().zip(&each) {
            for mut rule in exhaustive_rules(value.as_ref(), key)? {
                rule.insert("layers".to_owned(), json!(slice.layers));
                rules.push(Value::Object(rule));
            }
        }
        // Tensors outside all layers have the parameters of the first or the last slice, at its start.
        let outside = |value: &Option<Value>| -> Result<Vec<_>, String> {
            let mut rules = exhaustive_rules(value.as_ref(), key)?;
            rules.iter_mut().for_each(|rule| rule["value"] = first_value(&rule["value"]));
            Ok(rules)
        };
        let (before, after) = (outside(first)?, outside(last)?);
        match before.as_slice() {
            _ if before == after => {}
            [only] => rules.push(json!({ "name_contains": "embed", "value": only["value"] })),
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
            match convert_setting(value).map_err(|what| format!("`{key}`: {what}"))? {
                Value::Array(items) if items.iter().all(Value::is_object) => {
                    let is_closed = items.iter().any(|rule| rule.get("name_contains").is_none());
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

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        let each: Vec<_> =
            self.slices.iter().map(|slice| slice.shared.get(key).or(self.top.get(key))).collect();
        if each.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("`{key}` must be the same in all slices"));
        }
        match each.first().copied().flatten() {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| format!("`{key}` must be true or false")),
        }
    }

    pub(super) fn lambda(&self) -> Result<f64, String> {
        match self.setting(None, "lambda")? {
            None => Ok(1.0),
            Some(value) => value.as_f64().ok_or_else(|| "`lambda` must be a single number".to_owned()),
        }
    }

    /// Returns the models without the base, with their names here.
    pub(super) fn experts(&self, base: Option<&str>) -> Vec<(usize, String)> {
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

    pub(super) fn model_paths(
        &self,
        named: &[(usize, String)],
        base: Option<&str>,
    ) -> Result<ModelPaths, String> {
        if let Some(base) = base.filter(|base| base.contains('+')) {
            return Err(format!("`base_model: {base}` is a model with an adapter, which is not supported"));
        }
        let mut paths = ModelPaths { base: base.map(str::to_owned), ..ModelPaths::default() };
        for (at, name) in named {
            let mut path = self.models[*at].as_str();
            if let Some((under, adapter)) = path.split_once('+') {
                let base = paths.base.get_or_insert_with(|| under.to_owned());
                if base != under {
                    return Err(format!("`{path}` is an adapter on another model than `{base}`"));
                }
                paths.adapters.insert(name.clone());
                path = adapter;
            }
            paths.models.insert(name.clone(), path.to_owned());
        }
        Ok(paths)
    }

    pub(super) fn densities(&self, base: Option<&str>) -> Result<Value, String> {
        let mut densities = Map::new();
        for (at, name) in self.experts(base) {
            densities.insert(name, self.setting(Some(at), "density")?.unwrap_or_else(|| json!(1.0)));
        }
        let first = densities.values().next().cloned();
        // A single value, if it is the same for all models.
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

/// The name of a model, and its parameters.
type ModelEntry = (String, Map<String, Value>);

/// Reads a list of models.
fn model_entries(models: &[Value]) -> Result<Vec<ModelEntry>, String> {
    let mut entries = Vec::with_capacity(models.len());
    for model in models {
        let name = model.get("model").and_then(Value::as_str).ok_or("a model has no `model`")?;
        entries.push((name.to_owned(), parameters(model.as_object().expect("it has a key"))?));
    }
    Ok(entries)
}

/// Reads slices, which must be the layers of all models in their order.
fn read_slices(slices: &[Value]) -> Result<(Vec<String>, Vec<Slice>), String> {
    let rearranged = || "slices that rearrange layers or leave some out are not supported".to_owned();
    let mut models: Vec<String> = Vec::new();
    let mut read = Vec::new();
    let mut next = 0;
    for slice in slices {
        let slice = slice.as_object().ok_or("a slice is a table")?;
        let sources = slice.get("sources").and_then(Value::as_array).ok_or("a slice has no `sources`")?;
        let mut own = model_entries(sources)?;
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

/// Returns a setting as rules that cover every tensor.
fn exhaustive_rules(value: Option<&Value>, key: &str) -> Result<Vec<Map<String, Value>>, String> {
    let open = || format!("`{key}` is not given for every tensor of every slice");
    let rules: Vec<Map<String, Value>> = match value.ok_or_else(open)? {
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().filter_map(Value::as_object).cloned().collect()
        }
        value => vec![Map::from_iter([("value".to_owned(), value.clone())])],
    };
    if rules.iter().any(|rule| !rule.contains_key("name_contains")) { Ok(rules) } else { Err(open()) }
}

/// Returns the first number of a list.
fn first_value(value: &Value) -> Value {
    value.get(0).unwrap_or(value).clone()
}

/// Converts a setting of mergekit.
fn convert_setting(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        // YAML 1.1 reads `1e-5` as a text.
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => Ok(json!(number)),
            Err(_) => Err(format!("`{text}` is not a number")),
        },
        Value::Array(items) => items.iter().map(convert_setting).collect(),
        Value::Object(rule) if rule.contains_key("value") => {
            let mut ours = Map::new();
            if let Some(filter) = rule.get("filter").and_then(Value::as_str).filter(|filter| *filter != "*") {
                ours.insert("name_contains".to_owned(), filter.into());
            }
            ours.insert("value".to_owned(), convert_setting(&rule["value"])?);
            Ok(Value::Object(ours))
        }
        other => Err(format!("{other} is not a number, a list or a rule")),
    }
}
