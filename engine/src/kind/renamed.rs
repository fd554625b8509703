//! Words of experiment files that have been renamed: an old one is answered with the new one.

use crate::toml::source_map::Span;
use crate::toml::value::{Content, Value};

/// Old paths and new ones, as [`crate::Stage::RENAMED`] has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renamed(pub &'static [(&'static str, &'static str)]);

impl Renamed {
    /// Says what the word at these characters of a stage's table is called now, if it has an old
    /// name.
    pub(crate) fn at(self, table: &Value, span: &Span) -> Option<String> {
        self.find(|old| stands_at(table, old, span))
    }

    /// Says what an input is called now.
    pub(crate) fn input(self, name: &str) -> Option<String> {
        self.find(|old| old == ["inputs", name])
    }

    /// Says what a column of tables is called now.
    pub(crate) fn column(self, name: &str) -> Option<String> {
        self.find(|old| old == ["columns", name])
    }

    fn find(self, is_old: impl Fn(&[&str]) -> bool) -> Option<String> {
        self.0.iter().find_map(|(old, new)| {
            let old: Vec<&str> = old.split('.').collect();
            let last = |path: &[&str]| path.last().map(ToString::to_string).unwrap_or_default();
            is_old(&old).then(|| {
                let new: Vec<&str> = new.split('.').collect();
                format!("`{}` is now `{}`", last(&old), last(&new))
            })
        })
    }
}

/// Returns whether the last word of a path is written at these characters, as the name of a field or
/// as a text that chooses.
fn stands_at(value: &Value, path: &[&str], span: &Span) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let fits = |name: &str| *first == "*" || *first == name;
    match &value.content {
        Content::Table(table) => table.iter().filter(|(name, _)| fits(name)).any(|(_, entry)| {
            if rest.is_empty() { entry.key == *span } else { stands_at(&entry.value, rest, span) }
        }),
        Content::List(items) if *first == "*" => items.iter().any(|item| stands_at(item, rest, span)),
        Content::Text(text) => rest.is_empty() && text == first && value.span == *span,
        _ => false,
    }
}
