//! Checks that a stage made what it promised.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use cache::{CacheError, Links, open_regular};

use crate::kind::failure::StageFailure;
use crate::kind::metrics_file::{METRICS_FILE, read_metric};
use crate::kind::name::output_folder;
use crate::kind::ports::OutputPort;

/// The largest `metrics.json` that is read.
const MOST_METRICS_BYTES: u64 = 64 << 20;

/// Checks that a stage made what it promised, and nothing else.
pub(crate) fn check_outputs(declared: &[OutputPort], scratch: &Path) -> Result<(), StageFailure> {
    let outputs = scratch.join("outputs");
    // Keeping moves files, so a link in place of a folder would empty what it points to.
    let names = declared.iter().map(|output| format!("outputs/{}", output.name));
    for place in std::iter::once("outputs".to_owned()).chain(names) {
        if scratch.join(&place).is_symlink() {
            return Err(StageFailure::new(format!("it put a link in place of the folder `{place}`")));
        }
    }
    for entry in fs::read_dir(&outputs).map_err(StageFailure::io("list", &outputs))?.flatten() {
        let name = entry.file_name();
        let is_declared = declared.iter().any(|output| name.to_str() == Some(&*output.name));
        if !is_declared {
            let message = format!("it wrote `outputs/{}`, which is not one of its outputs", name.display());
            return Err(StageFailure::new(message).help("declare it as an output, or write to `tmp/`"));
        }
    }
    for output in declared {
        let folder = scratch.join(output_folder(&output.name));
        if !has_files(&folder) {
            let message = format!("it succeeded but wrote nothing to `outputs/{}`", output.name);
            return Err(StageFailure::new(message).help("an output is a folder with at least one file"));
        }
        if output.columns.is_empty() {
            continue;
        }
        let file = folder.join(METRICS_FILE);
        let text = read_metrics(&file).map_err(|problem| {
            StageFailure::new(format!(
                "it promised numbers for a table, but `outputs/{}/{METRICS_FILE}`: {problem}",
                output.name
            ))
        })?;
        let metrics: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
            StageFailure::new(format!("`outputs/{}/{METRICS_FILE}` is not JSON: {error}", output.name))
        })?;
        for column in output.columns.iter().map(|column| column.name.as_str()) {
            let is_missing_with_reason = metrics.get(column).and_then(|value| value.get("missing")).is_some();
            if let (Err(problem), false) = (read_metric(&metrics, column), is_missing_with_reason) {
                return Err(StageFailure::new(format!("it promised the column `{column}`, but {problem}")));
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
