//! `pipeline import-mergekit`: a recipe of mergekit as stages of an experiment.

use std::io::Write as _;
use std::path::PathBuf;

use crate::exit::Stop;
use crate::house::read_text;
use crate::terminal;

/// Write a recipe of mergekit as stages of an experiment.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The recipe, a YAML file.
    file: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let file = arguments.file.display();
    let recipe =
        read_text(&arguments.file).map_err(|error| Stop::Usage(format!("cannot read {file}: {error}")))?;
    let stages = stages::import_mergekit(&recipe).map_err(|what| Stop::Usage(format!("{file}: {what}")))?;
    Ok(write!(terminal::data(), "{stages}")?)
}
