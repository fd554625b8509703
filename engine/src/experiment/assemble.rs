//! Layers to stages: merges what the layers declare, and reads everything but the kinds' parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::experiment::axes::read_axes;
use crate::experiment::defaults::Defaults;
use crate::experiment::layers::{Choices, Layer, Origin, overlay};
use crate::experiment::settings::read_settings;
use crate::experiment::spec::{Experiment, StageSpec, changes_nothing};
use crate::experiment::stage_layers::{StageLayer, declared, merged, without_effect};
use crate::experiment::table_spec::TableSpec;
use crate::kind::name::is_name;
use crate::kind::schema::choices_of;
use crate::kind::stage::Kind;
use crate::toml::deserialize::read;
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
    Assembler { kinds, choices, defaults, sources, doubtful, diagnostics }.assemble(experiment, layers);
}

struct Assembler<'a> {
    kinds: &'static [Kind],
    /// The choices of each kind, once a stage has needed them.
    choices: Vec<Option<Arc<Choices>>>,
    /// The defaults of each kind that has any.
    defaults: BTreeMap<usize, Defaults<'a>>,
    sources: &'a SourceMap,
    doubtful: Vec<Span>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Assembler<'_> {
    fn assemble(&mut self, experiment: &mut Experiment, mut layers: Vec<Layer>) {
        let mut head = TomlTable::new();
        let mut table = TomlTable::new();
        let mut stages: IndexMap<String, Vec<(usize, Entry)>> = IndexMap::new();
        for (position, layer) in layers.iter_mut().enumerate() {
            // Moved out, for this is nearly all of a large experiment.
            let below = layer.root.get_mut("stages").map(|entry| &mut entry.value.content);
            if let Some(Content::Table(below)) = below {
                for (stage, entry) in std::mem::take(below) {
                    stages.entry(stage).or_default().push((position, entry));
                }
            }
        }
        for layer in &layers {
            for (name, entry) in &layer.root {
                let below = entry.value.as_table();
                match (name.as_str(), below) {
                    ("experiment", Some(below)) => overlay(&mut head, below, &[], layer.overlay()),
                    ("table", Some(_)) => {
                        let over = TomlTable::from([(name.clone(), entry.clone())]);
                        overlay(&mut table, &over, &[], layer.overlay());
                    }
                    ("stages", Some(_)) => {}
                    ("defaults", Some(below)) => self.add_defaults(layer, below),
                    ("experiment" | "defaults" | "table" | "stages", None) => {
                        let message = format!("`{name}` is a table, not {}", entry.value.describe());
                        self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), message));
                    }
                    _ if layer.origin != Origin::File => {}
                    _ => self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), format!("unknown part `{name}` of an experiment"))
                            .maybe_help(nearest_or_all(
                                name,
                                "an experiment has",
                                ["experiment", "stages", "defaults", "table", "profile"],
                            )),
                    ),
                }
            }
        }
        self.read_head(&head, experiment);
        let doubtful = &self.doubtful;
        for defaults in self.defaults.values_mut() {
            defaults.check(self.diagnostics, |span| is_within(doubtful, span));
        }
        let of_files = stages
            .iter()
            .filter(|(_, entries)| entries.iter().any(|(layer, _)| layers[*layer].origin == Origin::File));
        let known: Vec<String> = of_files.map(|(name, _)| name.clone()).collect();
        for (name, entries) in stages {
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

    /// Adds what a layer has in `[defaults]`.
    fn add_defaults(&mut self, layer: &Layer, table: &TomlTable) {
        for (name, entry) in table {
            let Some(position) = self.kinds.iter().position(|kind| kind.name() == name) else {
                let names = self.kinds.iter().map(Kind::name);
                if !self.is_doubtful(&entry.key) {
                    self.diagnostics.push(
                        Diagnostic::new(entry.key.clone(), format!("defaults of an unknown kind `{name}`"))
                            .label("no such kind of stage")
                            .maybe_help(nearest_or_all(name, "kinds", names)),
                    );
                }
                continue;
            };
            let Content::Table(table) = &entry.value.content else {
                let message = format!("defaults of `{name}` are a table, not {}", entry.value.describe());
                self.diagnostics.push(Diagnostic::new(entry.value.span.clone(), message));
                continue;
            };
            let (kinds, choices) = (self.kinds, self.choices_of(position));
            let defaults = self.defaults.entry(position).or_insert_with(|| Defaults::of(&kinds[position]));
            defaults.add(layer, table.clone(), &choices, self.diagnostics);
        }
    }

    fn choices_of(&mut self, kind: usize) -> Arc<Choices> {
        let kinds = self.kinds;
        self.choices[kind].get_or_insert_with(|| choices_of(&kinds[kind]).into()).clone()
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
        let choices = self.choices_of(position);
        let (key, span) = (written[0].key.clone(), written[0].span.clone());
        let before = self.diagnostics.len();
        let defaults = self.defaults.get(&position).map(|defaults| defaults.table.clone());
        let mut table = merged(name, kind, &mut written, defaults.as_deref(), &choices, self.diagnostics);
        let axes = table
            .shift_remove("axes")
            .map(|entry| read_axes(&entry.value, self.diagnostics))
            .unwrap_or_default();
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
