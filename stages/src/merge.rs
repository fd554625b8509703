//! `kind = "merge"`: makes one model of several: SLERP, TIES, task arithmetic, soup, DARE.
//!
//! Inputs are models by name; `base` is the one that the others were tuned from, for methods
//! that work on what tuning added. What the inputs are called decides nothing but the order of
//! sums, which is that of the names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use engine::{
    Component, Context, Estimate, EstimateContext, FieldError, Isolation, NoTuning, Ports, Resources, Stage,
    StageFailure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weights::merges::Method;
use weights::{
    Adapter, Durability, Expert, MergeError, MergeOptions, ModelError, ModelFolder, Normalization, Recipe,
    Setting,
};

use crate::artifacts::{ADAPTER, WEIGHTS};
use crate::support::adapters::check_base;

/// What to merge, and how.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The method.
    method: Method,
    /// How much each model counts against the others, by the name of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ratio: Option<BTreeMap<String, Setting>>,
    /// What each model is multiplied with, in place of a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<BTreeMap<String, Setting>>,
    /// The inputs that are LoRA adapters on `base`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    adapters: BTreeSet<String>,
    /// The type of the result; else that of the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dtype: Option<Dtype>,
    /// The input whose configuration and tokenizer the result has; else the first by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer_from: Option<String>,
}

/// A type of numbers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE 754.
    F16,
    /// 16 bits, the upper half of f32.
    Bf16,
}

/// The name of the input that the others were tuned from.
const BASE: &str = "base";

impl Params {
    fn models(&self) -> &BTreeMap<String, Setting> {
        static NONE: BTreeMap<String, Setting> = BTreeMap::new();
        self.ratio.as_ref().or(self.weights.as_ref()).unwrap_or(&NONE)
    }

    fn needs_base(&self) -> bool {
        self.method.needs_base() || !self.adapters.is_empty()
    }
}

/// Merges models.
pub(crate) struct Merge;

impl Stage for Merge {
    const KIND: &'static str = "merge";
    /// 2: `tokenizer_from`, `compute_dtype`, `name_contains` and `task_arithmetic` have these names.
    const VERSION: u32 = 2;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("files_from", "tokenizer_from"),
        ("method.task-arithmetic", "method.task_arithmetic"),
        ("method.*.intermediates", "method.*.compute_dtype"),
        ("ratio.*.*.name_has", "ratio.*.*.name_contains"),
        ("weights.*.*.name_has", "weights.*.*.name_contains"),
        ("method.*.density.*.name_has", "method.*.density.*.name_contains"),
        ("method.*.density.*.*.name_has", "method.*.density.*.*.name_contains"),
    ];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let ports = params.models().keys().fold(Ports::new(), |ports, name| {
            ports.input(name, if params.adapters.contains(name) { ADAPTER } else { WEIGHTS })
        });
        let ports = if params.needs_base() { ports.input(BASE, WEIGHTS) } else { ports };
        ports.output("model", WEIGHTS)
    }

    fn components(params: &Params) -> Vec<Component> {
        vec![params.method.component()]
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: 4, ..Resources::default() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        let (models, field) = match (&params.ratio, &params.weights) {
            (Some(ratio), None) => (ratio, "ratio"),
            (None, Some(weights)) => (weights, "weights"),
            (None, None) => {
                let error = FieldError::new("", "a merge needs a `ratio`");
                return Err(error.help("write `ratio = { INPUT = 1, OTHER_INPUT = 1 }`"));
            }
            (Some(_), Some(_)) => {
                return Err(FieldError::new("weights", "a merge has a `ratio` or `weights`, not both"));
            }
        };
        if models.contains_key(BASE) {
            let message =
                format!("`{BASE}` is what the models were tuned from and has no place in `{field}`");
            return Err(FieldError::new(format!("{field}.{BASE}"), message));
        }
        let mut is_all_zeros = true;
        for (name, setting) in models {
            for (path, number) in setting.numbers() {
                let error = |message| Err(FieldError::new(&*path, message).within(name).within(field));
                if !number.is_finite() {
                    return error(format!("{number} is no weight"));
                }
                if params.ratio.is_some() && number < 0.0 {
                    return error(format!("`ratio` has {number}, and a share cannot be below 0"));
                }
                is_all_zeros &= number == 0.0;
            }
        }
        if params.ratio.is_some() && is_all_zeros {
            return Err(FieldError::new("ratio", "`ratio` is all zeros"));
        }
        let adapters = params.adapters.iter().map(|name| ("adapters", name));
        let tokenizer_from = params.tokenizer_from.iter().map(|name| ("tokenizer_from", name));
        if let Some((path, name)) =
            adapters.chain(tokenizer_from).find(|(_, name)| !models.contains_key(*name))
        {
            return Err(FieldError::new(path, format!("`{name}` is not in `{field}`")));
        }
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        params.method.check(&names, normalization(params)).map_err(|error| {
            // Without a path, the models are wrong for the method, and not a parameter of it.
            if error.path.is_empty() { error.within(field) } else { params.method.error_in("method", error) }
        })
    }

    /// The result is of the architecture of what is merged, piece by piece in little memory.
    fn estimate(params: &Params, _: &NoTuning, context: &EstimateContext<'_>) -> Estimate {
        let names = params.tokenizer_from.iter().chain(params.models().keys());
        let mut names =
            names.map(String::as_str).filter(|name| !params.adapters.contains(*name)).chain([BASE]);
        let hint = names.find_map(|name| context.input(name));
        let outputs = hint.map(|hint| ("model".to_owned(), hint.clone()));
        Estimate { outputs: outputs.into_iter().collect(), ..Estimate::default() }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let open = |name: &str, folder: &Path| {
            ModelFolder::open(folder)
                .map_err(|error| StageFailure::caused(format!("read the model `{name}`"), error))
        };
        let base = if params.needs_base() { Some(open(BASE, context.input(BASE)?)?) } else { None };
        let mut experts = Vec::with_capacity(params.models().len());
        for (name, weight) in params.models() {
            let folder = context.input(name)?;
            let (model, adapter) = match &base {
                Some(base) if params.adapters.contains(name) => {
                    check_base(folder, &context.inputs(BASE)[0])?;
                    let adapter = Adapter::open(folder)
                        .map_err(|error| StageFailure::caused(format!("read the adapter `{name}`"), error))?;
                    (base.clone(), Some(adapter))
                }
                _ if Adapter::is_in(folder) => {
                    let failure = StageFailure::new(format!("`{name}` is an adapter, not a whole model"));
                    return Err(failure
                        .help(format!("write `adapters = [\"{name}\"]`, and give its base as `{BASE}`")));
                }
                _ => (open(name, folder)?, None),
            };
            experts.push(Expert { name: name.clone(), model, adapter, weight: weight.clone() });
        }
        let recipe = Recipe {
            experts,
            base: base.filter(|_| params.method.needs_base()),
            normalization: normalization(params),
            method: params.method.clone(),
            dtype: params.dtype.map(|dtype| match dtype {
                Dtype::F32 => weights::Dtype::F32,
                Dtype::F16 => weights::Dtype::F16,
                Dtype::Bf16 => weights::Dtype::BF16,
            }),
            tokenizer_from: params.tokenizer_from.clone(),
        };
        let output = context.output("model")?;
        let threads = context.cores() as usize;
        let mut on_progress = |done, all| {
            context.progress(done, all, "bytes");
            if context.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // The cache takes care of what is to outlive a power cut.
        let options =
            MergeOptions { threads, durability: Durability::Buffered, on_progress: &mut on_progress };
        let merged = weights::merge(&recipe, &output, options).map_err(|error| failure(error, &output))?;
        context.log(format_args!("{} tensors, {} parameters", merged.tensors, merged.parameters));
        for note in merged.notes {
            context.note(note);
        }
        Ok(())
    }
}

fn normalization(params: &Params) -> Normalization {
    if params.ratio.is_some() { Normalization::SumToOne } else { Normalization::None }
}

fn failure(error: MergeError, output: &Path) -> StageFailure {
    match error {
        MergeError::Writing(ModelError::Write { file, source }) => {
            StageFailure::writing(&output.join(file))(source)
        }
        MergeError::Writing(ModelError::WriteTensor { tensor, file, source }) => {
            let path = output.join(file);
            let message = format!("failed to write tensor `{tensor}` to {}: {source}", path.display());
            StageFailure::writing(&path)(source).with_message(message)
        }
        error => StageFailure::caused("merge the models", error),
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};

    use super::*;
    use crate::support::testing::model;

    #[test]
    fn a_soup_of_one_model_twice_is_that_model() {
        let model = model();
        let params = "method.soup = {}\nratio = { one = 1, other = 3 }";
        let run = StageTest::<Merge>::new(params)
            .input_folder("one", &model.output("model"))
            .input_folder("other", &model.output("model"))
            .run()
            .unwrap();
        let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = |folder: &Path| ModelFolder::open(folder).unwrap().tensors().len();
        let (merged, original) = (run.output("model"), model.output("model"));
        assert_eq!(tensors(&merged), tensors(&original));
        assert!(bytes(&merged) == bytes(&original), "a mean of equal numbers is that number");
        assert!(run.log().contains(" tensors, "), "{}", run.log());
        let last = run.progress().last().unwrap();
        assert_eq!((last.done, last.unit.as_str()), (last.all, "bytes"));
    }

    #[test]
    fn a_model_that_is_none_is_named() {
        let model = model();
        let failure = StageTest::<Merge>::new("method.soup = {}\nratio = { one = 1, other = 3 }")
            .input_folder("one", &model.output("model"))
            .input("other", &[("readme", "nothing here")])
            .run()
            .unwrap_err();
        assert!(failure.message.starts_with("failed to read the model `other`: "), "{failure}");
    }

    #[test]
    fn ports_are_the_models_and_the_base_where_it_is_needed() {
        let models = || Ports::new().input("a", WEIGHTS).input("b", WEIGHTS);
        let of = |method: &str, more: &str| {
            ports::<Merge>(&format!("method.{method}\nratio = {{ a = 1, b = 1 }}\n{more}")).unwrap()
        };
        assert_eq!(of("soup = {}", ""), models().output("model", WEIGHTS));
        assert_eq!(of("ties = {}", ""), models().input("base", WEIGHTS).output("model", WEIGHTS));
        let adapted = Ports::new().input("a", WEIGHTS).input("b", ADAPTER).input("base", WEIGHTS);
        assert_eq!(of("soup = {}", "adapters = ['b']"), adapted.output("model", WEIGHTS));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Merge>(params).unwrap_err().path;
        assert_eq!(path("method.soup = {}"), "");
        assert_eq!(path("method.soup = {}\nratio = { a = 1, b = [1, -2] }"), "ratio.b[1]");
        assert_eq!(path("method.soup = {}\nratio = { a = 0, b = 0 }"), "ratio");
        assert_eq!(path("method.soup = {}\nratio = { a = 1, base = 1 }"), "ratio.base");
        assert_eq!(path("method.soup = {}\nratio.a = 1"), "ratio");
        assert_eq!(path("method.soup = {}\nratio = { a = 1, b = 1 }\nweights = { a = 1 }"), "weights");
        assert_eq!(path("method.slerp = {}\nweights = { a = 1, b = 1 }"), "weights");
        assert_eq!(path("method.soup = {}\nratio = { a = 1, b = 1 }\nadapters = ['c']"), "adapters");
        assert_eq!(
            path("method.soup = {}\nratio = { a = 1, b = 1 }\ntokenizer_from = 'c'"),
            "tokenizer_from"
        );
        let rule = "method.ties.density = { a = 1, b = [{ value = [0.5, 2] }] }\nratio = { a = 1, b = 1 }";
        assert_eq!(path(rule), "method.ties.density.b[0].value[1]");
        let layers = "method.ties.density = [{ layers = [3, 3], value = 1 }]\nratio = { a = 1, b = 1 }";
        assert_eq!(path(layers), "method.ties.density[0].layers");
    }
}
