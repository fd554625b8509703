//! Why a stage could not do its work.

use std::fmt;
use std::io;
use std::path::Path;

use crate::process::program::Ended;

/// Why a stage could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    help: Option<String>,
    ended: Option<Ended>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// Says what went wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, ended: None, source: None }
    }

    /// Says what went wrong while doing something, and keeps the cause.
    pub fn caused(
        doing: impl fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let mut message = format!("failed to {doing}: {source}");
        let mut cause = source.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self { message, help: None, ended: None, source: Some(source) }
    }

    /// Wraps an error of writing a file.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let failure = Self::caused(format!("write {}", path.display()), error);
            if full {
                failure.help("the disk is full: free space, or use another `--cache`")
            } else {
                failure
            }
        }
    }

    /// Wraps an error of reading a file.
    pub fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::caused(format!("read {}", path.display()), error)
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says it in other words.
    pub fn say(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn with_ended(mut self, ended: Ended) -> Self {
        self.ended = Some(ended);
        self
    }

    /// Returns what went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}
