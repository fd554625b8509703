//! The layers of an experiment: of each file its own part and its profile, then `--set`. Later ones
//! override earlier ones.

use crate::kind::stage::Kind;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// How a layer treats a choice that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// A choice is replaced whole: `objective.dpo = {}` says all there is to say of it.
    Whole,
    /// Only the leaf that is named changes, unless another variant is chosen.
    Leaf,
}

/// Where a layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, without its profiles.
    File,
    /// The part of a file that belongs to the profile in use.
    Profile,
    /// A value of the command line.
    Set,
}

/// One layer of an experiment. A later one is nearer to the user, and overrides earlier ones.
pub(crate) struct Layer {
    pub root: TomlTable,
    pub origin: Origin,
    /// The namespace that its names belong to; empty for that of the experiment itself.
    pub namespace: String,
}

impl Layer {
    /// Returns how it treats a choice that is there already.
    pub(crate) fn overlay(&self) -> Overlay {
        if self.origin == Origin::Set { Overlay::Leaf } else { Overlay::Whole }
    }
}

/// Which fields of a stage are choices: their paths from the stage's table.
pub(crate) type Choices = [Vec<String>];

/// Overlays `base` with `over`: tables merge key by key, choices and lists are replaced whole.
pub(crate) fn overlay(base: &mut TomlTable, over: &TomlTable, choices: &Choices, how: Overlay) {
    overlay_below(base, over, choices, how, &mut Vec::new());
}

/// Overlays the table of a stage. What the layer above says in another way is taken off first.
pub(crate) fn overlay_stage(
    base: &mut TomlTable,
    over: &TomlTable,
    kind: &Kind,
    choices: &Choices,
    how: Overlay,
) {
    kind.picks().iter().for_each(|pick| pick.clear(base, over));
    overlay(base, over, choices, how);
}

fn overlay_below(
    base: &mut TomlTable,
    over: &TomlTable,
    choices: &Choices,
    how: Overlay,
    place: &mut Vec<String>,
) {
    for (name, entry) in over {
        place.push(name.clone());
        match base.get_mut(name) {
            Some(Entry { value: Value { content: Content::Table(below), span }, key }) => {
                match &entry.value.content {
                    Content::Table(above) if merges(below, above, choices, how, place) => {
                        // Errors about the table as a whole belong where it was last touched.
                        *span = entry.value.span.clone();
                        *key = entry.key.clone();
                        overlay_below(below, above, choices, how, place);
                    }
                    _ => {
                        base.insert(name.clone(), entry.clone());
                    }
                }
            }
            _ => {
                base.insert(name.clone(), entry.clone());
            }
        }
        place.pop();
    }
}

fn merges(below: &TomlTable, above: &TomlTable, choices: &Choices, how: Overlay, place: &[String]) -> bool {
    if !choices.iter().any(|choice| choice == place) {
        return true;
    }
    how == Overlay::Leaf && above.keys().all(|variant| below.contains_key(variant))
}

/// Returns whether `top` overrides something that `over` sets.
pub(crate) fn hides(top: &Value, over: &Value, how: Overlay, choices: &Choices, place: &[String]) -> bool {
    let (Some(top), Some(over)) = (top.as_table(), over.as_table()) else {
        return true;
    };
    if choices.iter().any(|choice| choice == place)
        && (how == Overlay::Whole || over.keys().any(|name| !top.contains_key(name)))
    {
        return true;
    }
    over.iter().any(|(name, entry)| {
        let place: Vec<String> = place.iter().chain([name]).cloned().collect();
        top.get(name).is_some_and(|top| hides(&top.value, &entry.value, how, choices, &place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    fn merged(base: &str, over: &str, how: Overlay) -> TomlTable {
        let mut table = parse(base, 0).0;
        overlay(&mut table, &parse(over, 0).0, &[vec!["objective".to_owned()]], how);
        table
    }

    fn names(table: &TomlTable, at: &[&str]) -> Vec<String> {
        let mut table = table;
        for name in at {
            table = table[*name].value.as_table().unwrap();
        }
        table.keys().cloned().collect()
    }

    #[test]
    fn tables_merge_and_choices_are_replaced() {
        let base = "objective.dpo = { beta = 1, x = 2 }\ninputs = { a = 'b' }";
        let table = merged(base, "objective.cpo = { beta = 3 }\ninputs.c = 'd'", Overlay::Whole);
        assert_eq!(names(&table, &["objective"]), ["cpo"]);
        assert_eq!(names(&table, &["inputs"]), ["a", "c"]);
        assert_eq!(
            names(&merged(base, "objective.dpo = { beta = 3 }", Overlay::Whole), &["objective", "dpo"]),
            ["beta"]
        );
    }

    #[test]
    fn a_leaf_changes_alone() {
        let base = "objective.dpo = { beta = 1, x = 2 }";
        let table = merged(base, "objective.dpo.beta = 3", Overlay::Leaf);
        assert_eq!(names(&table, &["objective", "dpo"]), ["beta", "x"]);
        assert_eq!(names(&merged(base, "objective.cpo.beta = 3", Overlay::Leaf), &["objective"]), ["cpo"]);
    }
}
