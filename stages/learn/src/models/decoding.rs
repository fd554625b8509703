//! What passes between a network and those who train it or write outputs with it.

use burn_tensor::Tensor;

/// What hides a token from others. Large, and not infinite: a row of nothing but filling has
/// nothing to look at, and must not become NaN.
pub(crate) const HIDDEN: f32 = -1e30;

/// A network that reads sequences, as pieces that are computed one after the other.
///
/// What a piece leaves is what the next one takes, and nothing else that has a derivative passes
/// between them: each can be computed again from what it took.
pub(crate) trait Pieces {
    /// Returns how many there are.
    fn count(&self) -> usize;

    /// Computes one of them. The first takes nothing; the last leaves one matrix, the states before
    /// the tokens of outputs, `[output tokens, hidden]`, as the head takes them.
    fn compute(&self, number: usize, taken: Vec<Tensor<2>>) -> Vec<Tensor<2>>;

    /// Says whether anything in the first one learns.
    fn first_learns(&self) -> bool;
}

/// A batch of texts on their way, with what a network remembers of their tokens.
pub(crate) trait Continuation {
    /// Adds a token to each row, and returns the logits of what follows, row by row.
    fn advance(&mut self, tokens: &[u32]) -> Vec<f32>;

    /// Keeps rows, in this order, each as often as it is named.
    fn keep(&mut self, rows: &[usize]);
}
