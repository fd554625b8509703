//! `[table]` as written in the experiment file, all layers together.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

use crate::experiment::published::Published;
use crate::experiment::reference::Reference;
use crate::experiment::table_layers::{LayeredTable, Part, Removed};
use crate::kind::name::qualified;
use crate::kind::output_column::Better;
use crate::toml::deserialize::read;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, Entry, Spanned, TomlTable, Value};

/// A table of an experiment.
#[derive(Debug, Clone)]
pub(crate) struct TableDeclaration {
    /// The name of `[tables.NAME]`; none for `[table]`.
    pub name: Option<String>,
    pub spec: TableSpec,
    pub published: Option<Published>,
}

/// `[table]` as written.
#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    pub title: Option<String>,
    /// The stages of a table that names no rows.
    pub from: Vec<Spanned>,
    /// Stages that make more columns for all rows.
    pub also_from: Vec<Spanned>,
    /// None if no layer names rows.
    pub rows: Option<Vec<RowSpec>>,
    pub columns: ColumnsSpec,
    pub average: Vec<Spanned>,
    pub published: Option<PublishedSpec>,
    pub deltas: Vec<DeltaSpec>,
    pub comparable: Vec<ConditionSpec>,
    pub removed: Vec<Removed>,
    /// Rows that were removed, of which the published numbers may still speak.
    pub removed_rows: Vec<RowSpec>,
    pub narrows_published: bool,
    /// Where the table was last touched.
    pub span: Span,
}

/// A row, or with axes in its name the rows of their variants.
#[derive(Debug, Clone)]
pub(crate) struct RowSpec {
    pub name: Spanned,
    /// Empty for a row that is only published.
    pub from: Vec<Spanned>,
    pub published: Option<Spanned>,
}

/// Which columns a table has.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnsSpec {
    /// All columns; without it, those that the rows' stages declare.
    pub list: Option<Vec<ColumnSpec>>,
    /// Columns by name, which change or add to those.
    pub more: Vec<ColumnSpec>,
}

#[derive(Debug, Clone)]
pub(crate) struct ColumnSpec {
    pub metric: Spanned,
    pub label: Option<String>,
    pub digits: Option<u8>,
    pub better: Option<Better>,
}

/// The file of published numbers, and what of it the table leaves out.
#[derive(Debug, Clone)]
pub(crate) struct PublishedSpec {
    pub file: Spanned,
    pub except: Vec<Spanned>,
}

/// A difference of two rows; without their names, its own name says which.
#[derive(Debug, Clone)]
pub(crate) struct DeltaSpec {
    pub name: Spanned,
    pub row: Option<Spanned>,
    pub minus: Option<Spanned>,
    pub printed: Option<String>,
}

/// A condition under which numbers may be compared with the published ones.
#[derive(Debug, Clone)]
pub(crate) struct ConditionSpec {
    pub name: String,
    pub stage: Spanned,
    /// The fields that the stage must have.
    pub is: Value,
    pub says: Option<String>,
}

/// The fields of a table. What has entries by name is read entry by entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFields {
    title: Option<String>,
    from: Option<References>,
    also_from: Option<References>,
    #[serde(rename = "rows")]
    _rows: Option<IgnoredAny>,
    #[serde(rename = "columns")]
    _columns: Option<IgnoredAny>,
    average: Option<Vec<String>>,
    #[serde(rename = "published")]
    _published: Option<IgnoredAny>,
    #[serde(rename = "deltas")]
    _deltas: Option<IgnoredAny>,
    #[serde(rename = "comparable")]
    _comparable: Option<IgnoredAny>,
    #[serde(rename = "remove")]
    _remove: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFields {
    from: Option<References>,
    published: Option<String>,
}

/// A reference or a list of them; they are read again with their places.
struct References;

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = References;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference or a list of references")
            }

            fn visit_str<E>(self, _: &str) -> Result<References, E> {
                Ok(References)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<References, A::Error> {
                let mut count = 0;
                while list.next_element::<String>()?.is_some() {
                    count += 1;
                }
                if count == 0 {
                    return Err(serde::de::Error::invalid_length(0, &"at least one reference"));
                }
                Ok(References)
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedColumnFields {
    metric: String,
    label: Option<String>,
    digits: Option<u8>,
    better: Option<Better>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedColumnFields {
    label: Option<String>,
    digits: Option<u8>,
    better: Option<Better>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedFields {
    file: String,
    except: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaFields {
    #[serde(rename = "row")]
    _row: Option<String>,
    #[serde(rename = "minus")]
    _minus: Option<String>,
    printed: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionFields {
    #[serde(rename = "stage")]
    _stage: String,
    #[serde(rename = "is")]
    _is: IgnoredAny,
    says: Option<String>,
}

impl TableSpec {
    /// Reads a table.
    ///
    /// # Errors
    /// What is wrong with each of its parts.
    pub(crate) fn read(layered: LayeredTable, sources: &SourceMap) -> Result<Self, Vec<Diagnostic>> {
        let LayeredTable { value, removed, narrows_published, .. } = layered;
        let fields: TableFields = read(&value).map_err(|diagnostic| vec![diagnostic])?;
        let mut diagnostics = Vec::new();
        let table = value.as_table().expect("what was read is a table");
        let rows = entries(table, Part::Rows, row, &mut diagnostics);
        let deltas = entries(table, Part::Deltas, delta, &mut diagnostics).unwrap_or_default();
        let comparable = entries(table, Part::Comparable, condition, &mut diagnostics).unwrap_or_default();
        let columns = read_columns(table, &mut diagnostics);
        let published = table.get("published").and_then(|entry| {
            read_published(&entry.value).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
        });
        let from = table.get("from").filter(|_| fields.from.is_some());
        if let (Some(from), Some(_)) = (from, &rows) {
            diagnostics.push(
                Diagnostic::new(from.key.clone(), "`from` is for a table that names no rows")
                    .label("changes nothing")
                    .help("write `from` in each row"),
            );
        }
        let removed_rows = removed
            .iter()
            .filter(|removed| removed.part == Part::Rows)
            .filter_map(|removed| row(&removed.name, removed.entry.as_ref()?).ok())
            .collect();
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        let mut spec = Self {
            title: fields.title,
            from: from.map(|entry| texts(&entry.value)).unwrap_or_default(),
            also_from: fields.also_from.map_or_else(Vec::new, |_| texts(&table["also_from"].value)),
            rows,
            columns,
            average: fields.average.map_or_else(Vec::new, |_| texts(&table["average"].value)),
            published,
            deltas,
            comparable,
            removed,
            removed_rows,
            narrows_published,
            span: value.span,
        };
        spec.references().for_each(|reference| qualify(reference, sources));
        Ok(spec)
    }

    fn references(&mut self) -> impl Iterator<Item = &mut Spanned> {
        let rows = self.rows.iter_mut().flatten().chain(&mut self.removed_rows);
        let of_rows = rows.flat_map(|row| &mut row.from);
        let of_conditions = self.comparable.iter_mut().map(|condition| &mut condition.stage);
        self.from.iter_mut().chain(&mut self.also_from).chain(of_rows).chain(of_conditions)
    }
}

/// Writes a reference as seen from outside the namespace that it is written in.
fn qualify(reference: &mut Spanned, sources: &SourceMap) {
    if Reference::parse(&reference.text).is_ok() {
        reference.text = qualified(sources.namespace(&reference.span), &reference.text);
    }
}

/// Reads the entries of a part, each by its name. None if there is no such part.
fn entries<T>(
    table: &TomlTable,
    part: Part,
    read: impl Fn(&str, &Entry) -> Result<T, Diagnostic>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Vec<T>> {
    let entry = table.get(part.name())?;
    let Some(below) = entry.value.as_table() else {
        let (name, what) = (part.name(), part.entry());
        let message = format!("`{name}` is a table by name, not {}", entry.value.describe());
        let help = format!("write `[table.{name}.\"NAME\"]` for each {what}");
        diagnostics.push(Diagnostic::new(entry.value.span.clone(), message).help(help));
        return None;
    };
    let mut list = Vec::new();
    for (name, entry) in below {
        match read(name, entry) {
            Ok(item) => list.push(item),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    Some(list)
}

fn row(name: &str, entry: &Entry) -> Result<RowSpec, Diagnostic> {
    let fields: RowFields = read(&entry.value)?;
    let table = entry.value.as_table().expect("what was read is a table");
    Ok(RowSpec {
        name: Spanned::new(name, &entry.key),
        from: fields.from.map_or_else(Vec::new, |_| texts(&table["from"].value)),
        published: fields.published.map(|text| Spanned::new(&text, &table["published"].value.span)),
    })
}

fn delta(name: &str, entry: &Entry) -> Result<DeltaSpec, Diagnostic> {
    let fields: DeltaFields = read(&entry.value)?;
    let table = entry.value.as_table().expect("what was read is a table");
    let text = |field: &str| texts(&table.get(field)?.value).into_iter().next();
    Ok(DeltaSpec {
        name: Spanned::new(name, &entry.key),
        row: text("row"),
        minus: text("minus"),
        printed: fields.printed,
    })
}

fn condition(name: &str, entry: &Entry) -> Result<ConditionSpec, Diagnostic> {
    let fields: ConditionFields = read(&entry.value)?;
    let table = entry.value.as_table().expect("what was read is a table");
    let is = &table["is"].value;
    if is.as_table().is_none_or(TomlTable::is_empty) {
        let message = format!("`is` of condition `{name}` is a table of fields");
        return Err(Diagnostic::new(is.span.clone(), message).help("write `is = { kind = \"source\" }`"));
    }
    let stage = texts(&table["stage"].value).remove(0);
    Ok(ConditionSpec { name: name.to_owned(), stage, is: is.clone(), says: fields.says })
}

fn read_columns(table: &TomlTable, diagnostics: &mut Vec<Diagnostic>) -> ColumnsSpec {
    let Some(Entry { value, .. }) = table.get("columns") else { return ColumnsSpec::default() };
    match &value.content {
        Content::List(items) => {
            let mut list: Vec<ColumnSpec> = Vec::new();
            for item in items {
                match listed_column(item) {
                    Ok(column) if list.iter().any(|other| other.metric.text == column.metric.text) => {
                        let message = format!("column `{}` is listed twice", column.metric.text);
                        diagnostics.push(Diagnostic::new(column.metric.span, message));
                    }
                    Ok(column) => list.push(column),
                    Err(diagnostic) => diagnostics.push(diagnostic),
                }
            }
            if items.is_empty() {
                let help = "name at least one metric, or leave `columns` out for all that the stages make";
                diagnostics.push(Diagnostic::new(value.span.clone(), "the table has no columns").help(help));
            }
            ColumnsSpec { list: Some(list), more: Vec::new() }
        }
        Content::Table(_) => {
            let more = entries(table, Part::Columns, named_column, diagnostics).unwrap_or_default();
            ColumnsSpec { list: None, more }
        }
        _ => {
            let message = format!("`columns` is a list, or a table by name, not {}", value.describe());
            diagnostics.push(Diagnostic::new(value.span.clone(), message));
            ColumnsSpec::default()
        }
    }
}

fn listed_column(item: &Value) -> Result<ColumnSpec, Diagnostic> {
    match &item.content {
        Content::Text(metric) => {
            let metric = Spanned::new(metric, &item.span);
            Ok(ColumnSpec { metric, label: None, digits: None, better: None })
        }
        Content::Table(table) => {
            let ListedColumnFields { metric, label, digits, better } = read(item)?;
            let metric = Spanned::new(&metric, &table["metric"].value.span);
            Ok(ColumnSpec { metric, label, digits, better })
        }
        _ => {
            let expected = "a metric's name or a table with `metric`";
            let message = format!("expected {expected}, not {}", item.describe());
            Err(Diagnostic::new(item.span.clone(), message).label(format!("expected {expected}")))
        }
    }
}

fn named_column(name: &str, entry: &Entry) -> Result<ColumnSpec, Diagnostic> {
    let NamedColumnFields { label, digits, better } = read(&entry.value)?;
    Ok(ColumnSpec { metric: Spanned::new(name, &entry.key), label, digits, better })
}

fn read_published(value: &Value) -> Result<PublishedSpec, Diagnostic> {
    if let Some(path) = value.as_text() {
        return Ok(PublishedSpec { file: Spanned::new(path, &value.span), except: Vec::new() });
    }
    let Some(table) = value.as_table() else {
        let message = format!("`published` is a path, or a table with `file`, not {}", value.describe());
        return Err(Diagnostic::new(value.span.clone(), message));
    };
    let fields: PublishedFields = read(value)?;
    Ok(PublishedSpec {
        file: Spanned::new(&fields.file, &table["file"].value.span),
        except: fields.except.map_or_else(Vec::new, |_| texts(&table["except"].value)),
    })
}

/// Returns a text, or those of a list, with their places.
fn texts(value: &Value) -> Vec<Spanned> {
    value.items().iter().filter_map(|item| Some(Spanned::new(item.as_text()?, &item.span))).collect()
}
