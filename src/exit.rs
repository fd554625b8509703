//! What can stop a command, and the exit code it stops with.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use cache::CacheError;
use engine::{Report, RunError};
use miette::{GraphicalReportHandler, GraphicalTheme};

/// Why a command did not do all that was asked.
#[derive(Debug)]
pub enum Stop {
    /// The experiment is wrong. Exit code 2.
    Experiment(Report),
    /// The command line is wrong. Exit code 2.
    Usage(String),
    /// A stage failed, or a cell is missing; what and why has been said. Exit code 3.
    Stage,
    /// The cache is damaged or cannot be used. Exit code 4.
    Cache(CacheError),
    /// The cache is damaged, as has been said. Exit code 4.
    Damaged,
    /// A stage must run, and the cache takes no results. Exit code 4.
    ReadOnly(String),
    /// The user stopped it. Exit code 130.
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
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Usage(format!("failed to write the result: {error}")),
        }
    }
}

/// Says what stopped a command and returns its exit code.
pub fn code(result: Result<(), Stop>) -> ExitCode {
    let Err(stop) = result else {
        return ExitCode::SUCCESS;
    };
    match &stop {
        Stop::Experiment(report) => say(&render(report)),
        Stop::Usage(message) => say(&format!("error: {message}\n")),
        Stop::Cache(error) => say(&cache_message(error)),
        Stop::ReadOnly(message) => {
            say(&format!("error: {message}\nhelp: use another cache with `--cache FOLDER`\n"));
        }
        Stop::Stage | Stop::Damaged | Stop::Interrupted | Stop::Unheard => {}
    }
    ExitCode::from(match stop {
        Stop::Unheard => 0,
        Stop::Experiment(_) | Stop::Usage(_) => 2,
        Stop::Stage => 3,
        Stop::Cache(_) | Stop::Damaged | Stop::ReadOnly(_) => 4,
        Stop::Interrupted => 130,
    })
}

fn say(text: &str) {
    // Where even the complaint cannot be written, the exit code has to do.
    let _ = io::stderr().write_all(text.as_bytes());
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
        _ if error.is_damage() => "run `pipeline cache verify --repair`",
        CacheError::InUse { .. } => "wait until it ends",
        CacheError::Absent { .. } => "run the experiment first, or name the cache with `--cache FOLDER`",
        _ => "check the folder, or use another cache with `--cache FOLDER`",
    };
    format!("{message}\nhelp: {help}\n")
}

fn render(report: &Report) -> String {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_width(100).with_links(false);
    let mut text = String::new();
    for problem in report.problems() {
        // Rendering into a string fails for no reason that the user could mend.
        if handler.render_report(&mut text, problem).is_err() {
            text.push_str(&format!("error: {problem}\n"));
        }
        text.push('\n');
    }
    let count = report.problems().len();
    let plural = if count == 1 { "problem" } else { "problems" };
    text.push_str(&format!("{count} {plural} in the experiment; nothing was run\n"));
    text
}
