//! Text to [`Experiment`]: files, profile and overrides merged, not yet planned.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};

use crate::experiment::assemble::assemble;
use crate::experiment::axes::nested;
use crate::experiment::defaults::unknown_kind;
use crate::experiment::excerpts::read_excerpts;
use crate::experiment::layers::{Layer, Origin};
use crate::experiment::published::Published;
use crate::experiment::spec::{Experiment, Namespace, Request, changes_nothing};
use crate::kind::input_file::tidy;
use crate::kind::name::{is_name, qualified, split_namespace};
use crate::kind::stage::Kind;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::parse::{doubtful, parse, parse_value};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// The profile that is used if the files define it and none is requested.
const DEFAULT_PROFILE: &str = "mini";

impl Experiment {
    /// Reads an experiment. What is wrong with it is kept until it is planned, so that one
    /// report covers it all.
    pub fn load(
        request: &Request,
        kinds: &'static [Kind],
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Self {
        let mut loader = Loader {
            sources: SourceMap::default(),
            diagnostics: Vec::new(),
            read,
            layers: Vec::new(),
            loaded: Vec::new(),
            namespace: String::new(),
            namespaces: IndexMap::new(),
            profile: request.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned()),
            profiles: IndexSet::new(),
            unused: Vec::new(),
            note: None,
            is_incomplete: false,
            doubtful: Vec::new(),
        };
        loader.load_file(&request.file, None, &mut Vec::new());
        let profile = loader.profile_in_use(request);
        loader.check_unused_profiles(kinds);
        for text in &request.set {
            loader.add_override(text);
        }
        let mut experiment = Self {
            sources: SourceMap::default(),
            diagnostics: Vec::new(),
            has_syntax_errors: loader.is_incomplete,
            file: request.file.clone(),
            title: None,
            seed: 0,
            seed_span: None,
            namespaces: std::mem::take(&mut loader.namespaces),
            seed_axes: Vec::new(),
            seeds: None,
            profile,
            profile_note: loader.note.take(),
            stages: IndexMap::new(),
            broken_stages: BTreeSet::new(),
            tables: Vec::new(),
            own_kinds: Vec::new(),
            data: request.data.clone(),
        };
        let (layers, doubtful) = (std::mem::take(&mut loader.layers), std::mem::take(&mut loader.doubtful));
        assemble(&mut experiment, layers, kinds, &loader.sources, doubtful, &mut loader.diagnostics);
        let read_text =
            |path: &Path| read(path).map_err(|error| format!("failed to read `{}`: {error}", path.display()));
        loader.diagnostics.extend(read_excerpts(&mut experiment, &loader.sources, &read_text));
        if let Some(count) = request.seeds {
            let base = loader.sources.add("--seeds".to_owned(), PathBuf::new(), count.to_string());
            experiment.count_seeds(count, &(base..base + count.to_string().len()));
        }
        loader.read_published(&mut experiment);
        experiment.sources = loader.sources;
        experiment.diagnostics = loader.diagnostics;
        experiment
    }
}

struct Loader<'a> {
    sources: SourceMap,
    diagnostics: Vec<Diagnostic>,
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    layers: Vec<Layer>,
    /// Files that are loaded already: each is loaded once, where it is first included.
    loaded: Vec<PathBuf>,
    /// The namespace of the file that is being loaded.
    namespace: String,
    namespaces: IndexMap<String, Namespace>,
    /// The profile that is used where files have it.
    profile: String,
    /// The profiles that files have.
    profiles: IndexSet<String>,
    /// The parts of the other profiles.
    unused: Vec<UnusedProfile>,
    note: Option<String>,
    /// Whether a file, or a part of one, could not be read.
    is_incomplete: bool,
    /// Where syntax errors are.
    doubtful: Vec<Span>,
}

/// A file's part of a profile that is not in use.
struct UnusedProfile {
    name: String,
    namespace: String,
    table: TomlTable,
}

/// A file to include, and the namespace that it gets.
struct Included {
    path: String,
    span: Span,
    namespace: Option<(String, Span)>,
}

impl Loader<'_> {
    /// Adds the layers of a file: those of the files that it includes, its own, and that of its
    /// profile.
    fn load_file(&mut self, path: &Path, asked_at: Option<&Span>, chain: &mut Vec<PathBuf>) {
        self.loaded.push(tidy(path));
        let name = path.display().to_string();
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let text = match (self.read)(path) {
            Ok(text) => text,
            Err(error) => {
                let span = asked_at.cloned().unwrap_or_else(|| {
                    let base = self.sources.add(name.clone(), folder, String::new());
                    base..base
                });
                let message = format!("failed to read `{name}`: {error}");
                return self
                    .report_incomplete(Diagnostic::new(span, message).help("check the path of the file"));
            }
        };
        let base = self.sources.add_to(self.namespace.clone(), name, folder.clone(), text.clone());
        let (mut root, diagnostics) = parse(&text, base);
        self.doubtful.extend(diagnostics.iter().map(|diagnostic| {
            let range = doubtful(&text, diagnostic.span.start - base);
            base + range.start..base + range.end
        }));
        diagnostics.into_iter().for_each(|diagnostic| self.report_incomplete(diagnostic));
        if text.trim().is_empty() {
            self.report_incomplete(
                Diagnostic::new(base..base, "the experiment file is empty")
                    .help("it needs at least one stage: `[stages.NAME]` with a `kind`"),
            );
        }
        let include = root.get("experiment").and_then(|entry| entry.value.as_table()?.get("include"));
        let include = include.map(|entry| entry.value.clone());
        let profiles = root.shift_remove("profile").map(|entry| entry.value);
        chain.push(tidy(path));
        self.load_included(include.as_ref(), &folder, chain);
        self.layers.push(Layer { root, origin: Origin::File, namespace: self.namespace.clone() });
        self.load_profiles(profiles, &folder, chain);
        chain.pop();
    }

    fn load_included(&mut self, include: Option<&Value>, folder: &Path, chain: &mut Vec<PathBuf>) {
        let Some(include) = include else { return };
        let mut diagnostics = Vec::new();
        let items = read_include(include, &mut diagnostics);
        diagnostics.into_iter().for_each(|diagnostic| self.report_incomplete(diagnostic));
        for Included { path, span, namespace } in items {
            let target = tidy(&folder.join(&path));
            if chain.contains(&target) {
                let message = format!("`{path}` includes itself");
                self.report_incomplete(Diagnostic::new(span, message).help("take one of the includes out"));
                continue;
            }
            let Some((name, named_at)) = namespace else {
                if !self.loaded.contains(&target) {
                    self.load_file(&target, Some(&span), chain);
                }
                continue;
            };
            let full = qualified(&self.namespace, &name);
            match self.namespaces.get(&full) {
                Some(other) if other.path == target => continue,
                Some(other) => {
                    let place = self.sources.line(&other.span);
                    let message =
                        format!("the namespace `{name}` is taken by `{}`, in {place}", other.path.display());
                    let diagnostic = Diagnostic::new(named_at, message).label("names two files");
                    self.report_incomplete(diagnostic.help("use another name for one of them"));
                    continue;
                }
                None => {}
            }
            let namespace = Namespace {
                path: target.clone(),
                span: named_at,
                title: None,
                seed: 0,
                seed_span: None,
                seeds: None,
            };
            self.namespaces.insert(full.clone(), namespace);
            // Loaded apart: what it includes is its own, even if it was included before.
            let outer = (std::mem::replace(&mut self.namespace, full), std::mem::take(&mut self.loaded));
            self.load_file(&target, Some(&span), chain);
            (self.namespace, self.loaded) = outer;
        }
    }

    /// Adds the layers of a file's part of the profile in use, and keeps the other profiles.
    fn load_profiles(&mut self, profiles: Option<Value>, folder: &Path, chain: &mut Vec<PathBuf>) {
        let Some(Value { span, content }) = profiles else { return };
        let Content::Table(profiles) = content else {
            let message = format!("`profile` is a table, not {}", content.describe());
            return self.diagnostics.push(Diagnostic::new(span, message));
        };
        for (name, Entry { value: Value { span, content }, .. }) in profiles {
            self.profiles.insert(name.clone());
            let Content::Table(table) = content else {
                self.diagnostics.push(Diagnostic::new(span, "a profile is a table"));
                continue;
            };
            for (field, entry) in &table {
                self.diagnostics.extend(wrong_in_profile(&name, field, entry));
            }
            if let Some((_, entry)) = subtable(&table, "experiment").find(|(field, _)| *field == "include") {
                let message = format!("profile `{name}` includes files in `experiment`");
                let help = format!("write `include` in `[profile.{name}]` itself");
                self.diagnostics.push(Diagnostic::new(entry.key.clone(), message).help(help));
            }
            if name != self.profile {
                let namespace = self.namespace.clone();
                self.unused.push(UnusedProfile { name, namespace, table });
                continue;
            }
            self.load_included(table.get("include").map(|entry| &entry.value), folder, chain);
            if let Some(Content::Text(note)) = table.get("note").map(|entry| &entry.value.content) {
                self.note = Some(note.clone());
            }
            let namespace = self.namespace.clone();
            self.layers.push(Layer { root: table, origin: Origin::Profile, namespace });
        }
    }

    /// Reports what is wrong with the files themselves: what is said of stages may be incomplete then.
    fn report_incomplete(&mut self, diagnostic: Diagnostic) {
        self.is_incomplete = true;
        self.diagnostics.push(diagnostic);
    }

    /// Returns the profile that is used, if the files have it.
    fn profile_in_use(&mut self, request: &Request) -> Option<String> {
        if self.profiles.contains(&self.profile) {
            return Some(self.profile.clone());
        }
        let name = request.profile.as_ref()?;
        let base = self.sources.add("--profile".to_owned(), PathBuf::new(), name.clone());
        let help = nearest_or_all(name, "profiles", self.profiles.iter().map(String::as_str))
            .unwrap_or_else(|| "the files have no profiles".to_owned());
        let message = format!("there is no profile `{name}`");
        self.diagnostics.push(Diagnostic::new(base..base + name.len(), message).help(help));
        None
    }

    /// Checks the profiles that are not used, as far as it goes without the files that they include.
    fn check_unused_profiles(&mut self, kinds: &[Kind]) {
        let stages = self.stage_names();
        let mut own: BTreeSet<(&str, String)> = BTreeSet::new();
        let mut including: BTreeSet<&str> = BTreeSet::new();
        for UnusedProfile { name, namespace, table } in &self.unused {
            let declares =
                |entry: &Entry| entry.value.as_table().is_some_and(|stage| stage.contains_key("kind"));
            let declared = subtable(table, "stages").filter(|(_, entry)| declares(entry));
            own.extend(declared.map(|(stage, _)| (name.as_str(), qualified(namespace, stage))));
            including.extend(table.contains_key("include").then_some(name.as_str()));
        }
        let mut diagnostics = Vec::new();
        let tables =
            self.layers.iter().map(|layer| &layer.root).chain(self.unused.iter().map(|unused| &unused.table));
        let defined = tables.flat_map(|table| subtable(table, "kinds")).map(|(name, _)| name.as_str());
        let names: Vec<&str> = kinds.iter().map(|kind| -> &str { kind.name() }).chain(defined).collect();
        for (name, entry) in self.unused.iter().flat_map(|unused| subtable(&unused.table, "defaults")) {
            let kind = split_namespace(name).1;
            if !names.contains(&kind) {
                diagnostics.push(unknown_kind(kind, entry.key.clone(), names.iter().copied()));
            }
        }
        let checked = self.unused.iter().filter(|unused| !including.contains(unused.name.as_str()));
        for UnusedProfile { name, namespace, table } in checked {
            for (stage, entry) in subtable(table, "stages") {
                let stage = qualified(namespace, stage);
                if !stages.contains(&stage) && !own.contains(&(name.as_str(), stage.clone())) {
                    let known = stages.iter().map(String::as_str);
                    diagnostics.push(changes_nothing(&stage, entry.key.clone(), known));
                }
            }
        }
        self.diagnostics.extend(diagnostics);
    }

    /// Returns the names of all stages that layers speak of.
    fn stage_names(&self) -> IndexSet<String> {
        let names = |layer: &Layer| {
            let stages = subtable(&layer.root, "stages");
            stages.map(|(name, _)| qualified(&layer.namespace, name)).collect::<Vec<_>>()
        };
        self.layers.iter().flat_map(names).collect()
    }

    fn add_override(&mut self, text: &str) {
        let base = self.sources.add("--set".to_owned(), PathBuf::new(), text.to_owned());
        let all = base..base + text.len();
        let Some((path, value)) = text.split_once('=') else {
            let help = "write `--set stages.NAME.FIELD=VALUE`";
            self.diagnostics.push(Diagnostic::new(all, format!("`{text}` sets nothing")).help(help));
            return;
        };
        let key = base..base + path.len();
        let mut parts = path.split('.').map(str::trim);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let known = match first {
            "stages" => self.stage_names().contains(second),
            "experiment" => ["seed", "seeds", "title"].contains(&second),
            "defaults" => !second.is_empty(),
            "table" | "tables" => true,
            _ => false,
        };
        if !known || parts.any(str::is_empty) {
            let stages = self.stage_names();
            let help = match first {
                "stages" => nearest_or_all(second, "stages", stages.iter().map(String::as_str)),
                _ => {
                    Some("write `--set stages.NAME.FIELD=VALUE` or `--set experiment.seed=VALUE`".to_owned())
                }
            };
            let message = format!("`{path}` is nothing that can be set");
            self.diagnostics.push(Diagnostic::new(key, message).maybe_help(help));
            return;
        }
        let value_base = key.end + 1;
        let mut parsed = parse_value(value.trim(), value_base).unwrap_or_else(|_| Value {
            // A bare word is meant as text, as a shell eats quotes.
            span: value_base..all.end,
            content: Content::Text(value.trim().to_owned()),
        });
        parsed.span = value_base..all.end;
        let root = nested(path, &key, parsed);
        self.layers.push(Layer { root, origin: Origin::Set, namespace: String::new() });
    }

    fn read_published(&mut self, experiment: &mut Experiment) {
        for table in &mut experiment.tables {
            let Some(file) = table.spec.published.as_ref().map(|published| &published.file) else { continue };
            let path = self.sources.folder(&file.span).join(&file.text);
            match (self.read)(&path) {
                Ok(text) => {
                    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
                    let base = self.sources.add(path.display().to_string(), folder, text.clone());
                    let (root, diagnostics) = parse(&text, base);
                    self.diagnostics.extend(diagnostics);
                    table.published = Some(Published::read(&root, &mut self.diagnostics));
                }
                Err(error) => {
                    let message =
                        format!("failed to read the published numbers `{}`: {error}", path.display());
                    self.diagnostics.push(
                        Diagnostic::new(file.span.clone(), message)
                            .help("check the path, which starts from this file's folder"),
                    );
                }
            }
        }
    }
}

/// Returns what is wrong with one field of a profile.
fn wrong_in_profile(profile: &str, field: &str, entry: &Entry) -> Option<Diagnostic> {
    let known = ["stages", "defaults", "kinds", "experiment", "table", "tables", "include", "note"];
    let expected = match (field, &entry.value.content) {
        ("note", Content::Text(_)) => return None,
        ("note", _) => "`note` is a string",
        ("comparable", _) => {
            let help = "write `[table.comparable.NAME]` with `stage` and `is`, the fields that it must have: \
                        conditions are checked in every profile";
            let message = "`comparable` of a profile is now a condition of the table";
            return Some(Diagnostic::new(entry.key.clone(), message).label("renamed").help(help));
        }
        _ if known.contains(&field) => return None,
        _ => {
            let message = format!("unknown field `{field}` in profile `{profile}`");
            let help = nearest_or_all(field, "a profile has", known);
            return Some(Diagnostic::new(entry.key.clone(), message).maybe_help(help));
        }
    };
    Some(Diagnostic::new(entry.value.span.clone(), expected))
}

/// Returns the entries of a table inside a root, or none.
fn subtable<'a>(root: &'a TomlTable, name: &str) -> impl Iterator<Item = (&'a String, &'a Entry)> + use<'a> {
    root.get(name).and_then(|entry| entry.value.as_table()).into_iter().flatten()
}

/// Reads which files to include: a list of paths and of tables `{ NAMESPACE = path }`, or such a table.
fn read_include(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<Included> {
    let mut included = Vec::new();
    let mut wrong = |value: &Value, expected: &str| {
        let message = format!("expected {expected}, not {}", value.describe());
        diagnostics.push(Diagnostic::new(value.span.clone(), message).help("write `include = [\"FILE\"]`"));
    };
    if value.as_list().is_none() && value.as_table().is_none() {
        wrong(value, "a list of files, or a table of namespaces");
        return included;
    }
    for item in value.items() {
        match &item.content {
            Content::Text(path) => {
                included.push(Included { path: path.clone(), span: item.span.clone(), namespace: None });
            }
            Content::Table(table) => {
                for (name, Entry { key, value }) in table {
                    let Some(path) = value.as_text() else {
                        wrong(value, "a file");
                        continue;
                    };
                    let namespace = Some((name.clone(), key.clone()));
                    included.push(Included { path: path.to_owned(), span: value.span.clone(), namespace });
                }
            }
            _ => wrong(item, "a file, or a table of namespaces"),
        }
    }
    let is_named = |included: &Included| included.namespace.as_ref().is_none_or(|(name, _)| is_name(name));
    let (included, misnamed): (Vec<_>, Vec<_>) = included.into_iter().partition(is_named);
    diagnostics.extend(misnamed.into_iter().filter_map(|Included { namespace, .. }| {
        let (name, span) = namespace?;
        let diagnostic = Diagnostic::new(span, format!("`{name}` cannot name a namespace"));
        Some(diagnostic.help("use letters, digits, `_` and `-`"))
    }));
    included
}
