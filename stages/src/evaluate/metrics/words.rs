//! The length of a text in words.

use metrics::words;

use super::super::metric::{Aggregate, Better, Metric, Range, RowScore, Subject, rows_say_why};

pub(super) const WORDS: Metric = Metric {
    name: "words",
    description: "Whitespace-separated words of a text.",
    subject: Subject::Rows,
    needs: &[],
    label: "words",
    digits: 1,
    better: Better::Neither,
    range: Range::Integers,
    score: RowScore::Text(|text| words::count(text) as f64),
    aggregate: Aggregate::Statistics,
    why_missing: rows_say_why,
};
