//! [`Experiment`] to [`Plan`]: names resolved, axes multiplied out, edges typed, no cycles.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cache::Value;
use choice::Part;
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use crate::experiment::axes::Assignment;
use crate::experiment::load::{Experiment, StageSpec};
use crate::experiment::reference::{Choice, Reference};
use crate::kind::name::Name;
use crate::kind::stage::{Kind, OutputPort, Resources};
use crate::plan::expand::{Draft, texts};
use crate::plan::table::{self, PlannedTable};
use crate::toml::diagnostic::{Finding, Report, nearest_or_all};
use crate::toml::source_map::Span;

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
    pub port: Name,
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

/// A file that a parameter names and that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// Which, as [`Plan::files`] has it.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
    /// What to do, where it is not the path that is wrong.
    pub help: Option<&'static str>,
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
            nodes: Cow::Owned(Vec::new()),
            by_stage: Cow::Owned(vec![Vec::new(); experiment.stages.len()]),
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
        let (nodes, by_stage, files) = (draft.nodes.into_owned(), draft.by_stage.into_owned(), draft.files);
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
    pub fn report_files(&self, problems: &[FileProblem]) -> Option<Report> {
        let mut findings = Vec::new();
        for FileProblem { path, message, help } in problems {
            for file in self.files.iter().filter(|file| file.path == *path) {
                let help = help.map(str::to_owned).or_else(|| file.about.clone()).unwrap_or_else(|| {
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
            nodes: Cow::Borrowed(&self.nodes),
            by_stage: Cow::Borrowed(&self.by_stage),
            broken: BTreeSet::new(),
            files: Vec::new(),
        }
    }
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
