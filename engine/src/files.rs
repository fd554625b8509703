//! Files that parameters name: keyed by content, found relative to the text that names them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cache::Digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// A file or folder that a parameter names.
///
/// In the experiment it is a path, relative to the file that names it, and may begin with
/// `${data}`. In a key it is the digest of its content. While running it is absolute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct InputFile(String);

impl InputFile {
    /// Returns the path as it stands: as written before planning, absolute while running.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Serialize for InputFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(cache::PATH_TOKEN, &self.0)
    }
}

impl JsonSchema for InputFile {
    fn schema_name() -> Cow<'static, str> {
        "InputFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A path, relative to this file; may begin with ${data}. Keyed by content."
        })
    }
}

/// The digests of all files that a plan names, by absolute path.
#[derive(Debug, Clone, Default)]
pub struct FileDigests(pub BTreeMap<PathBuf, Digest>);

/// Makes a written path absolute, or says which variable is not set.
pub(crate) fn absolute(written: &str, folder: &Path, data: Option<&Path>) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    let rest = match written.strip_prefix("${") {
        Some(after) => {
            let Some((name, rest)) = after.split_once('}') else {
                return Err("`${` has no `}`".to_owned());
            };
            if name != "data" {
                return Err(format!("there is no variable `${{{name}}}`, only `${{data}}`"));
            }
            path.push(data.ok_or("`${data}` is not set: give `--data FOLDER` or set `PIPELINE_DATA`")?);
            rest.trim_start_matches('/')
        }
        None => {
            path.push(folder);
            written
        }
    };
    if !rest.is_empty() {
        path.push(rest);
    }
    Ok(tidy(&path))
}

/// Takes `.` and `x/..` out of a path by its text alone.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut parts: Vec<std::path::Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (std::path::Component::CurDir, _) => {}
            (std::path::Component::ParentDir, Some(std::path::Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_from_the_file_or_from_the_data() {
        let folder = Path::new("/exp/deep");
        assert_eq!(absolute("../a.txt", folder, None), Ok(PathBuf::from("/exp/a.txt")));
        assert_eq!(absolute("/b", folder, None), Ok(PathBuf::from("/b")));
        assert_eq!(absolute("${data}/c", folder, Some(Path::new("/d"))), Ok(PathBuf::from("/d/c")));
        assert!(absolute("${data}/c", folder, None).unwrap_err().contains("--data"));
        assert!(absolute("${dta}/c", folder, None).unwrap_err().contains("${dta}"));
    }
}
