//! `kind = "generate"`: runs a model over rows with a prompt.
//!
//! Every row gets a prediction, so that scores are always means over the same rows: one whose
//! prompt leaves no room gets an empty one, and is counted.

use std::sync::Mutex;

use corpus::{Direction, Prediction};
use engine::{Context, Failure, InputFile, Place, Ports, Resources, Stage};
use learn::{Generation, Model, generate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{PREDICTIONS, ROWS, WEIGHTS};
use crate::devices::parse_device;
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
    /// The most tokens of an output.
    #[serde(default = "max_new_tokens")]
    max_new_tokens: u32,
    /// How many prompts are continued at once.
    #[serde(default = "batch_size")]
    batch_size: u32,
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
    const VERSION: u32 = 1;
    const PLACE: Place = Place::Worker;
    type Params = Params;

    fn ports(_: &Params) -> Ports {
        Ports::new().input("model", WEIGHTS).input("rows", ROWS).output("predictions", PREDICTIONS)
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn check(params: &Params) -> Result<(), String> {
        match () {
            () if params.max_new_tokens == 0 => Err("`max_new_tokens` is at least 1".to_owned()),
            () if params.batch_size == 0 => Err("`batch_size` is at least 1".to_owned()),
            () => Ok(()),
        }
    }

    fn run(params: &Params, context: &mut Context) -> Result<(), Failure> {
        let prompt = read_prompt(&params.prompt, params.direction)?;
        let device = parse_device(context.device())?;
        let model = Model::open(context.input("model")?, &device)
            .map_err(|error| Failure::caused("open the model", error))?;
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
            let place = if tokens.len() < model.context() {
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
                    "all {too_long} prompts are longer than the model's context of {} tokens",
                    model.context()
                ),
            };
            return Err(Failure::new(message));
        }
        if too_long > 0 {
            let length = model.context();
            context.note(format!(
                "{too_long} rows have prompts of {length} tokens or more, and get empty predictions"
            ));
        }
        let generation = Generation {
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
        let outputs = outputs.ok_or_else(|| Failure::new("the run was told to stop"))?;
        let unended = outputs.iter().filter(|output| !output.ended).count();
        if unended > 0 {
            context.note(format!(
                "{unended} of {all} outputs did not end within {} tokens",
                params.max_new_tokens
            ));
        }
        let mut writer = RowWriter::create(&context.output("predictions")?)?;
        for (id, input, reference, place) in asked {
            let text = match place {
                Some(place) => model.tokenizer().decode(&outputs[place].tokens),
                None => Ok(String::new()),
            };
            let text =
                text.map_err(|error| Failure::caused(format!("read the output of row `{id}`"), error))?;
            let prediction = text.trim().to_owned();
            writer.write(&Prediction { id, direction: params.direction, input, reference, prediction })?;
        }
        writer.finish()
    }
}
