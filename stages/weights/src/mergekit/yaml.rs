//! Reads YAML as JSON, with limits on size and depth.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

/// The largest recipe, also with all aliases expanded: a few lines of nested aliases could expand to
/// more than any memory.
const MAX_BYTES: usize = 1 << 18;

/// The deepest nesting of a recipe.
const MAX_DEPTH: usize = 64;

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("a recipe has at most {MAX_BYTES} bytes, but this one has {}", text.len()));
    }
    check_size(text)?;
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("this is not YAML: {error}"))?;
    match documents.as_slice() {
        [document] => json_of(document),
        _ => Err(format!("a recipe must be one document, but there are {}", documents.len())),
    }
}

/// Checks the size and the depth of a recipe with all aliases expanded, without expanding them.
fn check_size(text: &str) -> Result<(), String> {
    let mut parser = Parser::new_from_str(text);
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    // Of the parts that have begun, the names, as numbers, and the sizes so far; the whole is first.
    let mut begun: Vec<(usize, usize)> = vec![(0, 0)];
    loop {
        let (event, _) = parser.next_token().map_err(|error| format!("this is not YAML: {error}"))?;
        let mut ended = match event {
            Event::StreamEnd => return Ok(()),
            Event::SequenceStart(name, _) | Event::MappingStart(name, _) => {
                begun.push((name, 1));
                if begun.len() > MAX_DEPTH {
                    return Err(format!("a recipe is nested at most {MAX_DEPTH} deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => begun.pop().expect("what ends has begun"),
            Event::Scalar(text, _, name, _) => (name, 1 + text.len()),
            // One that is part of itself is an error of the loader.
            Event::Alias(name) => (0, sizes.get(&name).copied().unwrap_or(1)),
            _ => continue,
        };
        let (name, size) = &mut ended;
        let whole = &mut begun.last_mut().expect("the whole never ends").1;
        *whole = whole.saturating_add(*size);
        if *whole > MAX_BYTES {
            return Err(format!("a recipe with every alias in full has at most {MAX_BYTES} bytes"));
        }
        if *name > 0 {
            sizes.insert(*name, *size);
        }
    }
}

fn json_of(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Real(_) => json!(yaml.as_f64().ok_or("a number cannot be read")?),
        Yaml::Integer(number) => json!(number),
        Yaml::String(text) => json!(text),
        Yaml::Boolean(truth) => json!(truth),
        Yaml::Array(items) => Value::Array(items.iter().map(json_of).collect::<Result<_, _>>()?),
        Yaml::Hash(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = key.as_str().ok_or_else(|| "a key is not a text".to_owned())?;
                Ok((key.to_owned(), json_of(value)?))
            });
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => return Err("a value cannot be read".to_owned()),
    })
}
