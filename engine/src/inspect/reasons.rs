//! Why stages run, in one line each, while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use cache::{Cache, CacheError, Key};

use crate::inspect::explain::{Change, Compared, Past};
use crate::plan::graph::Plan;
use crate::plan::key::Keys;

/// So many causes of one stage are counted.
const MOST_CAUSES: usize = 20;
/// So many characters of a value are shown.
const VALUE_LENGTH: usize = 40;

/// Why a stage runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunReason {
    /// Nothing like it has run in this experiment.
    New,
    /// It is to run although its result is there.
    Forced,
    /// Its result was there, and is no longer.
    Lost,
    /// It was tried before, and ended with this word.
    Again(String),
    /// It, or what it depends on, is not what it was.
    Changed(Rc<Vec<Cause>>),
}

/// A change that follows from no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The node that changed.
    node: usize,
    /// Its label, if it is not the stage itself.
    stage: Option<String>,
    change: Change,
}

impl fmt::Display for RunReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Forced => f.write_str("forced"),
            Self::Lost => f.write_str("its result is gone"),
            Self::Again(outcome) => write!(f, "{outcome} before"),
            Self::Changed(causes) => {
                let Some(first) = causes.first() else {
                    return f.write_str("changed");
                };
                write!(f, "{first}")?;
                match causes.len() - 1 {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = &self.stage {
            write!(f, "{stage}: ")?;
        }
        let Change { what, before, after, place, .. } = &self.change;
        write!(f, "{what} {} -> {}", short(before), short(after))?;
        place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

fn short(value: &str) -> String {
    if value.chars().count() <= VALUE_LENGTH {
        return value.to_owned();
    }
    let beginning: String = value.chars().take(VALUE_LENGTH - 1).collect();
    format!("{beginning}…")
}

/// Why the stages of a run run.
pub struct RunReasons<'a> {
    past: Past<'a>,
    keys: &'a Keys,
    cache: &'a Cache,
    forced: &'a BTreeSet<usize>,
    has_runs: bool,
    /// The causes of a node that changed since it had a recipe: what stands before it runs before it,
    /// so none is followed twice.
    causes: BTreeMap<(usize, Key), Rc<Vec<Cause>>>,
}

impl<'a> RunReasons<'a> {
    /// Starts before a run does.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn new(
        plan: &'a Plan,
        keys: &'a Keys,
        cache: &'a Cache,
        forced: &'a BTreeSet<usize>,
    ) -> Result<Self, CacheError> {
        let past = Past::new(plan, keys, cache)?;
        let has_runs = past.has_runs();
        Ok(Self { past, keys, cache, forced, has_runs, causes: BTreeMap::new() })
    }

    /// Returns why a node runs.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn of(&mut self, node: usize) -> Result<RunReason, CacheError> {
        if self.forced.contains(&node) {
            return Ok(RunReason::Forced);
        }
        let Some(key) = self.keys.recipe(node).filter(|_| self.has_runs) else {
            return Ok(RunReason::New);
        };
        match self.cache.index().last_execution(key)? {
            Some(last) if last.outcome == "done" => return Ok(RunReason::Lost),
            Some(last) => return Ok(RunReason::Again(last.outcome)),
            None => {}
        }
        let (Some(nearest), _) = self.past.nearest(node)? else {
            return Ok(RunReason::New);
        };
        let place = (node, nearest.key);
        let mut causes: Vec<Cause> = Vec::new();
        let mut open = vec![(node, nearest)];
        let mut seen = BTreeSet::new();
        while let Some((from, before)) = open.pop() {
            if !seen.insert(from) || causes.len() >= MOST_CAUSES {
                continue;
            }
            if let Some(known) = self.causes.get(&(from, before.key)) {
                let is_new = |cause: &&Cause| !causes.iter().any(|other| other == *cause);
                let new: Vec<Cause> = known.iter().filter(is_new).cloned().collect();
                causes.extend(new);
                continue;
            }
            let Compared { changes, upstream } = self.past.compare(from, &before.recipe)?;
            let own = changes.into_iter().filter(|change| !change.is_derived);
            causes.extend(own.map(|change| Cause { node: from, stage: None, change }));
            open.extend(upstream.into_iter().rev());
        }
        causes.truncate(MOST_CAUSES);
        for cause in &mut causes {
            cause.stage = (cause.node != node).then(|| self.past.label(cause.node).to_owned());
        }
        let causes = Rc::new(causes);
        self.causes.insert(place, causes.clone());
        Ok(RunReason::Changed(causes))
    }
}
