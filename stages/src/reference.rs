//! `kind = "reference"`: asks a model once how likely it finds the outputs of preferences, for all
//! trainings that compare with it.

use std::path::Path;

use corpus::Record;
use engine::{
    Context, Estimate, EstimateContext, FieldError, Isolation, NoTuning, Pick, Ports, Resources, Stage,
    StageFailure,
};
use learn::{Example, Examples, Feed, Model, Precision, ReferenceLogps, Sizes, reference_logps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{LOGPS, WEIGHTS};
use crate::support::devices::parse_device;
use crate::support::examples::{Reader, artifact_of};
use crate::support::memory::{memory, sizes, text_tokens, threads};
use crate::support::prompts::{BY_DIRECTIONS, Prompts};
use crate::support::rows::{RowWriter, read_records};

/// What to ask a model about.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The file with the prompt of each direction, as the trainings have it.
    prompts: Prompts,
    /// The most tokens of a prompt and its output, as the trainings have it.
    max_length: Option<u32>,
    /// What matrix products are computed in, as in the trainings.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    precision: Precision,
    /// Whether the rows are outputs that are wanted or not, one by one, and not pairs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unpaired: bool,
}

impl Params {
    fn feed(&self) -> Feed {
        if self.unpaired { Feed::Labelled } else { Feed::Pairs }
    }
}

/// One example: which it is, and how likely its outputs are.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: String,
    /// Whether it is of the validation rows.
    validation: bool,
    /// The fingerprint of its tokens.
    tokens: String,
    /// The log-probability of the chosen output.
    chosen: f64,
    /// That of the rejected one.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<f64>,
}

impl Record for Line {
    const WHAT: &'static str = "an example's log-probabilities";
}

/// Asks a model.
pub(crate) struct Reference;

impl Stage for Reference {
    const KIND: &'static str = "reference";
    const VERSION: u32 = 1;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const PICKS: &'static [Pick] = &[BY_DIRECTIONS];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let rows = artifact_of(params.feed());
        let ports =
            Ports::new().input("model", WEIGHTS).input("rows", rows.clone()).optional("validation", rows);
        ports.output("logps", LOGPS)
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn estimate(params: &Params, _: &NoTuning, context: &EstimateContext<'_>) -> Estimate {
        let of = |sizes: Sizes| {
            let tokens = text_tokens(&sizes, params.max_length);
            memory(&sizes.asking(tokens, threads(context)), context, tokens)
        };
        let memory = sizes(context, "model").map_or_else(|unknown| unknown, of);
        Estimate { memory, ..Estimate::default() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        params.prompts.check()?;
        FieldError::check_counts([("max_length", params.max_length.unwrap_or(1))])
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let prompts = params.prompts.read()?;
        let device = parse_device(context.device())?;
        let mut model = Model::open(context.input("model")?, &device)
            .map_err(|error| StageFailure::caused("open the model", error))?;
        model
            .only_compute_in(params.precision)
            .map_err(|error| StageFailure::caused("use the device", error))?;
        let reader = Reader { feed: params.feed(), prompts: &prompts, max_length: params.max_length };
        let examples = reader.read(&model, context)?;
        let logps = reference_logps(&model, &examples, context.cores() as usize);
        let mut writer = RowWriter::create(&context.output("logps")?)?;
        let parts = [(false, &examples.train, &logps.train), (true, &examples.validation, &logps.validation)];
        for (validation, examples, logps) in parts {
            for (example, [chosen, rejected]) in examples.iter().zip(logps) {
                if !(chosen.is_finite() && rejected.is_finite()) {
                    let message = format!("what the model makes of row `{}` is no finite number", example.id);
                    return Err(StageFailure::new(message).help(
                        "look at the training or the merge that made the model: its numbers are too large",
                    ));
                }
                writer.write(&Line {
                    id: example.id.clone(),
                    validation,
                    tokens: fingerprint(example),
                    chosen: *chosen,
                    rejected: example.rejected.is_some().then_some(*rejected),
                })?;
            }
        }
        writer.finish()
    }
}

fn fingerprint(example: &Example) -> String {
    format!("{:016x}", example.fingerprint())
}

/// Reads what a reference makes of a training's examples.
pub(crate) fn read_logps(folder: &Path, examples: &Examples) -> Result<ReferenceLogps, StageFailure> {
    let (mut train, mut validation) = (examples.train.iter(), examples.validation.iter());
    let mut logps = ReferenceLogps::default();
    let other = |what: String| {
        StageFailure::new(what).help("give the `reference` stage the rows, the prompts and the `max_length` of the training, and a model of its tokenizer")
    };
    for line in read_records::<Line>(folder)? {
        let line = line?;
        let (next, logps) = if !line.validation {
            (train.next(), &mut logps.train)
        } else {
            (validation.next(), &mut logps.validation)
        };
        let Some(example) = next else {
            return Err(other(format!(
                "`reference_logps` has `{}`, and the training has no such row",
                line.id
            )));
        };
        if (example.id.as_str(), fingerprint(example)) != (line.id.as_str(), line.tokens) {
            return Err(other(format!(
                "`reference_logps` has `{}` where the training has `{}`, or other tokens of it",
                line.id, example.id
            )));
        }
        logps.push([line.chosen, line.rejected.unwrap_or(0.0)]);
    }
    match train.next().or(validation.next()) {
        Some(example) => Err(other(format!("`reference_logps` has nothing for `{}`", example.id))),
        None => Ok(logps),
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};

    use super::*;
    use crate::artifacts::{PREFERENCES, UNPAIRED};
    use crate::support::testing::{PREFERENCES as PAIRS, PROMPT, model};

    #[test]
    fn every_pair_gets_the_log_probabilities_of_both_outputs() {
        let model = model();
        let run = |precision: &str| {
            StageTest::<Reference>::new(&format!("prompts.mol2cap = 'prompt.txt'\n{precision}"))
                .file("prompt.txt", PROMPT)
                .input_folder("model", &model.output("model"))
                .input("rows", &[("rows.jsonl", PAIRS)])
                .input("validation", &[("rows.jsonl", PAIRS)])
                .run()
                .unwrap()
        };
        let lines = run("").json_lines("logps", "rows.jsonl");
        let kept: Vec<_> =
            lines.iter().map(|line| (line["id"].as_str(), line["validation"].as_bool())).collect();
        let (a, b) = (Some("a/mol2cap"), Some("b/mol2cap"));
        assert_eq!(kept, [(a, Some(false)), (b, Some(false)), (a, Some(true)), (b, Some(true))]);
        for line in &lines {
            assert!(line["chosen"].as_f64().unwrap() < 0.0 && line["rejected"].as_f64().unwrap() < 0.0);
        }
        assert_eq!((&lines[0]["tokens"], &lines[0]["chosen"]), (&lines[2]["tokens"], &lines[2]["chosen"]));
        assert_ne!(lines[0]["tokens"], lines[1]["tokens"]);
    }

    #[test]
    fn ports_take_pairs_or_labelled_outputs() {
        let expected = |rows: engine::ArtifactType| {
            let ports = Ports::new().input("model", WEIGHTS).input("rows", rows.clone());
            Ok(ports.optional("validation", rows).output("logps", LOGPS))
        };
        assert_eq!(ports::<Reference>("prompts.mol2cap = 'a'"), expected(PREFERENCES));
        assert_eq!(ports::<Reference>("prompts.mol2cap = 'a'\nunpaired = true"), expected(UNPAIRED));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Reference>(params).unwrap_err().path;
        assert_eq!(path("prompts = {}"), "prompts");
        assert_eq!(path("prompts.mol2cap = 'a'\nmax_length = 0"), "max_length");
        assert_eq!(path("prompts.mol2cap = 3"), "prompts.mol2cap");
    }
}
