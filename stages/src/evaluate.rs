//! `kind = "evaluate"`: measures rows, or what a model predicted against its references.
//!
//! Scores come out per row, in aggregate, and as a distribution. A number that cannot be computed
//! is missing, with its reason; it is never 0.

mod column;
mod definition;
mod features;
mod judged;
mod metric;
mod metric_list;
mod metrics;
mod pairs;
mod resampling;
mod scorer;
mod tally;
mod texts;
mod totals;

use corpus::Direction;
use engine::{Context, FieldError, InputFile, Isolation, NoTuning, Ports, Resources, Stage, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{JUDGEMENTS, PREDICTIONS, ROWS, SCORES};
pub use metric::{Better, MetricSummary, metrics};
use metric::{Need, Subject};
use metric_list::MetricList;

/// What to measure, and how.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The metrics to compute: their names, or names of sets of them.
    metrics: MetricList,
    /// The field of rows with the text to measure, by default `caption`; with `direction` the one
    /// with the model's output, by default `output`.
    field: Option<String>,
    /// What rows with a model's outputs hold, where they come from a file of somebody else's.
    direction: Option<Direction>,
    /// What captions are split into for metrics of tokens.
    #[serde(default)]
    tokens: Tokens,
    /// WordNet's files for `meteor`: their folder, or an archive of it (`.tar`, `.tar.xz`).
    wordnet: Option<InputFile>,
    /// ChemNet's weights for `fcd`, as safetensors.
    chemnet: Option<InputFile>,
    /// Which reference a prediction is held against.
    #[serde(default)]
    pairing: Pairing,
    /// Only rows whose reference has at least so many words count.
    min_reference_words: Option<usize>,
    /// Resamples rows to give each number a confidence interval.
    bootstrap: Option<Bootstrap>,
    /// Compares each number with that of the scores at `baseline`, on the same resamples of rows.
    compare: Option<Comparison>,
    /// How the relative entropy of two distributions of scores is estimated in a comparison.
    #[serde(default)]
    relative_entropy: Estimator,
    /// Whether an empty prediction is a molecule.
    #[serde(default)]
    empty_prediction: EmptyPrediction,
    /// The similarity of two fingerprints without features.
    #[serde(default)]
    empty_fingerprints: EmptyFingerprints,
}

/// What captions are split into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Tokens {
    /// Words between white space.
    #[default]
    Words,
    /// The pieces of a WordPiece vocabulary, lower-cased: a file with one piece per line.
    Wordpiece(InputFile),
    /// The tokens of any `tokenizer.json` of Hugging Face.
    Tokenizer(InputFile),
}

/// Which reference a prediction is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pairing {
    /// Its own.
    #[default]
    Matched,
    /// Another row's, drawn by the seed: what a score comes to by chance.
    Shuffled,
}

/// Whether an empty prediction is a molecule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EmptyPrediction {
    /// It is none.
    #[default]
    Invalid,
    /// It is one without atoms, as RDKit reads it, and like no other.
    Valid,
}

/// The similarity of two fingerprints without features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EmptyFingerprints {
    /// 0, as in RDKit 2026.09.
    #[default]
    Zero,
    /// 1, as bits have it in older versions of RDKit.
    One,
}

/// How the relative entropy of two distributions of scores is estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Estimator {
    /// From counts in 20 bins, with one added to each.
    #[default]
    Bins,
    /// From densities of Gaussian kernels, as wide as Scott's rule has them.
    KernelDensity,
}

/// How rows are resampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Bootstrap {
    /// How many resamples.
    #[serde(default = "default_resamples")]
    resamples: usize,
    /// The share of the resamples that an interval holds.
    #[serde(default = "default_confidence")]
    confidence: f64,
}

/// How two models are compared on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Comparison {
    /// How many resamples.
    #[serde(default = "default_resamples")]
    resamples: usize,
    /// The share of the resamples that an interval holds.
    #[serde(default = "default_confidence")]
    confidence: f64,
    /// How often the two models' outputs are swapped at random for a permutation test; every way to
    /// swap them once where there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    permutations: Option<usize>,
}

impl Comparison {
    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { resamples: self.resamples, confidence: self.confidence }
    }
}

fn default_resamples() -> usize {
    1000
}

fn default_confidence() -> f64 {
    0.95
}

impl Params {
    /// Returns what the metrics measure together.
    fn subject(&self) -> Result<Subject, FieldError> {
        let [first, ..] = &self.metrics[..] else {
            return Err(FieldError::new("metrics", "`metrics` is empty").help("name at least one"));
        };
        let mut narrowest = *first;
        for (position, metric) in self.metrics.iter().enumerate() {
            let (ours, theirs) = (narrowest.subject, metric.subject);
            match (ours, theirs) {
                (ours, theirs) if ours == theirs => {}
                (Subject::Predictions, Subject::Captions | Subject::Molecules) => narrowest = *metric,
                (Subject::Captions | Subject::Molecules, Subject::Predictions) => {}
                _ => {
                    let message =
                        format!("`{}` measures {ours} and `{}` {theirs}", narrowest.name, metric.name);
                    let position = self.metrics.written(position);
                    return Err(FieldError::at("metrics", position, message).help("use a stage for each"));
                }
            }
        }
        Ok(narrowest.subject)
    }
}

/// Measures rows or predictions.
pub(crate) struct Evaluate;

impl Stage for Evaluate {
    const KIND: &'static str = "evaluate";
    /// 2: predictions are scored; the seed counts, since it shuffles references.
    /// 3: a comparison has the relative entropy both ways.
    /// 4: it has the share of rows that score lower; what a reference is too short for is missing.
    /// 5: `min_reference_words`, `bootstrap` and `resamples` have these names.
    const VERSION: u32 = 5;
    const SEEDED: bool = true;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("least_reference_words", "min_reference_words"),
        ("intervals", "bootstrap"),
        ("bootstrap.draws", "bootstrap.resamples"),
        ("compare.draws", "compare.resamples"),
        ("empty_fingerprints.unlike", "empty_fingerprints.zero"),
        ("empty_fingerprints.alike", "empty_fingerprints.one"),
    ];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let is_of_rows = params.direction.is_some() || params.subject() == Ok(Subject::Rows);
        let ports = match is_of_rows {
            _ if params.subject() == Ok(Subject::Judgements) => Ports::new().input("judgements", JUDGEMENTS),
            true if params.direction.is_some() => {
                Ports::new().input("rows", ROWS).optional("references", ROWS)
            }
            true => Ports::new().input("rows", ROWS),
            false => Ports::new().input("predictions", PREDICTIONS),
        };
        let columns = match params.subject() {
            Ok(Subject::Rows) => texts::columns(params),
            Ok(subject) => totals::columns(params, subject),
            Err(_) => Vec::new(),
        };
        let ports = if params.compare.is_some() { ports.input("baseline", SCORES) } else { ports };
        ports.scored_output("scores", SCORES, columns)
    }

    fn resources(params: &Params) -> Resources {
        let cores = params.metrics.iter().map(|metric| metric.cores()).max().unwrap_or(1);
        Resources { cores, ..Resources::default() }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        let subject = params.subject()?;
        check_metrics(params)?;
        check_bootstrap(params, subject)?;
        check_files(params)?;
        check_direction(params, subject)?;
        check_unused(params, subject)
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        match params.subject()? {
            Subject::Rows => texts::measure(params, context),
            Subject::Judgements => judged::measure(params, context),
            _ => totals::measure(params, context),
        }
    }
}

/// Checks that each metric is asked for once.
fn check_metrics(params: &Params) -> Result<(), FieldError> {
    let metrics = &params.metrics;
    match (1..metrics.len()).find(|at| metrics[..*at].contains(&metrics[*at])) {
        Some(position) => {
            let message = format!("`metrics` names `{}` twice", metrics[position].name);
            Err(FieldError::at("metrics", metrics.written(position), message))
        }
        None => Ok(()),
    }
}

/// Checks how rows are resampled.
fn check_bootstrap(params: &Params, subject: Subject) -> Result<(), FieldError> {
    let comparison = params.compare.as_ref().map(Comparison::bootstrap);
    for (name, bootstrap) in [("bootstrap", params.bootstrap.as_ref()), ("compare", comparison.as_ref())] {
        let Some(bootstrap) = bootstrap else { continue };
        if subject == Subject::Rows {
            let message = format!("`{name}` is for predictions, which `words` does not measure");
            return Err(FieldError::new(name, message));
        }
        FieldError::check_counts([(format!("{name}.resamples"), bootstrap.resamples)])?;
        if !(bootstrap.confidence > 0.0 && bootstrap.confidence < 1.0) {
            let path = format!("{name}.confidence");
            let message = format!("`{path}` is between 0 and 1, not {}", bootstrap.confidence);
            return Err(FieldError::new(path, message));
        }
    }
    let permutations = params.compare.as_ref().and_then(|compare| compare.permutations);
    FieldError::check_counts([("compare.permutations", permutations.unwrap_or(1))])?;
    if params.compare.is_none() && params.relative_entropy != Estimator::default() {
        let message = "`relative_entropy` changes nothing: there is no `compare`";
        return Err(FieldError::new("relative_entropy", message));
    }
    Ok(())
}

/// Checks that the files that metrics read are named, and no others.
fn check_files(params: &Params) -> Result<(), FieldError> {
    let position = |need: Need| {
        let position = params.metrics.iter().position(|metric| metric.needs(need));
        position.map(|position| params.metrics.written(position))
    };
    match (position(Need::WordNet), &params.wordnet) {
        (Some(position), None) => {
            let error = FieldError::at("metrics", position, "`meteor` needs WordNet's files");
            return Err(error.help(
                "add `wordnet = \"…/wordnet-3.0.tar.xz\"`; without them there is `meteor_no_wordnet`",
            ));
        }
        (None, Some(_)) => {
            let message = "`wordnet` changes nothing: `meteor` is not asked for";
            return Err(FieldError::new("wordnet", message));
        }
        _ => {}
    }
    match (position(Need::ChemNet), &params.chemnet) {
        (Some(position), None) => {
            let error = FieldError::at("metrics", position, "`fcd` needs ChemNet's weights");
            Err(error.help(
                "add `chemnet = \"…/chemnet.safetensors\"`; tests/reference/convert_chemnet.py makes the file \
                 from the package `fcd`",
            ))
        }
        (None, Some(_)) => {
            Err(FieldError::new("chemnet", "`chemnet` changes nothing: `fcd` is not asked for"))
        }
        _ => Ok(()),
    }
}

/// Checks that what is measured is what the rows have.
fn check_direction(params: &Params, subject: Subject) -> Result<(), FieldError> {
    let error = |path: &str, message: String| Err(FieldError::new(path, message));
    match (subject, params.direction) {
        (Subject::Judgements, Some(_)) => {
            error("direction", "`direction` is for predictions: what was judged is as it is".to_owned())
        }
        (Subject::Rows, Some(_)) => {
            let message = "`direction` is for outputs of a model, which `words` does not measure";
            error("direction", message.to_owned())
        }
        (Subject::Captions, Some(Direction::Cap2mol)) | (Subject::Molecules, Some(Direction::Mol2cap)) => {
            error("direction", format!("`metrics` measure {subject}, and `direction` makes others"))
        }
        (Subject::Captions | Subject::Molecules | Subject::Predictions, None) if params.field.is_some() => {
            Err(FieldError::new("field", "`field` is for rows: predictions have their own")
                .help("for rows with outputs, add `direction`"))
        }
        _ => Ok(()),
    }
}

/// Checks that no field is given that would change nothing.
fn check_unused(params: &Params, subject: Subject) -> Result<(), FieldError> {
    let has_molecules = subject == Subject::Molecules;
    let has_tokens = params.metrics.iter().any(|metric| metric.needs(Need::Tokens));
    let is_shuffled = params.pairing != Pairing::Matched;
    let (judged, words) = (subject == Subject::Judgements, subject == Subject::Rows);
    const JUDGED: &str = "is for predictions: what was judged is as it is";
    const WORDS: &str = "is for predictions, which `words` does not measure";
    const NO_MOLECULES: &str = "changes nothing: none of the `metrics` is of molecules";
    let unused = [
        ("field", JUDGED, judged && params.field.is_some()),
        ("pairing", JUDGED, judged && is_shuffled),
        ("pairing", WORDS, words && is_shuffled),
        ("min_reference_words", WORDS, words && params.min_reference_words.is_some()),
        (
            "min_reference_words",
            "is for captions: a molecule has one word",
            has_molecules && params.min_reference_words.is_some(),
        ),
        (
            "tokens",
            "changes nothing: none of the `metrics` is of tokens of captions",
            params.tokens != Tokens::Words && !has_tokens,
        ),
        (
            "empty_prediction",
            NO_MOLECULES,
            !has_molecules && params.empty_prediction != EmptyPrediction::default(),
        ),
        (
            "empty_fingerprints",
            NO_MOLECULES,
            !has_molecules && params.empty_fingerprints != EmptyFingerprints::default(),
        ),
    ];
    match unused.into_iter().find(|(_, _, is_given)| *is_given) {
        Some((field, why, _)) => Err(FieldError::new(field, format!("`{field}` {why}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};
    use serde_json::json;

    use super::*;

    const PREDICTIONS: &str = r#"{"id":"a","direction":"cap2mol","input":"x","reference":"CCO","prediction":"OCC"}
{"id":"b","direction":"cap2mol","input":"y","reference":"CCC","prediction":"C1CC"}
"#;

    #[test]
    fn predictions_are_scored_by_row_and_in_all() {
        let run = StageTest::<Evaluate>::new("metrics = ['exact', 'validity', 'exact_string']")
            .input("predictions", &[("rows.jsonl", PREDICTIONS)])
            .run()
            .unwrap();
        let metrics = run.json("scores", "metrics.json");
        let numbers = ["exact", "validity", "exact_string", "rows", "invalid_predictions"];
        assert_eq!(numbers.map(|name| metrics[name].as_f64().unwrap()), [0.5, 0.5, 0.0, 2.0, 1.0]);
        let rows = run.json_lines("scores", "rows.jsonl");
        assert_eq!((&rows[0]["id"], rows.len()), (&json!("a"), 2));
    }

    #[test]
    fn texts_of_rows_are_measured() {
        let rows =
            "{\"id\":\"a\",\"caption\":\"one two\"}\n{\"id\":\"b\",\"caption\":\"one two three four\"}\n";
        let test =
            |params: &str| StageTest::<Evaluate>::new(params).input("rows", &[("rows.jsonl", rows)]).run();
        let metrics = test("metrics = ['words']").unwrap().json("scores", "metrics.json");
        assert_eq!((&metrics["words_mean"], &metrics["words_max"]), (&json!(3.0), &json!(4.0)));
        let failure = test("metrics = ['words']\nfield = 'text'").unwrap_err();
        assert_eq!(failure.help.as_deref(), Some("name another `field`"));
    }

    #[test]
    fn ports_follow_what_is_measured() {
        let of = |params: &str| ports::<Evaluate>(params).unwrap();
        let read = |metrics: &[&str]| -> Params {
            serde_json::from_value(json!({ "metrics": metrics })).expect("parameters")
        };
        let words = texts::columns(&read(&["words"]));
        let names = |columns: &[engine::OutputColumn]| {
            columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&words),
            ["words_mean", "words_std", "words_median", "words_min", "words_max", "words_rows"]
        );
        let rows = Ports::new().input("rows", ROWS);
        assert_eq!(of("metrics = ['words']"), rows.scored_output("scores", SCORES, words));
        let captions = || totals::columns(&read(&["bleu2"]), Subject::Captions);
        assert_eq!(names(&captions()), ["bleu2", "rows", "empty_predictions"]);
        let predictions = || Ports::new().input("predictions", PREDICTIONS_TYPE);
        assert_eq!(of("metrics = ['bleu2']"), predictions().scored_output("scores", SCORES, captions()));
        let outputs = Ports::new().input("rows", ROWS).optional("references", ROWS);
        assert_eq!(
            of("metrics = ['bleu2']\ndirection = 'mol2cap'"),
            outputs.scored_output("scores", SCORES, captions())
        );
    }

    #[test]
    fn columns_say_how_they_are_shown_and_what_they_are_computed_by() {
        let column = |params: &str, name: &str| {
            let ports = ports::<Evaluate>(params).unwrap();
            let columns = ports.columns().find(|column| column.name == name).cloned();
            columns.unwrap_or_else(|| panic!("no column `{name}`"))
        };
        let bleu = column("metrics = 'captions'", "bleu2");
        let shown = (bleu.label.as_str(), bleu.digits, bleu.better, bleu.is_default);
        assert_eq!(shown, ("BLEU-2", Some(2), Some(engine::Better::Higher), true));
        let definition = |params: &str, name: &str| {
            let definition = column(params, name).definition.expect("a definition");
            (definition.parts.join(", "), definition.files.join(", "))
        };
        let of = |parts: &str, files: &str| (parts.to_owned(), files.to_owned());
        assert_eq!(definition("metrics = ['bleu2']", "bleu2"), of("words between white space", ""));
        assert_eq!(
            definition("metrics = ['bleu2']\ntokens.wordpiece = 'a/vocab.txt'", "bleu2"),
            of("word pieces of vocab.txt", "tokens.wordpiece")
        );
        assert_eq!(definition("metrics = ['rouge1']", "rouge1"), of("", ""));
        assert_eq!(
            definition("metrics = ['rouge1']\npairing = 'shuffled'", "rouge1"),
            of("references of other rows", "")
        );
        assert!(!column("metrics = ['exact']", "rows").is_default);
        let low = column("metrics = ['exact']\nbootstrap.resamples = 10", "exact_low");
        assert_eq!((low.label.as_str(), low.is_default), ("exact low", false));
        assert_eq!(low.definition.expect("a definition").parts, ["95 % of 10 resamples"]);
    }

    const PREDICTIONS_TYPE: engine::ArtifactType = crate::artifacts::PREDICTIONS;

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Evaluate>(params).unwrap_err().path;
        assert_eq!(path("metrics = []"), "metrics");
        assert_eq!(path("metrics = ['bleu2', 'rouge1', 'bleu2']"), "metrics[2]");
        assert_eq!(path("metrics = ['bleu2', 'exact']"), "metrics[1]");
        assert_eq!(path("metrics = ['bleu2', 'blue4']"), "metrics[1]");
        assert_eq!(path("metrics = ['rouge1', 'meteor']"), "metrics[1]");
        assert_eq!(path("metrics = ['rouge1']\nwordnet = 'a'"), "wordnet");
        assert_eq!(path("metrics = ['rouge1']\ncompare.permutations = 0"), "compare.permutations");
        assert_eq!(path("metrics = ['exact']\ndirection = 'mol2cap'"), "direction");
        assert_eq!(path("metrics = ['words']\npairing = 'shuffled'"), "pairing");
        assert_eq!(path("metrics = ['rouge1']\nempty_prediction = 'molecule'"), "empty_prediction");
    }
}
