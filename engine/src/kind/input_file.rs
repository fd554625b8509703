//! Files that parameters name: keyed by content, found relative to the text that names them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cache::{SourceState, Value, Visible};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A file or folder that a parameter names, of which only the content is seen.
///
/// In the experiment it is a path, relative to the file that names it, and may begin with
/// `${data}`. In a key it is the digest of its content. While running it is a copy in the cache,
/// made when it was keyed, or else the file itself, compared with its key before and after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputFile {
    path: String,
    /// Where it came from, if it is a copy.
    origin: Option<String>,
}

impl InputFile {
    /// Returns the path to read: as written before planning, as materialized while running.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Returns the path as the experiment leads to it, for messages.
    pub fn origin(&self) -> &Path {
        Path::new(self.origin.as_deref().unwrap_or(&self.path))
    }
}

impl Serialize for InputFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(cache::PATH_TOKEN, &self.path)
    }
}

impl<'de> Deserialize<'de> for InputFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

/// A path as an experiment writes it, or a path and where it came from as a job has them.
struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = InputFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<InputFile, E> {
        Ok(InputFile { path: path.to_owned(), origin: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InputFile, A::Error> {
        let MaterializedPath { path, origin } =
            MaterializedPath::deserialize(MapAccessDeserializer::new(map))
                .map_err(|_| de::Error::invalid_type(de::Unexpected::Map, &"a path"))?;
        Ok(InputFile { path, origin: Some(origin) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaterializedPath {
    #[serde(rename = "$path")]
    path: String,
    #[serde(rename = "$origin")]
    origin: String,
}

/// Writes what [`InputFile`] reads while running.
pub(crate) fn materialized_path(path: &str, origin: &str) -> Value {
    Value::map([("$path", Value::Text(path.to_owned())), ("$origin", Value::Text(origin.to_owned()))])
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

/// A file or folder that is seen with its name and its executable bit, which are part of the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct NamedFile(InputFile);

impl NamedFile {
    /// Returns the path to read, whose last name is the file's own.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path as the experiment leads to it, for messages.
    pub fn origin(&self) -> &Path {
        self.0.origin()
    }
}

impl Serialize for NamedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(cache::NAMED_PATH_TOKEN, &self.0.path)
    }
}

impl JsonSchema for NamedFile {
    fn schema_name() -> Cow<'static, str> {
        "NamedFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A path, relative to this file; may begin with ${data}. Keyed by content, name and executable bit."
        })
    }
}

/// What all files that a plan names were when they were keyed, by path.
#[derive(Debug, Clone, Default)]
pub struct SourceFiles(pub BTreeMap<PathBuf, SourceState>);

impl SourceFiles {
    /// Returns what stands in a key for a file.
    pub(crate) fn value(&self, path: &str, visible: Visible) -> Option<Value> {
        let state = self.0.get(Path::new(path))?;
        let content = Value::Digest(state.digest);
        Some(match visible {
            Visible::Content => content,
            Visible::NameAndContent => {
                let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
                // A folder's listing has the bits of its files.
                let executable = !state.is_folder && state.files.iter().any(|file| file.executable);
                Value::map([
                    ("name", Value::Text(name)),
                    ("content", content),
                    ("executable", Value::Bool(executable)),
                ])
            }
        })
    }
}

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
        None if written.contains("://") => {
            return Err(
                "it is an address: download what is there, and write the path of the file or folder \
                        on this machine"
                    .to_owned(),
            );
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
