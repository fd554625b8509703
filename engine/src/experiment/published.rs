//! The numbers that a paper prints, from a file of their own.

use std::collections::BTreeMap;

use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::{Content, TomlTable, Value};

/// The numbers that a paper prints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<f64>)>,
    pub(crate) deltas: BTreeMap<String, Vec<f64>>,
    /// What one unit of a metric is in the unit of the printed deltas: 100 for percentage points.
    pub(crate) delta_scale: Vec<f64>,
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
                    published.columns =
                        items.iter().filter_map(|item| item.as_text().map(str::to_owned)).collect();
                }
                "rows" => published.rows = rows_of(&entry.value, diagnostics),
                "delta_printed" => {
                    published.deltas = rows_of(&entry.value, diagnostics).into_iter().collect()
                }
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
        for (label, values) in &published.rows {
            if values.len() != published.columns.len() {
                let label_of = format!("{} for {} columns", values.len(), published.columns.len());
                let message = format!("published row `{label}` does not have one number per column");
                let span = root.get("rows").and_then(|entry| entry.value.at(std::slice::from_ref(label)));
                diagnostics.push(
                    Diagnostic::new(span.map_or(0..0, |value| value.span.clone()), message).label(label_of),
                );
            }
        }
        published
    }

    pub(crate) fn row(&self, label: &str) -> Option<&[f64]> {
        self.rows.iter().find(|(name, _)| name == label).map(|(_, values)| values.as_slice())
    }

    pub(crate) fn cell(&self, label: &str, metric: &str) -> Option<f64> {
        let column = self.columns.iter().position(|name| name == metric)?;
        self.row(label)?.get(column).copied()
    }

    pub(crate) fn printed(&self, delta: &str, metric: &str) -> Option<(f64, f64)> {
        let column = self.columns.iter().position(|name| name == metric)?;
        let value = *self.deltas.get(delta)?.get(column)?;
        Some((value, self.delta_scale.get(column).copied().unwrap_or(1.0)))
    }
}

fn rows_of(value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<(String, Vec<f64>)> {
    let Some(table) = value.as_table() else {
        diagnostics.push(Diagnostic::new(
            value.span.clone(),
            format!("expected a table of rows, not {}", value.describe()),
        ));
        return Vec::new();
    };
    table.iter().map(|(name, entry)| (name.clone(), numbers(&entry.value, diagnostics))).collect()
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
