//! Greedy search: the likeliest token each time, the first of equals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task::{CheckStrategy, GenerateError, Generated, Task, one_by_one};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Greedy search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Greedy {}

impl CheckStrategy for Greedy {}

pub(super) fn run(task: Task<'_>) -> Result<Vec<Vec<Generated>>, GenerateError> {
    one_by_one(task, |_, logits| first_largest(logits))
}

/// Returns the place of the largest number, of equals the first.
fn first_largest(numbers: &[f32]) -> u32 {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equals_the_first_wins() {
        assert_eq!(first_largest(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(first_largest(&[f32::NEG_INFINITY, -1.0]), 1);
    }
}
