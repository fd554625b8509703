//! All texts of one experiment, one after the other, so that a span identifies its file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stretch of the texts of one experiment.
pub(crate) type Span = Range<usize>;

/// One text: a file, or a value given on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// What people call it.
    pub name: String,
    /// The folder that relative paths in it start from.
    pub folder: PathBuf,
    /// The namespace that the names in it belong to; empty for that of the experiment itself.
    pub namespace: String,
    /// Its text. Every diagnostic in a report holds it too.
    pub text: Arc<str>,
    base: usize,
}

/// The texts of one experiment.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceMap {
    sources: Vec<Source>,
}

/// A place in a text, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position<'a> {
    /// What people call the text.
    pub name: &'a str,
    pub line: usize,
    pub column: usize,
}

impl SourceMap {
    /// Adds a text and returns where its spans begin.
    pub(crate) fn add(&mut self, name: String, folder: PathBuf, text: String) -> usize {
        self.add_to(String::new(), name, folder, text)
    }

    /// Adds a text whose names belong to a namespace.
    pub(crate) fn add_to(&mut self, namespace: String, name: String, folder: PathBuf, text: String) -> usize {
        // One byte between two texts, so that an empty span at an end has one owner.
        let base = self.sources.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.sources.push(Source { name, folder, namespace, text: text.into(), base });
        base
    }

    /// Returns what people call the texts, in the order in which they were added.
    pub(crate) fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.sources.iter().map(|source| source.name.as_str())
    }

    /// Returns the text that contains a span, and the span within it.
    pub(crate) fn locate(&self, span: &Span) -> (&Source, Span) {
        let after = self.sources.partition_point(|source| source.base <= span.start);
        let source = &self.sources[after.saturating_sub(1)];
        let within = |at: usize| source.text.floor_char_boundary(at.saturating_sub(source.base));
        let start = within(span.start);
        (source, start..within(span.end).max(start))
    }

    /// Returns line and column of a span's beginning.
    pub(crate) fn position(&self, span: &Span) -> Position<'_> {
        let (source, local) = self.locate(span);
        let before = &source.text[..local.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            name: &source.name,
            line: before.matches('\n').count() + 1,
            column: source.text[line_start..local.start].chars().count() + 1,
        }
    }

    /// Returns the folder that a path written at `span` starts from.
    pub(crate) fn folder(&self, span: &Span) -> &Path {
        &self.locate(span).0.folder
    }

    /// Returns the namespace that names written at `span` belong to.
    pub(crate) fn namespace(&self, span: &Span) -> &str {
        &self.locate(span).0.namespace
    }

    /// Returns the text of a span as it is written, or the first line of it.
    pub(crate) fn text(&self, span: &Span) -> String {
        let (source, local) = self.locate(span);
        let text = &source.text[local];
        match text.split_once('\n') {
            Some((first, _)) => format!("{} …", first.trim_end()),
            None => text.to_owned(),
        }
    }

    /// Returns `file:line` of a span's beginning.
    pub(crate) fn line(&self, span: &Span) -> String {
        let position = self.position(span);
        format!("{}:{}", position.name, position.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_found_in_its_text() {
        let mut map = SourceMap::default();
        map.add("a".to_owned(), PathBuf::new(), "one\ntwo".to_owned());
        let base = map.add("b".to_owned(), PathBuf::new(), "thrée\nfour".to_owned());
        let span = base + 5..base + 6;
        assert_eq!(map.position(&span), Position { name: "b", line: 1, column: 5 });
        assert_eq!(map.line(&(base + 7..base + 8)), "b:2");
        assert_eq!(map.position(&(7..7)), Position { name: "a", line: 2, column: 4 });
    }
}
