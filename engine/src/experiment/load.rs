//! Text to [`Experiment`]: files, profile and overrides merged, not yet planned.

use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::experiment::assemble::assemble;
use crate::experiment::axes::nested;
use crate::experiment::layers::{Layer, Overlay};
use crate::experiment::published::Published;
use crate::experiment::spec::{Experiment, Request, changes_nothing};
use crate::kind::input_file::tidy;
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
        let (layers, doubtful) = (std::mem::take(&mut loader.layers), std::mem::take(&mut loader.doubtful));
        assemble(&mut experiment, layers, kinds, doubtful, &mut loader.diagnostics);
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
    /// Where syntax errors are.
    doubtful: Vec<Span>,
}

impl Loader<'_> {
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
