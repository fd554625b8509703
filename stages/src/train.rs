//! `kind = "train"`: fits a model to rows, minimising one objective.
//!
//! The model begins from scratch, with a tokenizer as its input, or from weights. A training
//! that is killed goes on from its last checkpoint, and ends with the same bytes.

use std::path::Path;

use engine::{
    ArtifactType, Better, Component, Context, Estimate, EstimateContext, FieldError, Isolation, Memory,
    OutputColumn, OutputHint, Pick, Ports, Resources, Stage, StageFailure,
};
use learn::{
    AdamW, AdapterMethod, Architecture, Compared, Feed, Length, Model, Objective, Point, Precision,
    ReferenceSource, Schedule, Throughput, TrainError, TrainEvent, TrainHooks, Training, TrainingConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::{ADAPTER, CURVES, LOGPS, THROUGHPUT, TOKENIZER, WEIGHTS};
use crate::reference::read_logps;
use crate::support::adapters::{check_base, name_base};
use crate::support::devices::parse_devices;
use crate::support::examples::{Reader, artifact_of};
use crate::support::memory::{self, model_hint, most_tokens, sizes_of, text_tokens};
use crate::support::prompts::{BY_DIRECTIONS, Prompts};
use crate::support::rows::{RowWriter, write_json};
use crate::support::tensorboard::{curve_scalars, throughput_scalars, write_events};

/// How to fit a model. The defaults are the papers'.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The architecture of a model made from scratch; from weights it comes with them.
    model: Option<Architecture>,
    /// What is minimised.
    objective: Objective,
    /// What is learnt instead of all weights.
    adapter: Option<AdapterMethod>,
    /// The prompts, by direction: each row is learnt in each.
    prompts: Prompts,
    /// The highest learning rate.
    #[serde(default = "learning_rate")]
    learning_rate: f64,
    /// How it falls after the warm-up.
    #[serde(default = "schedule")]
    schedule: Schedule,
    /// The share of the steps in which it rises.
    #[serde(default = "warmup_ratio")]
    warmup_ratio: f64,
    /// How long training lasts: passes over the rows, or steps.
    #[serde(default = "length")]
    length: Length,
    /// The rows that an objective's means are taken over.
    #[serde(default = "batch_size")]
    batch_size: u32,
    /// How many such batches a step is made of.
    #[serde(default = "gradient_accumulation_steps")]
    gradient_accumulation_steps: u32,
    /// The norm that all gradients together are cut to.
    #[serde(default = "max_grad_norm")]
    max_grad_norm: f64,
    /// How weights move.
    #[serde(default)]
    optimizer: AdamW,
    /// How often per epoch the validation rows are looked at.
    #[serde(default = "evals_per_epoch")]
    evals_per_epoch: u32,
    /// The most tokens of a prompt and its output, or of each where the model has an encoder; the
    /// model's own limit if not given.
    max_length: Option<u32>,
    /// What matrix products are computed in; what learns is kept in f32 either way.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    precision: Precision,
}

/// How a training is computed; the weights that come out are the same, bit by bit.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tuning {
    /// Whether layers are computed again in the backward pass instead of being kept: a third more
    /// work, the memory of one layer, the same bits. With packed weights they always are.
    #[serde(default)]
    gradient_checkpointing: bool,
}

fn learning_rate() -> f64 {
    5e-5
}

fn schedule() -> Schedule {
    Schedule::Cosine
}

fn warmup_ratio() -> f64 {
    0.1
}

fn length() -> Length {
    Length::Epochs(3.0)
}

fn batch_size() -> u32 {
    1
}

fn gradient_accumulation_steps() -> u32 {
    64
}

fn max_grad_norm() -> f64 {
    0.3
}

fn evals_per_epoch() -> u32 {
    4
}

/// Fits a model.
pub(crate) struct Train;

impl Params {
    fn examples(&self) -> ArtifactType {
        artifact_of(self.objective.feed())
    }
}

impl Stage for Train {
    const KIND: &'static str = "train";
    // 2: curves for TensorBoard. 3: a softmax of our own, with other last bits. 4: the products of
    // adapters likewise. 5: what each step took. 6: the gradients of what T5's layers share are added
    // from the last layer to the first.
    /// 7: `best_step`, `evals_per_epoch` and objectives of two words have these names.
    const VERSION: u32 = 7;
    const SEEDED: bool = true;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("validations_per_epoch", "evals_per_epoch"),
        ("columns.kept_step", "columns.best_step"),
        ("objective.hinge.against_reference", "objective.hinge.use_reference"),
        ("objective.robust-dpo", "objective.robust_dpo"),
        ("objective.apo-zero", "objective.apo_zero"),
        ("objective.apo-zero-unpaired", "objective.apo_zero_unpaired"),
    ];
    const PICKS: &'static [Pick] = &[BY_DIRECTIONS];
    type Params = Params;
    type Tuning = Tuning;

    fn ports(params: &Params) -> Ports {
        let ports = match params.model {
            Some(_) => Ports::new().input("tokenizer", TOKENIZER),
            None => Ports::new().input("model", WEIGHTS),
        };
        let ports = ports
            .input("rows", params.examples())
            .optional("validation", params.examples())
            .output("model", WEIGHTS)
            .scored_output("curves", CURVES, columns())
            .output("throughput", THROUGHPUT);
        let ports = match (params.objective.needs_reference(), params.objective.needs_divergence()) {
            (true, true) => ports.optional("reference", WEIGHTS),
            (true, false) => ports.optional("reference", WEIGHTS).optional("reference_logps", LOGPS),
            (false, _) => ports,
        };
        match params.adapter {
            Some(_) => ports.optional("adapter", ADAPTER).output("adapter", ADAPTER),
            None => ports,
        }
    }

    fn components(params: &Params) -> Vec<Component> {
        let model = params.model.as_ref().map(Architecture::component);
        let adapter = params.adapter.as_ref().map(AdapterMethod::component);
        model.into_iter().chain([params.objective.component()]).chain(adapter).collect()
    }

    fn resources(_: &Params) -> Resources {
        // As many as there are: shards of a batch are computed side by side.
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn estimate(params: &Params, tuning: &Tuning, context: &EstimateContext<'_>) -> Estimate {
        let hint = match &params.model {
            Some(model) => context
                .input("tokenizer")
                .and_then(most_tokens)
                .map(|tokens| model_hint(&model.config(tokens))),
            None => context.input("model").cloned(),
        };
        let memory = memory_of(params, tuning, hint.as_ref(), context).unwrap_or_else(|unknown| unknown);
        let outputs = hint.map(|hint| ("model".to_owned(), hint));
        Estimate { memory, outputs: outputs.into_iter().collect() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        if let Some(model) = &params.model {
            model.check().map_err(|error| model.error_in("model", error))?;
        }
        if let Some(adapter) = &params.adapter {
            adapter.check().map_err(|error| adapter.error_in("adapter", error))?;
        }
        let objective = &params.objective;
        objective.check().map_err(|error| objective.error_in("objective", error))?;
        params.optimizer.check().map_err(|error| error.within("optimizer"))?;
        params.prompts.check()?;
        let above_0 = |number: f64| number.is_finite() && number > 0.0;
        if let Length::Epochs(epochs) = params.length
            && !above_0(epochs)
        {
            let message = format!("`length.epochs` is a number above 0, not {epochs}");
            return Err(FieldError::new("length.epochs", message));
        }
        let rate = params.learning_rate;
        if !(rate.is_finite() && rate >= 0.0) {
            let message = format!("`learning_rate` is a number from 0, not {rate}");
            return Err(FieldError::new("learning_rate", message));
        }
        if !(0.0..1.0).contains(&params.warmup_ratio) {
            let message = format!("`warmup_ratio` is a share from 0 to below 1, not {}", params.warmup_ratio);
            return Err(FieldError::new("warmup_ratio", message));
        }
        if !above_0(params.max_grad_norm) {
            let message = format!("`max_grad_norm` is a number above 0, not {}", params.max_grad_norm);
            return Err(FieldError::new("max_grad_norm", message));
        }
        FieldError::check_counts([
            ("batch_size", params.batch_size),
            ("gradient_accumulation_steps", params.gradient_accumulation_steps),
            ("max_length", params.max_length.unwrap_or(1)),
        ])?;
        let rows = params.batch_size.saturating_mul(params.gradient_accumulation_steps);
        if objective.needs_divergence() && rows == 1 {
            return Err(FieldError::new(
                "batch_size",
                "this objective compares the rows of a step, which has one",
            )
            .help("raise `batch_size` or `gradient_accumulation_steps`"));
        }
        Ok(())
    }

    fn run(params: &Params, tuning: &Tuning, context: &mut Context) -> Result<(), StageFailure> {
        let (seed, devices) = (context.seed()?, parse_devices(context.device())?);
        let device = devices[0].clone();
        let prompts = params.prompts.read()?;
        let opened = match (&params.model, &params.adapter) {
            (Some(model), _) => Model::from_scratch(model, context.input("tokenizer")?, seed, &device),
            (None, Some(adapter)) => Model::open_to_adapt(context.input("model")?, adapter, &device),
            (None, None) => Model::open(context.input("model")?, &device),
        };
        let mut model = opened.map_err(|error| StageFailure::caused("open the model", error))?;
        if let Some(adapter) = &params.adapter {
            model.adapt(adapter, seed).map_err(|error| StageFailure::caused("adapt the model", error))?;
        }
        if let Some(adapter) = context.optional_input("adapter") {
            if let Some(base) = context.inputs("model").first() {
                check_base(adapter, base)?;
            }
            let unfit = |error| {
                StageFailure::caused("continue the adapter", error)
                    .help("`adapter` has the rank, alpha and target modules that it was begun with")
            };
            model.continue_adapter(adapter).map_err(unfit)?;
            context.log("the adapter goes on from what it has learnt");
        }
        let reference = match context.optional_input("reference") {
            None => None,
            Some(folder) => {
                let opened = Model::open(folder, &device);
                Some(opened.map_err(|error| StageFailure::caused("open the reference", error))?)
            }
        };
        let known = context.optional_input("reference_logps").map(ToOwned::to_owned);
        if known.is_some() && reference.is_some() {
            let failure = StageFailure::new("there is a `reference`, and there are `reference_logps`");
            return Err(failure.help("give one of them"));
        }
        let (all, learning) = model.parameters();
        context.log(format_args!("{all} parameters, of which {learning} learn"));
        if let Some(bytes) = model.packed_bytes() {
            context.log(format_args!("the projections are packed into {bytes} bytes"));
        }
        let reader =
            Reader { feed: params.objective.feed(), prompts: &prompts, max_length: params.max_length };
        let examples = reader.read(&model, context)?;
        let reference = match (&reference, &known) {
            (Some(model), _) => ReferenceSource::Model(model),
            (None, Some(folder)) => ReferenceSource::Known(read_logps(folder, &examples)?),
            (None, None) => ReferenceSource::Itself,
        };
        let config = TrainingConfig {
            objective: params.objective.clone(),
            optimizer: params.optimizer,
            learning_rate: params.learning_rate,
            schedule: params.schedule,
            warmup_ratio: params.warmup_ratio,
            length: params.length,
            batch_size: (params.batch_size * params.gradient_accumulation_steps) as usize,
            micro_batch_size: params.batch_size as usize,
            max_grad_norm: params.max_grad_norm,
            evals_per_epoch: params.evals_per_epoch as usize,
            precision: params.precision,
            seed,
        };
        let checkpoints = context.keep()?;
        let threads = context.cores() as usize;
        let mut pace = Pace::default();
        let mut on_event = |event: TrainEvent<'_>| {
            tell(event, &mut pace, context);
            !context.is_cancelled()
        };
        let mut hooks = TrainHooks {
            threads,
            others: &devices[1..],
            recomputes: tuning.gradient_checkpointing,
            checkpoints: Some(&checkpoints),
            on_event: &mut on_event,
        };
        let report = learn::train(&mut model, reference, &examples, &config, &mut hooks);
        let report = report.map_err(explain)?;
        if let Some(step) = report.resumed_at {
            context.log(format_args!("a killed training went on after step {step}"));
        }
        let kept = match report.validation_loss {
            Some(loss) => {
                format!("kept step {} of {}, validation loss {loss:.4}", report.best_step, report.steps)
            }
            None => format!("kept the last of {} steps", report.steps),
        };
        context.log(kept);
        let curves = context.output("curves")?;
        write_rows(&curves, &report.points)?;
        let for_tensorboard = |error| StageFailure::caused("write the curves for TensorBoard", error);
        write_events(&curves, report.points.iter().map(curve_scalars)).map_err(for_tensorboard)?;
        let throughput = context.output("throughput")?;
        write_rows(&throughput, &report.throughput)?;
        write_events(&throughput, report.throughput.iter().map(throughput_scalars))
            .map_err(for_tensorboard)?;
        let loss = match report.validation_loss {
            Some(loss) => json!(loss),
            None => json!({ "missing": "no validation rows were given" }),
        };
        let scores = [loss, json!(report.best_step), json!(report.steps)];
        let scores: serde_json::Map<_, _> =
            SCORES.iter().map(|name| (*name).to_owned()).zip(scores).collect();
        write_json(&curves.join("metrics.json"), &scores)?;
        let write = |error| StageFailure::caused("write the model", error);
        if params.adapter.is_some() {
            let adapter = context.output("adapter")?;
            model.save_adapter(&adapter).map_err(write)?;
            if let Some(base) = context.inputs("model").first() {
                name_base(&adapter, base)?;
            }
        }
        model.save(&context.output("model")?).map_err(write)
    }
}

/// Says what a training of a model takes.
fn memory_of(
    params: &Params,
    tuning: &Tuning,
    hint: Option<&OutputHint>,
    context: &EstimateContext<'_>,
) -> Result<Memory, Memory> {
    let unknown = "nothing is known of the model before it is made";
    let hint = hint.ok_or_else(|| Memory::Unknown(unknown.to_owned()))?;
    let sizes = sizes_of(hint).map_err(Memory::Unknown)?;
    let has = |port: &str| params.objective.needs_reference() && context.has_input(port);
    let other = if has("reference") { Some(memory::sizes(context, "reference")?) } else { None };
    let compared = match &other {
        Some(other) => Compared::With(other),
        None if params.objective.needs_reference() && !has("reference_logps") => Compared::Itself,
        None => Compared::Nothing,
    };
    let rows = u64::from(params.batch_size) * u64::from(params.gradient_accumulation_steps);
    let tokens = text_tokens(&sizes, params.max_length);
    let need = sizes.training(&Training {
        adapter: params.adapter.as_ref(),
        tokens,
        outputs: if params.objective.feed() == Feed::Pairs { 2 * rows } else { rows },
        threads: u64::from(context.cores()),
        compared,
        recomputes: tuning.gradient_checkpointing,
        precision: params.precision,
        is_on_cpu: memory::is_on_cpu(context),
    });
    Ok(memory::memory(&need, context, tokens))
}

/// The numbers that a training gives a table.
const SCORES: [&str; 3] = ["validation_loss", "best_step", "steps"];

/// Returns their columns in tables: the loss, and by name the steps.
fn columns() -> Vec<OutputColumn> {
    let column = |name: &str| OutputColumn {
        label: name.replace('_', " "),
        ..if name == SCORES[0] {
            OutputColumn { better: Some(Better::Lower), ..OutputColumn::new(name) }
        } else {
            OutputColumn { digits: Some(0), ..OutputColumn::by_name_only(name) }
        }
    };
    SCORES.map(column).to_vec()
}

/// What the steps since the last line of the log took.
#[derive(Default)]
struct Pace {
    seconds: f64,
    tokens: usize,
}

impl Pace {
    fn add(&mut self, step: &Throughput) {
        self.seconds += step.seconds;
        self.tokens += step.tokens;
    }

    /// Says how many tokens a second there were since it was last asked, and what the process has
    /// taken of memory at most.
    fn told(&mut self, step: &Throughput) -> String {
        let rate = self.tokens as f64 / self.seconds;
        *self = Self::default();
        match step.peak_memory_bytes {
            Some(bytes) => format!("{rate:.0} tokens/s, peak memory {} MiB", bytes >> 20),
            None => format!("{rate:.0} tokens/s"),
        }
    }
}

fn tell(event: TrainEvent<'_>, pace: &mut Pace, context: &mut Context) {
    let (point, throughput, steps) = match event {
        TrainEvent::Point { point, throughput, steps } => (point, throughput, steps),
        TrainEvent::LeftAside(unfit) => return context.note(unfit.to_string()),
    };
    match point {
        Point::Step(step) => {
            let throughput = throughput.expect("a step takes something");
            pace.add(throughput);
            if step.step % 10 == 0 || step.step == steps {
                context.log(format_args!(
                    "step {} of {steps}: loss {:.4}, learning rate {:.2e}, gradient norm {:.3}; {}",
                    step.step,
                    step.loss,
                    step.learning_rate,
                    step.gradient_norm,
                    pace.told(throughput)
                ));
            }
            context.progress_with(step.step as u64, steps as u64, "steps", format!("loss {:.3}", step.loss));
        }
        Point::Validation(look) => {
            let best = if look.best { ", the best so far" } else { "" };
            context.log(format_args!(
                "after step {}: validation loss {:.4}{best}",
                look.step, look.validation_loss
            ));
        }
    }
}

fn write_rows<T: Serialize>(folder: &Path, rows: &[T]) -> Result<(), StageFailure> {
    let mut writer = RowWriter::create(folder)?;
    for row in rows {
        writer.write(row)?;
    }
    writer.finish()
}

fn explain(error: TrainError) -> StageFailure {
    let help = match &error {
        TrainError::Diverged { .. } => {
            Some("lower `learning_rate` or raise `warmup_ratio`; look at these rows")
        }
        TrainError::OneLabel { .. } => {
            Some("give it `unpaired` of a `negatives` stage, which has good and bad outputs")
        }
        TrainError::OtherVocabulary { .. } => {
            Some("compare with a model of the same tokenizer, or leave `reference` out")
        }
        _ => None,
    };
    let failure = StageFailure::caused("train", error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use engine::FieldError;
    use engine::testing::{StageTest, ports};

    use super::*;
    use crate::artifacts::{PREFERENCES, ROWS, UNPAIRED};
    use crate::support::testing::{LLAMA, PREFERENCES as PAIRS, PROMPT, ROWS as TEXTS, model, tokenizer};

    #[test]
    fn a_model_is_trained_from_scratch_and_its_curve_is_written() {
        let tokenizer = tokenizer();
        let params = format!(
            "objective.sft = {{}}\nprompts.mol2cap = 'prompt.txt'\nlength.steps = 2\n\
             gradient_accumulation_steps = 3\n{LLAMA}"
        );
        let train = |seed| {
            StageTest::<Train>::new(&params)
                .file("prompt.txt", PROMPT)
                .input_folder("tokenizer", &tokenizer.output("tokenizer"))
                .input("rows", &[("rows.jsonl", TEXTS)])
                .input("validation", &[("rows.jsonl", TEXTS)])
                .seed(seed)
                .run()
                .unwrap()
        };
        let run = train(1);
        let metrics = run.json("curves", "metrics.json");
        assert_eq!(metrics["steps"], 2);
        assert!(metrics["validation_loss"].as_f64().is_some_and(|loss| loss > 0.0), "{metrics}");
        let points = run.json_lines("curves", "rows.jsonl");
        assert!(points.iter().any(|point| point["step"] == 2), "{points:?}");
        assert_eq!(run.json("model", "config.json")["model_type"], "llama");
        assert!(run.progress().iter().any(|progress| (progress.done, progress.all) == (2, 2)));
        let weights = |run: &engine::testing::StageRun| {
            std::fs::read(run.output("model").join("model.safetensors")).unwrap()
        };
        assert_eq!(weights(&run), weights(&train(1)));
        assert_ne!(weights(&run), weights(&train(2)));
    }

    #[test]
    fn an_adapter_is_trained_beside_a_model_that_stays_as_it_is() {
        let base = model();
        let params = "objective.dpo = {}\nprompts.mol2cap = 'prompt.txt'\nlength.steps = 1\n\
                      gradient_accumulation_steps = 2\nadapter.lora = { r = 2, alpha = 4 }";
        let run = StageTest::<Train>::new(params)
            .file("prompt.txt", PROMPT)
            .input_folder("model", &base.output("model"))
            .input("rows", &[("rows.jsonl", PAIRS)])
            .run()
            .unwrap();
        assert_eq!(run.json("adapter", "adapter_config.json")["r"], 2);
        assert!(run.json("adapter", "base.json")["model"].is_string());
        assert_eq!(
            run.json("curves", "metrics.json")["validation_loss"]["missing"],
            "no validation rows were given"
        );
    }

    #[test]
    fn ports_follow_the_model_the_objective_and_the_adapter() {
        let of = |more: &str| ports::<Train>(&format!("prompts.mol2cap = 'a'\n{more}")).unwrap();
        let expected = |model: (&str, ArtifactType), rows: ArtifactType| {
            Ports::new()
                .input(model.0, model.1)
                .input("rows", rows.clone())
                .optional("validation", rows)
                .output("model", WEIGHTS)
                .scored_output("curves", CURVES, columns())
                .output("throughput", THROUGHPUT)
        };
        let (scratch, weights) = (("tokenizer", TOKENIZER), ("model", WEIGHTS));
        assert_eq!(of(&format!("objective.sft = {{}}\n{LLAMA}")), expected(scratch, ROWS));
        assert_eq!(of("objective.cpo = {}"), expected(weights.clone(), PREFERENCES));
        assert_eq!(
            of("objective.dpo = {}"),
            expected(weights.clone(), PREFERENCES)
                .optional("reference", WEIGHTS)
                .optional("reference_logps", LOGPS)
        );
        assert_eq!(
            of("objective.kto = {}"),
            expected(weights.clone(), UNPAIRED).optional("reference", WEIGHTS)
        );
        assert_eq!(
            of("objective.sft = {}\nadapter.lora = {}"),
            expected(weights, ROWS).optional("adapter", ADAPTER).output("adapter", ADAPTER)
        );
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let error = |more: &str| -> FieldError {
            ports::<Train>(&format!("prompts.mol2cap = 'a'\n{more}")).unwrap_err()
        };
        let smoothing = error("objective.dpo.label_smoothing = 0.6");
        assert_eq!(smoothing.path, "objective.dpo.label_smoothing");
        assert_eq!(smoothing.message, "`label_smoothing` is a share from 0 to below 0.5, not 0.6");
        let sft = |more: &str| error(&format!("objective.sft = {{}}\n{more}")).path;
        assert_eq!(
            error("objective.robust_dpo.label_smoothing = 1").path,
            "objective.robust_dpo.label_smoothing"
        );
        assert_eq!(sft("adapter.lora.dropout = 1"), "adapter.lora.dropout");
        assert_eq!(sft("optimizer.beta2 = 1"), "optimizer.beta2");
        assert_eq!(sft("length.epochs = 0"), "length.epochs");
        assert_eq!(sft("length.steps = -1"), "length.steps");
        assert_eq!(sft("learning_rate = -1"), "learning_rate");
        assert_eq!(sft("max_grad_norm = 0"), "max_grad_norm");
        assert_eq!(sft("warmup_ratio = 1"), "warmup_ratio");
        assert_eq!(sft("max_length = 0"), "max_length");
        assert_eq!(sft("model.llama.hidden_size = 'wide'"), "model.llama.hidden_size");
        assert_eq!(
            error("objective.kto = {}\nbatch_size = 1\ngradient_accumulation_steps = 1").path,
            "batch_size"
        );
    }
}
