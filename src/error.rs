//! Why a command failed, how that is printed, and with which exit code the program ends.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cache::CacheError;
use engine::{Report, RunError, with_causes};
use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::{exit_code, terminal};

/// Why a command failed, or ended early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The experiment is wrong.
    Experiment(Report),
    /// The command line is wrong.
    Usage(String),
    /// A file that the command line or the experiment names is wrong.
    Input(String),
    /// A result that was asked for has not been made.
    NotMade(String),
    /// A stage failed, or a cell of the table is missing. The details are printed already.
    Stage,
    /// The cache is corrupt or cannot be used.
    Cache(CacheError),
    /// The cache is corrupt. The details are printed already.
    CorruptCache,
    /// A stage must run, but the cache is read-only.
    ReadOnly(String),
    /// The program could not read, write or start something.
    Io(String),
    /// The user interrupted the run.
    Interrupted,
    /// The reader of the output has closed it, as `head` does. This is no failure.
    OutputClosed,
}

impl CliError {
    /// A file that the command line names could not be read. That it is missing, or is no text file,
    /// is the user's mistake; anything else is the system's failure.
    pub(crate) fn reading(path: &Path, error: &io::Error) -> Self {
        let message = format!("failed to read {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData => Self::Input(message),
            _ => Self::Io(message),
        }
    }

    /// Something else failed: `action` says what, as a verb and its object.
    pub(crate) fn failed(action: &str, error: &io::Error) -> Self {
        Self::Io(format!("failed to {action}: {error}"))
    }

    /// Returns the exit code for the error.
    fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => exit_code::SUCCESS,
            Self::Experiment(_) | Self::Usage(_) | Self::Input(_) | Self::NotMade(_) => exit_code::INPUT,
            Self::Stage => exit_code::STAGE,
            Self::Cache(_) | Self::CorruptCache | Self::ReadOnly(_) => exit_code::CACHE,
            Self::Io(_) => exit_code::IO,
            Self::Interrupted => exit_code::INTERRUPTED,
        }
    }
}

impl From<CacheError> for CliError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<Report> for CliError {
    fn from(report: Report) -> Self {
        Self::Experiment(report)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Cache(error) => Self::Cache(error),
            error @ RunError::ReadOnly { .. } => Self::ReadOnly(error.to_string()),
            error @ RunError::SourceChanged { .. } => {
                Self::Input(format!("{error}\nhelp: run again when no process writes to it"))
            }
        }
    }
}

/// Writes to the output are the only operations whose errors are converted without more words.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io(format!(
                "failed to write the output: {error}; finished results are kept and can be printed again"
            )),
        }
    }
}

/// Prints why a command failed, if it did, and returns the exit code.
pub(crate) fn report(result: Result<(), CliError>) -> ExitCode {
    // Flushing may fail as well, for example on a full disk.
    let Err(error) = result.and_then(|()| Ok(terminal::flush()?)) else {
        return ExitCode::from(exit_code::SUCCESS);
    };
    match &error {
        CliError::Experiment(report) => print_report(report),
        CliError::Usage(message)
        | CliError::Input(message)
        | CliError::NotMade(message)
        | CliError::Io(message) => print(&format!("error: {message}\n")),
        CliError::Cache(error) => print(&cache_message(error)),
        CliError::ReadOnly(message) => {
            print(&format!("error: {message}\nhelp: use another cache with `--cache FOLDER`\n"));
        }
        CliError::Stage | CliError::CorruptCache | CliError::Interrupted | CliError::OutputClosed => {}
    }
    ExitCode::from(error.exit_code())
}

fn print(text: &str) {
    // If even the message cannot be written, only the exit code is left.
    let _ = terminal::stderr().write_all(text.as_bytes());
}

fn cache_message(error: &CacheError) -> String {
    let help = match error {
        _ if error.is_full_disk() => "free space, or use another cache with `--cache FOLDER`",
        CacheError::Format { .. } => "use the program that wrote it, or another cache with `--cache FOLDER`",
        _ if error.is_lost_index() => {
            "run `pipeline cache rebuild` to rebuild the index from the records of results, or use another cache \
             with `--cache FOLDER`"
        }
        _ if error.is_corruption() => "run `pipeline cache verify --repair`",
        CacheError::InUse { .. } => "wait until the other process ends",
        CacheError::Absent { .. } => "run the experiment first, or name the cache with `--cache FOLDER`",
        _ => "check the folder, or use another cache with `--cache FOLDER`",
    };
    format!("error: {}\nhelp: {help}\n", with_causes(error))
}

fn print_report(report: &Report) {
    if terminal::has_colours() {
        // The colours are escape sequences, so text from the experiment is made printable before.
        terminal::print_coloured(&render(report, GraphicalTheme::unicode()));
    } else {
        print(&render(report, GraphicalTheme::unicode_nocolor()));
    }
}

fn render(report: &Report, theme: GraphicalTheme) -> String {
    let handler =
        GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_width(100).with_links(false);
    let mut text = String::new();
    for problem in report.diagnostics() {
        // Rendering into a string does not fail for a reason that the user could act on.
        let problem = problem.rewritten(&|text| terminal::printable(text).into_owned());
        if handler.render_report(&mut text, &problem).is_err() {
            text.push_str(&format!("error: {problem}\n"));
        }
        text.push('\n');
    }
    let count = report.diagnostics().len();
    let plural = if count == 1 { "problem" } else { "problems" };
    text.push_str(&format!("{count} {plural} in the experiment; nothing was run\n"));
    text
}
