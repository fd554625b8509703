//! What every kind of adapter has.

/// What every adapter can say of its parameters.
pub trait CheckAdapter {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String>;
}
