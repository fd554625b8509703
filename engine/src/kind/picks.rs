//! Tables with one entry for each of some names, from which another field of a stage picks: what all
//! stages have in common can be said once, and each uses what it needs.

use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// A table of a stage from which another of its fields picks entries, before parameters are read: the
/// key is that of what was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The field with the table.
    pub from: &'static str,
    /// The names that the table may have.
    pub names: &'static [&'static str],
    /// What picks.
    pub by: By,
}

/// What picks the entries of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A parameter that is one of the names: its entry becomes the value of another parameter.
    Name {
        /// The parameter with the name.
        field: &'static str,
        /// The parameter that the entry becomes. A stage gives either this or the table.
        into: &'static str,
    },
    /// A list of names, which is no parameter: the table keeps their entries. Without the list it
    /// keeps all.
    List {
        /// The field with the list.
        field: &'static str,
    },
}

impl Pick {
    /// Takes off a table what a layer above it says in another way.
    pub(crate) fn clear(self, table: &mut TomlTable, above: &TomlTable) {
        let By::Name { into, .. } = self.by else { return };
        match (above.contains_key(self.from), above.contains_key(into)) {
            (true, false) => table.shift_remove(into),
            (false, true) => table.shift_remove(self.from),
            _ => None,
        };
    }

    /// Returns whether a table has anything to pick.
    pub(crate) fn applies(self, table: &TomlTable) -> bool {
        match self.by {
            By::Name { .. } => table.contains_key(self.from),
            By::List { field } => table.contains_key(field),
        }
    }

    /// Picks: the table then has what the kind reads, each value with the place where it is written.
    ///
    /// # Errors
    /// What is wrong with the fields that take part.
    pub(crate) fn apply(self, table: &mut TomlTable) -> Result<(), Diagnostic> {
        match self.by {
            By::Name { field, into } => self.pick_one(table, field, into),
            By::List { field } => self.pick_some(table, field),
        }
    }

    fn pick_one(self, table: &mut TomlTable, field: &str, into: &str) -> Result<(), Diagnostic> {
        let from = self.from;
        let Some(Entry { key, value }) = table.shift_remove(from) else { return Ok(()) };
        if let Some(other) = table.get(into) {
            let message = format!("`{into}` and `{from}` are both given");
            return Err(Diagnostic::new(other.key.clone(), message).help("take one of them out"));
        }
        let Content::Table(mut entries) = value.content else {
            let message =
                format!("`{from}` is a table with an entry for each `{field}`, not {}", value.describe());
            return Err(Diagnostic::new(value.span, message));
        };
        for (name, entry) in &entries {
            self.check_name(name, &entry.key)?;
        }
        let Some(by) = table.get(field) else {
            let message = format!("`{field}` picks from `{from}`, and is not given");
            return Err(Diagnostic::new(key, message).help(format!("give `{field}`, or one `{into}`")));
        };
        // What is no name at all is for the kind to report.
        let Some(name) = by.value.as_text().filter(|name| self.names.contains(name)) else {
            return Ok(());
        };
        let Some(entry) = entries.shift_remove(name) else {
            let message = format!("`{from}` has no `{name}`");
            let help = format!("add `{from}.{name}`, or give `{into}`");
            return Err(Diagnostic::new(by.value.span.clone(), message).label("picks this").help(help));
        };
        table.insert(into.to_owned(), entry);
        Ok(())
    }

    fn pick_some(self, table: &mut TomlTable, field: &str) -> Result<(), Diagnostic> {
        let from = self.from;
        let Some(Entry { value, .. }) = table.shift_remove(field) else { return Ok(()) };
        let Some(items) = value.as_list() else {
            let message = format!("`{field}` is a list of names, not {}", value.describe());
            return Err(Diagnostic::new(value.span.clone(), message));
        };
        let nothing = TomlTable::new();
        let entries = table.get(from).and_then(|entry| entry.value.as_table()).unwrap_or(&nothing);
        let mut kept: Vec<&str> = Vec::new();
        for item in items {
            let Some(name) = item.as_text() else {
                let message = format!("`{field}` has names, not {}", item.describe());
                return Err(Diagnostic::new(item.span.clone(), message));
            };
            self.check_name(name, &item.span)?;
            if !entries.contains_key(name) {
                let message = format!("`{from}` has no `{name}`");
                return Err(Diagnostic::new(item.span.clone(), message)
                    .label("picks this")
                    .help(format!("add `{from}.{name}`")));
            }
            kept.push(name);
        }
        if let Some(Entry { value: Value { content: Content::Table(entries), .. }, .. }) = table.get_mut(from)
        {
            entries.retain(|name, _| kept.contains(&name.as_str()));
        }
        Ok(())
    }

    fn check_name(self, name: &str, span: &Span) -> Result<(), Diagnostic> {
        if self.names.contains(&name) {
            return Ok(());
        }
        let message = format!("unknown field `{name}` in `{}`", self.from);
        let help = nearest_or_all(name, "it has", self.names.iter().copied());
        Err(Diagnostic::new(span.clone(), message).label("not a field here").maybe_help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    const ONE: Pick =
        Pick { from: "files", names: &["there", "back"], by: By::Name { field: "way", into: "file" } };
    const SOME: Pick = Pick { from: "files", names: &["there", "back"], by: By::List { field: "ways" } };

    fn picked(pick: Pick, text: &str) -> Result<Vec<String>, (String, String)> {
        let (mut table, _) = parse(text, 0);
        let applied = pick.apply(&mut table);
        applied.map_err(|diagnostic| (diagnostic.message, text[diagnostic.span].to_owned()))?;
        let value = |name: &str, value: &Value| format!("{name} = {}", &text[value.span.clone()]);
        Ok(table
            .iter()
            .flat_map(|(name, entry)| match entry.value.as_table() {
                Some(below) => {
                    below.iter().map(|(key, entry)| value(&format!("{name}.{key}"), &entry.value)).collect()
                }
                None => vec![value(name, &entry.value)],
            })
            .collect())
    }

    fn error(message: &str, at: &str) -> Result<Vec<String>, (String, String)> {
        Err((message.to_owned(), at.to_owned()))
    }

    #[test]
    fn a_name_picks_one() {
        let files = "files = { there = 'a', back = 'b' }";
        let expected = ["way = 'back'", "file = 'b'"].map(str::to_owned).to_vec();
        assert_eq!(picked(ONE, &format!("{files}\nway = 'back'")), Ok(expected));
        assert_eq!(picked(ONE, "way = 'back'\nfile = 'c'").unwrap(), ["way = 'back'", "file = 'c'"]);
        assert_eq!(picked(ONE, files), error("`way` picks from `files`, and is not given", "files"));
        assert_eq!(picked(ONE, "files.there = 'a'\nway = 'back'"), error("`files` has no `back`", "'back'"));
        assert_eq!(
            picked(ONE, &format!("{files}\nfile = 'c'\nway = 'back'")),
            error("`file` and `files` are both given", "file")
        );
        assert_eq!(
            picked(ONE, "files.her = 'a'\nway = 'back'"),
            error("unknown field `her` in `files`", "her")
        );
        assert_eq!(picked(ONE, &format!("{files}\nway = 'bak'")).unwrap(), ["way = 'bak'"]);
    }

    #[test]
    fn a_list_keeps_some() {
        let files = "files = { there = 'a', back = 'b' }";
        let all = ["files.there = 'a'", "files.back = 'b'"];
        assert_eq!(picked(SOME, files).unwrap(), all);
        assert_eq!(picked(SOME, &format!("{files}\nways = ['back', 'there']")).unwrap(), all);
        assert_eq!(picked(SOME, &format!("{files}\nways = ['there']")).unwrap(), all[..1]);
        assert_eq!(
            picked(SOME, "files.there = 'a'\nways = ['back']"),
            error("`files` has no `back`", "'back'")
        );
        assert_eq!(
            picked(SOME, &format!("{files}\nways = ['her']")),
            error("unknown field `her` in `files`", "'her'")
        );
    }

    #[test]
    fn a_layer_above_says_it_its_own_way() {
        let cleared = |below: &str, above: &str| {
            let (mut table, above) = (parse(below, 0).0, parse(above, 0).0);
            ONE.clear(&mut table, &above);
            table.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(cleared("files = {}\nway = 'back'", "file = 'c'"), ["way"]);
        assert_eq!(cleared("file = 'c'\nway = 'back'", "files = {}"), ["way"]);
        assert_eq!(cleared("file = 'c'", "way = 'back'"), ["file"]);
    }
}
