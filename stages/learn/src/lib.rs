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
mod classify;
mod generate;
mod model;
mod models;
mod network;
mod objectives;
#[cfg(test)]
mod parity;
mod profiling;
mod tensor;
#[cfg(test)]
mod testing;
mod text;
mod train;

pub use adapters::{AdapterMethod, CheckAdapter, Lora, Qlora};
pub use classify::{Classifier, ClassifierError};
pub use generate::{
    Beam, CheckStrategy, EarlyStopping, GenerateError, Generated, Generation, Greedy, Sample, Strategy,
    generate,
};
pub use model::memory_estimate::{Compared, Continuing, Kept, Need, Sizes, SizesError, Training};
pub use model::{Model, ModelError, OpenError, RandomModelError, shape, shapes, write_random};
pub use models::{Architecture, ChemNet, ChemNetError, KnownModel, known_models};
pub use network::{Shape, TensorError, UnusableConfig};
pub use objectives::{Feed, Logp, Loss, MicroBatch, Objective, Outputs, Share};
pub use profiling::{
    MatmulAccuracy, ProcessMemory, device_memory, matmul_accuracy, matmul_rate, process_memory,
};
pub use tensor::device::{DeviceError, DeviceName, available, check};
pub use tensor::precision::Precision;
pub use text::TokenizerModel;
pub use text::sequence::{Example, Fit, Sequence, TokenLimit};
pub use text::tokenizer::{TOKENIZER_FILE, Tokenizer, TokenizerError, TrainTokenizer};
pub use train::{
    AdamW, CheckpointError, Examples, LearningRate, LeftAside, Length, Point, ReferenceLogps,
    ReferenceSource, Rewards, Schedule, StepPoint, Throughput, TrainError, TrainEvent, TrainHooks,
    TrainReport, TrainingConfig, ValidationPoint, reference_logps, train,
};
