//! Text to [`Experiment`]: files, profile and overrides merged, not yet planned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::experiment::axes::{Axis, nested, read_axes};
use crate::experiment::layers::{Choices, Overlay, overlay};
use crate::experiment::published::Published;
use crate::experiment::settings::read_settings;
use crate::experiment::spec::{Experiment, Request, StageSpec};
use crate::experiment::table_spec::TableSpec;
use crate::kind::input_file::tidy;
use crate::kind::name::is_name;
use crate::kind::schema::choices_of;
use crate::kind::stage::Kind;
use crate::toml::deserialize::read;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::parse::{doubtful, parse, parse_value};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// The profile that is used if the files define it and none is requested.
const DEFAULT_PROFILE: &str = "mini";

/// One layer: a file, a part of a file, or an override.
struct Layer {
    root: TomlTable,
    how: Overlay,
    /// Whether it comes from outside the stages' own declarations.
    is_override: bool,
}

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
            kinds,
            choices: vec![None; kinds.len()],
            loaded: Vec::new(),
            doubtful: Vec::new(),
        };
        loader.load_file(&request.file, None, &mut Vec::new());
        let has_syntax_errors = !loader.diagnostics.is_empty();
        let mut experiment = Self {
            sources: SourceMap::default(),
            diagnostics: Vec::new(),
            has_syntax_errors,
            file: request.file.clone(),
            title: None,
            seed: 0,
            seed_span: None,
            profile: None,
            profile_note: None,
            is_comparable: false,
            stages: IndexMap::new(),
            table: None,
            published: None,
            data: request.data.clone(),
        };
        loader.add_profile(request, &mut experiment);
        loader.check_other_profiles(experiment.profile.as_deref());
        for text in &request.set {
            loader.add_override(text);
        }
        loader.assemble(&mut experiment);
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
    kinds: &'static [Kind],
    /// The choices of each kind, once a stage has needed them.
    choices: Vec<Option<Arc<Choices>>>,
    /// Files that are loaded already: each is loaded once, where it is first included.
    loaded: Vec<PathBuf>,
    /// Where syntax errors are.
    doubtful: Vec<Span>,
}

impl Loader<'_> {
    fn is_doubtful(&self, span: &Span) -> bool {
        self.doubtful.iter().any(|range| range.start <= span.start && span.start < range.end)
    }

    /// Returns whether any name in a table stands where the syntax is wrong.
    fn has_doubtful(&self, table: &TomlTable) -> bool {
        table.values().any(|entry| {
            self.is_doubtful(&entry.key)
                || entry.value.as_table().is_some_and(|below| self.has_doubtful(below))
        })
    }

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
                self.diagnostics.push(Diagnostic::new(span, message).help("check the path of the file"));
                return;
            }
        };
        let base = self.sources.add(name, folder.clone(), text.clone());
        let (root, diagnostics) = parse(&text, base);
        self.doubtful.extend(diagnostics.iter().map(|diagnostic| {
            let range = doubtful(&text, diagnostic.span.start - base);
            base + range.start..base + range.end
        }));
        if text.trim().is_empty() {
            self.diagnostics.push(
                Diagnostic::new(base..base, "the experiment file is empty")
                    .help("it needs at least one stage: `[stages.NAME]` with a `kind`"),
            );
        }
        self.diagnostics.extend(diagnostics);
        chain.push(tidy(path));
        let include = root.get("experiment").and_then(|entry| entry.value.as_table()?.get("include"));
        for item in include.map(|entry| text_list(&entry.value, &mut self.diagnostics)).unwrap_or_default() {
            let target = tidy(&folder.join(&item.0));
            if chain.contains(&target) {
                let message = format!("`{}` includes itself", item.0);
                self.diagnostics.push(Diagnostic::new(item.1, message).help("take one of the includes out"));
                continue;
            }
            if !self.loaded.contains(&target) {
                self.load_file(&target, Some(&item.1), chain);
            }
        }
        chain.pop();
        self.layers.push(Layer { root, how: Overlay::Whole, is_override: false });
    }

    fn add_profile(&mut self, request: &Request, experiment: &mut Experiment) {
        let known: Vec<String> = self
            .layers
            .iter()
            .flat_map(|layer| subtable(&layer.root, "profile"))
            .map(|(name, _)| name.clone())
            .collect();
        let name = match &request.profile {
            Some(name) if known.contains(name) => name.clone(),
            Some(name) => {
                let base = self.sources.add("--profile".to_owned(), PathBuf::new(), name.clone());
                let help = nearest_or_all(name, "profiles", known.iter().map(String::as_str))
                    .unwrap_or_else(|| "the files have no profiles".to_owned());
                let message = format!("there is no profile `{name}`");
                self.diagnostics.push(Diagnostic::new(base..base + name.len(), message).help(help));
                return;
            }
            None if known.iter().any(|known| known == DEFAULT_PROFILE) => DEFAULT_PROFILE.to_owned(),
            None => return,
        };
        let mut layers = Vec::new();
        for layer in &self.layers {
            let Some((_, entry)) = subtable(&layer.root, "profile").find(|(profile, _)| **profile == name)
            else {
                continue;
            };
            let Some(table) = entry.value.as_table() else {
                self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), "a profile is a table"));
                continue;
            };
            for (field, below) in table {
                match field.as_str() {
                    "stages" | "experiment" | "table" => {}
                    "note" => match &below.value.content {
                        Content::Text(note) => experiment.profile_note = Some(note.clone()),
                        _ => self
                            .diagnostics
                            .push(Diagnostic::new(below.value.span.clone(), "`note` is a string")),
                    },
                    "comparable" => match below.value.content {
                        Content::Bool(truth) => experiment.is_comparable = truth,
                        _ => self.diagnostics.push(Diagnostic::new(
                            below.value.span.clone(),
                            "`comparable` is `true` or `false`",
                        )),
                    },
                    _ => self.diagnostics.extend(unknown_in_profile(&name, field, below)),
                }
            }
            layers.push(Layer { root: table.clone(), how: Overlay::Whole, is_override: true });
        }
        self.layers.extend(layers);
        experiment.profile = Some(name);
    }

    /// Checks the profiles that are not used, as far as it goes without using them.
    fn check_other_profiles(&mut self, used: Option<&str>) {
        let stages: Vec<String> = self
            .layers
            .iter()
            .filter(|layer| !layer.is_override)
            .flat_map(|layer| subtable(&layer.root, "stages"))
            .map(|(name, _)| name.clone())
            .collect();
        let mut diagnostics = Vec::new();
        let profiles = self.layers.iter().filter(|layer| !layer.is_override);
        for (name, entry) in profiles.flat_map(|layer| subtable(&layer.root, "profile")) {
            let Some(profile) = entry.value.as_table().filter(|_| Some(name.as_str()) != used) else {
                continue;
            };
            diagnostics
                .extend(profile.iter().filter_map(|(field, below)| unknown_in_profile(name, field, below)));
            for (stage, below) in subtable(profile, "stages").filter(|(stage, _)| !stages.contains(*stage)) {
                diagnostics.push(changes_nothing(stage, below.key.clone(), &stages));
            }
        }
        self.diagnostics.extend(diagnostics);
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
            "stages" => self
                .layers
                .iter()
                .any(|layer| subtable(&layer.root, "stages").any(|(name, _)| name == second)),
            "experiment" => ["seed", "title"].contains(&second),
            "table" => true,
            _ => false,
        };
        if !known || parts.any(str::is_empty) {
            let stages: Vec<String> = self
                .layers
                .iter()
                .flat_map(|layer| subtable(&layer.root, "stages"))
                .map(|(name, _)| name.clone())
                .collect();
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
        self.layers.push(Layer { root, how: Overlay::Leaf, is_override: true });
    }

    fn assemble(&mut self, experiment: &mut Experiment) {
        let mut head = TomlTable::new();
        let mut table = TomlTable::new();
        let mut declared: IndexMap<String, Vec<(usize, Entry)>> = IndexMap::new();
        let mut layers = std::mem::take(&mut self.layers);
        for (position, layer) in layers.iter_mut().enumerate() {
            // Moved out, for this is nearly all of a large experiment.
            let stages = layer.root.get_mut("stages").map(|entry| &mut entry.value.content);
            if let Some(Content::Table(below)) = stages {
                for (stage, entry) in std::mem::take(below) {
                    declared.entry(stage).or_default().push((position, entry));
                }
            }
        }
        for layer in &layers {
            for (name, entry) in &layer.root {
                let below = entry.value.as_table();
                match (name.as_str(), below) {
                    ("experiment", Some(below)) => overlay(&mut head, below, &[], layer.how),
                    ("table", Some(_)) => {
                        let over = TomlTable::from([(name.clone(), entry.clone())]);
                        overlay(&mut table, &over, &[], layer.how);
                    }
                    ("stages", Some(_)) => {}
                    ("profile", Some(_)) if !layer.is_override => {}
                    ("experiment" | "table" | "stages" | "profile", None) => {
                        let message = format!("`{name}` is a table, not {}", entry.value.describe());
                        self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), message));
                    }
                    _ if layer.is_override => {}
                    _ => self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), format!("unknown part `{name}` of an experiment"))
                            .maybe_help(nearest_or_all(
                                name,
                                "an experiment has",
                                ["experiment", "stages", "table", "profile"],
                            )),
                    ),
                }
            }
        }
        self.read_head(&head, experiment);
        let own = |entries: &[(usize, Entry)]| entries.iter().any(|(layer, _)| !layers[*layer].is_override);
        let known: Vec<String> =
            declared.iter().filter(|(_, entries)| own(entries)).map(|(name, _)| name.clone()).collect();
        for (name, entries) in declared {
            if let Some(spec) = self.assemble_stage(&name, entries, &layers, &known) {
                experiment.stages.insert(name, spec);
            }
        }
        if experiment.stages.is_empty() && self.diagnostics.is_empty() {
            self.diagnostics.push(
                Diagnostic::new(0..0, "the experiment has no stages")
                    .help("it needs at least one: `[stages.NAME]` with a `kind`"),
            );
        }
        if let Some(entry) = table.shift_remove("table").filter(|entry| {
            !self.is_doubtful(&entry.key)
                && !entry.value.as_table().is_some_and(|table| self.has_doubtful(table))
        }) {
            match read::<TableSpec>(&entry.value) {
                Ok(spec) => experiment.table = Some((spec, entry.value)),
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
    }

    fn read_head(&mut self, head: &TomlTable, experiment: &mut Experiment) {
        for (name, entry) in head {
            match (name.as_str(), &entry.value.content) {
                ("title", Content::Text(title)) => experiment.title = Some(title.clone()),
                ("seed", Content::Integer(seed @ 0..)) => {
                    experiment.seed = *seed as u64;
                    experiment.seed_span = Some(entry.value.span.clone());
                }
                _ if self.is_doubtful(&entry.key) => {}
                ("include", _) => {}
                ("title", _) => {
                    self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), "`title` is a string"))
                }
                ("seed", _) => {
                    self.diagnostics.push(Diagnostic::new(
                        entry.value.span.clone(),
                        "`seed` is an integer of at least 0",
                    ));
                }
                _ => self.diagnostics.push(
                    Diagnostic::new(entry.key.clone(), format!("unknown field `{name}` of the experiment"))
                        .maybe_help(nearest_or_all(name, "it has", ["title", "include", "seed"])),
                ),
            }
        }
    }

    fn assemble_stage(
        &mut self,
        name: &str,
        entries: Vec<(usize, Entry)>,
        layers: &[Layer],
        known: &[String],
    ) -> Option<StageSpec> {
        let key = entries[0].1.key.clone();
        if !is_name(name) {
            let message = format!("`{name}` cannot name a stage");
            self.diagnostics.push(Diagnostic::new(key, message).help("use letters, digits, `_` and `-`"));
            return None;
        }
        let is_doubtful = entries.iter().any(|(_, entry)| self.is_doubtful(&entry.key));
        let mut tables = Vec::new();
        for (position, Entry { value, .. }) in entries {
            match value.content {
                Content::Table(table) => tables.push((&layers[position], table, value.span)),
                other => {
                    let message = format!("stage `{name}` is a table, not {}", other.describe());
                    self.diagnostics.push(Diagnostic::new(value.span, message));
                    return None;
                }
            }
        }
        if tables.iter().all(|(layer, ..)| layer.is_override) {
            self.diagnostics.push(changes_nothing(name, key, known));
            return None;
        }
        let is_doubtful = is_doubtful || tables.iter().any(|(_, table, _)| self.has_doubtful(table));
        let Some(kind_value) =
            tables.iter().rev().find_map(|(_, table, _)| table.get("kind")).map(|entry| &entry.value)
        else {
            if is_doubtful {
                return None;
            }
            let all: Vec<String> = self.kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
            let message = format!("stage `{name}` has no `kind`");
            self.diagnostics.push(
                Diagnostic::new(key, message)
                    .label("needs a `kind`")
                    .help(format!("kinds: {}", all.join(", "))),
            );
            return None;
        };
        let Some(kind_name) = kind_value.as_text() else {
            let message = format!("the kind of stage `{name}` is a string, not {}", kind_value.describe());
            self.diagnostics.push(
                Diagnostic::new(kind_value.span.clone(), message).maybe_help(nearest_or_all(
                    "",
                    "kinds",
                    self.kinds.iter().map(Kind::name),
                )),
            );
            return None;
        };
        let Some(position) = self.kinds.iter().position(|kind| kind.name() == kind_name) else {
            let names = self.kinds.iter().map(Kind::name);
            self.diagnostics.push(
                Diagnostic::new(kind_value.span.clone(), format!("unknown kind `{kind_name}`"))
                    .label("no such kind of stage")
                    .maybe_help(nearest_or_all(kind_name, "kinds", names)),
            );
            return None;
        };
        let kind = &self.kinds[position];
        let choices = self.choices[position].get_or_insert_with(|| choices_of(kind).into()).clone();
        let mut layered = tables.into_iter();
        let (_, mut table, span) = layered.next().expect("some layer declares the stage");
        let over: Vec<(&Layer, TomlTable, Span)> = layered.collect();
        for (layer, over, _) in &over {
            overlay(&mut table, over, &choices, layer.how);
        }
        let before = self.diagnostics.len();
        let axes = table
            .shift_remove("axes")
            .map(|entry| read_axes(&entry.value, &mut self.diagnostics))
            .unwrap_or_default();
        let is_broken = is_doubtful || self.diagnostics.len() > before;
        for (_, over, _) in over.iter().filter(|(layer, ..)| layer.is_override) {
            self.refuse_overridden_axes(name, over, &axes, &choices);
        }
        table.shift_remove("kind");
        let about = table.shift_remove("about").and_then(|entry| {
            let text = entry.value.as_text().map(str::to_owned);
            if text.is_none() {
                let message = format!("`about` is a string, not {}", entry.value.describe());
                self.diagnostics.push(Diagnostic::new(entry.value.span, message));
            }
            text
        });
        let settings = read_settings(&mut table, &mut self.diagnostics);
        let mut take = |field: &str| table.shift_remove(field).map(|entry| entry.value);
        Some(StageSpec {
            name: name.to_owned(),
            key,
            kind,
            only: take("only"),
            except: take("except"),
            table,
            span,
            axes,
            about,
            choices,
            settings,
            is_broken,
        })
    }

    /// An override of a field that every variant sets again would silently do nothing.
    fn refuse_overridden_axes(&mut self, stage: &str, over: &TomlTable, axes: &[Axis], choices: &Choices) {
        for (field, entry) in over.iter().filter(|(field, _)| *field != "axes") {
            for axis in axes {
                let place = vec![field.clone()];
                let sets = |variant: &crate::experiment::axes::Variant| {
                    let set = variant.overlay.get(field).map(|entry| &entry.value);
                    set.is_some_and(|set| hides(set, &entry.value, axis.overlay(), choices, &place))
                };
                if let Some(variant) = axis.variants.iter().find(|variant| sets(variant)) {
                    let message = format!("`{field}` of stage `{stage}` is set by its axis `{}`", axis.name);
                    let help = if axis.is_scalar {
                        format!("override `stages.{stage}.axes.{}.values` instead", axis.name)
                    } else {
                        format!(
                            "override `stages.{stage}.axes.{}.{}.{field}` instead",
                            axis.name, variant.name
                        )
                    };
                    self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), message).label("would have no effect").help(help),
                    );
                    return;
                }
            }
        }
    }

    fn read_published(&mut self, experiment: &mut Experiment) {
        let Some((spec, value)) = &experiment.table else {
            return;
        };
        let Some(path) = &spec.published else {
            return;
        };
        let span = value.at(&["published".to_owned()]).map_or(value.span.clone(), |value| value.span.clone());
        let path = self.sources.folder(&span).join(path);
        match (self.read)(&path) {
            Ok(text) => {
                let folder = path.parent().map(Path::to_owned).unwrap_or_default();
                let base = self.sources.add(path.display().to_string(), folder, text.clone());
                let (root, diagnostics) = parse(&text, base);
                self.diagnostics.extend(diagnostics);
                experiment.published = Some(Published::read(&root, &mut self.diagnostics));
            }
            Err(error) => {
                let message = format!("failed to read the published numbers `{}`: {error}", path.display());
                self.diagnostics.push(
                    Diagnostic::new(span, message)
                        .help("check the path, which starts from this file's folder"),
                );
            }
        }
    }
}

fn unknown_in_profile(profile: &str, field: &str, entry: &Entry) -> Option<Diagnostic> {
    let known = ["stages", "experiment", "table", "note", "comparable"];
    let message = format!("unknown field `{field}` in profile `{profile}`");
    (!known.contains(&field)).then(|| {
        Diagnostic::new(entry.key.clone(), message).maybe_help(nearest_or_all(field, "a profile has", known))
    })
}

fn changes_nothing(stage: &str, key: Span, stages: &[String]) -> Diagnostic {
    Diagnostic::new(key, format!("a profile changes stage `{stage}`, which is not there"))
        .label("no such stage")
        .maybe_help(nearest_or_all(stage, "stages", stages.iter().map(String::as_str)))
}

/// Returns the entries of a table inside a root, or none.
fn subtable<'a>(root: &'a TomlTable, name: &str) -> impl Iterator<Item = (&'a String, &'a Entry)> + use<'a> {
    root.get(name).and_then(|entry| entry.value.as_table()).into_iter().flatten()
}

fn text_list(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<(String, Span)> {
    let Some(items) = value.as_list() else {
        diagnostics.push(Diagnostic::new(
            value.span.clone(),
            format!("expected a list of strings, not {}", value.describe()),
        ));
        return Vec::new();
    };
    let mut texts = Vec::new();
    for item in items {
        match item.as_text() {
            Some(text) => texts.push((text.to_owned(), item.span.clone())),
            None => diagnostics.push(Diagnostic::new(
                item.span.clone(),
                format!("expected a string, not {}", item.describe()),
            )),
        }
    }
    texts
}

/// Returns whether `top` overrides something that `over` sets.
fn hides(top: &Value, over: &Value, how: Overlay, choices: &Choices, place: &[String]) -> bool {
    let (Some(top), Some(over)) = (top.as_table(), over.as_table()) else {
        return true;
    };
    if choices.iter().any(|choice| choice == place)
        && (how == Overlay::Whole || over.keys().any(|name| !top.contains_key(name)))
    {
        return true;
    }
    over.iter().any(|(name, entry)| {
        let place: Vec<String> = place.iter().chain([name]).cloned().collect();
        top.get(name).is_some_and(|top| hides(&top.value, &entry.value, how, choices, &place))
    })
}
