//! `kind = "evaluate"`: measures rows, or what a model predicted against its references.
//!
//! Scores come out per row, in aggregate, and as a distribution. A number that cannot be computed
//! is missing, with its reason; it is never 0.

mod column;
mod features;
mod judged;
mod metric;
mod metrics;
mod pairs;
mod resampling;
mod scorer;
mod tally;
mod texts;
mod totals;

use corpus::Direction;
use engine::{Context, InputFile, Isolation, NoTuning, Ports, Resources, Stage, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{JUDGEMENTS, PREDICTIONS, ROWS, SCORES};
pub use metric::{Better, MetricSummary, metrics};
use metric::{Metric, Need, Subject};

/// What to measure, and how.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The metrics to compute.
    metrics: Vec<&'static Metric>,
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
    fn subject(&self) -> Result<Subject, String> {
        let [first, rest @ ..] = &self.metrics[..] else {
            return Err("`metrics` is empty: name at least one".to_owned());
        };
        let mut narrowest = *first;
        for metric in rest {
            let (ours, theirs) = (narrowest.subject, metric.subject);
            match (ours, theirs) {
                (ours, theirs) if ours == theirs => {}
                (Subject::Predictions, Subject::Captions | Subject::Molecules) => narrowest = *metric,
                (Subject::Captions | Subject::Molecules, Subject::Predictions) => {}
                _ => {
                    return Err(format!(
                        "`{}` measures {ours} and `{}` {theirs}: use a stage for each",
                        narrowest.name, metric.name,
                    ));
                }
            }
        }
        Ok(narrowest.subject)
    }
}

/// Measures rows or predictions.
pub struct Evaluate;

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
            Ok(Subject::Rows) => texts::columns(&params.metrics),
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

    fn check(params: &Params) -> Result<(), String> {
        let subject = params.subject()?;
        let is_repeated =
            (1..params.metrics.len()).any(|at| params.metrics[..at].contains(&params.metrics[at]));
        let needs = |need: Need| params.metrics.iter().any(|metric| metric.needs(need));
        let about_molecules = || match () {
            () if params.empty_prediction != EmptyPrediction::default() => Some("empty_prediction"),
            () if params.empty_fingerprints != EmptyFingerprints::default() => Some("empty_fingerprints"),
            () => None,
        };
        let comparison = params.compare.as_ref().map(Comparison::bootstrap);
        let all = [("bootstrap", params.bootstrap.as_ref()), ("compare", comparison.as_ref())];
        for (name, bootstrap) in all {
            match bootstrap {
                Some(_) if subject == Subject::Rows => {
                    return Err(format!("`{name}` is for predictions, which `words` does not measure"));
                }
                Some(bootstrap) if bootstrap.resamples == 0 => {
                    return Err(format!("`{name}.resamples` is at least 1"));
                }
                Some(bootstrap) if !(bootstrap.confidence > 0.0 && bootstrap.confidence < 1.0) => {
                    return Err(format!(
                        "`{name}.confidence` is between 0 and 1, not {}",
                        bootstrap.confidence
                    ));
                }
                _ => {}
            }
        }
        if params.compare.as_ref().is_some_and(|compare| compare.permutations == Some(0)) {
            return Err("`compare.permutations` is at least 1".to_owned());
        }
        if params.compare.is_none() && params.relative_entropy != Estimator::default() {
            return Err("`relative_entropy` changes nothing: there is no `compare`".to_owned());
        }
        match (needs(Need::WordNet), &params.wordnet) {
            (true, None) => {
                return Err("`meteor` needs WordNet's files, `wordnet = \"…/wordnet-3.0.tar.xz\"`; \
                            without them there is `meteor_no_wordnet`"
                    .to_owned());
            }
            (false, Some(_)) => return Err("`wordnet` changes nothing: `meteor` is not asked for".to_owned()),
            _ => {}
        }
        match (needs(Need::ChemNet), &params.chemnet) {
            (true, None) => {
                return Err("`fcd` needs ChemNet's weights, `chemnet = \"…/chemnet.safetensors\"`; \
                            tests/reference/convert_chemnet.py makes the file from the package `fcd`"
                    .to_owned());
            }
            (false, Some(_)) => return Err("`chemnet` changes nothing: `fcd` is not asked for".to_owned()),
            _ => {}
        }
        if subject == Subject::Judgements {
            let unused = [
                ("field", params.field.is_some()),
                ("direction", params.direction.is_some()),
                ("pairing", params.pairing != Pairing::Matched),
            ];
            if let Some((name, _)) = unused.into_iter().find(|(_, is_given)| *is_given) {
                return Err(format!("`{name}` is for predictions: what was judged is as it is"));
            }
        }
        match (subject, params.direction) {
            (Subject::Rows, _) if params.min_reference_words.is_some() => {
                Err("`min_reference_words` is for predictions, which `words` does not measure".to_owned())
            }
            (Subject::Molecules, _) if params.min_reference_words.is_some() => {
                Err("`min_reference_words` is for captions: a molecule has one word".to_owned())
            }
            _ if is_repeated => Err("`metrics` names one twice".to_owned()),
            (Subject::Rows, Some(_)) => {
                Err("`direction` is for outputs of a model, which `words` does not measure".to_owned())
            }
            (Subject::Rows, _) if params.pairing == Pairing::Shuffled => {
                Err("`pairing` is for predictions, which `words` does not measure".to_owned())
            }
            (Subject::Captions, Some(Direction::Cap2mol))
            | (Subject::Molecules, Some(Direction::Mol2cap)) => {
                Err(format!("`metrics` measure {subject}, and `direction` makes others"))
            }
            (Subject::Captions | Subject::Molecules | Subject::Predictions, None)
                if params.field.is_some() =>
            {
                Err("`field` is for rows: predictions have their own; rows with outputs need a `direction`"
                    .to_owned())
            }
            _ if params.tokens != Tokens::Words && !needs(Need::Tokens) => {
                Err("`tokens` changes nothing: none of the `metrics` is of tokens of captions".to_owned())
            }
            (Subject::Molecules, _) => Ok(()),
            _ => match about_molecules() {
                Some(name) => Err(format!("`{name}` changes nothing: none of the `metrics` is of molecules")),
                None => Ok(()),
            },
        }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        match params.subject().map_err(StageFailure::new)? {
            Subject::Rows => texts::measure(params, context),
            Subject::Judgements => judged::measure(params, context),
            _ => totals::measure(params, context),
        }
    }
}
