//! How much longer the steps of a tokenizer can make a text.
//!
//! A file of a few bytes can make any length of a word: it puts much before each text, or has
//! replacements that double it again and again. What comes out is bounded before it is made.

use serde_json::Value;

/// The longest text, in bytes as normalizers leave it: the library takes a hundred times as much
/// memory, and no model takes so many tokens.
pub(super) const MOST_BYTES: u64 = 1 << 24;

/// The most bytes that steps make of a text: as many as it has times a factor, and some more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    factor: f64,
    added: f64,
}

/// More than any single character becomes in the steps whose rules are not in the file: the longest
/// compatibility decomposition of Unicode has 33 bytes for 3.
const COMPATIBILITY: f64 = 11.0;

impl Growth {
    /// Finds it for a normalizer or a decoder, as a file describes it.
    pub(super) fn of(step: &Value) -> Self {
        let none = Self { factor: 1.0, added: 0.0 };
        let length = |field: &str| step.get(field).and_then(Value::as_str).map_or(0, str::len) as f64;
        let times = |factor: f64| Self { factor: factor.max(1.0), added: 0.0 };
        match step.get("type").and_then(Value::as_str) {
            Some("Sequence") => {
                let steps = ["normalizers", "decoders"].iter().filter_map(|name| step.get(name)?.as_array());
                steps.flatten().map(Self::of).fold(none, Self::then)
            }
            Some("Prepend") => Self { added: length("prepend"), ..none },
            Some("Replace") => match step.pointer("/pattern/String").and_then(Value::as_str) {
                Some(pattern) if !pattern.is_empty() => times(length("content") / pattern.len() as f64),
                // Whatever it is, it may stand before each byte, and at the end.
                _ => Self { factor: 1.0 + length("content"), added: length("content") },
            },
            Some("Precompiled" | "NFKC" | "NFKD") => times(COMPATIBILITY),
            Some("NFC" | "NFD" | "BertNormalizer" | "Lowercase" | "ByteLevel") => times(3.0),
            _ => none,
        }
    }

    fn then(self, next: Self) -> Self {
        Self { factor: self.factor * next.factor, added: self.added * next.factor + next.added }
    }

    /// Returns how many bytes a text may become.
    pub(super) fn of_bytes(self, bytes: usize) -> f64 {
        bytes as f64 * self.factor + self.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_multiply() {
        let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let growth = |step: &Value| {
            let found = Growth::of(step);
            (found.factor, found.added)
        };
        assert_eq!(growth(&Value::Null), (1.0, 0.0));
        assert_eq!(growth(&replace(json!({ "String": " " }), "\u{2581}")), (3.0, 0.0));
        assert_eq!(growth(&replace(json!({ "String": "``" }), "x")), (1.0, 0.0));
        assert_eq!(growth(&replace(json!({ "Regex": " {2,}" }), "x")), (2.0, 1.0));
        assert_eq!(growth(&replace(json!({ "String": "" }), "xy")), (3.0, 2.0));
        let sequence = json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "ab" }, replace(json!({ "String": "a" }), "aaaa"),
        ] });
        assert_eq!(growth(&sequence), (4.0, 8.0));
    }
}
