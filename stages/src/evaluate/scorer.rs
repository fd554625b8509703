//! Scores predictions, row by row.

use std::borrow::Cow;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use corpus::{Direction, Record};
use engine::{Failure, InputFile};
use learn::Tokenizer;
use metrics::bleu::Counts;
use metrics::meteor::{WordNet, meteor};
use metrics::rouge::Rouge;
use metrics::similarity::{self, similarity};
use metrics::wordpiece::{MOST_TOKENS, WordPiece};
use metrics::{FingerprintKind, Molecule, character, chrf, exact, length, levenshtein, win, words};
use serde::{Deserialize, Serialize};

use super::metric::{Metric, Subject};
use super::pairs::Pair;
use super::{EmptyFingerprints, EmptyPrediction, Params, Tokens};

/// How many rows one thread takes at a time.
const CHUNK: usize = 32;

/// What captions are split by.
enum Splitter {
    Words,
    WordPiece(WordPiece),
    Tokenizer(Box<Tokenizer>),
}

/// Scores rows.
pub(super) struct Scorer<'a> {
    params: &'a Params,
    splitter: Splitter,
    wordnet: Option<WordNet>,
}

/// What one metric says of one row.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Score {
    Number(f64),
    /// What a BLEU is made of.
    Counts(Counts),
    /// It cannot be said.
    Missing,
}

/// What is said of one row.
#[derive(Serialize, Deserialize)]
pub(super) struct Scored {
    /// The prediction's `id`.
    pub id: String,
    /// By metric, in the order named.
    pub scores: Vec<Score>,
    pub is_empty: bool,
    pub is_reference_empty: bool,
    /// Whether prediction and reference are molecules, where that was looked at.
    pub are_molecules: Option<(bool, bool)>,
    /// The prediction's canonical SMILES, if it is a molecule.
    pub canonical: Option<String>,
    /// The same of the reference.
    pub canonical_reference: Option<String>,
    /// Why a score could not be computed, though there is something to score.
    pub trouble: Option<String>,
    /// Why the row cannot be scored at all.
    pub failure: Option<String>,
}

impl Record for Scored {
    const WHAT: &'static str = "a scored row";
}

/// Two lines as molecules.
struct Molecules {
    prediction: Option<Molecule>,
    reference: Option<Molecule>,
}

impl<'a> Scorer<'a> {
    /// Reads what scoring needs.
    pub(super) fn new(params: &'a Params) -> Result<Self, Failure> {
        let splitter = match &params.tokens {
            Tokens::Words => Splitter::Words,
            Tokens::Wordpiece(file) => {
                let (path, origin) = (file.path(), file.origin());
                // A pipe or a device may never end.
                if !fs::metadata(path).map_err(Failure::reading(origin))?.is_file() {
                    return Err(Failure::new(format!("{} is no file", origin.display())));
                }
                let vocabulary = fs::read_to_string(path).map_err(Failure::reading(origin))?;
                let pieces = WordPiece::parse(&vocabulary)
                    .map_err(|error| Failure::caused(format!("read {}", origin.display()), error))?;
                Splitter::WordPiece(pieces)
            }
            Tokens::Tokenizer(file) => {
                let doing = || format!("read the tokenizer {}", file.origin().display());
                let tokenizer = Tokenizer::open_file(file.path());
                let tokenizer = tokenizer.map_err(|error| Failure::caused(doing(), error))?;
                Splitter::Tokenizer(Box::new(tokenizer))
            }
        };
        let open = |file: &InputFile| {
            let doing = || format!("read WordNet from {}", file.origin().display());
            WordNet::open(file.path()).map_err(|error| Failure::caused(doing(), error))
        };
        let wordnet = params.wordnet.as_ref().map(open).transpose()?;
        Ok(Self { params, splitter, wordnet })
    }

    /// Scores one row.
    pub(super) fn score(&self, direction: Direction, pair: &Pair) -> Scored {
        let Pair { prediction, reference, .. } = pair;
        let metrics = &self.params.metrics;
        let any = |of: &[Metric]| metrics.iter().any(|metric| of.contains(metric));
        let rouge =
            any(&[Metric::Rouge1, Metric::Rouge2, Metric::RougeL]).then(|| Rouge::of(prediction, reference));
        let mut trouble = None;
        if let Some(what) = what_is_missing(metrics, reference, rouge) {
            trouble = Some(what.to_owned());
        }
        let rouge = |needed: usize, take: fn(Rouge) -> f64| match rouge {
            Some(rouge) if rouge.reference_tokens >= needed => Score::Number(take(rouge)),
            _ => Score::Missing,
        };
        let is_of_tokens = metrics.iter().any(|metric| metric.is_of_tokens());
        let mut failure = None;
        let mut split = |text| {
            self.split(text).unwrap_or_else(|what| {
                failure = Some(what);
                Vec::new()
            })
        };
        let tokens = is_of_tokens.then(|| (split(prediction), split(reference)));
        let tokens = tokens.as_ref();
        let counts = tokens.map(|(prediction, reference)| Counts::of(prediction, reference));
        let meteor = |wordnet| match tokens {
            Some((prediction, reference)) if !reference.is_empty() => {
                let [prediction, reference] =
                    [prediction, reference].map(|tokens| tokens.iter().map(Cow::as_ref).collect::<Vec<_>>());
                Score::Number(meteor(&prediction, &reference, wordnet))
            }
            _ => Score::Missing,
        };
        let chrf = |beta: f64| match reference.trim().is_empty() {
            true => Score::Missing,
            false => Score::Number(chrf::chrf(prediction, reference, beta)),
        };
        let is_of_molecules = metrics.iter().any(|metric| metric.subject() == Subject::Molecules);
        let molecules = is_of_molecules.then(|| Molecules {
            prediction: Molecule::of_line(prediction).ok(),
            reference: Molecule::of_line(reference).ok(),
        });
        let is_empty_molecule =
            prediction.is_empty() && self.params.empty_prediction == EmptyPrediction::Valid;
        let is_valid = |molecules: &Molecules| is_empty_molecule || molecules.prediction.is_some();
        let mut rate = None;
        if any(&[Metric::Character]) {
            match character::of_characters(prediction, reference) {
                Ok(found) => rate = Some(found),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        let mut inchi = Score::Missing;
        if let (true, Some(Molecules { prediction, reference: Some(reference) })) =
            (any(&[Metric::ExactInchi]), &molecules)
        {
            match prediction.as_ref().map_or(Ok(false), |found| exact::inchi(found, reference)) {
                Ok(is_same) => inchi = truth(is_same),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        // Fingerprints are asked for by two metrics each.
        let mut similarities: Vec<(FingerprintKind, Score)> = Vec::new();
        let mut similar = |kind: FingerprintKind| {
            if let Some((_, found)) = similarities.iter().find(|(found, _)| *found == kind) {
                return *found;
            }
            let found = match &molecules {
                Some(Molecules { prediction: Some(prediction), reference: Some(reference) }) => {
                    match similarity(prediction, reference, kind, self.empty_fingerprints()) {
                        Ok(number) => Score::Number(number),
                        Err(error) => {
                            trouble = Some(error.to_string());
                            Score::Missing
                        }
                    }
                }
                Some(Molecules { prediction: None, reference: Some(_) }) if is_empty_molecule => {
                    Score::Number(0.0)
                }
                _ => Score::Missing,
            };
            similarities.push((kind, found));
            found
        };
        let zero_if_invalid = |found: Score| match (&molecules, found) {
            (Some(molecules), Score::Missing) if molecules.reference.is_some() && !is_valid(molecules) => {
                Score::Number(0.0)
            }
            _ => found,
        };
        let scores = metrics.iter().map(|metric| match metric {
            Metric::Words => Score::Missing,
            Metric::Bleu2 | Metric::Bleu4 => counts.map_or(Score::Missing, Score::Counts),
            Metric::Rouge1 => rouge(1, |rouge| rouge.rouge1),
            Metric::Rouge2 => rouge(2, |rouge| rouge.rouge2),
            Metric::RougeL => rouge(1, |rouge| rouge.rouge_l),
            Metric::Meteor => meteor(self.wordnet.as_ref()),
            Metric::MeteorNoWordnet => meteor(None),
            Metric::Bleu => {
                let characters = |text: &str| text.chars().collect::<Vec<_>>();
                Score::Counts(Counts::of(&characters(prediction), &characters(reference)))
            }
            Metric::Exact => match &molecules {
                Some(Molecules { prediction, reference: Some(reference) }) => {
                    truth(prediction.as_ref().is_some_and(|found| exact::molecule(found, reference)))
                }
                _ => Score::Missing,
            },
            Metric::ExactInchi => inchi,
            Metric::Validity => {
                molecules.as_ref().map_or(Score::Missing, |molecules| truth(is_valid(molecules)))
            }
            Metric::MaccsFts => similar(FingerprintKind::Maccs),
            Metric::MaccsFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Maccs)),
            Metric::RdkFts => similar(FingerprintKind::Rdk),
            Metric::RdkFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Rdk)),
            Metric::MorganFts => similar(FingerprintKind::Morgan),
            Metric::MorganFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Morgan)),
            // Told when all rows before are known.
            Metric::Uniqueness => Score::Missing,
            // Of all rows together.
            Metric::Fcd => Score::Missing,
            // A judge's, and not of these texts.
            Metric::Entailment
            | Metric::EntailmentWinRate
            | Metric::CoverageFull
            | Metric::CoverageSentence
            | Metric::CoverageSentenceMean
            | Metric::CoverageAtomic
            | Metric::HallucinationFull
            | Metric::HallucinationSentence
            | Metric::HallucinationAtomic => Score::Missing,
            Metric::WinRate => molecules.as_ref().map_or(Score::Missing, |molecules| {
                let chrf = chrf::chrf(prediction, reference, 1.0);
                let deviation = length::deviation_characters(prediction, reference);
                truth(win::is_win(chrf, deviation, is_valid(molecules)))
            }),
            Metric::Character => rate.map_or(Score::Missing, Score::Number),
            Metric::ExactString => truth(exact::string(prediction, reference)),
            Metric::Levenshtein => Score::Number(levenshtein::distance(prediction, reference) as f64),
            Metric::Chrf => chrf(1.0),
            Metric::Chrf2 => chrf(2.0),
            Metric::LengthDeviation => Score::Number(match direction {
                Direction::Mol2cap => length::deviation_words(prediction, reference),
                Direction::Cap2mol => length::deviation_characters(prediction, reference),
            } as f64),
        });
        let scores = scores.collect();
        let are_molecules =
            molecules.as_ref().map(|molecules| (is_valid(molecules), molecules.reference.is_some()));
        let (canonical, canonical_reference) = match molecules {
            Some(Molecules { prediction, reference }) => (prediction, reference),
            None => (None, None),
        };
        let canonical_of = |molecule: Molecule| molecule.canonical().to_owned();
        Scored {
            id: pair.id.clone(),
            scores,
            is_empty: prediction.trim().is_empty(),
            is_reference_empty: reference.trim().is_empty(),
            are_molecules,
            canonical: canonical.map(canonical_of),
            canonical_reference: canonical_reference.map(canonical_of),
            trouble,
            failure,
        }
    }

    fn split<'t>(&'t self, text: &'t str) -> Result<Vec<Cow<'t, str>>, String> {
        match &self.splitter {
            Splitter::Words => Ok(words::split(text).map(Cow::Borrowed).collect()),
            Splitter::WordPiece(pieces) => Ok(pieces.split(text).into_iter().map(Cow::Borrowed).collect()),
            Splitter::Tokenizer(tokenizer) => {
                let tokens = tokenizer.tokens(text).map_err(|error| error.to_string())?;
                Ok(tokens.into_iter().take(MOST_TOKENS).map(Cow::Owned).collect())
            }
        }
    }

    fn empty_fingerprints(&self) -> similarity::EmptyFingerprints {
        match self.params.empty_fingerprints {
            EmptyFingerprints::Unlike => similarity::EmptyFingerprints::Unlike,
            EmptyFingerprints::Alike => similarity::EmptyFingerprints::Alike,
        }
    }
}

/// Says what a reference has not, so that some scores of its row cannot be computed.
fn what_is_missing(metrics: &[Metric], reference: &str, rouge: Option<Rouge>) -> Option<&'static str> {
    let any = |of: &[Metric]| metrics.iter().any(|metric| of.contains(metric));
    let of_rows = [Metric::Meteor, Metric::MeteorNoWordnet, Metric::Chrf, Metric::Chrf2];
    match rouge.map(|rouge| rouge.reference_tokens) {
        _ if reference.trim().is_empty() && (rouge.is_some() || any(&of_rows)) => {
            Some("a reference is empty")
        }
        Some(0) => Some("a reference has no words of the letters a to z and digits, as ROUGE has them"),
        Some(1) if any(&[Metric::Rouge2]) => Some("a reference of one word has no pairs of words"),
        _ => None,
    }
}

/// Returns 1 or 0.
pub(super) fn truth(is_so: bool) -> Score {
    Score::Number(f64::from(u8::from(is_so)))
}

/// Does something for every item, on several threads. What comes out is in the items' order, and
/// does not depend on how many threads there are.
pub(super) fn side_by_side<T: Sync, U: Send>(
    items: &[T],
    threads: usize,
    find: impl Fn(&T) -> U + Sync,
) -> Vec<U> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(rest) = items.get(chunk * CHUNK..).filter(|rest| !rest.is_empty()) else { return found };
            found.push((chunk, rest.iter().take(CHUNK).map(&find).collect::<Vec<U>>()));
        }
    };
    let mut chunks = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let found = workers.into_iter().map(|worker| worker.join().expect("scoring does not panic"));
        found.flatten().collect::<Vec<_>>()
    });
    chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
    chunks.into_iter().flat_map(|(_, found)| found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let items: Vec<usize> = (0..CHUNK * 7 + 3).collect();
        for threads in [0, 1, 2, 5, 64] {
            assert_eq!(
                side_by_side(&items, threads, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert_eq!(side_by_side(&[] as &[usize], 3, |item| *item), Vec::<usize>::new());
    }
}
