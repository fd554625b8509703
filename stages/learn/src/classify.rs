//! Models that judge texts.

pub(crate) mod classifier;

pub use classifier::{Classifier, ClassifierError};
