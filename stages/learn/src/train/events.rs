//! What a training tells while it goes on, and what it comes to.

use std::path::Path;

use crate::tensor::device::DeviceName;
use crate::train::checkpoint::LeftAside;
use crate::train::curves::{Point, Throughput};

/// What a training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// All steps.
    pub steps: usize,
    /// The step whose weights were kept.
    pub best_step: usize,
    /// The lowest validation loss, where there were validation rows.
    pub validation_loss: Option<f64>,
    /// The step at which a killed training went on.
    pub resumed_at: Option<usize>,
    /// The curves.
    pub points: Vec<Point>,
    /// What each step took of the machine.
    pub throughput: Vec<Throughput>,
}

/// What a training tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum TrainEvent<'a> {
    /// The curves have one point more.
    Point {
        /// The point.
        point: &'a Point,
        /// What a step took of the machine.
        throughput: Option<&'a Throughput>,
        /// How many steps there are.
        steps: usize,
    },
    /// A checkpoint of a killed training is no use, and is not gone on from.
    LeftAside(&'a LeftAside),
}

/// Who watches a training, and where it keeps what a kill must not cost.
pub struct TrainHooks<'a> {
    /// How many threads compute.
    pub threads: usize,
    /// Further devices, each of which computes its share of a batch's shards on a copy of the model.
    pub others: &'a [DeviceName],
    /// Whether layers are recomputed in the backward pass instead of being kept.
    pub recomputes: bool,
    /// A folder for checkpoints, or none are made.
    pub checkpoints: Option<&'a Path>,
    /// Hears of every point and of what is ignored; says whether to go on.
    pub on_event: &'a mut dyn FnMut(TrainEvent<'_>) -> bool,
}
