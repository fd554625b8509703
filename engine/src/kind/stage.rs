//! What a stage kind is: parameters, ports, versions, run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cache::Value;
use choice::Part;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kind::name::{InvalidName, Name};
use crate::plan::memory_forecast::{Foreseen, Outlook};
use crate::process::job::{Job, JobInput};
use crate::process::program::{Cancel, Ended, ProcessError, Program};
use crate::run::events::Progress;
use crate::toml::diagnostic::Finding;
use crate::toml::value::{self, Node};

/// A kind of stage.
pub trait Stage: 'static {
    /// The name in `kind = "…"`.
    const KIND: &'static str;
    /// Bumped by hand when the same parameters and inputs give other bytes.
    const VERSION: u32;
    /// Whether results depend on the experiment's seed, which is then part of the key.
    const SEEDED: bool = false;
    /// Where it runs.
    const PLACE: Place = Place::Thread;
    /// Whether it can say before it runs what it needs of memory, or what its outputs will be like.
    const FORESEES: bool = false;
    /// The parameters that say how it is computed, and change no byte of what comes out: they are no
    /// part of the key.
    const UNKEYED: &'static [&'static str] = &[];
    /// Everything that a user can say about it. All the rest of it is part of the key.
    type Params: DeserializeOwned + Serialize + JsonSchema;

    /// Returns what goes in and what comes out.
    fn ports(params: &Self::Params) -> Ports;

    /// Returns the methods inside it that have versions of their own.
    fn parts(_: &Self::Params) -> Vec<Part> {
        Vec::new()
    }

    /// Returns what it needs of the machine.
    fn resources(_: &Self::Params) -> Resources {
        Resources::default()
    }

    /// Says before it runs what it needs of memory, and what is known of its outputs.
    fn foresee(_: &Self::Params, _: &Outlook<'_>) -> Foreseen {
        Foreseen::default()
    }

    /// Checks what no single field can promise.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    fn check(_: &Self::Params) -> Result<(), String> {
        Ok(())
    }

    /// Does the work: reads inputs and writes outputs through the context, and nothing else.
    ///
    /// # Errors
    /// [`Failure`], naming the file and the row.
    fn run(params: &Self::Params, context: &mut Context) -> Result<(), Failure>;
}

/// Where a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On a thread of the coordinator: light work, or the waiting for a program. A time-out
    /// ends the program; it cannot end a thread.
    Thread,
    /// In a process of its own: a crash or an out-of-memory kill costs this stage only.
    Worker,
}

/// The type of an artifact. The engine compares types and knows none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArtifactType(Cow<'static, str>);

impl ArtifactType {
    /// Names a type.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which artifacts an input port takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepts {
    /// Artifacts of these types.
    Only(Vec<ArtifactType>),
    /// Artifacts of every type.
    Any,
}

impl Accepts {
    pub(crate) fn takes(&self, artifact_type: &ArtifactType) -> bool {
        match self {
            Self::Only(types) => types.contains(artifact_type),
            Self::Any => true,
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Only(types) => types.iter().map(|found| found.name()).collect::<Vec<_>>().join(" or "),
            Self::Any => "anything".to_owned(),
        }
    }
}

/// How many artifacts an input port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    One,
    ZeroOrOne,
    OneOrMore,
    Many,
}

impl Arity {
    /// Says whether a stage without it cannot run.
    pub fn is_needed(self) -> bool {
        matches!(self, Self::One | Self::OneOrMore)
    }

    /// Says whether it takes a list.
    pub fn takes_several(self) -> bool {
        matches!(self, Self::OneOrMore | Self::Many)
    }
}

/// A named input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputPort {
    pub name: String,
    pub accepts: Accepts,
    pub arity: Arity,
}

/// A named output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    /// Its name.
    pub name: Name,
    /// The type of what it makes.
    pub artifact_type: ArtifactType,
    /// The numbers that a table can take from its `metrics.json`.
    pub columns: Vec<String>,
}

/// What goes into a stage and what comes out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    pub(crate) inputs: Vec<InputPort>,
    pub(crate) rest: Option<Accepts>,
    pub(crate) outputs: Vec<OutputPort>,
    /// The first output whose name cannot be one.
    pub(crate) invalid: Option<InvalidName>,
}

impl Ports {
    /// Starts without ports.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_input(mut self, name: &str, accepts: Accepts, arity: Arity) -> Self {
        self.inputs.push(InputPort { name: name.to_owned(), accepts, arity });
        self
    }

    /// Adds an input that must be given.
    pub fn input(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::One)
    }

    /// Adds an input that may be left out.
    pub fn optional(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::ZeroOrOne)
    }

    /// Adds an input that takes one artifact or more, in order.
    pub fn several(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::OneOrMore)
    }

    /// Adds an input that takes any number of artifacts, in order.
    pub fn many(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::Many)
    }

    /// Takes inputs of every other name.
    pub fn any_other_inputs(mut self, accepts: Accepts) -> Self {
        self.rest = Some(accepts);
        self
    }

    /// Adds an output. The first one is meant where a reference names none.
    pub fn output(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.scored_output(name, artifact_type, Vec::new())
    }

    /// Adds an output with numbers for tables in its `metrics.json`.
    pub fn scored_output(mut self, name: &str, artifact_type: ArtifactType, columns: Vec<String>) -> Self {
        match Name::new(name) {
            Ok(name) => self.outputs.push(OutputPort { name, artifact_type, columns }),
            Err(invalid) => {
                self.invalid.get_or_insert(invalid);
            }
        }
        self
    }

    pub(crate) fn port(&self, name: &str) -> Option<(&Accepts, Arity)> {
        let named = self.inputs.iter().find(|port| port.name == name);
        named
            .map(|port| (&port.accepts, port.arity))
            .or_else(|| self.rest.as_ref().map(|accepts| (accepts, Arity::Many)))
    }
}

/// What a stage needs of the machine while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor cores.
    pub cores: u32,
    /// Memory in bytes; 0 where it does not matter.
    pub memory_bytes: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 0 }
    }
}

/// Why a stage could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    help: Option<String>,
    ended: Option<Ended>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// Says what went wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, ended: None, source: None }
    }

    /// Says what went wrong while doing something, and keeps the cause.
    pub fn caused(
        doing: impl fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let mut message = format!("failed to {doing}: {source}");
        let mut cause = source.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self { message, help: None, ended: None, source: Some(source) }
    }

    /// Wraps an error of writing a file.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let failure = Self::caused(format!("write {}", path.display()), error);
            if full {
                failure.help("the disk is full: free space, or use another `--cache`")
            } else {
                failure
            }
        }
    }

    /// Wraps an error of reading a file.
    pub fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::caused(format!("read {}", path.display()), error)
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says it in other words.
    pub fn say(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn with_ended(mut self, ended: Ended) -> Self {
        self.ended = Some(ended);
        self
    }

    /// Returns what went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

/// A stage's parameters, read, resolved and checked, without their type.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// All parameters with their defaults; files as written.
    pub value: Value,
    /// What goes in and what comes out.
    pub ports: Ports,
    /// Versioned methods inside.
    pub parts: Vec<Part>,
    /// What it needs of the machine.
    pub resources: Resources,
}

type Foresee = fn(&Value, &Outlook<'_>) -> Foreseen;
type Parse = fn(&Node) -> Result<Parsed, Finding>;
type Run = fn(&Job, &mut Context) -> Result<(), Failure>;

/// A stage kind without its types: what the engine holds.
#[derive(Clone, Copy)]
pub struct Kind {
    name: &'static str,
    version: u32,
    seeded: bool,
    place: Place,
    unkeyed: &'static [&'static str],
    /// Only where the kind foresees anything.
    foresee: Option<Foresee>,
    parse: Parse,
    run: Run,
    schema: fn() -> serde_json::Value,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({} {})", self.name, self.version)
    }
}

impl Kind {
    /// Takes a stage's types away.
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::KIND,
            version: S::VERSION,
            seeded: S::SEEDED,
            place: S::PLACE,
            unkeyed: S::UNKEYED,
            foresee: if S::FORESEES { Some(foresee::<S>) } else { None },
            parse: parse::<S>,
            run: run::<S>,
            schema: schema_of::<S>,
        }
    }

    /// Returns the name in `kind = "…"`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns whether the seed is part of its key.
    pub fn is_seeded(&self) -> bool {
        self.seeded
    }

    /// Returns where it runs.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Returns the parameters that are no part of its key.
    pub(crate) fn unkeyed(&self) -> &'static [&'static str] {
        self.unkeyed
    }

    /// Returns the JSON Schema of its parameters.
    pub fn schema(&self) -> serde_json::Value {
        (self.schema)()
    }

    /// Returns the names of its parameters.
    pub(crate) fn field_names(&self) -> Vec<String> {
        let schema = self.schema();
        let fields = schema.get("properties").and_then(serde_json::Value::as_object);
        fields.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Returns whether it can say anything before it runs.
    pub(crate) fn foresees(&self) -> bool {
        self.foresee.is_some()
    }

    pub(crate) fn foresee(&self, params: &Value, outlook: &Outlook<'_>) -> Foreseen {
        self.foresee.map_or_else(Foreseen::default, |foresee| foresee(params, outlook))
    }

    pub(crate) fn parse(&self, params: &Node) -> Result<Parsed, Finding> {
        (self.parse)(params)
    }

    pub(crate) fn run(&self, job: &Job, context: &mut Context) -> Result<(), Failure> {
        (self.run)(job, context)
    }
}

fn parse<S: Stage>(node: &Node) -> Result<Parsed, Finding> {
    let params: S::Params = value::read(node)?;
    S::check(&params).map_err(|message| Finding::new(node.span.clone(), message))?;
    let value = Value::of(&params).map_err(|error| Finding::new(node.span.clone(), error.to_string()))?;
    debug_assert!(
        matches!(&value, Value::Map(fields) if S::UNKEYED.iter().all(|name| fields.contains_key(*name))),
        "`{}` leaves {:?} out of its key, and has no such parameters",
        S::KIND,
        S::UNKEYED
    );
    let ports = S::ports(&params);
    if let Some(invalid) = &ports.invalid {
        return Err(Finding::new(node.span.clone(), invalid.to_string()));
    }
    Ok(Parsed { value, ports, parts: S::parts(&params), resources: S::resources(&params) })
}

fn foresee<S: Stage>(params: &Value, outlook: &Outlook<'_>) -> Foreseen {
    // As a worker reads them. What cannot be read fails there, and says why.
    let params = serde_json::to_value(params).ok().and_then(|params| S::Params::deserialize(params).ok());
    params.map_or_else(Foreseen::default, |params| S::foresee(&params, outlook))
}

fn run<S: Stage>(job: &Job, context: &mut Context) -> Result<(), Failure> {
    let params = S::Params::deserialize(&job.params)
        .map_err(|error| Failure::caused("read the job's parameters", error))?;
    S::run(&params, context)
}

fn schema_of<S: Stage>() -> serde_json::Value {
    schemars::schema_for!(S::Params).to_value()
}

/// One input as a running stage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its label where several were gathered.
    pub label: Option<String>,
    /// The folder with its files. Read-only.
    pub folder: PathBuf,
    /// The digest of its content: the same for the same files, wherever they come from.
    pub digest: String,
}

/// A running stage's view of the world: its inputs, its outputs, and who is listening.
pub struct Context {
    job: Job,
    inputs: BTreeMap<String, Vec<Input>>,
    log: fs::File,
    notes: Vec<String>,
    listen: Box<dyn FnMut(Progress) + Send>,
    cancel: Cancel,
}

impl Context {
    pub(crate) fn new(
        job: Job,
        log: fs::File,
        listen: Box<dyn FnMut(Progress) + Send>,
        cancel: Cancel,
    ) -> Self {
        let mut inputs: BTreeMap<String, Vec<Input>> = BTreeMap::new();
        for JobInput { port, label, folder, digest } in &job.inputs {
            let folder = job.scratch.join(folder);
            let input = Input { label: label.clone(), folder, digest: digest.clone() };
            inputs.entry(port.clone()).or_default().push(input);
        }
        Self { job, inputs, log, notes: Vec::new(), listen, cancel }
    }

    /// Returns the folder of an input that must be there.
    ///
    /// # Errors
    /// [`Failure`] if the port has none or several; planning rules that out.
    pub fn input(&self, port: &str) -> Result<&Path, Failure> {
        match self.inputs(port) {
            [only] => Ok(&only.folder),
            found => {
                Err(Failure::new(format!("port `{port}` has {} inputs, and one is needed", found.len())))
            }
        }
    }

    /// Returns the folder of an input that may have been left out.
    pub fn optional_input(&self, port: &str) -> Option<&Path> {
        self.inputs(port).first().map(|input| input.folder.as_path())
    }

    /// Returns all inputs of a port, in order.
    pub fn inputs(&self, port: &str) -> &[Input] {
        self.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// Returns an output's folder, made and empty.
    ///
    /// # Errors
    /// [`Failure`] if the ports name no such output, or the folder cannot be made.
    pub fn output(&self, name: &str) -> Result<PathBuf, Failure> {
        if !self.job.outputs.iter().any(|output| output == name) {
            return Err(Failure::new(format!("the stage has no output `{name}`")));
        }
        let folder = self.job.scratch.join("outputs").join(name);
        fs::create_dir_all(&folder).map_err(Failure::writing(&folder))?;
        Ok(folder)
    }

    /// Returns the folder that is the stage's alone; it is gone afterwards.
    pub fn scratch(&self) -> &Path {
        &self.job.scratch
    }

    /// Returns the folder whose content outlives a kill of this stage, for checkpoints.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be made.
    pub fn keep(&self) -> Result<PathBuf, Failure> {
        fs::create_dir_all(&self.job.keep).map_err(Failure::writing(&self.job.keep))?;
        Ok(self.job.keep.clone())
    }

    /// Returns the experiment's seed, for kinds that said that they use one.
    ///
    /// # Errors
    /// [`Failure`] if the kind is not `SEEDED`: then the seed is not in its key.
    pub fn seed(&self) -> Result<u64, Failure> {
        self.job.seed.ok_or_else(|| Failure::new("this stage kind did not declare that it uses the seed"))
    }

    /// Returns how many threads the stage may keep busy.
    pub fn cores(&self) -> u32 {
        self.job.cores
    }

    /// Returns the name of the device to use.
    pub fn device(&self) -> &str {
        &self.job.device.0
    }

    /// Writes a line to the stage's log.
    pub fn log(&mut self, line: impl fmt::Display) {
        // A log that cannot be written must not fail the work it describes.
        let _ = writeln!(self.log, "{line}");
    }

    /// Says something about the data that the user must see with every use of the result:
    /// skipped rows, counted.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.log(&note);
        self.notes.push(note);
    }

    /// Tells how far the work is.
    pub fn progress(&mut self, done: u64, all: u64, unit: &str) {
        (self.listen)(Progress { done, all, unit: unit.to_owned(), detail: String::new() });
    }

    /// Tells how far the work is, and something about it, such as the loss.
    pub fn progress_with(&mut self, done: u64, all: u64, unit: &str, detail: String) {
        (self.listen)(Progress { done, all, unit: unit.to_owned(), detail });
    }

    /// Returns whether the run was told to stop now.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_now()
    }

    /// Runs a program in the scratch folder, its output in the log, confined to that folder.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be started, exits with something other than 0, is killed, or
    /// runs out of time.
    pub fn run_program(&mut self, program: &Program) -> Result<(), Failure> {
        let log = self.log.try_clone().map_err(|error| Failure::caused("open the log", error))?;
        match program.run(&self.job.scratch, &self.job.keep, log, self.job.timeout(), &self.cancel) {
            Ok(Ended::Well) => Ok(()),
            Ok(ended) => Err(Failure::new(ended.to_string()).with_ended(ended)),
            Err(ProcessError { message, source }) => Err(Failure::caused(message, source)),
        }
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes
    }
}
