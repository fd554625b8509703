//! A prompt's text, and what it becomes for one input.
//!
//! A template holds `{molecule}` and `{caption}` once each. The prompt for a direction is what
//! stands before the target's place, with the input filled in; nothing may follow the target.
//! White space just before the target is no part of the prompt but the [`Prompt::gap`].

use crate::direction::Direction;

/// Says why a text cannot prompt for a direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// A place is not there.
    #[error("the prompt has no `{{{field}}}`: it needs one place for the molecule and one for the caption")]
    NoPlace {
        /// The field that has none.
        field: &'static str,
    },
    /// A place is there more than once.
    #[error("the prompt has `{{{field}}}` {times} times, and must have it once")]
    Repeated {
        /// The field.
        field: &'static str,
        /// How often it is there.
        times: usize,
    },
    /// A prompt about a text has no place for it.
    #[error("the prompt has no `{{text}}`: it needs one place for the text that it is about")]
    NoTextPlace,
    /// The answer would come before the question.
    #[error("the prompt has `{{{target}}}` before `{{{input}}}`, but {direction} is to give it last")]
    TargetFirst {
        /// The direction asked for.
        direction: Direction,
        /// The field that is wanted.
        target: &'static str,
        /// The field that is given.
        input: &'static str,
    },
    /// There is text behind the answer.
    #[error("the prompt goes on behind `{{{target}}}`: `{text}`, and a model would have to say that too")]
    TextBehindTarget {
        /// The field that is wanted.
        target: &'static str,
        /// The beginning of the text behind it.
        text: String,
    },
}

/// Holds a prompt for one direction, with a place for the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    direction: Direction,
    before: String,
    behind: String,
    gap: String,
}

/// How much is shown of text that should not be there.
const SHOWN_CHARACTERS: usize = 40;

impl Prompt {
    /// Reads a prompt's text for a direction.
    pub fn parse(text: &str, direction: Direction) -> Result<Self, PromptError> {
        let (input, target) = (direction.input_field(), direction.target_field());
        let (input_place, input_at) = place(text, input)?;
        let (target_place, target_at) = place(text, target)?;
        if target_at < input_at {
            return Err(PromptError::TargetFirst { direction, target, input });
        }
        let suffix = text[target_at + target_place.len()..].trim();
        if !suffix.is_empty() {
            let text = suffix.chars().take(SHOWN_CHARACTERS).collect();
            return Err(PromptError::TextBehindTarget { target, text });
        }
        let between = &text[input_at + input_place.len()..target_at];
        let behind = between.trim_end();
        Ok(Self {
            direction,
            before: text[..input_at].to_owned(),
            behind: behind.to_owned(),
            gap: between[behind.len()..].to_owned(),
        })
    }

    /// Returns the direction it asks for.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Returns the white space between the prompt and the target.
    pub fn gap(&self) -> &str {
        &self.gap
    }

    /// Returns the prompt for an input, without the gap.
    pub fn render(&self, input: &str) -> String {
        [&self.before, input, &self.behind].concat()
    }
}

/// Holds a prompt about any text, with a place for it, `{text}`: one that asks for its facts, say.
/// What stands behind the place is part of the prompt, but for white space at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPrompt {
    before: String,
    behind: String,
}

impl TextPrompt {
    /// Reads a prompt's text.
    pub fn parse(text: &str) -> Result<Self, PromptError> {
        let (place, at) = place(text, "text").map_err(|error| match error {
            PromptError::NoPlace { .. } => PromptError::NoTextPlace,
            error => error,
        })?;
        let behind = text[at + place.len()..].trim_end();
        Ok(Self { before: text[..at].to_owned(), behind: behind.to_owned() })
    }

    /// Returns the prompt about a text.
    pub fn render(&self, text: &str) -> String {
        [&self.before, text, &self.behind].concat()
    }
}

/// Returns the one place of a field, as written, and where it is.
fn place(text: &str, field: &'static str) -> Result<(String, usize), PromptError> {
    let written = format!("{{{field}}}");
    let mut places = text.match_indices(&written).map(|(at, _)| at);
    let Some(at) = places.next() else { return Err(PromptError::NoPlace { field }) };
    match places.count() {
        0 => Ok((written, at)),
        more => Err(PromptError::Repeated { field, times: more + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOL2CAP: &str = include_str!("../../../experiments/prompts/mol2cap.txt");
    const CAP2MOL: &str = include_str!("../../../experiments/prompts/cap2mol.txt");

    fn refused(text: &str, direction: Direction) -> String {
        Prompt::parse(text, direction).unwrap_err().to_string()
    }

    #[test]
    fn the_papers_prompts_are_read() {
        let prompt = Prompt::parse(MOL2CAP, Direction::Mol2cap).unwrap();
        let text = prompt.render("CCO");
        assert!(text.starts_with("Below is an instruction"), "{text}");
        assert!(text.contains("### Input: Molecule: CCO\n") && text.ends_with("### Response:"), "{text}");
        assert_eq!((prompt.direction(), prompt.gap()), (Direction::Mol2cap, " "));
        let text = Prompt::parse(CAP2MOL, Direction::Cap2mol).unwrap().render("It is {molecule}.");
        assert!(text.contains("### Input: Caption: It is {molecule}.\n"), "{text}");
        assert!(text.ends_with("### Response:"), "{text}");
    }

    #[test]
    fn a_prompt_is_for_its_direction_only() {
        let error = refused(MOL2CAP, Direction::Cap2mol);
        let expected = "the prompt has `{molecule}` before `{caption}`, but cap2mol is to give it last";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| refused(text, Direction::Mol2cap);
        let needs = "it needs one place for the molecule and one for the caption";
        assert_eq!(refused("M: {caption}"), format!("the prompt has no `{{molecule}}`: {needs}"));
        assert_eq!(refused("{molecule} {text}"), format!("the prompt has no `{{caption}}`: {needs}"));
        assert_eq!(refused(""), format!("the prompt has no `{{molecule}}`: {needs}"));
        assert_eq!(
            refused("{molecule}{caption}{caption}"),
            "the prompt has `{caption}` 2 times, and must have it once"
        );
        assert_eq!(
            refused("{molecule}: {caption}\n### End\n"),
            "the prompt goes on behind `{caption}`: `### End`, and a model would have to say that too"
        );
    }

    #[test]
    fn the_papers_prompt_for_facts_is_read() {
        let prompt = TextPrompt::parse(include_str!("../../../experiments/prompts/decompose.txt")).unwrap();
        let text = prompt.render("It is {text}.");
        assert!(text.starts_with("### User:\nPlease breakdown the following text"), "{text}");
        assert!(text.contains("facts:\nIt is {text}.\n\n**\nIMPORTANT"), "{text}");
        assert!(text.ends_with("### Assistant:"), "{text}");
        let refused = |text: &str| TextPrompt::parse(text).unwrap_err().to_string();
        let needs = "the prompt has no `{text}`: it needs one place for the text that it is about";
        assert_eq!(refused("{molecule}: {caption}"), needs);
        assert_eq!(refused("{text} {text}"), "the prompt has `{text}` 2 times, and must have it once");
    }

    #[test]
    fn white_space_around_the_target_is_cut_and_elsewhere_kept() {
        let prompt = Prompt::parse("  {molecule} is\n\t {caption} \n\n", Direction::Mol2cap).unwrap();
        assert_eq!((prompt.render(" CCO "), prompt.gap()), ("   CCO  is".to_owned(), "\n\t "));
        let bare = Prompt::parse("{molecule}\n{caption}", Direction::Mol2cap).unwrap();
        assert_eq!(bare.render("CCO"), "CCO");
    }

    proptest! {
        #[test]
        fn a_prompt_and_its_target_are_the_template(
            before in "[a {}\n]{0,9}", between in "[a {}\n]{0,9}", input in "\\PC{0,9}", target in "\\PC{0,9}"
        ) {
            let template = format!("{before}{{caption}}{between}{{molecule}}\n");
            let prompt = Prompt::parse(&template, Direction::Cap2mol).unwrap();
            let whole = format!("{}{}{target}", prompt.render(&input), prompt.gap());
            prop_assert_eq!(whole, format!("{before}{input}{between}{target}"));
        }

        #[test]
        fn any_text_is_a_prompt_or_a_mistake(text in "(a| |\\{molecule\\}|\\{caption\\}|\\{){0,6}") {
            for direction in Direction::ALL {
                let _ = Prompt::parse(&text, *direction).map_err(|error| error.to_string());
            }
        }
    }
}
