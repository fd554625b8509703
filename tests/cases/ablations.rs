//! Ablations of the shipped experiments as a researcher writes them: each a file of a few lines, with
//! what is planned and what the table has.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::lab::{Lab, Told, project};

fn folder() -> PathBuf {
    project().join("tests/experiments/ablations")
}

fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    entries.filter_map(|name| name.to_string_lossy().strip_suffix(".toml").map(str::to_owned)).collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.toml"))).expect("the file was just listed")
}

/// Calls a command for a file in its own folder. A line `# arguments: …` adds to the command line.
fn call(lab: &Lab, command: &str, name: &str) -> Told {
    let (file, text) = (format!("{name}.toml"), text(name));
    let more = text.lines().find_map(|line| line.strip_prefix("# arguments: ")).unwrap_or_default();
    let arguments = [command, &file].into_iter().chain(more.split_whitespace());
    Told::of(lab.command(arguments).current_dir(folder()).output().expect("the binary starts"))
}

#[test]
fn every_ablation_plans_what_it_says() {
    let lab = Lab::with("[stages.a]\nkind = 'command'\nrun = ['true']\noutputs.o = {}\n");
    // A cache with nothing in it.
    lab.run(["run", "x.toml"]);
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(project().join("tests/golden/ablations"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut different = Vec::new();
    for name in names() {
        let plan = call(&lab, "plan", &name);
        assert_eq!(plan.code, 0, "{name}:\n{}", plan.stderr);
        let stages: String = plan
            .stdout
            .lines()
            .filter(|line| line.starts_with("run ") || line.starts_with("maybe "))
            .filter_map(|line| line.split_whitespace().nth(1))
            .map(|label| format!("{label}\n"))
            .collect();
        let table = call(&lab, "table", &name);
        let report = format!("{}\n{stages}\n{}", text(&name), table.stdout);
        // All files are compared before the test fails, so that one run shows all that moved.
        let compared = catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_snapshot!(name.as_str(), report));
        }));
        if compared.is_err() {
            different.push(name);
        }
    }
    assert!(different.is_empty(), "these plans are not as their snapshots say: {different:?}");
}

#[test]
fn an_ablation_is_a_few_lines() {
    let lines = |name: &String| {
        let text = text(name);
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
    };
    let all = names();
    assert!(all.len() >= 30, "{} ablations", all.len());
    let (most, longest) = all.iter().map(|name| (lines(name), name)).max().expect("some");
    assert!(most <= 12, "{longest} has {most} lines");
    let short = all.iter().filter(|name| lines(name) <= 5).count();
    assert!(short * 10 >= all.len() * 8, "only {short} of {} have at most five lines", all.len());
}

#[test]
fn a_program_of_ones_own_fills_a_column_of_table_4() {
    let lab = Lab::new();
    let file = folder().join("own-metric.toml").display().to_string();
    let told = lab.run(["run", &file, "--profile", "smoke", "--format", "json"]).expect(0);
    let table: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let columns = table["columns"].as_array().unwrap();
    let length = columns.iter().position(|column| column["name"] == "length").unwrap();
    let number = |label: &str| {
        let rows = table["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["label"] == label).unwrap();
        row["cells"][length]["value"]["number"].as_f64()
    };
    let rows = ["ties/dpo", "slerp/cpo", "slerp, not aligned", "expert", "backbone", "untrained"];
    assert!(rows.iter().all(|row| number(row).is_some()), "{table:#}");
    let shuffled = number("slerp/cpo, shuffled");
    assert_eq!(shuffled, None, "a row without the column has an empty cell");
}

/// The page is typed word by word, beside `experiments/`.
#[test]
fn the_page_of_ablations_works_as_it_is_written() {
    let page = fs::read_to_string(project().join("docs/ablations.md")).expect("the page");
    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        let parts = page.split(&fence).skip(1);
        parts.map(|part| part.split("```").next().expect("a part").to_owned()).collect()
    };
    let lab = Lab::new();
    std::os::unix::fs::symlink(project().join("experiments"), lab.path("experiments")).unwrap();
    std::os::unix::fs::symlink(project().join("stages/learn/tests/golden/llama"), lab.path("model")).unwrap();
    let [script] = blocks("python").try_into().expect("one script");
    lab.write("length.py", script);
    let files = blocks("toml");
    assert!(files.len() >= 9, "{} files", files.len());
    for text in files {
        lab.write("mine.toml", text.replace("models/backbone", "model"));
        let told = Told::of(lab.command(["plan", "mine.toml"]).current_dir(lab.path("")).output().unwrap());
        assert_eq!(told.code, 0, "{text}\n{}", told.stderr);
    }
}
