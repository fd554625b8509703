//! One tensor of every model that is merged, read piece by piece.

use crate::floats;
use crate::folder::ModelFolder;
use crate::lora::Added;
use crate::place::Place;
use safetensors::Dtype;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many numbers are decoded and merged at a time: few enough to stay near the processor.
/// Sums are rounded once for each piece, so this is part of what a method computes.
pub(crate) const PIECE: usize = 1 << 13;

/// How many numbers are read before the memory that maps them is let go of.
const RELEASED: usize = 1 << 21;

/// One tensor of one model.
pub(crate) struct Operand<'a> {
    pub model: &'a ModelFolder,
    pub name: String,
    pub dtype: Dtype,
    pub bytes: &'a [u8],
    pub added: Option<Added>,
}

impl Operand<'_> {
    fn read(&self, start: usize, values: &mut [f32]) {
        let width = floats::width(self.dtype).expect("only floats are merged");
        floats::decode(self.dtype, &self.bytes[start * width..][..values.len() * width], values);
        if let Some(added) = &self.added {
            added.add_to(start, values);
        }
    }
}

/// Some numbers of one tensor of every model. A method may change them: they are copies.
pub struct Piece {
    /// The numbers of the base; none if there is no base.
    pub base: Vec<f32>,
    /// The numbers of each model.
    pub models: Vec<Vec<f32>>,
}

/// One tensor of every model that is merged.
pub struct Operands<'a> {
    /// Where in the model it stands.
    pub place: Place,
    /// The weight of each model in this tensor.
    pub weights: Vec<f64>,
    pub(crate) number: usize,
    pub(crate) labels: &'a [String],
    pub(crate) shape: &'a [u64],
    pub(crate) base: Option<Operand<'a>>,
    pub(crate) models: Vec<Operand<'a>>,
    pub(crate) progress: &'a Progress,
}

/// What goes on in all threads.
#[derive(Default)]
pub(crate) struct Progress {
    pub bytes_read: AtomicU64,
    pub stop: AtomicBool,
}

impl Operands<'_> {
    /// Returns how many numbers it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// Returns the names of the models.
    pub fn labels(&self) -> &[String] {
        self.labels
    }

    /// Returns the weights as shares of their sum.
    pub fn shares(&self) -> Vec<f64> {
        let total: f64 = self.weights.iter().sum();
        self.weights.iter().map(|weight| weight / total).collect()
    }

    /// Reads the tensor from the beginning to the end, and shows it piece by piece.
    ///
    /// Stops early when the whole merge is to stop; then nothing of it is used.
    pub fn read(&self, mut see: impl FnMut(usize, &mut Piece)) {
        let elements = self.elements();
        let mut piece = Piece { base: Vec::new(), models: vec![Vec::new(); self.models.len()] };
        let mut start = 0;
        while start < elements && !self.progress.stop.load(Ordering::Relaxed) {
            let length = PIECE.min(elements - start);
            let mut bytes = 0;
            let base = self.base.iter().zip(std::iter::once(&mut piece.base));
            for (operand, values) in base.chain(self.models.iter().zip(&mut piece.models)) {
                values.resize(length, 0.0);
                operand.read(start, values);
                bytes += operand.bytes.len() / elements * length;
            }
            see(start, &mut piece);
            if (start + length).is_multiple_of(RELEASED) || start + length == elements {
                let released = start / RELEASED * RELEASED;
                for operand in self.base.iter().chain(&self.models) {
                    let width = operand.bytes.len() / elements;
                    let bytes = (released * width) as u64..((start + length) * width) as u64;
                    operand.model.release(&operand.name, bytes);
                }
            }
            self.progress.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
            start += length;
        }
    }
}
