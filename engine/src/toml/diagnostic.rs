//! Labelled reports that point into the experiment file.

use std::fmt;
use std::sync::Arc;

use miette::{LabeledSpan, NamedSource, SourceCode, SourceSpan};

use crate::toml::source_map::{SourceMap, Span};

/// One thing that is wrong with an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    pub span: Span,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), label: "here".to_owned(), help: None }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// One thing that is wrong with an experiment, with the text it is wrong in.
#[derive(Debug, Clone)]
pub struct LocatedDiagnostic {
    message: String,
    help: Option<String>,
    label: LabeledSpan,
    source: NamedSource<Arc<str>>,
    line: usize,
    column: usize,
}

impl LocatedDiagnostic {
    fn new(diagnostic: &Diagnostic, sources: &SourceMap) -> Self {
        let (source, local) = sources.locate(&diagnostic.span);
        let position = sources.position(&diagnostic.span);
        // A span over many lines would print a whole table where its first line says enough.
        let first_line = source.text[local.clone()].find('\n').unwrap_or(local.len());
        Self {
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            label: LabeledSpan::new_with_span(
                Some(diagnostic.label.clone()),
                SourceSpan::new(local.start.into(), first_line),
            ),
            source: NamedSource::new(&source.name, source.text.clone()).with_language("TOML"),
            line: position.line,
            column: position.column,
        }
    }

    /// Returns the name of the file.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Returns the line and column, counted from one.
    pub fn position(&self) -> (usize, usize) {
        (self.line, self.column)
    }

    /// Returns the same diagnostic with all its texts rewritten, as for a terminal. What is rewritten
    /// may become longer or shorter; the place it points to moves along.
    #[must_use]
    pub fn rewritten(&self, rewrite: &dyn Fn(&str) -> String) -> Self {
        let text = self.source.inner();
        let (before, rest) = text.split_at(self.label.offset());
        let (within, behind) = rest.split_at(self.label.len());
        let (before, within) = (rewrite(before), rewrite(within));
        let span = SourceSpan::new(before.len().into(), within.len());
        let text: Arc<str> = [before, within, rewrite(behind)].concat().into();
        Self {
            message: rewrite(&self.message),
            help: self.help.as_deref().map(rewrite),
            label: LabeledSpan::new_with_span(self.label.label().map(rewrite), span),
            source: NamedSource::new(rewrite(self.source.name()), text).with_language("TOML"),
            ..self.clone()
        }
    }

    /// Returns what is wrong, without its place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for LocatedDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LocatedDiagnostic {}

impl miette::Diagnostic for LocatedDiagnostic {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(self.label.clone())))
    }
}

/// Everything that is wrong with an experiment, in the order of the text.
#[derive(Debug, Clone)]
pub struct Report {
    diagnostics: Vec<LocatedDiagnostic>,
}

impl Report {
    /// Makes a report, or `None` if there is nothing to report.
    pub(crate) fn of(mut diagnostics: Vec<Diagnostic>, sources: &SourceMap) -> Option<Self> {
        diagnostics.sort_by(|a, b| {
            (a.span.start, a.span.end, &a.message).cmp(&(b.span.start, b.span.end, &b.message))
        });
        // What several stages have from one place, such as a default, is wrong once.
        diagnostics.dedup_by(|a, b| {
            a.span == b.span && a.help == b.help && without_stage(&a.message) == without_stage(&b.message)
        });
        (!diagnostics.is_empty()).then(|| Self {
            diagnostics: diagnostics
                .iter()
                .map(|diagnostic| LocatedDiagnostic::new(diagnostic, sources))
                .collect(),
        })
    }

    /// Returns the diagnostics.
    pub fn diagnostics(&self) -> &[LocatedDiagnostic] {
        &self.diagnostics
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, diagnostic) in self.diagnostics.iter().enumerate() {
            let (line, column) = diagnostic.position();
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{line}:{column}: {diagnostic}", diagnostic.file())?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Returns a message without the name of the stage that it begins with.
fn without_stage(message: &str) -> &str {
    message.strip_prefix("stage `").and_then(|rest| rest.split_once('`')).map_or(message, |(_, rest)| rest)
}

/// Returns "did you mean `x`?" for the nearest valid name, if one is near.
pub(crate) fn did_you_mean<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let nearest = valid
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(given.chars().count()) / 3)
        .min()?;
    Some(format!("did you mean `{}`?", nearest.1))
}

/// Returns "did you mean …" or else the list of valid names.
pub(crate) fn nearest_or_all<'a>(
    given: &str,
    what: &str,
    valid: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    did_you_mean(given, valid.clone()).or_else(|| {
        let names: Vec<String> = valid.into_iter().map(|name| format!("`{name}`")).collect();
        match names.len() {
            0 => None,
            1..=12 => Some(format!("{what}: {}", names.join(", "))),
            more => Some(format!("{what}: {}, and {} more", names[..12].join(", "), more - 12)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        assert_eq!(did_you_mean("subest", ["source", "subset"]), Some("did you mean `subset`?".to_owned()));
        assert_eq!(did_you_mean("x", ["source", "subset"]), None);
        assert_eq!(nearest_or_all("zzz", "kinds", ["a1", "b2"]), Some("kinds: `a1`, `b2`".to_owned()));
    }
}
