//! Axes: named variants of a stage, each an overlay on its table.

use std::collections::BTreeSet;

use crate::experiment::combinations::{Combination, read_combination, read_combinations};
use crate::experiment::layers::Overlay;
use crate::kind::name::is_name;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// One way to be of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub name: String,
    pub overlay: TomlTable,
}

/// Named variants that multiply a stage and everything below it.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub name: String,
    /// The field that the variants are values of, and where it is written. None if each variant is a
    /// table.
    pub field: Option<(Vec<String>, Span)>,
    /// The combinations of other axes for which it exists. None if it always does.
    pub only: Option<Vec<Combination>>,
    pub variants: Vec<Variant>,
}

impl Axis {
    /// Returns whether the variants are values of one field.
    pub(crate) fn is_scalar(&self) -> bool {
        self.field.is_some()
    }

    /// Returns how its variants overlay the stage.
    pub(crate) fn overlay(&self) -> Overlay {
        if self.is_scalar() { Overlay::Leaf } else { Overlay::Whole }
    }

    /// Finds a variant by its name; `1e-5` also finds `0.00001`.
    pub(crate) fn position(&self, wanted: &str) -> Option<usize> {
        let number = wanted.parse::<f64>().ok().filter(|_| self.is_scalar());
        let is_same = |name: &str| name == wanted || number.is_some_and(|number| name.parse() == Ok(number));
        self.variants.iter().position(|variant| is_same(&variant.name))
    }
}

/// An axis by what declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AxisId {
    /// A stage, and the position of the axis among those of the stage.
    Stage(usize, usize),
    /// The experiment, or a namespace in it: all its seeds. The position among all such axes.
    Seeds(usize),
}

/// Which variant each axis has, in the order in which the axes joined.
pub(crate) type Assignment = Vec<(AxisId, usize)>;

/// Reads the axes of one stage.
pub(crate) fn read_axes(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<Axis> {
    let Some(table) = value.as_table() else {
        diagnostics.push(
            Diagnostic::new(
                value.span.clone(),
                format!("`axes` is a table of axes, not {}", value.describe()),
            )
            .help("write `[stages.NAME.axes.AXIS]` with one line per variant"),
        );
        return Vec::new();
    };
    table.iter().filter_map(|(name, entry)| read_axis(name, entry, diagnostics)).collect()
}

fn read_axis(name: &str, entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> Option<Axis> {
    let mut fail = |span: Span, message: String, help: &str| {
        diagnostics.push(Diagnostic::new(span, message).help(help));
        None
    };
    if !is_name(name) {
        return fail(
            entry.key.clone(),
            format!("`{name}` cannot name an axis"),
            "use letters, digits, `_` and `-`",
        );
    }
    let Some(table) = entry.value.as_table() else {
        let message = format!("axis `{name}` is a table of variants, not {}", entry.value.describe());
        return fail(
            entry.value.span.clone(),
            message,
            "write `variant.field = value`, or `field` and `values`",
        );
    };
    if let Some(field) = table.get("field").and_then(|entry| entry.value.as_text()) {
        return read_scalar_axis(name, field, table, entry, diagnostics);
    }
    let mut variants = Vec::new();
    for (variant, below) in table.iter().filter(|(variant, _)| *variant != "only") {
        if !is_name(variant) {
            fail(
                below.key.clone(),
                format!("`{variant}` cannot name a variant"),
                "use letters, digits, `_` and `-`",
            );
            continue;
        }
        match below.value.as_table() {
            Some(overlay) if !overlay.contains_key("kind") && !overlay.contains_key("axes") => {
                variants.push(Variant { name: variant.clone(), overlay: overlay.clone() });
            }
            Some(_) => {
                let message = format!("variant `{variant}` changes `kind` or `axes`");
                fail(
                    below.key.clone(),
                    message,
                    "a variant changes parameters and inputs; use another stage for this",
                );
            }
            None => {
                let message =
                    format!("variant `{variant}` is {}, not a table of fields", below.value.describe());
                fail(below.value.span.clone(), message, "write `variant.field = value`, or `variant = {}`");
            }
        }
    }
    if table.keys().all(|variant| variant == "only") {
        return fail(
            entry.key.clone(),
            format!("axis `{name}` has no variants"),
            "give at least one, or remove it",
        );
    }
    let only = read_condition(table, diagnostics);
    Some(Axis { name: name.to_owned(), field: None, only, variants })
}

/// Reads for which combinations of other axes an axis exists.
fn read_condition(table: &TomlTable, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<Combination>> {
    let value = &table.get("only")?.value;
    let read = match value.as_table() {
        Some(_) => read_combination(value).map(|combination| vec![combination]),
        None => read_combinations(value),
    };
    read.map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
}

fn read_scalar_axis(
    name: &str,
    field: &str,
    table: &TomlTable,
    entry: &Entry,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Axis> {
    for (other, below) in table {
        if !["field", "values", "only"].contains(&other.as_str()) {
            diagnostics.push(
                Diagnostic::new(below.key.clone(), format!("unknown field `{other}` in axis `{name}`"))
                    .help("a scalar axis has `field` and `values`, and maybe `only`"),
            );
        }
    }
    let values = table.get("values").and_then(|entry| entry.value.as_list());
    let Some(values) = values.filter(|values| !values.is_empty()) else {
        diagnostics.push(
            Diagnostic::new(
                entry.key.clone(),
                format!("axis `{name}` needs `values`, a list of at least one"),
            )
            .help("such as `{ field = \"seed\", values = [1, 2, 3] }`"),
        );
        return None;
    };
    let key = table.get("field").map_or_else(|| entry.key.clone(), |entry| entry.value.span.clone());
    let mut variants: Vec<Variant> = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for value in values {
        let text = value.scalar_text();
        match text {
            Some(text) if !is_label(&text) => {
                diagnostics.push(
                    Diagnostic::new(value.span.clone(), format!("`{text}` cannot be the name of a variant"))
                        .help("use named variants: `name.field = value`"),
                );
            }
            Some(text) if names.insert(text.clone()) => {
                variants.push(Variant { name: text, overlay: nested(field, &key, value.clone()) });
            }
            Some(text) => {
                diagnostics
                    .push(Diagnostic::new(value.span.clone(), format!("axis `{name}` lists `{text}` twice")));
            }
            None => {
                diagnostics.push(
                    Diagnostic::new(
                        value.span.clone(),
                        format!("{} has no short name for a label", value.describe()),
                    )
                    .help("use named variants: `name.field = value`"),
                );
            }
        }
    }
    let only = read_condition(table, diagnostics);
    Some(Axis { name: name.to_owned(), field: Some((parts(field).collect(), key)), only, variants })
}

/// Returns whether a value can stand in `stage[axis=value]`, and name a folder.
fn is_label(text: &str) -> bool {
    !["", "*", ".", ".."].contains(&text)
        && !text.contains(|c: char| c.is_control() || ",=[]\\".contains(c))
        && text == text.trim()
}

/// Makes the table that holds `value` at a dotted path.
pub(crate) fn nested(path: &str, key: &Span, value: Value) -> TomlTable {
    let mut value = value;
    let mut names = parts(path).rev().peekable();
    loop {
        let name = names.next().expect("a split has at least one part");
        let span = value.span.clone();
        let table = TomlTable::from([(name, Entry { key: key.clone(), value })]);
        if names.peek().is_none() {
            return table;
        }
        value = Value { span, content: Content::Table(table) };
    }
}

/// Returns the names in a dotted path.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('.').map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    fn axes(text: &str) -> (Vec<Axis>, Vec<String>) {
        let (table, _) = parse(text, 0);
        let value = Value { span: 0..text.len(), content: Content::Table(table) };
        let mut diagnostics = Vec::new();
        let axes = read_axes(&value, &mut diagnostics);
        (axes, diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect())
    }

    #[test]
    fn named_and_scalar_axes_are_read() {
        let (axes_read, problems) =
            axes("merge = { ties.method.ties = {}, slerp = {} }\nseed = { field = 'a.b', values = [1, 2] }");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            axes_read[0].variants.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(),
            ["ties", "slerp"]
        );
        assert_eq!(axes_read[1].variants[1].name, "2");
        let place = ["a".to_owned(), "b".to_owned()];
        let value = Value { span: 0..0, content: Content::Table(axes_read[1].variants[1].overlay.clone()) };
        assert_eq!(value.at(&place).unwrap().content, Content::Integer(2));
    }

    #[test]
    fn broken_axes_are_reported() {
        for (text, count) in [
            ("a = 1", 1),
            ("a = {}", 1),
            ("a = { x = 1 }", 1),
            ("a = { field = 'f', values = [] }", 1),
            ("a = { field = 'f', values = [1, 1] }", 1),
            ("a.x.kind = 'k'", 1),
            ("a = { field = 'f', values = ['..', 'a]', ' b', 'c d/e.txt'] }", 3),
        ] {
            assert_eq!(axes(text).1.len(), count, "{text}: {:?}", axes(text).1);
        }
    }
}
