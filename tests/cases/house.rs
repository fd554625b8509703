//! The rules of the code base that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::imports::{circles, imports};
use crate::lab::project;

/// Names, and which others each of them imports.
type Arrows = &'static [(&'static str, &'static [&'static str])];

/// Who may import whom. A new arrow is a design decision in its own commit.
const ARROWS: Arrows = &[
    ("choice", &[]),
    ("chem", &[]),
    ("cache", &[]),
    ("weights", &["choice"]),
    ("corpus", &["choice", "chem"]),
    ("metrics", &["choice", "chem"]),
    ("learn", &["choice", "weights"]),
    ("engine", &["cache", "choice"]),
    ("report", &[]),
    ("stages", &["engine", "corpus", "metrics", "weights", "learn"]),
    ("pipeline", &["stages", "engine", "report", "cache"]),
];

/// Beginnings of words that the engine and the cache must not know.
const FOREIGN: &[&str] = &[
    "tensor",
    "molecul",
    "smiles",
    "caption",
    "llm",
    "perplexity",
    "gradient",
    "bleu",
    "meteor",
    "neural",
    "prompt",
    "logit",
    "chemi",
    "lora",
    "tokenizer",
    "tokeniser",
    "burn",
    "llama",
    "finetun",
    "fine-tun",
    "sentence",
];

/// Crates of which no two files may import each other, directly or through others.
const WITHOUT_CIRCLES: &[&str] = &[
    "cache/src/lib.rs",
    "engine/report/src/lib.rs",
    "engine/src/lib.rs",
    "src/main.rs",
    "stages/chem/src/lib.rs",
    "stages/learn/src/lib.rs",
    "stages/metrics/src/lib.rs",
    "stages/weights/src/lib.rs",
];

/// Which folders of a crate import which others, in the order of the flow. A file beside the folders
/// counts as one. A new arrow is a design decision, as one between crates is.
const FOLDERS: &[(&str, Arrows)] = &[
    (
        "engine/src/lib.rs",
        &[
            ("toml", &[]),
            ("process", &[]),
            ("kind", &["toml", "process"]),
            ("experiment", &["toml", "process", "kind"]),
            ("plan", &["toml", "kind", "experiment"]),
            ("table", &["kind", "experiment", "plan"]),
            ("run", &["process", "kind", "experiment", "plan"]),
            ("inspect", &["plan"]),
            ("testing", &["toml", "process", "kind", "run"]),
        ],
    ),
    (
        "stages/learn/src/lib.rs",
        &[
            ("tensor", &[]),
            ("text", &["tensor"]),
            ("objectives", &[]),
            ("adapters", &[]),
            ("profiling", &["tensor"]),
            ("network", &["tensor", "text"]),
            ("models", &["tensor", "text", "network"]),
            ("model", &["tensor", "text", "adapters", "network", "models"]),
            ("generate", &["tensor", "text", "network", "model"]),
            ("train", &["tensor", "text", "objectives", "profiling", "network", "model"]),
            ("classify", &["tensor", "text", "network", "models"]),
        ],
    ),
];

/// Returns the normal dependencies of every member of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let told = Command::new(cargo).args(arguments).current_dir(project()).output().expect("cargo starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&told.stdout).expect("cargo writes JSON");
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let normal = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = normal.filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().expect("a name").to_owned());
        found.insert(package["name"].as_str().expect("a name").to_owned(), names.collect());
    }
    found
}

/// Returns all files below a folder of the project, as paths from the project.
pub(super) fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            match path.is_dir() {
                true if name == "target" || name.starts_with('.') => {}
                true => folders.push(path),
                false => found.push(path.strip_prefix(project()).expect("inside").to_owned()),
            }
        }
    }
    found.sort();
    found
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

pub(super) fn text(path: impl AsRef<Path>) -> String {
    let path = project().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the Rust files directly in a folder, by name without ending.
fn modules(folder: &str) -> Vec<(String, String)> {
    let direct = rust_files(folder).into_iter().filter(|path| path.parent() == Some(Path::new(folder)));
    let named =
        direct.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), text(&path)));
    named.collect()
}

#[test]
fn imports_go_only_along_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let found = dependencies();
    let mut wrong = Vec::new();
    for (package, dependencies) in &found {
        let Some(allowed) = allowed.get(package.as_str()) else {
            wrong.push(format!("`{package}` has no line in ARROWS"));
            continue;
        };
        for dependency in dependencies.iter().filter(|name| found.contains_key(*name)) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("`{package}` must not import `{dependency}`"));
            }
        }
        if package != "learn" && dependencies.iter().any(|name| name.starts_with("burn")) {
            wrong.push(format!("`{package}` names burn, and only `learn` may"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_import_each_other_in_no_circle() {
    for root in WITHOUT_CIRCLES {
        assert_eq!(circles(&imports(&project().join(root))), Vec::<Vec<String>>::new(), "{root}");
    }
}

#[test]
fn folders_import_only_what_stands_below_them() {
    let folder = |file: &str| file.split('/').next().expect("a name").trim_end_matches(".rs").to_owned();
    for (root, arrows) in FOLDERS {
        let mut between: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, imported) in imports(&project().join(root)) {
            let others = imported.iter().map(|other| folder(other)).filter(|other| *other != folder(&file));
            between.entry(folder(&file)).or_default().extend(others);
        }
        // The root re-exports.
        between.remove("lib");
        let listed = arrows.iter().map(|(name, below)| {
            ((*name).to_owned(), below.iter().map(|below| (*below).to_owned()).collect::<BTreeSet<_>>())
        });
        assert_eq!(
            between,
            listed.collect::<BTreeMap<_, _>>(),
            "{root}: imports on the left, FOLDERS on the right"
        );
        for (at, (name, below)) in arrows.iter().enumerate() {
            let stands_below = |other: &&str| arrows[..at].iter().any(|(before, _)| before == other);
            assert!(below.iter().all(stands_below), "{root}: `{name}` imports what stands above it");
        }
    }
}

#[test]
fn the_engine_and_the_cache_know_nothing_of_learning() {
    let mut wrong = Vec::new();
    for path in ["engine/src", "cache/src"].iter().flat_map(|folder| rust_files(folder)) {
        for (line, written) in text(&path).lines().enumerate() {
            let words = written.to_lowercase();
            let words = words.split(|c: char| !c.is_alphanumeric() && c != '-');
            for word in words.filter(|word| FOREIGN.iter().any(|foreign| word.starts_with(foreign))) {
                wrong.push(format!("{}:{}: {word}", path.display(), line + 1));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_stage_kind_is_entered_and_says_what_it_is() {
    let implemented: BTreeSet<String> = modules("stages/src")
        .into_iter()
        .filter(|(_, text)| text.contains("impl Stage for"))
        .map(|(name, text)| {
            let first = text.lines().next().unwrap_or_default();
            assert!(
                first.starts_with(&format!("//! `kind = \"{name}\"`: ")),
                "stages/src/{name}.rs begins: {first}"
            );
            name
        })
        .collect();
    let entered: BTreeSet<String> = stages::KINDS.iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(implemented, entered, "files on the left, KINDS on the right");
}

#[test]
fn every_model_is_entered_once_and_has_a_row_in_the_manual() {
    let entered: Vec<&str> = stages::known_models().iter().map(|model| model.file).collect();
    let once: BTreeSet<&str> = entered.iter().copied().collect();
    assert_eq!(once.len(), entered.len(), "{entered:?}");
    let files = modules("stages/learn/src/models");
    let files: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(files, once, "files on the left, the list in models.rs on the right");
    let manual = text("docs/stages.md");
    let manual = manual.split("\n## Models\n").nth(1).expect("docs/stages.md has a section `Models`");
    let manual = manual.split("\n## ").next().unwrap_or_default();
    for model in stages::known_models() {
        for name in model.model_type.into_iter().chain([model.architecture]) {
            assert!(
                manual.contains(&format!("`{name}`")),
                "no row of `Models` in docs/stages.md names `{name}`"
            );
        }
    }
}

#[test]
fn every_command_is_entered() {
    let main = text("src/main.rs");
    for (name, text) in modules("src").iter().filter(|(name, _)| name != "main") {
        assert!(main.contains(&format!("mod {name};")), "src/{name}.rs is not entered in main.rs");
        if text.contains("clap::Args)]\npub struct Arguments") {
            assert!(main.contains(&format!("({name}::Arguments)")), "src/{name}.rs is no command in main.rs");
            assert!(main.contains(&format!("=> {name}::run(")), "main.rs does not run src/{name}.rs");
        }
    }
}

#[test]
fn every_kind_and_every_command_is_documented() {
    let mut missing = Vec::new();
    let mut expect = |file: &str, heading: String| {
        if !text(file).lines().any(|line| line.starts_with(&heading)) {
            missing.push(format!("{file} has no heading \"{heading}\""));
        }
    };
    for kind in stages::KINDS {
        expect("docs/stages.md", format!("## `{}`", kind.name()));
    }
    let main = text("src/main.rs");
    for (name, text) in modules("src") {
        let is_hidden = main.lines().collect::<Vec<_>>().windows(2).any(|lines| {
            lines[0].contains("hide = true") && lines[1].contains(&format!("({name}::Arguments)"))
        });
        if text.contains("clap::Args)]\npub struct Arguments") && !is_hidden {
            expect(
                "docs/commands.md",
                format!("## `{}", name.trim_end_matches("_command").replace('_', "-")),
            );
        }
    }
    let readme = text("README.md");
    let links = ["docs/commands.md", "docs/stages.md"].into_iter().filter(|link| !readme.contains(link));
    missing.extend(links.map(|link| format!("README.md does not lead to {link}")));
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Put together here, or this file would be the first to break the rule.
    let words =
        [["to", "do!"], ["unimple", "mented!"], ["#[ig", "nore"], ["#[should", "_panic"], ["db", "g!("]];
    let words = words.map(|parts| parts.concat());
    let mut wrong = Vec::new();
    for path in rust_files(".") {
        for (line, written) in text(&path).lines().enumerate() {
            if words.iter().any(|word| written.contains(word)) {
                wrong.push(format!("{}:{}: {}", path.display(), line + 1, written.trim()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_file_is_too_long() {
    let most = 700;
    let is_test = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "tests");
    let mut wrong = Vec::new();
    for path in rust_files(".").into_iter().filter(|path| !is_test(path)) {
        let text = text(&path);
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        if lines > most {
            wrong.push(format!("{}: {lines} lines before its tests", path.display()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "at most {most}");
}
