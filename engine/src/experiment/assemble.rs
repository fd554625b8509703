//! Layers to stages: merges what the layers declare, and reads everything but the kinds' parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::experiment::axes::read_axes;
use crate::experiment::defaults::{Defaults, unknown_kind};
use crate::experiment::layers::{Choices, Layer, Origin, Overlay, overlay};
use crate::experiment::own_kind::{OwnKind, PROGRAM_KIND};
use crate::experiment::reference::Reference;
use crate::experiment::seeds::{read_seeds, replace_seeds};
use crate::experiment::settings::read_settings;
use crate::experiment::spec::{Experiment, StageSpec, changes_nothing};
use crate::experiment::stage_layers::{StageLayer, declared, merged, without_effect};
use crate::experiment::table_layers::TableLayers;
use crate::experiment::table_spec::{TableDeclaration, TableSpec};
use crate::kind::name::{is_name, is_stage_name, qualified, split_namespace};
use crate::kind::schema::choices_of;
use crate::kind::stage::Kind;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, Entry, TomlTable};

/// Fills an experiment from its layers. `doubtful` lists where syntax errors are: what is wrong there
/// is not reported again.
pub(crate) fn assemble(
    experiment: &mut Experiment,
    layers: Vec<Layer>,
    kinds: &'static [Kind],
    sources: &SourceMap,
    doubtful: Vec<Span>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let choices = vec![None; kinds.len()];
    let defaults = BTreeMap::new();
    let own_kinds = IndexMap::new();
    let mut assembler = Assembler { kinds, choices, defaults, own_kinds, sources, doubtful, diagnostics };
    assembler.assemble(experiment, layers);
}

struct Assembler<'a> {
    kinds: &'static [Kind],
    /// The choices of each kind, once a stage has needed them.
    choices: Vec<Option<Arc<Choices>>>,
    /// The defaults of each kind that has any, in each namespace.
    defaults: BTreeMap<(String, usize), Defaults<'a>>,
    /// The kinds that the experiment makes of programs, by their names with those of their namespaces,
    /// each with the defaults of its stages.
    own_kinds: IndexMap<String, (Arc<OwnKind>, Arc<TomlTable>)>,
    sources: &'a SourceMap,
    doubtful: Vec<Span>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Assembler<'_> {
    fn assemble(&mut self, experiment: &mut Experiment, mut layers: Vec<Layer>) {
        let mut heads: IndexMap<&str, TomlTable> = IndexMap::new();
        let mut tables: IndexMap<Option<String>, TableLayers> = IndexMap::new();
        let mut stages: IndexMap<String, Vec<(usize, Entry)>> = IndexMap::new();
        for (position, layer) in layers.iter_mut().enumerate() {
            let namespace = layer.namespace.clone();
            // Moved out, for this is nearly all of a large experiment.
            let below = layer.root.get_mut("stages").map(|entry| &mut entry.value.content);
            if let Some(Content::Table(below)) = below {
                for (stage, entry) in std::mem::take(below) {
                    stages.entry(qualified(&namespace, &stage)).or_default().push((position, entry));
                }
            }
        }
        self.read_own_kinds(&layers);
        experiment.own_kinds = self.own_kinds.values().map(|(own, _)| own.clone()).collect();
        for layer in &layers {
            for (name, entry) in &layer.root {
                let below = entry.value.as_table();
                match (name.as_str(), below) {
                    ("kinds", Some(_)) => {}
                    ("experiment", Some(below)) => {
                        let head = heads.entry(&layer.namespace).or_default();
                        replace_seeds(head, below);
                        overlay(head, below, &[], layer.overlay());
                    }
                    ("table", Some(_)) => {
                        // What is the table of a file is one of many where it is included by a name.
                        let name = (!layer.namespace.is_empty()).then(|| layer.namespace.clone());
                        tables.entry(name).or_default().add(layer, entry, self.diagnostics);
                    }
                    ("tables", Some(below)) => {
                        for (name, entry) in below {
                            let name = qualified(&layer.namespace, name);
                            tables.entry(Some(name)).or_default().add(layer, entry, self.diagnostics);
                        }
                    }
                    ("stages", Some(_)) => {}
                    ("defaults", Some(below)) => self.add_defaults(layer, below, experiment),
                    ("experiment" | "defaults" | "kinds" | "table" | "tables" | "stages", None) => {
                        let message = format!("`{name}` is a table, not {}", entry.value.describe());
                        self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), message));
                    }
                    _ if layer.origin != Origin::File => {}
                    _ => self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), format!("unknown part `{name}` of an experiment"))
                            .maybe_help(nearest_or_all(
                                name,
                                "an experiment has",
                                ["experiment", "stages", "defaults", "kinds", "table", "tables", "profile"],
                            )),
                    ),
                }
            }
        }
        for (namespace, head) in &heads {
            self.read_head(namespace, head, experiment);
        }
        let doubtful = &self.doubtful;
        for defaults in self.defaults.values_mut() {
            defaults.check(self.diagnostics, |span| is_within(doubtful, span));
        }
        let of_files = stages.iter().filter(|(name, entries)| {
            let layers = entries.iter().map(|(layer, _)| &layers[*layer]);
            let mut own = layers.filter(|layer| layer.namespace == split_namespace(name).0);
            own.any(|layer| layer.origin == Origin::File)
        });
        let known: Vec<String> = of_files.map(|(name, _)| name.clone()).collect();
        self.refuse_stages_named_as_namespaces(&stages, experiment);
        for (name, entries) in stages {
            match self.assemble_stage(&name, entries, &layers, &known, experiment) {
                Some(spec) => drop(experiment.stages.insert(name, spec)),
                None => drop(experiment.broken_stages.insert(name)),
            }
        }
        if experiment.stages.is_empty() && self.diagnostics.is_empty() {
            self.diagnostics.push(
                Diagnostic::new(0..0, "the experiment has no stages")
                    .help("it needs at least one: `[stages.NAME]` with a `kind`"),
            );
        }
        self.read_tables(tables, experiment);
    }

    /// Reads the tables of the files themselves or, if they have none, those of their namespaces.
    fn read_tables(&mut self, tables: IndexMap<Option<String>, TableLayers>, experiment: &mut Experiment) {
        let layered = tables.into_iter().filter_map(|(name, layers)| Some((name, layers.finish()?)));
        // Conditions alone, which an included file states for all that include it, make no table.
        let layered: Vec<_> = layered.filter(|(_, table)| !table.has_only_conditions()).collect();
        let has_own = layered.iter().any(|(_, table)| table.is_own);
        for (name, layered) in layered.into_iter().filter(|(_, table)| table.is_own || !has_own) {
            let is_doubtful = self.is_doubtful(&layered.key)
                || layered.value.as_table().is_some_and(|table| self.has_doubtful(table));
            if is_doubtful {
                continue;
            }
            match TableSpec::read(layered, self.sources) {
                Ok(spec) => experiment.tables.push(TableDeclaration { name, spec, published: None }),
                Err(of_table) => self.diagnostics.extend(of_table),
            }
        }
    }

    /// Reads `[kinds]`, of which all layers of a namespace are merged.
    fn read_own_kinds(&mut self, layers: &[Layer]) {
        let mut all: IndexMap<&str, TomlTable> = IndexMap::new();
        for layer in layers {
            let below = layer.root.get("kinds").and_then(|entry| entry.value.as_table());
            let merged = all.entry(&layer.namespace).or_default();
            below.into_iter().for_each(|below| overlay(merged, below, &[], Overlay::Whole));
        }
        for (namespace, (name, entry)) in
            all.iter().flat_map(|(namespace, kinds)| kinds.iter().map(move |kind| (*namespace, kind)))
        {
            if self.is_doubtful(&entry.key)
                || entry.value.as_table().is_some_and(|table| self.has_doubtful(table))
            {
                continue;
            }
            if self.kinds.iter().any(|kind| kind.name() == name) {
                let message = format!("`{name}` is a kind of the program");
                self.diagnostics.push(
                    Diagnostic::new(entry.key.clone(), message)
                        .label("taken")
                        .help("use another name: stages of two kinds could not be told apart"),
                );
                continue;
            }
            match OwnKind::read(name, entry) {
                Ok(own) => {
                    let defaults = Arc::new(own.settings().clone());
                    self.own_kinds.insert(qualified(namespace, name), (own, defaults));
                }
                Err(diagnostics) => self.diagnostics.extend(diagnostics),
            }
        }
    }

    /// Returns the names of all kinds that the files of a namespace have, the program's first.
    fn kind_names(&self, namespace: &str) -> impl Iterator<Item = &str> + Clone {
        let own = self.own_kinds.keys().map(|name| split_namespace(name));
        let own = own.filter(move |(of, _)| *of == namespace).map(|(_, name)| name);
        self.kinds.iter().map(|kind| -> &str { kind.name() }).chain(own)
    }

    /// Adds what a layer has in `[defaults]`.
    fn add_defaults(&mut self, layer: &Layer, table: &TomlTable, experiment: &Experiment) {
        for (name, entry) in table {
            // `[defaults."t2/train"]` is of a namespace.
            let full = qualified(&layer.namespace, name);
            if let (Some((_, defaults)), Some(below)) =
                (self.own_kinds.get_mut(&full), entry.value.as_table())
            {
                overlay(Arc::make_mut(defaults), below, &[], layer.overlay());
                continue;
            }
            let (namespace, of_kind) = split_namespace(&full);
            let position = self.kinds.iter().position(|kind| kind.name() == of_kind);
            let is_there = namespace.is_empty() || experiment.namespaces.contains_key(namespace);
            let Some(position) = position.filter(|_| is_there) else {
                let diagnostic = match position {
                    Some(_) => unknown_namespace(namespace, entry.key.clone(), experiment),
                    None => unknown_kind(of_kind, entry.key.clone(), self.kind_names(namespace)),
                };
                if !self.is_doubtful(&entry.key) {
                    self.diagnostics.push(diagnostic);
                }
                continue;
            };
            let Content::Table(table) = &entry.value.content else {
                let message = format!("defaults of `{name}` are a table, not {}", entry.value.describe());
                self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), message));
                continue;
            };
            let (kinds, choices) = (self.kinds, self.choices_of(position));
            let defaults = self
                .defaults
                .entry((namespace.to_owned(), position))
                .or_insert_with(|| Defaults::of(&kinds[position]));
            defaults.add(layer, table.clone(), &choices, self.diagnostics);
        }
    }

    fn choices_of(&mut self, kind: usize) -> Arc<Choices> {
        let kinds = self.kinds;
        self.choices[kind].get_or_insert_with(|| choices_of(&kinds[kind]).into()).clone()
    }

    /// Reads `[experiment]`. Of the files of a namespace only the seed counts.
    fn read_head(&mut self, namespace: &str, head: &TomlTable, experiment: &mut Experiment) {
        for (name, entry) in head {
            match (name.as_str(), &entry.value.content) {
                ("title", Content::Text(title)) if !namespace.is_empty() => {
                    if let Some(namespace) = experiment.namespaces.get_mut(namespace) {
                        namespace.title = Some(title.clone());
                    }
                }
                ("title", Content::Text(title)) => experiment.title = Some(title.clone()),
                ("seed", Content::Integer(seed @ 0..)) => {
                    let (seed, span) = (*seed as u64, Some(entry.value.span.clone()));
                    match experiment.namespaces.get_mut(namespace) {
                        Some(namespace) => (namespace.seed, namespace.seed_span) = (seed, span),
                        None => (experiment.seed, experiment.seed_span) = (seed, span),
                    }
                }
                _ if self.is_doubtful(&entry.key) => {}
                ("seeds", _) if head.contains_key("seed") => {
                    let place = self.sources.line(&head["seed"].key);
                    let help = format!("`seeds` is an axis over the seed: take `seed` in {place} out");
                    self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), "the experiment has `seed` and `seeds`")
                            .help(help),
                    );
                }
                ("seeds", _) => match read_seeds(&entry.value) {
                    Ok(seeds) => experiment.set_seeds(namespace, &seeds, &entry.value.span),
                    Err(diagnostic) => self.diagnostics.push(diagnostic),
                },
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
                        .maybe_help(nearest_or_all(name, "it has", ["title", "include", "seed", "seeds"])),
                ),
            }
        }
    }

    /// A name with `/` could mean either.
    fn refuse_stages_named_as_namespaces(
        &mut self,
        stages: &IndexMap<String, Vec<(usize, Entry)>>,
        experiment: &Experiment,
    ) {
        for (name, namespace) in &experiment.namespaces {
            let Some((_, stage)) = stages.get(name).and_then(|entries| entries.first()) else { continue };
            let place = self.sources.line(&stage.key);
            let message = format!("the namespace `{name}` has the name of a stage, in {place}");
            self.diagnostics.push(
                Diagnostic::new(namespace.span.clone(), message)
                    .label("names a stage as well")
                    .help("give the namespace another name"),
            );
        }
    }

    /// Reports a stage whose name cannot be, or that is of a namespace and not there.
    fn check_stage_name(
        &mut self,
        name: &str,
        layers: &[&Layer],
        key: &Span,
        known: &[String],
        experiment: &Experiment,
    ) -> Option<()> {
        let (namespace, own) = split_namespace(name);
        let is_there = namespace.is_empty() || experiment.namespaces.contains_key(namespace);
        let diagnostic = if !is_name(own) || !is_stage_name(name) {
            Diagnostic::new(key.clone(), format!("`{name}` cannot name a stage"))
                .help("use letters, digits, `_` and `-`")
        } else if !is_there {
            unknown_namespace(namespace, key.clone(), experiment)
        } else if layers.iter().all(|layer| layer.namespace != namespace) {
            let names = known.iter().map(String::as_str);
            Diagnostic::new(key.clone(), format!("there is no stage `{name}`"))
                .label("no such stage")
                .maybe_help(nearest_or_all(name, "stages", names))
        } else {
            return Some(());
        };
        self.diagnostics.push(diagnostic);
        None
    }

    fn assemble_stage(
        &mut self,
        name: &str,
        entries: Vec<(usize, Entry)>,
        layers: &[Layer],
        known: &[String],
        experiment: &Experiment,
    ) -> Option<StageSpec> {
        let key = entries[0].1.key.clone();
        let of_stage: Vec<&Layer> = entries.iter().map(|(layer, _)| &layers[*layer]).collect();
        self.check_stage_name(name, &of_stage, &key, known, experiment)?;
        let is_doubtful = entries.iter().any(|(_, entry)| self.is_doubtful(&entry.key));
        let mut written = Vec::new();
        for (position, Entry { value, key }) in entries {
            match value.content {
                Content::Table(table) => {
                    written.push(StageLayer { layer: &layers[position], key, table, span: value.span });
                }
                other => {
                    let message = format!("stage `{name}` is a table, not {}", other.describe());
                    self.diagnostics.push(Diagnostic::new(value.span, message));
                    return None;
                }
            }
        }
        let is_addition =
            |layer: &StageLayer<'_>| layer.layer.origin == Origin::File || layer.table.contains_key("kind");
        if !written.iter().any(is_addition) {
            self.diagnostics.push(changes_nothing(name, key, known.iter().map(String::as_str)));
            return None;
        }
        let is_doubtful = is_doubtful || written.iter().any(|layer| self.has_doubtful(&layer.table));
        let (kind_value, mut written) = match declared(name, written, self.kinds, self.sources) {
            Ok(declared) => declared,
            Err(diagnostic) => {
                self.diagnostics.extend((!is_doubtful).then_some(diagnostic));
                return None;
            }
        };
        let of_file = self.sources.namespace(&kind_value.span);
        let Some(kind_name) = kind_value.as_text() else {
            let message = format!("the kind of stage `{name}` is a string, not {}", kind_value.describe());
            let diagnostic = Diagnostic::new(kind_value.span.clone(), message).maybe_help(nearest_or_all(
                "",
                "kinds",
                self.kind_names(of_file),
            ));
            self.diagnostics.push(diagnostic);
            return None;
        };
        let own = self.own_kinds.get(&qualified(of_file, kind_name)).cloned();
        let runs = if own.is_some() { PROGRAM_KIND } else { kind_name };
        let Some(position) = self.kinds.iter().position(|kind| kind.name() == runs) else {
            let diagnostic = Diagnostic::new(kind_value.span.clone(), format!("unknown kind `{kind_name}`"))
                .label("no such kind of stage")
                .maybe_help(nearest_or_all(kind_name, "kinds", self.kind_names(of_file)));
            self.diagnostics.push(diagnostic);
            return None;
        };
        let kind = &self.kinds[position];
        // A parameter of an own kind is no choice: a table is a value as any other.
        let choices = if own.is_some() { Arc::from([]) } else { self.choices_of(position) };
        let (key, span) = (written[0].key.clone(), written[0].span.clone());
        let before = self.diagnostics.len();
        let of_kind = (split_namespace(name).0.to_owned(), position);
        let (own_kind, defaults) = match own {
            Some((own, defaults)) => (Some(own), (!defaults.is_empty()).then_some(defaults)),
            None => (None, self.defaults.get(&of_kind).map(|defaults| defaults.table.clone())),
        };
        let mut table = merged(name, kind, &mut written, defaults.as_deref(), &choices, self.diagnostics);
        let mut axes = table
            .shift_remove("axes")
            .map(|entry| read_axes(&entry.value, self.diagnostics))
            .unwrap_or_default();
        if !experiment.namespaces.is_empty() {
            let variants = axes.iter_mut().flat_map(|axis| &mut axis.variants);
            let overlays = variants.map(|variant| &mut variant.overlay);
            std::iter::once(&mut table).chain(overlays).for_each(|table| self.qualify_inputs(table));
        }
        let is_broken = is_doubtful || self.diagnostics.len() > before;
        self.diagnostics.extend(without_effect(name, &written, &axes, &choices, self.sources));
        written.pop();
        let below = written.into_iter().map(|layer| layer.table).collect();
        let about = table.shift_remove("about").and_then(|entry| {
            let text = entry.value.as_text().map(str::to_owned);
            if text.is_none() {
                let message = format!("`about` is a string, not {}", entry.value.describe());
                self.diagnostics.push(Diagnostic::new(entry.value.span, message));
            }
            text
        });
        let settings = read_settings(&mut table, self.diagnostics);
        let mut take = |field: &str| table.shift_remove(field).map(|entry| entry.value);
        Some(StageSpec {
            name: name.to_owned(),
            key,
            kind,
            own_kind,
            only: take("only"),
            except: take("except"),
            table,
            span,
            defaults,
            below,
            axes,
            about,
            choices,
            settings,
            is_broken,
        })
    }

    /// Writes the references of inputs as seen from outside their namespaces.
    fn qualify_inputs(&self, table: &mut TomlTable) {
        let inputs = table.get_mut("inputs").map(|entry| &mut entry.value.content);
        let Some(Content::Table(inputs)) = inputs else { return };
        for entry in inputs.values_mut() {
            let items = match &mut entry.value.content {
                Content::List(items) => items.as_mut_slice(),
                _ => std::slice::from_mut(&mut entry.value),
            };
            for item in items {
                let namespace = self.sources.namespace(&item.span);
                if let Content::Text(text) = &mut item.content
                    && !namespace.is_empty()
                    && Reference::parse(text).is_ok()
                {
                    *text = qualified(namespace, text);
                }
            }
        }
    }

    fn is_doubtful(&self, span: &Span) -> bool {
        is_within(&self.doubtful, span)
    }

    /// Returns whether any name in a table stands where the syntax is wrong.
    fn has_doubtful(&self, table: &TomlTable) -> bool {
        table.values().any(|entry| {
            self.is_doubtful(&entry.key)
                || entry.value.as_table().is_some_and(|below| self.has_doubtful(below))
        })
    }
}

/// Returns whether a span begins in one of some ranges.
fn is_within(ranges: &[Span], span: &Span) -> bool {
    ranges.iter().any(|range| range.start <= span.start && span.start < range.end)
}

/// Reports that no file is included under a name.
fn unknown_namespace(namespace: &str, span: Span, experiment: &Experiment) -> Diagnostic {
    let names = experiment.namespaces.keys().map(String::as_str);
    let help = nearest_or_all(namespace, "namespaces", names).unwrap_or_else(|| {
        "a name has a `/` only if its file is included under a name: `include = { NAME = FILE }`".to_owned()
    });
    Diagnostic::new(span, format!("there is no namespace `{namespace}`")).help(help)
}
