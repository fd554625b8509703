//! Reads `config.json`: every value by name, with an error that names it.

use serde_json::{Map, Value};

/// A configuration that no model can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`config.json`: `{field}`: {problem}")]
pub struct UnusableConfig {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads the fields of one table.
pub(crate) struct Reader<'a> {
    table: &'a Map<String, Value>,
    path: String,
}

impl<'a> Reader<'a> {
    /// Reads a whole configuration.
    pub(crate) fn new(config: &'a Map<String, Value>) -> Self {
        Self { table: config, path: String::new() }
    }

    /// Makes an error about a field.
    pub(crate) fn unusable(&self, field: &str, problem: impl Into<String>) -> UnusableConfig {
        UnusableConfig { field: format!("{}{field}", self.path), problem: problem.into() }
    }

    /// Returns a field unless it is absent or null.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.table.get(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        field: &str,
        wanted: &str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, UnusableConfig> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let wrong = || self.unusable(field, format!("{value} is not {wanted}"));
        take(value).map(Some).ok_or_else(wrong)
    }

    fn required<T>(&self, field: &str, found: Option<T>) -> Result<T, UnusableConfig> {
        found.ok_or_else(|| self.unusable(field, "is missing"))
    }

    /// Reads a whole number above 0, if there is one.
    pub(crate) fn optional_size(&self, field: &str) -> Result<Option<usize>, UnusableConfig> {
        // Beyond this no tensor can be, whatever a damaged file says.
        const LARGEST: u64 = 1 << 31;
        let take = |value: &Value| value.as_u64().filter(|size| (1..=LARGEST).contains(size));
        Ok(self.read(field, "a whole number above 0", take)?.map(|size| size as usize))
    }

    /// Reads a whole number above 0.
    pub(crate) fn size(&self, field: &str) -> Result<usize, UnusableConfig> {
        self.required(field, self.optional_size(field)?)
    }

    /// Reads a whole number above 0, or takes the default.
    pub(crate) fn size_or(&self, field: &str, default: usize) -> Result<usize, UnusableConfig> {
        Ok(self.optional_size(field)?.unwrap_or(default))
    }

    /// Reads a number.
    pub(crate) fn number(&self, field: &str) -> Result<f64, UnusableConfig> {
        self.required(field, self.read(field, "a number", Value::as_f64)?)
    }

    /// Reads a number, or takes the default.
    pub(crate) fn number_or(&self, field: &str, default: f64) -> Result<f64, UnusableConfig> {
        Ok(self.read(field, "a number", Value::as_f64)?.unwrap_or(default))
    }

    /// Reads a number above 0.
    pub(crate) fn positive(&self, field: &str) -> Result<f64, UnusableConfig> {
        self.check_positive(field, self.number(field)?)
    }

    /// Reads a number above 0, or takes the default.
    pub(crate) fn positive_or(&self, field: &str, default: f64) -> Result<f64, UnusableConfig> {
        self.check_positive(field, self.number_or(field, default)?)
    }

    /// Models compute in f32, in which what is too small is 0 and what is too large no
    /// number.
    fn check_positive(&self, field: &str, number: f64) -> Result<f64, UnusableConfig> {
        if (number as f32).is_finite() && number as f32 > 0.0 {
            Ok(number)
        } else {
            Err(self.unusable(field, format!("{number} is not a number above 0")))
        }
    }

    /// Reads true or false, or takes the default.
    pub(crate) fn truth_or(&self, field: &str, default: bool) -> Result<bool, UnusableConfig> {
        Ok(self.read(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Reads a text, or takes the default.
    pub(crate) fn text_or(&self, field: &str, default: &'a str) -> Result<&'a str, UnusableConfig> {
        Ok(self.read(field, "a text", Value::as_str)?.unwrap_or(default))
    }

    /// Reads the id of a token, or takes the default.
    pub(crate) fn token_or(&self, field: &str, default: u32) -> Result<u32, UnusableConfig> {
        let take = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(self.read(field, "the id of a token", take)?.unwrap_or(default))
    }

    /// Reads a table, if there is one.
    pub(crate) fn table(&self, field: &str) -> Result<Option<Self>, UnusableConfig> {
        let path = format!("{}{field}.", self.path);
        Ok(self.read(field, "a table", Value::as_object)?.map(|table| Self { table, path }))
    }
}
