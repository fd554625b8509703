//! `kind = "merge"`: makes one model of several: SLERP, TIES, task arithmetic, soup, DARE.
//!
//! Inputs are models by name; `base` is the one that the others were tuned from, for methods
//! that work on what tuning added. What the inputs are called decides nothing but the order of
//! sums, which is that of the names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use engine::{
    Component, Context, Estimate, EstimateContext, Isolation, NoTuning, Ports, Resources, Stage, StageFailure,
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
pub struct Params {
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
pub struct Merge;

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

    fn check(params: &Params) -> Result<(), String> {
        let (models, what) = match (&params.ratio, &params.weights) {
            (Some(ratio), None) => (ratio, "ratio"),
            (None, Some(weights)) => (weights, "weights"),
            (None, None) => {
                return Err("a merge needs a `ratio`, such as `{ one = 1, other = 1 }`".to_owned());
            }
            (Some(_), Some(_)) => return Err("a merge has a `ratio` or `weights`, not both".to_owned()),
        };
        if models.contains_key(BASE) {
            return Err(format!("`{BASE}` is what the models were tuned from and has no place in `{what}`"));
        }
        let numbers: Vec<f64> = models.values().flat_map(Setting::numbers).collect();
        if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(format!("{number} is no weight"));
        }
        if params.ratio.is_some() {
            if let Some(number) = numbers.iter().find(|number| **number < 0.0) {
                return Err(format!("`ratio` holds {number}, and a share cannot be below 0"));
            }
            if numbers.iter().all(|number| *number == 0.0) {
                return Err("`ratio` is all zeros".to_owned());
            }
        }
        let named = params.adapters.iter().chain(&params.tokenizer_from);
        if let Some(name) = named.into_iter().find(|name| !models.contains_key(*name)) {
            return Err(format!("`{name}` is not in `{what}`"));
        }
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        params.method.check(&names, normalization(params))
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
