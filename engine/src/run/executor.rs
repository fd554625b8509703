//! Executes one stage, from its materialized inputs to its committed outputs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use cache::{
    Artifact, Cache, CacheError, Digest, Execution, Input, Key, KeyLock, Manifest, Output, Recipe, Value,
};

use crate::experiment::settings::Settings;
use crate::kind::failure::{FREE_SPACE, StageFailure, with_causes};
use crate::kind::name::{Name, input_folder, output_folder};
use crate::kind::ports::OutputPort;
use crate::kind::stage::Kind;
use crate::process::cancel::Cancel;
use crate::process::job::{Job, JobInput, Progress, Reason};
use crate::process::sandbox::Sandbox;
use crate::run::events::{Comparison, RunOptions, StageResult};
use crate::run::fixed::{FixError, FixedFiles, materialize_artifact};
use crate::run::outputs::check_outputs;
use crate::run::worker::run_job;

/// Everything about one stage that has to run.
pub(crate) struct Task {
    pub label: String,
    pub kind: Kind,
    /// Parameters with the paths of files as they were keyed.
    pub params: Value,
    pub tuning: Value,
    pub files: FixedFiles,
    pub seed: Option<u64>,
    /// By port, with the label where a port gathers several.
    pub inputs: Vec<(Name, Option<String>, Digest)>,
    pub outputs: Vec<OutputPort>,
    pub settings: Settings,
    pub cores: u32,
    pub recipe: (Key, Recipe),
    pub trace: Key,
    pub shape: Key,
    /// Whether it is made although it may be there.
    pub is_forced: bool,
    pub run: i64,
}

/// Why an attempt ended without a result.
pub(crate) enum AttemptError {
    /// The stage failed.
    Failed {
        failure: StageFailure,
        /// Its log, relative to the cache's folder; empty if it never began.
        log: String,
    },
    /// It cannot run before an input is made again.
    CorruptInput(CorruptInput),
}

impl From<StageFailure> for AttemptError {
    fn from(failure: StageFailure) -> Self {
        Self::Failed { failure, log: String::new() }
    }
}

/// An input whose bytes are not what their digest says.
pub(crate) struct CorruptInput {
    pub artifact: Digest,
    /// The blob at fault; none if it is the list of the artifact's files.
    pub blob: Option<Digest>,
    pub message: String,
}

/// How far a task is.
pub(crate) enum Step {
    /// Its outputs are made, and now kept and recorded, which is the disk's work.
    Made,
    /// It failed, and is tried again.
    Again(String),
}

/// A disk with less room than this counts as full.
const FULL_BELOW_BYTES: u64 = 1 << 16;

/// What to do about a file that changed after it was keyed.
pub(crate) const CHANGED_HELP: &str =
    "nothing was recorded for it, since its key names the file as it was; run again when it is at rest";

/// A run as one stage sees it: what it shares with all others.
#[derive(Clone, Copy)]
pub(crate) struct RunEnv<'a> {
    pub cache: &'a Cache,
    pub options: &'a RunOptions,
    pub cancel: &'a Cancel,
}

/// One task while it is executed.
struct Attempt<'a> {
    task: &'a Task,
    env: RunEnv<'a>,
    folder: PathBuf,
    log: PathBuf,
    began: Instant,
    started_ms: u64,
}

/// Runs one stage and commits what it made. Holds the lock on its key until all is recorded.
pub(crate) fn execute(
    task: &Task,
    env: RunEnv<'_>,
    _lock: KeyLock,
    progress: impl Fn(Progress) + Send + Clone + 'static,
    on_step: &dyn Fn(Step),
) -> Result<StageResult, AttemptError> {
    let attempt = Attempt {
        task,
        env,
        folder: env.cache.work_folder(task.trace),
        log: env.cache.log_path(task.trace, task.run),
        began: Instant::now(),
        started_ms: milliseconds_now(),
    };
    let mut tries_left = task.settings.retries;
    loop {
        let committed = attempt.make(progress.clone()).and_then(|notes| {
            on_step(Step::Made);
            Ok(attempt.commit(&notes).map(|comparison| (notes, comparison))?)
        });
        match committed {
            Ok((notes, comparison)) => {
                attempt.record("done", "");
                let _ = fs::remove_dir_all(&attempt.folder);
                return Ok(StageResult::Ran { seconds: attempt.seconds(), notes, comparison });
            }
            Err(error @ AttemptError::CorruptInput(_)) => return Err(error),
            Err(AttemptError::Failed { failure, .. }) => {
                // Cleared first, for on a full disk there is room for the record only afterwards.
                clear(&attempt.folder);
                attempt.record(failure.reason.word(), &failure.message);
                let filter = &task.settings.retry_on;
                let may_retry = filter.is_empty() || filter.contains(&failure.reason);
                let is_interrupted = failure.reason == Reason::Interrupted || env.cancel.is_asked();
                if tries_left > 0 && may_retry && !is_interrupted {
                    tries_left -= 1;
                    on_step(Step::Again(failure.message));
                    continue;
                }
                let log = attempt.log.display().to_string();
                return Err(AttemptError::Failed { failure, log });
            }
        }
    }
}

/// Clears what a failed attempt left, except checkpoints.
fn clear(folder: &Path) {
    // What cannot be removed now is swept by the next run.
    let _ = fs::remove_dir_all(folder.join("run"));
    let _ = fs::remove_dir_all(folder.join("files"));
    let _ = fs::remove_file(folder.join("job.json"));
    let _ = fs::remove_file(folder.join("outcome.json"));
    let _ = fs::remove_dir(folder.join("keep"));
    let _ = fs::remove_dir(folder);
}

impl Attempt<'_> {
    /// Makes the outputs in the scratch folder. Returns the stage's notes.
    fn make(&self, progress: impl Fn(Progress) + Send + 'static) -> Result<Vec<String>, AttemptError> {
        let Self { task, env, folder, log, .. } = self;
        clear(folder);
        if task.files.are_in_place() {
            // What an earlier attempt kept may be of bytes that the file had meanwhile.
            let _ = fs::remove_dir_all(folder.join("keep"));
        }
        let scratch = folder.join("run");
        if fs::symlink_metadata(&scratch).is_ok() {
            let message = format!("what an earlier attempt left in {} cannot be removed", scratch.display());
            let failure = StageFailure::new(message).help("remove it, or ask its owner to remove it");
            return Err(failure.into());
        }
        for made in [scratch.join("outputs"), scratch.join("tmp")] {
            env.cache.make_folder(&made).map_err(|error| cache_failure("prepare its folder", &error))?;
        }
        let inputs = materialize_inputs(task, env.cache, &scratch)?;
        let copies = Sandbox::available() == Sandbox::Unavailable;
        let params = task
            .files
            .compare_in_place()
            .and_then(|()| task.files.materialize(&task.params, env.cache, &folder.join("files"), copies))
            .map_err(fix_failure)?;
        let job = Job {
            kind: task.kind.name().to_owned(),
            params,
            tuning: serde_json::to_value(&task.tuning).expect("tuning is plain data"),
            seed: task.seed,
            inputs,
            outputs: task.outputs.iter().map(|output| output.name.to_string()).collect(),
            scratch,
            keep: folder.join("keep"),
            cores: task.cores,
            device: env.options.machine.device.clone(),
            timeout_seconds: task.settings.timeout_seconds,
        };
        let log = open_log(env.cache, log)?;
        let notes = run_job(&job, &task.kind, &env.options.worker, log, Box::new(progress), env.cancel)
            .map_err(|failure| on_a_full_disk(failure, &job.scratch))?;
        check_outputs(&task.outputs, &job.scratch)?;
        task.files.compare_in_place().map_err(fix_failure)?;
        Ok(notes)
    }

    /// Keeps what it made and records it. Returns how that compares with what the same work made
    /// before, if it was done before.
    fn commit(&self, notes: &[String]) -> Result<Comparison, StageFailure> {
        let Self { task, env, folder, log, .. } = self;
        let cache = env.cache;
        let mut artifacts: Vec<Artifact> = Vec::new();
        let mut outputs = Vec::new();
        for output in &task.outputs {
            let made = folder.join("run").join(output_folder(&output.name));
            let artifact = cache
                .blobs()
                .ingest_dir(&made)
                .map_err(|error| cache_failure(&format!("keep output `{}`", output.name), &error))?;
            outputs.push(Output {
                name: output.name.to_string(),
                artifact_type: output.artifact_type.name().to_owned(),
                artifact: artifact.digest(),
                bytes: artifact.bytes(),
                files: artifact.entries().len(),
            });
            artifacts.push(artifact);
        }
        let recipe = &task.recipe.1;
        let manifest = Manifest {
            kind: recipe.kind.clone(),
            version: recipe.version,
            components: recipe.components.clone(),
            params: recipe.params.clone(),
            seed: recipe.seed,
            inputs: task.inputs.iter().map(input_of).collect(),
            outputs,
            notes: notes.to_vec(),
            stage: task.label.clone(),
            device: env.options.machine.device.0.clone(),
            instruction_set: instruction_set().to_owned(),
            program: env.options.program.clone(),
            started_ms: self.started_ms,
            seconds: self.seconds(),
            log: log.display().to_string(),
        };
        let comparison = self.compare(&manifest.outputs, &artifacts);
        cache
            .commit(task.trace, task.shape, &manifest, &artifacts, (task.recipe.0, recipe))
            .map_err(|error| cache_failure("record its result", &error))?;
        Ok(comparison)
    }

    /// Compares what was made with what the same work made before.
    fn compare(&self, outputs: &[Output], artifacts: &[Artifact]) -> Comparison {
        if !self.task.is_forced {
            return Comparison::None;
        }
        let index = self.env.cache.index();
        // What cannot be looked up is not there to be compared with.
        let Ok(Some(before)) = index.trace(self.task.trace) else {
            return Comparison::None;
        };
        let mut differences = Vec::new();
        for (output, artifact) in outputs.iter().zip(artifacts) {
            let Some(old) = before.output(&output.name).filter(|old| *old != output.artifact) else {
                continue;
            };
            let files = match index.artifact(old) {
                Ok(Some(old)) => differing_files(&old, artifact),
                _ => Vec::new(),
            };
            let files = if files.is_empty() { String::new() } else { format!(": {}", files.join(", ")) };
            differences.push(format!("output `{}`{files}", output.name));
        }
        if differences.is_empty() { Comparison::Identical } else { Comparison::Different(differences) }
    }

    /// Records an attempt.
    fn record(&self, outcome: &str, message: &str) {
        let execution = Execution {
            run: self.task.run,
            stage: self.task.label.clone(),
            recipe: self.task.recipe.0,
            trace: self.task.trace,
            at_ms: self.started_ms,
            seconds: self.seconds(),
            outcome: outcome.to_owned(),
            message: message.to_owned(),
            log: self.log.display().to_string(),
        };
        // What is worth knowing about an attempt is in its log too; the result is safe.
        let _ = self.env.cache.index().record(&execution);
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

fn open_log(cache: &Cache, log: &Path) -> Result<File, StageFailure> {
    let path = cache.folder().join(log);
    let folder = path.parent().unwrap_or(&path);
    cache.make_folder(folder).map_err(|error| cache_failure("write its log", &error))?;
    File::options().create(true).append(true).open(&path).map_err(StageFailure::io("write log", &path))
}

/// Names the files in which two artifacts differ.
fn differing_files(old: &Artifact, new: &Artifact) -> Vec<String> {
    let mut files = Vec::new();
    for entry in new.entries() {
        match old.entry(&entry.path) {
            Some(before) if before.digest == entry.digest && before.executable == entry.executable => {}
            Some(_) => files.push(format!("`{}` differs", entry.path)),
            None => files.push(format!("`{}` is new", entry.path)),
        }
    }
    let gone = old.entries().iter().filter(|entry| new.entry(&entry.path).is_none());
    files.extend(gone.map(|entry| format!("`{}` is gone", entry.path)));
    files
}

fn input_of((port, label, artifact): &(Name, Option<String>, Digest)) -> Input<Digest> {
    Input { port: port.to_string(), label: label.clone(), from: *artifact, output: None }
}

/// Materializes the inputs as `inputs/PORT` or `inputs/PORT/LABEL`.
fn materialize_inputs(task: &Task, cache: &Cache, scratch: &Path) -> Result<Vec<JobInput>, AttemptError> {
    let copies = Sandbox::available() == Sandbox::Unavailable;
    let mut inputs = Vec::new();
    for (port, label, digest) in &task.inputs {
        let folder = input_folder(port, label.as_deref());
        let damaged =
            |blob, message| AttemptError::CorruptInput(CorruptInput { artifact: *digest, blob, message });
        let artifact = cache.index().artifact(*digest).map_err(|error| {
            if error.is_corruption() {
                damaged(None, error.to_string())
            } else {
                cache_failure("look up an input", &error).into()
            }
        })?;
        let Some(artifact) = artifact else {
            return Err(damaged(None, format!("the cache has lost the list of files of input `{port}`")));
        };
        materialize_artifact(cache, &artifact, &scratch.join(&folder), copies).map_err(|error| {
            if error.is_corruption() {
                damaged(error.blob(), error.to_string())
            } else {
                cache_failure("lay out an input", &error).into()
            }
        })?;
        inputs.push(JobInput {
            port: port.to_string(),
            label: label.clone(),
            folder,
            digest: digest.to_string(),
        });
    }
    Ok(inputs)
}

/// Wraps an error of the cache.
fn cache_failure(doing: &str, error: &CacheError) -> StageFailure {
    let failure = StageFailure::new(format!("failed to {doing}: {}", with_causes(error)));
    if error.is_full_disk() { failure.help(FREE_SPACE) } else { failure }
}

fn fix_failure(error: FixError) -> StageFailure {
    match error {
        FixError::Cache(error) => cache_failure("lay out a file", &error),
        error @ FixError::Changed(_) => StageFailure::new(error.to_string()).help(CHANGED_HELP),
    }
}

/// Blames the disk if it is full: a foreign program that could not write has no other way to say so,
/// and its log may not have been written either.
fn on_a_full_disk(failure: StageFailure, scratch: &Path) -> StageFailure {
    let is_full = rustix::fs::statvfs(scratch)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FULL_BELOW_BYTES);
    if !is_full || failure.help.as_deref() == Some(FREE_SPACE) {
        return failure;
    }
    let message = format!("{}, and the disk is full", failure.message);
    failure.with_message(message).help(FREE_SPACE)
}

fn milliseconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Returns the widest instruction set of this processor that changes the last bits of results.
fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "x86-64-v4";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return "x86-64-v3";
        }
    }
    std::env::consts::ARCH
}
