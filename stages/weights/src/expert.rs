//! A model that takes part in a merge.

use crate::folder::ModelFolder;
use crate::lora::Adapter;
use crate::setting::Setting;

/// A model that takes part in a merge.
#[derive(Clone, Debug)]
pub struct Expert {
    /// Its name in the merge.
    pub name: String,
    /// The model, or the base of an adapter.
    pub model: ModelFolder,
    /// An adapter on the model; its change is added as the model is read.
    pub adapter: Option<Adapter>,
    /// Its weight.
    pub weight: Setting,
}

/// Whether the weights of models are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// They are divided by their sum.
    SumToOne,
    /// They are used as they are.
    None,
}
