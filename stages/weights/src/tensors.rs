//! The tensors of a merge, each in all models, worked on by several threads.

use crate::error::{MergeError, ModelError};
use crate::expert::{Expert, Normalization};
use crate::floats;
use crate::folder::ModelFolder;
use crate::lora::Change;
use crate::operands::{Operand, Operands, Progress};
use crate::place::Place;
use crate::writer::TensorSpec;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// All tensors that are merged.
pub struct Tensors<'a> {
    inputs: Inputs<'a>,
    threads: usize,
    all: u64,
    on_progress: RefCell<&'a mut dyn FnMut(u64, u64) -> ControlFlow<()>>,
}

/// What all threads read.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub experts: &'a [Expert],
    pub base: Option<&'a ModelFolder>,
    pub normalization: Normalization,
    pub outputs: &'a [OutputTensor],
    pub labels: &'a [String],
    pub progress: &'a Progress,
}

/// One tensor of the result.
pub(crate) struct OutputTensor {
    pub spec: TensorSpec,
    pub place: Place,
    /// Whether it is merged; else it is equal in all models and copied.
    pub is_merged: bool,
    pub bytes_read: u64,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(
        inputs: Inputs<'a>,
        threads: usize,
        all: u64,
        on_progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Self {
        Self { inputs, threads: threads.max(1), all, on_progress: RefCell::new(on_progress) }
    }

    /// Returns whether the weights of models are normalised.
    pub fn normalization(&self) -> Normalization {
        self.inputs.normalization
    }

    /// Computes a value for every tensor that is merged, in parallel; values come in the order of
    /// the names.
    ///
    /// # Errors
    /// The error of the first tensor that has one.
    pub fn map<T: Send>(
        &self,
        compute: impl Fn(&Operands) -> Result<T, MergeError> + Sync,
    ) -> Result<Vec<T>, MergeError> {
        let values = self.in_parallel(|inputs, number| {
            inputs.outputs[number].is_merged.then(|| compute(&inputs.operands(number)?)).transpose()
        })?;
        Ok(values.into_iter().flatten().collect())
    }

    /// Runs `act` for every tensor, in parallel, the largest first.
    pub(crate) fn in_parallel<T: Send>(
        &self,
        act: impl Fn(&Inputs, usize) -> Result<T, MergeError> + Sync,
    ) -> Result<Vec<T>, MergeError> {
        let count = self.inputs.outputs.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|number| std::cmp::Reverse(self.inputs.outputs[*number].bytes_read));
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::channel();
        let mut done: BTreeMap<usize, Result<T, MergeError>> = BTreeMap::new();
        let progress = self.inputs.progress;
        let is_cancelled = std::thread::scope(|scope| {
            for _ in 0..self.threads.min(count) {
                let (send, inputs, order, next, act) = (send.clone(), self.inputs, &order, &next, &act);
                scope.spawn(move || {
                    while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if inputs.progress.stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let result = act(&inputs, *number);
                        // If this tensor cannot be written, the next one cannot either.
                        if matches!(result, Err(MergeError::Writing(_))) {
                            inputs.progress.stop.store(true, Ordering::Relaxed);
                        }
                        if send.send((*number, result)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut is_cancelled = false;
            loop {
                match receive.recv_timeout(TICK) {
                    Ok((number, result)) => {
                        done.insert(number, result);
                    }
                    Err(RecvTimeoutError::Disconnected) => break is_cancelled,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                let read = progress.bytes_read.load(Ordering::Relaxed);
                if (self.on_progress.borrow_mut())(read, self.all).is_break() {
                    progress.stop.store(true, Ordering::Relaxed);
                    is_cancelled = true;
                }
            }
        });
        if is_cancelled {
            return Err(MergeError::Cancelled);
        }
        let mut values = Vec::with_capacity(count);
        let mut errors = Vec::new();
        for result in done.into_values() {
            match result {
                Ok(value) => values.push(value),
                // That the disk is full says more than errors of the other tensors.
                Err(MergeError::Writing(source)) => return Err(MergeError::Writing(source)),
                Err(error) => errors.push(error),
            }
        }
        match errors.len() {
            0 => Ok(values),
            1 => Err(errors.remove(0)),
            more => Err(MergeError::Several { first: Box::new(errors.remove(0)), more: more - 1 }),
        }
    }
}

/// How often progress is reported.
const TICK: Duration = Duration::from_millis(100);

impl<'a> Inputs<'a> {
    pub(crate) fn operands(&self, number: usize) -> Result<Operands<'a>, MergeError> {
        let output = &self.outputs[number];
        let name = &output.spec.name;
        let mut weights = Vec::with_capacity(self.experts.len());
        let mut models = Vec::with_capacity(self.experts.len());
        for expert in self.experts {
            let weight = expert.weight.at(&output.place);
            let weight = weight
                .ok_or_else(|| MergeError::NoWeight { tensor: name.clone(), model: expert.name.clone() })?;
            weights.push(weight);
            models.push(operand(expert, name)?);
        }
        let is_normalized = self.normalization == Normalization::SumToOne;
        if is_normalized && (weights.iter().sum::<f64>() <= 0.0 || weights.iter().any(|weight| *weight < 0.0))
        {
            return Err(MergeError::ZeroRatio { tensor: name.clone() });
        }
        let base = match self.base {
            Some(base) => Some(plain(base, name).map_err(in_model("base"))?),
            None => None,
        };
        Ok(Operands {
            place: output.place.clone(),
            weights,
            number,
            labels: self.labels,
            shape: &output.spec.shape,
            base,
            models,
            progress: self.progress,
        })
    }

    pub(crate) fn file_of(&self, at: usize, name: &str) -> String {
        let model = match at {
            0 => self.base,
            _ => Some(&self.experts[at - 1].model),
        };
        model.and_then(|model| model.tensor(name)).map_or_else(String::new, |tensor| tensor.file.clone())
    }
}

pub(crate) fn in_model(model: &str) -> impl Fn(ModelError) -> MergeError + use<> {
    let model = model.to_owned();
    move |fault| MergeError::Model { model: model.clone(), fault }
}

fn operand<'a>(expert: &'a Expert, name: &str) -> Result<Operand<'a>, MergeError> {
    let fault = in_model(&expert.name);
    let Some(adapter) = &expert.adapter else { return plain(&expert.model, name).map_err(fault) };
    let shape = expert.model.tensor(name).map_or(&[][..], |tensor| &tensor.shape);
    match adapter.change(name, shape).map_err(&fault)? {
        Some(Change::Replaced(replacing)) => plain(adapter.tensors(), &replacing).map_err(fault),
        Some(Change::Added(added)) => {
            let plain = plain(&expert.model, name).map_err(fault)?;
            Ok(Operand { added: Some(added), ..plain })
        }
        None => plain(&expert.model, name).map_err(fault),
    }
}

fn plain<'a>(model: &'a ModelFolder, name: &str) -> Result<Operand<'a>, ModelError> {
    let bytes = model.raw(name)?;
    let dtype = model.tensor(name).expect("it was read above").dtype;
    if floats::width(dtype).is_none() {
        return Err(ModelError::NotFloats { tensor: name.to_owned(), dtype });
    }
    Ok(Operand { model, name: name.to_owned(), dtype, bytes, added: None })
}
