//! Text to values. A syntax error does not stop the rest from being read.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// After so many lines that end a parse, the rest of a text is left alone.
const MOST_STOPS: usize = 20;

/// Parses a text; a syntax error does not stop the rest from being read. Spans are moved by `base`.
pub(crate) fn parse(text: &str, base: usize) -> (TomlTable, Vec<Diagnostic>) {
    let mut readable = text.to_owned();
    let mut diagnostics = Vec::new();
    loop {
        let (root, errors) = DeTable::parse_recoverable(&readable);
        let at = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        // The parser gives up at a key without a value, and the rest must be checked as well.
        let stop = errors.iter().find(|error| error.message().starts_with("key with no value"));
        if let Some(span) = stop.map(at).filter(|_| diagnostics.len() < MOST_STOPS) {
            let end = span.start + readable[span.start..].find('\n').unwrap_or(readable.len() - span.start);
            let start = readable[..span.start].rfind('\n').map_or(0, |line| line + 1);
            diagnostics.push(syntax_error(text, "key with no value, expected `=`", start..end, base));
            readable.replace_range(start..end, &" ".repeat(end - start));
            continue;
        }
        let mut is_repeated_table = false;
        for error in &errors {
            let span = at(error);
            if error.message() == "duplicate key" {
                // The fields of a repeated table are repeated, too, and are not to blame.
                let is_header =
                    text[..span.start].rsplit('\n').next().is_some_and(|line| line.starts_with('['));
                if is_repeated_table && !is_header {
                    continue;
                }
                is_repeated_table = is_header;
            }
            diagnostics.push(syntax_error(text, error.message(), span, base));
        }
        return (convert_table(root.into_inner(), base, &mut diagnostics), diagnostics);
    }
}

/// Explains an error of the parser in plain words.
fn syntax_error(text: &str, message: &str, span: Span, base: usize) -> Diagnostic {
    let written = text[span.clone()].trim();
    let after_key = || text[..span.start].trim_end().ends_with('=');
    let (message, label) = match message.split_once(", expected ") {
        None if message == "duplicate key" => {
            (format!("`{written}` is given twice"), "given before".to_owned())
        }
        Some(("key with no value", _)) => {
            (format!("`{written}` gives no value"), "write `name = value`".to_owned())
        }
        Some(("string values must be quoted", _)) if written.is_empty() && after_key() => {
            ("there is no value after `=`".to_owned(), "a value is missing".to_owned())
        }
        Some(("string values must be quoted", _)) => {
            (format!("`{written}` is not a value: strings are quoted"), "strings are quoted".to_owned())
        }
        Some(("invalid basic string", "`\"`")) => {
            ("the string is not closed".to_owned(), "the closing `\"` is missing".to_owned())
        }
        Some((what, "nothing")) => (what.to_owned(), "not valid TOML".to_owned()),
        Some((what, expected)) => (what.to_owned(), format!("expected {expected}")),
        None => (message.to_owned(), "not valid TOML".to_owned()),
    };
    Diagnostic::new(base + span.start..base + span.end, message).label(label)
}

/// Returns the part of a text that a mistake in its syntax makes doubtful: from the header of
/// the table before it to the next header.
pub(crate) fn doubtful(text: &str, at: usize) -> Span {
    let is_header = |line: &&str| line.starts_with('[');
    let start_of = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let start = if text[line..].starts_with('[') {
        line
    } else {
        before.lines().rfind(is_header).map_or(0, start_of)
    };
    let end = text[line..].lines().skip(1).find(is_header).map_or(text.len(), start_of);
    start..end
}

/// Parses one value, as given on a command line.
pub(crate) fn parse_value(text: &str, base: usize) -> Result<Value, String> {
    let parsed = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    let mut diagnostics = Vec::new();
    let value = convert(parsed, base, &mut diagnostics);
    diagnostics.pop().map_or(Ok(value), |diagnostic| Err(diagnostic.message))
}

fn convert_table(table: DeTable<'_>, base: usize, diagnostics: &mut Vec<Diagnostic>) -> TomlTable {
    table
        .into_iter()
        .map(|(key, value)| {
            let span = key.span();
            let entry =
                Entry { key: base + span.start..base + span.end, value: convert(value, base, diagnostics) };
            (key.into_inner().into_owned(), entry)
        })
        .collect()
}

fn convert(item: Spanned<DeValue<'_>>, base: usize, diagnostics: &mut Vec<Diagnostic>) -> Value {
    let span = item.span();
    let span = base + span.start..base + span.end;
    let content = match item.into_inner() {
        DeValue::String(text) => Content::Text(text.into_owned()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Content::Integer(value),
            Err(_) => {
                diagnostics
                    .push(Diagnostic::new(span.clone(), format!("`{integer}` does not fit in 64 bits")));
                Content::Integer(0)
            }
        },
        DeValue::Float(float) => match float.as_str().parse::<f64>() {
            Ok(value) if value.is_finite() => Content::Float(value),
            Ok(_) => {
                diagnostics.push(
                    Diagnostic::new(span.clone(), format!("`{float}` is not a finite number")).help(
                        "parameters must be finite: a result cannot be keyed by a value that equals nothing",
                    ),
                );
                Content::Float(0.0)
            }
            Err(_) => {
                if diagnostics.is_empty() {
                    diagnostics.push(Diagnostic::new(span.clone(), format!("`{float}` is not a number")));
                }
                Content::Float(0.0)
            }
        },
        DeValue::Boolean(truth) => Content::Bool(truth),
        DeValue::Datetime(time) => Content::Time(time.to_string()),
        DeValue::Array(array) => {
            Content::List(array.into_iter().map(|item| convert(item, base, diagnostics)).collect())
        }
        DeValue::Table(table) => Content::Table(convert_table(table, base, diagnostics)),
    };
    Value { span, content }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_follows_a_syntax_error_is_still_read() {
        for text in
            ["a = \nb = 2\n", "a\nb = 2\n", "a 1\n[b]\n", "a = 1.2.3\nb = 2", "b = 1\n[a]\n[a]\nc = 1\n"]
        {
            let (table, diagnostics) = parse(text, 0);
            assert_eq!(diagnostics.len(), 1, "{text}: {diagnostics:?}");
            assert!(table.contains_key("b"), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_makes_its_own_table_doubtful() {
        let text = "x = 1\n[a]\ny = \n[b]\nz = 1";
        let of = |wanted: &str| &text[doubtful(text, text.find(wanted).unwrap())];
        assert_eq!(of("x"), "x = 1\n");
        assert_eq!(of("y"), "[a]\ny = \n");
        assert_eq!(of("[a]"), "[a]\ny = \n");
        assert_eq!(of("z"), "[b]\nz = 1");
    }

    #[test]
    fn numbers_that_cannot_be_keyed_are_refused() {
        assert_eq!(parse("a = nan", 0).1.len(), 1);
        assert_eq!(parse("a = 99999999999999999999", 0).1.len(), 1);
        assert_eq!(parse("a = 0xff", 0).0["a"].value.content, Content::Integer(255));
    }

    fn spans(table: &TomlTable, spans_below: &mut Vec<Span>) {
        for entry in table.values() {
            spans_below.extend([entry.key.clone(), entry.value.span.clone()]);
            if let Some(below) = entry.value.as_table() {
                spans(below, spans_below);
            }
        }
    }

    proptest! {
        #[test]
        fn every_span_lies_in_its_text(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(vec![
                        "a", "é", "=", " ", "\n", "[", "]", "[[", "{", "}", "'", "\"", "\"\"\"", ".", ",", "1", "-",
                        "nan", "99999999999999999999", "#", "\r\n", "\\u00e9", "true", "a = 1\n", "[é.b]\n",
                    ])
                    .prop_map(str::to_owned),
                    ".{0,3}",
                ],
                0..24,
            )
        ) {
            let text = pieces.concat();
            let base = 7;
            let (table, diagnostics) = parse(&text, base);
            let mut all: Vec<Span> = diagnostics.into_iter().map(|diagnostic| diagnostic.span).collect();
            spans(&table, &mut all);
            for span in all {
                let of_text = span.start.checked_sub(base).zip(span.end.checked_sub(base));
                prop_assert!(of_text.is_some_and(|(start, end)| text.get(start..end).is_some()), "{span:?} in {text:?}");
                let range = doubtful(&text, span.start - base);
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
