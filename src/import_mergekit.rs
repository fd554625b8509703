//! `pipeline import-mergekit`: a recipe of mergekit as stages of an experiment.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::exit::Stop;

/// Write a recipe of mergekit as stages of an experiment.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The recipe, a YAML file.
    file: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let file = arguments.file.display();
    let recipe = fs::read_to_string(&arguments.file)
        .map_err(|error| Stop::Usage(format!("cannot read {file}: {error}")))?;
    let stages = stages::import_mergekit(&recipe).map_err(|what| Stop::Usage(format!("{file}: {what}")))?;
    Ok(write!(io::stdout().lock(), "{stages}")?)
}
