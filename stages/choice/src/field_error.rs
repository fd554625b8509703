//! What is wrong with the parameters of a table, and with which of them.

use std::fmt;

/// What is wrong with a parameter of a table, or with several of them together.
///
/// ```
/// use choice::FieldError;
///
/// let error = FieldError::new("label_smoothing", "`label_smoothing` is below 0.5, not 0.6");
/// let error = error.within("robust_dpo").within("objective");
/// assert_eq!(error.path, "objective.robust_dpo.label_smoothing");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field from the table: names joined by dots, positions in lists in brackets,
    /// as in `metrics[2]`. Empty for the table itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl FieldError {
    /// Says what is wrong with the field at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), help: None }
    }

    /// Says what is wrong with an item of a list, counted from 0.
    pub fn at(list: &str, position: usize, message: impl Into<String>) -> Self {
        Self::new(format!("{list}[{position}]"), message)
    }

    /// Checks that numbers, each by the path of its field, are not 0.
    ///
    /// # Errors
    /// The first that is.
    pub fn check_counts<P: AsRef<str>, N: Default + PartialEq>(
        counts: impl IntoIterator<Item = (P, N)>,
    ) -> Result<(), Self> {
        match counts.into_iter().find(|(_, count)| *count == N::default()) {
            Some((path, _)) => {
                let path = path.as_ref();
                Err(Self::new(path, format!("`{path}` is at least 1")))
            }
            None => Ok(()),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the same error for the table that has the checked value in a field.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{field}{separator}{}", self.path);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_count_of_0_is_named() {
        assert_eq!(FieldError::check_counts([("steps", 1), ("rows", 2)]), Ok(()));
        let error = FieldError::check_counts([("steps", 1), ("rows", 0), ("tokens", 0)]).unwrap_err();
        assert_eq!(error, FieldError::new("rows", "`rows` is at least 1"));
    }

    #[test]
    fn a_path_grows_outwards() {
        let error = FieldError::at("", 1, "1.5 is no density");
        assert_eq!(error.path, "[1]");
        let error = error.within("cap2mol").within("density");
        assert_eq!(error.path, "density.cap2mol[1]");
        assert_eq!(FieldError::new("", "").within("ratio").path, "ratio");
    }
}
