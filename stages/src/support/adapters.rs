//! Which model an adapter was learnt beside: kept as a digest in a file of its folder, so that it
//! is never used with another.

use std::path::Path;

use engine::{Input, StageFailure};
use serde::{Deserialize, Serialize};

use crate::support::rows::write_json;

/// The file; adapters from elsewhere do not have it.
const FILE: &str = "base.json";

#[derive(Serialize, Deserialize)]
struct Base {
    /// The digest of the model's folder.
    model: String,
}

/// Writes down which model an adapter was learnt beside.
pub(crate) fn name_base(adapter: &Path, base: &Input) -> Result<(), StageFailure> {
    write_json(&adapter.join(FILE), &Base { model: base.digest.clone() })
}

/// Checks that an adapter was learnt beside a model, where it says so.
pub(crate) fn check_base(adapter: &Path, base: &Input) -> Result<(), StageFailure> {
    let path = adapter.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StageFailure::reading(&path)(error)),
    };
    let named: Base = serde_json::from_str(&text)
        .map_err(|error| StageFailure::caused(format!("read {}", path.display()), error))?;
    if named.model == base.digest {
        return Ok(());
    }
    let failure = StageFailure::new(format!(
        "the adapter was learnt beside another model: its base is {}, and this model is {}",
        named.model, base.digest
    ));
    Err(failure.help("give the model that the adapter's training started from"))
}
