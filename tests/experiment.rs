//! Builds the experiments of stories, stage by stage.
//!
//! ```text
//! let lab = experiment()
//!     .command("a", "echo hello > outputs/out/a.txt")
//!     .command("b", "wc -l < inputs/a/a.txt > outputs/out/n.txt")
//!     .input("a", "a")
//!     .lab();
//! ```
//!
//! What is set belongs to the last stage. Each setting is one line, so that a story can edit it.

use std::fmt;

use serde_json::{Value, json};

use crate::lab::{Lab, ROWS, project};

/// An experiment file that is being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Experiment {
    text: String,
}

/// Begins an experiment.
pub(crate) fn experiment() -> Experiment {
    Experiment::default()
}

/// Begins an experiment with a stage `model` that trains on `rows`, two of them in a step, and
/// evaluates on them.
pub(crate) fn training() -> Experiment {
    experiment()
        .rows()
        .tokenizer()
        .train("model")
        .input("validation", "rows")
        .set("batch_size", 2)
        .set("gradient_accumulation_steps", 1)
}

impl Experiment {
    /// Sets the seed. To be called first.
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.text.push_str(&format!("[experiment]\nseed = {seed}\n"));
        self
    }

    /// Begins a stage.
    pub(crate) fn stage(mut self, name: &str, kind: &str) -> Self {
        self.text.push_str(&format!("\n[stages.{name}]\nkind = \"{kind}\"\n"));
        self
    }

    /// Sets a field, which may be a dotted path.
    pub(crate) fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.text.push_str(&format!("{field} = {}\n", toml(&value.into())));
        self
    }

    /// Connects an input.
    pub(crate) fn input(self, port: &str, from: &str) -> Self {
        self.set(&format!("inputs.{port}"), from)
    }

    /// Adds an axis over the values of a field.
    pub(crate) fn axis(self, name: &str, field: &str, values: impl Into<Value>) -> Self {
        self.set(&format!("axes.{name}"), json!({ "field": field, "values": values.into() }))
    }

    /// Begins a stage that runs a program for the output `out`.
    pub(crate) fn command(self, name: &str, run: &str) -> Self {
        self.stage(name, "command").set("run", run).set("outputs.out", json!({}))
    }

    /// Begins a stage that runs a program for the output `scores` with these columns.
    pub(crate) fn scores<const N: usize>(self, name: &str, columns: [&str; N], run: &str) -> Self {
        let output = json!({ "type": "scores", "columns": columns.as_slice() });
        self.stage(name, "command").set("run", run).set("outputs.scores", output)
    }

    /// Begins a stage that takes rows from `rows.jsonl`.
    pub(crate) fn rows(self) -> Self {
        self.stage("rows", "source").set("path", "rows.jsonl")
    }

    /// Begins a stage that trains a small tokenizer on `rows`.
    pub(crate) fn tokenizer(self) -> Self {
        self.stage("tokenizer", "tokenizer")
            .input("rows", "rows")
            .set("model.bpe", json!({ "vocab_size": 280 }))
    }

    /// Begins a stage that trains on `rows`, from molecules to captions.
    pub(crate) fn train(self, name: &str) -> Self {
        self.stage(name, "train")
            .input("tokenizer", "tokenizer")
            .input("rows", "rows")
            .set("prompts.mol2cap", "prompt.txt")
            .set("objective.sft", json!({}))
    }

    /// Begins a stage that writes captions for `rows`.
    pub(crate) fn generate(self, name: &str, model: &str) -> Self {
        self.stage(name, "generate")
            .input("model", model)
            .input("rows", "rows")
            .set("direction", "mol2cap")
            .set("prompt", "prompt.txt")
    }

    /// Adds property lists in `rows.tsv`, captions made of them, samples of the captions and counts of
    /// their words: workers of four kinds.
    pub(crate) fn captions(self) -> Self {
        self.stage("rows", "source")
            .set("path", "rows.tsv")
            .set("split", json!({ "properties": "|" }))
            .stage("captions", "compose")
            .input("rows", "rows")
            .set("templates", "templates.toml")
            .stage("half", "subset")
            .input("rows", "captions")
            .set("take.fraction", 0.5)
            .set("identity.molecule", "molecule")
            .stage("rest", "subset")
            .input("rows", "captions")
            .input("exclude", "half")
            .set("take.count", 5)
            .words("words", "captions")
            .words("words_half", "half")
    }

    /// Begins a stage that counts the words of captions.
    pub(crate) fn words(self, name: &str, rows: &str) -> Self {
        self.stage(name, "evaluate").input("rows", rows).set("metrics", json!(["words"]))
    }

    /// Begins the table.
    pub(crate) fn table<const N: usize>(mut self, columns: [&str; N]) -> Self {
        self.text.push_str(&format!("\n[table]\ncolumns = {}\n", toml(&json!(columns.as_slice()))));
        self
    }

    /// Adds a row to the table.
    pub(crate) fn row(mut self, label: &str, from: &str) -> Self {
        self.text.push_str(&format!("\n[table.rows.\"{label}\"]\nfrom = \"{from}\"\n"));
        self
    }

    /// Adds lines as they are.
    pub(crate) fn lines(mut self, lines: &str) -> Self {
        self.text.push_str(lines);
        self.text.push('\n');
        self
    }

    /// Makes a workspace with it as `x.toml`.
    pub(crate) fn lab(&self) -> Lab {
        Lab::with(&self.text)
    }
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writes a value in TOML, on one line unless it is a text of several.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains(['"', '\n', '\\']) => {
            assert!(!text.contains("'''"), "this text cannot be written: {text}");
            format!("'''{text}'''")
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        plain => plain.to_string(),
    }
}

/// Writes the files that [`Experiment::captions`] reads.
pub(crate) fn write_properties(lab: &Lab) {
    let mut rows = "molecule\tproperties\n".to_owned();
    for length in 1..=40 {
        rows.push_str(&format!("{}O\tsweet|property {length}\n", "C".repeat(length)));
    }
    lab.write("rows.tsv", rows);
    let templates = project().join("experiments/templates/lpm24.toml");
    lab.write("templates.toml", std::fs::read(templates).expect("the templates are there"));
}

/// Writes the files that [`Experiment::rows`], [`Experiment::train`] and [`Experiment::generate`] read.
pub(crate) fn write_molecules(lab: &Lab) {
    lab.write("rows.jsonl", ROWS);
    lab.write("prompt.txt", "Molecule: {molecule} Caption: {caption}\n");
}

/// A LLaMA of a few thousand parameters.
pub(crate) fn tiny_llama() -> Value {
    json!({
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 64,
    })
}
