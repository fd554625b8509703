//! Runs a job: on this thread, or in a worker process.

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::kind::context::Context;
use crate::kind::failure::StageFailure;
use crate::kind::stage::{Isolation, Kind};
use crate::process::cancel::Cancel;
use crate::process::job::{Job, Progress};
use crate::process::program::{Ended, ProcessError, ProcessOptions};

/// A worker reports its progress no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What to do if memory ran out.
const MORE_ROOM: &str = "raise the stage's `resources.memory`, so that less runs beside it";

/// The files of a job's description and of its outcome, beside its scratch folder.
struct JobFiles {
    job: PathBuf,
    outcome: PathBuf,
}

impl JobFiles {
    fn beside(scratch: &Path) -> Self {
        let folder = scratch.parent().unwrap_or(scratch);
        Self { job: folder.join("job.json"), outcome: folder.join("outcome.json") }
    }
}

/// Runs a job with the isolation of its kind and returns its notes. `worker` is the command line that becomes a worker when
/// the path of a job is added to it.
pub(crate) fn run_job(
    job: &Job,
    kind: &Kind,
    worker: &[OsString],
    log: File,
    on_progress: Box<dyn FnMut(Progress) + Send>,
    cancel: &Cancel,
) -> Result<Vec<String>, StageFailure> {
    match kind.isolation() {
        Isolation::InProcess => run_in_process(job, kind, log, on_progress, cancel),
        Isolation::Subprocess => run_in_subprocess(job, worker, log, on_progress, cancel),
    }
}

fn run_in_process(
    job: &Job,
    kind: &Kind,
    log: File,
    on_progress: Box<dyn FnMut(Progress) + Send>,
    cancel: &Cancel,
) -> Result<Vec<String>, StageFailure> {
    let mut context = Context::new(job.clone(), log, on_progress, cancel.clone());
    match catch_unwind(AssertUnwindSafe(|| kind.run(job, &mut context))) {
        Ok(Ok(())) => Ok(context.into_notes()),
        Ok(Err(failure)) => {
            context.log(format_args!("error: {failure}"));
            Err(failure)
        }
        Err(panic) => {
            let message = format!("the stage kind `{}` has a bug: {}", kind.name(), panic_message(&*panic));
            context.log(&message);
            Err(StageFailure::new(message).help("please report it"))
        }
    }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

fn run_in_subprocess(
    job: &Job,
    worker: &[OsString],
    log: File,
    mut on_progress: Box<dyn FnMut(Progress) + Send>,
    cancel: &Cancel,
) -> Result<Vec<String>, StageFailure> {
    let files = JobFiles::beside(&job.scratch);
    let Some((program, arguments)) = worker.split_first() else {
        return Err(StageFailure::new("there is no worker program to start"));
    };
    let text = serde_json::to_vec(job).expect("a job is plain data");
    fs::write(&files.job, text).map_err(StageFailure::writing(&files.job))?;
    let mut command = Command::new(program);
    // The worker ends when this pipe closes, which is when the coordinator is gone.
    command.args(arguments).arg(&files.job).stdin(Stdio::piped());
    let mut lines = |line: &str| {
        if let Ok(progress) = serde_json::from_str(line) {
            on_progress(progress);
        }
    };
    let options = ProcessOptions { log, lines: Some(&mut lines), timeout: job.timeout(), confined_to: None };
    let ended = options
        .run(&mut command, cancel)
        .map_err(|ProcessError { message, source }| StageFailure::caused(message, source))?;
    let reported = fs::read(&files.outcome).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let (Some(outcome), Ended::Well) = (reported, &ended) {
        return outcome;
    }
    let failure = StageFailure::ended(&ended).with_message(format!("the worker process {ended}"));
    Err(match ended {
        Ended::Signal(9) => failure.help(MORE_ROOM),
        // How a program ends that is refused memory; Rust's says so in its last line.
        Ended::Signal(6) => failure.help(format!(
            "if the end of its log says that a memory allocation failed, memory ran out: {MORE_ROOM}"
        )),
        _ => failure,
    })
}

/// Is a worker: runs the job that a file describes and writes its outcome beside it.
///
/// # Errors
/// What is wrong with the job's file, or with writing the outcome.
pub fn run_worker(job_file: &Path, kinds: &[Kind]) -> Result<(), StageFailure> {
    let text = fs::read(job_file).map_err(StageFailure::reading(job_file))?;
    let job: Job = serde_json::from_slice(&text)
        .map_err(|error| StageFailure::caused("read the job's description", error))?;
    let Some(kind) = kinds.iter().find(|kind| kind.name() == job.kind) else {
        return Err(StageFailure::new(format!("this program has no stage kind `{}`", job.kind)));
    };
    let exit_with_the_run = || {
        let mut nothing = [0; 64];
        while matches!(io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(130);
    };
    std::thread::Builder::new()
        .spawn(exit_with_the_run)
        .map_err(|error| StageFailure::caused("make a thread", error))?;
    let errors = io::stderr().as_fd().try_clone_to_owned();
    let log = errors.map(File::from).map_err(|error| StageFailure::caused("open the log", error))?;
    let mut last: Option<Instant> = None;
    let on_progress = move |progress: Progress| {
        let is_end = progress.all > 0 && progress.done >= progress.all;
        if !is_end && last.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
            return;
        }
        last = Some(Instant::now());
        let line = serde_json::to_string(&progress).expect("progress is plain data");
        // Nobody listening is no reason to stop.
        let _ = writeln!(io::stdout(), "{line}");
    };
    let outcome = run_in_process(&job, kind, log, Box::new(on_progress), &Cancel::new());
    let files = JobFiles::beside(&job.scratch);
    let written = serde_json::to_vec(&outcome).expect("an outcome is plain data");
    let half = files.outcome.with_extension("half");
    fs::write(&half, written)
        .and_then(|()| fs::rename(&half, &files.outcome))
        .map_err(StageFailure::writing(&files.outcome))
}
