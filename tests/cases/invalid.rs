//! What is wrong with an experiment is said of its characters: one file per broken rule.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::lab::{Lab, Told, project};

fn folder() -> PathBuf {
    project().join("tests/experiments/invalid")
}

fn snapshots() -> PathBuf {
    project().join("tests/golden/invalid")
}

/// Returns the names of the files with an ending directly in a folder, without it.
fn names(folder: PathBuf, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

/// Plans a file in its own folder. A first line `# arguments: …` adds to the command line.
fn plan(lab: &Lab, name: &str) -> Told {
    let file = format!("{name}.toml");
    let text = fs::read_to_string(folder().join(&file)).expect("the file was just listed");
    let first = text.lines().next().unwrap_or_default();
    let more = first.strip_prefix("# arguments: ").unwrap_or_default();
    let arguments = ["plan", &file].into_iter().chain(more.split_whitespace());
    Told::of(lab.command(arguments).current_dir(folder()).output().expect("the binary starts"))
}

#[test]
fn every_broken_rule_is_reported_where_it_is_broken() {
    let lab = Lab::new();
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(snapshots());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut different = Vec::new();
    for name in names(folder(), ".toml") {
        let told = plan(&lab, &name);
        let report = format!("exit code {}\n{}{}", told.code, told.stdout, told.stderr);
        // All files are compared before the test fails, so that one run shows all that moved.
        let compared = catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_snapshot!(name.as_str(), report));
        }));
        if compared.is_err() {
            different.push(name);
        } else {
            assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{name}:\n{report}");
        }
    }
    assert!(different.is_empty(), "these reports are not as their snapshots say: {different:?}");
}

#[test]
fn every_file_has_a_snapshot_and_every_snapshot_a_file() {
    let files = names(folder(), ".toml");
    assert!(files.len() >= 25, "only {} files", files.len());
    assert_eq!(files, names(snapshots(), ".snap"), "files on the left, snapshots on the right");
}
