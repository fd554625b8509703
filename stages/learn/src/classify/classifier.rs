//! A classifier of pairs of texts: a folder in, probabilities out, no tensor between.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_tensor::Device;
use rayon::prelude::*;
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};
use weights::ModelFolder;

use crate::models::deberta::{DebertaConfig, DebertaV2ForSequenceClassification};
use crate::network::{TensorError, UnusableConfig};
use crate::tensor::device::{self, DeviceError, DeviceName};
use crate::tensor::parallel::{largest_first, threads_for};
use crate::text::tokenizer::TOKENIZER_FILE;

/// The network that can judge.
const ARCHITECTURE: &str = "DebertaV2ForSequenceClassification";

/// How many tokens are computed at once, on one thread.
const PIECE: usize = 512;

/// What is wrong with a classifier, or with a text for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The folder is not a model's.
    #[error("{}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: weights::ModelError,
    },
    /// It is of a type that is not known.
    #[error("{}: `config.json` says {found}; a `DebertaV2ForSequenceClassification` of type `deberta-v2` can judge", .folder.display())]
    UnknownType {
        /// The folder.
        folder: PathBuf,
        /// What it says.
        found: String,
    },
    /// Its configuration says what cannot be.
    #[error("{}", .folder.display())]
    Config {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: UnusableConfig,
    },
    /// Its tensors do not make the model.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// There is no tokenizer, or it cannot be read.
    #[error("cannot read the tokenizer {}: {detail}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the library said.
        detail: String,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error("{}: the tokenizer has {tokens} tokens, and the model embeds {embedded}", .folder.display())]
    Vocabulary {
        /// The folder.
        folder: PathBuf,
        /// The tokens.
        tokens: usize,
        /// The rows of the embedding.
        embedded: usize,
    },
    /// The tokenizer tells kinds of tokens apart that the model has no embedding for.
    #[error("{}: the tokenizer marks tokens as of kind {kind}, and the model embeds {embedded} kinds", .folder.display())]
    Types {
        /// The folder.
        folder: PathBuf,
        /// The kind.
        kind: u32,
        /// The rows of the embedding.
        embedded: usize,
    },
    /// No output of the classifier has such a label.
    #[error("{}: `id2label` of `config.json` has no `{label}`; its labels are {}", .folder.display(), .labels.join(", "))]
    NoLabel {
        /// The folder.
        folder: PathBuf,
        /// The label.
        label: String,
        /// Those there are.
        labels: Vec<String>,
    },
    /// A pair cannot be split into tokens.
    #[error("cannot tokenize {first:?} and {second:?}: {detail}")]
    Untokenizable {
        /// The first text.
        first: String,
        /// The second text.
        second: String,
        /// What is wrong.
        detail: String,
    },
    /// What came out for a pair is no probability.
    #[error("{}: {first:?} and {second:?} come to {probabilities:?}", .folder.display())]
    NotFinite {
        /// The folder.
        folder: PathBuf,
        /// The first text.
        first: String,
        /// The second text.
        second: String,
        /// What came out.
        probabilities: Vec<f32>,
    },
}

/// A model that classifies pairs of texts, with its tokenizer, on a device.
pub struct Classifier {
    model: DebertaV2ForSequenceClassification,
    tokenizer: tokenizers::Tokenizer,
    folder: PathBuf,
    device: Device,
}

/// A pair's tokens.
struct Encoded {
    ids: Vec<u32>,
    types: Vec<u32>,
}

impl Classifier {
    /// The most tokens of a pair, as the tokenizers of the public models have it.
    pub const MOST_TOKENS: usize = 512;

    /// Opens a model folder in the layout of Hugging Face.
    ///
    /// # Errors
    /// [`ClassifierError`], naming the folder and the tensor.
    pub fn open(folder: &Path, device: &DeviceName) -> Result<Self, ClassifierError> {
        let device = device::open(device)?;
        let owned = || folder.to_owned();
        let read = ModelFolder::open(folder)
            .map_err(|source| ClassifierError::Folder { folder: owned(), source })?;
        let architectures = read.architectures();
        if read.model_type() != Some("deberta-v2") || architectures.iter().any(|name| *name != ARCHITECTURE) {
            let model_type = read.model_type().unwrap_or("nothing");
            let found = format!("`model_type` {model_type}, `architectures` {}", architectures.join(", "));
            return Err(ClassifierError::UnknownType { folder: owned(), found });
        }
        let config = DebertaConfig::read(read.config())
            .map_err(|source| ClassifierError::Config { folder: owned(), source })?;
        let path = folder.join(TOKENIZER_FILE);
        let unreadable = |error: tokenizers::Error| {
            let (path, detail) = (folder.join(TOKENIZER_FILE), error.to_string());
            ClassifierError::Tokenizer { path, detail }
        };
        let mut tokenizer = tokenizers::Tokenizer::from_file(&path).map_err(unreadable)?;
        let (tokens, embedded) = (tokenizer.get_vocab_size(true), config.vocab_size);
        if tokens > embedded {
            return Err(ClassifierError::Vocabulary { folder: owned(), tokens, embedded });
        }
        let truncation = TruncationParams {
            max_length: Self::MOST_TOKENS.min(config.max_positions),
            strategy: TruncationStrategy::LongestFirst,
            direction: TruncationDirection::Right,
            stride: 0,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(unreadable)?;
        tokenizer.with_padding(None);
        let model = DebertaV2ForSequenceClassification::open(&read, config, &device)?;
        Ok(Self { model, tokenizer, folder: owned(), device })
    }

    /// Returns the labels, in the order of a pair's probabilities.
    pub fn labels(&self) -> &[String] {
        &self.model.config.labels
    }

    /// Returns the place of a label, whatever its capitals.
    ///
    /// # Errors
    /// [`ClassifierError::NoLabel`].
    pub fn label(&self, label: &str) -> Result<usize, ClassifierError> {
        let place = self.labels().iter().position(|known| known.eq_ignore_ascii_case(label));
        place.ok_or_else(|| ClassifierError::NoLabel {
            folder: self.folder.clone(),
            label: label.to_owned(),
            labels: self.labels().to_vec(),
        })
    }

    /// Returns the probability of each label for each pair of texts.
    ///
    /// A pair of more than 512 tokens loses those at the end of its longer text. Pairs of one
    /// length are computed together, on one thread, and what comes out for one does not depend on
    /// the others, on their order, or on the number of threads. `on_progress` is called with how many are done,
    /// and says whether to go on; if not, there is no result.
    ///
    /// # Errors
    /// [`ClassifierError::Untokenizable`], [`ClassifierError::Types`] and
    /// [`ClassifierError::NotFinite`].
    pub fn probabilities(
        &self,
        pairs: &[(&str, &str)],
        threads: usize,
        on_progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Option<Vec<Vec<f32>>>, ClassifierError> {
        let pool = threads_for(&self.device, threads);
        let encoded: Vec<Encoded> = pool.install(|| {
            pairs.par_iter().map(|(first, second)| self.encode(first, second)).collect::<Result<_, _>>()
        })?;
        let sizes: Vec<usize> = encoded.iter().map(|encoded| encoded.ids.len()).collect();
        let done = AtomicUsize::new(0);
        let compute = |piece: &[usize]| {
            let of = |numbers: fn(&Encoded) -> &Vec<u32>| -> Vec<u32> {
                piece.iter().flat_map(|place| numbers(&encoded[*place])).copied().collect()
            };
            let rows = self.model.logits(&of(|one| &one.ids), &of(|one| &one.types), piece.len());
            let before = done.fetch_add(piece.len(), Ordering::Relaxed);
            let judged = rows.iter().map(|row| probabilities(row)).collect();
            on_progress(before + piece.len()).then_some(judged)
        };
        let judged = largest_first(
            &sizes,
            &pool,
            |order| {
                let same = order.chunk_by(|one, other| sizes[*one] == sizes[*other]);
                same.flat_map(|same| same.chunks((PIECE / sizes[same[0]]).max(1))).collect()
            },
            compute,
        );
        let Some(judged) = judged else { return Ok(None) };
        for (pair, row) in pairs.iter().zip(&judged) {
            if !row.iter().all(|number| number.is_finite()) {
                let (first, second) = (pair.0.to_owned(), pair.1.to_owned());
                let (folder, probabilities) = (self.folder.clone(), row.clone());
                return Err(ClassifierError::NotFinite { folder, first, second, probabilities });
            }
        }
        Ok(Some(judged))
    }

    fn encode(&self, first: &str, second: &str) -> Result<Encoded, ClassifierError> {
        let wrong = |detail: String| ClassifierError::Untokenizable {
            first: first.to_owned(),
            second: second.to_owned(),
            detail,
        };
        let encoding =
            self.tokenizer.encode((first, second), true).map_err(|error| wrong(error.to_string()))?;
        let (ids, types) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        if ids.is_empty() {
            return Err(wrong("the tokenizer puts nothing before or after them".to_owned()));
        }
        let embedded = self.model.config.types;
        match types.iter().max() {
            Some(kind) if embedded > 0 && *kind as usize >= embedded => {
                Err(ClassifierError::Types { folder: self.folder.clone(), kind: *kind, embedded })
            }
            _ => Ok(Encoded { ids, types }),
        }
    }
}

/// Softmax of a few numbers.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A folder with the model of the reference values, and a tokenizer of a few words that pads.
    fn folder(change: impl Fn(&mut Value)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let golden = crate::testing::golden("deberta_v3");
        for file in ["model.safetensors", "tokenizer.json"] {
            std::fs::copy(golden.join(file), folder.path().join(file)).unwrap();
        }
        let mut config = serde_json::from_slice(&std::fs::read(golden.join("config.json")).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        folder
    }

    fn open(change: impl Fn(&mut Value)) -> Result<Classifier, String> {
        let folder = folder(change);
        let whole = |error: ClassifierError| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        };
        Classifier::open(folder.path(), &DeviceName::Cpu).map_err(whole)
    }

    const PAIRS: [(&str, &str); 6] = [
        ("The molecule is a drug.", "It is sweet."),
        ("It is sweet.", "The molecule is a drug."),
        ("The molecule is a nutrient.", "It is sour."),
        ("", "acid"),
        ("The molecule impacts cancer. It impacts pain. It is a salt.", "It is an unknown thing."),
        ("The molecule is a drug.", "It is sweet."),
    ];

    fn go_on(_: usize) -> bool {
        true
    }

    #[test]
    fn order_neighbours_and_threads_change_nothing() {
        let classifier = open(|_| {}).unwrap();
        let all = classifier.probabilities(&PAIRS, 1, &go_on).unwrap().unwrap();
        assert_eq!(all[0], all[5]);
        assert_ne!(all[0], all[1]);
        for row in &all {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        }
        let mut reversed = PAIRS;
        reversed.reverse();
        let mut actual = classifier.probabilities(&reversed, 3, &go_on).unwrap().unwrap();
        actual.reverse();
        assert_eq!(actual, all);
        for (pair, expected) in PAIRS.iter().zip(&all) {
            assert_eq!(&classifier.probabilities(&[*pair], 2, &go_on).unwrap().unwrap()[0], expected);
        }
        assert_eq!(classifier.probabilities(&PAIRS, 1, &|_| false).unwrap(), None);
        assert_eq!(classifier.probabilities(&[], 1, &go_on).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn labels_are_found_by_name_in_any_order() {
        let classifier = open(|config| {
            config["id2label"] = json!({ "2": "Entailment", "0": "CONTRADICTION", "1": "neutral" });
        });
        let classifier = classifier.unwrap();
        let places = ["entailment", "neutral", "contradiction"].map(|label| classifier.label(label).unwrap());
        assert_eq!(places, [2, 1, 0]);
        let error = classifier.label("not_entailment").unwrap_err().to_string();
        assert!(
            error.ends_with("has no `not_entailment`; its labels are CONTRADICTION, neutral, Entailment"),
            "{error}"
        );
    }

    #[test]
    fn long_pairs_are_cut_at_the_longer_text() {
        let classifier = open(|_| {}).unwrap();
        let long = "salt ".repeat(1000);
        let encoded = classifier.encode(&long, "it is sweet").unwrap();
        // The model has 64 places.
        assert_eq!((encoded.ids.len(), &encoded.ids[60..]), (64, &[14, 6, 10, 2][..]));
        assert_eq!(encoded.types.iter().sum::<u32>(), 4);
    }

    #[test]
    fn what_is_no_judge_says_why() {
        let error = |change: fn(&mut Value)| open(change).err().expect("it cannot be opened");
        let other = error(|config| config["model_type"] = "bert".into());
        assert!(other.contains("`model_type` bert") && other.contains("can judge"), "{other}");
        let head = error(|config| config["architectures"] = json!(["DebertaV2ForMaskedLM"]));
        assert!(head.contains("`architectures` DebertaV2ForMaskedLM"), "{head}");
        let few = error(|config| config["vocab_size"] = 10.into());
        assert!(few.contains("the tokenizer has 19 tokens, and the model embeds 10"), "{few}");
        let labels = error(|config| config["id2label"] = json!({ "0": "yes", "1": "no" }));
        assert!(
            labels
                .contains("tensor `classifier.weight` has shape [3, 32], and `config.json` makes it [2, 32]"),
            "{labels}"
        );
        let layers = error(|config| config["num_hidden_layers"] = 4.into());
        assert!(layers.contains("there is no tensor `deberta.encoder.layer.3."), "{layers}");
        let extra = error(|config| config["num_hidden_layers"] = 2.into());
        assert!(extra.contains("tensor `deberta.encoder.layer.2.") && extra.contains("no part"), "{extra}");
        let convolution = error(|config| config["conv_kernel_size"] = 3.into());
        assert!(convolution.contains("`conv_kernel_size`"), "{convolution}");
        let folder = folder(|_| {});
        std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let error = Classifier::open(folder.path(), &DeviceName::Cpu).err().unwrap().to_string();
        assert!(error.starts_with("cannot read the tokenizer"), "{error}");
    }
}
