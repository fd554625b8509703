//! Combinations of variants, as `only` and `except` list them.

use crate::experiment::reference::Choice;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;
use crate::toml::value::Value;

/// Variants of some axes: `{ axis = "variant" }`.
#[derive(Debug, Clone)]
pub(crate) struct Combination {
    pub selectors: Vec<(String, Choice)>,
    /// For each selector, where the axis and where the variant is written.
    pub spans: Vec<(Span, Span)>,
}

/// Reads a list of combinations.
pub(crate) fn read_combinations(value: &Value) -> Result<Vec<Combination>, Diagnostic> {
    let Some(items) = value.as_list() else {
        let message = format!("expected a list of combinations, not {}", value.describe());
        return Err(Diagnostic::new(value.span.clone(), message).help("write `[{ axis = \"variant\" }]`"));
    };
    items.iter().map(read_combination).collect()
}

/// Reads one combination.
pub(crate) fn read_combination(value: &Value) -> Result<Combination, Diagnostic> {
    let Some(table) = value.as_table() else {
        let message = format!("a combination is a table, not {}", value.describe());
        return Err(Diagnostic::new(value.span.clone(), message).help("write `{ axis = \"variant\" }`"));
    };
    let mut combination = Combination { selectors: Vec::new(), spans: Vec::new() };
    for (axis, entry) in table {
        let variant = entry.value.scalar_text().unwrap_or_default();
        combination.selectors.push((axis.clone(), Choice::One(variant)));
        combination.spans.push((entry.key.clone(), entry.value.span.clone()));
    }
    Ok(combination)
}
