//! METEOR: Lavie and Agarwal, 2007: (1 - penalty) F, F = P R / (alpha P + (1 - alpha) R) over
//! matched words, penalty = gamma (chunks / matches)^beta; alpha 0.9, beta 3, gamma 0.5.
//!
//! Semantics of nltk 3.10.4, `meteor_score` with one reference: words are lower-cased and matched
//! as they are, then by nltk's Porter stem, then stem to stem by WordNet's synonyms, each from the
//! right. So a synonym is looked up for the stem and not for the word. Without WordNet the last
//! step is left out, which is another score: 0.001 lower on MolT5-small's captions.

mod porter;
mod score;
mod wordnet;

pub use porter::stem;
pub use score::meteor;
pub use wordnet::{WordNet, WordNetError};
