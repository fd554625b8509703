//! `kind = "judge"`: scores premises against hypotheses with a model of natural-language inference.
//!
//! Captions and their references are held against each other in both directions: whole, by
//! sentence, or by atomic fact (*Less for More*, section 5). All probabilities are kept, so that
//! pooling them is the work of `evaluate`, and costs nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use corpus::{Direction, Prediction, facts};
use engine::{
    Context, Estimate, EstimateContext, FieldError, Isolation, NoTuning, Ports, Resources, Stage,
    StageFailure,
};
use learn::{Classifier, Sizes};
use metrics::entailment::Verdict;
use metrics::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{JUDGEMENTS, PREDICTIONS, ROWS, WEIGHTS};
use crate::support::devices::parse_device;
use crate::support::judgements::{Judged, Judgement, Level};
use crate::support::kept::KeptRows;
use crate::support::memory::{memory, sizes, threads};
use crate::support::rows::{ROWS_FILE, read_records, read_rows};

/// How many rows are judged before they are kept.
const BATCH: usize = 64;

/// The field with a text's facts if none is named.
const OUTPUT: &str = "output";

/// The ports with the facts that a model listed.
const PREDICTION_FACTS: &str = "prediction_facts";
const REFERENCE_FACTS: &str = "reference_facts";

/// What to judge.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// What texts are split into.
    levels: Vec<Level>,
    /// Where the facts of `atomic` come from, by default `lpm24_rules`.
    facts: Option<Facts>,
    /// The field with the list of a text's facts, by default `output`.
    field: Option<String>,
    /// The fields of rows with the texts, where these are no predictions of a stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<Texts>,
}

/// The fields of a row with the two texts that are held against each other.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Texts {
    /// What is true.
    reference: String,
    /// What is judged.
    prediction: String,
}

/// Where facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Facts {
    /// Rules for captions in the style of L+M-24, and for no others.
    Lpm24Rules,
    /// Lists that a model wrote: the ports `prediction_facts` and `reference_facts`.
    Listed,
}

impl Params {
    fn facts(&self) -> Option<Facts> {
        let is_atomic = self.levels.contains(&Level::Atomic);
        is_atomic.then(|| self.facts.unwrap_or(Facts::Lpm24Rules))
    }
}

/// Judges captions.
pub(crate) struct Judge;

impl Stage for Judge {
    const KIND: &'static str = "judge";
    /// 3: a judgement knows how many words the reference has.
    const VERSION: u32 = 3;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let ports = match params.texts {
            None => Ports::new().input("predictions", PREDICTIONS),
            Some(_) => Ports::new().input("rows", ROWS),
        };
        let ports = ports.input("model", WEIGHTS);
        let ports = match params.facts() {
            Some(Facts::Listed) => ports.input(PREDICTION_FACTS, ROWS).input(REFERENCE_FACTS, ROWS),
            _ => ports,
        };
        ports.output("judgements", JUDGEMENTS)
    }

    fn resources(_: &Params) -> Resources {
        Resources { cores: u32::MAX, ..Resources::default() }
    }

    fn estimate(_: &Params, _: &NoTuning, context: &EstimateContext<'_>) -> Estimate {
        let of = |sizes: Sizes| {
            let tokens = sizes.longest().min(Classifier::MOST_TOKENS as u64);
            memory(&sizes.judging(tokens, threads(context)), context, tokens)
        };
        let memory = sizes(context, "model").map_or_else(|unknown| unknown, of);
        Estimate { memory, ..Estimate::default() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        let levels = &params.levels;
        if levels.is_empty() {
            return Err(FieldError::new("levels", "`levels` is empty").help("name at least one"));
        }
        if let Some(position) = (1..levels.len()).find(|at| levels[..*at].contains(&levels[*at])) {
            return Err(FieldError::at("levels", position, "`levels` names one twice"));
        }
        if params.facts.is_some() && params.facts().is_none() {
            let message = "`facts` changes nothing: `levels` has no `atomic`";
            return Err(FieldError::new("facts", message));
        }
        if params.field.is_some() && params.facts() != Some(Facts::Listed) {
            let message = "`field` changes nothing: it is for `facts = \"listed\"`";
            return Err(FieldError::new("field", message));
        }
        Ok(())
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let device = parse_device(context.device())?;
        let classifier = Classifier::open(context.input("model")?, &device)
            .map_err(|error| StageFailure::caused("open the judge", error))?;
        let labels = ["entailment", "neutral", "contradiction"].map(|label| classifier.label(label));
        let [Ok(entailment), Ok(neutral), Ok(contradiction)] = labels else {
            let error = labels.into_iter().find_map(Result::err).expect("one of them is an error");
            return Err(StageFailure::caused("open the judge", error)
                .help("the labels of a judge are entailment, neutral and contradiction, in any order"));
        };
        let listed = Listed::read(params, context)?;
        let all = pairs(params, context)?.count();
        let mut kept = KeptRows::open::<Self, Judgement>(&context.keep()?)?;
        kept.log_resumed("judged", context);
        let mut pairs = pairs(params, context)?.skip(kept.count()).peekable();
        while pairs.peek().is_some() {
            let batch = pairs.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
            let split = |pair| split(pair, params, listed.as_ref());
            let mut rows = batch.iter().map(split).collect::<Result<Vec<_>, _>>()?;
            let verdicts = judge(
                &classifier,
                &rows,
                [entailment, neutral, contradiction],
                (kept.count(), all),
                context,
            )?;
            for judged in rows.iter_mut().flat_map(|row| row.levels.values_mut()) {
                let judge = |premises: &[String], hypotheses: &[String]| -> Vec<Vec<Verdict>> {
                    let row = |premise: &String| {
                        hypotheses
                            .iter()
                            .map(|hypothesis| verdicts[&(premise.clone(), hypothesis.clone())])
                            .collect()
                    };
                    premises.iter().map(row).collect()
                };
                judged.from_reference = judge(&judged.reference, &judged.prediction);
                judged.from_prediction = judge(&judged.prediction, &judged.reference);
            }
            kept.add(&rows)?;
            context.progress(kept.count() as u64, all as u64, "rows");
        }
        if all == 0 {
            let what = if params.texts.is_some() { "rows" } else { "predictions" };
            return Err(StageFailure::new(format!("there are no {what} to judge")));
        }
        add_notes(&kept, params, all, context)?;
        kept.copy_to(&context.output("judgements")?.join(ROWS_FILE))
    }
}

/// Two texts that are held against each other.
struct Pair {
    id: String,
    reference: String,
    prediction: String,
}

/// Reads the texts to judge: captions that a model predicted, or two fields of any rows.
fn pairs(
    params: &Params,
    context: &Context,
) -> Result<Box<dyn Iterator<Item = Result<Pair, StageFailure>>>, StageFailure> {
    let Some(Texts { reference, prediction }) = &params.texts else {
        let predictions = read_records::<Prediction>(context.input("predictions")?)?;
        return Ok(Box::new(predictions.map(|prediction| {
            let Prediction { id, direction, reference, prediction, .. } = prediction?;
            if direction != Direction::Mol2cap {
                let message = format!("prediction `{id}` is of {direction}, and only captions can be judged");
                return Err(StageFailure::new(message));
            }
            Ok(Pair { id, reference, prediction })
        })));
    };
    let (reference, prediction) = (reference.clone(), prediction.clone());
    Ok(Box::new(read_rows(context.input("rows")?)?.map(move |row| {
        let row = row?;
        let text = |field: &str| {
            let text = row.needed(field).map(str::to_owned);
            text.map_err(|error| {
                StageFailure::new(error.to_string())
                    .help("name the fields of both `texts`, as the rows have them")
            })
        };
        let (reference, prediction) = (text(&reference)?, text(&prediction)?);
        Ok(Pair { id: row.id().to_owned(), reference, prediction })
    })))
}

/// Facts that a model listed, by the row's `id`.
struct Listed {
    prediction: HashMap<String, Vec<String>>,
    reference: HashMap<String, Vec<String>>,
}

impl Listed {
    fn read(params: &Params, context: &Context) -> Result<Option<Self>, StageFailure> {
        if params.facts() != Some(Facts::Listed) {
            return Ok(None);
        }
        let field = params.field.as_deref().unwrap_or(OUTPUT);
        let read = |port: &str| -> Result<HashMap<String, Vec<String>>, StageFailure> {
            let mut facts_by_id = HashMap::new();
            for row in read_rows(context.input(port)?)? {
                let row = row?;
                let text = row.needed(field).map_err(|error| {
                    StageFailure::new(format!("{error}, in `{port}`")).help("name another `field`")
                })?;
                facts_by_id.insert(row.id().to_owned(), facts::listed(text));
            }
            Ok(facts_by_id)
        };
        Ok(Some(Self { prediction: read(PREDICTION_FACTS)?, reference: read(REFERENCE_FACTS)? }))
    }
}

/// Splits two texts, with nothing judged yet.
fn split(pair: &Pair, params: &Params, listed: Option<&Listed>) -> Result<Judgement, StageFailure> {
    let Pair { id, reference, prediction: caption } = pair;
    let whole = |text: &str| match text.trim() {
        "" => Vec::new(),
        text => vec![text.to_owned()],
    };
    let mut levels = BTreeMap::new();
    for level in &params.levels {
        let [reference, prediction] = match (level, listed) {
            (Level::Full, _) => [whole(reference), whole(caption)],
            (Level::Sentence, _) => [reference, caption].map(|text| facts::sentences(text)),
            (Level::Atomic, None) => [reference, caption].map(|text| facts::of_lpm24_caption(text)),
            (Level::Atomic, Some(listed)) => {
                let find = |of: &HashMap<String, Vec<String>>, port: &str| {
                    let message = || StageFailure::new(format!("`{port}` has no row `{id}`"));
                    of.get(id).cloned().ok_or_else(message)
                };
                [find(&listed.reference, REFERENCE_FACTS)?, find(&listed.prediction, PREDICTION_FACTS)?]
            }
        };
        let judged =
            Judged { reference, prediction, from_reference: Vec::new(), from_prediction: Vec::new() };
        levels.insert(*level, judged);
    }
    let (is_empty, reference_words) = (caption.trim().is_empty(), words::count(reference));
    Ok(Judgement { id: id.clone(), is_empty, reference_words, levels })
}

/// Judges all that rows ask for, each pair of texts once.
fn judge(
    classifier: &Classifier,
    rows: &[Judgement],
    labels: [usize; 3],
    (before, all): (usize, usize),
    context: &mut Context,
) -> Result<HashMap<(String, String), Verdict>, StageFailure> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for judged in rows.iter().flat_map(|row| row.levels.values()) {
        for (one, other) in
            judged.reference.iter().flat_map(|one| judged.prediction.iter().map(move |two| (one, two)))
        {
            pairs.extend([(one.as_str(), other.as_str()), (other.as_str(), one.as_str())]);
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    let (threads, count) = (context.cores() as usize, pairs.len());
    let listener = Mutex::new(context);
    let probabilities = classifier.probabilities(&pairs, threads, &|done| {
        let mut context = listener.lock().expect("listening does not panic");
        context.progress_with(before as u64, all as u64, "rows", format!("{done} of {count} pairs"));
        !context.is_cancelled()
    });
    let probabilities = probabilities.map_err(|error| StageFailure::caused("judge", error))?;
    let probabilities = probabilities.ok_or_else(|| StageFailure::new("the run was cancelled"))?;
    let verdict = |row: Vec<f32>| Verdict::from(labels.map(|label| row[label]));
    let pairs = pairs.into_iter().map(|(premise, hypothesis)| (premise.to_owned(), hypothesis.to_owned()));
    Ok(pairs.zip(probabilities.into_iter().map(verdict)).collect())
}

/// Says what is odd about the data.
fn add_notes(
    kept: &KeptRows,
    params: &Params,
    all: usize,
    context: &mut Context,
) -> Result<(), StageFailure> {
    let (mut empty, mut without) = (0, BTreeMap::<Level, usize>::new());
    for row in kept.read::<Judgement>()? {
        let row = row?;
        empty += usize::from(row.is_empty);
        for (level, judged) in row.levels {
            let has_none = judged.reference.is_empty() || (judged.prediction.is_empty() && !row.is_empty);
            *without.entry(level).or_default() += usize::from(has_none);
        }
    }
    if empty > 0 {
        context.note(format!("{empty} of {all} captions are empty, and say nothing that could be judged"));
    }
    for (level, count) in without.into_iter().filter(|(_, count)| *count > 0) {
        let parts = match level {
            Level::Full => "text",
            Level::Sentence => "sentences",
            Level::Atomic => "facts",
        };
        context.note(format!("{count} of {all} rows have a caption or a reference without {parts}"));
    }
    if params.facts() == Some(Facts::Lpm24Rules) {
        context.log("facts are found by rules for captions in the style of L+M-24");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageRun, StageTest, ports};

    use super::*;

    /// A small DeBERTa with random weights.
    fn judge() -> StageTest<Judge> {
        judge_with("levels = ['full', 'sentence']")
    }

    fn judge_with(params: &str) -> StageTest<Judge> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/learn/tests/golden/deberta_v3");
        StageTest::<Judge>::new(params).input_folder("model", std::path::Path::new(folder))
    }

    const PREDICTIONS: &str = r#"{"id":"a","direction":"mol2cap","input":"C","reference":"It is sweet. It is a drug.","prediction":"It is sour."}
{"id":"b","direction":"mol2cap","input":"C","reference":"It is a drug.","prediction":""}
"#;

    fn judgements(run: &StageRun) -> Vec<serde_json::Value> {
        run.json_lines("judgements", "rows.jsonl")
    }

    #[test]
    fn texts_are_judged_in_parts_and_in_both_directions() {
        let run = judge().input("predictions", &[("rows.jsonl", PREDICTIONS)]).run().unwrap();
        let rows = judgements(&run);
        let sentences = &rows[0]["levels"]["sentence"];
        assert_eq!(sentences["from_reference"].as_array().map(Vec::len), Some(2));
        assert_eq!(sentences["from_prediction"][0].as_array().map(Vec::len), Some(2));
        let verdict = sentences["from_reference"][1][0].as_array().unwrap();
        let sum: f64 = verdict.iter().map(|share| share.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{verdict:?}");
        assert_eq!((&rows[1]["is_empty"], &rows[1]["reference_words"]), (&true.into(), &4.into()));
        assert_eq!(run.notes()[0], "1 of 2 captions are empty, and say nothing that could be judged");
        assert_eq!(run.progress().last().map(|progress| (progress.done, progress.all)), Some((2, 2)));
    }

    #[test]
    fn fields_of_rows_are_judged_as_predictions_are() {
        let rows = r#"{"id":"a","is":"It is sweet. It is a drug.","said":"It is sour."}"#;
        let params = "levels = ['full', 'sentence']\ntexts = { reference = 'is', prediction = 'said' }";
        let of_rows = judge_with(params).input("rows", &[("rows.jsonl", rows)]).run().unwrap();
        let of_predictions = judge().input("predictions", &[("rows.jsonl", PREDICTIONS)]).run().unwrap();
        assert_eq!(judgements(&of_rows)[0], judgements(&of_predictions)[0]);
    }

    #[test]
    fn molecules_cannot_be_judged() {
        let predictions = PREDICTIONS.replace("mol2cap", "cap2mol");
        let failure = judge().input("predictions", &[("rows.jsonl", &predictions)]).run().unwrap_err();
        assert_eq!(failure.message, "prediction `a` is of cap2mol, and only captions can be judged");
    }

    #[test]
    fn ports_follow_where_texts_and_facts_come_from() {
        let of = |params: &str| ports::<Judge>(params).unwrap();
        let predictions = || Ports::new().input("predictions", super::PREDICTIONS).input("model", WEIGHTS);
        assert_eq!(of("levels = ['full']"), predictions().output("judgements", JUDGEMENTS));
        let rows = Ports::new().input("rows", ROWS).input("model", WEIGHTS);
        let texts = "levels = ['full']\ntexts = { reference = 'a', prediction = 'b' }";
        assert_eq!(of(texts), rows.output("judgements", JUDGEMENTS));
        let listed = predictions().input(PREDICTION_FACTS, ROWS).input(REFERENCE_FACTS, ROWS);
        assert_eq!(of("levels = ['atomic']\nfacts = 'listed'"), listed.output("judgements", JUDGEMENTS));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Judge>(params).unwrap_err().path;
        assert_eq!(path("levels = []"), "levels");
        assert_eq!(path("levels = ['full', 'atomic', 'full']"), "levels[2]");
        assert_eq!(path("levels = ['full', 'word']"), "levels[1]");
        assert_eq!(path("levels = ['full']\nfacts = 'listed'"), "facts");
        assert_eq!(path("levels = ['atomic']\nfield = 'x'"), "field");
        assert_eq!(path("levels = ['full']\ntexts = { reference = 'a' }"), "texts");
    }
}
