//! A file of templates, read and checked.

use super::error::TemplateError;
use super::sentence::{List, Sentence, quoted};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// 2: `max_properties`, `min` and `max` have these names.
const FORMAT: u32 = 2;

/// Fields of format 1, and what they are called now.
const RENAMED: [(&str, &str); 3] =
    [("longest-sentence", "max_properties"), ("fewest", "min"), ("most", "max")];

/// The most properties of a sentence: each number up to it is tried with each class.
pub(super) const MOST_PROPERTIES: usize = 1000;

/// Holds templates that have a sentence for every list of properties.
#[derive(Debug)]
pub struct Templates {
    pub(super) max_properties: usize,
    pub(super) sentences: Vec<Sentence>,
    say: BTreeMap<String, String>,
    /// Lower-cased property to class.
    members: BTreeMap<String, usize>,
    /// By class.
    affixes: Vec<Affixes>,
    rest: usize,
}

#[derive(Debug)]
struct Affixes {
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct File {
    format: Spanned<u32>,
    max_properties: Spanned<usize>,
    rest: Spanned<String>,
    sentences: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    say: BTreeMap<String, String>,
    class: Vec<Class>,
    #[serde(default)]
    lists: BTreeMap<String, List>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    name: String,
    #[serde(default)]
    members: Vec<Spanned<String>>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    suffixes: Vec<String>,
}

impl Templates {
    /// Reads templates and checks that every property can be said with them.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let is_old =
                |(old, _): &&(&str, &str)| error.message().starts_with(&format!("unknown field `{old}`"));
            let message = match RENAMED.iter().find(is_old) {
                Some((old, new)) => format!("`{old}` is now `{new}`, and the file is of `format = {FORMAT}`"),
                None => error.message().to_owned(),
            };
            TemplateError::Syntax { span: error.span(), message }
        })?;
        if *file.format.get_ref() != FORMAT {
            let (span, format) = (file.format.span(), file.format.into_inner());
            return Err(TemplateError::Format { span, format });
        }
        if *file.max_properties.get_ref() == 0 {
            return Err(TemplateError::NoProperties { span: file.max_properties.span() });
        }
        if *file.max_properties.get_ref() > MOST_PROPERTIES {
            let (span, count) = (file.max_properties.span(), file.max_properties.into_inner());
            return Err(TemplateError::TooManyProperties { span, count });
        }
        let classes: Vec<String> = file.class.iter().map(|class| class.name.clone()).collect();
        let rest = classes.iter().position(|name| name == file.rest.get_ref());
        let rest = rest.ok_or_else(|| TemplateError::UnknownClass {
            span: file.rest.span(),
            name: file.rest.get_ref().clone(),
            known: quoted(&classes),
        })?;
        let all_sentences = file.sentences.span();
        let sentences: Result<Vec<Sentence>, TemplateError> = file
            .sentences
            .into_inner()
            .into_iter()
            .map(|text| Sentence::parse(text.get_ref(), text.span(), &classes, &file.lists))
            .collect();
        let lowered = |text: &String| text.to_lowercase();
        let templates = Self {
            max_properties: file.max_properties.into_inner(),
            sentences: sentences?,
            say: file.say.into_iter().map(|(name, said)| (lowered(&name), said)).collect(),
            members: members(&file.class)?,
            affixes: file
                .class
                .iter()
                .map(|class| Affixes {
                    prefixes: class.prefixes.iter().map(lowered).collect(),
                    suffixes: class.suffixes.iter().map(lowered).collect(),
                })
                .collect(),
            rest,
        };
        for (number, class) in classes.into_iter().enumerate() {
            for count in 1..=templates.max_properties {
                let alone = BTreeMap::from([(number, count)]);
                if !templates.sentences.iter().any(|sentence| sentence.fits(&alone)) {
                    return Err(TemplateError::Uncovered { span: all_sentences, class, count });
                }
            }
        }
        Ok(templates)
    }

    /// Returns how a property is said, in small letters unless the templates say otherwise.
    pub(super) fn said(&self, property: &str) -> String {
        let lower = property.to_lowercase();
        self.say.get(&lower).cloned().unwrap_or(lower)
    }

    /// Returns the class of a property: the one that lists it, else the first one that has its
    /// beginning or its end, else the rest.
    pub(super) fn class(&self, property: &str) -> usize {
        let lower = property.to_lowercase();
        let affixed = |affixes: &Affixes| {
            affixes.prefixes.iter().any(|prefix| lower.starts_with(prefix))
                || affixes.suffixes.iter().any(|suffix| lower.ends_with(suffix))
        };
        let listed = self.members.get(&lower).copied();
        listed.or_else(|| self.affixes.iter().position(affixed)).unwrap_or(self.rest)
    }
}

fn members(classes: &[Class]) -> Result<BTreeMap<String, usize>, TemplateError> {
    let mut members = BTreeMap::new();
    for (number, class) in classes.iter().enumerate() {
        for name in &class.members {
            if let Some(first) = members.insert(name.get_ref().to_lowercase(), number) {
                return Err(TemplateError::TwoClasses {
                    span: name.span(),
                    name: name.get_ref().clone(),
                    first: classes[first].name.clone(),
                    second: class.name.clone(),
                });
            }
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
format = 2
max_properties = 2
rest = "role"
sentences = ["Is {role:plain}.", "Heals {treatment:plain}.", "Is {role:plain}, and {treatment:plain}."]
say = { Odor_evaluation = "odor" }
[[class]]
name = "treatment"
members = ["Remedy"]
suffixes = [" Treatment"]
[[class]]
name = "role"
[lists.plain]
"#;

    fn error(from: &str, to: &str) -> (String, String) {
        assert!(TEXT.contains(from), "{from}");
        let text = TEXT.replace(from, to);
        let error = Templates::parse(&text).unwrap_err();
        let span = error.span().unwrap_or(0..0);
        (error.to_string(), text[span].to_owned())
    }

    #[test]
    fn properties_are_classed_by_name_then_affix_then_rest() {
        let templates = Templates::parse(TEXT).unwrap();
        let classes = ["remedy", "Pain treatment", "treatment"].map(|p| templates.class(p));
        assert_eq!(classes, [0, 0, 1]);
        assert_eq!(templates.said("odor_Evaluation"), "odor");
        assert_eq!(templates.said("HIV inhibitor"), "hiv inhibitor");
    }

    #[test]
    fn errors_point_at_what_they_are_about() {
        let (message, at) = error("rest = \"role\"", "rest = \"rule\"");
        assert_eq!(message, "there is no class `rule`; the classes are `treatment`, `role`");
        assert_eq!(at, "\"rule\"");
        let (message, at) = error("{role:plain}, and", "{role:plan}, and");
        assert_eq!(message, "there is no list `plan`; the lists are `plain`");
        assert_eq!(at, "\"Is {role:plan}, and {treatment:plain}.\"");
        let (message, _) = error("Is {role:plain}.", "Is {role}.");
        assert_eq!(message, "a slot is written `{class:list}`, not `{role}`");
        let (message, _) = error("Is {role:plain}.", "Is {role:plain.");
        assert_eq!(message, "a slot is written `{class:list}`, not `{role:plain.`");
        let (message, _) = error("Is {role:plain}.", "Is }.");
        assert_eq!(message, "a slot is written `{class:list}`, not `}`");
        assert_eq!(error("Is {role:plain}.", "Is.").0, "the sentence has no slot");
        let (message, _) = error("{role:plain}, and {treatment:plain}", "{role:plain}{role:plain}");
        assert_eq!(message, "the sentence has two slots for `role`");
        let (message, at) = error("name = \"role\"", "name = \"role\"\nmembers = [\"remedy\"]");
        assert_eq!(message, "`remedy` is in the class `treatment` and in the class `role`");
        assert_eq!(at, "\"remedy\"");
        assert_eq!(error("format = 2", "format = 1").1, "1");
        assert_eq!(error("max_properties = 2", "max_properties = 0").1, "0");
        let (message, at) = error("max_properties = 2", "max_properties = 1000000000000");
        assert_eq!(at, "1000000000000");
        assert_eq!(message, "`max_properties` is 1000000000000: a sentence holds at most 1000 properties");
        assert_eq!(error("suffixes", "sufixes").1, "sufixes");
    }

    #[test]
    fn a_class_without_a_sentence_of_its_own_is_refused() {
        let (message, _) = error("\"Heals {treatment:plain}.\", ", "");
        assert_eq!(message, "no sentence is of `treatment` alone and takes 1 of it");
        let (message, _) = error("[lists.plain]", "[lists.plain]\nmax = 1");
        assert_eq!(message, "no sentence is of `treatment` alone and takes 2 of it");
    }
}
