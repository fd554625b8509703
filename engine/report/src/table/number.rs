//! Numbers as text: the one place that rounds.

/// Stands for NaN and the infinities wherever a number would be shown.
pub(crate) const NOT_A_NUMBER: &str = "not a number";

/// Returns a number rounded to so many decimals, half to even.
///
/// Without `digits` a whole number is shown plain and any other with two decimals, or with two
/// significant figures where two decimals would show nothing.
pub fn number(value: f64, digits: Option<u8>) -> String {
    if !value.is_finite() {
        return NOT_A_NUMBER.to_owned();
    }
    let digits = usize::from(digits.unwrap_or_else(|| digits_for(&[value])));
    if value.abs() >= 1e15 {
        // Beyond this the decimals are not in the number and the zeros fill the line.
        return format!("{value:.digits$e}");
    }
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if is_zero(rest) => rest.to_owned(),
        _ => text,
    }
}

/// Returns a difference rounded like [`number`], with its sign unless it rounds to zero.
pub(crate) fn signed(value: f64, digits: u8) -> String {
    let text = number(value, Some(digits));
    if value > 0.0 && value.is_finite() && !is_zero(&text) { format!("+{text}") } else { text }
}

/// Returns the decimals that suit all the values of a column.
pub(crate) fn digits_for(values: &[f64]) -> u8 {
    if values.iter().all(|value| value.fract() == 0.0) {
        return 0;
    }
    let largest = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    if largest >= 0.01 {
        return 2;
    }
    // Two significant figures of the largest: a column of 0.00 would say that nothing was measured.
    let tens = largest.log10().floor().max(-300.0);
    (1.0 - tens).min(12.0) as u8
}

/// Returns the decimals with which a published number was written, as far as its digits tell.
pub(crate) fn decimals(value: f64) -> u8 {
    let text = format!("{value}");
    let count = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    count.min(9) as u8
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_digits_follow_the_value() {
        assert_eq!(number(0.416, None), "0.42");
        assert_eq!(number(42.654, None), "42.65");
        assert_eq!(number(3300.0, None), "3300");
        assert_eq!(number(0.00041, None), "0.00041");
        assert_eq!(number(0.0099, None), "0.0099");
    }

    #[test]
    fn digits_can_be_asked_for() {
        assert_eq!(number(2.0, Some(2)), "2.00");
        assert_eq!(number(0.5, Some(0)), "0");
        assert_eq!(number(1.5, Some(0)), "2");
        assert_eq!(number(1.5e300, Some(1)), "1.5e300");
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(number(-0.001, Some(2)), "0.00");
        assert_eq!(number(-0.0, None), "0");
        assert_eq!(signed(0.001, 2), "0.00");
        assert_eq!(signed(0.01, 2), "+0.01");
        assert_eq!(signed(-0.01, 2), "-0.01");
    }

    #[test]
    fn what_is_not_a_number_says_so() {
        assert_eq!(number(f64::NAN, Some(2)), NOT_A_NUMBER);
        assert_eq!(number(f64::NEG_INFINITY, None), NOT_A_NUMBER);
        assert_eq!(signed(f64::INFINITY, 2), NOT_A_NUMBER);
    }

    #[test]
    fn a_column_shares_its_digits() {
        assert_eq!(digits_for(&[0.0, 1.0]), 0);
        assert_eq!(digits_for(&[0.0, 0.5, 732.74]), 2);
        assert_eq!(digits_for(&[0.001, 0.0004]), 4);
        assert_eq!(digits_for(&[]), 0);
        assert_eq!(digits_for(&[f64::MIN_POSITIVE / 4.0]), 12);
    }

    #[test]
    fn decimals_are_counted_as_written() {
        assert_eq!(decimals(19.0), 0);
        assert_eq!(decimals(-23.76), 2);
        assert_eq!(decimals(1.0 / 3.0), 9);
    }
}
