//! Rows on their way into a model: prompts rendered, texts turned into tokens, what does not fit
//! counted.

use std::collections::BTreeMap;

use corpus::{Direction, Preference, Prompt, Row, Unpaired};
use engine::{ArtifactType, Context, StageFailure};
use learn::{Example, Examples, Feed, Fit, Model, Sequence, TokenLimit, Tokenizer};

use crate::artifacts::{PREFERENCES, ROWS, UNPAIRED};
use crate::support::rows::{read_records, read_rows};

/// Turns rows and preferences into examples for one model.
pub(crate) struct Renderer<'a> {
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

/// Reads what a model learns from, from the inputs `rows` and `validation` of a stage.
pub(crate) struct Reader<'a> {
    /// What an objective takes.
    pub feed: Feed,
    /// The prompts, by direction.
    pub prompts: &'a BTreeMap<Direction, Prompt>,
    /// The most tokens of a prompt and its output; the model's own limit if not given.
    pub max_length: Option<u32>,
}

/// Returns the type of the rows that an objective takes.
pub(crate) fn artifact_of(feed: Feed) -> ArtifactType {
    match feed {
        Feed::Targets => ROWS,
        Feed::Pairs => PREFERENCES,
        Feed::Labelled => UNPAIRED,
    }
}

impl Reader<'_> {
    /// Reads the rows as a model takes them.
    ///
    /// # Errors
    /// [`StageFailure`], naming the row; and if nothing is left.
    pub(crate) fn read(&self, model: &Model, context: &mut Context) -> Result<Examples, StageFailure> {
        let limit = model.limit().at_most(self.max_length.map_or(usize::MAX, |length| length as usize));
        let train = self.read_port("rows", "rows", limit, model, context)?;
        let validation = self.read_port("validation", "validation rows", limit, model, context)?;
        Ok(Examples { train, validation, limit })
    }

    fn read_port(
        &self,
        port: &str,
        called: &str,
        limit: TokenLimit,
        model: &Model,
        context: &mut Context,
    ) -> Result<Vec<Example>, StageFailure> {
        let Some(folder) = context.optional_input(port).map(ToOwned::to_owned) else { return Ok(Vec::new()) };
        let mut renderer = Renderer::new(self.prompts, model.tokenizer(), model.eos_token_ids()[0], limit);
        let mut examples = Vec::new();
        match self.feed {
            Feed::Targets => {
                for row in read_rows(&folder)? {
                    renderer.row(&row?, &mut examples)?;
                }
            }
            Feed::Pairs => {
                for preference in read_records::<Preference>(&folder)? {
                    renderer.preference(&preference?, &mut examples)?;
                }
            }
            Feed::Labelled => {
                for answer in read_records::<Unpaired>(&folder)? {
                    renderer.unpaired(&answer?, &mut examples)?;
                }
            }
        }
        renderer.add_notes(called, context);
        if examples.is_empty() {
            let failure = StageFailure::new(format!("there is nothing to learn from in `{port}`"));
            return Err(failure.help("see the stage's log for what was left out"));
        }
        context.log(format_args!("{}: {} examples", port, examples.len()));
        Ok(examples)
    }
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
    pub(crate) fn new(
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
    /// [`StageFailure`], naming the row and the field or the characters.
    pub(crate) fn row(&mut self, row: &Row, examples: &mut Vec<Example>) -> Result<(), StageFailure> {
        for (direction, prompt) in self.prompts {
            let field = |text: Result<&str, corpus::MissingField>| {
                text.map(str::to_owned).map_err(|error| StageFailure::new(error.to_string()))
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
    /// [`StageFailure`], naming the preference and the characters.
    pub(crate) fn preference(
        &mut self,
        preference: &Preference,
        examples: &mut Vec<Example>,
    ) -> Result<(), StageFailure> {
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
    /// [`StageFailure`], naming the answer and the characters.
    pub(crate) fn unpaired(
        &mut self,
        answer: &Unpaired,
        examples: &mut Vec<Example>,
    ) -> Result<(), StageFailure> {
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
    fn answer(&self, id: &str, prompt: &[u32], text: &str) -> Result<Option<(Sequence, Fit)>, StageFailure> {
        // An empty answer is still one token long: it ends at once.
        let mut tokens = self.tokens(id, text.trim(), Part::Target)?;
        tokens.push(self.end);
        Ok(Sequence::new(prompt, &tokens, self.limit))
    }

    fn tokens(&self, id: &str, text: &str, part: Part) -> Result<Vec<u32>, StageFailure> {
        let tokens = match part {
            Part::Prompt => self.tokenizer.encode_prompt(text),
            Part::Target => self.tokenizer.encode_target(text),
        };
        tokens.map_err(|error| {
            StageFailure::caused(format!("read row `{id}`"), error)
                .help("use a tokenizer that was trained on texts like these")
        })
    }

    fn sequence(&mut self, id: &str, prompt: &[u32], target: &str) -> Result<Option<Sequence>, StageFailure> {
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
    pub(crate) fn add_notes(&self, rows: &str, context: &mut Context) {
        let Counts { long_prompts, empty_targets, cut_targets, other_directions } = self.counts;
        let (length, too_many) = (self.limit.tokens(), self.limit.too_many());
        let notes = [
            (long_prompts, format!("have prompts of {too_many}, and were left out")),
            (empty_targets, "have empty targets, and were left out".to_owned()),
            (cut_targets, format!("have outputs that end beyond {length} tokens, and were cut there")),
            (other_directions, "are for directions without a prompt, and were left out".to_owned()),
        ];
        for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
            context.note(format!("{count} {rows} {what}"));
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Prompt,
    Target,
}
