//! Whether numbers may be compared with the published ones: conditions on fields of stages.

use std::path::Path;

use cache::Value;

use crate::experiment::reference::Reference;
use crate::experiment::spec::unknown_stage;
use crate::experiment::table_spec::{ConditionSpec, TableSpec};
use crate::kind::input_file::absolute;
use crate::plan::lookup::Lookup;
use crate::plan::node::Node;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::SourceMap;
use crate::toml::value::{Content, Value as TomlValue};

/// Where the paths in conditions start from.
#[derive(Clone, Copy)]
pub(crate) struct Paths<'a> {
    pub sources: &'a SourceMap,
    pub data: Option<&'a Path>,
}

/// Says whether the numbers of a table may be compared with the published ones, in lines below it.
pub(crate) fn comparability(
    spec: &TableSpec,
    lookup: Lookup<'_>,
    paths: Paths<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<String> {
    let mut failed = Vec::new();
    for condition in &spec.comparable {
        match check(condition, lookup, paths) {
            Ok(None) => {}
            Ok(Some(why)) => {
                let says = condition.says.as_ref().unwrap_or(&condition.name);
                failed.push(format!("- {says} ({why})"));
            }
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if spec.published.is_none() {
        return Vec::new();
    }
    if !failed.is_empty() {
        let heading = "Not comparable with the published numbers. These conditions do not hold:".to_owned();
        return std::iter::once(heading).chain(failed).collect();
    }
    let names: Vec<&str> = spec.comparable.iter().map(|condition| condition.name.as_str()).collect();
    vec![if names.is_empty() {
        "Nothing says whether these numbers are comparable with the published ones.".to_owned()
    } else {
        format!("Comparable with the published numbers: {}.", names.join(", "))
    }]
}

/// Returns why a condition does not hold, if it does not.
fn check(
    condition: &ConditionSpec,
    lookup: Lookup<'_>,
    paths: Paths<'_>,
) -> Result<Option<String>, Diagnostic> {
    let reference = Reference::parse_at(&condition.stage.text, condition.stage.span.clone())?;
    let Some(stage) = lookup.stage_named(&reference.stage) else {
        return Err(unknown_stage(&reference.stage, condition.stage.span.clone(), lookup.stages));
    };
    let nodes = lookup
        .select(stage, &reference)
        .map_err(|(message, help)| Diagnostic::new(condition.stage.span.clone(), message).maybe_help(help))?;
    let of_nodes: Vec<(usize, Option<Mismatch>)> =
        nodes.into_iter().map(|node| (node, mismatch(&lookup.nodes[node], &condition.is, paths))).collect();
    let Some((node, Some(first))) = of_nodes.iter().find(|(_, mismatch)| mismatch.is_some()) else {
        return Ok(None);
    };
    // Where all variants differ in the same way, none of them need be named.
    let are_equal = of_nodes.iter().all(|(_, mismatch)| mismatch.as_ref() == Some(first));
    let name = if are_equal { &condition.stage.text } else { lookup.nodes[*node].label() };
    let Mismatch { field, actual, expected } = first;
    Ok(Some(match actual {
        Some(actual) => format!("`{field}` of `{name}` is {actual}, not {expected}"),
        None => format!("`{name}` has no `{field}`"),
    }))
}

/// A field of a node that is not as a condition wants it.
#[derive(Debug, PartialEq)]
struct Mismatch {
    field: String,
    actual: Option<String>,
    expected: String,
}

/// Returns the first field of a node that is not as it should be.
fn mismatch(node: &Node, is: &TomlValue, paths: Paths<'_>) -> Option<Mismatch> {
    for (name, entry) in is.as_table().into_iter().flatten() {
        let place: Vec<&str> = name.split('.').collect();
        let kind = Value::Text(node.kind().name().to_owned());
        let seed = node.seed.map(|seed| Value::Integer(seed.into()));
        let actual = match place.as_slice() {
            ["kind"] => Some(&kind),
            ["seed"] => seed.as_ref(),
            _ => place.iter().try_fold(&node.params, |value, name| match value {
                Value::Map(fields) => fields.get(*name),
                _ => None,
            }),
        };
        if let Some((below, actual)) = difference(&entry.value, actual, paths) {
            let field = [vec![name.clone()], below].concat().join(".");
            let expected = written(&entry.value, &field, name);
            return Some(Mismatch { field, actual, expected });
        }
    }
    None
}

/// Returns the path below a field at which two values differ, and the value that is there.
fn difference(
    expected: &TomlValue,
    actual: Option<&Value>,
    paths: Paths<'_>,
) -> Option<(Vec<String>, Option<String>)> {
    let Some(actual) = actual else { return Some((Vec::new(), None)) };
    let is_same = match (&expected.content, actual) {
        (Content::Table(expected), Value::Map(fields)) => {
            for (name, entry) in expected {
                if let Some((below, actual)) = difference(&entry.value, fields.get(name), paths) {
                    return Some(([vec![name.clone()], below].concat(), actual));
                }
            }
            true
        }
        // A choice without parameters.
        (Content::Table(expected), Value::Text(text)) => expected.len() == 1 && expected.contains_key(text),
        (Content::Text(text), Value::Text(actual)) => text == actual,
        (Content::Text(text), Value::Path(actual) | Value::NamedPath(actual)) => {
            // A path that cannot be found, for want of `${data}`, is no other file's.
            let path = absolute(text, paths.sources.folder(&expected.span), paths.data);
            path.is_ok_and(|path| path == Path::new(actual))
        }
        (Content::Integer(integer), Value::Integer(actual)) => i128::from(*integer) == *actual,
        (Content::Integer(integer), Value::Float(actual)) => *integer as f64 == *actual,
        (Content::Float(float), Value::Float(actual)) => float == actual,
        (Content::Bool(truth), Value::Bool(actual)) => truth == actual,
        (Content::List(items), Value::List(actual)) => {
            let mut is_same = items.len() == actual.len();
            for (item, actual) in items.iter().zip(actual) {
                is_same &= difference(item, Some(actual), paths).is_none();
            }
            is_same
        }
        _ => false,
    };
    (!is_same).then(|| (Vec::new(), Some(describe(actual))))
}

fn describe(value: &Value) -> String {
    match value {
        // Where a file lies is nobody's business below a table.
        Value::Path(path) | Value::NamedPath(path) => {
            let name = Path::new(path).file_name().unwrap_or_default();
            format!("\"{}\"", name.to_string_lossy())
        }
        value => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// Returns what a condition wants of a field, as it is written.
fn written(value: &TomlValue, field: &str, name: &str) -> String {
    let below = field.strip_prefix(name).unwrap_or_default().trim_start_matches('.');
    let place: Vec<String> = below.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    toml(value.at(&place).unwrap_or(value))
}

fn toml(value: &TomlValue) -> String {
    match &value.content {
        Content::List(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Content::Table(fields) => {
            let fields = fields.iter().map(|(name, entry)| format!("{name} = {}", toml(&entry.value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Content::Text(text) => format!("\"{text}\""),
        _ => value.scalar_text().unwrap_or_default(),
    }
}
