//! How one stage names another: `stage[axis=variant,axis=*].output`.

use crate::kind::name::{is_name, is_stage_name};
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;

/// What a selector selects of one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One variant.
    One(String),
    /// All variants, gathered in declared order.
    All,
}

/// A parsed reference to a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub stage: String,
    /// Axis name, possibly written `stage.axis`, and what is selected of it.
    pub selectors: Vec<(String, Choice)>,
    pub output: Option<String>,
}

impl Reference {
    /// Parses a reference; the error says what is wrong with its text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shape = "write `stage`, `stage.output`, or `stage[axis=variant].output`";
        let (head, rest) = match text.find(['[', '.']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let mut selectors = Vec::new();
        let mut rest = rest;
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((list, after)) = inside.split_once(']') else {
                return Err(format!("`[` has no `]`; {shape}"));
            };
            for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let Some((axis, variant)) = part.split_once('=') else {
                    return Err(format!("`{part}` selects nothing; {shape}"));
                };
                let choice = match variant.trim() {
                    "*" => Choice::All,
                    name => Choice::One(name.to_owned()),
                };
                selectors.push((axis.trim().to_owned(), choice));
            }
            rest = after;
        }
        let output = match rest.strip_prefix('.') {
            Some(name) => Some(name.to_owned()),
            None if rest.is_empty() => None,
            None => return Err(format!("`{rest}` is not understood; {shape}")),
        };
        if !is_stage_name(head) {
            return Err(format!("`{head}` is not a name; {shape}"));
        }
        if let Some(name) = output.as_deref().filter(|name| !is_name(name)) {
            return Err(format!("`{name}` is not a name; {shape}"));
        }
        Ok(Self { stage: head.to_owned(), selectors, output })
    }

    /// Parses a reference that stands at `span`.
    pub(crate) fn parse_at(text: &str, span: Span) -> Result<Self, Diagnostic> {
        Self::parse(text)
            .map_err(|help| Diagnostic::new(span, format!("`{text}` does not name a stage")).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read() {
        let reference = Reference::parse("aligned[merge=ties, train.seed=*].weights").unwrap();
        assert_eq!(reference.stage, "aligned");
        assert_eq!(
            reference.selectors,
            [("merge".to_owned(), Choice::One("ties".to_owned())), ("train.seed".to_owned(), Choice::All)]
        );
        assert_eq!(reference.output.as_deref(), Some("weights"));
        assert_eq!(Reference::parse("a").unwrap().output, None);
        assert_eq!(Reference::parse("t2/a[x=1].rows").unwrap().stage, "t2/a");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a b", "a[", "a[x]", "a]", "a.", "a.b.c", "a[x=1]b", "/a", "a//b", "t2/"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
