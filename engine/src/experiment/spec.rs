//! An experiment as written, and each of its stages before axes multiply it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::experiment::axes::Axis;
use crate::experiment::layers::{Choices, overlay_stage};
use crate::experiment::own_kind::OwnKind;
use crate::experiment::settings::Settings;
use crate::experiment::table_spec::TableDeclaration;
use crate::kind::name::split_namespace;
use crate::kind::stage::Kind;
use crate::toml::diagnostic::{Diagnostic, did_you_mean, nearest_or_all};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{TomlTable, Value};

/// What the user requests.
#[derive(Debug, Clone)]
pub struct Request {
    /// The experiment file.
    pub file: PathBuf,
    /// The profile, if one is requested.
    pub profile: Option<String>,
    /// Overrides, each `path=value`.
    pub set: Vec<String>,
    /// How many seeds in a row the experiment is to have, from its own; `None` for those it says.
    pub seeds: Option<u32>,
    /// What `${data}` stands for.
    pub data: Option<PathBuf>,
}

impl Request {
    /// Requests a file without a profile or overrides.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), profile: None, set: Vec::new(), seeds: None, data: None }
    }
}

/// What is written once for a stage, before axes multiply it.
#[derive(Debug, Clone)]
pub(crate) struct StageSpec {
    pub name: String,
    pub key: Span,
    pub kind: &'static Kind,
    /// The kind that the experiment makes of a program, if it is of one: `kind` is then the one that
    /// runs programs.
    pub own_kind: Option<Arc<OwnKind>>,
    /// All layers, with axes and the engine's own fields taken off; inputs still on.
    pub table: TomlTable,
    pub span: Span,
    /// The defaults of its kind, which lie below all layers.
    pub defaults: Option<Arc<TomlTable>>,
    /// What its layers say, but for the nearest one; empty where only one speaks of the stage.
    pub below: Vec<TomlTable>,
    pub axes: Vec<Axis>,
    pub only: Option<Value>,
    pub except: Option<Value>,
    pub about: Option<String>,
    pub choices: Arc<Choices>,
    pub settings: Settings,
    /// Whether it has a mistake that was reported already, so that nothing more is said of it.
    pub is_broken: bool,
}

impl StageSpec {
    /// Returns the name of its kind, as the experiment has it.
    pub(crate) fn kind_name(&self) -> &str {
        self.own_kind.as_ref().map_or(self.kind.name(), |own| &own.name)
    }

    /// Overlays its table with a variant of one of its axes.
    pub(crate) fn overlay(&self, table: &mut TomlTable, axis: &Axis, variant: usize) {
        let over = &axis.variants[variant].overlay;
        overlay_stage(table, over, self.kind, &self.choices, axis.overlay());
    }

    /// Turns a table as it is written into one that the kind reads: a stage of the experiment's own kind
    /// becomes that of a program, and what other fields pick is picked.
    ///
    /// # Errors
    /// What is wrong with the fields that take part.
    pub(crate) fn pick(&self, table: &mut Cow<'_, TomlTable>) -> Result<(), Diagnostic> {
        if let Some(own) = &self.own_kind {
            let program = own.program_of(table, &self.span).map_err(|mut diagnostic| {
                diagnostic.message = format!("stage `{}` ({}): {}", self.name, own.name, diagnostic.message);
                diagnostic
            })?;
            *table = Cow::Owned(program);
        }
        for pick in self.kind.picks() {
            if !pick.applies(table) {
                continue;
            }
            pick.apply(table.to_mut()).map_err(|mut diagnostic| {
                diagnostic.message =
                    format!("stage `{}` ({}): {}", self.name, self.kind.name(), diagnostic.message);
                diagnostic
            })?;
        }
        Ok(())
    }

    /// Finds an axis that the stage declares by its name, maybe written `stage.axis`.
    pub(crate) fn own_axis(&self, name: &str) -> Option<usize> {
        // In a file that is included under a name, the stage has no namespace.
        let mut owners = [self.name.as_str(), split_namespace(&self.name).1].into_iter();
        let name = owners.find_map(|owner| name.strip_prefix(owner)?.strip_prefix('.')).unwrap_or(name);
        self.axes.iter().position(|axis| axis.name == name)
    }
}

/// A file that is included under a name: its stages are called `NAME/STAGE`.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub path: PathBuf,
    /// Where its name is written.
    pub span: Span,
    /// The heading of its tables.
    pub title: Option<String>,
    pub seed: u64,
    pub seed_span: Option<Span>,
    /// The position of the axis over its seeds among all, if it has several.
    pub seeds: Option<usize>,
}

/// An experiment as written: everything resolved that text alone can resolve.
#[derive(Debug, Clone)]
pub struct Experiment {
    pub(crate) sources: SourceMap,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) has_syntax_errors: bool,
    pub(crate) file: PathBuf,
    pub(crate) title: Option<String>,
    pub(crate) seed: u64,
    pub(crate) seed_span: Option<Span>,
    pub(crate) namespaces: IndexMap<String, Namespace>,
    /// All axes over seeds: its own, and those of its namespaces.
    pub(crate) seed_axes: Vec<Axis>,
    /// The position of the axis over its seeds, if it has several.
    pub(crate) seeds: Option<usize>,
    pub(crate) profile: Option<String>,
    pub(crate) profile_note: Option<String>,
    pub(crate) stages: IndexMap<String, StageSpec>,
    /// Stages that are not among them for a mistake that was reported: what reads them is not to blame.
    pub(crate) broken_stages: BTreeSet<String>,
    /// The kinds that it makes of programs.
    pub(crate) own_kinds: Vec<Arc<OwnKind>>,
    pub(crate) tables: Vec<TableDeclaration>,
    pub(crate) data: Option<PathBuf>,
}

impl Experiment {
    /// Returns the experiment file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the title, or the file's name.
    pub fn title(&self) -> String {
        let of_file =
            || self.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        self.title.clone().unwrap_or_else(of_file)
    }

    /// Returns the profile that is applied, if there is one.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Returns the seed of the file that a stage belongs to, and where it is written.
    pub(crate) fn seed_of(&self, stage: &str) -> (u64, Option<&Span>) {
        match self.namespaces.get(split_namespace(stage).0) {
            Some(namespace) => (namespace.seed, namespace.seed_span.as_ref()),
            None => (self.seed, self.seed_span.as_ref()),
        }
    }

    /// Returns the files that it includes, and other texts that it read, in the order of the reading.
    pub(crate) fn included_files(&self) -> impl DoubleEndedIterator<Item = &Path> {
        self.sources.names().map(Path::new)
    }

    /// Returns the kinds that it defines, each with the JSON Schema of its parameters.
    pub fn own_kinds(&self) -> Vec<(String, serde_json::Value)> {
        self.own_kinds.iter().map(|own| (own.name.clone(), own.schema())).collect()
    }

    /// Returns the names of the stages, in the order of the files.
    pub fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages.keys().map(String::as_str)
    }
}

/// Reports that a stage does not exist, with the nearest name.
pub(crate) fn unknown_stage(name: &str, span: Span, stages: &IndexMap<String, StageSpec>) -> Diagnostic {
    Diagnostic::new(span, format!("there is no stage `{name}`"))
        .label("no such stage")
        .maybe_help(did_you_mean(name, stages.keys().map(String::as_str)))
}

/// Reports that a profile changes a stage that does not exist.
pub(crate) fn changes_nothing<'a>(
    stage: &str,
    key: Span,
    stages: impl IntoIterator<Item = &'a str> + Clone,
) -> Diagnostic {
    Diagnostic::new(key, format!("a profile changes stage `{stage}`, which is not there"))
        .label("no such stage")
        .maybe_help(nearest_or_all(stage, "stages", stages))
}
