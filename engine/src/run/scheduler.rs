//! Decides what runs when: demand from the targets down, inputs before stages, within the
//! machine's cores and memory, each piece of work once.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cache::{Access, Cache, Digest, Key, KeyLock, Trace};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::plan::graph::Plan;
use crate::plan::key::Keys;
use crate::plan::memory_forecast::Fit;
use crate::process::cancel::Cancel;
use crate::process::job::{Progress, Reason};
use crate::run::events::{Event, RunError, RunOptions, RunReport, StageResult};
use crate::run::executor::{Performed, Step, Task, Workshop, perform};
use crate::run::fixed::{FixError, FixedFiles};
use crate::run::worker::panic_message;

/// How often a key that another run holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(25);
/// How often the wish to stop is looked at while nothing happens.
const IDLE_POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    /// Not there, and nobody has asked for it yet.
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

/// What a node takes of the machine.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    cores: u32,
    memory_bytes: u64,
    device_memory_bytes: u64,
}

enum Message {
    Progress(usize, Progress),
    Step(usize, Step),
    Finished(usize, Performed),
}

pub(crate) struct Schedule<'a> {
    pub(crate) plan: &'a Plan,
    keys: &'a Keys,
    pub(crate) cache: &'a Cache,
    pub(crate) options: &'a RunOptions,
    cancel: &'a Cancel,
    /// The first node with the same recipe: equal work is done once.
    pub(crate) leaders: Vec<usize>,
    pub(crate) consumers: Vec<Vec<usize>>,
    pub(crate) statuses: Vec<Status>,
    pub(crate) results: Vec<Option<StageResult>>,
    pub(crate) ready: BTreeSet<usize>,
    pub(crate) locked: BTreeSet<usize>,
    running: BTreeMap<usize, Taken>,
    pub(crate) repairs: BTreeMap<usize, usize>,
    /// Nodes whose finished work must not be looked up: forced ones.
    forced: BTreeSet<usize>,
    /// Nodes that the table reads.
    pub(crate) in_table: BTreeSet<usize>,
    pub(crate) is_stopping: bool,
    run: i64,
}

/// Runs a plan.
///
/// # Errors
/// [`RunError`] if the cache itself fails; a failing stage is a result.
pub fn run(
    plan: &Plan,
    keys: &Keys,
    cache: &Cache,
    options: &RunOptions,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) -> Result<RunReport, RunError> {
    Schedule::new(plan, keys, cache, options, cancel)?.run(tell)
}

impl<'a> Schedule<'a> {
    pub fn new(
        plan: &'a Plan,
        keys: &'a Keys,
        cache: &'a Cache,
        options: &'a RunOptions,
        cancel: &'a Cancel,
    ) -> Result<Self, RunError> {
        let count = plan.nodes().len();
        let mut first: BTreeMap<Key, usize> = BTreeMap::new();
        let leaders: Vec<usize> =
            (0..count).map(|node| *first.entry(keys.recipe(node)).or_insert(node)).collect();
        let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (position, node) in plan.nodes().iter().enumerate() {
            if leaders[position] != position {
                continue;
            }
            for from in inputs_of(&leaders, node.inputs().iter().map(|edge| edge.from)) {
                consumers[from].push(position);
            }
        }
        let table = plan.table.iter().flat_map(|table| table.nodes());
        let in_table: BTreeSet<usize> = table.map(|node| leaders[node]).collect();
        let forced: BTreeSet<usize> = options.force.iter().map(|node| leaders[*node]).collect();
        let found = cache.index().recipes(keys.recipes())?;
        let whole = |(node, trace): (usize, Option<Trace>)| match trace {
            Some(trace) if is_whole(plan, node, &trace) => Status::Done(trace),
            _ => Status::Absent,
        };
        let statuses = found.into_iter().enumerate().map(whole).collect();
        let mut schedule = Self {
            plan,
            keys,
            cache,
            options,
            cancel,
            leaders,
            consumers,
            statuses,
            results: vec![None; count],
            ready: BTreeSet::new(),
            locked: BTreeSet::new(),
            running: BTreeMap::new(),
            repairs: BTreeMap::new(),
            forced,
            in_table,
            is_stopping: false,
            run: 0,
        };
        schedule.unsettle_forced();
        Ok(schedule)
    }

    /// Takes back that forced nodes are done, and so what lies between them and the targets: a
    /// forced node may come out otherwise, and then its old consumers' results are not of it.
    fn unsettle_forced(&mut self) {
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

    pub fn run(mut self, tell: &mut dyn FnMut(Event)) -> Result<RunReport, RunError> {
        self.check_table_bytes(tell)?;
        self.warn_of_damaged_records(tell);
        let hits = self.statuses.iter().filter(|status| matches!(status, Status::Done(_))).count();
        if self.cache.access() == Access::ReadWrite {
            let experiment = std::path::absolute(self.plan.experiment().file()).unwrap_or_default();
            let profile = self.plan.experiment().profile().unwrap_or_default();
            let (plan, keys) = (self.plan, self.keys);
            self.run = self.cache.index().begin_run(
                &experiment.display().to_string(),
                profile,
                keys.plan(plan),
                &|| {
                    let all = plan.nodes().iter().enumerate();
                    all.map(|(at, node)| (node.label().to_owned(), keys.recipe(at), keys.document(plan, at)))
                        .collect()
                },
            )?;
        }
        tell(Event::Begun { nodes: self.plan.nodes().len(), hits });
        let before: Vec<bool> =
            self.statuses.iter().map(|status| matches!(status, Status::Done(_))).collect();
        for target in self.targets() {
            self.demand(target, tell);
        }
        self.warn_of_memory(tell);
        if !self.ready.is_empty() && self.cache.access() == Access::ReadWrite {
            self.cache.sweep_leftovers()?;
        }
        let (sender, receiver) = unbounded();
        let finished = self
            .take_sources_in()
            .and_then(|()| std::thread::scope(|scope| self.work(scope, &sender, &receiver, tell)));
        let was_interrupted = self.cancel.is_asked();
        let report = self.report(&before, was_interrupted);
        if self.cache.access() == Access::ReadWrite {
            let outcome = match (&finished, was_interrupted, report.failed().next()) {
                (Err(_), ..) => "error",
                (_, true, _) => "interrupted",
                (_, _, Some(_)) => "failed",
                _ => "done",
            };
            // A run that could not be ended in the books has still made its results.
            let _ = self.cache.index().end_run(self.run, outcome);
        }
        finished.map(|()| report)
    }

    /// Takes into the cache the files of all stages that are to be made, so that an edit while the run
    /// goes on changes nothing of it.
    fn take_sources_in(&self) -> Result<(), RunError> {
        if self.cache.access() == Access::ReadOnly {
            return Ok(());
        }
        let is_to_be_made = |(_, status): &(_, &Status)| matches!(status, Status::Blocked(_) | Status::Ready);
        let nodes = self.plan.nodes().iter().zip(&self.statuses).filter(is_to_be_made);
        let files = FixedFiles::of(nodes.map(|(node, _)| &node.params), self.keys.files());
        match files.compare_in_place().and_then(|()| files.take_in(self.cache)) {
            Ok(()) => Ok(()),
            Err(FixError::Changed(path)) => Err(RunError::SourceChanged { path }),
            // The stage tries again when its turn comes, and says so in words of its own.
            Err(FixError::Cache(error)) if error.is_full_disk() => Ok(()),
            Err(FixError::Cache(error)) => Err(error.into()),
        }
    }

    /// Looks finished work up by its trace key. What is damaged is no finished work.
    fn look_up(
        &self,
        node: usize,
        trace: Key,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Option<Trace>, RunError> {
        if self.forced.contains(&node) {
            return Ok(None);
        }
        let Some(found) = self.cache.index().trace(trace)? else {
            return Ok(None);
        };
        if !is_whole(self.plan, node, &found) {
            return Ok(None);
        }
        let is_in_table = self.in_table.contains(&node);
        Ok((!is_in_table || self.are_numbers_intact(node, &found, tell)?).then_some(found))
    }

    /// What must be there at the end: what was asked for, or else the table and all ends.
    fn targets(&self) -> Vec<usize> {
        let wanted: BTreeSet<usize> = if self.options.targets.is_empty() {
            let ends = (0..self.leaders.len()).filter(|node| self.consumers[self.leaders[*node]].is_empty());
            let table = self.plan.table.as_ref().map(|table| table.nodes().collect::<Vec<_>>());
            ends.chain(table.into_iter().flatten()).collect()
        } else {
            self.options.targets.iter().copied().collect()
        };
        let leaders: BTreeSet<usize> =
            wanted.into_iter().chain(self.forced.iter().copied()).map(|node| self.leaders[node]).collect();
        leaders.into_iter().collect()
    }

    /// Asks for a node and, as far as they are not there, for all its inputs.
    pub(crate) fn demand(&mut self, target: usize, tell: &mut dyn FnMut(Event)) {
        let mut open = vec![target];
        while let Some(node) = open.pop() {
            if self.statuses[node] != Status::Absent {
                continue;
            }
            let is_asked_for = self.options.targets.iter().any(|target| self.leaders[*target] == node);
            if self.options.only_targets && !is_asked_for {
                let because = "its result is not there, and `--only` forbids making it".to_owned();
                self.lose_node(node, StageResult::Skipped { because }, tell);
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
                self.lose_node(node, StageResult::Skipped { because }, tell);
                continue;
            }
            open.extend(missing);
        }
    }

    fn work<'scope>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: &Sender<Message>,
        receiver: &Receiver<Message>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), RunError>
    where
        'a: 'scope,
    {
        let mut tried_locks = Instant::now();
        loop {
            let may_begin = !self.cancel.is_asked() && !self.is_stopping;
            if may_begin {
                self.begin(scope, sender, tell)?;
            }
            let is_waiting = may_begin && !self.locked.is_empty();
            if self.running.is_empty() && !is_waiting {
                return Ok(());
            }
            let patience = if is_waiting { LOCK_POLL } else { IDLE_POLL };
            match receiver.recv_timeout(patience) {
                Ok(message) => {
                    self.hear(message, tell)?;
                    self.warn_of_damaged_records(tell);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the schedule holds a sender itself"),
            }
            if tried_locks.elapsed() >= LOCK_POLL {
                tried_locks = Instant::now();
                self.ready.append(&mut self.locked);
            }
        }
    }

    fn begin<'scope>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: &Sender<Message>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), RunError>
    where
        'a: 'scope,
    {
        // Finishing a node without work readies others, so the set may grow while it is read.
        let mut after = None;
        while let Some(node) = self.next_ready(after) {
            after = Some(node);
            let needs = self.needs(node);
            let used = self.running.values().fold(Taken::default(), |sum, taken| sum.and(*taken));
            let machine = &self.options.machine;
            // Every stage takes a core, so there is no room for any of the others either.
            if used.cores >= machine.cores {
                break;
            }
            let together = used.and(needs);
            let has_room = together.cores <= machine.cores
                && together.memory_bytes <= machine.memory_bytes
                && together.device_memory_bytes <= machine.device_memory_bytes.unwrap_or(u64::MAX);
            if !has_room && !self.running.is_empty() {
                continue;
            }
            self.ready.remove(&node);
            let artifacts = self.artifacts_of(node);
            let trace = self.keys.trace(self.plan, node, &artifacts);
            let label = self.plan.nodes()[node].label().to_owned();
            if let Some(found) = self.look_up(node, trace, tell)? {
                if self.cache.access() == Access::ReadWrite {
                    let document = self.keys.document(self.plan, node);
                    self.cache.index().alias((self.keys.recipe(node), &document), trace)?;
                }
                let how = if self.statuses[node] == Status::Locked {
                    StageResult::Shared
                } else {
                    StageResult::CutOff
                };
                self.finish(node, found, how, tell);
                after = None;
                continue;
            }
            if self.cache.access() == Access::ReadOnly {
                self.is_stopping = true;
                return Err(RunError::ReadOnly { stage: label, cache: self.cache.folder().to_owned() });
            }
            let Some(lock) = self.cache.try_lock(trace)? else {
                if self.statuses[node] != Status::Locked {
                    tell(Event::Waiting { node });
                }
                self.statuses[node] = Status::Locked;
                self.locked.insert(node);
                continue;
            };
            // Between the look-up and the lock another run may have finished the same work.
            if let Some(found) = self.look_up(node, trace, tell)? {
                let document = self.keys.document(self.plan, node);
                self.cache.index().alias((self.keys.recipe(node), &document), trace)?;
                self.finish(node, found, StageResult::Shared, tell);
                after = None;
                continue;
            }
            if let Fit::CannotFit(problem) = self.options.foresight.fit(node, &self.options.machine) {
                let help = "ask less of it, or run it where there is more; if that is wrong, \
                            `resources.memory` of the stage says what it takes";
                let (reason, log) = (Reason::Failed, String::new());
                let message = format!("it was not begun: it {problem}");
                let result = StageResult::Failed { reason, message, help: Some(help.to_owned()), log };
                self.is_stopping |= !self.options.keep_going;
                self.lose_node(node, result, tell);
                if self.is_stopping {
                    break;
                }
                continue;
            }
            self.statuses[node] = Status::Running;
            self.running.insert(node, needs);
            tell(Event::Started { node });
            let task = self.task(node, trace, &artifacts);
            self.spawn(scope, node, task, lock, sender);
        }
        Ok(())
    }

    /// Makes a node on a thread of its own. Whatever happens there, the schedule hears of its end.
    fn spawn<'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        node: usize,
        task: Task,
        lock: KeyLock,
        sender: &Sender<Message>,
    ) where
        'a: 'scope,
    {
        let shop = Workshop { cache: self.cache, options: self.options, cancel: self.cancel };
        let failed = |message: String, help: &str| {
            let (reason, help, log) = (Reason::Failed, Some(help.to_owned()), String::new());
            Performed::Done(StageResult::Failed { reason, message, help, log })
        };
        let on_thread = sender.clone();
        let work = move || {
            let (telling, stepping) = (on_thread.clone(), on_thread.clone());
            let progress = move |progress| {
                let _ = telling.send(Message::Progress(node, progress));
            };
            let step = |step| {
                let _ = stepping.send(Message::Step(node, step));
            };
            let performed = catch_unwind(AssertUnwindSafe(|| perform(&task, shop, lock, progress, &step)));
            let performed = performed.unwrap_or_else(|panic| {
                let message = format!("the program has a bug: {}", panic_message(&*panic));
                failed(message, "please report it; the next run tries again")
            });
            let _ = on_thread.send(Message::Finished(node, performed));
        };
        if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
            let message = format!("no thread could be made for it: {error}");
            let help = "allow more processes (`ulimit -u`, or the limit of the container), or use `--jobs 1`";
            let _ = sender.send(Message::Finished(node, failed(message, help)));
        }
    }

    fn next_ready(&self, after: Option<usize>) -> Option<usize> {
        match after {
            None => self.ready.first().copied(),
            Some(node) => self.ready.range(node + 1..).next().copied(),
        }
    }

    /// What a node takes of the machine; never more than all of it, or it would wait for ever.
    fn needs(&self, node: usize) -> Taken {
        let machine = &self.options.machine;
        let (memory, device) = self.options.foresight.likely(node);
        Taken {
            cores: self.plan.nodes()[node].resources().cores.min(machine.cores),
            memory_bytes: memory.min(machine.memory_bytes),
            device_memory_bytes: device.min(machine.device_memory_bytes.unwrap_or(u64::MAX)),
        }
    }

    /// Says of what is to be made which stages have no room here.
    fn warn_of_memory(&self, tell: &mut dyn FnMut(Event)) {
        for node in 0..self.statuses.len() {
            if !matches!(self.statuses[node], Status::Blocked(_) | Status::Ready) {
                continue;
            }
            match self.options.foresight.fit(node, &self.options.machine) {
                Fit::Fits => {}
                Fit::MayNotFit(problem) | Fit::CannotFit(problem) => {
                    let label = self.plan.nodes()[node].label();
                    tell(Event::Warning { message: format!("`{label}` {problem}") });
                }
            }
        }
    }

    fn artifacts_of(&self, node: usize) -> Vec<Digest> {
        let inputs = self.plan.nodes()[node].inputs().iter();
        inputs
            .map(|edge| match &self.statuses[self.leaders[edge.from]] {
                // `is_whole` says so of everything that is done.
                Status::Done(trace) => trace.output(&edge.output).expect("finished work has all its outputs"),
                other => unreachable!("an input of a ready node is {other:?}"),
            })
            .collect()
    }

    fn task(&self, node: usize, trace: Key, artifacts: &[Digest]) -> Task {
        let found = &self.plan.nodes()[node];
        let inputs = found.inputs().iter().zip(artifacts);
        let inputs = inputs.map(|(edge, artifact)| (edge.port.clone(), edge.label.clone(), *artifact));
        Task {
            label: found.label().to_owned(),
            kind: *found.kind,
            params: found.params.clone(),
            files: FixedFiles::of([&found.params], self.keys.files()),
            seed: found.seed,
            inputs: inputs.collect(),
            outputs: found.outputs.clone(),
            settings: self.plan.spec(found.stage).settings.clone(),
            cores: self.needs(node).cores,
            recipe: (self.keys.recipe(node), self.keys.document(self.plan, node)),
            trace,
            skeleton: self.keys.skeleton(node),
            is_forced: self.forced.contains(&node),
            run: self.run,
        }
    }

    fn hear(&mut self, message: Message, tell: &mut dyn FnMut(Event)) -> Result<(), RunError> {
        match message {
            Message::Progress(node, progress) => tell(Event::Progress { node, progress }),
            Message::Step(node, Step::Made) => {
                // While the disk takes in what it made, its cores are free for another; but no more
                // may wait for the disk than can run.
                let waiting = self.running.values().filter(|taken| taken.cores == 0).count();
                if waiting < self.options.machine.cores as usize {
                    self.running.insert(node, Taken::default());
                    tell(Event::Recording { node });
                }
            }
            Message::Step(node, Step::Again(message)) => {
                self.running.insert(node, self.needs(node));
                tell(Event::Retrying { node, message });
            }
            Message::Finished(node, Performed::Done(result)) => {
                self.running.remove(&node);
                if matches!(result, StageResult::Ran { .. }) {
                    let trace = self.cache.index().recipes(&[self.keys.recipe(node)])?.pop().flatten();
                    let trace = trace.expect("what was just committed is there");
                    self.finish(node, trace, result, tell);
                } else {
                    self.is_stopping |= !self.options.keep_going;
                    self.lose_node(node, result, tell);
                }
            }
            Message::Finished(node, Performed::DamagedInput { artifact, blob, message }) => {
                self.running.remove(&node);
                self.repair(node, artifact, blob, message, tell)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, node: usize, trace: Trace, result: StageResult, tell: &mut dyn FnMut(Event)) {
        self.statuses[node] = Status::Done(trace);
        self.results[node] = Some(result.clone());
        self.forced.remove(&node);
        tell(Event::Finished { node, result });
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

    /// Gives a node up, and with it everything that waits for it.
    pub(crate) fn lose_node(&mut self, node: usize, result: StageResult, tell: &mut dyn FnMut(Event)) {
        let culprit = self.plan.nodes()[node].label().to_owned();
        self.statuses[node] = Status::Lost;
        self.ready.remove(&node);
        self.results[node] = Some(result.clone());
        tell(Event::Finished { node, result });
        let mut open = self.consumers[node].clone();
        while let Some(consumer) = open.pop() {
            if !matches!(self.statuses[consumer], Status::Blocked(_)) {
                continue;
            }
            self.statuses[consumer] = Status::Lost;
            let result = StageResult::Skipped { because: format!("`{culprit}` was not made") };
            self.results[consumer] = Some(result.clone());
            tell(Event::Finished { node: consumer, result });
            open.extend(self.consumers[consumer].iter().copied());
        }
    }

    fn report(&self, before: &[bool], was_interrupted: bool) -> RunReport {
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

impl Taken {
    /// Returns both together.
    fn and(self, other: Self) -> Self {
        Self {
            cores: self.cores.saturating_add(other.cores),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            device_memory_bytes: self.device_memory_bytes.saturating_add(other.device_memory_bytes),
        }
    }
}

/// Returns whether finished work has every output that the plan takes from it.
fn is_whole(plan: &Plan, node: usize, trace: &Trace) -> bool {
    plan.nodes()[node].outputs.iter().all(|output| trace.output(&output.name).is_some())
}

/// Returns the leaders among some inputs, each once.
fn inputs_of(leaders: &[usize], inputs: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut found: Vec<usize> = inputs.map(|input| leaders[input]).collect();
    found.sort_unstable();
    found.dedup();
    found
}
