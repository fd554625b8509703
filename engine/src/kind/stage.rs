//! What a stage kind is: parameters, ports, versions, run.

use std::fmt;

use cache::Value;
use choice::Component;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kind::context::Context;
use crate::kind::failure::Failure;
use crate::kind::memory::{Estimate, EstimateContext};
use crate::kind::ports::{Ports, Resources};
use crate::process::job::Job;
use crate::toml::deserialize::read;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::value::Value as TomlValue;

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
    /// The parameters that say how it is computed, and change no byte of what comes out: they are no
    /// part of the key.
    const UNKEYED: &'static [&'static str] = &[];
    /// Everything that a user can say about it. All the rest of it is part of the key.
    type Params: DeserializeOwned + Serialize + JsonSchema;

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
    fn estimate(_: &Self::Params, _: &EstimateContext<'_>) -> Estimate {
        Estimate::default()
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
    pub value: Value,
    /// What goes in and what comes out.
    pub ports: Ports,
    /// Versioned methods inside.
    pub components: Vec<Component>,
    /// What it needs of the machine.
    pub resources: Resources,
}

type EstimateFn = fn(&Value, &EstimateContext<'_>) -> Estimate;
type Parse = fn(&TomlValue) -> Result<Parsed, Diagnostic>;
type Run = fn(&Job, &mut Context) -> Result<(), Failure>;

/// A stage kind without its types: what the engine holds.
#[derive(Clone, Copy)]
pub struct Kind {
    name: &'static str,
    version: u32,
    seeded: bool,
    isolation: Isolation,
    unkeyed: &'static [&'static str],
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
            unkeyed: S::UNKEYED,
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

    /// Returns what it says of a stage before it runs; nothing for kinds that estimate nothing.
    pub(crate) fn estimate(&self, params: &Value, context: &EstimateContext<'_>) -> Estimate {
        self.estimate.map_or_else(Estimate::default, |estimate| estimate(params, context))
    }

    pub(crate) fn parse(&self, params: &TomlValue) -> Result<Parsed, Diagnostic> {
        (self.parse)(params)
    }

    pub(crate) fn run(&self, job: &Job, context: &mut Context) -> Result<(), Failure> {
        (self.run)(job, context)
    }
}

fn parse<S: Stage>(written: &TomlValue) -> Result<Parsed, Diagnostic> {
    let params: S::Params = read(written)?;
    S::check(&params).map_err(|message| Diagnostic::new(written.span.clone(), message))?;
    let value =
        Value::of(&params).map_err(|error| Diagnostic::new(written.span.clone(), error.to_string()))?;
    debug_assert!(
        matches!(&value, Value::Map(fields) if S::UNKEYED.iter().all(|name| fields.contains_key(*name))),
        "`{}` leaves {:?} out of its key, and has no such parameters",
        S::KIND,
        S::UNKEYED
    );
    let ports = S::ports(&params);
    if let Some(invalid) = &ports.invalid {
        return Err(Diagnostic::new(written.span.clone(), invalid.to_string()));
    }
    Ok(Parsed { value, ports, components: S::components(&params), resources: S::resources(&params) })
}

fn estimate<S: Stage>(params: &Value, context: &EstimateContext<'_>) -> Estimate {
    // As a worker reads them. What cannot be read fails there, and says why.
    let params = serde_json::to_value(params).ok().and_then(|params| S::Params::deserialize(params).ok());
    params.map_or_else(Estimate::default, |params| S::estimate(&params, context))
}

fn run<S: Stage>(job: &Job, context: &mut Context) -> Result<(), Failure> {
    let params = S::Params::deserialize(&job.params)
        .map_err(|error| Failure::caused("read the job's parameters", error))?;
    S::run(&params, context)
}

fn schema_of<S: Stage>() -> serde_json::Value {
    schemars::schema_for!(S::Params).to_value()
}
