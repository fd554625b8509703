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
    /// Its result is not there, and nothing that would run needs it, or no table reads it.
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
        Some(cache) => keys.spread(cache.index().recipes(&keys.known())?),
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
                if let Some(key) = keys.trace(plan, position, &artifacts) {
                    traces[position] = cache.index().trace(key)?;
                }
                if traces[position].is_some() { State::Hit } else { State::Run }
            }
            (Some(cache), None) => match keys.shape(position) {
                // Only work that was done before with other inputs can turn out to be known.
                Some(shape) if cache.index().has_shape(shape)? => State::Maybe,
                _ => State::Run,
            },
        };
        states.push(state);
    }
    leave_out_unneeded(plan, &mut states);
    let mut forecast = Vec::with_capacity(count);
    for (position, (state, trace)) in states.into_iter().zip(traces).enumerate() {
        let seconds = match (state, cache, keys.shape(position)) {
            (State::Run | State::Maybe, Some(cache), Some(shape)) => cache.index().seconds_of(shape)?,
            _ => None,
        };
        forecast.push(StageState { state, trace, seconds });
    }
    Ok(forecast)
}

/// What is missing but feeds only hits stays missing.
fn leave_out_unneeded(plan: &Plan, states: &mut [State]) {
    let mut is_needed = vec![false; states.len()];
    for target in plan.targets() {
        is_needed[*target] = true;
    }
    // Inputs stand before what reads them, so one pass backwards sees every need.
    for position in (0..states.len()).rev() {
        if states[position] == State::Hit {
            continue;
        }
        if !is_needed[position] {
            states[position] = State::NotNeeded;
            continue;
        }
        for edge in plan.nodes()[position].inputs() {
            is_needed[edge.from] = true;
        }
    }
}
