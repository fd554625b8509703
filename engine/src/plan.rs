//! [`Experiment`] to [`Plan`]: names resolved, axes multiplied out, edges typed, no cycles.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cache::Value;
use choice::Part;
use indexmap::IndexMap;
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use crate::axes::{Assignment, AxisId};
use crate::diagnostic::{Finding, Report, nearest_or_all};
use crate::document::overlay;
use crate::experiment::{Experiment, StageSpec, unknown_stage};
use crate::files;
use crate::node::{Content, Node as Toml, Table as TomlTable};
use crate::reference::{Choice, Reference};
use crate::source_map::{SourceMap, Span};
use crate::stage::{Arity, Kind, OutputPort, Parsed, Ports, Resources};
use crate::table::{self, PlannedTable};

/// More than this many nodes of one stage is a mistake in its axes.
const MOST_NODES_PER_STAGE: usize = 100_000;

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

/// One stage with one variant of each of its axes.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) stage: usize,
    pub(crate) label: String,
    pub(crate) assignment: Assignment,
    pub(crate) kind: &'static Kind,
    /// All parameters; files as absolute paths.
    pub(crate) params: Value,
    pub(crate) parts: Vec<Part>,
    pub(crate) seed: Option<u64>,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) outputs: Vec<OutputPort>,
    pub(crate) resources: Resources,
}

/// What enters a node by a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The port.
    pub port: String,
    /// The label, where a port gathers several.
    pub label: Option<String>,
    /// The node that makes it.
    pub from: usize,
    /// Which of its outputs.
    pub output: String,
}

/// A file that a parameter names.
#[derive(Debug, Clone)]
pub(crate) struct FileUse {
    pub path: PathBuf,
    pub span: Span,
    pub about: Option<String>,
}

/// An experiment that can run: no stage can fail any more for want of a parameter.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) experiment: Experiment,
    nodes: Vec<Node>,
    by_stage: Vec<Vec<usize>>,
    pub(crate) files: Vec<FileUse>,
    pub(crate) table: Option<PlannedTable>,
}

impl Node {
    /// Returns `stage` or `stage[axis=variant,…]`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the stage kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Returns what enters it, by port.
    pub fn inputs(&self) -> &[Edge] {
        &self.inputs
    }

    /// Returns what it makes.
    pub fn outputs(&self) -> &[OutputPort] {
        &self.outputs
    }

    /// Returns what it needs of the machine.
    pub fn resources(&self) -> Resources {
        self.resources
    }

    pub(crate) fn stage_name<'a>(&self, plan: &'a Plan) -> &'a str {
        plan.stage_name(self.stage)
    }
}

impl Plan {
    /// Plans an experiment.
    ///
    /// # Errors
    /// One [`Report`] of everything that is wrong with it: syntax, graph, and the first mistake
    /// in each stage.
    pub fn new(mut experiment: Experiment) -> Result<Self, Report> {
        let mut findings = std::mem::take(&mut experiment.findings);
        let (order, cycles) = order(&experiment);
        findings.extend(cycles);
        let mut draft = Draft {
            stages: &experiment.stages,
            sources: &experiment.sources,
            seed: experiment.seed,
            data: experiment.data.as_deref(),
            is_lenient: experiment.has_syntax_errors,
            nodes: Vec::new(),
            by_stage: vec![Vec::new(); experiment.stages.len()],
            broken: BTreeSet::new(),
            files: Vec::new(),
        };
        for stage in order {
            if let Err(finding) = draft.add_stage(stage) {
                draft.broken.insert(stage);
                findings.extend(finding);
            }
        }
        // Stages on a cycle never came to be; what reads them is not to blame.
        let mut table = None;
        if let (Some((spec, node)), false) = (&experiment.table, experiment.has_syntax_errors) {
            match table::plan(spec, node, &draft) {
                Ok(planned) => table = Some(planned),
                Err(problems) if draft.broken.is_empty() && draft.is_complete() => findings.extend(problems),
                Err(_) => {}
            }
        }
        let Draft { nodes, by_stage, files, .. } = draft;
        match Report::of(findings, &experiment.sources) {
            Some(report) => Err(report),
            None => Ok(Self { experiment, nodes, by_stage, files, table }),
        }
    }

    /// Returns the experiment that was planned.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Returns all nodes; the inputs of a node stand before it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the nodes that `stage` or `stage[axis=variant]` names.
    ///
    /// # Errors
    /// What is wrong with the text, and the nearest name.
    pub fn select(&self, text: &str) -> Result<Vec<usize>, String> {
        let reference = Reference::parse(text)?;
        let Some(stage) = self.experiment.stages.get_index_of(&reference.stage) else {
            let names = self.experiment.stages.keys().map(String::as_str);
            let help = nearest_or_all(&reference.stage, "stages", names).unwrap_or_default();
            return Err(format!("there is no stage `{}`; {help}", reference.stage));
        };
        let draft = self.as_draft();
        select(&draft, stage, &reference).map_err(|(message, help)| match help {
            Some(help) => format!("{message}; {help}"),
            None => message,
        })
    }

    /// Returns all files that parameters name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Makes a report about files that could not be read.
    pub fn report_files(&self, problems: &[(PathBuf, String)]) -> Option<Report> {
        let mut findings = Vec::new();
        for (path, message) in problems {
            for file in self.files.iter().filter(|file| file.path == *path) {
                let help = file.about.clone().unwrap_or_else(|| {
                    "check the path, which starts from the folder of the file that names it".to_owned()
                });
                findings
                    .push(Finding::new(file.span.clone(), message.clone()).label("names this").help(help));
            }
        }
        Report::of(findings, &self.experiment.sources)
    }

    pub(crate) fn stage_name(&self, stage: usize) -> &str {
        &self.spec(stage).name
    }

    pub(crate) fn spec(&self, stage: usize) -> &StageSpec {
        self.experiment.stages.get_index(stage).expect("a node's stage is in the experiment").1
    }

    /// Returns the nodes of each stage, in the order of the experiment.
    pub(crate) fn by_stage(&self) -> &[Vec<usize>] {
        &self.by_stage
    }

    fn as_draft(&self) -> Draft<'_> {
        Draft {
            stages: &self.experiment.stages,
            sources: &self.experiment.sources,
            seed: self.experiment.seed,
            data: None,
            is_lenient: false,
            nodes: self.nodes.clone(),
            by_stage: self.by_stage.clone(),
            broken: BTreeSet::new(),
            files: Vec::new(),
        }
    }
}

/// A plan in the making.
pub(crate) struct Draft<'a> {
    pub stages: &'a IndexMap<String, StageSpec>,
    sources: &'a SourceMap,
    seed: u64,
    data: Option<&'a Path>,
    is_lenient: bool,
    pub nodes: Vec<Node>,
    by_stage: Vec<Vec<usize>>,
    broken: BTreeSet<usize>,
    files: Vec<FileUse>,
}

/// Sorts stages so that inputs come first; reports cycles.
fn order(experiment: &Experiment) -> (Vec<usize>, Vec<Finding>) {
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let indices: Vec<_> = (0..experiment.stages.len()).map(|stage| graph.add_node(stage)).collect();
    let mut edges: BTreeMap<(usize, usize), Span> = BTreeMap::new();
    for (stage, spec) in experiment.stages.values().enumerate() {
        let of_variants = spec.axes.iter().flat_map(|axis| &axis.variants).map(|variant| &variant.overlay);
        for table in std::iter::once(&spec.table).chain(of_variants) {
            let inputs = table.get("inputs").and_then(|entry| entry.node.as_table());
            for node in inputs.into_iter().flatten().flat_map(|(_, entry)| texts(&entry.node)) {
                let reference = node.as_text().and_then(|text| Reference::parse(text).ok());
                if let Some(from) = reference.and_then(|found| experiment.stages.get_index_of(&found.stage)) {
                    edges.entry((from, stage)).or_insert_with(|| node.span.clone());
                }
            }
        }
    }
    for (from, to) in edges.keys() {
        graph.add_edge(indices[*from], indices[*to], ());
    }
    let mut order = Vec::new();
    let mut findings = Vec::new();
    // Tarjan gives components so that what depends on them comes before them.
    for component in tarjan_scc(&graph).into_iter().rev() {
        let mut stages: Vec<usize> = component.into_iter().map(|index| graph[index]).collect();
        stages.sort_unstable();
        let is_cycle = stages.len() > 1 || edges.contains_key(&(stages[0], stages[0]));
        if !is_cycle {
            order.push(stages[0]);
            continue;
        }
        let names: Vec<String> =
            stages.iter().map(|stage| format!("`{}`", experiment.stages[*stage].name)).collect();
        let inside = edges.iter().find(|((from, to), _)| stages.contains(from) && stages.contains(to));
        let span = inside.map_or(0..0, |(_, span)| span.clone());
        let message = match names.as_slice() {
            [only] => format!("stage {only} is its own input"),
            several => format!("stages {} wait for each other", several.join(", ")),
        };
        findings.push(
            Finding::new(span, message)
                .label("closes the cycle")
                .help("an input must be made before the stage that reads it"),
        );
    }
    (order, findings)
}

/// Returns the texts of a value that is one text or a list of them.
fn texts(node: &Toml) -> Vec<&Toml> {
    match &node.content {
        Content::List(items) => items.iter().collect(),
        _ => vec![node],
    }
}

/// One own variant per axis of a stage, with its table.
struct Combination<'a> {
    own: Assignment,
    table: Cow<'a, TomlTable>,
}

/// One artifact, or one of several gathered ones, on its way into a port.
#[derive(Clone)]
struct Arrival {
    assignment: Assignment,
    edges: Vec<(Option<String>, usize, String)>,
}

impl<'a> Draft<'a> {
    pub fn stage_count(&self) -> usize {
        self.stages.len()
    }

    pub fn stage_name(&self, stage: usize) -> &str {
        &self.stages[stage].name
    }

    pub fn stage_named(&self, name: &str) -> Option<usize> {
        self.stages.get_index_of(name)
    }

    pub fn nodes_of(&self, stage: usize) -> &[usize] {
        &self.by_stage[stage]
    }

    pub fn axis_name(&self, axis: AxisId) -> &str {
        &self.stages[axis.0].axes[axis.1].name
    }

    pub fn variant_name(&self, axis: AxisId, variant: usize) -> &str {
        &self.stages[axis.0].axes[axis.1].variants[variant].name
    }

    /// Returns whether the variants of an axis are seeds.
    pub fn is_seed_axis(&self, axis: AxisId) -> bool {
        let axis = &self.stages[axis.0].axes[axis.1];
        axis.is_scalar && axis.variants.iter().all(|variant| variant.overlay.contains_key("seed"))
    }

    pub fn axis_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.stages.values().flat_map(|spec| spec.axes.iter().map(|axis| axis.name.clone())).collect();
        names.sort();
        names.dedup();
        names
    }

    pub fn has_gaps(&self) -> bool {
        !self.broken.is_empty() || !self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.by_stage.iter().all(|nodes| !nodes.is_empty())
    }

    /// Finds the axis that a name means, among those of an assignment; else says what is wrong
    /// with the name, and what would be right.
    pub fn axis_named(
        &self,
        assignment: &Assignment,
        name: &str,
    ) -> Result<AxisId, (String, Option<String>)> {
        let matching: Vec<AxisId> = assignment
            .iter()
            .map(|(axis, _)| *axis)
            .filter(|axis| {
                let own = self.axis_name(*axis);
                own == name
                    || name.split_once('.').is_some_and(|(stage, axis_name)| {
                        axis_name == own && stage == self.stage_name(axis.0)
                    })
            })
            .collect();
        match matching.as_slice() {
            [axis] => Ok(*axis),
            [] => {
                let known: Vec<&str> = assignment.iter().map(|(axis, _)| self.axis_name(*axis)).collect();
                let help = nearest_or_all(name, "its axes", known).unwrap_or("it has no axes".to_owned());
                Err((format!("has no axis `{name}`"), Some(help)))
            }
            several => {
                let full: Vec<String> =
                    several.iter().map(|axis| format!("`{}.{name}`", self.stage_name(axis.0))).collect();
                Err((format!("has several axes `{name}`"), Some(format!("write {}", full.join(" or ")))))
            }
        }
    }

    /// Finds the variant of an axis that a name means; else says what is wrong with the name.
    pub fn variant_named(&self, axis: AxisId, name: &str) -> Result<usize, (String, Option<String>)> {
        let of = &self.stages[axis.0].axes[axis.1];
        of.position(name).ok_or_else(|| {
            let names = of.variants.iter().map(|variant| variant.name.as_str());
            let message = format!("axis `{}` has no variant `{name}`", of.name);
            (message, nearest_or_all(name, "variants", names))
        })
    }

    fn add_stage(&mut self, stage: usize) -> Result<(), Vec<Finding>> {
        let stages = self.stages;
        let spec = &stages[stage];
        if spec.is_broken {
            return Err(Vec::new());
        }
        let combinations = combine(stage, spec)?;
        let mut used_ports: BTreeSet<String> = BTreeSet::new();
        let mut added = Vec::new();
        let has_broken_input = self.has_broken_input(spec);
        for combination in &combinations {
            let parsed = self.parse(spec, combination).map_err(|finding| vec![finding])?;
            if has_broken_input {
                continue;
            }
            let seed = self.seed_of(spec, combination).map_err(|finding| vec![finding])?;
            let (parsed, paths) = self.resolve_files(spec, combination, parsed)?;
            self.files.extend(paths);
            let arrivals = self
                .arrivals(spec, combination, &parsed.ports, &mut used_ports)
                .map_err(|finding| vec![finding])?;
            for (assignment, inputs) in arrivals {
                let mut assignment = assignment;
                assignment.extend(combination.own.iter().copied());
                if !self.is_wanted(spec, &assignment).map_err(|finding| vec![finding])? {
                    continue;
                }
                added.push(Node {
                    stage,
                    label: self.label(spec, &assignment),
                    assignment,
                    kind: spec.kind,
                    params: parsed.value.clone(),
                    parts: parsed.parts.clone(),
                    seed,
                    inputs,
                    outputs: parsed.ports.outputs.clone(),
                    resources: spec.settings.resources(parsed.resources),
                });
                if added.len() > MOST_NODES_PER_STAGE {
                    let message = format!(
                        "the axes of stage `{}` make more than {MOST_NODES_PER_STAGE} combinations",
                        spec.name
                    );
                    return Err(vec![
                        Finding::new(spec.key.clone(), message).help("leave some out with `only`"),
                    ]);
                }
            }
        }
        if has_broken_input {
            return Err(Vec::new());
        }
        self.refuse_unused_inputs(spec, &combinations, &used_ports)?;
        if added.is_empty() {
            let message = format!("`only` and `except` leave nothing of stage `{}`", spec.name);
            let list = spec.only.as_ref().or(spec.except.as_ref());
            let span = list.map_or_else(|| spec.key.clone(), |node| node.span.clone());
            return Err(vec![Finding::new(span, message)]);
        }
        for node in added {
            self.by_stage[stage].push(self.nodes.len());
            self.nodes.push(node);
        }
        Ok(())
    }

    /// Returns whether an input is wrong itself: then this stage is not to blame.
    fn has_broken_input(&self, spec: &StageSpec) -> bool {
        let of_variants = spec.axes.iter().flat_map(|axis| &axis.variants).map(|variant| &variant.overlay);
        std::iter::once(&spec.table)
            .chain(of_variants)
            .filter_map(|table| table.get("inputs")?.node.as_table())
            .flatten()
            .flat_map(|(_, entry)| texts(&entry.node))
            .filter_map(|node| Reference::parse(node.as_text()?).ok())
            .any(|reference| match self.stage_named(&reference.stage) {
                Some(stage) => self.by_stage[stage].is_empty(),
                None => self.is_lenient,
            })
    }

    fn parse(&self, spec: &StageSpec, combination: &Combination<'_>) -> Result<Parsed, Finding> {
        let mut table = combination.table.as_ref().clone();
        table.shift_remove("inputs");
        if spec.kind.is_seeded() {
            table.shift_remove("seed");
        } else if let Some(entry) = table.get("seed") {
            let message = format!("stage `{}` of kind `{}` uses no seed", spec.name, spec.kind.name());
            return Err(Finding::new(entry.key.clone(), message).help("take it out: it would change nothing"));
        }
        let node = Toml { span: spec.span.clone(), content: Content::Table(table) };
        let parsed = spec.kind.parse(&node).map_err(|mut finding| {
            self.improve(&mut finding, spec, &node);
            finding.message = format!("stage `{}` ({}): {}", spec.name, spec.kind.name(), finding.message);
            finding
        })?;
        Ok(parsed)
    }

    /// Adds what the kind itself cannot know: where the field stands that a message begins with,
    /// and which fields every stage has.
    fn improve(&self, finding: &mut Finding, spec: &StageSpec, node: &Toml) {
        let table = node.as_table().expect("parameters are a table");
        let mut quoted = finding.message.split('`');
        let (before, name) = (quoted.next().unwrap_or_default(), quoted.next().unwrap_or_default());
        let name = name.split(['.', ' ']).next().unwrap_or_default();
        let Some(entry) = table.get(name) else {
            return;
        };
        if before.is_empty() && finding.span == node.span {
            finding.span = entry.node.span.clone();
        }
        if before == "unknown field " && finding.span == entry.key {
            let mut names = spec.kind.field_names();
            names.extend(COMMON_FIELDS.iter().map(|name| (*name).to_owned()));
            names.extend(spec.kind.is_seeded().then(|| "seed".to_owned()));
            finding.help = nearest_or_all(name, "fields", names.iter().map(String::as_str));
        }
    }

    fn seed_of(&self, spec: &StageSpec, combination: &Combination<'_>) -> Result<Option<u64>, Finding> {
        if !spec.kind.is_seeded() {
            return Ok(None);
        }
        match combination.table.get("seed").map(|entry| &entry.node) {
            None => Ok(Some(self.seed)),
            Some(Toml { content: Content::Integer(seed @ 0..), .. }) => Ok(Some(*seed as u64)),
            Some(node) => Err(Finding::new(node.span.clone(), "`seed` is an integer of at least 0")),
        }
    }

    /// Makes the paths of file parameters absolute.
    fn resolve_files(
        &self,
        spec: &StageSpec,
        combination: &Combination<'_>,
        mut parsed: Parsed,
    ) -> Result<(Parsed, Vec<FileUse>), Vec<Finding>> {
        let mut files = Vec::new();
        let table =
            Toml { span: spec.span.clone(), content: Content::Table(combination.table.as_ref().clone()) };
        parsed
            .value
            .resolve_paths(&mut |place, written| {
                let span = table.at(place).map_or_else(|| spec.span.clone(), |node| node.span.clone());
                let path =
                    files::absolute(written, self.sources.folder(&span), self.data).map_err(|help| {
                        Finding::new(span.clone(), format!("`{written}` cannot be found")).help(help)
                    })?;
                let text = path.to_str().map(str::to_owned).ok_or_else(|| {
                    Finding::new(span.clone(), format!("the path `{}` is not UTF-8", path.display()))
                })?;
                files.push(FileUse { path, span, about: spec.about.clone() });
                Ok(Value::Path(text))
            })
            .map_err(|finding: Finding| vec![finding])?;
        Ok((parsed, files))
    }

    /// Joins everything that enters a stage: on shared axes equal, on others crossed.
    fn arrivals(
        &self,
        spec: &StageSpec,
        combination: &Combination<'_>,
        ports: &Ports,
        used: &mut BTreeSet<String>,
    ) -> Result<Vec<(Assignment, Vec<Edge>)>, Finding> {
        let nothing = TomlTable::new();
        let inputs = match combination.table.get("inputs").map(|entry| &entry.node) {
            None => &nothing,
            Some(node) => node.as_table().ok_or_else(|| {
                Finding::new(node.span.clone(), format!("`inputs` is a table, not {}", node.describe()))
                    .help("write `inputs = { PORT = \"STAGE\" }`")
            })?,
        };
        for port in &ports.inputs {
            if port.arity == Arity::One && !inputs.contains_key(&port.name) {
                let span = combination
                    .table
                    .get("inputs")
                    .map_or_else(|| spec.key.clone(), |entry| entry.key.clone());
                let message = format!("stage `{}` needs an input `{}`", spec.name, port.name);
                let wants = format!("of type {}", port.accepts.describe());
                return Err(Finding::new(span, message).label(format!("needs `{}` {wants}", port.name)));
            }
        }
        let mut joined: Vec<(Assignment, Vec<Edge>)> = vec![(Vec::new(), Vec::new())];
        // By name, for the order of inputs in the text means nothing.
        let mut inputs: Vec<_> = inputs.iter().collect();
        inputs.sort_by_key(|(name, _)| *name);
        for (name, entry) in inputs {
            let Some((accepts, arity)) = ports.port(name) else {
                // Kept for the complaint about inputs that no variant uses.
                continue;
            };
            used.insert(name.clone());
            let is_list = matches!(entry.node.content, Content::List(_));
            if is_list && arity != Arity::Many {
                let message = format!("port `{name}` of stage `{}` takes one input, not a list", spec.name);
                return Err(Finding::new(entry.node.span.clone(), message));
            }
            for (position, item) in texts(&entry.node).into_iter().enumerate() {
                let arrivals = self.arrivals_of(item, spec, name)?;
                for (_, from, output) in arrivals.iter().flat_map(|arrival| &arrival.edges) {
                    let outputs = &self.nodes[*from].outputs;
                    let made = outputs.iter().find(|found| found.name == *output).expect("found above");
                    if !accepts.takes(&made.artifact_type) {
                        let (wanted, made) = (accepts.describe(), &made.artifact_type);
                        let message = format!(
                            "port `{name}` of stage `{}` wants {wanted}, but `{}` makes {made}",
                            spec.name,
                            item.as_text().unwrap_or_default()
                        );
                        let all: Vec<String> = outputs
                            .iter()
                            .map(|output| format!("`{}` ({})", output.name, output.artifact_type))
                            .collect();
                        return Err(Finding::new(item.span.clone(), message)
                            .label(format!("wants {wanted}"))
                            .help(format!("its outputs: {}", all.join(", "))));
                    }
                }
                if arity != Arity::Many && arrivals.iter().any(|arrival| arrival.edges.len() > 1) {
                    let message =
                        format!("port `{name}` of stage `{}` takes one input and cannot gather", spec.name);
                    return Err(Finding::new(item.span.clone(), message));
                }
                let list_label = is_list.then(|| position.to_string());
                joined = join(joined, &arrivals, name, list_label.as_deref());
            }
            if let Some(label) = joined.iter().find_map(|(_, edges)| repeated_label(edges, name)) {
                let message = format!("port `{name}` of stage `{}` gathers two `{label}`", spec.name);
                return Err(Finding::new(entry.node.span.clone(), message)
                    .help("gather over axes whose variants have different names"));
            }
        }
        Ok(joined)
    }

    /// Finds what a reference brings: one arrival per combination of the axes that stay.
    fn arrivals_of(&self, item: &Toml, spec: &StageSpec, port: &str) -> Result<Vec<Arrival>, Finding> {
        let Some(text) = item.as_text() else {
            let message =
                format!("port `{port}` of stage `{}` names a stage, not {}", spec.name, item.describe());
            return Err(Finding::new(item.span.clone(), message));
        };
        let reference = Reference::parse_at(text, item.span.clone())?;
        let Some(from) = self.stage_named(&reference.stage) else {
            return Err(unknown_stage(&reference.stage, item.span.clone(), self.stages));
        };
        let mut brought: Vec<(Vec<usize>, Arrival)> = Vec::new();
        for node in &self.by_stage[from] {
            let found = &self.nodes[*node];
            let output = self
                .output_of(found, &reference)
                .map_err(|finding| Finding { span: item.span.clone(), ..finding })?;
            let mut stays = found.assignment.clone();
            let mut gathered = Vec::new();
            let mut labels = Vec::new();
            let mut is_selected = true;
            for (name, choice) in &reference.selectors {
                let axis = self.axis_named(&found.assignment, name).map_err(|(problem, help)| {
                    Finding::new(item.span.clone(), format!("stage `{}` {problem}", reference.stage))
                        .maybe_help(help)
                })?;
                let position = stays.iter().position(|(id, _)| *id == axis);
                let Some(position) = position else {
                    let message = format!("stage `{}` is asked for its axis `{name}` twice", reference.stage);
                    return Err(Finding::new(item.span.clone(), message));
                };
                let (_, variant) = stays.remove(position);
                match choice {
                    Choice::All => {
                        gathered.push(variant);
                        labels.push(self.variant_name(axis, variant).to_owned());
                    }
                    Choice::One(wanted) => {
                        let wanted = self.variant_named(axis, wanted).map_err(|(problem, help)| {
                            Finding::new(item.span.clone(), problem).maybe_help(help)
                        })?;
                        is_selected &= variant == wanted;
                    }
                }
            }
            if !is_selected {
                continue;
            }
            let label = (!labels.is_empty()).then(|| labels.join("/"));
            let edge = (label, *node, output.to_owned());
            brought.push((gathered, Arrival { assignment: stays, edges: vec![edge] }));
        }
        // Gathered in the order in which the axes declare their variants, whatever the order in
        // which the axes themselves are written.
        brought.sort_by(|a, b| a.0.cmp(&b.0));
        let mut arrivals: Vec<Arrival> = Vec::new();
        for (gathered, arrival) in brought {
            let same = |other: &&mut Arrival| other.assignment == arrival.assignment;
            match arrivals.iter_mut().find(|other| !gathered.is_empty() && same(other)) {
                Some(there) => there.edges.extend(arrival.edges),
                None => arrivals.push(arrival),
            }
        }
        if arrivals.is_empty() {
            let message = format!("`{text}` selects nothing of stage `{}`", reference.stage);
            return Err(Finding::new(item.span.clone(), message)
                .help("its `only` or `except` leaves this combination out"));
        }
        Ok(arrivals)
    }

    fn output_of<'n>(&self, node: &'n Node, reference: &Reference) -> Result<&'n str, Finding> {
        let found = match &reference.output {
            None => node.outputs.first(),
            Some(name) => node.outputs.iter().find(|output| output.name == *name),
        };
        found.map(|output| output.name.as_str()).ok_or_else(|| {
            let name = reference.output.as_deref().unwrap_or_default();
            let names = node.outputs.iter().map(|output| output.name.as_str());
            Finding::new(0..0, format!("stage `{}` has no output `{name}`", reference.stage))
                .maybe_help(nearest_or_all(name, "its outputs", names))
        })
    }

    fn refuse_unused_inputs(
        &self,
        spec: &StageSpec,
        combinations: &[Combination<'_>],
        used: &BTreeSet<String>,
    ) -> Result<(), Vec<Finding>> {
        let inputs =
            combinations.iter().filter_map(|combination| combination.table.get("inputs")?.node.as_table());
        for (name, entry) in inputs.flatten() {
            if !used.contains(name) {
                let parsed = self.parse(spec, &combinations[0]).map_err(|finding| vec![finding])?;
                let known: Vec<&str> = parsed.ports.inputs.iter().map(|port| port.name.as_str()).collect();
                let help = nearest_or_all(name, "its inputs", known)
                    .unwrap_or_else(|| "it takes no inputs".to_owned());
                let message = format!("stage `{}` has no input `{name}`", spec.name);
                return Err(vec![Finding::new(entry.key.clone(), message).label("no such port").help(help)]);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, spec: &StageSpec, assignment: &Assignment) -> Result<bool, Finding> {
        let matches = |list: &Toml| -> Result<bool, Finding> {
            let Some(items) = list.as_list() else {
                let message = format!("expected a list of combinations, not {}", list.describe());
                return Err(Finding::new(list.span.clone(), message).help("write `[{ axis = \"variant\" }]`"));
            };
            for item in items {
                if self.combination_matches(spec, item, assignment)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if let Some(list) = &spec.except
            && matches(list)?
        {
            return Ok(false);
        }
        match &spec.only {
            Some(list) => matches(list),
            None => Ok(true),
        }
    }

    fn combination_matches(
        &self,
        spec: &StageSpec,
        item: &Toml,
        assignment: &Assignment,
    ) -> Result<bool, Finding> {
        let Some(table) = item.as_table() else {
            let message = format!("a combination is a table, not {}", item.describe());
            return Err(Finding::new(item.span.clone(), message).help("write `{ axis = \"variant\" }`"));
        };
        let mut all = true;
        for (name, entry) in table {
            let axis = self.axis_named(assignment, name).map_err(|(problem, help)| {
                Finding::new(entry.key.clone(), format!("stage `{}` {problem}", spec.name)).maybe_help(help)
            })?;
            let wanted = entry.node.scalar_text().unwrap_or_default();
            let wanted = self
                .variant_named(axis, &wanted)
                .map_err(|(problem, help)| Finding::new(entry.node.span.clone(), problem).maybe_help(help))?;
            all &= assignment.contains(&(axis, wanted));
        }
        Ok(all)
    }

    fn label(&self, spec: &StageSpec, assignment: &Assignment) -> String {
        if assignment.is_empty() {
            return spec.name.clone();
        }
        let parts: Vec<String> = assignment
            .iter()
            .map(|(axis, variant)| {
                let name = self.axis_name(*axis);
                let is_shared =
                    assignment.iter().filter(|(other, _)| self.axis_name(*other) == name).count() > 1;
                let prefix = if is_shared { format!("{}.", self.stage_name(axis.0)) } else { String::new() };
                format!("{prefix}{name}={}", self.variant_name(*axis, *variant))
            })
            .collect();
        format!("{}[{}]", spec.name, parts.join(","))
    }
}

/// Multiplies a stage's own axes out, the last one fastest.
fn combine(stage: usize, spec: &StageSpec) -> Result<Vec<Combination<'_>>, Vec<Finding>> {
    let mut combinations = vec![Combination { own: Vec::new(), table: Cow::Borrowed(&spec.table) }];
    for (position, axis) in spec.axes.iter().enumerate() {
        if combinations.len() * axis.variants.len() > MOST_NODES_PER_STAGE {
            let message = format!(
                "the axes of stage `{}` make more than {MOST_NODES_PER_STAGE} combinations",
                spec.name
            );
            return Err(vec![Finding::new(spec.key.clone(), message).help("leave some out with `only`")]);
        }
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                axis.variants.iter().enumerate().map(move |(variant, of)| {
                    let mut table = combination.table.clone().into_owned();
                    overlay(&mut table, &of.overlay, &spec.choices, axis.overlay());
                    let mut own = combination.own.clone();
                    own.push(((stage, position), variant));
                    Combination { own, table: Cow::Owned(table) }
                })
            })
            .collect();
    }
    Ok(combinations)
}

/// Returns the table of one node: the stage's, with the node's own variants laid over it.
pub(crate) fn table_of(spec: &StageSpec, stage: usize, assignment: &Assignment) -> TomlTable {
    let mut table = spec.table.clone();
    for ((of, axis), variant) in assignment {
        if *of == stage {
            let axis = &spec.axes[*axis];
            overlay(&mut table, &axis.variants[*variant].overlay, &spec.choices, axis.overlay());
        }
    }
    table
}

/// Joins what is there with what arrives at one more port.
fn join(
    there: Vec<(Assignment, Vec<Edge>)>,
    arrivals: &[Arrival],
    port: &str,
    list_label: Option<&str>,
) -> Vec<(Assignment, Vec<Edge>)> {
    // Sought by the axes that all have, or joining long axes would take their product.
    let axes_of = |assignment: &Assignment| assignment.iter().map(|(axis, _)| *axis).collect::<BTreeSet<_>>();
    let all =
        there.iter().map(|(assignment, _)| assignment).chain(arrivals.iter().map(|found| &found.assignment));
    let shared = all.map(axes_of).reduce(|a, b| &a & &b).unwrap_or_default();
    let place = |assignment: &Assignment| -> Vec<(AxisId, usize)> {
        let mut place: Vec<_> =
            assignment.iter().filter(|(axis, _)| shared.contains(axis)).copied().collect();
        place.sort_unstable();
        place
    };
    let mut by_place: BTreeMap<_, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        by_place.entry(place(&arrival.assignment)).or_default().push(arrival);
    }
    let mut joined = Vec::new();
    for (assignment, edges) in there {
        for arrival in by_place.get(&place(&assignment)).into_iter().flatten() {
            let agrees = arrival
                .assignment
                .iter()
                .all(|(axis, variant)| assignment.iter().all(|(id, found)| id != axis || found == variant));
            if !agrees {
                continue;
            }
            let mut all = assignment.clone();
            for pair in &arrival.assignment {
                if !all.contains(pair) {
                    all.push(*pair);
                }
            }
            let mut edges = edges.clone();
            for (label, from, output) in &arrival.edges {
                let label = label.clone().or_else(|| list_label.map(str::to_owned));
                edges.push(Edge { port: port.to_owned(), label, from: *from, output: output.clone() });
            }
            joined.push((all, edges));
        }
    }
    joined
}

/// Returns a label that two inputs of one port have: they would lie in one folder.
fn repeated_label<'e>(edges: &'e [Edge], port: &str) -> Option<&'e str> {
    let mut seen = BTreeSet::new();
    edges
        .iter()
        .filter(|edge| edge.port == port)
        .filter_map(|edge| edge.label.as_deref())
        .find(|label| !seen.insert(label.replace('/', "_")))
}

/// Returns the nodes of a stage that a reference's selectors leave.
pub(crate) fn select(
    draft: &Draft<'_>,
    stage: usize,
    reference: &Reference,
) -> Result<Vec<usize>, (String, Option<String>)> {
    let mut found = Vec::new();
    for node in draft.nodes_of(stage) {
        let assignment = &draft.nodes[*node].assignment;
        let mut is_selected = true;
        for (name, choice) in &reference.selectors {
            let axis = draft
                .axis_named(assignment, name)
                .map_err(|(problem, help)| (format!("stage `{}` {problem}", reference.stage), help))?;
            if let Choice::One(wanted) = choice {
                is_selected &= assignment.contains(&(axis, draft.variant_named(axis, wanted)?));
            }
        }
        if is_selected {
            found.push(*node);
        }
    }
    Ok(found)
}
