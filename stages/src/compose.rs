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
pub struct Params {
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
pub struct Compose;

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
