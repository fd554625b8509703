//! Merges models: opens, compares, reads, merges and writes them, tensor by tensor.
//!
//! Threads take whole tensors, the largest first. Each tensor is merged by one thread from its
//! beginning to its end and has its place in the file, so the result does not depend on how many
//! threads there are. What is in memory is a few pieces of a tensor for each thread.

use crate::agreement;
use crate::error::{MergeError, ModelError};
use crate::floats;
use crate::folder::ModelFolder;
use crate::header::Tensor;
use crate::lora::{Adapter, Change};
use crate::merges::{Method, PerTensor};
use crate::operands::{Operand, Operands, Watch};
use crate::place::{Place, layer};
use crate::setting::Setting;
use crate::wide::wide;
use crate::writer::{Durability, MOST_SHARD_BYTES, ModelWriter, TensorSpec};
use safetensors::Dtype;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// A model that is merged.
#[derive(Clone, Debug)]
pub struct Expert {
    /// What it is called in the merge.
    pub name: String,
    /// The model, or the base of an adapter.
    pub model: ModelFolder,
    /// An adapter on the model, which is merged in on the way.
    pub adapter: Option<Adapter>,
    /// How much it counts.
    pub weight: Setting,
}

/// How weights are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighing {
    /// Only how they compare to each other counts.
    Ratio,
    /// They are multiplied with as they are.
    AsIs,
}

/// What is merged, and how.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The models. Their order does not change the result but in the last bits of sums.
    pub experts: Vec<Expert>,
    /// The model that they were tuned from.
    pub base: Option<ModelFolder>,
    /// How their weights are meant.
    pub weighing: Weighing,
    /// The method.
    pub method: Method,
    /// The type of the result; else that of the models.
    pub dtype: Option<Dtype>,
    /// The expert whose configuration and tokenizer are carried over; else the first.
    pub files_from: Option<String>,
}

/// What changes nothing about the result.
pub struct Running<'a> {
    /// How many threads may work.
    pub threads: usize,
    /// When the result counts as written.
    pub durability: Durability,
    /// Hears how many bytes of how many were read, and says whether to go on.
    pub hear: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// How many tensors there are.
    pub tensors: u64,
    /// How many numbers.
    pub parameters: u64,
    /// How many bytes were read, every reading counted.
    pub bytes_read: u64,
    /// What the user has to know: in what the models differ.
    pub notes: Vec<String>,
}

/// Merges models into a folder that exists and is empty.
///
/// # Errors
/// What is wrong with a model, or between models, by the name of the tensor. Nothing that could
/// be taken for a model is left in the folder.
pub fn merge(recipe: &Recipe, folder: &Path, running: Running) -> Result<Merged, MergeError> {
    let names: Vec<&str> = recipe.experts.iter().map(|expert| expert.name.as_str()).collect();
    recipe.method.check(&names, recipe.weighing).map_err(|what| MergeError::Method { what })?;
    let needs_base = recipe.method.needs_base();
    let base = match (&recipe.base, needs_base) {
        (Some(base), true) => Some(base),
        (None, true) => return Err(MergeError::NoBase),
        (_, false) => None,
    };
    let agreed = agreement::check(&recipe.experts, base, recipe.files_from.as_deref())?;
    let mut notes = agreed.notes;
    let (joined, more) = join(recipe, base)?;
    notes.extend(more);
    let specs: Vec<TensorSpec> = joined.iter().map(|joined| joined.spec.clone()).collect();
    let mut config = agreed.config;
    agreement::tell_dtype(&mut config, &specs);
    let writer = ModelWriter::create(folder, &config, specs, MOST_SHARD_BYTES)?;
    let watch = Watch::default();
    let labels: Vec<String> = recipe.experts.iter().map(|expert| expert.name.clone()).collect();
    let bytes: u64 = joined.iter().map(|joined| joined.bytes_read).sum();
    let shared = Shared { recipe, base, joined: &joined, labels: &labels, watch: &watch };
    let all = bytes * recipe.method.readings();
    let tensors = Tensors { shared, threads: running.threads.max(1), all, hear: RefCell::new(running.hear) };
    let per_tensor = recipe.method.begin(&tensors)?;
    tensors.in_parallel(|shared, number| shared.merge_one(number, &per_tensor, &writer))?;
    drop(per_tensor);
    writer.carry_over(agreed.files)?;
    writer.finish(running.durability)?;
    Ok(Merged {
        tensors: joined.len() as u64,
        parameters: joined.iter().map(|joined| joined.spec.shape.iter().product::<u64>()).sum(),
        bytes_read: watch.bytes_read.load(Ordering::Relaxed),
        notes,
    })
}

/// All tensors that are merged.
pub struct Tensors<'a> {
    shared: Shared<'a>,
    threads: usize,
    all: u64,
    hear: RefCell<&'a mut dyn FnMut(u64, u64) -> ControlFlow<()>>,
}

/// The part of it that all threads see.
#[derive(Clone, Copy)]
struct Shared<'a> {
    recipe: &'a Recipe,
    base: Option<&'a ModelFolder>,
    joined: &'a [Joined],
    labels: &'a [String],
    watch: &'a Watch,
}

/// One tensor of the result.
struct Joined {
    spec: TensorSpec,
    place: Place,
    /// Whether it is merged; else it is the same everywhere and copied.
    is_merged: bool,
    bytes_read: u64,
}

impl Tensors<'_> {
    /// Says how weights are meant.
    pub fn weighing(&self) -> Weighing {
        self.shared.recipe.weighing
    }

    /// Finds something out about every tensor that is merged, several at a time; answers come
    /// in the order of the names.
    ///
    /// # Errors
    /// The first that any of them gives.
    pub fn look<T: Send>(
        &self,
        find: impl Fn(&Operands) -> Result<T, MergeError> + Sync,
    ) -> Result<Vec<T>, MergeError> {
        let found = self.in_parallel(|shared, number| {
            shared.joined[number].is_merged.then(|| find(&shared.operands(number)?)).transpose()
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Does something for every tensor, the largest first.
    fn in_parallel<T: Send>(
        &self,
        act: impl Fn(&Shared, usize) -> Result<T, MergeError> + Sync,
    ) -> Result<Vec<T>, MergeError> {
        let count = self.shared.joined.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|number| std::cmp::Reverse(self.shared.joined[*number].bytes_read));
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::channel();
        let mut done: BTreeMap<usize, Result<T, MergeError>> = BTreeMap::new();
        let watch = self.shared.watch;
        let is_cancelled = std::thread::scope(|scope| {
            for _ in 0..self.threads.min(count) {
                let (send, shared, order, next, act) = (send.clone(), self.shared, &order, &next, &act);
                scope.spawn(move || {
                    while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if shared.watch.stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let result = act(&shared, *number);
                        // What cannot be written now cannot be written for the next tensor.
                        if matches!(result, Err(MergeError::Writing(_))) {
                            shared.watch.stop.store(true, Ordering::Relaxed);
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
                let read = watch.bytes_read.load(Ordering::Relaxed);
                if (self.hear.borrow_mut())(read, self.all).is_break() {
                    watch.stop.store(true, Ordering::Relaxed);
                    is_cancelled = true;
                }
            }
        });
        if is_cancelled {
            return Err(MergeError::Cancelled);
        }
        let mut answers = Vec::with_capacity(count);
        let mut faults = Vec::new();
        for result in done.into_values() {
            match result {
                Ok(answer) => answers.push(answer),
                // A disk that is full says more than what it kept from being looked at.
                Err(MergeError::Writing(source)) => return Err(MergeError::Writing(source)),
                Err(fault) => faults.push(fault),
            }
        }
        match faults.len() {
            0 => Ok(answers),
            1 => Err(faults.remove(0)),
            more => Err(MergeError::Several { first: Box::new(faults.remove(0)), more: more - 1 }),
        }
    }
}

/// How often somebody hears how far the merge is.
const TICK: Duration = Duration::from_millis(100);

/// How many bytes are written at a time.
const WRITTEN_BYTES: usize = 1 << 20;

impl<'a> Shared<'a> {
    fn operands(&self, number: usize) -> Result<Operands<'a>, MergeError> {
        let joined = &self.joined[number];
        let name = &joined.spec.name;
        let mut weights = Vec::with_capacity(self.recipe.experts.len());
        let mut models = Vec::with_capacity(self.recipe.experts.len());
        for expert in &self.recipe.experts {
            let weight = expert.weight.at(&joined.place);
            let weight = weight
                .ok_or_else(|| MergeError::NoWeight { tensor: name.clone(), model: expert.name.clone() })?;
            weights.push(weight);
            models.push(operand(expert, name)?);
        }
        let is_ratio = self.recipe.weighing == Weighing::Ratio;
        if is_ratio && (weights.iter().sum::<f64>() <= 0.0 || weights.iter().any(|weight| *weight < 0.0)) {
            return Err(MergeError::ZeroRatio { tensor: name.clone() });
        }
        let base = match self.base {
            Some(base) => Some(plain(base, name).map_err(in_model("base"))?),
            None => None,
        };
        Ok(Operands {
            place: joined.place.clone(),
            weights,
            number,
            labels: self.labels,
            shape: &joined.spec.shape,
            base,
            models,
            watch: self.watch,
        })
    }

    fn merge_one(
        &self,
        number: usize,
        per_tensor: &PerTensor,
        writer: &ModelWriter,
    ) -> Result<(), MergeError> {
        let Joined { spec, is_merged, .. } = &self.joined[number];
        if !is_merged {
            let first = &self.recipe.experts[0];
            let bytes = first.model.raw(&spec.name).map_err(in_model(&first.name))?;
            return writer.write_raw(&spec.name, bytes).map_err(MergeError::Writing);
        }
        let operands = self.operands(number)?;
        let mut merge = per_tensor(&operands)?;
        let width = floats::width(spec.dtype).expect("only floats are merged");
        let mut out = Vec::new();
        let mut encoded: Vec<u8> = Vec::new();
        let mut written = 0;
        let mut not_finite = vec![[0u64; 2]; operands.models.len() + 1];
        let mut too_large = 0;
        let limit = limit(spec.dtype);
        let mut result = Ok(());
        operands.read(|_, piece| {
            if result.is_err() {
                return;
            }
            let models = std::iter::once(&piece.base).chain(&piece.models);
            models.zip(&mut not_finite).for_each(|(values, counts)| count_not_finite(values, counts));
            let length = piece.models[0].len();
            out.resize(length, 0.0);
            merge(piece, &mut out);
            too_large += u64::from(count_from(&out, limit));
            let begin = encoded.len();
            encoded.resize(begin + length * width, 0);
            floats::encode(spec.dtype, &out, &mut encoded[begin..]);
            if encoded.len() >= WRITTEN_BYTES {
                result = writer.write_at(&spec.name, written, &encoded);
                written += encoded.len() as u64;
                encoded.clear();
            }
        });
        if let Some(at) = not_finite.iter().position(|[nan, infinite]| nan + infinite > 0) {
            let [nan, infinite] = not_finite[at];
            let model = if at == 0 { "base" } else { &self.labels[at - 1] }.to_owned();
            let file = self.file_of(at, &spec.name);
            return Err(MergeError::NotFinite { tensor: spec.name.clone(), model, file, nan, infinite });
        }
        if too_large > 0 {
            let (tensor, dtype) = (spec.name.clone(), spec.dtype);
            return Err(MergeError::TooLarge { tensor, count: too_large, dtype });
        }
        result.map_err(MergeError::Writing)?;
        if self.watch.stop.load(Ordering::Relaxed) {
            // Others failed or the user had enough: what was read may not be the whole tensor.
            return Ok(());
        }
        writer.write_at(&spec.name, written, &encoded).map_err(MergeError::Writing)
    }

    fn file_of(&self, at: usize, name: &str) -> String {
        let model = match at {
            0 => self.base,
            _ => Some(&self.recipe.experts[at - 1].model),
        };
        model.and_then(|model| model.tensor(name)).map_or_else(String::new, |tensor| tensor.file.clone())
    }
}

fn in_model(model: &str) -> impl Fn(ModelError) -> MergeError + use<> {
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
    let dtype = model.tensor(name).expect("its bytes were found").dtype;
    if floats::width(dtype).is_none() {
        return Err(ModelError::NotFloats { tensor: name.to_owned(), dtype });
    }
    Ok(Operand { model, name: name.to_owned(), dtype, bytes, added: None })
}

/// Counts NaN and infinities.
fn count_not_finite(values: &[f32], [nan, infinite]: &mut [u64; 2]) {
    let count = u64::from(count_from(values, f32::INFINITY));
    if count > 0 {
        let nans = values.iter().filter(|value| value.is_nan()).count() as u64;
        *nan += nans;
        *infinite += count - nans;
    }
}

wide! {
    /// Counts numbers of at least a magnitude, and what is no number, in one piece.
    fn count_from(values: &[f32], limit: f32) -> u32 {
        values.iter().map(|value| u32::from(value.to_bits() & 0x7fff_ffff >= limit.to_bits())).sum()
    }
}

/// Returns the least magnitude that does not stay finite when it is stored.
fn limit(dtype: Dtype) -> f32 {
    match dtype {
        // From here on it is nearer to what would come after the largest number.
        Dtype::F16 => 65520.0,
        Dtype::BF16 => f32::from_bits(0x7f7f_8000),
        _ => f32::INFINITY,
    }
}

/// Finds the tensors of the result, and checks that all models have them.
fn join(recipe: &Recipe, base: Option<&ModelFolder>) -> Result<(Vec<Joined>, Vec<String>), MergeError> {
    let mut models: Vec<(&str, &ModelFolder)> =
        recipe.experts.iter().map(|expert| (expert.name.as_str(), &expert.model)).collect();
    models.extend(base.map(|base| ("base", base)));
    let left_out = agreement::left_out(&models);
    let mut notes: Vec<String> = Vec::new();
    for name in &left_out {
        notes.push(format!("`{name}` is left out: it is tied to the embedding, and not all models have it"));
    }
    let all: BTreeSet<&str> = models.iter().flat_map(|(_, model)| names(model)).collect();
    let all: Vec<&str> = all.into_iter().filter(|name| !left_out.contains(*name)).collect();
    for expert in &recipe.experts {
        let mut targets = expert.adapter.iter().flat_map(Adapter::targets);
        if let Some(tensor) = targets.find(|target| !all.contains(&target.as_str())) {
            let what = format!("it changes `{tensor}`, which its base does not have");
            return Err(in_model(&expert.name)(ModelError::Adapter { what }));
        }
    }
    let mut stacks: BTreeMap<&str, u64> = BTreeMap::new();
    for (stack, number) in all.iter().filter_map(|name| layer(name)) {
        let layers = stacks.entry(stack).or_default();
        *layers = (*layers).max(number + 1);
    }
    let mut joined = Vec::with_capacity(all.len());
    let mut widened = 0;
    for name in all {
        let found: Vec<(&str, &Tensor)> = models
            .iter()
            .map(|(label, model)| {
                Ok((*label, model.tensor(name).ok_or_else(|| lacks(&models, label, name))?))
            })
            .collect::<Result<_, MergeError>>()?;
        let (first, tensor) = found[0];
        if let Some((other, odd)) = found.iter().find(|(_, other)| other.shape != tensor.shape) {
            return Err(MergeError::Shapes {
                tensor: name.to_owned(),
                one: first.to_owned(),
                one_shape: tensor.shape.clone(),
                other: (*other).to_owned(),
                other_shape: odd.shape.clone(),
            });
        }
        let experts = &found[..recipe.experts.len()];
        let is_merged = found.iter().all(|(_, tensor)| floats::width(tensor.dtype).is_some());
        if !is_merged {
            expect_equal(&models, name)?;
        }
        let is_one_type = experts.iter().all(|(_, other)| other.dtype == tensor.dtype);
        widened += u64::from(!is_one_type && recipe.dtype.is_none());
        let dtype = match recipe.dtype {
            _ if !is_merged => tensor.dtype,
            Some(dtype) => dtype,
            None if is_one_type => tensor.dtype,
            None => Dtype::F32,
        };
        let layers = layer(name).map_or(0, |(stack, _)| stacks[stack]);
        joined.push(Joined {
            spec: TensorSpec { name: name.to_owned(), dtype, shape: tensor.shape.clone() },
            place: Place::of(name, layers),
            is_merged,
            bytes_read: found.iter().map(|(_, tensor)| tensor.bytes.end - tensor.bytes.start).sum(),
        });
    }
    if widened > 0 {
        notes.push(format!("{widened} tensors are of different types in the models, and F32 in the result"));
    }
    Ok((joined, notes))
}

fn names(model: &ModelFolder) -> impl Iterator<Item = &str> {
    model.tensors().iter().map(|tensor| tensor.name.as_str())
}

fn lacks(models: &[(&str, &ModelFolder)], lacking: &str, name: &str) -> MergeError {
    let having = models.iter().find(|(_, model)| model.tensor(name).is_some());
    let (having, model) = having.expect("the name is from one of them");
    let lacked = models.iter().find(|(label, _)| *label == lacking);
    let (_, lacked) = lacked.expect("it is one of them");
    let more = names(model).filter(|name| lacked.tensor(name).is_none()).count() as u64 - 1;
    MergeError::OnlyInOne {
        tensor: name.to_owned(),
        model: (*having).to_owned(),
        file: model.tensor(name).map_or_else(String::new, |tensor| tensor.file.clone()),
        other: lacking.to_owned(),
        more,
    }
}

/// Checks that a tensor that is not of floats is the same in all models.
fn expect_equal(models: &[(&str, &ModelFolder)], name: &str) -> Result<(), MergeError> {
    let (first, model) = models[0];
    let bytes = model.raw(name).map_err(in_model(first))?;
    for (label, other) in &models[1..] {
        if other.raw(name).map_err(in_model(label))? != bytes {
            let dtype = model.tensor(name).expect("its bytes were found").dtype;
            return Err(in_model(label)(ModelError::NotFloats { tensor: name.to_owned(), dtype }));
        }
    }
    Ok(())
}
