//! What a run would do, before anything runs.

use cache::{Cache, CacheError, Digest, Trace};

use crate::plan::graph::Plan;
use crate::plan::key::Keys;

/// What would happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its result is there.
    Hit,
    /// It would run.
    Run,
    /// It would run unless its inputs come out as they were before.
    Maybe,
    /// Its result is not there, and nothing that would run needs it.
    NotNeeded,
}

impl State {
    /// Returns one word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Run => "run",
            Self::Maybe => "maybe",
            Self::NotNeeded => "not needed",
        }
    }
}

/// What would happen to a node, and how long it took before.
#[derive(Debug, Clone, PartialEq)]
pub struct StageState {
    /// What would happen.
    pub state: State,
    /// The finished work, for a hit.
    pub trace: Option<Trace>,
    /// How long work like it took, for what would run.
    pub seconds: Option<f64>,
}

/// Predicts a run.
///
/// # Errors
/// [`CacheError`] if the cache cannot be read.
pub fn forecast(plan: &Plan, keys: &Keys, cache: Option<&Cache>) -> Result<Vec<StageState>, CacheError> {
    let count = plan.nodes().len();
    let mut traces: Vec<Option<Trace>> = match cache {
        Some(cache) => cache.index().recipes(keys.recipes())?,
        None => vec![None; count],
    };
    let mut states: Vec<State> = Vec::with_capacity(count);
    for (position, node) in plan.nodes().iter().enumerate() {
        if traces[position].is_some() {
            states.push(State::Hit);
            continue;
        }
        let artifacts: Option<Vec<Digest>> =
            node.inputs().iter().map(|edge| traces[edge.from].as_ref()?.output(&edge.output)).collect();
        let state = match (cache, artifacts) {
            (None, _) => State::Run,
            (Some(cache), Some(artifacts)) => {
                traces[position] = cache.index().trace(keys.trace(plan, position, &artifacts))?;
                if traces[position].is_some() { State::Hit } else { State::Run }
            }
            // Only work that was done before with other inputs can turn out to be known.
            (Some(cache), None) if cache.index().has_shape(keys.shape(position))? => State::Maybe,
            (Some(_), None) => State::Run,
        };
        states.push(state);
    }
    leave_out_unneeded(plan, &mut states);
    let mut forecast = Vec::with_capacity(count);
    for (position, (state, trace)) in states.into_iter().zip(traces).enumerate() {
        let seconds = match (state, cache) {
            (State::Run | State::Maybe, Some(cache)) => cache.index().seconds_of(keys.shape(position))?,
            _ => None,
        };
        forecast.push(StageState { state, trace, seconds });
    }
    Ok(forecast)
}

/// What is missing but feeds only hits stays missing.
fn leave_out_unneeded(plan: &Plan, states: &mut [State]) {
    let mut has_consumer = vec![false; states.len()];
    let mut is_needed = vec![false; states.len()];
    for node in plan.table_nodes() {
        is_needed[node] = true;
    }
    for node in plan.nodes() {
        for edge in node.inputs() {
            has_consumer[edge.from] = true;
        }
    }
    // Inputs stand before what reads them, so one pass backwards sees every need.
    for position in (0..states.len()).rev() {
        let is_wanted = is_needed[position] || !has_consumer[position];
        if states[position] == State::Hit {
            continue;
        }
        if !is_wanted {
            states[position] = State::NotNeeded;
            continue;
        }
        for edge in plan.nodes()[position].inputs() {
            is_needed[edge.from] = true;
        }
    }
}
