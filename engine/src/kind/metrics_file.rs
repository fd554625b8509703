//! `metrics.json`: the file in an artifact that numbers for tables are read from.

/// The file in an artifact that numbers for tables are read from.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// Reads one number: plain, as `{ "value": … }`, or `{ "missing": "reason" }`.
pub(crate) fn read_metric(metrics: &serde_json::Value, metric: &str) -> Result<f64, String> {
    let Some(value) = metrics.get(metric) else {
        return Err(format!("{METRICS_FILE} has no `{metric}`"));
    };
    if let Some(reason) = value.get("missing").and_then(serde_json::Value::as_str) {
        return Err(reason.to_owned());
    }
    let number = value.as_f64().or_else(|| value.get("value")?.as_f64());
    number.ok_or_else(|| format!("`{metric}` in {METRICS_FILE} is not a number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_are_numbers_or_missing_with_a_reason() {
        let metrics =
            json!({ "a": 1.5, "b": { "value": 2 }, "c": { "missing": "no weights" }, "d": "x", "e": null });
        assert_eq!(read_metric(&metrics, "a"), Ok(1.5));
        assert_eq!(read_metric(&metrics, "b"), Ok(2.0));
        assert_eq!(read_metric(&metrics, "c"), Err("no weights".to_owned()));
        for name in ["d", "e", "f"] {
            assert!(read_metric(&metrics, name).is_err(), "{name}");
        }
    }
}
