//! `kind = "compose"`: makes captions from property lists with templates, deterministically.
//!
//! The caption of a row depends on its id, its properties, the templates and the seed, and on
//! no other row.

use std::fs;

use corpus::compose::{ComposeError, Templates};
use engine::{Context, InputFile, Isolation, NoTuning, Ports, Stage, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::ROWS;
use crate::support::rows::{RowWriter, read_rows};

/// How to make captions.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The sentence templates.
    templates: InputFile,
    /// The field that holds the list of properties.
    #[serde(default = "properties")]
    properties: String,
    /// The field that receives the caption.
    #[serde(default = "caption")]
    caption: String,
}

fn properties() -> String {
    "properties".to_owned()
}

fn caption() -> String {
    "caption".to_owned()
}

/// Makes captions.
pub(crate) struct Compose;

impl Stage for Compose {
    const KIND: &'static str = "compose";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const ISOLATION: Isolation = Isolation::Subprocess;
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(_: &Params) -> Ports {
        Ports::new().input("rows", ROWS).output("rows", ROWS)
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let path = params.templates.path();
        let origin = params.templates.origin();
        let text = fs::read_to_string(path).map_err(StageFailure::reading(origin))?;
        let templates = Templates::parse(&text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let at = line.map_or_else(String::new, |line| format!(":{line}"));
            StageFailure::caused(format!("read templates {}{at}", origin.display()), error)
        })?;
        let seed = context.seed()?;
        let mut writer = RowWriter::create(&context.output("rows")?)?;
        let (mut made, mut without) = (0u64, 0u64);
        for row in read_rows(context.input("rows")?)? {
            let row = row?;
            let Some(properties) = row.list(&params.properties) else {
                let fields: Vec<_> = row.names().map(|name| format!("`{name}`")).collect();
                let message = format!(
                    "row `{}` has no list `{}`; it has {}",
                    row.id(),
                    params.properties,
                    fields.join(", ")
                );
                return Err(StageFailure::new(message)
                    .help("let `source` split the field: `split = { properties = \"|\" }`"));
            };
            match templates.compose(&properties, seed, row.id()) {
                Ok(text) => {
                    let row = row.with(&params.caption, text.into());
                    writer.write(&row.map_err(|error| StageFailure::caused("add the caption", error))?)?;
                    made += 1;
                }
                Err(ComposeError::NoProperties) => without += 1,
                Err(error) => {
                    return Err(StageFailure::caused(
                        format!("compose the caption of row `{}`", row.id()),
                        error,
                    ));
                }
            }
            if made % 4096 == 0 {
                context.progress(made, 0, "rows");
            }
        }
        writer.finish()?;
        context.log(format_args!("{made} captions"));
        if without > 0 {
            context.note(format!("{without} rows skipped: no properties to make a caption of"));
        }
        if made == 0 {
            return Err(StageFailure::new("no row has properties to make a caption of"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageRun, StageTest, ports};
    use serde_json::json;

    use super::*;

    const TEMPLATES: &str = "format = 2\nmax_properties = 3\nrest = 'role'\n\
                             sentences = ['It is {role:plain}.', 'This is {role:plain}.']\n\
                             [[class]]\nname = 'role'\n[lists.plain]\n";

    fn composed(rows: &str, seed: u64) -> Result<StageRun, StageFailure> {
        StageTest::<Compose>::new("templates = 'templates.toml'\ncaption = 'text'")
            .file("templates.toml", TEMPLATES)
            .input("rows", &[("rows.jsonl", rows)])
            .seed(seed)
            .run()
    }

    #[test]
    fn a_caption_depends_on_its_row_and_the_seed_alone() {
        let [one, other] = [r#"{"id":"a","properties":["sweet"]}"#, r#"{"id":"b","properties":["sour"]}"#];
        let both = composed(&format!("{one}\n{other}\n"), 1).unwrap().json_lines("rows", "rows.jsonl");
        assert_eq!(both[0]["properties"], json!(["sweet"]));
        assert!(both[0]["text"].as_str().unwrap().contains("sweet"), "{both:?}");
        let alone = composed(&format!("{other}\n"), 1).unwrap().json_lines("rows", "rows.jsonl");
        assert_eq!(both[1], alone[0]);
        let texts = |seed| composed(one, seed).unwrap().text("rows", "rows.jsonl");
        assert!((2..20).any(|seed| texts(seed) != texts(1)));
    }

    #[test]
    fn rows_without_properties_are_counted_and_rows_without_a_list_fail() {
        let rows = "{\"id\":\"a\",\"properties\":[]}\n{\"id\":\"b\",\"properties\":[\"sour\"]}\n";
        let run = composed(rows, 0).unwrap();
        assert_eq!(run.json_lines("rows", "rows.jsonl").len(), 1);
        assert_eq!(run.notes(), ["1 rows skipped: no properties to make a caption of"]);
        let failure = composed(r#"{"id":"a","properties":"sour"}"#, 0).unwrap_err();
        assert_eq!(failure.message, "row `a` has no list `properties`; it has `id`, `properties`");
        assert!(failure.help.unwrap().contains("split"));
        let failure = composed(r#"{"id":"a","properties":[]}"#, 0).unwrap_err();
        assert_eq!(failure.message, "no row has properties to make a caption of");
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let missing = ports::<Compose>("").unwrap_err();
        assert_eq!((missing.path.as_str(), missing.message.as_str()), ("", "missing field `templates`"));
        assert_eq!(ports::<Compose>("templates = 3").unwrap_err().path, "templates");
        let expected = Ports::new().input("rows", ROWS).output("rows", ROWS);
        assert_eq!(ports::<Compose>("templates = 'a.toml'"), Ok(expected));
    }
}
