//! Lock files of package managers: which packages they pin, and what each needs.
//!
//! - `uv.lock` (uv), TOML: `[[package]]` with `name`, `version`, `source`, the hashes of `sdist` and
//!   `wheels`, and `dependencies`.
//! - `pixi.lock` (pixi), YAML, versions 4 to 6: entries of `packages` with `conda` or `pypi`, hashes,
//!   and `depends` or `requires_dist`.
//! - conda lock files (conda-lock), YAML: entries of `package` with `name`, `version`, `platform`, `hash`
//!   and `dependencies`.
//! - `requirements.txt` with hashes (pip), which does not say what a package needs.
//!
//! Entries for other platforms count too, so that a key does not depend on the machine.

use std::collections::{BTreeMap, BTreeSet};

use yaml_rust2::{Yaml, YamlLoader};

/// What a lock file says of one package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Locked {
    /// Versions, more than one where platforms differ.
    versions: BTreeSet<String>,
    /// Everything that identifies its files: URLs without hosts' queries, and hashes.
    files: BTreeSet<String>,
    /// The packages that it needs.
    needs: BTreeSet<String>,
}

/// The packages of a lock file, by their normalized names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LockFile(BTreeMap<String, Locked>);

/// What a key has of a lock file that is narrowed to some packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    /// The version of each package.
    pub versions: BTreeMap<String, String>,
    /// A digest of the files of all of them.
    pub digest: String,
}

impl LockFile {
    /// Reads a lock file; its name tells the format.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(name: &str, text: &str) -> Result<Self, String> {
        let lock = if name.ends_with(".lock") && !text.trim_start().starts_with("version: ") {
            uv(text)?
        } else if name.ends_with(".lock") || name.ends_with(".yml") || name.ends_with(".yaml") {
            yaml(text)?
        } else if name.ends_with(".txt") {
            requirements(text)?
        } else {
            return Err("its name does not tell the format: `uv.lock`, `pixi.lock`, `conda-lock.yml` and \
                        `requirements.txt` are known"
                .to_owned());
        };
        if lock.0.is_empty() { Err("it locks no packages".to_owned()) } else { Ok(lock) }
    }

    /// Returns the names of all packages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the pins of some packages and of all that they need.
    ///
    /// # Errors
    /// The first name that it does not lock.
    pub(super) fn narrowed<'n>(&self, names: &'n [String]) -> Result<Pinned, &'n str> {
        let mut open = Vec::new();
        for name in names {
            let normalized = normalized(name);
            if !self.0.contains_key(&normalized) {
                return Err(name);
            }
            open.push(normalized);
        }
        let mut needed: BTreeMap<&str, &Locked> = BTreeMap::new();
        while let Some(name) = open.pop() {
            // What a lock file needs and does not lock is for another platform, or part of the system.
            let Some((name, locked)) = self.0.get_key_value(&name) else { continue };
            if needed.insert(name, locked).is_none() {
                open.extend(locked.needs.iter().cloned());
            }
        }
        let mut hasher = blake3::Hasher::new();
        let mut versions = BTreeMap::new();
        for (name, locked) in needed {
            let all: Vec<&str> = locked.versions.iter().map(String::as_str).collect();
            for text in
                [name].into_iter().chain(all.iter().copied()).chain(locked.files.iter().map(String::as_str))
            {
                hasher.update(text.as_bytes());
                hasher.update(b"\0");
            }
            hasher.update(b"\n");
            versions.insert(name.to_owned(), all.join(", "));
        }
        Ok(Pinned { versions, digest: hasher.finalize().to_hex().to_string() })
    }

    fn add(&mut self, name: &str, version: &str) -> &mut Locked {
        let locked = self.0.entry(normalized(name)).or_default();
        locked.versions.insert(version.to_owned());
        locked
    }
}

/// Normalizes the name of a package, as PEP 503 does.
fn normalized(name: &str) -> String {
    let mut normalized = String::new();
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !normalized.is_empty() {
            normalized.push('-');
        }
        normalized.push_str(&part.to_ascii_lowercase());
    }
    normalized
}

/// Returns the name at the beginning of a requirement such as `numpy>=1.20; python_version < "3.13"`.
fn required(requirement: &str) -> String {
    let end = requirement.find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
    normalized(&requirement[..end.unwrap_or(requirement.len())])
}

fn uv(text: &str) -> Result<LockFile, String> {
    let root: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        format!("it is neither the TOML of uv nor the YAML of pixi: {}", error.message())
    })?;
    let mut lock = LockFile::default();
    let text_of =
        |table: &toml::Value, field: &str| table.get(field).and_then(toml::Value::as_str).map(str::to_owned);
    for package in root.get("package").and_then(toml::Value::as_array).into_iter().flatten() {
        let Some(name) = text_of(package, "name") else { return Err("a `package` has no `name`".to_owned()) };
        let locked = lock.add(&name, &text_of(package, "version").unwrap_or_default());
        let source = package.get("source").and_then(toml::Value::as_table);
        // A package from git or a URL has its revision there.
        for (kind, place) in source.into_iter().flatten().filter(|(kind, _)| *kind != "registry") {
            locked.files.insert(format!("{kind} {}", place.as_str().unwrap_or_default()));
        }
        let wheels = package.get("wheels").and_then(toml::Value::as_array).into_iter().flatten();
        for file in package.get("sdist").into_iter().chain(wheels) {
            let hash = text_of(file, "hash").or_else(|| text_of(file, "url"));
            locked.files.extend(hash);
        }
        let optional = package.get("optional-dependencies").and_then(toml::Value::as_table);
        let lists =
            package.get("dependencies").into_iter().chain(optional.into_iter().flat_map(toml::Table::values));
        let names =
            lists.filter_map(toml::Value::as_array).flatten().filter_map(|needed| text_of(needed, "name"));
        locked.needs.extend(names.map(|name| normalized(&name)));
    }
    Ok(lock)
}

fn yaml(text: &str) -> Result<LockFile, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("it is not YAML: {error}"))?;
    let root = documents.first().ok_or("it is empty")?;
    let mut lock = LockFile::default();
    for package in root["packages"].as_vec().into_iter().flatten() {
        let place = ["conda", "pypi", "url"].into_iter().find_map(|field| package[field].as_str());
        let from_place = place.and_then(conda_file);
        let name = package["name"].as_str().map(str::to_owned).or_else(|| Some(from_place.clone()?.0));
        let Some(name) = name else {
            return Err("a package has neither a `name` nor a file name that begins with it".to_owned());
        };
        let version = scalar(&package["version"]).or_else(|| Some(from_place?.1)).unwrap_or_default();
        let locked = lock.add(&name, &version);
        let hash = ["sha256", "md5"].into_iter().find_map(|field| package[field].as_str());
        locked.files.extend(hash.or(place).map(str::to_owned));
        for field in ["depends", "requires_dist"] {
            let names = package[field].as_vec().into_iter().flatten().filter_map(Yaml::as_str);
            locked.needs.extend(names.map(required));
        }
    }
    for package in root["package"].as_vec().into_iter().flatten() {
        let Some(name) = package["name"].as_str() else { return Err("a package has no `name`".to_owned()) };
        let locked = lock.add(name, &scalar(&package["version"]).unwrap_or_default());
        let hash = &package["hash"];
        let hash = hash["sha256"].as_str().or_else(|| hash["md5"].as_str());
        locked.files.extend(hash.or_else(|| package["url"].as_str()).map(str::to_owned));
        let names = package["dependencies"].as_hash().into_iter().flatten();
        locked.needs.extend(names.filter_map(|(name, _)| name.as_str()).map(normalized));
    }
    Ok(lock)
}

/// Returns a text or a number as text: YAML reads the version 1.10 as a number.
fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(integer) => Some(integer.to_string()),
        _ => None,
    }
}

/// Returns name and version from the file name of a conda package: `NAME-VERSION-BUILD.conda`.
fn conda_file(place: &str) -> Option<(String, String)> {
    let file = place.rsplit('/').next()?;
    let stem = file.strip_suffix(".conda").or_else(|| file.strip_suffix(".tar.bz2"))?;
    let mut parts = stem.rsplitn(3, '-');
    let (_build, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some((name.to_owned(), version.to_owned()))
}

fn requirements(text: &str) -> Result<LockFile, String> {
    let mut lock = LockFile::default();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = without_comment(line).to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            whole.push_str(lines.next().map_or("", |(_, more)| without_comment(more)));
        }
        let whole = whole.trim();
        if whole.is_empty() || whole.starts_with('-') {
            continue;
        }
        let mut words = whole.split_whitespace();
        let pin = words.next().unwrap_or_default();
        let Some((name, version)) = pin.split_once("==") else {
            return Err(format!("line {} does not pin a version with `==`: `{pin}`", number + 1));
        };
        let name = name.split('[').next().unwrap_or(name);
        let hashes: Vec<&str> = words.filter_map(|word| word.strip_prefix("--hash=")).collect();
        if hashes.is_empty() {
            return Err(format!("line {} has no `--hash`: `{pin}`", number + 1));
        }
        let locked = lock.add(name, version.trim_end_matches(';'));
        locked.files.extend(hashes.into_iter().map(str::to_owned));
    }
    Ok(lock)
}

fn without_comment(line: &str) -> &str {
    let end = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
    line[..end.unwrap_or(line.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UV: &str = r#"
version = 1
[[package]]
name = "bert-score"
version = "0.3.13"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "torch" }, { name = "colorama", marker = "sys_platform == 'win32'" }]
sdist = { url = "https://x/b.tar.gz", hash = "sha256:aa" }
wheels = [{ url = "https://x/b.whl", hash = "sha256:bb" }]
[[package]]
name = "torch"
version = "2.11.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/t.whl", hash = "sha256:cc" }]
[[package]]
name = "ruff"
version = "0.9.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/r.whl", hash = "sha256:dd" }]
"#;

    fn pins(name: &str, text: &str, names: &[&str]) -> Pinned {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        LockFile::read(name, text).unwrap().narrowed(&names).unwrap()
    }

    fn versions(pinned: &Pinned) -> Vec<(&str, &str)> {
        pinned.versions.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect()
    }

    #[test]
    fn a_package_brings_what_it_needs() {
        let pinned = pins("uv.lock", UV, &["BERT_Score"]);
        assert_eq!(versions(&pinned), [("bert-score", "0.3.13"), ("torch", "2.11.0")]);
        // What is not needed changes nothing; a file of what is needed changes the digest.
        assert_eq!(pins("uv.lock", &UV.replace("0.9.0", "0.9.1"), &["bert-score"]), pinned);
        let other = pins("uv.lock", &UV.replace("sha256:cc", "sha256:ce"), &["bert-score"]);
        assert_eq!(other.versions, pinned.versions);
        assert_ne!(other.digest, pinned.digest);
    }

    #[test]
    fn pixi_and_conda_are_read() {
        let pixi = "version: 6\nenvironments: {}\npackages:\n\
            - conda: https://conda.anaconda.org/conda-forge/linux-64/numpy-1.26.4-py312h_0.conda\n  sha256: aa\n  \
              depends:\n  - python >=3.12,<3.13.0a0\n\
            - conda: https://conda.anaconda.org/conda-forge/linux-64/python-3.12.3-h_1.conda\n  sha256: bb\n\
            - pypi: https://files.pythonhosted.org/nltk-3.9-py3-none-any.whl\n  name: nltk\n  version: '3.9'\n  \
              sha256: cc\n  requires_dist:\n  - numpy>=1.0 ; python_version >= '3.9'\n";
        let all = [("nltk", "3.9"), ("numpy", "1.26.4"), ("python", "3.12.3")];
        assert_eq!(versions(&pins("pixi.lock", pixi, &["nltk"])), all);
        let conda = "version: 1\nmetadata: {}\npackage:\n\
            - name: numpy\n  version: 1.26.4\n  platform: linux-64\n  dependencies: {python: '>=3.12'}\n  \
              hash: {md5: aa, sha256: bb}\n\
            - name: python\n  version: 3.12\n  platform: linux-64\n  dependencies: {}\n  hash: {md5: cc}\n";
        let pinned = pins("conda-lock.yml", conda, &["numpy"]);
        assert_eq!(versions(&pinned), [("numpy", "1.26.4"), ("python", "3.12")]);
    }

    #[test]
    fn requirements_need_pins_and_hashes() {
        let text = "# by pip-compile\nnltk==3.9 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n\
                    torch[cuda]==2.11.0 --hash=sha256:cc  # big\n";
        assert_eq!(versions(&pins("requirements.txt", text, &["torch"])), [("torch", "2.11.0")]);
        let wrong = |text: &str| LockFile::read("requirements.txt", text).unwrap_err();
        assert_eq!(wrong("nltk>=3"), "line 1 does not pin a version with `==`: `nltk>=3`");
        assert_eq!(wrong("\nnltk==3.9"), "line 2 has no `--hash`: `nltk==3.9`");
        assert_eq!(wrong("# nothing"), "it locks no packages");
    }

    #[test]
    fn a_package_that_is_not_locked_is_named() {
        let lock = LockFile::read("uv.lock", UV).unwrap();
        assert_eq!(lock.narrowed(&["torch".to_owned(), "jax".to_owned()]), Err("jax"));
        assert!(lock.names().eq(["bert-score", "ruff", "torch"]));
        assert!(
            LockFile::read("poetry.toml", UV).unwrap_err().starts_with("its name does not tell the format")
        );
    }
}
