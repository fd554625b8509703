//! Everything that makes and runs models, on whatever device there is.
//!
//! The only crate that names burn. It refuses to know what a stage, a key or a cache is.
//!
//! ```
//! let cpu: learn::DeviceName = "cpu".parse()?;
//! assert!(learn::available().contains(&cpu));
//! # Ok::<(), learn::DeviceError>(())
//! ```

mod adapters;
mod batches;
mod checkpoint;
mod classifier;
mod curves;
mod device;
mod exponential;
mod fused;
mod generation;
mod layers;
mod learner;
mod measure;
mod memory;
mod model;
mod models;
mod nf4;
mod objectives;
mod optimiser;
mod parameters;
#[cfg(test)]
mod parity;
mod pieces;
mod precision;
mod random;
mod recipe;
mod reference;
mod schedule;
mod score;
mod tokenizer;
mod trainer;

pub use adapters::{AdapterMethod, CheckAdapter, Lora, Qlora};
pub use batches::{Example, Fit, Sequence, TokenLimit};
pub use checkpoint::{CheckpointError, LeftAside};
pub use classifier::{Classifier, ClassifierError};
pub use curves::{Point, Rewards, StepPoint, Throughput, ValidationPoint};
pub use device::{DeviceError, DeviceName, available, check};
pub use generation::{
    Beam, CheckStrategy, EarlyStopping, GenerateError, Generated, Generation, Greedy, Sample, Strategy,
    generate,
};
pub use measure::{ProcessMemory, device_memory, process_memory, product_rate};
pub use memory::{Compared, Continuing, Kept, Need, Sizes, SizesError, Training};
pub use model::{Architecture, Model, ModelError, Shape};
pub use models::{
    ChemNet, ChemNetError, DrawError, OpenError, TensorError, UnusableConfig, shape, shapes, write_random,
};
pub use objectives::{Feed, Logp, Loss, MicroBatch, Objective, Outputs, Share};
pub use optimiser::AdamW;
pub use precision::Precision;
pub use recipe::{Examples, Length, News, Recipe, TrainError, Trained, Watch};
pub use reference::{Against, ReferenceLogps, reference_logps};
pub use schedule::{LearningRate, Schedule};
pub use tokenizer::{TOKENIZER_FILE, Tokenizer, TokenizerError, TokenizerModel, TrainTokenizer};
pub use trainer::train;
