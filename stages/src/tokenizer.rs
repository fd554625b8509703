//! `kind = "tokenizer"`: trains a tokenizer on rows, for models made from scratch.

use engine::{
    Component, Context, Estimate, EstimateContext, FieldError, Isolation, NoTuning, Pick, Ports, Stage,
    StageFailure,
};
use learn::TokenizerModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{ROWS, TOKENIZER};
use crate::support::memory::tokenizer_hint;
use crate::support::prompts::{BY_DIRECTIONS, Prompts};
use crate::support::rows::read_rows;

/// What to learn from.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// How tokens are found.
    model: TokenizerModel,
    /// The fields whose texts are learnt from.
    #[serde(default = "molecule_and_caption")]
    fields: Vec<String>,
    /// Prompts whose words are learnt as well, as often as there are rows.
    #[serde(default)]
    prompts: Prompts,
}

fn molecule_and_caption() -> Vec<String> {
    vec!["molecule".to_owned(), "caption".to_owned()]
}

/// Trains a tokenizer.
pub(crate) struct Tokenizer;

impl Stage for Tokenizer {
    const KIND: &'static str = "tokenizer";
    /// 2: `vocab_size` has this name.
    const VERSION: u32 = 2;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const ESTIMATES: bool = true;
    const RENAMED: &'static [(&'static str, &'static str)] =
        &[("model.bpe.vocabulary_size", "model.bpe.vocab_size")];
    const PICKS: &'static [Pick] = &[BY_DIRECTIONS];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(_: &Params) -> Ports {
        Ports::new().input("rows", ROWS).output("tokenizer", TOKENIZER)
    }

    fn components(params: &Params) -> Vec<Component> {
        vec![params.model.component()]
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        if params.fields.is_empty() {
            return Err(FieldError::new("fields", "`fields` is empty").help("name at least one"));
        }
        params.model.check().map_err(|error| params.model.error_in("model", error))
    }

    fn estimate(params: &Params, _: &NoTuning, _: &EstimateContext<'_>) -> Estimate {
        let hint = tokenizer_hint(params.model.most_tokens());
        Estimate { outputs: [("tokenizer".to_owned(), hint)].into(), ..Estimate::default() }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let prompts = params.prompts.read()?;
        let mut texts = Vec::new();
        for row in read_rows(context.input("rows")?)? {
            let row = row?;
            for field in &params.fields {
                let text = row.needed(field);
                let text =
                    text.map_err(|error| StageFailure::new(error.to_string()).help("name other `fields`"))?;
                texts.push(text.to_owned());
            }
            // Without an input: its words are among the fields.
            texts.extend(prompts.values().map(|prompt| prompt.render(" ")));
        }
        let trained =
            params.model.train(&texts).map_err(|error| StageFailure::caused("train the tokenizer", error))?;
        context.log(format_args!("{} tokens from {} texts", trained.vocabulary_size(), texts.len()));
        let folder = context.output("tokenizer")?;
        trained.save(&folder).map_err(|error| StageFailure::caused("write the tokenizer", error))
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};

    use super::*;
    use crate::support::testing::ROWS as TEXTS;

    #[test]
    fn a_tokenizer_is_trained_on_the_fields_and_the_prompts() {
        let params = "model.bpe.vocab_size = 270\nfields = ['caption']\nprompts.mol2cap = 'prompt.txt'";
        let run = StageTest::<Tokenizer>::new(params)
            .file("prompt.txt", "Molecule: {molecule}\nCaption: {caption}\n")
            .input("rows", &[("rows.jsonl", TEXTS)])
            .run()
            .unwrap();
        let vocabulary = run.json("tokenizer", "tokenizer.json")["model"]["vocab"].clone();
        let size = vocabulary.as_object().unwrap().len();
        assert!((259..=270).contains(&size), "{size}");
        assert!(run.log().contains(" tokens from "), "{}", run.log());
    }

    #[test]
    fn a_row_without_a_field_is_named() {
        let failure = StageTest::<Tokenizer>::new("model.bpe.vocab_size = 270\nfields = ['name']")
            .input("rows", &[("rows.jsonl", TEXTS)])
            .run()
            .unwrap_err();
        assert!(failure.message.starts_with("row `a` has no text `name`"), "{failure}");
        assert_eq!(failure.help.as_deref(), Some("name other `fields`"));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Tokenizer>(params).unwrap_err().path;
        assert_eq!(path("model.bpe.vocab_size = 100"), "model.bpe.vocab_size");
        assert_eq!(path("model.bpe.vocab_size = 300\nfields = []"), "fields");
        let expected = Ports::new().input("rows", ROWS).output("tokenizer", TOKENIZER);
        assert_eq!(ports::<Tokenizer>("model.bpe.vocab_size = 300"), Ok(expected));
    }
}
