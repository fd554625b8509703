//! Executes one stage, from its materialized inputs to its committed outputs.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use cache::{
    Artifact, Cache, CacheError, Digest, Execution, Input, Key, KeyLock, Links, Manifest, Output, Recipe,
    Value, open_regular,
};

use crate::experiment::settings::Settings;
use crate::kind::metrics_file::{METRICS_FILE, read_metric};
use crate::kind::name::{Name, input_folder, output_folder};
use crate::kind::ports::OutputPort;
use crate::kind::stage::Kind;
use crate::process::cancel::Cancel;
use crate::process::job::{Job, JobInput, Outcome, Progress, Reason};
use crate::process::sandbox::Sandbox;
use crate::run::events::{Comparison, RunOptions, StageResult};
use crate::run::fixed::{FixError, FixedFiles, materialize_artifact};
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

/// How a task ended.
pub(crate) enum AttemptResult {
    Done(StageResult),
    /// It cannot run before an input is made again.
    CorruptInput(CorruptInput),
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

/// What to do about a full disk.
const FREE_SPACE: &str = "the disk is full: free space, or use another `--cache`";

/// What to do about a file that changed after it was keyed.
pub(crate) const CHANGED_HELP: &str =
    "nothing was recorded for it, since its key names the file as it was; run again when it is at rest";

/// The largest `metrics.json` that is read.
const MOST_METRICS_BYTES: u64 = 64 << 20;

/// Why an attempt ended without a result.
enum AttemptError {
    /// The stage failed, and what to do about it.
    Failed { reason: Reason, message: String, help: Option<String> },
    /// It could not begin.
    CorruptInput(CorruptInput),
}

impl AttemptError {
    fn failed(message: String) -> Self {
        Self::Failed { reason: Reason::Failed, message, help: None }
    }

    fn with_help(mut self, text: &str) -> Self {
        if let Self::Failed { help, .. } = &mut self {
            *help = Some(text.to_owned());
        }
        self
    }

    fn cache(doing: &str, error: &CacheError) -> Self {
        let mut message = format!("failed to {doing}: {error}");
        if let Some(source) = std::error::Error::source(error) {
            message.push_str(&format!(": {source}"));
        }
        let help = error.is_full_disk().then(|| FREE_SPACE.to_owned());
        Self::Failed { reason: Reason::Failed, message, help }
    }

    fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("failed to {doing} {}", path.display());
        move |error| {
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let help = is_full.then(|| FREE_SPACE.to_owned());
            Self::Failed { reason: Reason::Failed, message: format!("{what}: {error}"), help }
        }
    }

    fn fixing(error: FixError) -> Self {
        match error {
            FixError::Cache(error) => Self::cache("lay out a file", &error),
            error @ FixError::Changed(_) => Self::failed(error.to_string()).with_help(CHANGED_HELP),
        }
    }

    /// Blames the disk if it is full: a foreign program that could not write has no other way
    /// to say so, and its log may not have been written either.
    fn on_a_full_disk(mut self, scratch: &Path) -> Self {
        let is_full = rustix::fs::statvfs(scratch)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FULL_BELOW_BYTES);
        if let Self::Failed { message, help, .. } = &mut self
            && is_full
            && help.as_deref() != Some(FREE_SPACE)
        {
            message.push_str(", and the disk is full");
            *help = Some(FREE_SPACE.to_owned());
        }
        self
    }
}

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
) -> AttemptResult {
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
            attempt.commit(&notes).map(|comparison| (notes, comparison))
        });
        match committed {
            Ok((notes, comparison)) => {
                attempt.record("done", "");
                let _ = fs::remove_dir_all(&attempt.folder);
                return AttemptResult::Done(StageResult::Ran {
                    seconds: attempt.seconds(),
                    notes,
                    comparison,
                });
            }
            Err(AttemptError::CorruptInput(input)) => return AttemptResult::CorruptInput(input),
            Err(AttemptError::Failed { reason, message, help }) => {
                // Cleared first, for on a full disk there is room for the record only afterwards.
                clear(&attempt.folder);
                attempt.record(reason.word(), &message);
                let filter = &task.settings.retry_on;
                let may_retry = filter.is_empty() || filter.contains(&reason);
                if tries_left > 0 && may_retry && reason != Reason::Interrupted && !env.cancel.is_asked() {
                    tries_left -= 1;
                    on_step(Step::Again(message));
                    continue;
                }
                let log = attempt.log.display().to_string();
                return AttemptResult::Done(StageResult::Failed { reason, message, help, log });
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
            return Err(AttemptError::failed(message).with_help("remove it, or ask its owner to remove it"));
        }
        for made in [scratch.join("outputs"), scratch.join("tmp")] {
            env.cache
                .make_folder(&made)
                .map_err(|error| AttemptError::cache("prepare its folder", &error))?;
        }
        let inputs = materialize_inputs(task, env.cache, &scratch)?;
        let copies = Sandbox::available() == Sandbox::Unavailable;
        let params = task
            .files
            .compare_in_place()
            .and_then(|()| task.files.materialize(&task.params, env.cache, &folder.join("files"), copies))
            .map_err(AttemptError::fixing)?;
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
        match run_job(&job, &task.kind, &env.options.worker, log, Box::new(progress), env.cancel) {
            Outcome::Done { notes } => {
                check_outputs(task, &job.scratch)?;
                task.files.compare_in_place().map_err(AttemptError::fixing)?;
                Ok(notes)
            }
            Outcome::Failed { reason, message, help } => {
                Err(AttemptError::Failed { reason, message, help }.on_a_full_disk(&job.scratch))
            }
        }
    }

    /// Keeps what it made and records it. Returns how that compares with what the same work made
    /// before, if it was done before.
    fn commit(&self, notes: &[String]) -> Result<Comparison, AttemptError> {
        let Self { task, env, folder, log, .. } = self;
        let cache = env.cache;
        let mut artifacts: Vec<Artifact> = Vec::new();
        let mut outputs = Vec::new();
        for output in &task.outputs {
            let made = folder.join("run").join(output_folder(&output.name));
            let artifact = cache
                .blobs()
                .ingest_dir(&made)
                .map_err(|error| AttemptError::cache(&format!("keep output `{}`", output.name), &error))?;
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
            .map_err(|error| AttemptError::cache("record its result", &error))?;
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

fn open_log(cache: &Cache, log: &Path) -> Result<File, AttemptError> {
    let path = cache.folder().join(log);
    let folder = path.parent().unwrap_or(&path);
    cache.make_folder(folder).map_err(|error| AttemptError::cache("write its log", &error))?;
    File::options().create(true).append(true).open(&path).map_err(AttemptError::io("write log", &path))
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
                AttemptError::cache("look up an input", &error)
            }
        })?;
        let Some(artifact) = artifact else {
            return Err(damaged(None, format!("the cache has lost the list of files of input `{port}`")));
        };
        materialize_artifact(cache, &artifact, &scratch.join(&folder), copies).map_err(|error| {
            if error.is_corruption() {
                damaged(error.blob(), error.to_string())
            } else {
                AttemptError::cache("lay out an input", &error)
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

/// Checks that a stage made what it promised, and nothing else.
fn check_outputs(task: &Task, scratch: &Path) -> Result<(), AttemptError> {
    let outputs = scratch.join("outputs");
    // Keeping moves files, so a link in place of a folder would empty what it points to.
    let names = task.outputs.iter().map(|output| format!("outputs/{}", output.name));
    for place in std::iter::once("outputs".to_owned()).chain(names) {
        if scratch.join(&place).is_symlink() {
            return Err(AttemptError::failed(format!("it put a link in place of the folder `{place}`")));
        }
    }
    for entry in fs::read_dir(&outputs).map_err(AttemptError::io("list", &outputs))?.flatten() {
        let name = entry.file_name();
        let is_declared = task.outputs.iter().any(|output| name.to_str() == Some(&*output.name));
        if !is_declared {
            let message = format!("it wrote `outputs/{}`, which is not one of its outputs", name.display());
            return Err(
                AttemptError::failed(message).with_help("declare it as an output, or write to `tmp/`")
            );
        }
    }
    for output in &task.outputs {
        let folder = scratch.join(output_folder(&output.name));
        if !has_files(&folder) {
            let message = format!("it succeeded but wrote nothing to `outputs/{}`", output.name);
            return Err(
                AttemptError::failed(message).with_help("an output is a folder with at least one file")
            );
        }
        if output.columns.is_empty() {
            continue;
        }
        let file = folder.join(METRICS_FILE);
        let text = read_metrics(&file).map_err(|problem| {
            AttemptError::failed(format!(
                "it promised numbers for a table, but `outputs/{}/{METRICS_FILE}`: {problem}",
                output.name
            ))
        })?;
        let metrics: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
            AttemptError::failed(format!("`outputs/{}/{METRICS_FILE}` is not JSON: {error}", output.name))
        })?;
        for column in &output.columns {
            let is_missing_with_reason = metrics.get(column).and_then(|value| value.get("missing")).is_some();
            if let (Err(problem), false) = (read_metric(&metrics, column), is_missing_with_reason) {
                return Err(AttemptError::failed(format!(
                    "it promised the column `{column}`, but {problem}"
                )));
            }
        }
    }
    Ok(())
}

/// Reads what a program left as its numbers, which may be anything: a pipe that nobody writes to, a
/// link to a device, more than there is memory for.
fn read_metrics(path: &Path) -> Result<Vec<u8>, String> {
    let file = open_regular(path, Links::Refuse).map_err(|error| match error {
        CacheError::Io { source, .. } => source.to_string(),
        CacheError::UnsupportedFile { what, .. } => format!("it is {what}, not a file"),
        other => other.to_string(),
    })?;
    let mut text = Vec::new();
    let read = file.take(MOST_METRICS_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > MOST_METRICS_BYTES {
        Err(format!("it is larger than {} MiB", MOST_METRICS_BYTES >> 20))
    } else {
        Ok(text)
    }
}

/// Returns whether anything but folders lies below a folder.
fn has_files(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
            !is_folder || has_files(&entry.path())
        })
    })
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
