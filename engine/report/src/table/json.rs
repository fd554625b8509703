//! The table as JSON: everything, at full precision, provenance included.

use crate::table::cells::Table;
use crate::table::normalize::normalize;

/// Returns the whole table as indented JSON.
///
/// # Panics
///
/// Never: a normalized table has only string keys and finite numbers.
pub fn json(table: &Table) -> String {
    let mut out = serde_json::to_string_pretty(&normalize(table))
        .expect("a normalized table has only string keys and finite numbers");
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::cells::CellValue;
    use crate::table::formatted::tests::{cell, column, made, table};
    use insta::assert_snapshot;

    #[test]
    fn everything_is_there_and_finite() {
        let mut table = table(
            vec![column("accuracy")],
            vec![
                made("a", vec![cell(CellValue::Number(0.1 + 0.2), Some(0.3))]),
                made("b", vec![cell(CellValue::Number(f64::NAN), Some(f64::INFINITY))]),
            ],
        );
        table.notes.push("profile mini".into());
        assert_snapshot!(json(&table), @r#"
        {
          "title": "A table",
          "columns": [
            {
              "name": "accuracy",
              "label": "accuracy",
              "digits": null,
              "better": null
            }
          ],
          "rows": [
            {
              "label": "a",
              "origin": {
                "made": {
                  "stage": "scores[a]"
                }
              },
              "cells": [
                {
                  "value": {
                    "number": 0.30000000000000004
                  },
                  "published": 0.3,
                  "provenance": [
                    {
                      "stage": "scores",
                      "artifact": "c0ffee",
                      "path": "metrics.json#accuracy"
                    }
                  ]
                }
              ]
            },
            {
              "label": "b",
              "origin": {
                "made": {
                  "stage": "scores[b]"
                }
              },
              "cells": [
                {
                  "value": {
                    "missing": {
                      "reason": "not a number"
                    }
                  },
                  "published": null,
                  "provenance": [
                    {
                      "stage": "scores",
                      "artifact": "c0ffee",
                      "path": "metrics.json#accuracy"
                    }
                  ]
                }
              ]
            }
          ],
          "deltas": [],
          "notes": [
            "profile mini"
          ]
        }
        "#);
    }
}
