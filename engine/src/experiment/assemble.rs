//! Layers to stages: merges what the layers declare, and reads everything but the kinds' parameters.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::experiment::axes::{Axis, Variant, read_axes};
use crate::experiment::layers::{Choices, Layer, hides, overlay};
use crate::experiment::settings::read_settings;
use crate::experiment::spec::{Experiment, StageSpec, changes_nothing};
use crate::experiment::table_spec::TableSpec;
use crate::kind::name::is_name;
use crate::kind::schema::choices_of;
use crate::kind::stage::Kind;
use crate::toml::deserialize::read;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable};

/// Fills an experiment from its layers. `doubtful` lists where syntax errors are: what is wrong there
/// is not reported again.
pub(crate) fn assemble(
    experiment: &mut Experiment,
    layers: Vec<Layer>,
    kinds: &'static [Kind],
    doubtful: Vec<Span>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let choices = vec![None; kinds.len()];
    Assembler { kinds, choices, doubtful, diagnostics }.assemble(experiment, layers);
}

struct Assembler<'a> {
    kinds: &'static [Kind],
    /// The choices of each kind, once a stage has needed them.
    choices: Vec<Option<Arc<Choices>>>,
    doubtful: Vec<Span>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Assembler<'_> {
    fn assemble(&mut self, experiment: &mut Experiment, mut layers: Vec<Layer>) {
        let mut head = TomlTable::new();
        let mut table = TomlTable::new();
        let mut declared: IndexMap<String, Vec<(usize, Entry)>> = IndexMap::new();
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
            .map(|entry| read_axes(&entry.value, self.diagnostics))
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
                let sets = |variant: &Variant| {
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
}
