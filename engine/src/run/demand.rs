//! Which nodes are wanted, which are done, and which can run: demand from the targets down.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Cache, Digest, Key, Trace};

use crate::plan::graph::Plan;
use crate::plan::key::Keys;
use crate::run::events::{Event, RunError, RunOptions, RunReport, StageResult};

/// Where a node stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    /// Not there, and not requested yet.
    Absent,
    /// Waits for this many inputs.
    Blocked(usize),
    Ready,
    /// Another run holds its key.
    Locked,
    Running,
    Done(Trace),
    /// Failed or skipped.
    Lost,
}

/// The nodes of a plan on their way to being done.
pub(crate) struct Demand<'a> {
    pub plan: &'a Plan,
    pub cache: &'a Cache,
    pub options: &'a RunOptions,
    /// The first node with the same recipe: equal work is done once.
    leaders: Vec<usize>,
    pub consumers: Vec<Vec<usize>>,
    pub statuses: Vec<Status>,
    pub results: Vec<Option<StageResult>>,
    pub ready: BTreeSet<usize>,
    pub locked: BTreeSet<usize>,
    /// How often inputs of a node turned out corrupt.
    pub repairs: BTreeMap<usize, usize>,
    /// Nodes whose finished work must not be looked up: forced ones.
    pub forced: BTreeSet<usize>,
    /// Nodes that the table reads.
    pub in_table: BTreeSet<usize>,
    pub is_stopping: bool,
}

impl<'a> Demand<'a> {
    /// Looks up what is done already.
    ///
    /// # Errors
    /// [`RunError`] if the cache cannot be read.
    pub(crate) fn new(
        plan: &'a Plan,
        keys: &'a Keys,
        cache: &'a Cache,
        options: &'a RunOptions,
    ) -> Result<Self, RunError> {
        let count = plan.nodes().len();
        let mut first: BTreeMap<Key, usize> = BTreeMap::new();
        let leader =
            |(node, key): (usize, Option<Key>)| key.map_or(node, |key| *first.entry(key).or_insert(node));
        let leaders: Vec<usize> = keys.recipes().enumerate().map(leader).collect();
        let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (position, node) in plan.nodes().iter().enumerate() {
            if leaders[position] != position {
                continue;
            }
            for from in inputs_of(&leaders, node.inputs().iter().map(|edge| edge.from)) {
                consumers[from].push(position);
            }
        }
        let in_table: BTreeSet<usize> = plan.table_nodes().map(|node| leaders[node]).collect();
        let forced: BTreeSet<usize> = options.force.iter().map(|node| leaders[*node]).collect();
        let traces = keys.spread(cache.index().recipes(&keys.known())?);
        let whole = |(node, trace): (usize, Option<Trace>)| match trace {
            Some(trace) if is_whole(plan, node, &trace) => Status::Done(trace),
            _ => Status::Absent,
        };
        let statuses = traces.into_iter().enumerate().map(whole).collect();
        let mut demand = Self {
            plan,
            cache,
            options,
            leaders,
            consumers,
            statuses,
            results: vec![None; count],
            ready: BTreeSet::new(),
            locked: BTreeSet::new(),
            repairs: BTreeMap::new(),
            forced,
            in_table,
            is_stopping: false,
        };
        demand.reopen_forced();
        Ok(demand)
    }

    /// Marks forced nodes as absent, and all nodes between them and the targets: a forced node may
    /// make other bytes, and then the old results of its consumers no longer belong to it.
    fn reopen_forced(&mut self) {
        if self.forced.is_empty() {
            return;
        }
        let mut is_wanted = vec![false; self.leaders.len()];
        let mut open = self.targets();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut is_wanted[node], true) {
                open.extend(self.inputs_of(node));
            }
        }
        let mut open: Vec<usize> = self.forced.iter().copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(node) = open.pop() {
            if is_wanted[node] && seen.insert(node) {
                self.statuses[node] = Status::Absent;
                open.extend(self.consumers[node].iter().copied());
            }
        }
    }

    /// Returns the leaders among the inputs of a node, each once.
    pub(crate) fn inputs_of(&self, node: usize) -> Vec<usize> {
        inputs_of(&self.leaders, self.plan.nodes()[node].inputs().iter().map(|edge| edge.from))
    }

    /// Returns the nodes that must be there at the end: the requested ones, or else the plan's targets.
    pub(crate) fn targets(&self) -> Vec<usize> {
        let requested = &self.options.targets;
        let wanted = if requested.is_empty() { self.plan.targets() } else { requested };
        let leaders: BTreeSet<usize> =
            wanted.iter().chain(&self.forced).map(|node| self.leaders[*node]).collect();
        leaders.into_iter().collect()
    }

    /// Requests a node and all its inputs that are not there.
    pub(crate) fn request(&mut self, target: usize, on_event: &mut dyn FnMut(Event)) {
        let mut open = vec![target];
        while let Some(node) = open.pop() {
            if self.statuses[node] != Status::Absent {
                continue;
            }
            let is_asked_for = self.options.targets.iter().any(|target| self.leaders[*target] == node);
            if self.options.only_targets && !is_asked_for {
                let because = "its result is not there, and `--only` forbids making it".to_owned();
                self.give_up(node, StageResult::Skipped { because }, on_event);
                continue;
            }
            let missing: Vec<usize> = self
                .inputs_of(node)
                .into_iter()
                .filter(|input| !matches!(self.statuses[*input], Status::Done(_)))
                .collect();
            self.statuses[node] = Status::Blocked(missing.len());
            if missing.is_empty() {
                self.statuses[node] = Status::Ready;
                self.ready.insert(node);
            }
            if missing.iter().any(|input| self.statuses[*input] == Status::Lost) {
                let because = "an input could not be made".to_owned();
                self.give_up(node, StageResult::Skipped { because }, on_event);
                continue;
            }
            open.extend(missing);
        }
    }

    pub(crate) fn artifacts_of(&self, node: usize) -> Vec<Digest> {
        let inputs = self.plan.nodes()[node].inputs().iter();
        inputs
            .map(|edge| match &self.statuses[self.leaders[edge.from]] {
                // `is_whole` says so of everything that is done.
                Status::Done(trace) => trace.output(&edge.output).expect("finished work has all its outputs"),
                other => unreachable!("an input of a ready node is {other:?}"),
            })
            .collect()
    }

    pub(crate) fn finish(
        &mut self,
        node: usize,
        trace: Trace,
        result: StageResult,
        on_event: &mut dyn FnMut(Event),
    ) {
        self.statuses[node] = Status::Done(trace);
        self.results[node] = Some(result.clone());
        self.forced.remove(&node);
        on_event(Event::Finished { node, result });
        for consumer in self.consumers[node].clone() {
            if let Status::Blocked(missing) = &mut self.statuses[consumer] {
                *missing -= 1;
                if *missing == 0 {
                    self.statuses[consumer] = Status::Ready;
                    self.ready.insert(consumer);
                }
            }
        }
    }

    /// Gives up a node, and with it everything that waits for it.
    pub(crate) fn give_up(&mut self, node: usize, result: StageResult, on_event: &mut dyn FnMut(Event)) {
        let culprit = self.plan.nodes()[node].label().to_owned();
        self.statuses[node] = Status::Lost;
        self.ready.remove(&node);
        self.results[node] = Some(result.clone());
        on_event(Event::Finished { node, result });
        let mut open = self.consumers[node].clone();
        while let Some(consumer) = open.pop() {
            if !matches!(self.statuses[consumer], Status::Blocked(_)) {
                continue;
            }
            self.statuses[consumer] = Status::Lost;
            let result = StageResult::Skipped { because: format!("`{culprit}` was not made") };
            self.results[consumer] = Some(result.clone());
            on_event(Event::Finished { node: consumer, result });
            open.extend(self.consumers[consumer].iter().copied());
        }
    }

    pub(crate) fn report(&self, before: &[bool], was_interrupted: bool) -> RunReport {
        let mut results = Vec::with_capacity(self.leaders.len());
        let mut traces = Vec::with_capacity(self.leaders.len());
        for (node, leader) in self.leaders.iter().enumerate() {
            traces.push(match &self.statuses[*leader] {
                Status::Done(trace) => Some(trace.clone()),
                _ => None,
            });
            results.push(match (&self.results[*leader], &self.statuses[*leader]) {
                // The work was done once, for the first node with this recipe.
                (Some(StageResult::Ran { .. }), _) if node != *leader => StageResult::Hit,
                (Some(result), _) => result.clone(),
                (None, Status::Done(_)) if before[*leader] => StageResult::Hit,
                (None, Status::Absent) => StageResult::NotNeeded,
                _ if was_interrupted => {
                    StageResult::Skipped { because: "the run was interrupted".to_owned() }
                }
                _ => StageResult::Skipped { because: "the run stopped after a failure".to_owned() },
            });
        }
        RunReport { results, traces, was_interrupted }
    }
}

/// Returns whether finished work has every output that the plan takes from it.
pub(crate) fn is_whole(plan: &Plan, node: usize, trace: &Trace) -> bool {
    plan.nodes()[node].outputs.iter().all(|output| trace.output(&output.name).is_some())
}

/// Returns the leaders among some inputs, each once.
fn inputs_of(leaders: &[usize], inputs: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut inputs: Vec<usize> = inputs.map(|input| leaders[input]).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}
