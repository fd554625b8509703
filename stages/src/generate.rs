//! `kind = "generate"`: runs a model over rows with a prompt.
//!
//! Every row gets a prediction, so that scores are always means over the same rows: one whose
//! prompt leaves no room gets an empty one, and is counted.

use std::sync::Mutex;

use corpus::{Direction, Prediction};
use engine::{Context, Failure, Foreseen, InputFile, Outlook, Part, Place, Ports, Resources, Stage};
use learn::{Continuing, GenerateError, Generated, Generation, Kept, Model, Sizes, Strategy, generate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use serde_json::json;

use crate::adapters::check_base;
use crate::artifacts::{ADAPTER, PREDICTIONS, ROWS, WEIGHTS};
use crate::devices::parse_device;
use crate::memory::{memory, sizes, text_tokens};
use crate::prompts::read_prompt;
use crate::rows::{RowWriter, read_rows};

/// What to ask a model.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What is given and what is wanted.
    direction: Direction,
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
pub struct Generate;

impl Stage for Generate {
    const KIND: &'static str = "generate";
    const VERSION: u32 = 2;
    const PLACE: Place = Place::Worker;
    const FORESEES: bool = true;
    type Params = Params;

    fn ports(params: &Params) -> Ports {
        let ports = Ports::new().input("model", WEIGHTS).optional("adapter", ADAPTER).input("rows", ROWS);
        let ports = ports.output("predictions", PREDICTIONS);
        if params.strategy.outputs() > 1 { ports.output("hypotheses", ROWS) } else { ports }
    }

    fn parts(params: &Params) -> Vec<Part> {
        if is_greedy(&params.strategy) { Vec::new() } else { vec![params.strategy.part()] }
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn foresee(params: &Params, outlook: &Outlook<'_>) -> Foreseen {
        let of = |sizes: Sizes| {
            let prompt_tokens = text_tokens(&sizes, None);
            let need = sizes.generation(&Continuing {
                prompts: u64::from(params.batch_size),
                beams: params.strategy.followed() as u64,
                prompt_tokens,
                new_tokens: u64::from(params.max_new_tokens).min(sizes.longest()),
                threads: u64::from(outlook.cores()),
                kept: Kept::F32,
            });
            memory(&need, outlook, prompt_tokens)
        };
        let memory = sizes(outlook, "model").map_or_else(|unknown| unknown, of);
        Foreseen { memory, ..Foreseen::default() }
    }

    fn check(params: &Params) -> Result<(), String> {
        params.strategy.check()?;
        match () {
            () if params.max_new_tokens == 0 => Err("`max_new_tokens` is at least 1".to_owned()),
            () if params.batch_size == 0 => Err("`batch_size` is at least 1".to_owned()),
            () => Ok(()),
        }
    }

    fn run(params: &Params, context: &mut Context) -> Result<(), Failure> {
        let prompt = read_prompt(&params.prompt, params.direction)?;
        let device = parse_device(context.device())?;
        let mut model = Model::open(context.input("model")?, &device)
            .map_err(|error| Failure::caused("open the model", error))?;
        if let Some(adapter) = context.optional_input("adapter") {
            check_base(adapter, &context.inputs("model")[0])?;
            model.add_adapter(adapter).map_err(|error| Failure::caused("use the adapter", error))?;
        }
        let (mut asked, mut prompts, mut too_long) = (Vec::new(), Vec::new(), 0usize);
        for row in read_rows(context.input("rows")?)? {
            let row = row?;
            let field = |found: Result<&str, corpus::MissingField>| {
                found.map(str::to_owned).map_err(|error| Failure::new(error.to_string()))
            };
            let input = field(params.direction.input(&row))?;
            let tokens = model.tokenizer().encode_prompt(&prompt.render(&input)).map_err(|error| {
                Failure::caused(format!("read row `{}`", row.id()), error)
                    .help("the model's tokenizer was trained on other texts")
            })?;
            let place = if model.limit().room(tokens.len()) > 0 {
                prompts.push(tokens);
                Some(prompts.len() - 1)
            } else {
                too_long += 1;
                None
            };
            let reference = field(params.direction.target(&row))?;
            asked.push((row.id().to_owned(), input, reference, place));
        }
        if prompts.is_empty() {
            let message = match too_long {
                0 => "there are no rows to run the model on".to_owned(),
                _ => format!(
                    "all {too_long} prompts have {}, which the model has no room for",
                    model.limit().too_many()
                ),
            };
            return Err(Failure::new(message));
        }
        if too_long > 0 {
            let too_many = model.limit().too_many();
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
        let outputs = outputs.map_err(|error| match error {
            GenerateError::Cancelled => Failure::new(error.to_string()),
            error => Failure::caused("run the model", error),
        })?;
        let unended = outputs.iter().filter(|outputs| !outputs[0].ended).count();
        if unended > 0 {
            context.note(format!(
                "{unended} of {all} outputs did not end within {} tokens",
                params.max_new_tokens
            ));
        }
        let mut writer = RowWriter::create(&context.output("predictions")?)?;
        let mut hypotheses = match params.strategy.outputs() {
            1 => None,
            _ => Some(RowWriter::create(&context.output("hypotheses")?)?),
        };
        for (id, input, reference, place) in asked {
            let found: &[Generated] = place.map_or(&[], |place| &outputs[place]);
            let mut texts = Vec::with_capacity(found.len().max(1));
            for output in found {
                let text = model
                    .tokenizer()
                    .decode(&output.tokens)
                    .map_err(|error| Failure::caused(format!("read the output of row `{id}`"), error))?;
                texts.push(text.trim().to_owned());
            }
            if let Some(writer) = &mut hypotheses {
                for (rank, (text, output)) in (1..).zip(texts.iter().zip(found)) {
                    writer.write(&json!({
                        "id": format!("{id}/{rank}"),
                        "row": id,
                        "direction": params.direction,
                        "rank": rank,
                        "output": text,
                        "score": output.score,
                        "ended": output.ended,
                    }))?;
                }
            }
            let prediction = texts.into_iter().next().unwrap_or_default();
            writer.write(&Prediction { id, direction: params.direction, input, reference, prediction })?;
        }
        writer.finish()?;
        match hypotheses {
            Some(hypotheses) => hypotheses.finish(),
            None => Ok(()),
        }
    }
}
