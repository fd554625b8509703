//! Making captions of property lists, by templates.
//!
//! The templates are data, a TOML file:
//!
//! ```toml
//! format = 2
//! max_properties = 5              # properties in one sentence
//! rest = "role"                   # the class of what no other class takes
//! sentences = [
//!     "The molecule is {role:articled}.",
//!     "The molecule is {treatment:plain}.",
//!     "The molecule is {role:articled} for {treatment:both}.",
//! ]
//!
//! [say]                           # what is said in place of a property's own name
//! odor_evaluation = "odor evaluation"
//!
//! [[class]]                       # asked in the order written; names before affixes
//! name = "treatment"
//! suffixes = [" treatment"]
//!
//! [[class]]
//! name = "role"
//!
//! [lists.plain]                   # "x", "x and y", "x, y, and z"
//!
//! [lists.articled]
//! each = "a "                     # "a x", "a x and a y"
//!
//! [lists.both]
//! before = "both "
//! min = 2
//! max = 2
//! ```
//!
//! A sentence has slots, `{class:list}`. It fits a group of properties if its classes are theirs
//! and its lists take that many of each. Every class has a sentence of its own for every number
//! of properties, or the file is refused: so whatever the properties are, there is a caption.

mod caption;
mod draw;
mod error;
mod sentence;
mod templates;

pub use caption::ComposeError;
pub use error::TemplateError;
pub use templates::Templates;
