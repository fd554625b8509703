//! What can be wrong with a folder of weights.

use safetensors::Dtype;
use std::io;

/// Says why a folder is not a model. Files are named relative to the folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Something has the name of a file, and is a folder, a pipe or a device.
    #[error("`{file}` is no file")]
    NotAFile {
        /// Its name.
        file: String,
    },
    /// A file that every model has is not there.
    #[error("there is no `{file}`{hint}")]
    MissingFile {
        /// The file.
        file: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read `{file}`: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not JSON.
    #[error("`{file}` is not valid json: {source}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file is JSON and not an object.
    #[error("`{file}` is not a json object")]
    NotAnObject {
        /// The file.
        file: String,
    },
    /// A file of weights is damaged or something else.
    #[error("`{file}`: {fault}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// The index names no tensors.
    #[error("`{file}` has no `weight_map` from tensors to files")]
    NoWeightMap {
        /// The index.
        file: String,
    },
    /// The index names a file outside of the folder.
    #[error("the index puts tensor `{tensor}` in `{shard}`, which is not the name of a file here")]
    ShardName {
        /// The tensor.
        tensor: String,
        /// The name it is said to be in.
        shard: String,
    },
    /// A tensor of the index is not in its file.
    #[error("the index puts tensor `{tensor}` in `{shard}`, which does not hold it")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The file it is said to be in.
        shard: String,
    },
    /// A tensor of a file is not in the index, or is there under another file.
    #[error("`{shard}` holds tensor `{tensor}`, which the index does not put there")]
    ExtraTensor {
        /// The tensor.
        tensor: String,
        /// The file it is in.
        shard: String,
    },
    /// A tensor that was asked for is not in the model.
    #[error("the model has no tensor `{tensor}`")]
    NoSuchTensor {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that has to be F32, F16 or BF16 is something else.
    #[error("tensor `{tensor}` is {dtype:?}; only F32, F16 and BF16 can be computed with")]
    NotFloats {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
    },
    /// A file cannot be written.
    #[error("cannot write `{file}`: {source}")]
    Write {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A tensor cannot be written.
    #[error("cannot write tensor `{tensor}` to `{file}`: {source}")]
    WriteTensor {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// An adapter is none that can be merged.
    #[error("the adapter cannot be merged: {what}")]
    Adapter {
        /// Why.
        what: String,
    },
    /// More than one tensor of one name was to be written.
    #[error("two tensors to be written are named `{tensor}`")]
    WrittenTwice {
        /// The name.
        tensor: String,
    },
    /// A tensor was given more or fewer values than it has.
    #[error("tensor `{tensor}` has {expected} bytes to be written, and was given {found}")]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// How many bytes there should be.
        expected: u64,
        /// How many there were.
        found: u64,
    },
}

/// Says why models cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A model is not what it should be.
    #[error("`{model}`: {fault}")]
    Model {
        /// Which one.
        model: String,
        /// What is wrong with it.
        fault: ModelError,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Writing(#[from] ModelError),
    /// What is asked for makes no sense for the method.
    #[error("{what}")]
    Method {
        /// What is wrong.
        what: String,
    },
    /// The method works on task vectors and there is no base.
    #[error("the method needs the model that the others were tuned from, as `base`")]
    NoBase,
    /// Configurations differ in what makes an architecture.
    #[error(
        "the models differ in `{key}` of config.json: {one_value} in `{one}`, {other_value} in `{other}`"
    )]
    Configs {
        /// The key.
        key: String,
        /// One model.
        one: String,
        /// What it says.
        one_value: String,
        /// The other.
        other: String,
        /// What that says.
        other_value: String,
    },
    /// Tokenizers give tokens other numbers.
    #[error(
        "the vocabularies differ: token `{token}` is {one_id} in `{one}` and {other_id} in `{other}`, and {more} more differ"
    )]
    Vocabularies {
        /// One model.
        one: String,
        /// The other.
        other: String,
        /// The first token that differs.
        token: String,
        /// Its number in the one.
        one_id: Box<str>,
        /// Its number in the other.
        other_id: Box<str>,
        /// How many more differ.
        more: u64,
    },
    /// A tensor is not in all models.
    #[error("tensor `{tensor}` is in `{model}` ({file}) and not in `{other}`, and so are {more} more")]
    OnlyInOne {
        /// The tensor.
        tensor: String,
        /// A model that has it.
        model: String,
        /// In which file.
        file: String,
        /// A model that has not.
        other: String,
        /// How many more tensors the latter lacks.
        more: u64,
    },
    /// A tensor has several shapes.
    #[error("tensor `{tensor}` has the shape {one_shape:?} in `{one}` and {other_shape:?} in `{other}`")]
    Shapes {
        /// The tensor.
        tensor: String,
        /// One model.
        one: String,
        /// Its shape there.
        one_shape: Vec<u64>,
        /// The other model.
        other: String,
        /// Its shape there.
        other_shape: Vec<u64>,
    },
    /// No rule gives a tensor a weight.
    #[error("no rule of `{model}` gives tensor `{tensor}` a weight: end the list with `{{ value = … }}`")]
    NoWeight {
        /// The tensor.
        tensor: String,
        /// The model.
        model: String,
    },
    /// The ratio of a tensor says nothing.
    #[error("the ratio for tensor `{tensor}` is all zeros")]
    ZeroRatio {
        /// The tensor.
        tensor: String,
    },
    /// A tensor holds what is no number.
    #[error("tensor `{tensor}` of `{model}` ({file}) holds {nan} NaN and {infinite} infinite numbers")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// How many NaN.
        nan: u64,
        /// How many infinities.
        infinite: u64,
    },
    /// A result is beyond the largest number of its type.
    #[error("{count} numbers of the merged tensor `{tensor}` are too large for {dtype:?}")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// How many.
        count: u64,
        /// The type.
        dtype: Dtype,
    },
    /// There is no angle to a vector of zeros.
    #[error(
        "tensor `{tensor}` is all zeros in `{zero}` and not in `{other}`: there is no angle between them"
    )]
    NoAngle {
        /// The tensor.
        tensor: String,
        /// The model in which it is zero.
        zero: String,
        /// The other.
        other: String,
    },
    /// More than one tensor cannot be merged.
    #[error("{first}; {more} more tensors cannot be merged either")]
    Several {
        /// The first of them, by name.
        first: Box<MergeError>,
        /// How many more there are.
        more: usize,
    },
    /// Somebody told it to stop.
    #[error("the merge was stopped")]
    Cancelled,
}

/// Says what is wrong with a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// It ends within the header.
    #[error(
        "the file has {file_bytes} bytes and needs {needed_bytes} for its header: it is truncated or not safetensors"
    )]
    Truncated {
        /// Its length.
        file_bytes: u64,
        /// The length it would need.
        needed_bytes: u64,
    },
    /// The header is larger than any header should be.
    #[error("the header would be {bytes} bytes long: the file is damaged or not safetensors")]
    TooLarge {
        /// The length it claims.
        bytes: u64,
    },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8")]
    NotUtf8,
    /// The header is not what it should be.
    #[error("the header cannot be read: {0}")]
    Json(serde_json::Error),
    /// Two tensors have one name.
    #[error("two tensors are named `{tensor}`")]
    DuplicateName {
        /// The name.
        tensor: String,
    },
    /// A tensor ends before it begins, or behind the end of the file.
    #[error("tensor `{tensor}` is at bytes {begin} to {end} of {data_bytes}")]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// Where it is said to begin, counted from the end of the header.
        begin: u64,
        /// Where it is said to end.
        end: u64,
        /// How many bytes there are.
        data_bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// Bytes belong to no tensor.
    #[error("{bytes} bytes before `{tensor}` belong to no tensor")]
    Hole {
        /// The tensor behind them.
        tensor: String,
        /// How many there are.
        bytes: u64,
    },
    /// Bytes at the end belong to no tensor.
    #[error("{bytes} bytes at the end belong to no tensor")]
    Trailing {
        /// How many there are.
        bytes: u64,
    },
    /// The bytes of a tensor are not as many as its shape and type say.
    #[error("tensor `{tensor}` has {found} bytes, and its shape and type make {expected}")]
    WrongSize {
        /// The tensor.
        tensor: String,
        /// How many bytes it has.
        found: u64,
        /// How many it would have.
        expected: u64,
    },
    /// The shape of a tensor is beyond any memory, or is not a whole number of bytes.
    #[error("tensor `{tensor}` has a shape that no file can hold")]
    Shape {
        /// The tensor.
        tensor: String,
    },
}
