//! Bytes in, digest out: content-addressed files, and an index that says which work made them.
//!
//! The crate knows keys, blobs and manifests. It refuses to know what a stage is, what a
//! graph is, or what the bytes mean.
//!
//! ```
//! use cache::{Cache, Key, Value};
//!
//! let folder = tempfile::tempdir()?;
//! let cache = Cache::open(folder.path())?;
//! let key = Key::of("an example", &Value::of(&("greet", 1))?)?;
//! assert!(cache.index().trace(key)?.is_none());
//!
//! let file = folder.path().join("hello.txt");
//! std::fs::write(&file, "hello")?;
//! let (digest, bytes) = cache.blobs().insert_copy(&file)?;
//! assert_eq!(bytes, 5);
//! assert_eq!(std::fs::read(cache.blobs().path(digest))?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod artifact;
mod blobs;
mod cache;
mod digest;
mod durable;
mod encode;
mod error;
mod files;
mod format;
mod index;
mod ingest;
mod key;
mod lock;
mod manifest;
mod materialize;
mod network;
mod rebuild;
mod record;
mod share;
mod sources;
mod temporary;
mod verify;

pub use access::Access;
pub use artifact::{Artifact, Entry, EntryPathError};
pub use blobs::Blobs;
pub use cache::Cache;
pub use digest::{Digest, ParseDigestError};
pub use encode::{DigestOf, EncodeError, NAMED_PATH_TOKEN, PATH_TOKEN, Value, Visible};
pub use error::CacheError;
pub use files::{Fingerprint, Links, open_regular, read_regular};
pub use format::{FOLDER_FORMAT, KEY_FORMAT};
pub use index::{Execution, Flaw, HistoryEntry, Index, ListedWork, Totals, Trace};
pub use key::Key;
pub use lock::KeyLock;
pub use manifest::{Input, Manifest, Output, Recipe};
pub use rebuild::Rebuilt;
pub use sources::{SourceFile, SourceState, Sources};
pub use verify::{CorruptBlob, Corruption, Verification};
