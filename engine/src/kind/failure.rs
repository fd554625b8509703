//! Why a stage could not do its work.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use choice::FieldError;
use serde::{Deserialize, Serialize};

use crate::process::job::Reason;
use crate::process::program::Ended;

/// What to do about a full disk.
pub(crate) const FREE_SPACE: &str = "the disk is full: free space, or use another `--cache`";

/// Why a stage could not do its work. It is plain data, so that a worker process can return it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StageFailure {
    /// In what way.
    pub reason: Reason,
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl StageFailure {
    /// Says what went wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { reason: Reason::Failed, message: message.into(), help: None }
    }

    /// Says what went wrong while doing something, and why: `doing` is a verb and its object.
    pub fn caused(doing: impl fmt::Display, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(format!("failed to {doing}: {}", with_causes(&*cause.into())))
    }

    /// Wraps an error of writing a file.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io("write", path)
    }

    /// Wraps an error of reading a file.
    pub fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io("read", path)
    }

    /// Wraps an error of doing something with a file or folder.
    pub(crate) fn io(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{action} {}", path.display());
        move |error| {
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            Self { help: is_full.then(|| FREE_SPACE.to_owned()), ..Self::caused(doing, error) }
        }
    }

    /// Says how a program ended that should have ended well.
    pub(crate) fn ended(ended: &Ended) -> Self {
        let reason = match ended {
            Ended::Well => Reason::Failed,
            Ended::Exit(_) => Reason::Exited,
            Ended::Signal(_) => Reason::Killed,
            Ended::TimedOut(_) => Reason::TimedOut,
            Ended::Interrupted => Reason::Interrupted,
        };
        Self { reason, ..Self::new(ended.to_string()) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Replaces what it says went wrong.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// Parameters were checked when the stage was planned; what still is wrong with them fails it.
impl From<FieldError> for StageFailure {
    fn from(error: FieldError) -> Self {
        Self { help: error.help, ..Self::new(error.message) }
    }
}

/// Returns the message of an error, followed by those of its causes.
pub fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(&format!(": {error}"));
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the list is unreadable")]
    struct Unreadable(#[source] io::Error);

    #[test]
    fn causes_follow_what_they_caused() {
        let error = Unreadable(io::Error::other("no such device"));
        assert_eq!(with_causes(&error), "the list is unreadable: no such device");
        let failure = StageFailure::caused("open the model", error);
        assert_eq!(failure.message, "failed to open the model: the list is unreadable: no such device");
        assert_eq!((failure.reason, failure.help), (Reason::Failed, None));
    }

    #[test]
    fn a_full_disk_has_help() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(StageFailure::writing(Path::new("a"))(full()).help.as_deref(), Some(FREE_SPACE));
        let absent = io::Error::from(io::ErrorKind::NotFound);
        let failure = StageFailure::reading(Path::new("a/b"))(absent);
        assert_eq!((failure.message.as_str(), failure.help), ("failed to read a/b: entity not found", None));
    }

    #[test]
    fn how_a_program_ended_is_the_reason() {
        let failure = StageFailure::ended(&Ended::Exit(3));
        assert_eq!((failure.reason, failure.message.as_str()), (Reason::Exited, "exited with code 3"));
        assert_eq!(StageFailure::ended(&Ended::Interrupted).reason, Reason::Interrupted);
    }
}
