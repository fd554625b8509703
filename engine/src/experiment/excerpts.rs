//! Fields that name a file of which only a part is keyed: the part takes the field's place.

use std::path::Path;
use std::sync::Arc;

use crate::experiment::spec::Experiment;
use crate::kind::input_file;
use crate::kind::stage::Excerpt;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::{SourceMap, Span};
use crate::toml::value::{Content, TomlTable, Value};

/// Reads a text.
type ReadText<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Puts parts of files in the place of the fields that name them, in all stages. Returns what is wrong.
pub(crate) fn read_excerpts(
    experiment: &mut Experiment,
    sources: &SourceMap,
    read: ReadText<'_>,
) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let data = experiment.data.clone();
    for spec in experiment.stages.values_mut() {
        let Some(excerpt) = spec.kind.excerpt() else { continue };
        let reader = Reader { excerpt, sources, data: data.as_deref(), read };
        let own = match &mut spec.own_kind {
            Some(own) if own.has(excerpt.field) => Some(Arc::make_mut(own).program_mut()),
            _ => None,
        };
        let variants = spec.axes.iter_mut().flat_map(|axis| &mut axis.variants);
        let tables = own.into_iter().chain([&mut spec.table]);
        for table in tables.chain(variants.map(|variant| &mut variant.overlay)) {
            if let Err(mut diagnostic) = reader.read_into(table) {
                diagnostic.message =
                    format!("stage `{}` ({}): {}", spec.name, spec.kind.name(), diagnostic.message);
                spec.is_broken = true;
                // A mistake in a kind is one, however many stages are of it.
                if !diagnostics.iter().any(|other| other.span == diagnostic.span) {
                    diagnostics.push(diagnostic);
                }
            }
        }
    }
    diagnostics
}

struct Reader<'a> {
    excerpt: Excerpt,
    sources: &'a SourceMap,
    data: Option<&'a Path>,
    read: ReadText<'a>,
}

impl Reader<'_> {
    fn read_into(&self, table: &mut TomlTable) -> Result<(), Diagnostic> {
        let Some(value) = table.get_mut(self.excerpt.field).map(|entry| &mut entry.value) else {
            return Ok(());
        };
        let read = |written: &str| {
            let span = span_of(value, written).unwrap_or(&value.span);
            let path = input_file::absolute(written, self.sources.folder(span), self.data)?;
            (self.read)(&path)
        };
        let planned = (self.excerpt.read)(&value.to_json(), &read).map_err(|error| {
            Diagnostic::new(value.locate(&error.path).clone(), error.message).maybe_help(error.help)
        })?;
        if let Some(planned) = planned.and_then(|planned| Value::from_json(&planned, &value.span)) {
            *value = planned;
        }
        Ok(())
    }
}

/// Returns where a text is written in a value.
fn span_of<'a>(value: &'a Value, text: &str) -> Option<&'a Span> {
    match &value.content {
        Content::Text(own) => (own == text).then_some(&value.span),
        Content::List(items) => items.iter().find_map(|item| span_of(item, text)),
        Content::Table(table) => table.values().find_map(|entry| span_of(&entry.value, text)),
        _ => None,
    }
}
