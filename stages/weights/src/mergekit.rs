//! Reads the recipes of mergekit.
//!
//! What this crate does differently, or cannot do, is reported: as an error if it would change the
//! result, else as a note. Written for mergekit 0.1.5.

mod scopes;
mod yaml;

use self::scopes::{ModelPaths, Scopes};
use crate::expert::Normalization;
use crate::merges::Method;
use crate::setting::Setting;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A recipe of mergekit in the terms of this crate.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The models by name, and where mergekit would look for them.
    pub models: BTreeMap<String, String>,
    /// Those of them that are adapters on the base.
    pub adapters: BTreeSet<String>,
    /// The model that they were tuned from, where the method or an adapter needs it.
    pub base: Option<String>,
    /// The method.
    pub method: Method,
    /// The weights that are normalised; else `weights` are given.
    pub ratio: Option<BTreeMap<String, Setting>>,
    /// The weights that are used as they are.
    pub weights: Option<BTreeMap<String, Setting>>,
    /// The type of the result: `f32`, `f16` or `bf16`.
    pub dtype: Option<&'static str>,
    /// What is different here, or remains to be done.
    pub notes: Vec<String>,
}

/// Reads a recipe.
///
/// # Errors
/// If it is not YAML, is not a recipe, or needs something that this crate does not support.
pub fn import(text: &str) -> Result<Imported, String> {
    let recipe = yaml::parse(text)?;
    let recipe = recipe.as_object().ok_or("a recipe is a table with `merge_method`")?;
    if let Some(key) = recipe.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!("`{key}` is not supported"));
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
        "linear" => weighted_method(&scopes, None, true, |_| Ok(json!({ "soup": {} })))?,
        "task_arithmetic" => weighted_method(&scopes, required(base)?, false, |scopes| {
            let mut method = json!({ "lambda": scopes.lambda()? });
            note_intermediates(&mut method, bf16, dtype.is_some(), &mut notes);
            Ok(json!({ "task_arithmetic": method }))
        })?,
        "ties" => weighted_method(&scopes, required(base)?, true, |scopes| {
            if scopes.flag("rescale", false)? {
                return Err("`rescale` of ties is not supported".to_owned());
            }
            let mut method = json!({ "lambda": scopes.lambda()?, "density": scopes.densities(base)? });
            note_intermediates(&mut method, bf16, dtype.is_some(), &mut notes);
            Ok(json!({ "ties": method }))
        })?,
        "dare_linear" | "dare_ties" => weighted_method(&scopes, required(base)?, false, |scopes| {
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
    let (weights, normalization) = match (&imported.ratio, &imported.weights) {
        (Some(ratio), _) => (Some(ratio), Normalization::SumToOne),
        (None, weights) => (weights.as_ref(), Normalization::None),
    };
    let names: Vec<&str> = weights.into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    imported.method.check(&names, normalization).map_err(|error| error.message)?;
    Ok(Imported { dtype, notes, ..imported })
}

/// The fields of a recipe.
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

/// Fields that are read and not followed.
const UNUSED: [(&str, &str); 3] = [
    (
        "tokenizer_source",
        "vocabularies have to be the same here; `tokenizer_from` says whose tokenizer is taken",
    ),
    ("tokenizer", "vocabularies have to be the same here; `tokenizer_from` says whose tokenizer is taken"),
    ("chat_template", "the template is that of the model that `tokenizer_from` names"),
];

fn required(base: Option<&str>) -> Result<Option<&str>, String> {
    base.map(Some).ok_or_else(|| "the method needs a `base_model`".to_owned())
}

fn note_intermediates(method: &mut Value, bf16: bool, has_dtype: bool, notes: &mut Vec<String>) {
    if bf16 {
        method["compute_dtype"] = "bf16".into();
    } else if !has_dtype {
        notes.push(
            "without `dtype` mergekit computes in the type of the models: for models of bf16 add \
             `compute_dtype = \"bf16\"` to have its rounding"
                .to_owned(),
        );
    }
}

fn weighted_method(
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
    let ModelPaths { models, adapters, base } = scopes.model_paths(&named, base)?;
    let method = method(scopes)?;
    let method = serde_json::from_value(method).map_err(|error| error.to_string())?;
    let (ratio, weights) =
        if scopes.flag("normalize", normalize)? { (Some(weights), None) } else { (None, Some(weights)) };
    Ok(Imported { models, adapters, base, method, ratio, weights, dtype: None, notes: Vec::new() })
}

fn slerp(scopes: &Scopes, base: Option<&str>) -> Result<Imported, String> {
    let first = required(base)?.unwrap_or_default();
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
    let ModelPaths { models, adapters, base } = scopes.model_paths(&named, None)?;
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

fn setting(value: Value) -> Result<Setting, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Returns 1 minus a value.
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
                    { "name_contains": "self_attn", "value": [1.0, 0.5, 0.7, 0.25, 0.0] },
                    { "name_contains": "mlp", "value": [0.0, 0.5] },
                    { "value": 0.75 },
                ],
                "neuralhermes_2_5": [
                    { "name_contains": "self_attn", "value": [0.0, 0.5, 0.3, 0.75, 1.0] },
                    { "name_contains": "mlp", "value": [1.0, 0.5] },
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
                "wizardmath_13b_v1_0": [{ "name_contains": "mlp", "value": 0.5 }, { "value": 0.0 }],
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
            json!({ "task_arithmetic": { "lambda": 0.5, "compute_dtype": "bf16" } })
        );
        let linear = recipe("linear", "parameters: {normalize: false}").unwrap();
        assert_eq!((settings(linear.weights.as_ref()), linear.ratio), (weights.clone(), None));
        assert_eq!(settings(recipe("linear", "").unwrap().ratio.as_ref()), weights);
        let dare = recipe("dare_ties", "parameters: {density: 0.5}").unwrap();
        assert_eq!(method(&dare)["dare"]["join"], "ties");
        assert_eq!((dare.notes.len(), dare.base.as_deref()), (1, Some("o")));
        // mergekit keeps everything where no density is given.
        assert_eq!(method(&recipe("ties", "").unwrap())["ties"]["density"], 1.0);
        assert!(recipe("ties", "").unwrap().notes[0].contains("compute_dtype"));
    }

    #[test]
    fn rules_fall_through_to_what_is_further_out() {
        let imported = import(
            "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: [{filter: mlp, value: 2}]}}\n  \
             - {model: b}\nparameters: {weight: 3}",
        )
        .unwrap();
        let expected = json!({ "a": [{ "name_contains": "mlp", "value": 2.0 }, { "value": 3.0 }], "b": 3.0 });
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
                    { "layers": [4, 8], "name_contains": "mlp", "value": 3.0 },
                    { "layers": [4, 8], "value": 4.0 },
                    { "name_contains": "embed", "value": 1.0 },
                    { "name_contains": "mlp", "value": 3.0 },
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
    fn what_is_not_supported_is_an_error() {
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
        assert!(refused("merge_method: linear\nmodules: {}").contains("`modules` is not supported"));
        let density =
            "merge_method: ties\nbase_model: o\nmodels: [{model: a, parameters: {weight: 1, density: 0}}]";
        assert!(refused(density).contains("0 is not a density"));
    }
}
