//! [`Experiment`] to [`Plan`]: names resolved, axes multiplied out, edges typed, no cycles.

use std::path::{Path, PathBuf};

use crate::experiment::reference::Reference;
use crate::experiment::spec::{Experiment, StageSpec};
use crate::plan::expand::PlanBuilder;
use crate::plan::lookup::Lookup;
use crate::plan::node::{FileUse, Node};
use crate::plan::order::order;
use crate::plan::table::comparable::Paths;
use crate::plan::table::planned::PlannedTable;
use crate::plan::table::planner::plan_table;
use crate::toml::diagnostic::{Diagnostic, Report, nearest_or_all};

/// A file that a parameter names and that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFile {
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
    pub(crate) tables: Vec<PlannedTable>,
    /// What a run makes if nothing else is asked for.
    targets: Vec<usize>,
    /// For each node, whether it is needed.
    is_needed: Vec<bool>,
}

impl Plan {
    /// Plans an experiment.
    ///
    /// # Errors
    /// One [`Report`] of everything that is wrong with it: syntax, graph, and the first mistake
    /// in each stage.
    pub fn new(mut experiment: Experiment) -> Result<Self, Report> {
        let mut diagnostics = std::mem::take(&mut experiment.diagnostics);
        let (order, cycles) = order(&experiment);
        diagnostics.extend(cycles);
        let mut builder = PlanBuilder::new(&experiment);
        for stage in order {
            if let Err(of_stage) = builder.add_stage(stage) {
                diagnostics.extend(of_stage);
            }
        }
        // Stages on a cycle never came to be; what reads them is not to blame.
        let mut tables = Vec::new();
        let paths = Paths { sources: &experiment.sources, data: experiment.data.as_deref() };
        for table in experiment.tables.iter().filter(|_| !experiment.has_syntax_errors) {
            match plan_table(table, builder.lookup(), paths) {
                Ok(planned) => tables.push(planned),
                Err(of_table) if !builder.has_gaps() => diagnostics.extend(of_table),
                Err(_) => {}
            }
        }
        let (nodes, by_stage, files) = builder.finish();
        // With a table, what is needed is known only if nothing else is wrong.
        if !diagnostics.is_empty() && experiment.tables.is_empty() {
            diagnostics.extend(files.iter().filter_map(FileUse::problem));
        }
        if let Some(report) = Report::of(diagnostics, &experiment.sources) {
            return Err(report);
        }
        let (targets, is_needed) = (Vec::new(), vec![false; nodes.len()]);
        let mut plan = Self { experiment, nodes, by_stage, files, tables, targets, is_needed };
        plan.targets = plan.cells_or_ends();
        plan.require(&plan.targets.clone())?;
        Ok(plan)
    }

    /// Returns the nodes that tables read; without tables, those that nothing reads.
    fn cells_or_ends(&self) -> Vec<usize> {
        let mut is_target = vec![self.tables.is_empty(); self.nodes.len()];
        if self.tables.is_empty() {
            for edge in self.nodes.iter().flat_map(|node| &node.inputs) {
                is_target[edge.from] = false;
            }
        }
        for node in self.table_nodes() {
            is_target[node] = true;
        }
        (0..self.nodes.len()).filter(|node| is_target[*node]).collect()
    }

    /// Returns the nodes that fill the tables.
    pub(crate) fn table_nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.tables.iter().flat_map(PlannedTable::nodes)
    }

    /// Returns the experiment that was planned.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Returns all nodes; the inputs of a node stand before it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the names of its tables: those of `[tables.NAME]`, and none for `[table]`.
    pub fn tables(&self) -> impl Iterator<Item = Option<&str>> {
        self.tables.iter().map(|table| table.name.as_deref())
    }

    /// Returns the nodes that a run makes if nothing else is asked for: those that tables read; without
    /// tables, those that nothing reads.
    pub fn targets(&self) -> &[usize] {
        &self.targets
    }

    /// Returns whether a node is a target or was required, or is needed for one of these.
    pub fn is_needed(&self, node: usize) -> bool {
        self.is_needed[node]
    }

    /// Makes nodes needed, and all that they need: their files must be there.
    ///
    /// # Errors
    /// A [`Report`] of the files of which it cannot be told where they are.
    pub fn require(&mut self, nodes: &[usize]) -> Result<(), Report> {
        let mut open = nodes.to_vec();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut self.is_needed[node], true) {
                open.extend(self.nodes[node].inputs.iter().map(|edge| edge.from));
            }
        }
        let problems = self.needed_files().filter_map(FileUse::problem).collect();
        Report::of(problems, &self.experiment.sources).map_or(Ok(()), Err)
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
        self.lookup().select(stage, &reference).map_err(|(message, help)| match help {
            Some(help) => format!("{message}; {help}"),
            None => message,
        })
    }

    /// Returns the files that parameters of needed nodes name. Others need not be there.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.needed_files().map(|file| file.path.as_path())
    }

    fn needed_files(&self) -> impl Iterator<Item = &FileUse> {
        self.files.iter().filter(|file| file.nodes.clone().any(|node| self.is_needed[node]))
    }

    /// Makes a report about files that could not be read.
    pub fn report_files(&self, problems: &[UnreadableFile]) -> Option<Report> {
        let mut diagnostics = Vec::new();
        for UnreadableFile { path, message, help } in problems {
            for file in self.needed_files().filter(|file| file.path == *path) {
                let help = help.map(str::to_owned).or_else(|| file.about.clone()).unwrap_or_else(|| {
                    "check the path, which starts from the folder of the file that names it".to_owned()
                });
                diagnostics
                    .push(Diagnostic::new(file.span.clone(), message.clone()).label("names this").help(help));
            }
        }
        Report::of(diagnostics, &self.experiment.sources)
    }

    /// Returns the name of a node's kind, as the experiment has it.
    pub fn kind_name(&self, node: usize) -> &str {
        self.spec(self.nodes[node].stage).kind_name()
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

    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            stages: &self.experiment.stages,
            seeds: &self.experiment.seed_axes,
            nodes: &self.nodes,
            by_stage: &self.by_stage,
        }
    }
}
