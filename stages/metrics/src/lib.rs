//! Scores of captions and molecules, one file each.
//!
//! Metrics take tokens, strings and plain numbers, and give numbers. The crate refuses to know
//! where these come from, what a model is, and how a table rounds: everything comes out at full
//! precision, and in the same bits every time. An output comes before its reference everywhere.
//!
//! ```
//! use metrics::summary::Summary;
//! use metrics::{bleu, chrf, levenshtein, rouge, words};
//!
//! let (output, reference) = ("The molecule is a nutrient.", "The molecule is an important nutrient.");
//! let split = |text| words::split(text).collect::<Vec<_>>();
//! let counts = bleu::Counts::of(&split(output), &split(reference));
//! assert_eq!((counts.matched[0], counts.possible[0]), (4, 5));
//! assert!(rouge::Rouge::of(output, reference).rouge_l > 0.7);
//!
//! assert_eq!(levenshtein::distance("CCO", "CCN"), 1);
//! assert_eq!(chrf::chrf("CCO", "CCO", 2.0), 1.0);
//!
//! let summary = Summary::of(&[3.0, 5.0])?;
//! assert_eq!((summary.mean, summary.population_std), (4.0, 1.0));
//! # Ok::<(), metrics::summary::SummaryError>(())
//! ```

pub mod bleu;
pub mod bootstrap;
pub mod character;
pub mod chrf;
pub mod entailment;
pub mod exact;
pub mod frechet;
pub mod length;
pub mod levenshtein;
pub mod meteor;
pub mod permutation;
pub mod random;
pub mod relative_entropy;
pub mod rouge;
pub mod similarity;
pub mod summary;
mod symmetric;
pub mod win;
pub mod wordpiece;
pub mod words;

// Stages and callers name molecules by way of the metrics that compare them.
pub use chem::{FingerprintKind, Molecule, NoInchi, NotAMolecule};
