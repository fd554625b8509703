//! Outputs on their way.

/// What hides a token from others. Large, and not infinite: a row of nothing but filling has
/// nothing to look at, and must not become NaN.
pub(crate) const MASK_VALUE: f32 = -1e30;

/// A batch of texts on their way, with what a network remembers of their tokens.
pub(crate) trait Continuation {
    /// Adds a token to each row, and returns the logits of what follows, row by row.
    fn step(&mut self, tokens: &[u32]) -> Vec<f32>;

    /// Keeps rows, in this order, each as often as it is named.
    fn reorder(&mut self, rows: &[usize]);
}
