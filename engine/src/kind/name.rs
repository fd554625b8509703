//! Names that become parts of paths: checked once, by one type, when an experiment is planned.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use cache::Digest;

/// The longest name, in bytes. File systems allow 255, and suffixes are added here and there.
const MOST_BYTES: usize = 128;

/// A name of a port or an output: letters, digits, `_` and `-`, so that it is one part of a path
/// and can lead nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that cannot name a port or an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a port or an output: use letters, digits, `_` and `-`, at most {MOST_BYTES} bytes"
)]
pub struct InvalidName(String);

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

/// Returns whether a text can name a stage, an axis, a port or an output.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MOST_BYTES).contains(&text.len())
        && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// Returns whether a text can be the name of a stage in full, with the namespaces that it is in.
pub(crate) fn is_stage_name(text: &str) -> bool {
    text.split('/').all(is_name)
}

/// Returns the name of something in a namespace as seen from outside. The namespace of an experiment
/// itself is empty.
pub(crate) fn qualified(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Returns the namespace of a name as seen from outside, and the name in it.
pub(crate) fn split_namespace(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// Returns the folder of an input below a stage's folder: `inputs/PORT` or `inputs/PORT/LABEL`.
pub(crate) fn input_folder(port: &Name, label: Option<&str>) -> PathBuf {
    let mut folder = PathBuf::from("inputs").join(&**port);
    folder.extend(label.map(label_as_name));
    folder
}

/// Returns the folder of an output below a stage's folder: `outputs/NAME`.
pub(crate) fn output_folder(name: &Name) -> PathBuf {
    PathBuf::from("outputs").join(&**name)
}

/// Writes a label so that it is one part of a path: what may not stand in one is written as `%` and
/// its bytes, so that two labels never become one. A long label is cut and ends in a digest.
fn label_as_name(label: &str) -> String {
    let mut name = String::new();
    for (at, character) in label.char_indices() {
        let is_plain = character.is_alphanumeric() || "_-=,+".contains(character);
        if is_plain || (character == '.' && at > 0) {
            name.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if name.len() > MOST_BYTES {
        name.truncate(name.floor_char_boundary(MOST_BYTES - 11));
        name.push_str(&format!("%{}", Digest::of(label.as_bytes()).short()));
    }
    name
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        let long = "x".repeat(MOST_BYTES + 1);
        for text in
            ["", ".", "..", "a/b", "/a", "../a", "a\\b", "a b", "a\0", "a\n", "\u{1b}[0m", "a.b", &long]
        {
            assert!(Name::new(text).is_err(), "{text:?}");
        }
        assert_eq!(input_folder(&Name::new("mol2cap").unwrap(), None), PathBuf::from("inputs/mol2cap"));
    }

    #[test]
    fn usual_labels_stay_as_they_are() {
        assert_eq!(label_as_name("ties/0.5"), "ties%2F0.5");
        assert_eq!(label_as_name("slerp"), "slerp");
        assert_eq!(label_as_name(".."), "%2E.");
    }

    proptest! {
        #[test]
        fn a_label_is_one_part_of_a_path_and_no_other_labels(a in ".{1,60}", b in ".{1,60}") {
            let folder = input_folder(&Name::new("p").unwrap(), Some(&a));
            let parts: Vec<_> = folder.components().collect();
            prop_assert_eq!(parts.len(), 3);
            prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
            prop_assert!(parts[2].as_os_str().len() <= MOST_BYTES);
            prop_assert_eq!(a == b, label_as_name(&a) == label_as_name(&b));
        }
    }
}
