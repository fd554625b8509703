//! One sentence with slots, and the lists that fill them.

use super::error::TemplateError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// How several properties are said in a row.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct List {
    before: String,
    each: String,
    two: String,
    between: String,
    last: String,
    min: usize,
    max: usize,
}

impl Default for List {
    fn default() -> Self {
        Self {
            before: String::new(),
            each: String::new(),
            two: " and ".to_owned(),
            between: ", ".to_owned(),
            last: ", and ".to_owned(),
            min: 1,
            max: usize::MAX,
        }
    }
}

impl List {
    fn takes(&self, count: usize) -> bool {
        (self.min..=self.max).contains(&count)
    }

    fn join(&self, items: &[String], out: &mut String) {
        out.push_str(&self.before);
        for (position, item) in items.iter().enumerate() {
            out.push_str(match (position, items.len() - position) {
                (0, _) => "",
                (_, 1) if items.len() == 2 => &self.two,
                (_, 1) => &self.last,
                _ => &self.between,
            });
            out.push_str(&self.each);
            out.push_str(item);
        }
    }
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Slot { class: usize, list: List },
}

/// A sentence, ready to be filled.
#[derive(Debug)]
pub(super) struct Sentence(Vec<Piece>);

impl Sentence {
    pub(super) fn parse(
        text: &str,
        span: Range<usize>,
        classes: &[String],
        lists: &BTreeMap<String, List>,
    ) -> Result<Self, TemplateError> {
        let slot = |written: &str| TemplateError::Slot { span: span.clone(), written: written.to_owned() };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            let end = from.find('}').ok_or_else(|| slot(from))?;
            let inside = from[..end].strip_prefix('{').ok_or_else(|| slot("}"))?;
            let (class, list) = inside.split_once(':').ok_or_else(|| slot(&from[..=end]))?;
            let class = place(class, classes).ok_or_else(|| TemplateError::UnknownClass {
                span: span.clone(),
                name: class.to_owned(),
                known: quoted(classes),
            })?;
            if pieces.iter().any(|piece| matches!(piece, Piece::Slot { class: c, .. } if *c == class)) {
                let class = classes[class].clone();
                return Err(TemplateError::RepeatedSlot { span, class });
            }
            let list = lists.get(list).ok_or_else(|| TemplateError::UnknownList {
                span: span.clone(),
                name: list.to_owned(),
                known: quoted(lists.keys()),
            })?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Slot { class, list: list.clone() });
            rest = &from[end + 1..];
        }
        if pieces.is_empty() {
            return Err(TemplateError::NoSlot { span });
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    fn slots(&self) -> impl Iterator<Item = (usize, &List)> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Slot { class, list } => Some((*class, list)),
        })
    }

    /// Says whether the sentence takes so many of these classes, and of no other.
    pub(super) fn fits(&self, counts: &BTreeMap<usize, usize>) -> bool {
        self.slots().count() == counts.len()
            && self.slots().all(|(class, list)| counts.get(&class).is_some_and(|n| list.takes(*n)))
    }

    /// Writes the sentence about the properties of each class.
    pub(super) fn fill(&self, group: &BTreeMap<usize, Vec<String>>, out: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Slot { class, list } => {
                    let items = group.get(class).map_or(&[][..], Vec::as_slice);
                    list.join(items, out);
                }
            }
        }
    }
}

fn place(name: &str, names: &[String]) -> Option<usize> {
    names.iter().position(|known| known == name)
}

pub(super) fn quoted<'n>(names: impl IntoIterator<Item = &'n String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(list: &List, count: usize) -> String {
        let items: Vec<String> = ["x", "y", "z"][..count].iter().map(|x| x.to_string()).collect();
        let mut out = String::new();
        list.join(&items, &mut out);
        out
    }

    #[test]
    fn lists_are_joined_as_in_english() {
        let plain = List::default();
        assert_eq!(joined(&plain, 1), "x");
        assert_eq!(joined(&plain, 2), "x and y");
        assert_eq!(joined(&plain, 3), "x, y, and z");
        let each = List { before: "both ".to_owned(), each: "a ".to_owned(), ..plain };
        assert_eq!(joined(&each, 2), "both a x and a y");
    }

    #[test]
    fn a_sentence_fits_its_classes_and_counts_only() {
        let classes = ["role".to_owned(), "effect".to_owned()];
        let two = List { min: 2, max: 2, ..List::default() };
        let lists = [("all".to_owned(), List::default()), ("two".to_owned(), two)].into();
        let sentence = Sentence::parse("Is {role:all} of {effect:two}.", 0..1, &classes, &lists);
        let sentence = sentence.unwrap();
        assert!(sentence.fits(&[(0, 5), (1, 2)].into()));
        assert!(!sentence.fits(&[(0, 5), (1, 1)].into()));
        assert!(!sentence.fits(&[(0, 5)].into()));
        assert!(!sentence.fits(&[(0, 5), (1, 2), (2, 1)].into()));
    }
}
