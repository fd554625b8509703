//! The layers of one table: rows, columns, deltas and conditions merge by name, and `remove` takes
//! them off again.

use crate::experiment::layers::{Layer, Overlay, overlay};
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// What all layers together say of one table.
#[derive(Debug, Clone)]
pub(crate) struct LayeredTable {
    pub key: Span,
    pub value: Value,
    pub removed: Vec<Removed>,
    /// Whether a list of columns stands in a layer above the one with the published numbers, so that
    /// it leaves out on purpose what it does not name.
    pub narrows_published: bool,
    /// Whether a file of the experiment itself says something of it, and not only one that is included
    /// under a name.
    pub is_own: bool,
}

impl LayeredTable {
    /// Returns whether it says nothing but when its numbers are comparable.
    pub(crate) fn has_only_conditions(&self) -> bool {
        let fields = self.value.as_table();
        fields.is_some_and(|fields| !fields.is_empty() && fields.keys().all(|name| name == "comparable"))
    }
}

/// A part of a table whose entries have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Rows,
    Columns,
    Deltas,
    Comparable,
}

impl Part {
    /// Returns the part of a name, as `remove = ["rows.NAME"]` has it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Rows, Self::Columns, Self::Deltas, Self::Comparable]
            .into_iter()
            .find(|part| part.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Columns => "columns",
            Self::Deltas => "deltas",
            Self::Comparable => "comparable",
        }
    }

    /// Returns what one entry is, for messages.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Self::Rows => "row",
            Self::Columns => "column",
            Self::Deltas => "delta",
            Self::Comparable => "condition",
        }
    }
}

/// Something that a layer takes off the table.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub part: Part,
    pub name: String,
    pub span: Span,
    /// What lower layers say of it.
    pub entry: Option<Entry>,
    /// Whether no layer names it: it must be something that the table has by itself, such as a row
    /// that a template makes.
    pub is_pending: bool,
}

/// The layers of one table, from the lowest upwards.
#[derive(Debug, Default)]
pub(crate) struct TableLayers {
    place: Option<(Span, Span)>,
    fields: TomlTable,
    removed: Vec<Removed>,
    narrows_published: bool,
    is_own: bool,
}

impl TableLayers {
    /// Adds what the next layer says.
    pub(crate) fn add(&mut self, layer: &Layer, table: &Entry, diagnostics: &mut Vec<Diagnostic>) {
        self.is_own |= layer.namespace.is_empty();
        self.overlay(table, layer.overlay(), diagnostics);
    }

    fn overlay(&mut self, table: &Entry, how: Overlay, diagnostics: &mut Vec<Diagnostic>) {
        let Some(fields) = table.value.as_table() else {
            let message = format!("a table of results is a table, not {}", table.value.describe());
            diagnostics.push(Diagnostic::new(table.value.span.clone(), message));
            return;
        };
        // Errors about the table as a whole belong where it was last touched.
        self.place = Some((table.key.clone(), table.value.span.clone()));
        let has_published = self.fields.contains_key("published");
        if let Some(entry) = fields.get("remove") {
            self.remove(&entry.value, diagnostics);
        }
        for (name, entry) in fields {
            match (name.as_str(), &entry.value.content) {
                ("remove", _) => {}
                ("row" | "delta", _) => diagnostics.push(old_list(name, entry)),
                ("rows", Content::List(axes)) => diagnostics.push(old_rows(axes, entry, fields)),
                ("columns", _) => self.add_columns(entry, how, has_published),
                ("published", _) => self.add_published(entry, how),
                _ => overlay(&mut self.fields, &TomlTable::from([(name.clone(), entry.clone())]), &[], how),
            }
            if let (Some(part), Some(below)) = (Part::named(name), entry.value.as_table()) {
                self.removed.retain(|removed| removed.part != part || !below.contains_key(&removed.name));
            }
        }
    }

    /// Returns the table; none if no layer has one.
    pub(crate) fn finish(self) -> Option<LayeredTable> {
        let (key, span) = self.place?;
        Some(LayeredTable {
            key,
            value: Value { span, content: Content::Table(self.fields) },
            removed: self.removed,
            narrows_published: self.narrows_published,
            is_own: self.is_own,
        })
    }

    /// A list of columns replaces all columns below it; columns by name change or add to them.
    fn add_columns(&mut self, over: &Entry, how: Overlay, has_published: bool) {
        let below = self.fields.get_mut("columns").map(|entry| &mut entry.value);
        match (below, &over.value.content) {
            (below, Content::List(items)) => {
                let kept: Vec<&str> = items.iter().filter_map(column_name).collect();
                let names: Vec<String> = match below.map(|value| &value.content) {
                    Some(Content::List(items)) => {
                        items.iter().filter_map(column_name).map(str::to_owned).collect()
                    }
                    Some(Content::Table(table)) => table.keys().cloned().collect(),
                    _ => Vec::new(),
                };
                self.removed.retain(|removed| {
                    removed.part != Part::Columns || !kept.contains(&removed.name.as_str())
                });
                for removed in self.removed.iter_mut().filter(|removed| removed.part == Part::Columns) {
                    removed.is_pending = false;
                }
                for name in names.into_iter().filter(|name| !kept.contains(&name.as_str())) {
                    self.removed.push(Removed {
                        part: Part::Columns,
                        name,
                        span: over.key.clone(),
                        entry: None,
                        is_pending: false,
                    });
                }
                self.narrows_published |= has_published;
                self.fields.insert("columns".to_owned(), over.clone());
            }
            (Some(Value { content: Content::List(items), .. }), Content::Table(more)) => {
                for (name, entry) in more {
                    let same = items.iter_mut().find(|item| column_name(item) == Some(name));
                    let item = match same {
                        Some(item) => item,
                        None => {
                            let content = Content::Text(name.clone());
                            items.push(Value { span: entry.key.clone(), content });
                            items.last_mut().expect("it was just added")
                        }
                    };
                    extend_column(item, name, entry, how);
                }
            }
            _ => {
                let over = TomlTable::from([("columns".to_owned(), over.clone())]);
                overlay(&mut self.fields, &over, &[], how);
            }
        }
    }

    /// A path replaces what is below it; a table changes it.
    fn add_published(&mut self, over: &Entry, how: Overlay) {
        if let (Some(below), Some(_)) = (self.fields.get_mut("published"), over.value.as_table())
            && below.value.as_text().is_some()
        {
            let file = ("file".to_owned(), below.clone());
            below.value.content = Content::Table(TomlTable::from([file]));
        }
        let names_file = over.value.as_table().is_none_or(|table| table.contains_key("file"));
        self.narrows_published &= !names_file;
        overlay(&mut self.fields, &TomlTable::from([("published".to_owned(), over.clone())]), &[], how);
    }

    fn remove(&mut self, list: &Value, diagnostics: &mut Vec<Diagnostic>) {
        let Some(items) = list.as_list() else {
            let message = format!("`remove` is a list of strings, not {}", list.describe());
            diagnostics.push(
                Diagnostic::new(list.span.clone(), message)
                    .help("write `remove = [\"rows.NAME\", \"columns.NAME\"]`"),
            );
            return;
        };
        for item in items {
            let Some(text) = item.as_text() else {
                let message = format!("expected a string, not {}", item.describe());
                diagnostics.push(Diagnostic::new(item.span.clone(), message));
                continue;
            };
            let part = text.split_once('.').and_then(|(part, name)| Some((Part::named(part)?, name)));
            match part {
                Some((part, name)) => diagnostics.extend(self.remove_entry(part, name, &item.span)),
                None => diagnostics.extend(self.remove_field(text, &item.span)),
            }
        }
    }

    /// Removes a whole field, such as `published`.
    fn remove_field(&mut self, name: &str, span: &Span) -> Option<Diagnostic> {
        let Some(entry) = self.fields.shift_remove(name) else {
            let names = self.fields.keys().map(String::as_str);
            let help = nearest_or_all(name, "lower layers say", names)
                .unwrap_or_else(|| "no lower layer says anything of this table".to_owned());
            let message = format!("there is no `{name}` to remove from the table");
            return Some(Diagnostic::new(span.clone(), message).label("removes nothing").help(help));
        };
        if let (Some(part), Some(below)) = (Part::named(name), entry.value.as_table()) {
            for (name, entry) in below {
                self.removed.push(Removed {
                    part,
                    name: name.clone(),
                    span: span.clone(),
                    entry: Some(entry.clone()),
                    is_pending: false,
                });
            }
        }
        None
    }

    fn remove_entry(&mut self, part: Part, name: &str, span: &Span) -> Option<Diagnostic> {
        let below = self.fields.get_mut(part.name()).map(|entry| &mut entry.value.content);
        let (entry, names, is_open) = match below {
            Some(Content::Table(table)) => {
                let has_templates = table.keys().any(|name| name.contains('{'));
                let entry = table.shift_remove(name);
                let names: Vec<String> = table.keys().cloned().collect();
                // Columns by name stand over those that a table has by itself.
                (entry, names, part == Part::Columns || (part == Part::Rows && has_templates))
            }
            Some(Content::List(items)) => {
                let position = items.iter().position(|item| column_name(item) == Some(name));
                let entry = position.map(|at| items.remove(at));
                let names = items.iter().filter_map(column_name).map(str::to_owned).collect();
                (entry.map(|value| Entry { key: span.clone(), value }), names, false)
            }
            _ => (None, Vec::new(), matches!(part, Part::Rows | Part::Columns)),
        };
        if entry.is_none() && !is_open {
            let what = part.entry();
            let all = format!("{what}s of lower layers");
            let help = nearest_or_all(name, &all, names.iter().map(String::as_str))
                .unwrap_or_else(|| format!("lower layers name no {what}s"));
            let message = format!("there is no {what} `{name}` to remove");
            return Some(Diagnostic::new(span.clone(), message).label("removes nothing").help(help));
        }
        let is_pending = entry.is_none();
        self.removed.push(Removed { part, name: name.to_owned(), span: span.clone(), entry, is_pending });
        None
    }
}

/// Returns the name of a column in a list.
fn column_name(item: &Value) -> Option<&str> {
    item.as_text().or_else(|| item.as_table()?.get("metric")?.value.as_text())
}

/// Changes a column of a list by what a later layer says of it by name.
fn extend_column(item: &mut Value, name: &str, over: &Entry, how: Overlay) {
    let Some(more) = over.value.as_table() else {
        // Reading it says what is wrong.
        *item = over.value.clone();
        return;
    };
    if item.as_text().is_some() {
        let metric = Value { span: item.span.clone(), content: Content::Text(name.to_owned()) };
        let metric = ("metric".to_owned(), Entry { key: item.span.clone(), value: metric });
        item.content = Content::Table(TomlTable::from([metric]));
    }
    if let Content::Table(fields) = &mut item.content {
        overlay(fields, more, &[], how);
    }
}

/// Refuses `rows = ["merge", "objective"]`, which is now a row whose name has axes in it.
fn old_rows(axes: &[Value], entry: &Entry, fields: &TomlTable) -> Diagnostic {
    let names: Vec<String> =
        axes.iter().filter_map(Value::as_text).map(|axis| format!("{{{axis}}}")).collect();
    let from = fields.get("from").and_then(|entry| entry.value.as_text()).unwrap_or("STAGE");
    Diagnostic::new(entry.key.clone(), "`rows` is a table of rows by name, not a list of axes")
        .label("renamed")
        .help(format!("write `[table.rows.\"{}\"]` with `from = \"{from}\"`", names.join("/")))
}

/// Refuses `[[table.row]]` and `[[table.delta]]`, which are tables by name now.
fn old_list(name: &str, entry: &Entry) -> Diagnostic {
    let first = entry.value.items().first().and_then(Value::as_table);
    let text = |field: &str| first?.get(field)?.value.as_text();
    let help = if name == "row" {
        let label = text("label").unwrap_or("NAME");
        let from = match first.and_then(|row| row.get("from")).map(|entry| &entry.value) {
            Some(from) if from.as_list().is_some() => {
                let references = from.items().iter().filter_map(Value::as_text);
                let references: Vec<String> =
                    references.map(|reference| format!("\"{reference}\"")).collect();
                format!("[{}]", references.join(", "))
            }
            from => format!("\"{}\"", from.and_then(Value::as_text).unwrap_or("STAGE")),
        };
        format!("write `[table.rows.\"{label}\"]` with `from = {from}`")
    } else {
        let (row, minus) = (text("row").unwrap_or("ROW"), text("minus").unwrap_or("OTHER"));
        format!("write `[table.deltas.\"{row} - {minus}\"]`")
    };
    Diagnostic::new(entry.key.clone(), format!("`{name}` is now `{name}s`, a table by name"))
        .label("renamed")
        .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    fn layered(layers: &[&str]) -> (TomlTable, Vec<Removed>, Vec<String>) {
        let (mut tables, mut diagnostics) = (TableLayers::default(), Vec::new());
        for text in layers {
            let value = Value { span: 0..text.len(), content: Content::Table(parse(text, 0).0) };
            tables.overlay(&Entry { key: 0..0, value }, Overlay::Whole, &mut diagnostics);
        }
        let table = tables.finish().expect("there are layers");
        let messages = diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect();
        (table.value.as_table().expect("a table").clone(), table.removed, messages)
    }

    fn columns(table: &TomlTable) -> Vec<&str> {
        table["columns"].value.items().iter().filter_map(column_name).collect()
    }

    #[test]
    fn rows_merge_by_name_and_can_be_removed() {
        let below = "rows.a.from = 's'\nrows.b.from = 't'\ndeltas.'a - b' = {}";
        let (table, removed, messages) =
            layered(&[below, "remove = ['rows.b', 'deltas']\nrows.c.from = 'u'"]);
        assert_eq!(messages, [""; 0]);
        let rows: Vec<&String> = table["rows"].value.as_table().expect("rows").keys().collect();
        assert_eq!(rows, ["a", "c"]);
        let names: Vec<&str> = removed.iter().map(|removed| removed.name.as_str()).collect();
        assert_eq!((names, table.get("deltas")), (vec!["b", "a - b"], None));
    }

    #[test]
    fn a_column_by_name_adds_to_a_list_and_a_list_replaces_it() {
        let below = "columns = ['x', { metric = 'y', digits = 2 }]";
        let (table, _, _) = layered(&[below, "columns.z = { label = 'Z' }\ncolumns.y.digits = 3"]);
        assert_eq!(columns(&table), ["x", "y", "z"]);
        let y = &table["columns"].value.items()[1];
        assert_eq!(y.as_table().expect("a table")["digits"].value.content, Content::Integer(3));
        let (table, removed, _) = layered(&[below, "columns = ['y', 'v']"]);
        assert_eq!((columns(&table), removed[0].name.as_str()), (vec!["y", "v"], "x"));
        let (table, _, _) = layered(&[below, "remove = ['columns.x']"]);
        assert_eq!(columns(&table), ["y"]);
    }

    #[test]
    fn what_is_not_there_cannot_be_removed() {
        let (_, _, messages) = layered(&["rows.a.from = 's'", "remove = ['rows.b', 'publishd']"]);
        assert_eq!(
            messages,
            ["there is no row `b` to remove", "there is no `publishd` to remove from the table"]
        );
        // A template may make it, and the default columns may have it.
        let (_, removed, messages) = layered(&["rows.'{a}'.from = 's'", "remove = ['rows.b', 'columns.c']"]);
        assert!(messages.is_empty() && removed.iter().all(|removed| removed.is_pending));
    }

    #[test]
    fn exceptions_add_to_a_path() {
        let (table, _, _) = layered(&["published = 'a.toml'", "published.except = ['rows.x']"]);
        let published = table["published"].value.as_table().expect("a table");
        assert_eq!(published.keys().collect::<Vec<_>>(), ["file", "except"]);
    }

    #[test]
    fn old_spellings_are_answered_with_new_ones() {
        let (_, _, messages) =
            layered(&["rows = ['a']\n[[row]]\nlabel = 'x'\n[[delta]]\nrow = 'a'\nminus = 'b'"]);
        assert_eq!(
            messages,
            [
                "`rows` is a table of rows by name, not a list of axes",
                "`row` is now `rows`, a table by name",
                "`delta` is now `deltas`, a table by name",
            ]
        );
    }
}
