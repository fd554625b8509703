//! `kind = "generate"`: runs a model over rows with a prompt.
//!
//! Every row gets a prediction, so that scores are always means over the same rows: one whose
//! prompt leaves no room gets an empty one, and is counted. In place of a direction a model can be
//! asked about any text, such as for the facts in a caption (*Less for More*, section 5).

use std::sync::Mutex;

use corpus::{Direction, MissingField, Prediction};
use engine::{
    ArtifactType, Component, Context, Estimate, EstimateContext, FieldError, InputFile, Isolation, NoTuning,
    Pick, Ports, Resources, Stage, StageFailure,
};
use learn::{
    Continuing, GenerateError, Generated, Generation, Kept, Model, Precision, Sizes, Strategy,
    TokenizerError, generate,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use serde_json::json;

use crate::artifacts::{ADAPTER, PREDICTIONS, ROWS, WEIGHTS};
use crate::support::adapters::check_base;
use crate::support::devices::parse_device;
use crate::support::memory::{is_on_cpu, memory, sizes, text_tokens};
use crate::support::prompts::{BY_DIRECTION, read_prompt, read_text_prompt};
use crate::support::rows::{RowWriter, read_records, read_rows};

/// What to ask a model.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// What is given and what is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    /// In place of a direction, the text that the prompt is about; it stands for `{text}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// The file with the prompt.
    prompt: InputFile,
    /// How the tokens of an output are chosen; greedily if not given.
    #[serde(default, skip_serializing_if = "is_greedy")]
    strategy: Strategy,
    /// The most tokens of an output.
    #[serde(default = "max_new_tokens")]
    max_new_tokens: u32,
    /// How many prompts are continued at once.
    #[serde(default = "batch_size")]
    batch_size: u32,
    /// What matrix products are computed in.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    precision: Precision,
}

/// The text that a prompt is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Text {
    /// What a model predicted.
    Prediction,
    /// What a prediction is held against.
    Reference,
    /// A field of rows.
    Field(String),
}

impl Text {
    /// Returns the port whose rows have the text, and what they are.
    fn port(&self) -> (&'static str, ArtifactType) {
        match self {
            Self::Prediction | Self::Reference => ("predictions", PREDICTIONS),
            Self::Field(_) => ("rows", ROWS),
        }
    }
}

/// What was before there were others: it is not part of a key.
fn is_greedy(strategy: &Strategy) -> bool {
    matches!(strategy, Strategy::Greedy(_))
}

fn max_new_tokens() -> u32 {
    512
}

fn batch_size() -> u32 {
    32
}

/// Runs a model.
pub(crate) struct Generate;

impl Stage for Generate {
    const KIND: &'static str = "generate";
    const VERSION: u32 = 2;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const PICKS: &'static [Pick] = &[BY_DIRECTION];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let (port, of) = params.text.as_ref().map_or(("rows", ROWS), Text::port);
        let ports = Ports::new().input("model", WEIGHTS).optional("adapter", ADAPTER).input(port, of);
        let ports = match params.text {
            None => ports.output("predictions", PREDICTIONS),
            Some(_) => ports.output("outputs", ROWS),
        };
        if params.strategy.outputs() > 1 { ports.output("hypotheses", ROWS) } else { ports }
    }

    fn components(params: &Params) -> Vec<Component> {
        if is_greedy(&params.strategy) { Vec::new() } else { vec![params.strategy.component()] }
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn estimate(params: &Params, _: &NoTuning, context: &EstimateContext<'_>) -> Estimate {
        let of = |sizes: Sizes| {
            let prompt_tokens = text_tokens(&sizes, None);
            let need = sizes.generation(&Continuing {
                prompts: u64::from(params.batch_size),
                beams: params.strategy.followed() as u64,
                prompt_tokens,
                new_tokens: u64::from(params.max_new_tokens).min(sizes.longest()),
                threads: u64::from(context.cores()),
                // The CPU computes in f32, rounded or not.
                kept: match (params.precision, is_on_cpu(context)) {
                    (precision, false) if precision.has_bf16() => Kept::Bf16,
                    _ => Kept::F32,
                },
                is_on_cpu: is_on_cpu(context),
            });
            memory(&need, context, prompt_tokens)
        };
        let memory = sizes(context, "model").map_or_else(|unknown| unknown, of);
        Estimate { memory, ..Estimate::default() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        let strategy = &params.strategy;
        strategy.check().map_err(|error| strategy.error_in("strategy", error))?;
        match (&params.direction, &params.text) {
            (None, None) => {
                return Err(FieldError::new("direction", "`direction` is missing: `mol2cap` or `cap2mol`")
                    .help("or say with `text` what the prompt is about"));
            }
            (Some(_), Some(_)) => {
                let message = "`direction` and `text` are given, and a model is asked for one thing";
                return Err(FieldError::new("text", message).help("leave one of them out"));
            }
            _ => {}
        }
        FieldError::check_counts([
            ("max_new_tokens", params.max_new_tokens),
            ("batch_size", params.batch_size),
        ])
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let device = parse_device(context.device())?;
        let questions = read_questions(params, context)?;
        let mut model = Model::open(context.input("model")?, &device)
            .map_err(|error| StageFailure::caused("open the model", error))?;
        if let Some(adapter) = context.optional_input("adapter") {
            check_base(adapter, &context.inputs("model")[0])?;
            model.add_adapter(adapter).map_err(|error| StageFailure::caused("use the adapter", error))?;
        }
        model
            .only_compute_in(params.precision)
            .map_err(|error| StageFailure::caused("use the device", error))?;
        let (mut asked, mut prompts, mut too_long, mut empty) = (Vec::new(), Vec::new(), 0usize, 0usize);
        for question in questions {
            let question = question?;
            let Some(prompt) = &question.prompt else {
                empty += 1;
                asked.push((question, None));
                continue;
            };
            let tokens = model.tokenizer().encode_prompt(prompt).map_err(|error| {
                let help = match &error {
                    TokenizerError::Unknown { .. } => "the model's tokenizer was trained on other texts",
                    _ => "look at the row, at the prompt and at the model's `tokenizer.json`",
                };
                StageFailure::caused(format!("read row `{}`", question.id), error).help(help)
            })?;
            let place = if model.limit().room(tokens.len()) > 0 {
                prompts.push(tokens);
                Some(prompts.len() - 1)
            } else {
                too_long += 1;
                None
            };
            asked.push((Question { prompt: None, ..question }, place));
        }
        let too_many = model.limit().too_many();
        if asked.is_empty() {
            return Err(StageFailure::new("there are no rows to run the model on"));
        }
        if prompts.is_empty() && too_long > 0 {
            let message = format!("all {too_long} prompts have {too_many}, which the model has no room for");
            return Err(StageFailure::new(message));
        }
        if empty > 0 {
            context.note(format!("{empty} texts are empty: the model is not asked about them"));
        }
        if too_long > 0 {
            context.note(format!("{too_long} rows have prompts of {too_many}, and get empty predictions"));
        }
        let generation = Generation {
            strategy: params.strategy.clone(),
            max_new_tokens: params.max_new_tokens as usize,
            batch_size: params.batch_size as usize,
        };
        let (threads, all) = (context.cores() as usize, prompts.len());
        let listener = Mutex::new(&mut *context);
        let outputs = generate(&model, &prompts, &generation, threads, &|done| {
            let mut context = listener.lock().expect("listening does not panic");
            context.progress(done as u64, all as u64, "rows");
            !context.is_cancelled()
        });
        let outputs = match outputs {
            // All texts to ask about are empty.
            Err(GenerateError::NoPrompts) => Vec::new(),
            Err(error @ GenerateError::Cancelled) => return Err(StageFailure::new(error.to_string())),
            Err(error @ GenerateError::NotFinite { number, .. }) => {
                let question = asked.iter().find(|(_, place)| *place == Some(number - 1));
                let row = question.map_or("", |(question, _)| question.id.as_str());
                return Err(StageFailure::caused(format!("run the model on row `{row}`"), error).help(
                    "look at the training or the merge that made the model: its numbers are too large",
                ));
            }
            outputs => outputs.map_err(|error| StageFailure::caused("run the model", error))?,
        };
        let unended = outputs.iter().filter(|outputs| !outputs[0].ended).count();
        if unended > 0 {
            context.note(format!(
                "{unended} of {all} outputs did not end within {} tokens",
                params.max_new_tokens
            ));
        }
        let output = if params.text.is_some() { "outputs" } else { "predictions" };
        let mut writer = RowWriter::create(&context.output(output)?)?;
        let mut hypotheses = match params.strategy.outputs() {
            1 => None,
            _ => Some(RowWriter::create(&context.output("hypotheses")?)?),
        };
        for (Question { id, input, reference, .. }, place) in asked {
            let candidates: &[Generated] = place.map_or(&[], |place| &outputs[place]);
            let mut texts = Vec::with_capacity(candidates.len().max(1));
            for output in candidates {
                let text = model
                    .tokenizer()
                    .decode(&output.tokens)
                    .map_err(|error| StageFailure::caused(format!("read the output of row `{id}`"), error))?;
                texts.push(text.trim().to_owned());
            }
            if let Some(writer) = &mut hypotheses {
                for (rank, (text, output)) in (1..).zip(texts.iter().zip(candidates)) {
                    let mut line = json!({
                        "id": format!("{id}/{rank}"),
                        "row": id,
                        "direction": params.direction,
                        "rank": rank,
                        "output": text,
                        "score": output.score,
                        "ended": output.ended,
                    });
                    if let (None, Some(fields)) = (params.direction, line.as_object_mut()) {
                        fields.shift_remove("direction");
                    }
                    writer.write(&line)?;
                }
            }
            let prediction = texts.into_iter().next().unwrap_or_default();
            match params.direction {
                Some(direction) => {
                    writer.write(&Prediction { id, direction, input, reference, prediction })?;
                }
                None => writer.write(&json!({ "id": id, "input": input, "output": prediction }))?,
            }
        }
        writer.finish()?;
        match hypotheses {
            Some(hypotheses) => hypotheses.finish(),
            None => Ok(()),
        }
    }
}

/// What a model is asked for one row.
struct Question {
    id: String,
    /// What the prompt is about.
    input: String,
    /// The answer of the row, where there is one.
    reference: String,
    /// The question in full; there is none about an empty text.
    prompt: Option<String>,
}

/// The questions, one for each row, in their order.
type Questions = Box<dyn Iterator<Item = Result<Question, StageFailure>>>;

/// Reads the prompt and the rows.
fn read_questions(params: &Params, context: &Context) -> Result<Questions, StageFailure> {
    let missing = |error: MissingField| StageFailure::new(error.to_string());
    if let Some(direction) = params.direction {
        let prompt = read_prompt(&params.prompt, direction)?;
        return Ok(Box::new(read_rows(context.input("rows")?)?.map(move |row| {
            let row = row?;
            let input = direction.input(&row).map_err(missing)?.to_owned();
            let reference = direction.target(&row).map_err(missing)?.to_owned();
            let prompt = Some(prompt.render(&input));
            Ok(Question { id: row.id().to_owned(), input, reference, prompt })
        })));
    }
    let text = params.text.clone().ok_or_else(|| StageFailure::new("there is nothing to ask about"))?;
    let prompt = read_text_prompt(&params.prompt)?;
    let ask = move |id: String, input: String| {
        let prompt = (!input.trim().is_empty()).then(|| prompt.render(input.trim()));
        Question { id, input, reference: String::new(), prompt }
    };
    let folder = context.input(text.port().0)?;
    if let Text::Field(field) = text {
        return Ok(Box::new(read_rows(folder)?.map(move |row| {
            let row = row?;
            let input =
                row.needed(&field).map_err(|error| missing(error).help("name another `text.field`"))?;
            Ok(ask(row.id().to_owned(), input.to_owned()))
        })));
    }
    Ok(Box::new(read_records::<Prediction>(folder)?.map(move |prediction| {
        let Prediction { id, reference, prediction, .. } = prediction?;
        Ok(ask(id, if text == Text::Reference { reference } else { prediction }))
    })))
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageRun, StageTest, ports};

    use super::*;
    use crate::support::testing::{PROMPT, ROWS as TEXTS, model};

    fn generated(model: &StageRun, params: &str, prompt: &str) -> StageRun {
        StageTest::<Generate>::new(&format!("prompt = 'prompt.txt'\nmax_new_tokens = 3\n{params}"))
            .file("prompt.txt", prompt)
            .input_folder("model", &model.output("model"))
            .input("rows", &[("rows.jsonl", TEXTS)])
            .run()
            .unwrap()
    }

    #[test]
    fn every_row_gets_a_prediction() {
        let model = model();
        let run = generated(&model, "direction = 'mol2cap'", PROMPT);
        let predictions = run.json_lines("predictions", "rows.jsonl");
        let ids: Vec<_> = predictions.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(
            (&predictions[0]["input"], &predictions[0]["reference"]),
            (&json!("CO"), &json!("It is methanol."))
        );
        assert_eq!(run.progress().last().map(|progress| (progress.done, progress.all)), Some((3, 3)));
        let again = generated(&model, "direction = 'mol2cap'\nbatch_size = 1", PROMPT);
        assert_eq!(run.text("predictions", "rows.jsonl"), again.text("predictions", "rows.jsonl"));
    }

    #[test]
    fn beams_come_out_as_hypotheses_in_their_order() {
        let params = "direction = 'mol2cap'\nstrategy.beam = { num_beams = 2, num_return_sequences = 2 }";
        let run = generated(&model(), params, PROMPT);
        let hypotheses = run.json_lines("hypotheses", "rows.jsonl");
        let ids: Vec<_> = hypotheses.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"]);
        let score = |at: usize| hypotheses[at]["score"].as_f64().unwrap();
        assert!(score(0) >= score(1), "the best first");
    }

    #[test]
    fn a_model_can_be_asked_about_any_text() {
        let run = generated(&model(), "text.field = 'caption'", "List the facts: {text}\n");
        let outputs = run.json_lines("outputs", "rows.jsonl");
        assert_eq!((&outputs[1]["id"], &outputs[1]["input"]), (&json!("b"), &json!("It is ethanol.")));
    }

    #[test]
    fn ports_follow_what_is_asked_and_how() {
        let of = |more: &str| ports::<Generate>(&format!("prompt = 'a'\n{more}")).unwrap();
        let model = || Ports::new().input("model", WEIGHTS).optional("adapter", ADAPTER);
        assert_eq!(
            of("direction = 'cap2mol'"),
            model().input("rows", ROWS).output("predictions", PREDICTIONS)
        );
        assert_eq!(of("text.field = 'a'"), model().input("rows", ROWS).output("outputs", ROWS));
        assert_eq!(
            of("text = 'prediction'"),
            model().input("predictions", PREDICTIONS).output("outputs", ROWS)
        );
        let beams = "direction = 'cap2mol'\nstrategy.beam = { num_beams = 2, num_return_sequences = 2 }";
        let predictions = model().input("rows", ROWS).output("predictions", PREDICTIONS);
        assert_eq!(of(beams), predictions.output("hypotheses", ROWS));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |more: &str| ports::<Generate>(&format!("prompt = 'a'\n{more}")).unwrap_err().path;
        assert_eq!(path(""), "direction");
        assert_eq!(path("direction = 'mol2cap'\ntext = 'reference'"), "text");
        assert_eq!(path("direction = 'mol2cap'\nbatch_size = 0"), "batch_size");
        let strategy = |written: &str| path(&format!("direction = 'mol2cap'\nstrategy.{written}"));
        assert_eq!(strategy("beam = { num_beams = 1 }"), "strategy.beam.num_beams");
        assert_eq!(strategy("sample = { top_p = 0.0 }"), "strategy.sample.top_p");
        assert_eq!(
            strategy("beam = { num_beams = 2, early_stopping = 'sometimes' }"),
            "strategy.beam.early_stopping"
        );
    }
}
