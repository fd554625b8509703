//! What can be wrong with a folder of weights.

use safetensors::Dtype;
use std::io;

/// Says why a folder is not a model. Files are named relative to the folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
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

impl ModelError {
    /// Says whether it is for want of room on the disk.
    pub fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Write { source, .. } if full.contains(&source.kind()))
    }
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
