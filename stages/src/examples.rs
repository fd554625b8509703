//! Rows on their way into a model: prompts rendered, texts turned into tokens, what does not fit
//! counted.

use std::collections::BTreeMap;

use corpus::{Direction, Preference, Prompt, Row, Unpaired};
use engine::{Context, Failure};
use learn::{Example, Fit, Sequence, TokenLimit, Tokenizer};

/// Turns rows and preferences into examples for one model.
pub struct Renderer<'a> {
    /// The prompts, by direction.
    pub prompts: &'a BTreeMap<Direction, Prompt>,
    /// What makes tokens of texts.
    pub tokenizer: &'a Tokenizer,
    /// The token that ends an output.
    pub end: u32,
    /// How many tokens a prompt and an output may have.
    pub limit: TokenLimit,
    counts: Counts,
}

/// What did not fit.
#[derive(Default)]
struct Counts {
    long_prompts: usize,
    empty_targets: usize,
    cut_targets: usize,
    other_directions: usize,
}

impl<'a> Renderer<'a> {
    /// Begins to render.
    pub fn new(
        prompts: &'a BTreeMap<Direction, Prompt>,
        tokenizer: &'a Tokenizer,
        end: u32,
        limit: TokenLimit,
    ) -> Self {
        Self { prompts, tokenizer, end, limit, counts: Counts::default() }
    }

    /// Makes an example of a row for each direction that there is a prompt for.
    ///
    /// # Errors
    /// [`Failure`], naming the row and the field or the characters.
    pub fn row(&mut self, row: &Row, examples: &mut Vec<Example>) -> Result<(), Failure> {
        for (direction, prompt) in self.prompts {
            let field = |found: Result<&str, corpus::MissingField>| {
                found.map(str::to_owned).map_err(|error| Failure::new(error.to_string()))
            };
            let (input, target) = (field(direction.input(row))?, field(direction.target(row))?);
            let id = format!("{}/{direction}", row.id());
            let prompt = self.tokens(&id, &prompt.render(&input), Part::Prompt)?;
            if let Some(chosen) = self.sequence(&id, &prompt, &target)? {
                examples.push(Example { id, chosen, rejected: None, desirable: None });
            }
        }
        Ok(())
    }

    /// Makes an example of a preference, if there is a prompt for its direction.
    ///
    /// # Errors
    /// [`Failure`], naming the preference and the characters.
    pub fn preference(
        &mut self,
        preference: &Preference,
        examples: &mut Vec<Example>,
    ) -> Result<(), Failure> {
        let Some(prompt) = self.prompts.get(&preference.direction) else {
            self.counts.other_directions += 1;
            return Ok(());
        };
        let id = preference.id.clone();
        let prompt = self.tokens(&id, &prompt.render(&preference.input), Part::Prompt)?;
        let chosen = self.sequence(&id, &prompt, &preference.chosen)?;
        let rejected = self.answer(&id, &prompt, &preference.rejected)?;
        if let (Some(chosen), Some((rejected, fit))) = (chosen, rejected) {
            self.counts.cut_targets += usize::from(fit == Fit::Cut);
            examples.push(Example { id, chosen, rejected: Some(rejected), desirable: None });
        }
        Ok(())
    }

    /// Makes an example of an answer that is good or bad, if there is a prompt for its direction.
    ///
    /// # Errors
    /// [`Failure`], naming the answer and the characters.
    pub fn unpaired(&mut self, answer: &Unpaired, examples: &mut Vec<Example>) -> Result<(), Failure> {
        let Some(prompt) = self.prompts.get(&answer.direction) else {
            self.counts.other_directions += 1;
            return Ok(());
        };
        let id = answer.id.clone();
        let prompt = self.tokens(&id, &prompt.render(&answer.input), Part::Prompt)?;
        match self.answer(&id, &prompt, &answer.output)? {
            Some((chosen, fit)) => {
                self.counts.cut_targets += usize::from(fit == Fit::Cut);
                examples.push(Example { id, chosen, rejected: None, desirable: Some(answer.desirable) });
            }
            None => self.counts.long_prompts += 1,
        }
        Ok(())
    }

    /// Puts what a model answered behind a prompt.
    fn answer(&self, id: &str, prompt: &[u32], text: &str) -> Result<Option<(Sequence, Fit)>, Failure> {
        // An empty answer is still one token long: it ends at once.
        let mut tokens = self.tokens(id, text.trim(), Part::Target)?;
        tokens.push(self.end);
        Ok(Sequence::new(prompt, &tokens, self.limit))
    }

    fn tokens(&self, id: &str, text: &str, part: Part) -> Result<Vec<u32>, Failure> {
        let tokens = match part {
            Part::Prompt => self.tokenizer.encode_prompt(text),
            Part::Target => self.tokenizer.encode_target(text),
        };
        tokens.map_err(|error| {
            Failure::caused(format!("read row `{id}`"), error)
                .help("use a tokenizer that was trained on texts like these")
        })
    }

    fn sequence(&mut self, id: &str, prompt: &[u32], target: &str) -> Result<Option<Sequence>, Failure> {
        let target = target.trim();
        if target.is_empty() {
            self.counts.empty_targets += 1;
            return Ok(None);
        }
        let mut target = self.tokens(id, target, Part::Target)?;
        target.push(self.end);
        let Some((sequence, fit)) = Sequence::new(prompt, &target, self.limit) else {
            self.counts.long_prompts += 1;
            return Ok(None);
        };
        self.counts.cut_targets += usize::from(fit == Fit::Cut);
        Ok(Some(sequence))
    }

    /// Says what did not fit.
    pub fn tell(&self, rows: &str, context: &mut Context) {
        let Counts { long_prompts, empty_targets, cut_targets, other_directions } = self.counts;
        let (length, too_many) = (self.limit.tokens(), self.limit.too_many());
        let told = [
            (long_prompts, format!("have prompts of {too_many}, and were left out")),
            (empty_targets, "have empty targets, and were left out".to_owned()),
            (cut_targets, format!("have outputs that end beyond {length} tokens, and were cut there")),
            (other_directions, "are for directions without a prompt, and were left out".to_owned()),
        ];
        for (count, what) in told.into_iter().filter(|(count, _)| *count > 0) {
            context.note(format!("{count} {rows} {what}"));
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Prompt,
    Target,
}
