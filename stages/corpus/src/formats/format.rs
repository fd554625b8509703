//! The formats there are, and which a file's name stands for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names how rows are laid out in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values as in RFC 4180: cells may be quoted and then hold anything.
    Csv,
    /// Tab-separated values: tabs separate and nothing quotes.
    Tsv,
    /// One JSON object per line.
    Jsonl,
}

impl Format {
    /// Lists every format.
    pub const ALL: &'static [Format] = &[Format::Csv, Format::Tsv, Format::Jsonl];

    /// Returns the format that a file's name ends in, looking through a last `.gz`.
    ///
    /// `.csv`, `.tsv`, `.jsonl` and `.ndjson` count, in either case. `.txt` does not: it says
    /// nothing about what separates the columns.
    pub fn from_path(path: &str) -> Option<Format> {
        let name = path.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let (stem, extension) = name.rsplit_once('.')?;
        if stem.is_empty() {
            return None;
        }
        match extension {
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::from_path("data/props.tsv.gz"), Some(Format::Tsv));
        assert_eq!(Format::from_path("A.CSV"), Some(Format::Csv));
        assert_eq!(Format::from_path("rows.jsonl"), Some(Format::Jsonl));
        assert_eq!(Format::from_path("rows.ndjson.GZ"), Some(Format::Jsonl));
    }

    #[test]
    fn other_names_decide_nothing() {
        for name in ["rows.txt", "csv", ".csv", "rows.gz", "rows.csv.zip", ""] {
            assert_eq!(Format::from_path(name), None, "{name}");
        }
    }

    #[test]
    fn formats_are_named_in_small_letters() {
        assert_eq!(serde_json::to_string(Format::ALL).unwrap(), r#"["csv","tsv","jsonl"]"#);
    }
}
