//! Closed sets of methods: one file each, named by a table in TOML.
//!
//! [`choices!`] turns a list of modules into an enum whose variants are their parameters.
//! In TOML a choice is a named table, `objective.dpo = { beta = 0.1 }`, and one without
//! parameters is an empty one, `objective.sft = {}`. The crate refuses to know what is chosen:
//! it sees modules, their `VERSION`s and one trait.
//!
//! ```
//! use choice::{Component, choices};
//!
//! pub trait Greeting { fn text(&self) -> String; }
//!
//! mod plain {
//!     pub const VERSION: u32 = 2;
//!     #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//!     #[serde(deny_unknown_fields)]
//!     pub struct Plain { pub name: String }
//!     impl super::Greeting for Plain {
//!         fn text(&self) -> String { format!("good day, {}", self.name) }
//!     }
//! }
//!
//! choices! {
//!     /// How to greet.
//!     pub enum Greet: Greeting in "greet" { plain::Plain }
//! }
//!
//! # fn main() {
//! let greet = Greet::Plain(plain::Plain { name: "Ada".to_owned() });
//! assert_eq!(greet.text(), "good day, Ada");
//! assert_eq!(greet.component(), Component { name: "greet/plain", version: 2 });
//! # }
//! ```

// The macro writes `choice::…` into serde's and schemars' attributes, where `$crate` is only
// text; this makes the path hold in this crate's own tests too.
extern crate self as choice;

mod field_error;

use std::fmt;

pub use field_error::FieldError;
#[doc(hidden)]
pub use schemars;
#[doc(hidden)]
pub use serde;

/// Names one method and the version of what it computes.
///
/// Components enter the keys of results, so a version is raised whenever the same parameters would
/// give other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component {
    /// The group and the module, as in `objective/dpo`.
    pub name: &'static str,
    /// The module's `VERSION`.
    pub version: u32,
}

impl fmt::Display for Component {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} v{}", self.name, self.version)
    }
}

/// Writes the name of a variant as serde's `snake_case` does.
#[doc(hidden)]
pub fn snake_case(variant: &str) -> String {
    let mut name = String::new();
    for (position, letter) in variant.char_indices() {
        if position > 0 && letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Declares a closed set of methods as an enum over their parameters.
///
/// Each entry is `module::Type`. The module has a `pub const VERSION: u32`; the type derives
/// `Clone`, `Debug`, `PartialEq`, `Serialize`, `Deserialize` and `JsonSchema`, says
/// `deny_unknown_fields`, and implements the trait, which must be dyn-safe.
///
/// The enum gets the same derives, externally tagged with snake_case names, and
///
/// - `ALL`, the [`Component`]s in the order written;
/// - `component()`, the component of the chosen method;
/// - `toml_name()`, its name in TOML, and `error_in(field, error)`, which puts the path of an error of its
///   parameters into that of a field with this choice;
/// - `Deref` to `dyn Trait`, so that the trait's methods are called on the enum.
///
/// The enum itself needs neither serde nor schemars among the caller's dependencies, but the
/// crate must be known there under its own name, `choice`.
#[macro_export]
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Enum:ident: $Trait:ident in $group:literal {
            $($(#[$entry:meta])* $module:ident :: $Method:ident),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone,
            Debug,
            PartialEq,
            $crate::serde::Serialize,
            $crate::serde::Deserialize,
            $crate::schemars::JsonSchema,
        )]
        #[serde(crate = "choice::serde", rename_all = "snake_case")]
        #[schemars(crate = "choice::schemars")]
        $vis enum $Enum {
            $(
                $(#[$entry])*
                #[allow(missing_docs, reason = "the variants are documented where they are listed")]
                $Method($module::$Method)
            ),+
        }

        impl $Enum {
            /// Lists every method of the set, in the order written.
            pub const ALL: &'static [$crate::Component] = &[$(
                $crate::Component {
                    name: concat!($group, "/", stringify!($module)),
                    version: $module::VERSION,
                }
            ),+];

            /// Returns the name and version of the chosen method.
            pub fn component(&self) -> $crate::Component {
                match self {
                    $(Self::$Method(_) => $crate::Component {
                        name: concat!($group, "/", stringify!($module)),
                        version: $module::VERSION,
                    }),+
                }
            }

            /// Returns the name of the chosen method, as TOML has it.
            pub fn toml_name(&self) -> String {
                match self {
                    $(Self::$Method(_) => $crate::snake_case(stringify!($Method))),+
                }
            }

            /// Returns an error of the method's parameters for the table that has this choice in a field.
            pub fn error_in(&self, field: &str, error: $crate::FieldError) -> $crate::FieldError {
                error.within(&self.toml_name()).within(field)
            }
        }

        impl ::std::ops::Deref for $Enum {
            type Target = dyn $Trait;

            fn deref(&self) -> &(dyn $Trait + 'static) {
                match self {
                    $(Self::$Method(method) => method),+
                }
            }
        }
    };
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "what the macro expands to is public")]
mod tests {
    use super::{Component, FieldError};
    use serde::{Deserialize, Serialize};

    pub trait Loss {
        fn needs_reference(&self) -> bool {
            false
        }
        fn value(&self, margin: f64) -> f64;
    }

    mod sft {
        use super::*;
        pub const VERSION: u32 = 1;
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Sft {}
        impl Loss for Sft {
            fn value(&self, margin: f64) -> f64 {
                -margin
            }
        }
    }

    mod task_loss {
        use super::*;
        pub const VERSION: u32 = 3;
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct TaskLoss {
            #[serde(default = "beta")]
            pub beta: f64,
        }
        fn beta() -> f64 {
            0.1
        }
        impl Loss for TaskLoss {
            fn needs_reference(&self) -> bool {
                true
            }
            fn value(&self, margin: f64) -> f64 {
                self.beta * margin
            }
        }
    }

    choices! {
        /// What is minimised.
        pub enum Objective: Loss in "objective" {
            sft::Sft,
            /// A loss with a parameter.
            task_loss::TaskLoss,
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        objective: Objective,
    }

    fn parsed(text: &str) -> Result<Objective, toml::de::Error> {
        toml::from_str(text).map(|params: Params| params.objective)
    }

    #[test]
    fn a_choice_is_a_named_table() {
        let task_loss = parsed("objective.task_loss = { beta = 0.5 }").unwrap();
        assert_eq!(task_loss, Objective::TaskLoss(task_loss::TaskLoss { beta: 0.5 }));
        assert_eq!(parsed("objective.sft = {}").unwrap(), Objective::Sft(sft::Sft {}));
    }

    #[test]
    fn defaults_are_written_out() {
        let objective = parsed("objective.task_loss = {}").unwrap();
        let text = toml::to_string(&Params { objective }).unwrap();
        assert_eq!(text, "[objective.task_loss]\nbeta = 0.1\n");
        assert_eq!(parsed(&text).unwrap().component().version, 3);
    }

    #[test]
    fn parts_carry_the_group_the_module_and_its_version() {
        let sft = Component { name: "objective/sft", version: 1 };
        let task_loss = Component { name: "objective/task_loss", version: 3 };
        assert_eq!(Objective::ALL, [sft, task_loss]);
        assert_eq!(parsed("objective.sft = {}").unwrap().component(), sft);
        assert_eq!(task_loss.to_string(), "objective/task_loss v3");
    }

    #[test]
    fn the_name_is_the_one_that_toml_has() {
        for text in ["objective.task_loss = {}", "objective.sft = {}"] {
            let objective = parsed(text).unwrap();
            let error = FieldError::new("beta", "`beta` is above 0");
            let path = objective.error_in("objective", error).path;
            assert_eq!(
                Some(path.as_str()),
                text.split_once(" = ").map(|(path, _)| format!("{path}.beta")).as_deref()
            );
        }
    }

    #[test]
    fn the_trait_is_called_on_the_choice() {
        let objective = parsed("objective.task_loss = { beta = 0.5 }").unwrap();
        assert!(objective.needs_reference());
        assert_eq!(objective.value(3.0), 1.5);
    }

    #[test]
    fn an_unknown_method_names_the_known_ones_and_points_at_itself() {
        let text = "objective.task_los = {}";
        let error = parsed(text).unwrap_err();
        assert!(error.message().contains("expected `sft` or `task_loss`"), "{error}");
        assert_eq!(&text[error.span().unwrap()], "task_los");
    }

    #[test]
    fn an_unknown_field_points_at_itself() {
        let text = "objective.task_loss = { btea = 0.5 }";
        let error = parsed(text).unwrap_err();
        assert!(error.message().contains("expected `beta`"), "{error}");
        assert_eq!(&text[error.span().unwrap()], "btea");
    }

    #[test]
    fn two_methods_at_once_are_refused() {
        assert!(parsed("objective = { sft = {}, task_loss = {} }").is_err());
    }

    #[test]
    fn the_schema_names_every_method() {
        let schema = schemars::schema_for!(Objective).to_value().to_string();
        assert!(schema.contains("\"task_loss\"") && schema.contains("\"sft\""), "{schema}");
        assert!(schema.contains("A loss with a parameter."), "{schema}");
    }
}
