//! What becomes of damage: what is not what its name says is forgotten, and made again.

use cache::{CacheError, Digest, Trace};

use crate::kind::metrics_file::METRICS_FILE;
use crate::process::job::Reason;
use crate::run::events::{Event, RunError, StageResult};
use crate::run::scheduler::{Schedule, Status};

/// How often each of a stage's inputs may turn out damaged before the stage fails.
const MOST_REPAIRS: usize = 3;

impl Schedule<'_> {
    /// A table must not be printed from damaged bytes: what it reads is checked beforehand.
    pub(crate) fn check_table_bytes(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), RunError> {
        for node in self.in_table.clone() {
            if let Status::Done(trace) = self.statuses[node].clone()
                && !self.are_numbers_intact(node, &trace, tell)?
            {
                self.statuses[node] = Status::Absent;
            }
        }
        Ok(())
    }

    /// Returns whether the numbers that finished work gives to a table can be read; if they are
    /// damaged, the work is forgotten.
    pub(crate) fn are_numbers_intact(
        &self,
        node: usize,
        trace: &Trace,
        tell: &mut dyn FnMut(Event),
    ) -> Result<bool, RunError> {
        for (name, artifact) in &trace.outputs {
            match self.cache.read(*artifact, METRICS_FILE) {
                Ok(Some(_)) => {}
                // An output without numbers; or one whose list of files is lost.
                Ok(None) if self.cache.index().artifact(*artifact)?.is_some() => {}
                Ok(None) => {
                    let label = self.plan.nodes()[node].label();
                    let message =
                        format!("the cache has lost the files of `{label}.{name}`; `{label}` is made again");
                    tell(Event::Warning { message });
                    self.cache.invalidate(None, &[trace.key])?;
                    return Ok(false);
                }
                Err(error) if error.is_corruption() => {
                    let label = self.plan.nodes()[node].label();
                    tell(Event::Warning { message: format!("{error}; `{label}` is made again") });
                    self.lose(trace, &error)?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Forgets work whose bytes are damaged, and discards the bytes.
    fn lose(&self, trace: &Trace, error: &CacheError) -> Result<(), RunError> {
        Ok(self.cache.invalidate(error.blob(), &[trace.key])?)
    }

    /// Says which records of the index were found damaged since this was last asked; their work is
    /// taken for work that was not done.
    pub(crate) fn warn_of_damaged_records(&self, tell: &mut dyn FnMut(Event)) {
        for message in self.cache.index().take_corruption_messages() {
            tell(Event::Warning { message: format!("{message}; it is made again where it is needed") });
        }
    }

    /// Has a damaged input made again, and the node wait for it.
    pub(crate) fn repair(
        &mut self,
        node: usize,
        artifact: Digest,
        blob: Option<Digest>,
        message: String,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), RunError> {
        let repairs = self.repairs.entry(node).or_default();
        *repairs += 1;
        if *repairs > MOST_REPAIRS * self.plan.nodes()[node].inputs().len() {
            let help = Some("run `pipeline cache verify`, and check the disk".to_owned());
            let result = StageResult::Failed { reason: Reason::Failed, message, help, log: String::new() };
            self.is_stopping |= !self.options.keep_going;
            self.lose_node(node, result, tell);
            return Ok(());
        }
        let is_it = |input: &usize| matches!(&self.statuses[*input], Status::Done(trace) if trace.outputs.iter().any(|(_, made)| *made == artifact));
        let makers: Vec<usize> = self.inputs_of(node).into_iter().filter(is_it).collect();
        let mut waiting = vec![node];
        // Another consumer may have noticed before; then the bytes are there again, or on their way.
        let is_damaged = match blob {
            Some(blob) => self.cache.blobs().checked(blob).is_err_and(|error| error.is_corruption()),
            None => !matches!(self.cache.index().artifact(artifact), Ok(Some(_))),
        };
        if !makers.is_empty() && is_damaged {
            self.cache.invalidate(blob, &self.cache.index().producers(artifact)?)?;
            for input in makers {
                let label = self.plan.nodes()[input].label();
                tell(Event::Warning { message: format!("{message}; `{label}` is made again") });
                self.statuses[input] = Status::Absent;
                self.results[input] = None;
                waiting.extend(self.consumers[input].iter().filter(|consumer| {
                    matches!(self.statuses[**consumer], Status::Blocked(_) | Status::Ready | Status::Locked)
                }));
            }
        }
        // All of them wait anew, or they would begin without the input that was lost.
        for node in &waiting {
            self.statuses[*node] = Status::Absent;
            self.ready.remove(node);
            self.locked.remove(node);
        }
        for node in waiting {
            self.demand(node, tell);
        }
        Ok(())
    }
}
