//! The options of a run, the events while it runs, and its report.

use std::collections::BTreeSet;
use std::ffi::OsString;

use cache::{CacheError, Trace};

use crate::kind::failure::StageFailure;
use crate::kind::memory::Machine;
use crate::plan::memory_forecast::MemoryForecast;
use crate::process::job::Progress;

/// How to run, which is never keyed: it must not change results.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where: its cores and memory are what all stages together may take.
    pub machine: Machine,
    /// What stages need of memory.
    pub memory_forecast: MemoryForecast,
    /// Whether to go on with what does not depend on a failed stage.
    pub keep_going: bool,
    /// The nodes to make; empty for all.
    pub targets: Vec<usize>,
    /// Whether only the targets may run, and everything they need must be there.
    pub only_targets: bool,
    /// Nodes that run even if their results are there.
    pub force: BTreeSet<usize>,
    /// The command line that becomes a worker when the path of a job is added.
    pub worker: Vec<OsString>,
    /// The program's version, for manifests.
    pub program: String,
}

/// How a node ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StageResult {
    /// Its result was there.
    Hit,
    /// Its inputs have the same bytes as before, so its old result is used.
    EarlyCutoff,
    /// Another run made it meanwhile.
    Shared,
    /// It ran.
    Ran {
        /// For how long.
        seconds: f64,
        /// What it had to say about its data.
        notes: Vec<String>,
        /// Whether it made what the same work had made before.
        comparison: Comparison,
    },
    /// It failed.
    Failed {
        /// Why.
        failure: StageFailure,
        /// Its log, relative to the cache's folder; empty if it never began.
        log: String,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        because: String,
    },
    /// Nothing that had to be made needs it.
    NotNeeded,
}

/// How what a stage made compares with what the same work made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// There was nothing to compare with.
    None,
    /// The same bytes.
    Identical,
    /// Other bytes: the outputs, and the files in them, that differ.
    Different(Vec<String>),
}

/// Something that happens while a plan runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run starts.
    RunStarted {
        /// How many nodes the plan has.
        nodes: usize,
        /// How many of them are hits.
        hits: usize,
    },
    /// A node begins to run.
    Started {
        /// Which.
        node: usize,
    },
    /// A node waits for another run that is making the same.
    Waiting {
        /// Which.
        node: usize,
    },
    /// A node reports how far it is.
    Progress {
        /// Which.
        node: usize,
        /// How far.
        progress: Progress,
    },
    /// A node's outputs are made, and are now kept and recorded; others may run meanwhile.
    Recording {
        /// Which.
        node: usize,
    },
    /// A node failed and is tried again.
    Retrying {
        /// Which.
        node: usize,
        /// Why it failed.
        message: String,
    },
    /// A node has ended.
    Finished {
        /// Which.
        node: usize,
        /// How.
        result: StageResult,
    },
    /// Something the user should know that is no failure.
    Warning {
        /// What.
        message: String,
    },
}

/// The report of a run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// What happened to each node.
    pub results: Vec<StageResult>,
    /// The finished work of each node.
    pub traces: Vec<Option<Trace>>,
    /// Whether the user stopped it.
    pub was_interrupted: bool,
}

impl RunReport {
    /// Returns the nodes that failed, in order.
    pub fn failed(&self) -> impl Iterator<Item = usize> + '_ {
        let is_failed = |result: &StageResult| matches!(result, StageResult::Failed { .. });
        self.results.iter().enumerate().filter(move |(_, result)| is_failed(result)).map(|(node, _)| node)
    }

    /// Returns how many nodes ran.
    pub fn ran(&self) -> usize {
        self.results.iter().filter(|result| matches!(result, StageResult::Ran { .. })).count()
    }
}

/// Why a run could not go on at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A stage must run, and the cache takes no results.
    #[error("stage `{stage}` must run, but the cache {} is read-only", cache.display())]
    ReadOnly {
        /// The stage.
        stage: String,
        /// The cache's folder.
        cache: std::path::PathBuf,
    },
    /// A file changed between the planning and the beginning of the run.
    #[error("{} changed after it was read for the plan, and nothing was run", path.display())]
    SourceChanged {
        /// The file.
        path: std::path::PathBuf,
    },
}
