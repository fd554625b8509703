//! The engine's own settings of a stage: resources, time-outs, retries.

use crate::kind::ports::Resources;
use crate::process::job::Reason;
use crate::toml::deserialize::read;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// The engine's own settings of a stage. None of them is part of a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub cores: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub timeout_seconds: Option<f64>,
    pub retries: u32,
    pub retry_on: Vec<Reason>,
}

impl Settings {
    pub(crate) fn resources(&self, of_kind: Resources) -> Resources {
        Resources {
            cores: self.cores.unwrap_or(of_kind.cores).max(1),
            memory_bytes: self.memory_bytes.unwrap_or(of_kind.memory_bytes),
        }
    }
}

/// Removes the engine's own settings from a stage's table and reads them.
pub(crate) fn read_settings(table: &mut TomlTable, diagnostics: &mut Vec<Diagnostic>) -> Settings {
    let mut settings = Settings::default();
    let mut wrong = |value: &Value, what: &str| diagnostics.push(Diagnostic::new(value.span.clone(), what));
    if let Some(Entry { value, key }) = table.shift_remove("resources") {
        for (field, entry) in value.as_table().into_iter().flatten() {
            match (field.as_str(), &entry.value.content) {
                ("cores", Content::Integer(cores @ 1..=65_535)) => settings.cores = Some(*cores as u32),
                ("memory", Content::Text(text)) => match parse_bytes(text) {
                    Some(bytes) => settings.memory_bytes = Some(bytes),
                    None => wrong(&entry.value, "`memory` is a size such as \"8 GiB\""),
                },
                ("cores", _) => wrong(&entry.value, "`cores` is an integer of at least 1"),
                ("memory", _) => wrong(&entry.value, "`memory` is a size such as \"8 GiB\""),
                _ => wrong(
                    &Value { span: entry.key.clone(), ..entry.value.clone() },
                    "`resources` has `cores` and `memory`",
                ),
            }
        }
        if value.as_table().is_none() {
            wrong(&Value { span: key, ..value }, "`resources` is a table with `cores` and `memory`");
        }
    }
    if let Some(Entry { value, .. }) = table.shift_remove("timeout_seconds") {
        match value.content {
            Content::Integer(seconds @ 1..) => settings.timeout_seconds = Some(seconds as f64),
            Content::Float(seconds) if seconds > 0.0 => settings.timeout_seconds = Some(seconds),
            _ => wrong(&value, "`timeout_seconds` is a number above 0"),
        }
    }
    if let Some(Entry { value, .. }) = table.shift_remove("retries") {
        match value.content {
            Content::Integer(times @ 0..=1000) => settings.retries = times as u32,
            _ => wrong(&value, "`retries` is an integer between 0 and 1000"),
        }
    }
    if let Some(Entry { value, .. }) = table.shift_remove("retry_on") {
        match read::<Vec<Reason>>(&value) {
            Ok(reasons) => settings.retry_on = reasons,
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    settings
}

fn parse_bytes(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    };
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| (number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("8 GiB"), Some(8 << 30));
        assert_eq!(parse_bytes("1.5MB"), Some(1_500_000));
        assert_eq!(parse_bytes("12"), Some(12));
        assert_eq!(parse_bytes("a lot"), None);
    }
}
