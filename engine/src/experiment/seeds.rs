//! `seeds` of an experiment: an axis over the seed of all its stages.

use std::collections::BTreeSet;

use crate::experiment::axes::{Axis, Variant, nested};
use crate::experiment::spec::Experiment;
use crate::kind::name::split_namespace;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;
use crate::toml::value::{Content, TomlTable, Value};

impl Experiment {
    /// Returns the position of the axis over the seeds of a stage, if there are several: the
    /// experiment's, or else those of the stage's namespace.
    pub(crate) fn seeds_of(&self, stage: &str) -> Option<usize> {
        self.seeds.or_else(|| self.namespaces.get(split_namespace(stage).0)?.seeds)
    }

    /// Takes these seeds, which are written at `span`. A single one is the seed of all stages.
    pub(crate) fn set_seeds(&mut self, namespace: &str, seeds: &[u64], span: &Span) {
        let position = self.seed_axes.len();
        let (seed, seed_span, axis) = match self.namespaces.get_mut(namespace) {
            Some(namespace) => (&mut namespace.seed, &mut namespace.seed_span, &mut namespace.seeds),
            None => (&mut self.seed, &mut self.seed_span, &mut self.seeds),
        };
        match seeds {
            [only] => (*seed, *seed_span, *axis) = (*only, Some(span.clone()), None),
            several => {
                *axis = Some(position);
                self.seed_axes.push(seed_axis(several, span));
            }
        }
    }

    /// Takes `count` seeds in a row, from the first one that the experiment has.
    pub(crate) fn count_seeds(&mut self, count: u32, span: &Span) {
        let first_of = |seeds: Option<usize>| seed_of(&self.seed_axes[seeds?].variants[0].overlay);
        let own = first_of(self.seeds).or_else(|| self.seed_span.as_ref().map(|_| self.seed));
        // An experiment of namespaces alone has theirs, if they agree.
        let mut of_namespaces =
            self.namespaces.values().map(|namespace| first_of(namespace.seeds).unwrap_or(namespace.seed));
        let common = of_namespaces.next().filter(|first| of_namespaces.all(|seed| seed == *first));
        let first = own.or(common).unwrap_or(self.seed);
        let seeds: Vec<u64> = (first..).take(count as usize).collect();
        self.set_seeds("", &seeds, span);
        if count == 1 {
            for namespace in self.namespaces.values_mut() {
                (namespace.seed, namespace.seed_span, namespace.seeds) = (first, Some(span.clone()), None);
            }
        }
    }
}

/// Takes out of the fields of an experiment which seeds it has, where a later layer says so again:
/// one seed replaces several, and the other way round.
pub(crate) fn replace_seeds(fields: &mut TomlTable, over: &TomlTable) {
    if over.contains_key("seed") || over.contains_key("seeds") {
        fields.shift_remove("seed");
        fields.shift_remove("seeds");
    }
}

/// Reads the seeds of an experiment.
pub(crate) fn read_seeds(value: &Value) -> Result<Vec<u64>, Diagnostic> {
    let wrong = |value: &Value, message: &str| {
        Diagnostic::new(value.span.clone(), message).help("write `seeds = [1, 2, 3]`")
    };
    let items = value.as_list().filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| wrong(value, "`seeds` is a list of at least one integer"))?;
    let mut seeds = Vec::new();
    let mut seen = BTreeSet::new();
    for item in items {
        match item.content {
            Content::Integer(seed @ 0..) if seen.insert(seed) => seeds.push(seed as u64),
            Content::Integer(0..) => return Err(wrong(item, "`seeds` has this one twice")),
            _ => return Err(wrong(item, "a seed is an integer of at least 0")),
        }
    }
    Ok(seeds)
}

/// Returns the seed that a variant sets.
pub(crate) fn seed_of(overlay: &TomlTable) -> Option<u64> {
    match overlay.get("seed")?.value.content {
        Content::Integer(seed) => seed.try_into().ok(),
        _ => None,
    }
}

fn seed_axis(seeds: &[u64], span: &Span) -> Axis {
    let variant = |seed: &u64| {
        let value = Value { span: span.clone(), content: Content::Integer(*seed as i64) };
        Variant { name: seed.to_string(), overlay: nested("seed", span, value) }
    };
    let field = Some((vec!["seed".to_owned()], span.clone()));
    Axis { name: "seed".to_owned(), field, only: None, variants: seeds.iter().map(variant).collect() }
}
