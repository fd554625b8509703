//! One stage, from inputs laid out to outputs committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use cache::{Artifact, Cache, CacheError, Digest, Execution, Input, Key, KeyLock, Manifest, Output, Recipe};

use crate::execute::attempt;
use crate::job::{Job, JobInput, Outcome, Reason};
use crate::process::Cancel;
use crate::run::{Progress, RunOptions, StageResult};
use crate::sandbox::Sandbox;
use crate::settings::Settings;
use crate::stage::{Kind, OutputPort};
use crate::table::{METRICS_FILE, read_metric};

/// Everything about one stage that has to run.
pub(crate) struct Task {
    pub label: String,
    pub kind: Kind,
    /// Parameters with absolute paths, as a job takes them.
    pub params: serde_json::Value,
    pub seed: Option<u64>,
    pub inputs: Vec<Input<Digest>>,
    pub outputs: Vec<OutputPort>,
    pub settings: Settings,
    pub cores: u32,
    pub recipe: (Key, Recipe),
    pub trace: Key,
    pub skeleton: Key,
    pub run: i64,
}

/// How a task went.
pub(crate) enum Performed {
    Done(StageResult),
    /// An input's bytes are not what they should be, so it must be made again.
    DamagedInput {
        artifact: Digest,
        blob: Digest,
        message: String,
    },
}

/// A disk with less room than this counts as full.
const FULL_BELOW_BYTES: u64 = 1 << 16;

/// What to do about a full disk.
const FREE_SPACE: &str = "the disk is full: free space, or use another `--cache`";

/// A failure with its advice.
struct Trouble {
    reason: Reason,
    message: String,
    help: Option<String>,
}

impl Trouble {
    fn failed(message: String) -> Self {
        Self { reason: Reason::Failed, message, help: None }
    }

    fn cache(doing: &str, error: &CacheError) -> Self {
        let mut message = format!("failed to {doing}: {error}");
        if let Some(source) = std::error::Error::source(error) {
            message.push_str(&format!(": {source}"));
        }
        let help = error.is_full_disk().then(|| FREE_SPACE.to_owned());
        Self { reason: Reason::Failed, message, help }
    }

    fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("failed to {doing} {}", path.display());
        move |error| {
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let help = is_full.then(|| FREE_SPACE.to_owned());
            Self { reason: Reason::Failed, message: format!("{what}: {error}"), help }
        }
    }

    /// Blames the disk if it is full: a foreign program that could not write has no other way
    /// to tell, and its log may not have been written either.
    fn on_a_full_disk(mut self, scratch: &Path) -> Self {
        let is_full = rustix::fs::statvfs(scratch)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FULL_BELOW_BYTES);
        if is_full && self.help.as_deref() != Some(FREE_SPACE) {
            self.message.push_str(", and the disk is full");
            self.help = Some(FREE_SPACE.to_owned());
        }
        self
    }
}

/// A run as one stage sees it: what it shares with all others.
#[derive(Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub cache: &'a Cache,
    pub options: &'a RunOptions,
    pub cancel: &'a Cancel,
}

/// One stage at work.
struct Work<'a> {
    task: &'a Task,
    shop: Workshop<'a>,
    folder: PathBuf,
    log: PathBuf,
    began: Instant,
    started_ms: u64,
}

/// Runs one stage and commits what it made. Holds the lock on its key until all is recorded.
pub(crate) fn perform(
    task: &Task,
    shop: Workshop<'_>,
    _lock: KeyLock,
    progress: impl Fn(Progress) + Send + Clone + 'static,
    retrying: &dyn Fn(String),
) -> Performed {
    let work = Work {
        task,
        shop,
        folder: shop.cache.work_folder(task.trace),
        log: shop.cache.log_path(task.trace, task.run),
        began: Instant::now(),
        started_ms: milliseconds_now(),
    };
    let mut tries_left = task.settings.retries;
    loop {
        let committed = match work.once(progress.clone()) {
            Ok(Ok(notes)) => work.commit(&notes).map(|()| notes),
            Ok(Err(trouble)) => Err(trouble),
            Err(damaged) => return damaged,
        };
        match committed {
            Ok(notes) => {
                work.record("done", "");
                let _ = fs::remove_dir_all(&work.folder);
                return Performed::Done(StageResult::Ran { seconds: work.seconds(), notes });
            }
            Err(Trouble { reason, message, help }) => {
                // Cleared first, for on a full disk there is room for the record only afterwards.
                clear(&work.folder);
                work.record(reason.word(), &message);
                let filter = &task.settings.retry_on;
                let may_retry = filter.is_empty() || filter.contains(&reason);
                if tries_left > 0 && may_retry && reason != Reason::Interrupted && !shop.cancel.is_asked() {
                    tries_left -= 1;
                    retrying(message);
                    continue;
                }
                let log = work.log.display().to_string();
                return Performed::Done(StageResult::Failed { reason, message, help, log });
            }
        }
    }
}

/// Clears what a failed attempt left, except checkpoints.
fn clear(folder: &Path) {
    // What cannot be removed now is swept by the next run.
    let _ = fs::remove_dir_all(folder.join("run"));
    let _ = fs::remove_file(folder.join("job.json"));
    let _ = fs::remove_file(folder.join("outcome.json"));
    let _ = fs::remove_dir(folder.join("keep"));
    let _ = fs::remove_dir(folder);
}

impl Work<'_> {
    /// Tries once: `Ok(Ok(notes))` if the outputs are in the scratch folder.
    fn once(
        &self,
        progress: impl Fn(Progress) + Send + 'static,
    ) -> Result<Result<Vec<String>, Trouble>, Performed> {
        let Self { task, shop, folder, log, .. } = self;
        clear(folder);
        let scratch = folder.join("run");
        for made in [scratch.join("outputs"), scratch.join("tmp")] {
            if let Err(error) = shop.cache.make_folder(&made) {
                return Ok(Err(Trouble::cache("prepare its folder", &error)));
            }
        }
        let inputs = match lay_out(task, shop.cache, &scratch)? {
            Ok(inputs) => inputs,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let job = Job {
            kind: task.kind.name().to_owned(),
            params: task.params.clone(),
            seed: task.seed,
            inputs,
            outputs: task.outputs.iter().map(|output| output.name.clone()).collect(),
            scratch,
            keep: folder.join("keep"),
            cores: task.cores,
            device: shop.options.machine.device.clone(),
            timeout_seconds: task.settings.timeout_seconds,
        };
        let log = match open_log(shop.cache, log) {
            Ok(log) => log,
            Err(trouble) => return Ok(Err(trouble)),
        };
        Ok(match attempt(&job, &task.kind, &shop.options.worker, log, Box::new(progress), shop.cancel) {
            Outcome::Done { notes } => check_outputs(task, &job.scratch).map(|()| notes),
            Outcome::Failed { reason, message, help } => {
                Err(Trouble { reason, message, help }.on_a_full_disk(&job.scratch))
            }
        })
    }

    /// Keeps what it made and records it.
    fn commit(&self, notes: &[String]) -> Result<(), Trouble> {
        let Self { task, shop, folder, log, .. } = self;
        let cache = shop.cache;
        let mut artifacts: Vec<Artifact> = Vec::new();
        let mut outputs = Vec::new();
        for output in &task.outputs {
            let made = folder.join("run/outputs").join(&output.name);
            let artifact = cache
                .blobs()
                .keep_folder(&made)
                .map_err(|error| Trouble::cache(&format!("keep output `{}`", output.name), &error))?;
            outputs.push(Output {
                name: output.name.clone(),
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
            parts: recipe.parts.clone(),
            params: recipe.params.clone(),
            seed: recipe.seed,
            inputs: task.inputs.clone(),
            outputs,
            notes: notes.to_vec(),
            stage: task.label.clone(),
            device: shop.options.machine.device.0.clone(),
            instruction_set: instruction_set().to_owned(),
            program: shop.options.program.clone(),
            started_ms: self.started_ms,
            seconds: self.seconds(),
            log: log.display().to_string(),
        };
        cache
            .commit(task.trace, task.skeleton, &manifest, &artifacts, (task.recipe.0, recipe))
            .map_err(|error| Trouble::cache("record its result", &error))
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
        let _ = self.shop.cache.index().record(&execution);
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

fn open_log(cache: &Cache, log: &Path) -> Result<File, Trouble> {
    let path = cache.folder().join(log);
    let folder = path.parent().unwrap_or(&path);
    cache.make_folder(folder).map_err(|error| Trouble::cache("write its log", &error))?;
    File::options().create(true).append(true).open(&path).map_err(Trouble::io("write log", &path))
}

/// Lays the inputs out as `inputs/PORT` or `inputs/PORT/LABEL`.
fn lay_out(task: &Task, cache: &Cache, scratch: &Path) -> Result<Result<Vec<JobInput>, Trouble>, Performed> {
    let copies = Sandbox::available() == Sandbox::Unavailable;
    let mut inputs = Vec::new();
    for input in &task.inputs {
        let mut folder = PathBuf::from("inputs").join(&input.port);
        if let Some(label) = &input.label {
            folder.push(label.replace('/', "_"));
        }
        let artifact = match cache.index().artifact(input.from) {
            Ok(Some(artifact)) => artifact,
            Ok(None) => {
                // Its listing is lost, as its bytes might be: it is made again.
                let message = format!("the cache does not know the files of input `{}`", input.port);
                return Err(Performed::DamagedInput { artifact: input.from, blob: input.from, message });
            }
            Err(error) => return Ok(Err(Trouble::cache("look up an input", &error))),
        };
        match cache.blobs().lay_out(&artifact, &scratch.join(&folder), copies) {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                let blob = error.blob().unwrap_or(input.from);
                return Err(Performed::DamagedInput {
                    artifact: input.from,
                    blob,
                    message: error.to_string(),
                });
            }
            Err(error) => return Ok(Err(Trouble::cache("lay out an input", &error))),
        }
        inputs.push(JobInput {
            port: input.port.clone(),
            label: input.label.clone(),
            folder,
            digest: input.from.to_string(),
        });
    }
    Ok(Ok(inputs))
}

/// Checks that a stage made what it promised, and nothing else.
fn check_outputs(task: &Task, scratch: &Path) -> Result<(), Trouble> {
    let outputs = scratch.join("outputs");
    // Keeping moves files, so a link in place of a folder would empty what it points to.
    let names = task.outputs.iter().map(|output| format!("outputs/{}", output.name));
    for place in std::iter::once("outputs".to_owned()).chain(names) {
        if scratch.join(&place).is_symlink() {
            return Err(Trouble::failed(format!("it put a link in place of the folder `{place}`")));
        }
    }
    for entry in fs::read_dir(&outputs).map_err(Trouble::io("list", &outputs))?.flatten() {
        let name = entry.file_name();
        let is_declared = task.outputs.iter().any(|output| name.to_str() == Some(output.name.as_str()));
        if !is_declared {
            let mut trouble = Trouble::failed(format!(
                "it wrote `outputs/{}`, which is not one of its outputs",
                name.display()
            ));
            trouble.help = Some("declare it as an output, or write to `tmp/`".to_owned());
            return Err(trouble);
        }
    }
    for output in &task.outputs {
        let folder = outputs.join(&output.name);
        if !has_files(&folder) {
            let mut trouble =
                Trouble::failed(format!("it ended well but wrote nothing to `outputs/{}`", output.name));
            trouble.help = Some("an output is a folder with at least one file".to_owned());
            return Err(trouble);
        }
        if output.columns.is_empty() {
            continue;
        }
        let file = folder.join(METRICS_FILE);
        let text = fs::read(&file).map_err(|error| {
            Trouble::failed(format!(
                "it promised numbers for a table, but `outputs/{}/{METRICS_FILE}`: {error}",
                output.name
            ))
        })?;
        let metrics: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
            Trouble::failed(format!("`outputs/{}/{METRICS_FILE}` is not JSON: {error}", output.name))
        })?;
        for column in &output.columns {
            let is_missing_with_reason = metrics.get(column).and_then(|found| found.get("missing")).is_some();
            if let (Err(problem), false) = (read_metric(&metrics, column), is_missing_with_reason) {
                return Err(Trouble::failed(format!("it promised the column `{column}`, but {problem}")));
            }
        }
    }
    Ok(())
}

/// Returns whether anything but folders lies below a folder.
fn has_files(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
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
