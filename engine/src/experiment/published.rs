//! The numbers that a paper prints, from a file of their own.

use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::{Content, Entry, Spanned, TomlTable, Value};

/// The numbers that a paper prints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub(crate) columns: Vec<Spanned>,
    pub(crate) rows: Vec<PublishedRow>,
    pub(crate) deltas: Vec<PublishedRow>,
    /// What one unit of a metric is in the unit of the printed deltas: 100 for percentage points.
    pub(crate) delta_scale: Vec<f64>,
}

/// A row of printed numbers, or a row of printed differences; one number for each column.
#[derive(Debug, Clone)]
pub(crate) struct PublishedRow {
    pub(crate) name: Spanned,
    pub(crate) values: Vec<f64>,
}

impl Published {
    /// Reads a file of published numbers.
    pub(crate) fn read(root: &TomlTable, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut published = Self::default();
        let known = ["task", "source", "row_axes", "columns", "rows", "delta_printed", "delta_scale"];
        for (name, entry) in root {
            match name.as_str() {
                "columns" => {
                    let items = entry.value.as_list().unwrap_or_default();
                    let spanned = |item: &Value| Some(Spanned::new(item.as_text()?, &item.span));
                    published.columns = items.iter().filter_map(spanned).collect();
                }
                "rows" => published.rows = rows_of(&entry.value, diagnostics),
                "delta_printed" => published.deltas = rows_of(&entry.value, diagnostics),
                "delta_scale" => published.delta_scale = numbers(&entry.value, diagnostics),
                other if known.contains(&other) => {}
                other => diagnostics.push(
                    Diagnostic::new(
                        entry.key.clone(),
                        format!("unknown part `{other}` of published numbers"),
                    )
                    .maybe_help(nearest_or_all(other, "they have", known)),
                ),
            }
        }
        let columns = published.columns.len();
        for (what, rows) in [("row", &published.rows), ("delta", &published.deltas)] {
            for PublishedRow { name, values } in rows.iter().filter(|row| row.values.len() != columns) {
                let label = format!("{} for {columns} columns", values.len());
                let message = format!("published {what} `{}` does not have one number per column", name.text);
                diagnostics.push(Diagnostic::new(name.span.clone(), message).label(label));
            }
        }
        if let (Some(entry), true) =
            (root.get("delta_scale"), ![0, columns].contains(&published.delta_scale.len()))
        {
            let label = format!("{} for {columns} columns", published.delta_scale.len());
            let message = "`delta_scale` does not have one number per column";
            diagnostics.push(Diagnostic::new(entry.value.span.clone(), message).label(label));
        }
        published
    }

    pub(crate) fn row(&self, label: &str) -> Option<&PublishedRow> {
        self.rows.iter().find(|row| row.name.text == label)
    }

    pub(crate) fn cell(&self, label: &str, metric: &str) -> Option<f64> {
        self.row(label)?.values.get(self.position(metric)?).copied()
    }

    pub(crate) fn printed(&self, delta: &str, metric: &str) -> Option<(f64, f64)> {
        let column = self.position(metric)?;
        let delta = self.deltas.iter().find(|row| row.name.text == delta)?;
        let value = *delta.values.get(column)?;
        Some((value, self.delta_scale.get(column).copied().unwrap_or(1.0)))
    }

    fn position(&self, metric: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.text == metric)
    }
}

fn rows_of(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<PublishedRow> {
    let Some(table) = value.as_table() else {
        diagnostics.push(Diagnostic::new(
            value.span.clone(),
            format!("expected a table of rows, not {}", value.describe()),
        ));
        return Vec::new();
    };
    let row = |(name, entry): (&String, &Entry)| PublishedRow {
        name: Spanned::new(name, &entry.key),
        values: numbers(&entry.value, diagnostics),
    };
    table.iter().map(row).collect()
}

fn numbers(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<f64> {
    let mut values = Vec::new();
    for item in value.as_list().unwrap_or_default() {
        match item.content {
            Content::Integer(integer) => values.push(integer as f64),
            Content::Float(float) => values.push(float),
            _ => diagnostics.push(Diagnostic::new(
                item.span.clone(),
                format!("expected a number, not {}", item.describe()),
            )),
        }
    }
    if value.as_list().is_none() {
        diagnostics.push(Diagnostic::new(
            value.span.clone(),
            format!("expected a list of numbers, not {}", value.describe()),
        ));
    }
    values
}
