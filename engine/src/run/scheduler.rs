//! Decides what runs when: demand from the targets down, inputs before stages, within the
//! machine's cores and memory, each piece of work once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cache::{Access, Cache, Digest, Key, KeyLock, Recipe, Trace};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::kind::failure::StageFailure;
use crate::plan::graph::Plan;
use crate::plan::key::Keys;
use crate::plan::memory_forecast::Fit;
use crate::plan::node::Node;
use crate::process::cancel::Cancel;
use crate::process::job::Progress;
use crate::run::demand::{Demand, Status, is_whole};
use crate::run::events::{Event, RunError, RunOptions, RunReport, StageResult};
use crate::run::executor::{AttemptError, RunEnv, Step, Task, execute};
use crate::run::fixed::{FixError, FixedFiles};
use crate::run::repair::{are_numbers_intact, check_table_bytes, repair, warn_of_corrupt_records};
use crate::run::worker::panic_message;

/// How often a key that another run holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(25);
/// How often cancellation is checked while nothing happens.
const IDLE_POLL: Duration = Duration::from_millis(200);

/// Why the key of a node that runs is known.
const NEEDED: &str = "what runs is needed, so its files are known";

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
    Finished(usize, Result<StageResult, AttemptError>),
}

struct Scheduler<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    options: &'a RunOptions,
    demand: Demand<'a>,
    keys: &'a Keys,
    cancel: &'a Cancel,
    running: BTreeMap<usize, Taken>,
    /// The number of this run in the index.
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
    on_event: &mut dyn FnMut(Event),
) -> Result<RunReport, RunError> {
    let demand = Demand::new(plan, keys, cache, options)?;
    Scheduler { plan, cache, options, demand, keys, cancel, running: BTreeMap::new(), run: 0 }.run(on_event)
}

impl<'a> Scheduler<'a> {
    fn run(mut self, on_event: &mut dyn FnMut(Event)) -> Result<RunReport, RunError> {
        check_table_bytes(&mut self.demand, on_event)?;
        warn_of_corrupt_records(self.cache, on_event);
        let hits = self.demand.statuses.iter().filter(|status| matches!(status, Status::Done(_))).count();
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
                    let named = |(at, node): (usize, &Node)| {
                        Some((node.label().to_owned(), keys.recipe(at)?, keys.document(plan, at)?))
                    };
                    all.filter_map(named).collect()
                },
            )?;
        }
        on_event(Event::RunStarted { nodes: self.plan.nodes().len(), hits });
        let before: Vec<bool> =
            self.demand.statuses.iter().map(|status| matches!(status, Status::Done(_))).collect();
        for target in self.demand.targets() {
            self.demand.request(target, on_event);
        }
        self.warn_of_memory(on_event);
        if !self.demand.ready.is_empty() && self.cache.access() == Access::ReadWrite {
            self.cache.sweep_leftovers()?;
        }
        let (sender, receiver) = unbounded();
        let finished = self
            .insert_sources()
            .and_then(|()| std::thread::scope(|scope| self.work(scope, &sender, &receiver, on_event)));
        let was_interrupted = self.cancel.is_asked();
        let report = self.demand.report(&before, was_interrupted);
        if self.cache.access() == Access::ReadWrite {
            let outcome = match (&finished, was_interrupted, report.failed().next()) {
                (Err(_), ..) => "error",
                (_, true, _) => "interrupted",
                (_, _, Some(_)) => "failed",
                _ => "done",
            };
            // A run whose end could not be recorded has still made its results.
            let _ = self.cache.index().end_run(self.run, outcome);
        }
        finished.map(|()| report)
    }

    /// Inserts into the cache the files of all stages that will run, so that an edit during the run has
    /// no effect on it.
    fn insert_sources(&self) -> Result<(), RunError> {
        if self.cache.access() == Access::ReadOnly {
            return Ok(());
        }
        let is_to_be_made = |(_, status): &(_, &Status)| matches!(status, Status::Blocked(_) | Status::Ready);
        let nodes = self.plan.nodes().iter().zip(&self.demand.statuses).filter(is_to_be_made);
        let files = FixedFiles::of(nodes.map(|(node, _)| &node.params), self.keys.files());
        match files.compare_in_place().and_then(|()| files.take_in(self.cache)) {
            Ok(()) => Ok(()),
            Err(FixError::Changed(path)) => Err(RunError::SourceChanged { path }),
            // The stage tries again when its turn comes, and says so in words of its own.
            Err(FixError::Cache(error)) if error.is_full_disk() => Ok(()),
            Err(FixError::Cache(error)) => Err(error.into()),
        }
    }

    /// Looks finished work up by its trace key. What is corrupt does not count.
    fn look_up(
        &self,
        node: usize,
        trace: Key,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Option<Trace>, RunError> {
        if self.demand.forced.contains(&node) {
            return Ok(None);
        }
        let Some(trace) = self.cache.index().trace(trace)? else {
            return Ok(None);
        };
        if !is_whole(self.plan, node, &trace) {
            return Ok(None);
        }
        let is_in_table = self.demand.in_table.contains(&node);
        Ok((!is_in_table || are_numbers_intact(&self.demand, node, &trace, on_event)?).then_some(trace))
    }

    fn work<'scope>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: &Sender<Message>,
        receiver: &Receiver<Message>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(), RunError>
    where
        'a: 'scope,
    {
        let mut tried_locks = Instant::now();
        loop {
            let may_begin = !self.cancel.is_asked() && !self.demand.is_stopping;
            if may_begin {
                self.begin(scope, sender, on_event)?;
            }
            let is_waiting = may_begin && !self.demand.locked.is_empty();
            if self.running.is_empty() && !is_waiting {
                return Ok(());
            }
            let patience = if is_waiting { LOCK_POLL } else { IDLE_POLL };
            match receiver.recv_timeout(patience) {
                Ok(message) => {
                    self.on_message(message, on_event)?;
                    warn_of_corrupt_records(self.cache, on_event);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the scheduler holds a sender itself"),
            }
            if tried_locks.elapsed() >= LOCK_POLL {
                tried_locks = Instant::now();
                self.demand.ready.append(&mut self.demand.locked);
            }
        }
    }

    fn begin<'scope>(
        &mut self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        sender: &Sender<Message>,
        on_event: &mut dyn FnMut(Event),
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
            self.demand.ready.remove(&node);
            let artifacts = self.demand.artifacts_of(node);
            let trace = self.keys.trace(self.plan, node, &artifacts).expect(NEEDED);
            let label = self.plan.nodes()[node].label().to_owned();
            if let Some(finished) = self.look_up(node, trace, on_event)? {
                if self.cache.access() == Access::ReadWrite {
                    let (recipe, document) = self.recipe(node);
                    self.cache.index().alias((recipe, &document), trace)?;
                }
                let how = if self.demand.statuses[node] == Status::Locked {
                    StageResult::Shared
                } else {
                    StageResult::EarlyCutoff
                };
                self.demand.finish(node, finished, how, on_event);
                after = None;
                continue;
            }
            if self.cache.access() == Access::ReadOnly {
                self.demand.is_stopping = true;
                return Err(RunError::ReadOnly { stage: label, cache: self.cache.folder().to_owned() });
            }
            let Some(lock) = self.cache.try_lock(trace)? else {
                if self.demand.statuses[node] != Status::Locked {
                    on_event(Event::Waiting { node });
                }
                self.demand.statuses[node] = Status::Locked;
                self.demand.locked.insert(node);
                continue;
            };
            // Between the look-up and the lock another run may have finished the same work.
            if let Some(finished) = self.look_up(node, trace, on_event)? {
                let (recipe, document) = self.recipe(node);
                self.cache.index().alias((recipe, &document), trace)?;
                self.demand.finish(node, finished, StageResult::Shared, on_event);
                after = None;
                continue;
            }
            if let Fit::CannotFit(problem) = self.options.memory_forecast.fit(node, &self.options.machine) {
                let help = "reduce what it needs, or run it on a machine with more memory; if the estimate is \
                            wrong, set `resources.memory` of the stage";
                let failure = StageFailure::new(format!("it was not started: it {problem}")).help(help);
                let result = StageResult::Failed { failure, log: String::new() };
                self.demand.is_stopping |= !self.options.keep_going;
                self.demand.give_up(node, result, on_event);
                if self.demand.is_stopping {
                    break;
                }
                continue;
            }
            self.demand.statuses[node] = Status::Running;
            self.running.insert(node, needs);
            on_event(Event::Started { node });
            let task = self.task(node, trace, &artifacts);
            self.spawn(scope, node, task, lock, sender);
        }
        Ok(())
    }

    /// Makes a node on a thread of its own, which always sends a message when it ends.
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
        let env = RunEnv { cache: self.cache, options: self.options, cancel: self.cancel };
        let on_thread = sender.clone();
        let work = move || {
            let (telling, stepping) = (on_thread.clone(), on_thread.clone());
            let progress = move |progress| {
                let _ = telling.send(Message::Progress(node, progress));
            };
            let step = |step| {
                let _ = stepping.send(Message::Step(node, step));
            };
            let result = catch_unwind(AssertUnwindSafe(|| execute(&task, env, lock, progress, &step)));
            let result = result.unwrap_or_else(|panic| {
                let message = format!("the program has a bug: {}", panic_message(&*panic));
                Err(StageFailure::new(message).help("please report it; the next run tries again").into())
            });
            let _ = on_thread.send(Message::Finished(node, result));
        };
        if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
            let failure = StageFailure::new(format!("no thread could be made for it: {error}"))
                .help("allow more processes (`ulimit -u`, or the limit of the container), or use `--jobs 1`");
            let _ = sender.send(Message::Finished(node, Err(failure.into())));
        }
    }

    fn next_ready(&self, after: Option<usize>) -> Option<usize> {
        match after {
            None => self.demand.ready.first().copied(),
            Some(node) => self.demand.ready.range(node + 1..).next().copied(),
        }
    }

    /// What a node takes of the machine; never more than all of it, or it would wait for ever.
    fn needs(&self, node: usize) -> Taken {
        let machine = &self.options.machine;
        let (memory, device) = self.options.memory_forecast.likely(node);
        Taken {
            cores: self.plan.nodes()[node].resources().cores.min(machine.cores),
            memory_bytes: memory.min(machine.memory_bytes),
            device_memory_bytes: device.min(machine.device_memory_bytes.unwrap_or(u64::MAX)),
        }
    }

    /// Says of what is to be made which stages have no room here.
    fn warn_of_memory(&self, on_event: &mut dyn FnMut(Event)) {
        for node in 0..self.demand.statuses.len() {
            if !matches!(self.demand.statuses[node], Status::Blocked(_) | Status::Ready) {
                continue;
            }
            match self.options.memory_forecast.fit(node, &self.options.machine) {
                Fit::Fits => {}
                Fit::MayNotFit(problem) | Fit::CannotFit(problem) => {
                    let label = self.plan.nodes()[node].label();
                    on_event(Event::Warning { message: format!("`{label}` {problem}") });
                }
            }
        }
    }

    /// Returns the recipe of a node that runs.
    fn recipe(&self, node: usize) -> (Key, Recipe) {
        let recipe = self.keys.recipe(node).zip(self.keys.document(self.plan, node));
        recipe.expect(NEEDED)
    }

    fn task(&self, node: usize, trace: Key, artifacts: &[Digest]) -> Task {
        let planned = &self.plan.nodes()[node];
        let inputs = planned.inputs().iter().zip(artifacts);
        let inputs = inputs.map(|(edge, artifact)| (edge.port.clone(), edge.label.clone(), *artifact));
        Task {
            label: planned.label().to_owned(),
            kind: *planned.kind,
            params: planned.params.clone(),
            tuning: planned.tuning.clone(),
            files: FixedFiles::of([&planned.params], self.keys.files()),
            seed: planned.seed,
            inputs: inputs.collect(),
            outputs: planned.outputs.clone(),
            settings: self.plan.spec(planned.stage).settings.clone(),
            cores: self.needs(node).cores,
            recipe: self.recipe(node),
            trace,
            shape: self.keys.shape(node).expect(NEEDED),
            is_forced: self.demand.forced.contains(&node),
            run: self.run,
        }
    }

    fn on_message(&mut self, message: Message, on_event: &mut dyn FnMut(Event)) -> Result<(), RunError> {
        match message {
            Message::Progress(node, progress) => on_event(Event::Progress { node, progress }),
            Message::Step(node, Step::Made) => {
                // While the disk takes in what it made, its cores are free for another; but no more
                // may wait for the disk than can run.
                let waiting = self.running.values().filter(|taken| taken.cores == 0).count();
                if waiting < self.options.machine.cores as usize {
                    self.running.insert(node, Taken::default());
                    on_event(Event::Recording { node });
                }
            }
            Message::Step(node, Step::Again(message)) => {
                self.running.insert(node, self.needs(node));
                on_event(Event::Retrying { node, message });
            }
            Message::Finished(node, attempt) => {
                self.running.remove(&node);
                match attempt {
                    Ok(result) => {
                        let trace = self
                            .cache
                            .index()
                            .recipes(&[self.keys.recipe(node).expect(NEEDED)])?
                            .pop()
                            .flatten();
                        let trace = trace.expect("what was just committed is there");
                        self.demand.finish(node, trace, result, on_event);
                    }
                    Err(AttemptError::Failed { failure, log }) => {
                        self.demand.is_stopping |= !self.options.keep_going;
                        self.demand.give_up(node, StageResult::Failed { failure, log }, on_event);
                    }
                    Err(AttemptError::CorruptInput(input)) => {
                        repair(&mut self.demand, node, input, on_event)?;
                    }
                }
            }
        }
        Ok(())
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
