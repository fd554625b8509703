//! Checks that the published numbers and the table speak of the same rows, columns and differences.

use crate::experiment::published::{Published, PublishedRow};
use crate::experiment::table_layers::Part;
use crate::experiment::table_spec::{PublishedSpec, TableSpec};
use crate::plan::table::deltas::MINUS;
use crate::plan::table::planned::{Column, PlannedDelta};
use crate::plan::table::rows::DraftRow;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::Spanned;

/// What a table shows, and the rows that were removed from it.
pub(crate) struct Shown<'a> {
    pub rows: &'a [DraftRow],
    pub columns: &'a [Column],
    pub deltas: &'a [PlannedDelta],
    pub removed_rows: &'a [String],
}

/// Reports what of the published numbers nothing in the table shows, and what of the table is meant
/// to be published and is not.
pub(crate) fn check_published(
    spec: &TableSpec,
    published: Option<&Published>,
    shown: &Shown<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let (Some(published_spec), Some(published)) = (&spec.published, published) else {
        if spec.published.is_none() {
            diagnostics.extend(published_without_numbers(spec));
        }
        return;
    };
    check_exceptions(published_spec, published, diagnostics);
    check_rows_of_table(spec, published, shown, diagnostics);
    let checker = Checker { spec, published_spec, shown };
    diagnostics.extend(published.columns.iter().filter_map(|column| checker.column(column)));
    diagnostics.extend(published.rows.iter().filter_map(|row| checker.row(row)));
    diagnostics.extend(published.deltas.iter().filter_map(|delta| checker.delta(delta)));
}

struct Checker<'a> {
    spec: &'a TableSpec,
    published_spec: &'a PublishedSpec,
    shown: &'a Shown<'a>,
}

impl Checker<'_> {
    fn column(&self, column: &Spanned) -> Option<Diagnostic> {
        let is_shown = self.shown.columns.iter().any(|shown| shown.name == column.text);
        if is_shown || self.spec.narrows_published || self.is_left_out(Part::Columns, &column.text) {
            return None;
        }
        let names = self.shown.columns.iter().map(|column| column.name.as_str());
        Some(self.unmatched(Part::Columns, column, names))
    }

    fn row(&self, row: &PublishedRow) -> Option<Diagnostic> {
        let name = &row.name.text;
        let is_shown = self.shown.rows.iter().any(|shown| shown.published == *name);
        if is_shown || self.is_row_left_out(name) {
            return None;
        }
        Some(self.unmatched(Part::Rows, &row.name, self.shown.rows.iter().map(|row| row.published.as_str())))
    }

    fn delta(&self, delta: &PublishedRow) -> Option<Diagnostic> {
        let name = &delta.name.text;
        let is_shown = self.shown.deltas.iter().any(|shown| shown.printed == *name);
        let is_of_row_left_out = name.match_indices(MINUS).any(|(at, _)| {
            let (row, minus) = (&name[..at], &name[at + MINUS.len()..]);
            self.is_row_removed(row) || self.is_row_removed(minus)
        });
        if is_shown || is_of_row_left_out || self.is_left_out(Part::Deltas, name) {
            return None;
        }
        Some(self.unmatched(
            Part::Deltas,
            &delta.name,
            self.shown.deltas.iter().map(|delta| delta.printed.as_str()),
        ))
    }

    fn is_row_removed(&self, name: &str) -> bool {
        self.shown.removed_rows.iter().any(|row| row == name) || self.is_removed(Part::Rows, name)
    }

    fn is_row_left_out(&self, name: &str) -> bool {
        self.is_row_removed(name) || self.is_left_out(Part::Rows, name)
    }

    fn is_removed(&self, part: Part, name: &str) -> bool {
        self.spec.removed.iter().any(|removed| removed.part == part && removed.name == name)
    }

    fn is_left_out(&self, part: Part, name: &str) -> bool {
        let is_exception = |exception: &Spanned| excepted(exception) == Some((part, name));
        self.is_removed(part, name) || self.published_spec.except.iter().any(is_exception)
    }

    fn unmatched<'n>(
        &self,
        part: Part,
        name: &Spanned,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Diagnostic {
        let what = part.entry();
        let near = nearest_or_all(&name.text, &format!("its {what}s"), names);
        let file = &self.published_spec.file.text;
        let way_out = format!(
            "add the {what} to the table, or leave it out: `published = {{ file = \"{file}\", except = [\"{}.{}\"] }}`",
            part.name(),
            name.text
        );
        let help = near.map_or(way_out.clone(), |near| format!("{near}\n{way_out}"));
        Diagnostic::new(
            name.span.clone(),
            format!("published {what} `{}` is nowhere in the table", name.text),
        )
        .label(format!("no {what} of the table shows this"))
        .help(help)
    }
}

/// Returns the part and the name that an exception leaves out.
fn excepted(exception: &Spanned) -> Option<(Part, &str)> {
    let (part, name) = exception.text.split_once('.')?;
    Some((Part::named(part).filter(|part| *part != Part::Comparable)?, name))
}

/// An exception that fits nothing is misspelt, or out of date.
fn check_exceptions(spec: &PublishedSpec, published: &Published, diagnostics: &mut Vec<Diagnostic>) {
    for exception in &spec.except {
        let Some((part, name)) = excepted(exception) else {
            let message = format!("`{}` names no published row, column or delta", exception.text);
            diagnostics.push(
                Diagnostic::new(exception.span.clone(), message)
                    .help("write `rows.NAME`, `columns.NAME` or `deltas.NAME`"),
            );
            continue;
        };
        let names: Vec<&str> = match part {
            Part::Columns => published.columns.iter().map(|column| column.text.as_str()).collect(),
            Part::Rows => published.rows.iter().map(|row| row.name.text.as_str()).collect(),
            _ => published.deltas.iter().map(|row| row.name.text.as_str()).collect(),
        };
        if !names.contains(&name) {
            let what = part.entry();
            let message = format!("there is no published {what} `{name}`");
            let help = nearest_or_all(name, &format!("published {what}s"), names);
            diagnostics.push(
                Diagnostic::new(exception.span.clone(), message).label("leaves nothing out").maybe_help(help),
            );
        }
    }
}

/// A row that is only published must be published, and so must one that names its published row.
fn check_rows_of_table(
    spec: &TableSpec,
    published: &Published,
    shown: &Shown<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for row in spec.rows.iter().flatten() {
        let mut drafts = shown.rows.iter().filter(|draft| draft.span == row.name.span).peekable();
        let is_needed = row.from.is_empty() || row.published.is_some();
        if !is_needed || drafts.peek().is_none() {
            continue;
        }
        let names: Vec<&str> = drafts.map(|draft| draft.published.as_str()).collect();
        if names.iter().any(|name| published.row(name).is_some()) {
            continue;
        }
        let name = names[0];
        let span = row.published.as_ref().map_or(&row.name.span, |published| &published.span);
        let known = published.rows.iter().map(|row| row.name.text.as_str());
        let help = nearest_or_all(name, "published rows", known);
        let message = format!("there is no published row `{name}`");
        diagnostics.push(Diagnostic::new(span.clone(), message).maybe_help(help));
    }
}

fn published_without_numbers(spec: &TableSpec) -> Option<Diagnostic> {
    let row = spec.rows.iter().flatten().find(|row| row.from.is_empty())?;
    let message = format!("row `{}` has no `from`, and the table no published numbers", row.name.text);
    Some(
        Diagnostic::new(row.name.span.clone(), message)
            .help("say with `from` which stage makes it, or name a file with `published`"),
    )
}
