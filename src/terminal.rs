//! Printing, so that no text from outside can send commands to a terminal.
//!
//! Names, messages, logs and rows are written by whoever wrote the experiment, the data or the
//! model. Every command prints through [`stdout`] and [`stderr`], which make control characters
//! visible the way the Rust compiler does in its reports: those of ASCII by their picture (`␛`), the
//! others, and what turns the direction of writing around, by `�`. One character becomes one
//! character, so that columns stay aligned. Newlines and tabs are printed as they are.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, StderrLock, StdoutLock, Write};

/// Returns a text with everything visible that a terminal would act on, but newlines and tabs.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    visible(text, |c, next| matches!(c, '\n' | '\t') || (c == '\r' && next == Some('\n')))
}

/// Returns a text as [`printable`] does, on one line: a newline in a name or a message would let
/// it pass for a line of ours.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    visible(text, |_, _| false)
}

/// Returns a JSON document that has in escapes what a terminal would act on; its values are the
/// same. Below U+0020 JSON has nothing but escapes anyway.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    let acts = |c: char| c > '\u{1f}' && picture(c).is_some();
    if !document.contains(acts) {
        return Cow::Borrowed(document);
    }
    let mut out = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if acts(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Returns standard output for everything but raw data.
pub(crate) fn stdout() -> Printable<StdoutLock<'static>> {
    Printable::new(io::stdout().lock())
}

/// Returns standard error.
pub(crate) fn stderr() -> Printable<StderrLock<'static>> {
    Printable::new(io::stderr().lock())
}

/// Returns standard output for data that programs read: into a pipe or a file every byte goes as
/// it is, and on a terminal it is made visible.
pub(crate) fn data() -> Box<dyn Write> {
    if io::stdout().is_terminal() { Box::new(stdout()) } else { Box::new(raw()) }
}

/// Returns standard output without any change to what is written, for the content of a file.
pub(crate) fn raw() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// Writes text with escape sequences for colours to standard error. All else in it must be printable.
pub(crate) fn print_coloured(text: &str) {
    // If even the message cannot be written, only the exit code is left.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Returns whether standard error is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Returns whether reports have colours.
pub(crate) fn has_colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Flushes standard output, so that a failure to write is noticed.
pub(crate) fn flush() -> io::Result<()> {
    io::stdout().flush()
}

/// Replaces what a terminal would act on, unless a character, before the one after it, stays.
fn visible(text: &str, stays: impl Fn(char, Option<char>) -> bool) -> Cow<'_, str> {
    let mut out = String::new();
    // Everything before it is in `out`, or `out` is empty and all of it is as it was.
    let mut copied = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        if let Some(picture) = picture(c).filter(|_| !stays(c, next)) {
            out.push_str(&text[copied..at]);
            out.push(picture);
            copied = at + c.len_utf8();
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Returns what stands for a character that a terminal would act on.
fn picture(c: char) -> Option<char> {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)),
        '\u{7f}' => Some('␡'),
        // C1: among them one that is an escape sequence's beginning in one character. Then what
        // overrides and isolates the direction of writing.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(char::REPLACEMENT_CHARACTER)
        }
        _ => None,
    }
}

/// A writer that makes what passes through it printable. Bytes that are no UTF-8 become `�`.
pub(crate) struct Printable<W: Write> {
    out: W,
    /// The first bytes of a character or of a line ending that is not complete yet.
    incomplete: Vec<u8>,
}

impl<W: Write> Printable<W> {
    /// Puts it before a writer.
    pub(crate) fn new(out: W) -> Self {
        Self { out, incomplete: Vec::new() }
    }

    fn write_incomplete(&mut self) -> io::Result<()> {
        let incomplete = std::mem::take(&mut self.incomplete);
        self.out.write_all(printable(&String::from_utf8_lossy(&incomplete)).as_bytes())
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.incomplete);
        let all: Cow<'_, [u8]> = if all.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            all.extend_from_slice(bytes);
            Cow::Owned(all)
        };
        let (whole, incomplete) = all.split_at(whole_characters(&all));
        self.incomplete = incomplete.to_vec();
        self.out.write_all(printable(&String::from_utf8_lossy(whole)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_incomplete()?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Printable<W> {
    fn drop(&mut self) {
        // A caller that needs to know of failures flushes.
        let _ = self.write_incomplete();
    }
}

/// Returns how many bytes can be judged already: all but a character incomplete, or a carriage return
/// that a newline may follow.
fn whole_characters(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&b'\r') {
        return bytes.len() - 1;
    }
    let tail = bytes.len().saturating_sub(3);
    let begins = |at: &usize| bytes[*at] >= 0xc0;
    match (tail..bytes.len()).rev().find(begins) {
        Some(at) if std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.error_len().is_none()) => at,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_becomes_visible() {
        assert_eq!(printable("\u{1b}]0;title\u{7}"), "␛]0;title␇");
        assert_eq!(printable("a\u{9b}31mb\u{7f}\u{202e}c\u{2066}"), "a�31mb␡�c�");
        assert_eq!(printable("a\rb\r\nc\td\n"), "a␍b\r\nc\td\n");
        assert_eq!(one_line("a\r\nb\tc"), "a␍␊b␉c");
        // Nothing is done to what is no command to a terminal.
        for text in ["", "plain", "ü, 分子, \u{200f}عربي", "█▄▂▁ ± ↑"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({ "a": "\u{1b}\u{7f}\u{9b}\u{202e}\u{2069}é\n" });
        let written = value.to_string();
        let escaped = json(&written);
        assert!(!escaped.contains(|c| picture(c).is_some()), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        assert!(matches!(json("{\"a\":\"é\"}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_writer_sees_characters_in_whatever_pieces_they_come() {
        let text = "a\u{1b}[31mé\u{9b}\r\n分\u{202e}\r!".as_bytes();
        // A bare C1 byte, and characters that are cut off.
        let broken = [text, b"\x9b1m\xe2\x80", b"\xffz\xf0\x9f"].concat();
        let expected = "a␛[31mé�\r\n分�␍!�1m��z�";
        for size in 1..broken.len() {
            let mut out = Vec::new();
            let mut writer = Printable::new(&mut out);
            for piece in broken.chunks(size) {
                writer.write_all(piece).unwrap();
            }
            writer.flush().unwrap();
            drop(writer);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "in pieces of {size}");
        }
    }
}
