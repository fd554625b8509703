//! Merges models: opens, compares, reads, merges and writes them, tensor by tensor.
//!
//! Threads take whole tensors, the largest first. Each tensor is merged by one thread from its
//! beginning to its end and has its place in the file, so the result does not depend on the number of
//! threads. Only a few pieces of a tensor are in memory for each thread.

use crate::agreement;
use crate::error::{MergeError, ModelError};
use crate::expert::{Expert, Normalization};
use crate::floats;
use crate::folder::ModelFolder;
use crate::header::Tensor;
use crate::lora::Adapter;
use crate::merges::{Method, PerTensor};
use crate::operands::Progress;
use crate::place::{Place, layer};
use crate::tensors::{Inputs, OutputTensor, Tensors, in_model};
use crate::wide::wide;
use crate::writer::{Durability, MOST_SHARD_BYTES, ModelWriter, TensorSpec};
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

/// What is merged, and how.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The models. Their order does not change the result but in the last bits of sums.
    pub experts: Vec<Expert>,
    /// The model that they were tuned from.
    pub base: Option<ModelFolder>,
    /// Whether their weights are normalised.
    pub normalization: Normalization,
    /// The method.
    pub method: Method,
    /// The type of the result; else that of the models.
    pub dtype: Option<Dtype>,
    /// The expert whose configuration and tokenizer are carried over; else the first.
    pub tokenizer_from: Option<String>,
}

/// Options that do not change the result.
pub struct MergeOptions<'a> {
    /// The number of threads.
    pub threads: usize,
    /// When the result counts as written.
    pub durability: Durability,
    /// Called with the number of bytes that were read, and of all; says whether to go on.
    pub on_progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

/// The result of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeReport {
    /// The number of tensors.
    pub tensors: u64,
    /// The number of parameters.
    pub parameters: u64,
    /// The number of bytes that were read, in all passes.
    pub bytes_read: u64,
    /// Differences between the models that the user should know of.
    pub notes: Vec<String>,
}

/// Merges models into a folder that exists and is empty.
///
/// # Errors
/// What is wrong with a model, or between models, by the name of the tensor. Nothing that could
/// be taken for a model is left in the folder.
pub fn merge(recipe: &Recipe, folder: &Path, options: MergeOptions) -> Result<MergeReport, MergeError> {
    let names: Vec<&str> = recipe.experts.iter().map(|expert| expert.name.as_str()).collect();
    recipe
        .method
        .check(&names, recipe.normalization)
        .map_err(|error| MergeError::Method { what: error.message })?;
    let needs_base = recipe.method.needs_base();
    let base = match (&recipe.base, needs_base) {
        (Some(base), true) => Some(base),
        (None, true) => return Err(MergeError::NoBase),
        (_, false) => None,
    };
    let agreed = agreement::check(&recipe.experts, base, recipe.tokenizer_from.as_deref())?;
    let mut notes = agreed.notes;
    let (outputs, more) = join(recipe, base)?;
    notes.extend(more);
    let specs: Vec<TensorSpec> = outputs.iter().map(|output| output.spec.clone()).collect();
    let mut config = agreed.config;
    agreement::set_dtype(&mut config, &specs);
    let writer = ModelWriter::create(folder, &config, specs, MOST_SHARD_BYTES)?;
    let progress = Progress::default();
    let labels: Vec<String> = recipe.experts.iter().map(|expert| expert.name.clone()).collect();
    let bytes: u64 = outputs.iter().map(|output| output.bytes_read).sum();
    let inputs = Inputs {
        experts: &recipe.experts,
        base,
        normalization: recipe.normalization,
        outputs: &outputs,
        labels: &labels,
        progress: &progress,
    };
    let all = bytes * recipe.method.passes();
    let tensors = Tensors::new(inputs, options.threads, all, options.on_progress);
    let per_tensor = recipe.method.begin(&tensors)?;
    tensors.in_parallel(|inputs, number| merge_one(inputs, number, &per_tensor, &writer))?;
    drop(per_tensor);
    writer.carry_over(agreed.files)?;
    writer.finish(options.durability)?;
    Ok(MergeReport {
        tensors: outputs.len() as u64,
        parameters: outputs.iter().map(|output| output.spec.shape.iter().product::<u64>()).sum(),
        bytes_read: progress.bytes_read.load(Ordering::Relaxed),
        notes,
    })
}

/// How many bytes are written at a time.
const WRITTEN_BYTES: usize = 1 << 20;

/// Merges one tensor and writes it.
fn merge_one(
    inputs: &Inputs,
    number: usize,
    per_tensor: &PerTensor,
    writer: &ModelWriter,
) -> Result<(), MergeError> {
    let OutputTensor { spec, is_merged, .. } = &inputs.outputs[number];
    if !is_merged {
        let first = &inputs.experts[0];
        let bytes = first.model.raw(&spec.name).map_err(in_model(&first.name))?;
        return writer.write_raw(&spec.name, bytes).map_err(MergeError::Writing);
    }
    let operands = inputs.operands(number)?;
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
        let model = if at == 0 { "base" } else { &inputs.labels[at - 1] }.to_owned();
        let file = inputs.file_of(at, &spec.name);
        return Err(MergeError::NotFinite { tensor: spec.name.clone(), model, file, nan, infinite });
    }
    if too_large > 0 {
        let (tensor, dtype) = (spec.name.clone(), spec.dtype);
        return Err(MergeError::TooLarge { tensor, count: too_large, dtype });
    }
    result.map_err(MergeError::Writing)?;
    if inputs.progress.stop.load(Ordering::Relaxed) {
        // Another tensor failed or the merge was cancelled: the tensor may not have been read whole.
        return Ok(());
    }
    writer.write_at(&spec.name, written, &encoded).map_err(MergeError::Writing)
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

/// Returns the tensors of the result and notes; checks that all models have them.
fn join(recipe: &Recipe, base: Option<&ModelFolder>) -> Result<(Vec<OutputTensor>, Vec<String>), MergeError> {
    let mut models: Vec<(&str, &ModelFolder)> =
        recipe.experts.iter().map(|expert| (expert.name.as_str(), &expert.model)).collect();
    models.extend(base.map(|base| ("base", base)));
    let omitted = agreement::omitted_tensors(&models);
    let mut notes: Vec<String> = Vec::new();
    for name in &omitted {
        notes.push(format!(
            "`{name}` is not written: it is tied to the embedding, and not all models have it"
        ));
    }
    let all: BTreeSet<&str> = models.iter().flat_map(|(_, model)| names(model)).collect();
    let all: Vec<&str> = all.into_iter().filter(|name| !omitted.contains(*name)).collect();
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
    let mut outputs = Vec::with_capacity(all.len());
    let mut widened = 0;
    for name in all {
        let tensors: Vec<(&str, &Tensor)> = models
            .iter()
            .map(|(label, model)| {
                Ok((*label, model.tensor(name).ok_or_else(|| lacks(&models, label, name))?))
            })
            .collect::<Result<_, MergeError>>()?;
        let (first, tensor) = tensors[0];
        if let Some((other, odd)) = tensors.iter().find(|(_, other)| other.shape != tensor.shape) {
            return Err(MergeError::Shapes {
                tensor: name.to_owned(),
                one: first.to_owned(),
                one_shape: tensor.shape.clone(),
                other: (*other).to_owned(),
                other_shape: odd.shape.clone(),
            });
        }
        let experts = &tensors[..recipe.experts.len()];
        let is_merged = tensors.iter().all(|(_, tensor)| floats::width(tensor.dtype).is_some());
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
        outputs.push(OutputTensor {
            spec: TensorSpec { name: name.to_owned(), dtype, shape: tensor.shape.clone() },
            place: Place::of(name, layers),
            is_merged,
            bytes_read: tensors.iter().map(|(_, tensor)| tensor.bytes.end - tensor.bytes.start).sum(),
        });
    }
    if widened > 0 {
        notes.push(format!("{widened} tensors are of different types in the models, and F32 in the result"));
    }
    Ok((outputs, notes))
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
            let dtype = model.tensor(name).expect("it was read above").dtype;
            return Err(in_model(label)(ModelError::NotFloats { tensor: name.to_owned(), dtype }));
        }
    }
    Ok(())
}
