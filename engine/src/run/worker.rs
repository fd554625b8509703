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
use crate::kind::failure::Failure;
use crate::kind::stage::{Isolation, Kind};
use crate::process::cancel::Cancel;
use crate::process::job::{Job, Outcome, Progress, Reason};
use crate::process::program::{Ended, ProcessOptions};

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

/// Runs a job with the isolation of its kind. `worker` is the command line that becomes a worker when
/// the path of a job is added to it.
pub(crate) fn run_job(
    job: &Job,
    kind: &Kind,
    worker: &[OsString],
    log: File,
    on_progress: Box<dyn FnMut(Progress) + Send>,
    cancel: &Cancel,
) -> Outcome {
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
) -> Outcome {
    let mut context = Context::new(job.clone(), log, on_progress, cancel.clone());
    match catch_unwind(AssertUnwindSafe(|| kind.run(job, &mut context))) {
        Ok(Ok(())) => Outcome::Done { notes: context.into_notes() },
        Ok(Err(failure)) => {
            context.log(format_args!("error: {failure}"));
            failed(&failure)
        }
        Err(panic) => {
            let message = format!("the stage kind `{}` has a bug: {}", kind.name(), panic_message(&*panic));
            context.log(&message);
            Outcome::Failed { reason: Reason::Failed, message, help: Some("please report it".to_owned()) }
        }
    }
}

fn failed(failure: &Failure) -> Outcome {
    Outcome::Failed {
        reason: failure.ended().map_or(Reason::Failed, reason_of),
        message: failure.message().to_owned(),
        help: failure.advice().map(str::to_owned),
    }
}

fn reason_of(ended: &Ended) -> Reason {
    match ended {
        Ended::Well => Reason::Failed,
        Ended::Exit(_) => Reason::Exited,
        Ended::Signal(_) => Reason::Killed,
        Ended::TimedOut(_) => Reason::TimedOut,
        Ended::Interrupted => Reason::Interrupted,
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
) -> Outcome {
    let files = JobFiles::beside(&job.scratch);
    let broken = |message: String| Outcome::Failed { reason: Reason::Failed, message, help: None };
    let Some((program, arguments)) = worker.split_first() else {
        return broken("there is no worker program to start".to_owned());
    };
    let text = serde_json::to_vec(job).expect("a job is plain data");
    if let Err(error) = fs::write(&files.job, text) {
        return broken(format!("failed to write {}: {error}", files.job.display()));
    }
    let mut command = Command::new(program);
    // The worker ends when this pipe closes, which is when the coordinator is gone.
    command.args(arguments).arg(&files.job).stdin(Stdio::piped());
    let mut lines = |line: &str| {
        if let Ok(progress) = serde_json::from_str(line) {
            on_progress(progress);
        }
    };
    let options = ProcessOptions { log, lines: Some(&mut lines), timeout: job.timeout(), confined_to: None };
    let ended = match options.run(&mut command, cancel) {
        Ok(ended) => ended,
        Err(error) => return broken(format!("failed to {}: {}", error.message, error.source)),
    };
    let reported = fs::read(&files.outcome).ok().and_then(|text| serde_json::from_slice(&text).ok());
    match (reported, &ended) {
        (Some(outcome), Ended::Well) => outcome,
        (_, ended) => Outcome::Failed {
            reason: reason_of(ended),
            message: format!("the worker process {ended}"),
            help: match ended {
                Ended::Signal(9) => Some(MORE_ROOM.to_owned()),
                // How a program ends that is refused memory; Rust's says so in its last line.
                Ended::Signal(6) => Some(format!(
                    "if the end of its log says that a memory allocation failed, memory ran out: {MORE_ROOM}"
                )),
                _ => None,
            },
        },
    }
}

/// Is a worker: runs the job that a file describes and writes its outcome beside it.
///
/// # Errors
/// What is wrong with the job's file, or with writing the outcome.
pub fn run_worker(job_file: &Path, kinds: &[Kind]) -> Result<(), Failure> {
    let text = fs::read(job_file).map_err(Failure::reading(job_file))?;
    let job: Job = serde_json::from_slice(&text)
        .map_err(|error| Failure::caused("read the job's description", error))?;
    let Some(kind) = kinds.iter().find(|kind| kind.name() == job.kind) else {
        return Err(Failure::new(format!("this program has no stage kind `{}`", job.kind)));
    };
    let exit_with_the_run = || {
        let mut nothing = [0; 64];
        while matches!(io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(130);
    };
    std::thread::Builder::new()
        .spawn(exit_with_the_run)
        .map_err(|error| Failure::caused("make a thread", error))?;
    let errors = io::stderr().as_fd().try_clone_to_owned();
    let log = errors.map(File::from).map_err(|error| Failure::caused("open the log", error))?;
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
        .map_err(Failure::writing(&files.outcome))
}
