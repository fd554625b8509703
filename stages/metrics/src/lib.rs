//! Scores of captions and molecules, one file each.
//!
//! Metrics take tokens, strings and plain numbers, and give numbers. The crate refuses to know
//! where these come from, what a model is, and how a table rounds: everything comes out at full
//! precision, and in the same bits every time.
//!
//! ```
//! use metrics::summary::Summary;
//! use metrics::words;
//!
//! let captions = ["It impacts aging.", "The molecule is a nutrient."];
//! let lengths: Vec<f64> = captions.iter().map(|text| words::count(text) as f64).collect();
//! let summary = Summary::of(&lengths)?;
//! assert_eq!((summary.mean, summary.population_std), (4.0, 1.0));
//! assert_eq!(summary.median, 4.0);
//! # Ok::<(), metrics::summary::SummaryError>(())
//! ```

pub mod summary;
pub mod words;
