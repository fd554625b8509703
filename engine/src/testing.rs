//! Runs one stage by itself, so that a kind can be tested beside its code: without an experiment, a
//! cache or a worker process.
//!
//! ```
//! use engine::testing::{StageTest, ports};
//! # use engine::{ArtifactType, Context, FieldError, NoTuning, Ports, Stage, StageFailure};
//! # const TEXT: ArtifactType = ArtifactType::new("text");
//! # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! # #[serde(deny_unknown_fields)]
//! # struct Params { times: u32 }
//! # struct Repeat;
//! # impl Stage for Repeat {
//! #     const KIND: &'static str = "repeat";
//! #     const VERSION: u32 = 1;
//! #     type Params = Params;
//! #     type Tuning = NoTuning;
//! #     fn ports(_: &Params) -> Ports { Ports::new().input("text", TEXT).output("text", TEXT) }
//! #     fn check(params: &Params) -> Result<(), FieldError> {
//! #         match params.times {
//! #             0 => Err(FieldError::new("times", "`times` is at least 1")),
//! #             _ => Ok(()),
//! #         }
//! #     }
//! #     fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
//! #         let file = context.input("text")?.join("text.txt");
//! #         let text = std::fs::read_to_string(&file).map_err(StageFailure::reading(&file))?;
//! #         context.note("repeated");
//! #         let file = context.output("text")?.join("text.txt");
//! #         std::fs::write(&file, text.repeat(params.times as usize)).map_err(StageFailure::writing(&file))
//! #     }
//! # }
//!
//! let run = StageTest::<Repeat>::new("times = 2").input("text", &[("text.txt", "ha")]).run()?;
//! assert_eq!(run.text("text", "text.txt"), "haha");
//! assert_eq!(run.notes(), ["repeated"]);
//!
//! assert_eq!(ports::<Repeat>("times = 0").unwrap_err().path, "times");
//! # Ok::<(), StageFailure>(())
//! ```
//!
//! What is wrong with a test itself, such as a port that the stage does not have, is a panic that
//! says so.

use std::fs::{self, File};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cache::{Artifact, Digest, Entry};
use choice::FieldError;
use tempfile::TempDir;

use crate::kind::context::Context;
use crate::kind::failure::StageFailure;
use crate::kind::input_file::{absolute, materialized_path};
use crate::kind::name::{Name, input_folder, output_folder};
use crate::kind::ports::Ports;
use crate::kind::stage::{Kind, Parsed, Stage, read_split};
use crate::process::cancel::Cancel;
use crate::process::device::Device;
use crate::process::job::{Job, JobInput, Progress};
use crate::run::outputs::check_outputs;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::parse::parse;
use crate::toml::value::{Content, Value};

/// The fields of a stage's table that are its kind's, as text.
fn read<S: Stage>(params: &str) -> Result<Parsed, FieldError> {
    let (mut table, diagnostics) = parse(params, 0);
    assert_eq!(diagnostics, [], "the parameters are no TOML");
    let written = Value { span: 0..params.len(), content: Content::Table(table.clone()) };
    for pick in S::PICKS {
        pick.apply(&mut table).map_err(|Diagnostic { span, message, help, .. }| FieldError {
            path: written.path_of(&span).unwrap_or_default(),
            message,
            help,
        })?;
    }
    let table = Value { span: 0..params.len(), content: Content::Table(table) };
    let located = |Diagnostic { span, message, help, .. }: Diagnostic| FieldError {
        path: table.path_of(&span).unwrap_or_default(),
        message,
        help,
    };
    // Checked here too, since a diagnostic has no path of a field that is not written.
    let (checked, _): (S::Params, S::Tuning) = read_split(&table).map_err(located)?;
    S::check(&checked)?;
    Kind::of::<S>().parse(&table).map_err(located)
}

/// Reads and checks the parameters of a kind, written as the fields of its table, and returns its ports.
///
/// # Errors
/// What planning would report, with the path of the field.
pub fn ports<S: Stage>(params: &str) -> Result<Ports, FieldError> {
    read::<S>(params).map(|parsed| parsed.ports)
}

/// A stage to run: its parameters, inputs, and what the machine is.
#[derive(Debug)]
pub struct StageTest<S> {
    params: String,
    folder: TempDir,
    /// The port of each, in order.
    inputs: Vec<String>,
    seed: Option<u64>,
    cores: u32,
    kind: PhantomData<S>,
}

impl<S: Stage> StageTest<S> {
    /// Takes the parameters, written as the fields of a stage's table. Relative paths in them lead to
    /// the files of [`StageTest::file`].
    pub fn new(params: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["files", "given", "run/outputs", "run/tmp"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder can be made");
        }
        let params = params.to_owned();
        Self { params, folder, inputs: Vec::new(), seed: None, cores: 2, kind: PhantomData }
    }

    /// Adds a file that the parameters name.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        write(&self.folder.path().join("files").join(name), content.as_ref());
        self
    }

    /// Adds an input of these files. A port that takes several gets them in the order of the calls.
    #[must_use]
    pub fn input(mut self, port: &str, files: &[(&str, &str)]) -> Self {
        let folder = self.next_input(port);
        for (name, content) in files {
            write(&folder.join(name), content.as_bytes());
        }
        self
    }

    /// Adds a copy of a folder as an input, such as an output of another run.
    #[must_use]
    pub fn input_folder(mut self, port: &str, folder: &Path) -> Self {
        let place = self.next_input(port);
        for (path, content) in files(folder) {
            write(&place.join(path), &content);
        }
        self
    }

    fn next_input(&mut self, port: &str) -> PathBuf {
        self.inputs.push(port.to_owned());
        self.given(self.inputs.len() - 1)
    }

    /// Returns where the files of an input are until it runs.
    fn given(&self, number: usize) -> PathBuf {
        self.folder.path().join("given").join(number.to_string())
    }

    /// Moves the inputs to where a stage finds them.
    fn materialize_inputs(&self, ports: &Ports, scratch: &Path) -> Vec<JobInput> {
        for port in ports.inputs.iter().filter(|port| port.arity.is_needed()) {
            assert!(self.inputs.contains(&port.name), "`{}` needs an input `{}`", S::KIND, port.name);
        }
        let materialize = |(number, port): (usize, &String)| {
            assert!(ports.port(port).is_some(), "`{}` has no input `{port}`", S::KIND);
            let is_alone = self.inputs.iter().filter(|other| *other == port).count() == 1;
            let label = (!is_alone).then(|| number.to_string());
            let folder = input_folder(&Name::new(port).expect("ports have names"), label.as_deref());
            let given = self.given(number);
            let digest = Artifact::new(files(&given).into_iter().map(entry).collect()).digest().to_string();
            let place = scratch.join(&folder);
            let above = place.parent().expect("inputs are below the scratch folder");
            let moved = fs::create_dir_all(above).and_then(|()| fs::rename(&given, &place));
            moved.unwrap_or_else(|error| panic!("{}: {error}", place.display()));
            JobInput { port: port.clone(), label, folder, digest }
        };
        self.inputs.iter().enumerate().map(materialize).collect()
    }

    /// Sets the seed, for kinds that use one; otherwise it is 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets how many threads the stage may keep busy; otherwise two.
    #[must_use]
    pub fn cores(mut self, cores: u32) -> Self {
        self.cores = cores;
        self
    }

    /// Runs the stage on this thread, on the CPU, and checks its outputs as a run does.
    ///
    /// # Errors
    /// Why the stage failed, or what is wrong with its parameters or its outputs.
    pub fn run(self) -> Result<StageRun, StageFailure> {
        let Parsed { mut params, tuning, ports, .. } = read::<S>(&self.params)?;
        let files = self.folder.path().join("files");
        params
            .resolve_paths(&mut |_, written, _| {
                let path = absolute(written, &files, None)?;
                let path = path.to_str().expect("the path is UTF-8");
                Ok(materialized_path(path, written))
            })
            .unwrap_or_else(|problem: String| panic!("{problem}"));
        let scratch = self.folder.path().join("run");
        let job = Job {
            kind: S::KIND.to_owned(),
            params: serde_json::to_value(&params).expect("parameters are plain data"),
            tuning: serde_json::to_value(&tuning).expect("tuning is plain data"),
            seed: S::SEEDED.then(|| self.seed.unwrap_or(0)),
            inputs: self.materialize_inputs(&ports, &scratch),
            outputs: ports.outputs.iter().map(|output| output.name.to_string()).collect(),
            scratch,
            keep: self.folder.path().join("keep"),
            cores: self.cores,
            device: Device("cpu".to_owned()),
            timeout_seconds: None,
        };
        let log = File::create(self.folder.path().join("log")).expect("a log can be made");
        let progress = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&progress);
        let on_progress = move |progress| listener.lock().expect("no panic").push(progress);
        let mut context = Context::new(job.clone(), log, Box::new(on_progress), Cancel::new());
        Kind::of::<S>().run(&job, &mut context)?;
        check_outputs(&ports.outputs, &job.scratch)?;
        let notes = context.into_notes();
        let progress = std::mem::take(&mut *progress.lock().expect("no panic"));
        Ok(StageRun { folder: self.folder, notes, progress })
    }
}

/// A stage that has run.
#[derive(Debug)]
pub struct StageRun {
    folder: TempDir,
    notes: Vec<String>,
    progress: Vec<Progress>,
}

impl StageRun {
    /// Returns the folder of an output.
    pub fn output(&self, name: &str) -> PathBuf {
        let name = Name::new(name).expect("the output has a name");
        self.folder.path().join("run").join(output_folder(&name))
    }

    /// Returns the text of a file of an output.
    pub fn text(&self, output: &str, file: &str) -> String {
        read_text(&self.output(output).join(file))
    }

    /// Returns the value of a JSON file of an output.
    pub fn json(&self, output: &str, file: &str) -> serde_json::Value {
        let text = self.text(output, file);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}: {text}"))
    }

    /// Returns the values of a file of an output with one JSON value in each line.
    pub fn json_lines(&self, output: &str, file: &str) -> Vec<serde_json::Value> {
        let text = self.text(output, file);
        let value =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}: {error}: {line}"));
        text.lines().map(value).collect()
    }

    /// Returns the log.
    pub fn log(&self) -> String {
        read_text(&self.folder.path().join("log"))
    }

    /// Returns what it had to say about its data.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns what it reported of its progress, in order.
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }
}

fn write(path: &Path, content: &[u8]) {
    let folder = path.parent().expect("a file is in a folder");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, content));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files below a folder, with their paths in it.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let listing = fs::read_dir(folder.join(&below));
        for entry in listing.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = below.join(entry.expect("a folder can be listed").file_name());
            if folder.join(&path).is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(folder.join(&path)).expect("a file can be read");
                files.push((path, content));
            }
        }
    }
    files
}

fn entry((path, content): (PathBuf, Vec<u8>)) -> Entry {
    Entry {
        path: path.to_str().expect("the path is UTF-8").to_owned(),
        digest: Digest::of(&content),
        bytes: content.len() as u64,
        executable: false,
    }
}
