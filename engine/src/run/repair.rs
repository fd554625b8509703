//! Repair: an artifact whose bytes are corrupt is invalidated and made again.

use cache::{Cache, CacheError, Trace};

use crate::kind::failure::StageFailure;
use crate::kind::metrics_file::METRICS_FILE;
use crate::run::demand::{Demand, Status};
use crate::run::events::{Event, RunError, StageResult};
use crate::run::executor::CorruptInput;

/// How often each of a stage's inputs may turn out corrupt before the stage fails.
const MOST_REPAIRS: usize = 3;

/// Checks what the table reads: it must not be printed from corrupt bytes.
pub(crate) fn check_table_bytes(
    demand: &mut Demand<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<(), RunError> {
    for node in demand.in_table.clone() {
        if let Status::Done(trace) = demand.statuses[node].clone()
            && !are_numbers_intact(demand, node, &trace, on_event)?
        {
            demand.statuses[node] = Status::Absent;
        }
    }
    Ok(())
}

/// Returns whether the numbers that finished work gives to a table can be read; if they are
/// corrupt, the work is invalidated.
pub(crate) fn are_numbers_intact(
    demand: &Demand<'_>,
    node: usize,
    trace: &Trace,
    on_event: &mut dyn FnMut(Event),
) -> Result<bool, RunError> {
    for (name, artifact) in &trace.outputs {
        match demand.cache.read(*artifact, METRICS_FILE) {
            Ok(Some(_)) => {}
            // An output without numbers, or one whose list of files is missing.
            Ok(None) if demand.cache.index().artifact(*artifact)?.is_some() => {}
            Ok(None) => {
                let label = demand.plan.nodes()[node].label();
                let message =
                    format!("the cache has lost the files of `{label}.{name}`; `{label}` is made again");
                on_event(Event::Warning { message });
                demand.cache.invalidate(None, &[trace.key])?;
                return Ok(false);
            }
            Err(error) if error.is_corruption() => {
                let label = demand.plan.nodes()[node].label();
                on_event(Event::Warning { message: format!("{error}; `{label}` is made again") });
                lose(demand.cache, trace, &error)?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Invalidates work whose bytes are corrupt, and discards the bytes.
fn lose(cache: &Cache, trace: &Trace, error: &CacheError) -> Result<(), RunError> {
    Ok(cache.invalidate(error.blob(), &[trace.key])?)
}

/// Warns of records of the index that turned out corrupt since the last call; their work counts as
/// not done.
pub(crate) fn warn_of_corrupt_records(cache: &Cache, on_event: &mut dyn FnMut(Event)) {
    for message in cache.index().take_corruption_messages() {
        on_event(Event::Warning { message: format!("{message}; it is made again where it is needed") });
    }
}

/// Has a corrupt input made again, and the node wait for it.
pub(crate) fn repair(
    demand: &mut Demand<'_>,
    node: usize,
    input: CorruptInput,
    on_event: &mut dyn FnMut(Event),
) -> Result<(), RunError> {
    let CorruptInput { artifact, blob, message } = input;
    let repairs = demand.repairs.entry(node).or_default();
    *repairs += 1;
    if *repairs > MOST_REPAIRS * demand.plan.nodes()[node].inputs().len() {
        let failure = StageFailure::new(message).help("run `pipeline cache verify`, and check the disk");
        let result = StageResult::Failed { failure, log: String::new() };
        demand.is_stopping |= !demand.options.keep_going;
        demand.give_up(node, result, on_event);
        return Ok(());
    }
    let is_it = |input: &usize| matches!(&demand.statuses[*input], Status::Done(trace) if trace.outputs.iter().any(|(_, made)| *made == artifact));
    let producers: Vec<usize> = demand.inputs_of(node).into_iter().filter(is_it).collect();
    let mut waiting = vec![node];
    // Another consumer may have noticed before; then the bytes are there again, or on their way.
    let is_corrupt = match blob {
        Some(blob) => demand.cache.blobs().checked(blob).is_err_and(|error| error.is_corruption()),
        None => !matches!(demand.cache.index().artifact(artifact), Ok(Some(_))),
    };
    if !producers.is_empty() && is_corrupt {
        demand.cache.invalidate(blob, &demand.cache.index().producers(artifact)?)?;
        for input in producers {
            let label = demand.plan.nodes()[input].label();
            on_event(Event::Warning { message: format!("{message}; `{label}` is made again") });
            demand.statuses[input] = Status::Absent;
            demand.results[input] = None;
            waiting.extend(demand.consumers[input].iter().filter(|consumer| {
                matches!(demand.statuses[**consumer], Status::Blocked(_) | Status::Ready | Status::Locked)
            }));
        }
    }
    // All of them wait again, or they would begin without the input that was lost.
    for node in &waiting {
        demand.statuses[*node] = Status::Absent;
        demand.ready.remove(node);
        demand.locked.remove(node);
    }
    for node in waiting {
        demand.request(node, on_event);
    }
    Ok(())
}
