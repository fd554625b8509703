//! `kind = "source"`: brings in rows, a model or an adapter, as somebody else wrote them.
//!
//! The file enters the key by its content. Rows come out as JSONL with the fields that
//! `columns` names; what was skipped or changed on the way is counted and said. The folder of a
//! model or an adapter comes out as it is, once it is known to be whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use corpus::formats::{self, OnBadRow, ReadOptions, Report};
use engine::{
    Context, Estimate, EstimateContext, FieldError, InputFile, Isolation, NoTuning, Ports, Stage,
    StageFailure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weights::{Adapter, ModelFolder};

use crate::artifacts::{ADAPTER, REPORT, ROWS, WEIGHTS};
use crate::support::memory::model_hint;
use crate::support::rows::{RowWriter, write_json};

/// What to bring in.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
pub(crate) struct Params {
    path: InputFile,
    /// None only where neither the user nor the file's name says it, which `check` refuses.
    format: Option<Format>,
    columns: BTreeMap<String, String>,
    split: BTreeMap<String, String>,
    collapse_backslashes: BTreeSet<String>,
    on_bad_row: OnBadRow,
    max_bad_rows: f64,
}

/// The same as a user writes it: the format may be left to the file's name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The file with the rows, or the model folder.
    path: InputFile,
    /// How the file is written; else taken from its name. Compression by gzip is recognised.
    format: Option<Format>,
    /// Our fields and the columns that they come from; none takes all columns as they are.
    #[serde(default)]
    columns: BTreeMap<String, String>,
    /// Fields that hold lists, and what separates the items.
    #[serde(default)]
    split: BTreeMap<String, String>,
    /// Fields in which a doubled backslash stands for one.
    #[serde(default)]
    collapse_backslashes: BTreeSet<String>,
    /// What to do about rows that cannot be read.
    #[serde(default)]
    on_bad_row: OnBadRow,
    /// The share of rows that may be skipped before it is taken for a mistake.
    #[serde(default = "default_max_bad_rows")]
    max_bad_rows: f64,
}

fn default_max_bad_rows() -> f64 {
    0.01
}

/// How a source is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Comma-separated values, RFC 4180.
    Csv,
    /// Tab-separated values; nothing quotes them.
    Tsv,
    /// One JSON object per line.
    Jsonl,
    /// A model folder in the layout of Hugging Face.
    Model,
    /// The folder of a LoRA adapter in the layout of PEFT.
    Adapter,
}

impl From<Written> for Params {
    fn from(written: Written) -> Self {
        let name = written.path.path().to_string_lossy();
        let by_name = || match formats::Format::from_path(&name) {
            Some(formats::Format::Csv) => Some(Format::Csv),
            Some(formats::Format::Tsv) => Some(Format::Tsv),
            Some(formats::Format::Jsonl) => Some(Format::Jsonl),
            None => None,
        };
        let format = written.format.or_else(by_name);
        Self {
            path: written.path,
            format,
            columns: written.columns,
            split: written.split,
            collapse_backslashes: written.collapse_backslashes,
            on_bad_row: written.on_bad_row,
            max_bad_rows: written.max_bad_rows,
        }
    }
}

/// Brings in rows, a model or an adapter.
pub(crate) struct Source;

impl Stage for Source {
    const KIND: &'static str = "source";
    /// 2: fields of `report.json` are in snake case; `max_bad_rows` has this name.
    const VERSION: u32 = 2;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const RENAMED: &'static [(&'static str, &'static str)] = &[("most_bad_rows", "max_bad_rows")];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        match params.format {
            Some(Format::Model) => Ports::new().output("model", WEIGHTS),
            Some(Format::Adapter) => Ports::new().output("adapter", ADAPTER),
            // Apart from the rows, so that a blank line more changes nothing below.
            _ => Ports::new().output("rows", ROWS).output("report", REPORT),
        }
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        if params.format.is_none() {
            let name = params.path.path().display();
            let message = format!("`path` does not tell the format by its ending, `{name}`");
            return Err(FieldError::new("path", message)
                .help("add `format = \"csv\"`, \"tsv\", \"jsonl\", \"model\" or \"adapter\""));
        }
        if !(0.0..=1.0).contains(&params.max_bad_rows) {
            let message = format!("`max_bad_rows` is a share between 0 and 1, not {}", params.max_bad_rows);
            return Err(FieldError::new("max_bad_rows", message));
        }
        Ok(())
    }

    fn estimate(params: &Params, _: &NoTuning, context: &EstimateContext<'_>) -> Estimate {
        if params.format != Some(Format::Model) {
            return Estimate::default();
        }
        let text = context.read(&params.path.path().join("config.json"));
        let config: Option<serde_json::Map<_, _>> = text.and_then(|text| serde_json::from_str(&text).ok());
        let outputs = config.map(|config| ("model".to_owned(), model_hint(&config)));
        Estimate { outputs: outputs.into_iter().collect(), ..Estimate::default() }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let (path, origin) = (params.path.path(), params.path.origin());
        let format = match params.format.expect("checked when it was planned") {
            Format::Model => return bring_model(&params.path, context),
            Format::Adapter => return bring_adapter(&params.path, context),
            Format::Csv => formats::Format::Csv,
            Format::Tsv => formats::Format::Tsv,
            Format::Jsonl => formats::Format::Jsonl,
        };
        if path.is_dir() {
            let failure = StageFailure::new(format!("{} is a folder, not a file of rows", origin.display()));
            return Err(failure.help("name one file, or write `format = \"model\"` for a model folder"));
        }
        let options = ReadOptions {
            columns: params.columns.clone(),
            split: params.split.clone(),
            collapse_backslashes: params.collapse_backslashes.clone(),
            on_bad_row: params.on_bad_row,
        };
        let read = || format!("read {}", origin.display());
        let file = File::open(path).map_err(StageFailure::reading(origin))?;
        let bytes = file.metadata().map_err(StageFailure::reading(origin))?.len();
        let (counted, position) = Counted::new(file);
        let mut rows =
            formats::read(counted, format, &options).map_err(|error| StageFailure::caused(read(), error))?;
        let mut writer = RowWriter::create(&context.output("rows")?)?;
        for (done, row) in (&mut rows).enumerate() {
            writer.write(&row.map_err(|error| StageFailure::caused(read(), error))?)?;
            if done % 4096 == 0 {
                context.progress(position.get(), bytes, "bytes");
            }
        }
        writer.finish()?;
        let report = rows.into_report();
        add_notes(&report, context);
        write_json(&context.output("report")?.join("report.json"), &report)?;
        let skipped = report.rows_skipped() as f64 / (report.rows + report.rows_skipped()).max(1) as f64;
        if skipped > params.max_bad_rows {
            let message = format!(
                "{} of {} rows of {} cannot be read ({})",
                report.rows_skipped(),
                report.rows + report.rows_skipped(),
                origin.display(),
                reasons(&report)
            );
            return Err(StageFailure::new(message)
                .help("check `format` and `columns`; if the data is that dirty, raise `max_bad_rows`"));
        }
        Ok(())
    }
}

/// Says what was done to the data.
fn add_notes(report: &Report, context: &mut Context) {
    context.log(format_args!("{} rows", report.rows));
    if report.rows_skipped() > 0 {
        context.note(format!("{} rows skipped: {}", report.rows_skipped(), reasons(report)));
    }
    for (field, cells) in &report.collapsed_cells {
        if *cells > 0 {
            context.note(format!("{cells} rows had doubled backslashes in `{field}`, now single"));
        }
    }
}

fn reasons(report: &Report) -> String {
    let each = report.skipped.iter().map(|(reason, skipped)| match skipped.examples.first() {
        Some(first) => format!("{reason} {} (first on line {}: {})", skipped.count, first.line, first.detail),
        None => format!("{reason} {}", skipped.count),
    });
    each.collect::<Vec<_>>().join("; ")
}

fn bring_model(folder: &InputFile, context: &mut Context) -> Result<(), StageFailure> {
    let doing = || format!("read the model folder {}", folder.origin().display());
    let model = ModelFolder::open(folder.path()).map_err(|error| StageFailure::caused(doing(), error))?;
    context.log(model_summary(&model));
    bring_folder(folder, "model", context)
}

fn bring_adapter(folder: &InputFile, context: &mut Context) -> Result<(), StageFailure> {
    let doing = || format!("read the adapter {}", folder.origin().display());
    let adapter = Adapter::open(folder.path()).map_err(|error| StageFailure::caused(doing(), error))?;
    context.log(format_args!("an adapter that changes {} tensors", adapter.targets().len()));
    bring_folder(folder, "adapter", context)
}

fn bring_folder(folder: &InputFile, output: &str, context: &mut Context) -> Result<(), StageFailure> {
    let output = context.output(output)?;
    let files = fs::read_dir(folder.path()).map_err(StageFailure::reading(folder.origin()))?;
    let files: Vec<_> = files.flatten().collect();
    for (done, entry) in files.iter().enumerate() {
        context.progress(done as u64, files.len() as u64, "files");
        let from = entry.path();
        // Folders and hidden files beside a model, such as `.git`, are no part of it.
        if from.is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
            let origin = folder.origin().join(entry.file_name());
            fs::copy(&from, output.join(entry.file_name())).map_err(StageFailure::reading(&origin))?;
        }
    }
    Ok(())
}

/// Says in one line what a model folder holds.
fn model_summary(model: &ModelFolder) -> String {
    let kind = model.model_type().unwrap_or("unknown type");
    let tokenizer = if model.has_tokenizer() { "with" } else { "without" };
    format!(
        "{kind}, {} tensors, {} parameters, {} bytes in {} files, {tokenizer} tokenizer",
        model.tensors().len(),
        model.parameters(),
        model.bytes(),
        model.files().len()
    )
}

/// Describes a model whose files lie anywhere, each with the name it has in its folder: one
/// line about the whole, then one per tensor.
///
/// # Errors
/// What is wrong with the model, or with looking at it.
pub fn describe_model(files: &[(String, PathBuf)]) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (name, path) in files.iter().filter(|(name, _)| !name.contains('/')) {
        std::os::unix::fs::symlink(path, folder.path().join(name)).map_err(|error| error.to_string())?;
    }
    let model = ModelFolder::open(folder.path()).map_err(|error| error.to_string())?;
    let mut lines = vec![model_summary(&model)];
    for tensor in model.tensors() {
        lines.push(format!("{}  {:?}  {:?}", tensor.name, tensor.dtype, tensor.shape));
    }
    Ok(lines)
}

/// Counts what was read of a file, for progress.
struct Counted {
    file: File,
    position: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Counted {
    fn new(file: File) -> (Self, std::rc::Rc<std::cell::Cell<u64>>) {
        let position = std::rc::Rc::default();
        (Self { file, position: std::rc::Rc::clone(&position) }, position)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_come_in_with_the_columns_that_are_asked_for() {
        let params = "path = 'rows.tsv'\ncolumns = { id = 'CID', caption = 'text' }";
        let text = "CID\ttext\tmore\n1\tsweet\tx\n2\tsour\ty\n";
        let run = StageTest::<Source>::new(params).file("rows.tsv", text).run().unwrap();
        assert_eq!(
            run.json_lines("rows", "rows.jsonl"),
            [json!({ "id": "1", "caption": "sweet" }), json!({ "id": "2", "caption": "sour" })]
        );
        assert_eq!(run.json("report", "report.json")["rows"], 2);
        assert_eq!(run.notes(), [""; 0]);
    }

    #[test]
    fn rows_that_cannot_be_read_are_skipped_until_they_are_too_many() {
        let rows = "id\ttext\na\tone\na\ttwo\n";
        let source = |more: &str| {
            let params = format!("path = 'rows.tsv'\n{more}");
            StageTest::<Source>::new(&params).file("rows.tsv", rows).run()
        };
        let skipped = source("max_bad_rows = 0.5").unwrap();
        assert_eq!(skipped.json_lines("rows", "rows.jsonl").len(), 1);
        assert!(skipped.notes()[0].starts_with("1 rows skipped: "), "{:?}", skipped.notes());
        let failure = source("").unwrap_err();
        assert!(failure.message.starts_with("1 of 2 rows of rows.tsv cannot be read"), "{failure}");
        assert!(failure.help.unwrap().contains("`max_bad_rows`"));
    }

    #[test]
    fn a_model_comes_in_as_it_is_without_hidden_files() {
        let model = crate::support::testing::model();
        let test = ["config.json", "model.safetensors", "tokenizer.json", ".hidden"].into_iter().fold(
            StageTest::<Source>::new("path = 'model'\nformat = 'model'"),
            |test, file| {
                let content = std::fs::read(model.output("model").join(file)).unwrap_or_default();
                test.file(&format!("model/{file}"), content)
            },
        );
        let run = test.run().unwrap();
        assert_eq!(run.text("model", "config.json"), model.text("model", "config.json"));
        assert!(!run.output("model").join(".hidden").exists());
        assert!(run.log().contains("llama, "), "{}", run.log());
    }

    #[test]
    fn the_format_decides_what_comes_out() {
        let rows = Ports::new().output("rows", ROWS).output("report", REPORT);
        assert_eq!(ports::<Source>("path = 'a.csv'"), Ok(rows.clone()));
        assert_eq!(ports::<Source>("path = 'a'\nformat = 'jsonl'"), Ok(rows));
        assert_eq!(
            ports::<Source>("path = 'a'\nformat = 'model'"),
            Ok(Ports::new().output("model", WEIGHTS))
        );
        assert_eq!(
            ports::<Source>("path = 'a'\nformat = 'adapter'"),
            Ok(Ports::new().output("adapter", ADAPTER))
        );
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Source>(params).unwrap_err().path;
        assert_eq!(path("path = 'rows.txt'"), "path");
        assert_eq!(path("path = 'a.csv'\nmax_bad_rows = 2"), "max_bad_rows");
        assert_eq!(path("path = 'a.csv'\ncolumns = { id = 3 }"), "columns.id");
        assert_eq!(path("path = 'a.csv'\nformat = 'xml'"), "format");
    }
}
