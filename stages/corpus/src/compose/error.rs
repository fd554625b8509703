//! What can be wrong with a file of templates.

use std::ops::Range;

/// Says why templates cannot be used, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The text is not TOML, or has other entries than templates have.
    #[error("{message}")]
    Syntax {
        /// The bytes it is about, if it is about some.
        span: Option<Range<usize>>,
        /// What the parser said.
        message: String,
    },
    /// The file is of another format.
    #[error("templates of format {format} are not known: this is format 2")]
    Format {
        /// The bytes of the number.
        span: Range<usize>,
        /// The format it names.
        format: u32,
    },
    /// A sentence can have no properties.
    #[error("`max_properties` is 0: a sentence holds at least one property")]
    NoProperties {
        /// The bytes of the number.
        span: Range<usize>,
    },
    /// A sentence may have more properties than any has.
    #[error(
        "`max_properties` is {count}: a sentence holds at most {} properties",
        super::templates::MOST_PROPERTIES
    )]
    TooManyProperties {
        /// The bytes of the number.
        span: Range<usize>,
        /// The number.
        count: usize,
    },
    /// A name is given to two classes.
    #[error("`{name}` is in the class `{first}` and in the class `{second}`")]
    TwoClasses {
        /// The bytes of the second.
        span: Range<usize>,
        /// The property.
        name: String,
        /// The class that has it first.
        first: String,
        /// The class that has it again.
        second: String,
    },
    /// A class is named that is not there.
    #[error("there is no class `{name}`; the classes are {known}")]
    UnknownClass {
        /// The bytes of the text that names it.
        span: Range<usize>,
        /// The name.
        name: String,
        /// The classes there are.
        known: String,
    },
    /// A list is named that is not there.
    #[error("there is no list `{name}`; the lists are {known}")]
    UnknownList {
        /// The bytes of the text that names it.
        span: Range<usize>,
        /// The name.
        name: String,
        /// The lists there are.
        known: String,
    },
    /// A slot is not written as one.
    #[error("a slot is written `{{class:list}}`, not `{written}`")]
    Slot {
        /// The bytes of the sentence.
        span: Range<usize>,
        /// What stands there.
        written: String,
    },
    /// A sentence names a class twice.
    #[error("the sentence has two slots for `{class}`")]
    RepeatedSlot {
        /// The bytes of the sentence.
        span: Range<usize>,
        /// The class.
        class: String,
    },
    /// A sentence says nothing.
    #[error("the sentence has no slot")]
    NoSlot {
        /// The bytes of the sentence.
        span: Range<usize>,
    },
    /// A class has no sentence for a number of properties.
    #[error("no sentence is of `{class}` alone and takes {count} of it")]
    Uncovered {
        /// The bytes of the list of sentences.
        span: Range<usize>,
        /// The class.
        class: String,
        /// The number of properties.
        count: usize,
    },
}

impl TemplateError {
    /// Returns the bytes of the text that the error is about.
    pub fn span(&self) -> Option<Range<usize>> {
        match self {
            TemplateError::Syntax { span, .. } => span.clone(),
            TemplateError::Format { span, .. }
            | TemplateError::NoProperties { span }
            | TemplateError::TooManyProperties { span, .. }
            | TemplateError::TwoClasses { span, .. }
            | TemplateError::UnknownClass { span, .. }
            | TemplateError::UnknownList { span, .. }
            | TemplateError::Slot { span, .. }
            | TemplateError::RepeatedSlot { span, .. }
            | TemplateError::NoSlot { span }
            | TemplateError::Uncovered { span, .. } => Some(span.clone()),
        }
    }
}
