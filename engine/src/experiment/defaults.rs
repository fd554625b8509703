//! `[defaults.KIND]`: what all stages of a kind say, unless they say otherwise.

use std::sync::Arc;

use crate::experiment::layers::{Choices, Layer, overlay_stage};
use crate::experiment::stage_layers::remove;
use crate::kind::schema::unknown_field;
use crate::kind::stage::Kind;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, TomlTable, Value};

/// The fields of every stage that defaults may give as well.
const COMMON_FIELDS: [&str; 6] = ["about", "inputs", "resources", "timeout_seconds", "retries", "retry_on"];

/// Reports defaults of a kind that there is none of.
pub(crate) fn unknown_kind<'a>(
    name: &str,
    span: Span,
    kinds: impl Iterator<Item = &'a str> + Clone,
) -> Diagnostic {
    Diagnostic::new(span, format!("defaults of an unknown kind `{name}`"))
        .label("no such kind of stage")
        .maybe_help(nearest_or_all(name, "kinds", kinds))
}

/// The defaults of one kind, merged from all layers.
pub(crate) struct Defaults<'a> {
    kind: &'a Kind,
    pub table: Arc<TomlTable>,
}

impl<'a> Defaults<'a> {
    /// Starts without any.
    pub(crate) fn of(kind: &'a Kind) -> Self {
        Self { kind, table: Arc::default() }
    }

    /// Adds what one layer says.
    pub(crate) fn add(
        &mut self,
        layer: &Layer,
        mut table: TomlTable,
        choices: &Choices,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let own = Arc::make_mut(&mut self.table);
        if let Some(entry) = table.shift_remove("remove") {
            let of = format!("the table of defaults for `{}`", self.kind.name());
            remove(own, &entry.value, &of, diagnostics);
        }
        overlay_stage(own, &table, self.kind, choices, layer.overlay());
    }

    /// Reports fields that the kind does not have, and takes them out: no stage is to blame for them.
    pub(crate) fn check(&mut self, diagnostics: &mut Vec<Diagnostic>, is_doubtful: impl Fn(&Span) -> bool) {
        let mut value = Value { span: 0..0, content: Content::Table(TomlTable::clone(&self.table)) };
        while let Some((path, span, known)) = unknown_field(self.kind, &value, &self.common_fields()) {
            if !is_doubtful(&span) {
                let (kind, name) = (self.kind.name(), path.last().map_or("", String::as_str));
                let diagnostic = match self.kind.renamed().at(&value, &span) {
                    Some(message) => {
                        Diagnostic::new(span, format!("defaults of `{kind}`: {message}")).label("renamed")
                    }
                    None => Diagnostic::new(span, format!("defaults of `{kind}`: unknown field `{name}`"))
                        .label("not a field here")
                        .maybe_help(nearest_or_all(name, "fields", known.iter().map(String::as_str))),
                };
                diagnostics.push(diagnostic);
            }
            take_out(&mut value, &path);
        }
        if let Content::Table(table) = value.content {
            self.table = table.into();
        }
    }

    fn common_fields(&self) -> Vec<&'static str> {
        let seed = self.kind.is_seeded().then_some("seed");
        COMMON_FIELDS.into_iter().chain(seed).collect()
    }
}

fn take_out(value: &mut Value, path: &[String]) {
    let Content::Table(table) = &mut value.content else { return };
    match path {
        [] => {}
        [name] => {
            table.shift_remove(name);
        }
        [name, rest @ ..] => {
            if let Some(entry) = table.get_mut(name) {
                take_out(&mut entry.value, rest);
            }
        }
    }
}
