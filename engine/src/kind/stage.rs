//! What a stage kind is: parameters, ports, versions, run.

use std::fmt;

use cache::{EncodeError, Value};
use choice::{Component, FieldError};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kind::context::Context;
use crate::kind::failure::StageFailure;
use crate::kind::memory::{Estimate, EstimateContext};
use crate::kind::picks::{By, Pick};
use crate::kind::ports::{Ports, Resources};
use crate::kind::renamed::Renamed;
use crate::process::job::Job;
use crate::toml::deserialize::{field_names, read};
use crate::toml::diagnostic::Diagnostic;
use crate::toml::value::{Content, TomlTable, Value as TomlValue};

/// A kind of stage.
pub trait Stage: 'static {
    /// The name in `kind = "…"`.
    const KIND: &'static str;
    /// Bumped by hand when the same parameters and inputs give other bytes.
    const VERSION: u32;
    /// Whether results depend on the experiment's seed, which is then part of the key.
    const SEEDED: bool = false;
    /// Whether it runs in a process of its own.
    const ISOLATION: Isolation = Isolation::InProcess;
    /// Whether it can estimate its memory, or say what its outputs will be like, before it runs.
    const ESTIMATES: bool = false;
    /// What fields, choices, ports and columns were called before, by their paths, and what they are
    /// called now: `("inputs.without", "inputs.exclude")`. A `*` stands for any name, or for the
    /// items of a list. An old word is an error that names the new one.
    const RENAMED: &'static [(&'static str, &'static str)] = &[];
    /// Tables from which other fields pick entries, before parameters are read.
    const PICKS: &'static [Pick] = &[];
    /// A field that names a file of which only a part is keyed.
    const EXCERPT: Option<Excerpt> = None;
    /// Everything that decides what it makes. All of it is part of the key.
    type Params: DeserializeOwned + Serialize + JsonSchema;
    /// How it is computed, where that changes no byte of the result: outside the key, by its type. A
    /// user writes its fields in the same table. [`NoTuning`] where there is nothing to tune.
    type Tuning: DeserializeOwned + Serialize + JsonSchema;

    /// Returns what goes in and what comes out.
    fn ports(params: &Self::Params) -> Ports;

    /// Returns the methods inside it that have versions of their own.
    fn components(_: &Self::Params) -> Vec<Component> {
        Vec::new()
    }

    /// Returns what it needs of the machine.
    fn resources(_: &Self::Params) -> Resources {
        Resources::default()
    }

    /// Estimates the memory it needs, and says what is known of its outputs, before it runs.
    fn estimate(_: &Self::Params, _: &Self::Tuning, _: &EstimateContext<'_>) -> Estimate {
        Estimate::default()
    }

    /// Checks what the types of the fields do not promise.
    ///
    /// # Errors
    /// The first that is wrong, with the path of the field from the stage's table.
    fn check(_: &Self::Params) -> Result<(), FieldError> {
        Ok(())
    }

    /// Does the work: reads inputs and writes outputs through the context, and nothing else.
    ///
    /// # Errors
    /// [`StageFailure`], naming the file and the row.
    fn run(params: &Self::Params, tuning: &Self::Tuning, context: &mut Context) -> Result<(), StageFailure>;
}

/// A field that names a file of which only a part is seen: when the experiment is read, that part takes
/// the field's place, so that nothing else of the file is keyed.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt {
    /// The name of the field.
    pub field: &'static str,
    /// Returns what takes the field's place, if anything does, given the field as written and a
    /// function that reads a file by its path as written. An error has its path from the field.
    pub read: ReadExcerpt,
}

/// See [`Excerpt::read`].
pub type ReadExcerpt = fn(
    &serde_json::Value,
    &dyn Fn(&str) -> Result<String, String>,
) -> Result<Option<serde_json::Value>, FieldError>;

/// The tuning of kinds without any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoTuning {}

/// How far a stage is isolated from the program that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// It runs on a thread of the coordinator: light work, or waiting for a program. A time-out
    /// ends the program; it cannot end a thread.
    InProcess,
    /// It runs in a process of its own: a crash or an out-of-memory kill costs this stage only.
    Subprocess,
}

/// A stage's parameters, read, resolved and checked, without their type.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// All parameters with their defaults; files as written.
    pub params: Value,
    /// How it is computed, with defaults.
    pub tuning: Value,
    /// What goes in and what comes out.
    pub ports: Ports,
    /// Versioned methods inside.
    pub components: Vec<Component>,
    /// What it needs of the machine.
    pub resources: Resources,
}

type EstimateFn = fn(&Value, &Value, &EstimateContext<'_>) -> Estimate;
type Parse = fn(&TomlValue) -> Result<Parsed, Diagnostic>;
type Run = fn(&Job, &mut Context) -> Result<(), StageFailure>;

/// A stage kind without its types: what the engine holds.
#[derive(Clone, Copy)]
pub struct Kind {
    name: &'static str,
    version: u32,
    seeded: bool,
    isolation: Isolation,
    renamed: &'static [(&'static str, &'static str)],
    picks: &'static [Pick],
    excerpt: Option<Excerpt>,
    /// Only where the kind estimates anything.
    estimate: Option<EstimateFn>,
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
            isolation: S::ISOLATION,
            renamed: S::RENAMED,
            picks: S::PICKS,
            excerpt: S::EXCERPT,
            estimate: if S::ESTIMATES { Some(estimate::<S>) } else { None },
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

    /// Returns whether it runs in a process of its own.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Returns what its fields, choices, ports and columns were called before.
    pub(crate) fn renamed(&self) -> Renamed {
        Renamed(self.renamed)
    }

    /// Returns the tables from which other fields pick entries.
    pub(crate) fn picks(&self) -> &'static [Pick] {
        self.picks
    }

    /// Returns the field that names a file of which only a part is keyed.
    pub(crate) fn excerpt(&self) -> Option<Excerpt> {
        self.excerpt
    }

    /// Returns the JSON Schema of its parameters and its tuning, which are fields of one table, and of
    /// the fields that pick among them.
    pub fn schema(&self) -> serde_json::Value {
        (self.schema)()
    }

    /// Returns the names of its parameters and of its tuning.
    pub(crate) fn field_names(&self) -> Vec<String> {
        let schema = self.schema();
        let fields = schema.get("properties").and_then(serde_json::Value::as_object);
        fields.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Returns what it says of a stage before it runs; nothing for kinds that estimate nothing.
    pub(crate) fn estimate(&self, params: &Value, tuning: &Value, context: &EstimateContext<'_>) -> Estimate {
        self.estimate.map_or_else(Estimate::default, |estimate| estimate(params, tuning, context))
    }

    pub(crate) fn parse(&self, params: &TomlValue) -> Result<Parsed, Diagnostic> {
        (self.parse)(params)
    }

    pub(crate) fn run(&self, job: &Job, context: &mut Context) -> Result<(), StageFailure> {
        (self.run)(job, context)
    }
}

fn parse<S: Stage>(written: &TomlValue) -> Result<Parsed, Diagnostic> {
    let (params, tuning): (S::Params, S::Tuning) = read_split(written)?;
    S::check(&params).map_err(|FieldError { path, message, help }| {
        Diagnostic::new(written.locate(&path).clone(), message).maybe_help(help)
    })?;
    let invalid = |error: EncodeError| Diagnostic::new(written.span.clone(), error.to_string());
    let values = (Value::of(&params).map_err(invalid)?, Value::of(&tuning).map_err(invalid)?);
    let ports = S::ports(&params);
    if let Some(invalid) = &ports.invalid {
        return Err(Diagnostic::new(written.span.clone(), invalid.to_string()));
    }
    Ok(Parsed {
        params: values.0,
        tuning: values.1,
        ports,
        components: S::components(&params),
        resources: S::resources(&params),
    })
}

/// Reads the parameters and the tuning of a kind from one table.
pub(crate) fn read_split<P: DeserializeOwned, T: DeserializeOwned>(
    written: &TomlValue,
) -> Result<(P, T), Diagnostic> {
    let fields = field_names::<T>();
    debug_assert!(
        field_names::<P>().iter().all(|name| !fields.contains(name)),
        "a field is either part of the key or not: {fields:?}"
    );
    let (mut params, mut tuning) = (TomlTable::new(), TomlTable::new());
    for (name, entry) in written.as_table().into_iter().flatten() {
        let table = if fields.contains(&name.as_str()) { &mut tuning } else { &mut params };
        table.insert(name.clone(), entry.clone());
    }
    let value = |table| TomlValue { span: written.span.clone(), content: Content::Table(table) };
    Ok((read(&value(params))?, read(&value(tuning))?))
}

fn estimate<S: Stage>(params: &Value, tuning: &Value, context: &EstimateContext<'_>) -> Estimate {
    // As a worker reads them. What cannot be read fails there, and says why.
    let params = serde_json::to_value(params).ok().and_then(|params| S::Params::deserialize(params).ok());
    let tuning = serde_json::to_value(tuning).ok().and_then(|tuning| S::Tuning::deserialize(tuning).ok());
    params
        .zip(tuning)
        .map_or_else(Estimate::default, |(params, tuning)| S::estimate(&params, &tuning, context))
}

fn run<S: Stage>(job: &Job, context: &mut Context) -> Result<(), StageFailure> {
    let unreadable = |error| StageFailure::caused("read the job's parameters", error);
    let params = S::Params::deserialize(&job.params).map_err(unreadable)?;
    let tuning = S::Tuning::deserialize(&job.tuning).map_err(unreadable)?;
    S::run(&params, &tuning, context)
}

fn schema_of<S: Stage>() -> serde_json::Value {
    let mut schema = schemars::schema_for!(S::Params).to_value();
    let tuning = schemars::schema_for!(S::Tuning).to_value();
    for part in ["properties", "$defs"] {
        let Some(more) = tuning.get(part).and_then(serde_json::Value::as_object) else { continue };
        let fields = schema.as_object_mut().expect("parameters are a struct").entry(part);
        let fields = fields.or_insert_with(|| serde_json::json!({}));
        fields.as_object_mut().expect("an object in every schema").extend(more.clone());
    }
    S::PICKS.iter().for_each(|pick| add_pick(&mut schema, *pick));
    schema
}

/// Adds the fields of a pick that are no parameters.
fn add_pick(schema: &mut serde_json::Value, pick: Pick) {
    let Pick { from, names, by } = pick;
    let (field, of_field) = match by {
        By::Name { field, into } => {
            let entry = schema["properties"][into].clone();
            let entries: serde_json::Map<_, _> =
                names.iter().map(|name| ((*name).to_owned(), entry.clone())).collect();
            if let Some(required) = schema["required"].as_array_mut() {
                required.retain(|name| name != into);
            }
            let description = format!("In place of `{into}`: `{field}` picks one of these.");
            let table = serde_json::json!({
                "type": "object",
                "properties": entries,
                "additionalProperties": false,
                "description": description
            });
            (from, table)
        }
        By::List { field } => {
            let description = format!("Which of `{from}` are used; all of them if not given.");
            let list = serde_json::json!({
                "type": "array",
                "items": { "enum": names },
                "description": description
            });
            (field, list)
        }
    };
    schema["properties"][field] = of_field;
}
