//! What every kind of adapter has.

use choice::FieldError;

/// What every adapter can say of its parameters.
pub trait CheckAdapter {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), FieldError>;
}
