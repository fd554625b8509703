//! A plan in the making: one stage after the other becomes nodes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cache::{Value, Visible};

use crate::experiment::reference::Reference;
use crate::experiment::spec::{Experiment, StageSpec};
use crate::kind::input_file;
use crate::kind::stage::Parsed;
use crate::plan::combine::{MOST_NODES_PER_STAGE, OwnCombination, combine, too_many};
use crate::plan::join::join_inputs;
use crate::plan::lookup::Lookup;
use crate::plan::node::{FileUse, Node};
use crate::plan::seeds::{SeedOf, Seeds};
use crate::plan::wanted::{Lists, Wanted};
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::{Content, TomlTable, Value as TomlValue};

/// The fields that a stage of every kind has.
const COMMON_FIELDS: [&str; 10] = [
    "kind",
    "about",
    "inputs",
    "axes",
    "only",
    "except",
    "resources",
    "timeout_seconds",
    "retries",
    "retry_on",
];

/// A plan in the making.
pub(crate) struct PlanBuilder<'a> {
    experiment: &'a Experiment,
    nodes: Vec<Node>,
    by_stage: Vec<Vec<usize>>,
    broken: BTreeSet<usize>,
    files: Vec<FileUse>,
}

impl<'a> PlanBuilder<'a> {
    /// Starts without nodes.
    pub(crate) fn new(experiment: &'a Experiment) -> Self {
        let by_stage = vec![Vec::new(); experiment.stages.len()];
        Self { experiment, nodes: Vec::new(), by_stage, broken: BTreeSet::new(), files: Vec::new() }
    }

    /// Returns the nodes so far, for looking them up.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup {
            stages: &self.experiment.stages,
            seeds: &self.experiment.seed_axes,
            nodes: &self.nodes,
            by_stage: &self.by_stage,
        }
    }

    /// Returns all nodes, the nodes of each stage, and the files that parameters name.
    pub(crate) fn finish(self) -> (Vec<Node>, Vec<Vec<usize>>, Vec<FileUse>) {
        (self.nodes, self.by_stage, self.files)
    }

    /// Returns whether a stage is wrong or is missing.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.broken.is_empty() || !self.experiment.broken_stages.is_empty() || !self.is_complete()
    }

    /// Returns whether every stage has nodes.
    fn is_complete(&self) -> bool {
        self.by_stage.iter().all(|nodes| !nodes.is_empty())
    }

    /// Adds the nodes of a stage, whose inputs are there.
    ///
    /// # Errors
    /// What is wrong with it; nothing if its inputs are to blame.
    pub(crate) fn add_stage(&mut self, stage: usize) -> Result<(), Vec<Diagnostic>> {
        let (added, files) = self.expand(stage).inspect_err(|_| {
            self.broken.insert(stage);
        })?;
        let first = self.nodes.len();
        self.by_stage[stage] = (first..first + added.len()).collect();
        self.nodes.extend(added);
        self.files.extend(files);
        Ok(())
    }

    /// Returns the nodes of a stage, and the files that their parameters name.
    fn expand(&self, stage: usize) -> Result<(Vec<Node>, Vec<FileUse>), Vec<Diagnostic>> {
        let experiment = self.experiment;
        let spec = &experiment.stages[stage];
        if spec.is_broken {
            return Err(Vec::new());
        }
        let alone = |diagnostic: Diagnostic| vec![diagnostic];
        let lists = Lists::read(spec).map_err(alone)?;
        let mut combinations = combine(stage, spec, &lists, &experiment.sources).map_err(alone)?;
        let seeds = Seeds::new(experiment, spec).map_err(alone)?;
        let mut used_ports: BTreeSet<String> = BTreeSet::new();
        let mut added = Vec::new();
        let mut files = Vec::new();
        let mut wanted = Wanted::new(self.lookup(), stage, &lists);
        let has_broken_input = self.has_broken_input(spec);
        for combination in &mut combinations {
            let parsed = match self.parse(spec, combination) {
                Ok(parsed) => parsed,
                // Nobody wants it, so it need not make sense.
                Err(_) if combination.is_ruled_out => {
                    combination.table = Cow::Owned(TomlTable::new());
                    continue;
                }
                Err(diagnostic) => return Err(alone(combination.contradiction.take().unwrap_or(diagnostic))),
            };
            if has_broken_input {
                continue;
            }
            let seed = self.seed_of(spec, combination).map_err(alone)?;
            let (parsed, paths) = self.resolve_files(spec, combination, parsed)?;
            let first = self.nodes.len() + added.len();
            let joined = join_inputs(self.lookup(), spec, &combination.table, &parsed.ports, &mut used_ports)
                .map_err(alone)?;
            for (inherited, inputs) in joined {
                let assignment =
                    inherited.into_iter().chain(combination.assignment.iter().copied()).collect();
                let assigned = seeds.assign(assignment, seed);
                let all_inputs = std::iter::repeat_n(inputs, assigned.len());
                for ((assignment, seed), inputs) in assigned.into_iter().zip(all_inputs) {
                    if !wanted.wants(&assignment).map_err(alone)? {
                        continue;
                    }
                    if let Some(contradiction) = combination.contradiction.take() {
                        return Err(alone(contradiction));
                    }
                    added.push(Node {
                        stage,
                        label: self.lookup().label(&spec.name, &assignment),
                        assignment,
                        kind: spec.kind,
                        params: parsed.params.clone(),
                        tuning: parsed.tuning.clone(),
                        components: parsed.components.clone(),
                        seed,
                        inputs,
                        outputs: parsed.ports.outputs.clone(),
                        resources: spec.settings.resources(parsed.resources),
                    });
                    if added.len() > MOST_NODES_PER_STAGE {
                        return Err(alone(too_many(spec)));
                    }
                }
            }
            let nodes = first..self.nodes.len() + added.len();
            files.extend(paths.into_iter().map(|file| FileUse { nodes: nodes.clone(), ..file }));
        }
        if has_broken_input {
            return Err(Vec::new());
        }
        wanted.finish().map_err(|diagnostic| vec![diagnostic])?;
        self.refuse_unused_inputs(spec, &combinations, &used_ports)?;
        if added.is_empty() {
            let message = format!("`only` and `except` leave nothing of stage `{}`", spec.name);
            let list = spec.only.as_ref().or(spec.except.as_ref());
            let span = list.map_or_else(|| spec.key.clone(), |node| node.span.clone());
            return Err(vec![Diagnostic::new(span, message)]);
        }
        Ok((added, files))
    }

    /// Returns whether an input is wrong itself: then this stage is not to blame.
    fn has_broken_input(&self, spec: &StageSpec) -> bool {
        let of_variants = spec.axes.iter().flat_map(|axis| &axis.variants).map(|variant| &variant.overlay);
        std::iter::once(&spec.table)
            .chain(of_variants)
            .filter_map(|table| table.get("inputs")?.value.as_table())
            .flatten()
            .flat_map(|(_, entry)| entry.value.items())
            .filter_map(|node| Reference::parse(node.as_text()?).ok())
            .any(|reference| match self.lookup().stage_named(&reference.stage) {
                Some(stage) => self.by_stage[stage].is_empty(),
                None => {
                    self.experiment.has_syntax_errors
                        || self.experiment.broken_stages.contains(&reference.stage)
                }
            })
    }

    fn parse(&self, spec: &StageSpec, combination: &OwnCombination<'_>) -> Result<Parsed, Diagnostic> {
        let mut table = combination.table.as_ref().clone();
        table.shift_remove("inputs");
        if spec.kind.is_seeded() {
            table.shift_remove("seed");
        } else if let Some(entry) = table.get("seed") {
            let message = format!("stage `{}` of kind `{}` uses no seed", spec.name, spec.kind_name());
            return Err(
                Diagnostic::new(entry.key.clone(), message).help("take it out: it would change nothing")
            );
        }
        let node = TomlValue { span: spec.span.clone(), content: Content::Table(table) };
        let mut parsed = spec.kind.parse(&node).map_err(|mut diagnostic| {
            match spec.kind.renamed().at(&node, &diagnostic.span) {
                Some(message) => {
                    diagnostic = Diagnostic::new(diagnostic.span, message).label("renamed");
                }
                None => list_fields(&mut diagnostic, spec, &node),
            }
            diagnostic.message =
                format!("stage `{}` ({}): {}", spec.name, spec.kind_name(), diagnostic.message);
            diagnostic
        })?;
        if let Some(own) = &spec.own_kind {
            parsed.ports = own.ports(parsed.ports);
        }
        Ok(parsed)
    }

    /// Returns the seed of a combination. None if it uses none.
    fn seed_of(&self, spec: &StageSpec, combination: &OwnCombination<'_>) -> Result<SeedOf, Diagnostic> {
        if !spec.kind.is_seeded() {
            return Ok(SeedOf::Nothing);
        }
        match combination.table.get("seed").map(|entry| &entry.value) {
            None => Ok(SeedOf::Experiment(self.experiment.seed_of(&spec.name).0)),
            Some(TomlValue { content: Content::Integer(seed @ 0..), .. }) => Ok(SeedOf::Stage(*seed as u64)),
            Some(node) => Err(Diagnostic::new(node.span.clone(), "`seed` is an integer of at least 0")),
        }
    }

    /// Makes the paths of file parameters absolute.
    fn resolve_files(
        &self,
        spec: &StageSpec,
        combination: &OwnCombination<'_>,
        mut parsed: Parsed,
    ) -> Result<(Parsed, Vec<FileUse>), Vec<Diagnostic>> {
        let mut files = Vec::new();
        let table = TomlValue {
            span: spec.span.clone(),
            content: Content::Table(combination.table.as_ref().clone()),
        };
        parsed
            .params
            .resolve_paths(&mut |place, written, visible| {
                let span = table.at(place).map_or_else(|| spec.span.clone(), |node| node.span.clone());
                let path = input_file::absolute(
                    written,
                    self.experiment.sources.folder(&span),
                    self.experiment.data.as_deref(),
                );
                // An error only if the stage turns out to be needed.
                let (path, unset) = match path {
                    Ok(path) => (path, None),
                    Err(help) => (written.into(), Some(help)),
                };
                let text = path.to_str().map(str::to_owned).ok_or_else(|| {
                    Diagnostic::new(span.clone(), format!("the path `{}` is not UTF-8", path.display()))
                })?;
                // Of which nodes is known when they are made.
                files.push(FileUse { path, unset, nodes: 0..0, span, about: spec.about.clone() });
                Ok(match visible {
                    Visible::Content => Value::Path(text),
                    Visible::NameAndContent => Value::NamedPath(text),
                })
            })
            .map_err(|diagnostic: Diagnostic| vec![diagnostic])?;
        Ok((parsed, files))
    }

    fn refuse_unused_inputs(
        &self,
        spec: &StageSpec,
        combinations: &[OwnCombination<'_>],
        used: &BTreeSet<String>,
    ) -> Result<(), Vec<Diagnostic>> {
        let inputs =
            combinations.iter().filter_map(|combination| combination.table.get("inputs")?.value.as_table());
        for (name, entry) in inputs.flatten() {
            if !used.contains(name) {
                let with = |combination: &&OwnCombination<'_>| combination.table.contains_key("inputs");
                let first = combinations.iter().find(with).expect("the input is from one");
                let parsed = self.parse(spec, first).map_err(|diagnostic| vec![diagnostic])?;
                let known: Vec<&str> = parsed.ports.inputs.iter().map(|port| port.name.as_str()).collect();
                let mut help = nearest_or_all(name, "its inputs", known)
                    .unwrap_or_else(|| "it takes no inputs".to_owned());
                let defaults = spec.defaults.as_ref().and_then(|defaults| defaults.get("inputs"));
                let default = defaults.and_then(|inputs| inputs.value.as_table()?.get(name));
                if default.is_some_and(|default| default.key == entry.key) {
                    help = format!("{help}; `remove = [\"inputs.{name}\"]` takes the default off the stage");
                }
                if let Some(message) = spec.kind.renamed().input(name) {
                    let message = format!("stage `{}` ({}): {message}", spec.name, spec.kind_name());
                    return Err(vec![Diagnostic::new(entry.key.clone(), message).label("renamed")]);
                }
                let message = format!("stage `{}` has no input `{name}`", spec.name);
                return Err(vec![
                    Diagnostic::new(entry.key.clone(), message).label("no such port").help(help),
                ]);
            }
        }
        Ok(())
    }
}

/// Names all fields where one of a stage's table is unknown: a kind does not know which fields every
/// stage has.
fn list_fields(diagnostic: &mut Diagnostic, spec: &StageSpec, node: &TomlValue) {
    let table = node.as_table().expect("parameters are a table");
    let Some((name, _)) = table.iter().find(|(_, entry)| entry.key == diagnostic.span) else {
        return;
    };
    if !spec.kind.field_names().contains(name) {
        let mut names = spec.kind.field_names();
        names.extend(COMMON_FIELDS.iter().map(|name| (*name).to_owned()));
        names.extend(spec.kind.is_seeded().then(|| "seed".to_owned()));
        diagnostic.help = nearest_or_all(name, "fields", names.iter().map(String::as_str));
    }
}
