//! What metrics are computed from: two texts, and what is made of them at most once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs;

use corpus::Direction;
use engine::{InputFile, StageFailure};
use learn::Tokenizer;
use metrics::bleu::Counts;
use metrics::meteor::WordNet;
use metrics::rouge::Rouge;
use metrics::similarity::{self, similarity};
use metrics::wordpiece::{MOST_TOKENS, WordPiece};
use metrics::{FingerprintKind, Molecule, words};

use super::metric::Unscored;
use super::pairs::Pair;
use super::{EmptyFingerprints, EmptyPrediction, Params, Tokens};

/// What scoring reads from files, for all rows.
pub(super) struct Resources {
    splitter: Splitter,
    wordnet: Option<WordNet>,
}

/// What captions are split by.
enum Splitter {
    Words,
    WordPiece(WordPiece),
    Tokenizer(Box<Tokenizer>),
}

impl Resources {
    /// Reads the files that parameters name.
    pub(super) fn open(params: &Params) -> Result<Self, StageFailure> {
        let splitter = match &params.tokens {
            Tokens::Words => Splitter::Words,
            Tokens::Wordpiece(file) => {
                let (path, origin) = (file.path(), file.origin());
                // A pipe or a device may never end.
                if !fs::metadata(path).map_err(StageFailure::reading(origin))?.is_file() {
                    return Err(StageFailure::new(format!("{} is no file", origin.display())));
                }
                let vocabulary = fs::read_to_string(path).map_err(StageFailure::reading(origin))?;
                let pieces = WordPiece::parse(&vocabulary)
                    .map_err(|error| StageFailure::caused(format!("read {}", origin.display()), error))?;
                Splitter::WordPiece(pieces)
            }
            Tokens::Tokenizer(file) => {
                let doing = || format!("read the tokenizer {}", file.origin().display());
                let tokenizer = Tokenizer::open_file(file.path());
                let tokenizer = tokenizer.map_err(|error| StageFailure::caused(doing(), error))?;
                Splitter::Tokenizer(Box::new(tokenizer))
            }
        };
        let open = |file: &InputFile| {
            let doing = || format!("read WordNet from {}", file.origin().display());
            WordNet::open(file.path()).map_err(|error| StageFailure::caused(doing(), error))
        };
        let wordnet = params.wordnet.as_ref().map(open).transpose()?;
        Ok(Self { splitter, wordnet })
    }

    fn split<'t>(&'t self, text: &'t str) -> Result<Vec<Cow<'t, str>>, Unscored> {
        match &self.splitter {
            Splitter::Words => Ok(words::split(text).map(Cow::Borrowed).collect()),
            Splitter::WordPiece(pieces) => Ok(pieces.split(text).into_iter().map(Cow::Borrowed).collect()),
            Splitter::Tokenizer(tokenizer) => {
                let tokens = tokenizer.tokens(text).map_err(|error| Unscored::Fatal(error.to_string()))?;
                Ok(tokens.into_iter().take(MOST_TOKENS).map(Cow::Owned).collect())
            }
        }
    }
}

/// A prediction and its reference, and what metrics make of them: each at most once.
pub(super) struct Features<'a> {
    resources: &'a Resources,
    params: &'a Params,
    pub(super) direction: Direction,
    pub(super) prediction: &'a str,
    pub(super) reference: &'a str,
    tokens: OnceCell<Result<TokenPair<'a>, Unscored>>,
    token_counts: OnceCell<Counts>,
    rouge: OnceCell<Rouge>,
    molecules: OnceCell<Molecules>,
    similarities: [OnceCell<Result<f64, Unscored>>; FingerprintKind::ALL.len()],
}

/// The tokens of the two texts.
pub(super) struct TokenPair<'a> {
    pub(super) prediction: Vec<Cow<'a, str>>,
    pub(super) reference: Vec<Cow<'a, str>>,
}

/// The molecules that the two texts are, if they are any.
#[derive(Debug)]
pub(super) struct Molecules {
    pub(super) prediction: Option<Molecule>,
    pub(super) reference: Option<Molecule>,
}

impl<'a> Features<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        params: &'a Params,
        direction: Direction,
        pair: &'a Pair,
    ) -> Self {
        Self {
            resources,
            params,
            direction,
            prediction: &pair.prediction,
            reference: &pair.reference,
            tokens: OnceCell::new(),
            token_counts: OnceCell::new(),
            rouge: OnceCell::new(),
            molecules: OnceCell::new(),
            similarities: [const { OnceCell::new() }; _],
        }
    }

    /// Fails if there is nothing to compare a prediction with.
    pub(super) fn needs_reference(&self) -> Result<(), Unscored> {
        match self.reference.trim() {
            "" => Err(Unscored::Because("a reference is empty".to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns what the texts are split into.
    pub(super) fn tokens(&self) -> Result<&TokenPair<'a>, Unscored> {
        let split = || {
            let prediction = self.resources.split(self.prediction)?;
            Ok(TokenPair { prediction, reference: self.resources.split(self.reference)? })
        };
        self.tokens.get_or_init(split).as_ref().map_err(Clone::clone)
    }

    /// Returns the n-grams of tokens that the texts share.
    pub(super) fn token_counts(&self) -> Result<Counts, Unscored> {
        let tokens = self.tokens()?;
        Ok(*self.token_counts.get_or_init(|| Counts::of(&tokens.prediction, &tokens.reference)))
    }

    /// Returns all scores of ROUGE.
    pub(super) fn rouge(&self) -> &Rouge {
        self.rouge.get_or_init(|| Rouge::of(self.prediction, self.reference))
    }

    /// Returns the synonyms of WordNet.
    pub(super) fn wordnet(&self) -> Option<&WordNet> {
        self.resources.wordnet.as_ref()
    }

    /// Returns the molecules that the texts are.
    pub(super) fn molecules(&self) -> &Molecules {
        self.molecules.get_or_init(|| Molecules {
            prediction: Molecule::of_line(self.prediction).ok(),
            reference: Molecule::of_line(self.reference).ok(),
        })
    }

    /// Gives the molecules away.
    pub(super) fn into_molecules(self) -> Option<Molecules> {
        self.molecules.into_inner()
    }

    /// Says whether the prediction is a molecule.
    pub(super) fn is_valid(&self) -> bool {
        self.is_empty_molecule() || self.molecules().prediction.is_some()
    }

    fn is_empty_molecule(&self) -> bool {
        self.prediction.is_empty() && self.params.empty_prediction == EmptyPrediction::Valid
    }

    /// Returns the Tanimoto similarity of the molecules' fingerprints.
    pub(super) fn similarity(&self, kind: FingerprintKind) -> Result<f64, Unscored> {
        let at = FingerprintKind::ALL.iter().position(|other| *other == kind).expect("it is one of all");
        let empty = match self.params.empty_fingerprints {
            EmptyFingerprints::Zero => similarity::EmptyFingerprints::Zero,
            EmptyFingerprints::One => similarity::EmptyFingerprints::One,
        };
        let compare = || match self.molecules() {
            Molecules { prediction: Some(prediction), reference: Some(reference) } => {
                similarity(prediction, reference, kind, empty)
                    .map_err(|error| Unscored::Because(error.to_string()))
            }
            Molecules { prediction: None, reference: Some(_) } if self.is_empty_molecule() => Ok(0.0),
            _ => Err(Unscored::NotApplicable),
        };
        self.similarities[at].get_or_init(compare).clone()
    }
}
