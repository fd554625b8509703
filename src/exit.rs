//! What can stop a command, and the exit code it stops with.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use cache::CacheError;
use engine::{Report, RunError};
use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::terminal;

/// The experiment or the command line is wrong; nothing was run.
pub const WRONG: u8 = 2;
/// A stage failed or was skipped, or a cell of the table is missing.
pub const STAGE: u8 = 3;
/// The cache is corrupt, read-only where it must be written, or cannot be used.
pub const CACHE: u8 = 4;
/// The output could not be written, or the system refused the program something of its own.
pub const IO: u8 = 5;
/// The user stopped it: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Why a command did not do all that was asked.
#[derive(Debug)]
pub enum Stop {
    /// The experiment is wrong: [`WRONG`].
    Experiment(Report),
    /// The command line is wrong: [`WRONG`].
    Usage(String),
    /// A stage failed, or a cell is missing; what and why has been said: [`STAGE`].
    Stage,
    /// The cache is corrupt or cannot be used: [`CACHE`].
    Cache(CacheError),
    /// The cache is corrupt, as has been said: [`CACHE`].
    Damaged,
    /// A stage must run, and the cache takes no results: [`CACHE`].
    ReadOnly(String),
    /// The output could not be written, or the system refused something: [`IO`].
    Io(String),
    /// The user stopped it: [`INTERRUPTED`].
    Interrupted,
    /// Nobody listens any more. Exit code 0, as for `head`.
    Unheard,
}

impl From<CacheError> for Stop {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<Report> for Stop {
    fn from(report: Report) -> Self {
        Self::Experiment(report)
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Cache(error) => Self::Cache(error),
            error @ RunError::ReadOnly { .. } => Self::ReadOnly(error.to_string()),
            error @ RunError::SourceChanged { .. } => {
                Self::Usage(format!("{error}\nhelp: run again when nobody writes to it"))
            }
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Io(format!(
                "failed to write the output: {error}; what was made is kept, and can be printed again"
            )),
        }
    }
}

/// Says what stopped a command and returns its exit code.
pub fn code(result: Result<(), Stop>) -> ExitCode {
    // What is still held back is part of the output, and may be what the disk has no room for.
    let Err(stop) = result.and_then(|()| Ok(terminal::flush()?)) else {
        return ExitCode::SUCCESS;
    };
    match &stop {
        Stop::Experiment(report) => say_report(report),
        Stop::Usage(message) | Stop::Io(message) => say(&format!("error: {message}\n")),
        Stop::Cache(error) => say(&cache_message(error)),
        Stop::ReadOnly(message) => {
            say(&format!("error: {message}\nhelp: use another cache with `--cache FOLDER`\n"));
        }
        Stop::Stage | Stop::Damaged | Stop::Interrupted | Stop::Unheard => {}
    }
    ExitCode::from(match stop {
        Stop::Unheard => 0,
        Stop::Experiment(_) | Stop::Usage(_) => WRONG,
        Stop::Stage => STAGE,
        Stop::Cache(_) | Stop::Damaged | Stop::ReadOnly(_) => CACHE,
        Stop::Io(_) => IO,
        Stop::Interrupted => INTERRUPTED,
    })
}

fn say(text: &str) {
    // Where even the complaint cannot be written, the exit code has to do.
    let _ = terminal::stderr().write_all(text.as_bytes());
}

fn cache_message(error: &CacheError) -> String {
    let mut message = format!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(&format!(": {error}"));
        source = error.source();
    }
    let help = match error {
        _ if error.is_full_disk() => "free space, or use another cache with `--cache FOLDER`",
        CacheError::Format { .. } => "use the program that wrote it, or another cache with `--cache FOLDER`",
        _ if error.is_lost_index() => {
            "run `pipeline cache rebuild`, which makes the index again from the results that are there, \
             or use another cache with `--cache FOLDER`"
        }
        _ if error.is_corruption() => "run `pipeline cache verify --repair`",
        CacheError::InUse { .. } => "wait until it ends",
        CacheError::Absent { .. } => "run the experiment first, or name the cache with `--cache FOLDER`",
        _ => "check the folder, or use another cache with `--cache FOLDER`",
    };
    format!("{message}\nhelp: {help}\n")
}

fn say_report(report: &Report) {
    match terminal::has_colours() {
        // Its colours are escapes of ours, so what is not ours is made printable before.
        true => terminal::say_coloured(&render(report, GraphicalTheme::unicode())),
        false => say(&render(report, GraphicalTheme::unicode_nocolor())),
    }
}

fn render(report: &Report, theme: GraphicalTheme) -> String {
    let handler =
        GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_width(100).with_links(false);
    let mut text = String::new();
    for problem in report.problems() {
        // Rendering into a string fails for no reason that the user could mend.
        let problem = problem.rewritten(&|text| terminal::printable(text).into_owned());
        if handler.render_report(&mut text, &problem).is_err() {
            text.push_str(&format!("error: {problem}\n"));
        }
        text.push('\n');
    }
    let count = report.problems().len();
    let plural = if count == 1 { "problem" } else { "problems" };
    text.push_str(&format!("{count} {plural} in the experiment; nothing was run\n"));
    text
}
