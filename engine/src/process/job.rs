//! A stage's work as data, so that a thread, a process and another machine do the same.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::device::Device;

/// Everything that a stage needs to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The stage kind.
    pub kind: String,
    /// Its parameters; files as absolute paths.
    pub params: serde_json::Value,
    /// How it is computed.
    pub tuning: serde_json::Value,
    /// The seed, for kinds that use one.
    pub seed: Option<u64>,
    /// Inputs, as folders inside the scratch folder.
    pub inputs: Vec<JobInput>,
    /// Names of the outputs to make.
    pub outputs: Vec<String>,
    /// The folder that the stage may write to.
    pub scratch: PathBuf,
    /// The folder whose content outlives a kill.
    pub keep: PathBuf,
    /// How many threads it may keep busy.
    pub cores: u32,
    /// Where to compute.
    pub device: Device,
    /// When to give up.
    pub timeout_seconds: Option<f64>,
}

impl Job {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        // Longer than can be counted is as good as none.
        self.timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

/// One input of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInput {
    /// The port it enters by.
    pub port: String,
    /// Its label where several were gathered.
    pub label: Option<String>,
    /// Its folder, relative to the scratch folder.
    pub folder: PathBuf,
    /// The digest of its content.
    pub digest: String,
}

/// How far a stage is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is to do; 0 if nobody knows.
    pub all: u64,
    /// What is counted.
    pub unit: String,
    /// Anything else worth a glance, such as a loss.
    pub detail: String,
}

/// Why a job failed; retries can be limited to some reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It found an error and said so.
    Failed,
    /// Its program exited with a code other than 0.
    Exited,
    /// It was killed by a signal, as the out-of-memory killer does.
    Killed,
    /// It ran out of time.
    TimedOut,
    /// The user stopped the run.
    Interrupted,
}

impl Reason {
    /// Returns one word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::TimedOut => "timed-out",
            Self::Interrupted => "interrupted",
        }
    }
}
