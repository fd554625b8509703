//! Win rate of molecules: the share of outputs that are valid, near their reference in length, and
//! like it: "Feedback-aligned Mixed LLMs", chr-F above 0.3 and a length deviation of less than 5
//! characters either way. It is a share per model, not a comparison of two.

/// What chr-F (beta 1) must exceed.
pub const LEAST_CHRF: f64 = 0.3;

/// What the length deviation must stay below, in characters, either way.
pub const MOST_DEVIATION: i64 = 5;

/// Says whether an output wins.
pub fn is_win(chrf: f64, deviation_characters: i64, is_molecule: bool) -> bool {
    is_molecule && chrf > LEAST_CHRF && deviation_characters.abs() < MOST_DEVIATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_must_hold() {
        assert!(is_win(0.31, 4, true) && is_win(0.31, -4, true));
        assert!(
            !is_win(0.3, 0, true)
                && !is_win(0.9, 5, true)
                && !is_win(0.9, -5, true)
                && !is_win(1.0, 0, false)
        );
    }
}
