//! The layers of one stage: which of them count, and what they say together.

use crate::experiment::axes::{Axis, Variant};
use crate::experiment::layers::{Choices, Layer, hides, overlay_stage};
use crate::kind::stage::Kind;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// What one layer says of a stage.
pub(crate) struct StageLayer<'a> {
    pub layer: &'a Layer,
    /// Where the stage's name is written.
    pub key: Span,
    pub table: TomlTable,
    pub span: Span,
}

/// Returns the kind that the layers of a stage declare, and the layers that count: one with
/// `replace = true` drops those before it.
///
/// # Errors
/// What is wrong with `kind` or `replace`.
pub(crate) fn declared<'a>(
    name: &str,
    layers: Vec<StageLayer<'a>>,
    kinds: &[Kind],
    sources: &SourceMap,
) -> Result<(Value, Vec<StageLayer<'a>>), Diagnostic> {
    let mut kind: Option<Entry> = None;
    let mut counted: Vec<StageLayer<'a>> = Vec::new();
    // The first that changes the stage before any has declared it.
    let mut early: Option<Span> = None;
    for mut layer in layers {
        let own = layer.table.shift_remove("kind");
        let replace = layer.table.shift_remove("replace");
        let is_replacing = match replace.as_ref().map(|entry| &entry.value) {
            None => false,
            Some(Value { content: Content::Bool(truth), .. }) => *truth,
            Some(value) => {
                let message = format!("`replace` is `true` or `false`, not {}", value.describe());
                return Err(Diagnostic::new(value.span.clone(), message));
            }
        };
        match (&kind, own, replace.filter(|_| is_replacing)) {
            (None, _, Some(replace)) => {
                let message = format!("stage `{name}` replaces nothing: there is none of this name yet");
                return Err(Diagnostic::new(replace.key, message)
                    .label("nothing to replace")
                    .help("take `replace` out, or include the file that has the stage"));
            }
            (Some(_), None, Some(replace)) => {
                let message = format!("stage `{name}` is replaced without a `kind`");
                return Err(Diagnostic::new(replace.key, message)
                    .label("needs a `kind`")
                    .help("`replace = true` drops all that was said of the stage, its `kind` too"));
            }
            (Some(before), Some(own), None) => {
                let message =
                    format!("stage `{name}` is declared already, in {}", sources.line(&before.value.span));
                return Err(Diagnostic::new(own.key, message).label("declares it again").help(
                    "take `kind` out to change that stage, say `replace = true` to replace it, or use \
                     another name",
                ));
            }
            (Some(_), Some(own), Some(_)) => {
                kind = Some(own);
                counted.clear();
            }
            (None, Some(own), None) => kind = Some(own),
            (Some(_), None, None) => {}
            (None, None, None) => early = early.or(Some(layer.key.clone())),
        }
        counted.push(layer);
    }
    let Some(kind) = kind else {
        let all: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
        let message = format!("stage `{name}` has no `kind`");
        return Err(Diagnostic::new(counted[0].key.clone(), message)
            .label("needs a `kind`")
            .help(format!("kinds: {}", all.join(", "))));
    };
    if let Some(early) = early {
        let message = format!("stage `{name}` is changed before it is declared");
        let declared = sources.line(&kind.value.span);
        return Err(Diagnostic::new(early, message).label("not there yet").help(format!(
            "it is declared in {declared}, which overrides this: include that file first, or change the \
             stage after it"
        )));
    }
    Ok((kind.value, counted))
}

/// Merges what the layers of a stage say, above the defaults of its kind.
pub(crate) fn merged(
    name: &str,
    kind: &Kind,
    layers: &mut [StageLayer<'_>],
    defaults: Option<&TomlTable>,
    choices: &Choices,
    diagnostics: &mut Vec<Diagnostic>,
) -> TomlTable {
    let mut table = defaults.cloned().unwrap_or_default();
    let is_alone = layers.len() == 1 && defaults.is_none();
    for layer in layers {
        if let Some(entry) = layer.table.shift_remove("remove") {
            remove(&mut table, &entry.value, &format!("stage `{name}`"), diagnostics);
        }
        if is_alone {
            // Moved, for most stages of a large experiment have one layer.
            table = std::mem::take(&mut layer.table);
        } else {
            overlay_stage(&mut table, &layer.table, kind, choices, layer.layer.overlay());
        }
    }
    table
}

/// Takes the fields of a list off a table. `of` says whose they are.
pub(crate) fn remove(table: &mut TomlTable, list: &Value, of: &str, diagnostics: &mut Vec<Diagnostic>) {
    let Some(items) = list.as_list() else {
        let message = format!("`remove` is a list of fields, not {}", list.describe());
        let help = "write `remove = [\"FIELD\", \"inputs.PORT\"]`";
        return diagnostics.push(Diagnostic::new(list.span.clone(), message).help(help));
    };
    for item in items {
        let Some(path) = item.as_text() else {
            let message = format!("`remove` names fields, not {}", item.describe());
            diagnostics.push(Diagnostic::new(item.span.clone(), message));
            continue;
        };
        if !remove_path(table, path) {
            let mut paths = Vec::new();
            list_paths(table, "", &mut paths);
            let message = format!("{of} has no `{path}` to remove");
            let help = nearest_or_all(path, "it has", paths.iter().map(String::as_str));
            diagnostics.push(
                Diagnostic::new(item.span.clone(), message)
                    .label("nothing to remove")
                    .help("no file below this one says anything of it")
                    .maybe_help(help),
            );
        }
    }
}

/// Removes a field by its dotted path, and the tables that it leaves empty. Returns whether it was
/// there.
fn remove_path(table: &mut TomlTable, path: &str) -> bool {
    if table.shift_remove(path).is_some() {
        return true;
    }
    for (at, _) in path.match_indices('.') {
        let (name, rest) = (&path[..at], &path[at + 1..]);
        let Some(Content::Table(below)) = table.get_mut(name).map(|entry| &mut entry.value.content) else {
            continue;
        };
        if remove_path(below, rest) {
            if below.is_empty() {
                table.shift_remove(name);
            }
            return true;
        }
    }
    false
}

fn list_paths(table: &TomlTable, above: &str, paths: &mut Vec<String>) {
    for (name, entry) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if let Some(below) = entry.value.as_table() {
            list_paths(below, &path, paths);
        }
        paths.push(path);
    }
}

/// Reports a value of a layer that would do nothing, since a variant that a layer below it writes sets
/// the same again. What lies below the layer of the axis is overridden as anything else is.
pub(crate) fn without_effect(
    stage: &str,
    layers: &[StageLayer<'_>],
    axes: &[Axis],
    choices: &Choices,
    sources: &SourceMap,
) -> Option<Diagnostic> {
    for (position, layer) in layers.iter().enumerate().skip(1) {
        for (field, entry) in layer.table.iter().filter(|(field, _)| *field != "axes") {
            for axis in axes {
                let sets = |variant: &&Variant| {
                    let set = variant.overlay.get(field).map(|entry| &entry.value);
                    set.is_some_and(|set| {
                        hides(set, &entry.value, axis.overlay(), choices, std::slice::from_ref(field))
                    })
                };
                let is_below = |variant: &&Variant| {
                    let writer = layers.iter().rposition(|layer| writes(&layer.table, axis, variant, field));
                    writer.is_none_or(|writer| writer < position)
                };
                let Some(variant) = axis.variants.iter().filter(sets).find(is_below) else { continue };
                let place = sources.line(&variant.overlay[field].key);
                let message =
                    format!("`{field}` of stage `{stage}` is set by its axis `{}`, in {place}", axis.name);
                let help = if axis.is_scalar() {
                    format!("override `stages.{stage}.axes.{}.values` instead", axis.name)
                } else {
                    format!("override `stages.{stage}.axes.{}.{}.{field}` instead", axis.name, variant.name)
                };
                let diagnostic = Diagnostic::new(entry.key.clone(), message);
                return Some(diagnostic.label("would have no effect").help(help));
            }
        }
    }
    None
}

/// Returns whether a layer of a stage writes a field of a variant.
fn writes(table: &TomlTable, axis: &Axis, variant: &Variant, field: &str) -> bool {
    let place = ["axes".to_owned(), axis.name.clone(), variant.name.clone()];
    let names = if axis.is_scalar() { &place[..2] } else { &place };
    let mut table = Some(table);
    for name in names {
        table = table.and_then(|table| table.get(name)?.value.as_table());
    }
    table.is_some_and(|table| axis.is_scalar() || table.contains_key(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    fn removed(text: &str, path: &str) -> (bool, Vec<String>) {
        let (mut table, _) = parse(text, 0);
        let is_removed = remove_path(&mut table, path);
        let mut paths = Vec::new();
        list_paths(&table, "", &mut paths);
        (is_removed, paths)
    }

    #[test]
    fn a_field_is_removed_with_the_tables_that_it_leaves_empty() {
        let text = "rate = 1\ninputs.model = 'm'\naxes.objective = { kto = {}, cpo = {} }";
        let all = [
            "rate",
            "inputs.model",
            "inputs",
            "axes.objective.kto",
            "axes.objective.cpo",
            "axes.objective",
            "axes",
        ];
        assert_eq!(removed(text, "learning_rate"), (false, all.map(str::to_owned).to_vec()));
        let without = |paths: &[&str]| -> Vec<String> {
            all.iter().filter(|path| !paths.contains(path)).map(ToString::to_string).collect()
        };
        assert_eq!(removed(text, "inputs.model"), (true, without(&["inputs.model", "inputs"])));
        assert_eq!(removed(text, "axes.objective.kto"), (true, without(&["axes.objective.kto"])));
        assert_eq!(removed(text, "rate"), (true, without(&["rate"])));
    }
}
