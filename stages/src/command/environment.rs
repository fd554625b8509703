//! What a program runs in: the packages that a lock file pins, or a container by its digest.
//!
//! Both are part of the key. A lock file says what the environment is meant to be; nobody installs it
//! here. A container is run by apptainer or podman, whichever is there, and sees the stage's folder and
//! nothing else of the machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use engine::{FieldError, InputFile, StageFailure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::lock_file::LockFile;

/// What a program runs in.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Environment {
    /// A lock file, keyed whole: `uv.lock`, `pixi.lock`, `conda-lock.yml` or `requirements.txt` with hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<InputFile>,
    /// The packages of the lock file that matter, and with them what they need. Only their versions
    /// and hashes are then keyed.
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    packages: Packages,
    /// An image and its digest, `NAME@sha256:DIGEST`, in which apptainer or podman runs the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

/// Versions by package, with a digest of their files: what stands in a plan for a list of names.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packages {
    versions: BTreeMap<String, String>,
    digest: String,
}

impl Packages {
    fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}

impl JsonSchema for Packages {
    fn schema_name() -> Cow<'static, str> {
        "Packages".into()
    }
    // As it is written, before the lock file is read.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

/// Puts what a lock file says of some packages in the place of the file and their names.
///
/// # Errors
/// What is wrong with the field, with the lock file, or with a name.
pub(super) fn read_lock_file(
    written: &serde_json::Value,
    read: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Option<serde_json::Value>, FieldError> {
    let Some(packages) = written.get("packages") else { return Ok(None) };
    let names: Option<Vec<String>> = packages
        .as_array()
        .map(|names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect());
    let all = packages.as_array().map_or(0, Vec::len);
    let Some(names) = names.filter(|names| names.len() == all && all > 0) else {
        return Err(FieldError::new("packages", "`packages` is a list of names of packages, at least one"));
    };
    let Some(lock) = written.get("lock").and_then(serde_json::Value::as_str) else {
        return Err(FieldError::new("packages", "`packages` are those of a lock file, and there is none")
            .help("write `lock = \"uv.lock\"` beside it"));
    };
    let text = read(lock).map_err(|error| {
        FieldError::new("lock", error).help("check the path, which starts from this file's folder")
    })?;
    let file_name = lock.rsplit('/').next().unwrap_or(lock);
    let lock_file = LockFile::read(file_name, &text).map_err(|error| {
        FieldError::new("lock", format!("failed to read the lock file `{lock}`: {error}"))
    })?;
    let pinned = lock_file.narrowed(&names).map_err(|name| {
        let position = names.iter().position(|other| other == name).unwrap_or_default();
        let message = format!("the lock file `{lock}` has no package `{name}`");
        FieldError::at("packages", position, message).help(nearest(name, &lock_file))
    })?;
    let mut planned = written.clone();
    let fields = planned.as_object_mut().expect("it has fields");
    fields.remove("lock");
    let packages = Packages { versions: pinned.versions, digest: pinned.digest };
    fields.insert("packages".to_owned(), serde_json::to_value(packages).expect("plain data"));
    Ok(Some(planned))
}

/// Names some packages that a lock file has.
fn nearest(name: &str, lock_file: &LockFile) -> String {
    let first = |text: &str| text.chars().next().map(|c| c.to_ascii_lowercase());
    let mut alike: Vec<&str> = lock_file.names().filter(|other| first(other) == first(name)).collect();
    if alike.is_empty() {
        alike = lock_file.names().collect();
    }
    let rest = alike.len().saturating_sub(8);
    alike.truncate(8);
    let names: Vec<String> = alike.into_iter().map(|name| format!("`{name}`")).collect();
    match rest {
        0 => format!("it has {}", names.join(", ")),
        rest => format!("it has {}, and {rest} more", names.join(", ")),
    }
}

impl Environment {
    /// Checks what the types do not promise.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        if let Some(lock) = &self.lock
            && let Some(name) = lock.path().file_name().and_then(|name| name.to_str())
            && ![".lock", ".yml", ".yaml", ".txt"].iter().any(|ending| name.ends_with(ending))
        {
            let message = format!("`{name}` is no lock file that is known");
            return Err(FieldError::new("lock", message)
                .help("`uv.lock`, `pixi.lock`, `conda-lock.yml` and `requirements.txt` are known"));
        }
        if let Some(container) = &self.container {
            let digest = container.rsplit_once("@sha256:").map(|(image, digest)| (image, digest.trim()));
            let is_whole = |(image, digest): (&str, &str)| {
                !image.is_empty() && digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit())
            };
            if !digest.is_some_and(is_whole) {
                let message = format!("`{container}` does not name a container by its digest");
                return Err(FieldError::new("container", message).help(
                    "write `NAME@sha256:DIGEST`, as `podman image inspect --format {{.Digest}}` prints it: \
                     a tag may name another image tomorrow",
                ));
            }
        }
        Ok(())
    }

    /// Returns the container's image, without the name of a registry's protocol.
    pub(super) fn image(&self) -> Option<&str> {
        let container = self.container.as_deref()?;
        Some(container.strip_prefix("docker://").unwrap_or(container))
    }
}

/// A program that runs containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContainerRunner {
    Apptainer(PathBuf),
    Podman(PathBuf),
}

impl ContainerRunner {
    /// Finds one on the search path, apptainer first: it needs no daemon and no storage of its own.
    ///
    /// # Errors
    /// [`StageFailure`] if there is none.
    pub(super) fn find(image: &str) -> Result<Self, StageFailure> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
        let at = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        at("apptainer").map(Self::Apptainer).or_else(|| at("podman").map(Self::Podman)).ok_or_else(|| {
            StageFailure::new(format!(
                "its container `{image}` cannot be run: there is neither apptainer nor podman"
            ))
            .help("install one of them, or take `container` out")
        })
    }

    /// Returns the program and arguments that run others in a container, which sees a folder: its
    /// inputs and files cannot be written there. The inputs are links into the cache, and what they
    /// lead to is seen as well.
    pub(super) fn wrap(
        &self,
        image: &str,
        folder: &Path,
        environment: &[(String, OsString)],
        arguments: Vec<OsString>,
    ) -> Vec<OsString> {
        let bound = |folder: &Path, options: &str| {
            let mut bound = folder.as_os_str().to_owned();
            bound.push(":");
            bound.push(folder);
            bound.push(options);
            bound
        };
        let inputs = folder.join("inputs");
        let mut read_only: Vec<PathBuf> =
            [inputs.clone(), folder.join("files")].into_iter().filter(|path| path.is_dir()).collect();
        let mut targets = Vec::new();
        list_targets(&inputs, &mut targets);
        read_only.extend(common_folder(&targets));
        let (program, first, bind, workdir): (_, &[&str], _, _) = match self {
            Self::Apptainer(program) => {
                (program, &["exec", "--containall", "--cleanenv", "--no-home"], "--bind", "--pwd")
            }
            Self::Podman(program) => (
                program,
                &["run", "--rm", "--network=none", "--user=0:0", "--entrypoint="],
                "--volume",
                "--workdir",
            ),
        };
        let mut all: Vec<OsString> = vec![program.into()];
        all.extend(first.iter().map(OsString::from));
        all.extend([OsString::from(bind), bound(folder, "")]);
        for path in read_only {
            all.extend([OsString::from(bind), bound(&path, ":ro")]);
        }
        all.extend([OsString::from(workdir), folder.into()]);
        for (name, value) in environment {
            let mut variable = OsString::from(format!("{name}="));
            variable.push(value);
            all.extend([OsString::from("--env"), variable]);
        }
        all.push(match self {
            Self::Apptainer(_) => format!("docker://{image}").into(),
            Self::Podman(_) => image.into(),
        });
        all.extend(arguments);
        all
    }
}

/// Lists what the links in a folder lead to.
fn list_targets(folder: &Path, targets: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(file_type) if file_type.is_symlink() => targets.extend(fs::read_link(&path)),
            Ok(file_type) if file_type.is_dir() => list_targets(&path, targets),
            _ => {}
        }
    }
}

/// Returns the deepest folder that all paths are in, if there are any.
fn common_folder(paths: &[PathBuf]) -> Option<PathBuf> {
    let mut common = paths.first()?.parent()?.to_owned();
    while !paths.iter().all(|path| path.starts_with(&common)) {
        common.pop();
    }
    Some(common)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOCK: &str = "nltk==3.9 --hash=sha256:aa\ntorch==2.11.0 --hash=sha256:cc\n";

    fn read(written: serde_json::Value) -> Result<Option<serde_json::Value>, FieldError> {
        read_lock_file(&written, &|path| {
            if path.ends_with("requirements.txt") { Ok(LOCK.to_owned()) } else { Err(format!("no `{path}`")) }
        })
    }

    #[test]
    fn versions_stand_in_the_place_of_a_lock_file() {
        let planned = read(json!({ "lock": "env/requirements.txt", "packages": ["nltk"] })).unwrap().unwrap();
        assert_eq!(planned["packages"]["versions"], json!({ "nltk": "3.9" }));
        assert_eq!(planned.get("lock"), None);
        let environment: Environment = serde_json::from_value(planned).unwrap();
        assert_eq!(environment.check(), Ok(()));
        assert_eq!(read(json!({ "lock": "env/requirements.txt" })), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |written: serde_json::Value| read(written).unwrap_err().path;
        assert_eq!(path(json!({ "packages": ["nltk"] })), "packages");
        assert_eq!(path(json!({ "lock": "requirements.txt", "packages": ["torch", "jax"] })), "packages[1]");
        assert_eq!(path(json!({ "lock": "requirements.txt", "packages": [] })), "packages");
        assert_eq!(path(json!({ "lock": "uv.lock", "packages": ["nltk"] })), "lock");
        let environment = |text: &str| -> Environment { toml::from_str(text).unwrap() };
        assert_eq!(environment("lock = 'environment.json'").check().unwrap_err().path, "lock");
        for container in ["", "python:3.12", "python@sha256:abc"] {
            let error = environment(&format!("container = '{container}'")).check().unwrap_err();
            assert_eq!(error.path, "container");
        }
    }

    #[test]
    fn a_container_sees_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inputs")).unwrap();
        for (name, blob) in [("a", "/cache/blobs/ab/abc"), ("b", "/cache/blobs/cd/cde")] {
            std::os::unix::fs::symlink(blob, folder.path().join("inputs").join(name)).unwrap();
        }
        let variables = [("PARAM_a".to_owned(), OsString::from("b c"))];
        let of = |runner: ContainerRunner| -> Vec<String> {
            let all = runner.wrap("python@sha256:00", folder.path(), &variables, vec!["true".into()]);
            all.into_iter().map(|argument| argument.into_string().unwrap()).collect()
        };
        let (at, inputs) = (folder.path().display(), folder.path().join("inputs").display().to_string());
        let podman = of(ContainerRunner::Podman("podman".into()));
        let expected = format!("podman run --rm --network=none --user=0:0 --entrypoint= --volume {at}:{at}");
        assert_eq!(podman[..8].join(" "), expected);
        assert!(
            podman.contains(&format!("{inputs}:{inputs}:ro")) && podman.contains(&"PARAM_a=b c".to_owned())
        );
        assert_eq!(podman[podman.len() - 2..], ["python@sha256:00", "true"]);
        assert!(podman.contains(&"/cache/blobs:/cache/blobs:ro".to_owned()), "{podman:?}");
        let apptainer = of(ContainerRunner::Apptainer("apptainer".into()));
        assert_eq!(apptainer[apptainer.len() - 2..], ["docker://python@sha256:00", "true"]);
    }
}
