//! `kind = "command"`: runs any program on declared inputs, outputs and parameters.
//!
//! The program starts in a scratch folder that holds
//! - `inputs/PORT/…`: the files of each input, read-only;
//! - `files/NAME`: the scripts and data that `files` names, keyed by content, name and executable bit;
//! - `params.json`: the parameters, also as environment variables `PARAM_<name>`;
//! - `outputs/NAME/`: a folder for each output, to be filled;
//! - `tmp/`: room for anything else, also as `TMPDIR`.
//!
//! A line is run by `bash -euo pipefail -c`: it ends at the first part that fails, and a pipe fails
//! if any part of it does. Where there is no bash, `sh -e` runs it, and a note says so. A list is
//! a program and its arguments, without a shell.
//!
//! The environment is the caller's, but for the locale (`C`, texts in UTF-8), the time zone (UTC) and
//! Python's hash seed (0), which decide how programs sort and iterate.
//!
//! Where the system can, it may write nowhere else. Its output goes to the log. The program
//! itself is not part of the key: name scripts in `files`, and in `environment` the lock file or the
//! container that has the foreign tools.

mod environment;
mod lock_file;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

use engine::{
    Accepts, ArtifactType, Better, Context, Definition, Excerpt, FieldError, NamedFile, NoTuning,
    OutputColumn, Ports, Program, Stage, StageFailure, while_nothing_starts,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use self::environment::{ContainerRunner, Environment};
use crate::artifacts;
use crate::support::rows::write_json;

/// What to run, and on what.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// A line for `bash -euo pipefail`, or a program and its arguments.
    run: Run,
    /// What comes out, by name.
    outputs: BTreeMap<String, Output>,
    /// Scripts and data to put beside the program, keyed by content, name and executable bit.
    #[serde(default)]
    files: Vec<NamedFile>,
    /// Values for the program.
    #[serde(default)]
    parameters: BTreeMap<String, serde_json::Value>,
    /// What it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
}

/// One output.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Output {
    /// The type of the artifact.
    #[serde(rename = "type", default)]
    artifact_type: OutputType,
    /// The numbers for tables that the program writes to `metrics.json` in this output: their names,
    /// or tables that say how they are shown, which is not part of the key.
    #[serde(default)]
    columns: Vec<Column>,
}

/// A number for tables, and how they show it. Only the name is part of the key.
#[derive(Debug)]
struct Column(OutputColumn);

/// A column that says how it is shown.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DescribedColumn {
    /// Its name in `metrics.json`.
    metric: String,
    /// The heading.
    label: Option<String>,
    /// The number of decimals.
    digits: Option<u8>,
    /// Which way is better.
    #[schemars(with = "Option<BetterName>")]
    better: Option<Better>,
    /// What the number is computed by, in a few words.
    definition: Option<String>,
}

/// Which way is better.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum BetterName {
    Higher,
    Lower,
}

impl Serialize for Column {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Column;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a number, or a table with `metric`")
            }
            fn visit_str<E>(self, name: &str) -> Result<Column, E> {
                Ok(Column(OutputColumn::new(name)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Column, A::Error> {
                let DescribedColumn { metric, label, digits, better, definition } =
                    DescribedColumn::deserialize(MapAccessDeserializer::new(map))?;
                let definition = definition.map(|text| Definition { parts: vec![text], files: Vec::new() });
                let label = label.unwrap_or_else(|| metric.clone());
                Ok(Column(OutputColumn { label, digits, better, definition, ..OutputColumn::new(metric) }))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Column {
    fn schema_name() -> Cow<'static, str> {
        "Column".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let described = generator.subschema_for::<DescribedColumn>();
        json_schema!({ "anyOf": [{ "type": "string" }, described] })
    }
}

/// The name of an artifact type.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OutputType {
    Rows,
    Predictions,
    Preferences,
    Unpaired,
    Tokenizer,
    Weights,
    Adapter,
    Curves,
    Scores,
    Report,
    #[default]
    Files,
}

impl OutputType {
    fn artifact_type(self) -> ArtifactType {
        match self {
            Self::Rows => artifacts::ROWS,
            Self::Predictions => artifacts::PREDICTIONS,
            Self::Preferences => artifacts::PREFERENCES,
            Self::Unpaired => artifacts::UNPAIRED,
            Self::Tokenizer => artifacts::TOKENIZER,
            Self::Adapter => artifacts::ADAPTER,
            Self::Curves => artifacts::CURVES,
            Self::Weights => artifacts::WEIGHTS,
            Self::Scores => artifacts::SCORES,
            Self::Report => artifacts::REPORT,
            Self::Files => artifacts::FILES,
        }
    }
}

/// A line for the shell, or a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Run {
    Shell(String),
    Program(Vec<String>),
}

impl Serialize for Run {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(line) => line.serialize(serializer),
            Self::Program(arguments) => arguments.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Run;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a line for the shell, or a list of a program and its arguments")
            }
            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<Run, E> {
                if line.trim().is_empty() {
                    return Err(E::custom("`run` is empty"));
                }
                Ok(Run::Shell(line.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Run, A::Error> {
                let arguments = Vec::<String>::deserialize(SeqAccessDeserializer::new(items))?;
                if arguments.first().is_none_or(String::is_empty) {
                    return Err(serde::de::Error::custom("`run` names no program"));
                }
                Ok(Run::Program(arguments))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Run {
    fn schema_name() -> Cow<'static, str> {
        "Run".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

/// Runs a program.
pub(crate) struct Command;

impl Stage for Command {
    const KIND: &'static str = "command";
    /// 2: a line ends at the first part that fails; names and executable bits of `files` are keyed;
    /// labels of inputs keep all their characters; locale, time zone and hash seed are fixed.
    const VERSION: u32 = 2;
    const EXCERPT: Option<Excerpt> =
        Some(Excerpt { field: "environment", read: environment::read_lock_file });
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        let ports = Ports::new().any_other_inputs(Accepts::Any);
        params.outputs.iter().fold(ports, |ports, (name, output)| {
            let columns = output.columns.iter().map(|column| column.0.clone()).collect();
            ports.scored_output(name, output.artifact_type.artifact_type(), columns)
        })
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        if params.outputs.is_empty() {
            let error = FieldError::new("outputs", "a command needs at least one output");
            return Err(error.help("write `outputs.NAME = {}`"));
        }
        let outputs = params.outputs.keys().map(|name| ("outputs", name));
        for (field, name) in outputs.chain(params.parameters.keys().map(|name| ("parameters", name))) {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                let message = format!("`{name}` cannot name an output or a parameter");
                return Err(FieldError::new(format!("{field}.{name}"), message)
                    .help("use letters, digits, `_` and `-`"));
            }
        }
        let mut names = BTreeSet::new();
        for (position, file) in params.files.iter().enumerate() {
            let Some(name) = file.path().file_name() else {
                let message = format!("`files` names `{}`, which has no last name", file.path().display());
                return Err(FieldError::at("files", position, message));
            };
            if !names.insert(name) {
                let message = format!("two of `files` are called `{}`", name.display());
                return Err(FieldError::at("files", position, message));
            }
        }
        match &params.environment {
            Some(environment) => environment.check().map_err(|error| error.within("environment")),
            None => Ok(()),
        }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        for name in params.outputs.keys() {
            context.output(name)?;
        }
        let scratch = context.scratch().to_owned();
        if !params.files.is_empty() {
            let folder = scratch.join("files");
            fs::create_dir(&folder).map_err(StageFailure::writing(&folder))?;
            for file in &params.files {
                // The name is that of the path in the experiment, which is keyed.
                let name = file.origin().file_name();
                let name = name
                    .ok_or_else(|| StageFailure::new(format!("{} has no name", file.origin().display())))?;
                while_nothing_starts(|| copy(file.path(), &folder.join(name)))
                    .map_err(StageFailure::reading(file.origin()))?;
            }
        }
        if !params.parameters.is_empty() {
            write_json(&scratch.join("params.json"), &params.parameters)?;
        }
        let arguments: Vec<OsString> = match &params.run {
            Run::Shell(line) if has_bash() => {
                ["bash", "-euo", "pipefail", "-c", line].map(OsString::from).into()
            }
            Run::Shell(line) => {
                context.note("run by `sh -e`, for there is no bash: a part of a pipe may fail unseen");
                ["sh", "-e", "-c", line].map(OsString::from).into()
            }
            Run::Program(arguments) => arguments.iter().map(OsString::from).collect(),
        };
        let mut environment: Vec<(String, OsString)> =
            vec![("TMPDIR".to_owned(), scratch.join("tmp").into())];
        environment.extend(FIXED.map(|(name, value)| (name.to_owned(), value.into())));
        for (name, value) in &params.parameters {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            environment.push((format!("PARAM_{name}"), text.into()));
        }
        let image = params.environment.as_ref().and_then(Environment::image);
        let arguments = match image {
            Some(image) => ContainerRunner::find(image)?.wrap(image, &scratch, &environment, arguments),
            None => arguments,
        };
        let program =
            Program { arguments, environment, without: LEFT_OUT.to_vec(), is_contained: image.is_some() };
        context.run_program(&program).map_err(|failure| {
            let message = format!("the program {}", failure.message);
            failure
                .with_message(message)
                .help("its output is in the log; it may write only below its own folder")
        })
    }
}

/// Variables by which a caller's habits would reach results: how texts are sorted and compared, what
/// time it is, and in what order Python goes through a set.
const FIXED: [(&str, &str); 4] =
    [("LANG", "C"), ("LC_CTYPE", "C.UTF-8"), ("TZ", "UTC"), ("PYTHONHASHSEED", "0")];

/// Variables by which a caller changes what a shell does with a line, or the locale in part.
const LEFT_OUT: [&str; 13] = [
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "CDPATH",
    "GLOBIGNORE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LANGUAGE",
];

/// Returns whether there is a bash to run a line.
fn has_bash() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| {
            let is_executable =
                |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
            fs::metadata(folder.join("bash")).is_ok_and(is_executable)
        })
    })
}

/// Copies a file or a folder, so that the program cannot change the original. Of the permissions
/// only the executable bit is taken over, which is keyed.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to)?;
    let is_executable = fs::metadata(from)?.permissions().mode() & 0o100 != 0;
    fs::set_permissions(to, fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))
}

#[cfg(test)]
mod tests {
    use engine::Reason;
    use engine::testing::{StageTest, ports};

    use super::*;

    #[test]
    fn a_program_gets_inputs_files_and_parameters() {
        let params = "run = 'cat inputs/rows/rows.jsonl files/add.txt > outputs/out/all; \
                      printf %s \"$PARAM_name\" > outputs/out/name; cat params.json >&2'\n\
                      files = ['add.txt']\nparameters = { name = 'Ada' }\noutputs.out = {}";
        let run = StageTest::<Command>::new(params)
            .file("add.txt", "more\n")
            .input("rows", &[("rows.jsonl", "{}\n")])
            .run()
            .unwrap();
        assert_eq!(run.text("out", "all"), "{}\nmore\n");
        assert_eq!(run.text("out", "name"), "Ada");
        assert!(run.log().contains("\"name\": \"Ada\""), "{}", run.log());
    }

    #[test]
    fn a_line_ends_at_the_first_part_that_fails() {
        let failure = StageTest::<Command>::new("run = 'exit 3; true'\noutputs.out = {}").run().unwrap_err();
        assert_eq!(failure.reason, Reason::Exited);
        assert_eq!(failure.message, "the program exited with code 3");
    }

    #[test]
    fn what_was_promised_must_be_there() {
        let message = |run: &str, output: &str| {
            let params = format!("run = '{run}'\noutputs.out = {output}");
            StageTest::<Command>::new(&params).run().unwrap_err().message
        };
        assert_eq!(message("true", "{}"), "it succeeded but wrote nothing to `outputs/out`");
        assert_eq!(
            message("mkdir outputs/other", "{}"),
            "it wrote `outputs/other`, which is not one of its outputs"
        );
        let scores = "{ columns = [\"score\"] }";
        let promised = message("echo {} > outputs/out/metrics.json", scores);
        assert!(promised.starts_with("it promised the column `score`, but "), "{promised}");
    }

    #[test]
    fn outputs_are_those_that_are_declared() {
        let of = |params: &str| ports::<Command>(params).unwrap();
        let ports = || Ports::new().any_other_inputs(Accepts::Any);
        assert_eq!(of("run = 'true'\noutputs.a = {}"), ports().output("a", artifacts::FILES));
        let scored = ports().scored_output("a", artifacts::SCORES, vec![OutputColumn::new("x")]);
        assert_eq!(of("run = ['true']\noutputs.a = { type = 'scores', columns = ['x'] }"), scored);
        let column = OutputColumn { label: "X".to_owned(), digits: Some(3), ..OutputColumn::new("x") };
        let scored = ports().scored_output("a", artifacts::SCORES, vec![column]);
        let described = "columns = [{ metric = 'x', label = 'X', digits = 3 }]";
        assert_eq!(of(&format!("run = 'true'\noutputs.a = {{ type = 'scores', {described} }}")), scored);
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Command>(params).unwrap_err().path;
        assert_eq!(path("run = 'true'\noutputs = {}"), "outputs");
        assert_eq!(path("run = ' '\noutputs.a = {}"), "run");
        assert_eq!(path("run = 'true'\noutputs.'a b' = {}"), "outputs.a b");
        assert_eq!(path("run = 'true'\noutputs.a = {}\nparameters = { 'x.y' = 1 }"), "parameters.x.y");
        assert_eq!(path("run = 'true'\noutputs.a = {}\nfiles = ['x/f', 'g', 'y/f']"), "files[2]");
        assert_eq!(path("run = 'true'\noutputs.a.type = 'row'"), "outputs.a.type");
    }
}
