//! The methods of merging: one file each, composed of the functions in `ops.rs`.

use choice::choices;

mod common;
pub mod dare;
pub mod slerp;
pub mod soup;
pub mod task_arithmetic;
pub mod ties;

pub use self::common::{Merge, PerTensor};

choices! {
    /// How models are merged.
    pub enum Method: Merge in "merge" {
        /// Spherical interpolation between two models.
        slerp::Slerp,
        /// Trimmed task vectors, merged where their signs agree.
        ties::Ties,
        /// The base and a weighted sum of task vectors.
        task_arithmetic::TaskArithmetic,
        /// A weighted mean.
        soup::Soup,
        /// Task vectors of which a random part is dropped.
        dare::Dare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expert::Normalization;
    use schemars::schema_for;

    fn method(written: &str) -> Result<Method, String> {
        serde_json::from_str(written).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_written_out() {
        for (written, expected) in [
            (r#"{"slerp":{}}"#, r#"{"slerp":{"vectors":"weights","angle":"tensor"}}"#),
            (
                r#"{"ties":{}}"#,
                r#"{"ties":{"density":0.2,"rule":"mergekit","trim":"tensor","lambda":1.0,"compute_dtype":"f32"}}"#,
            ),
            (r#"{"task_arithmetic":{}}"#, r#"{"task_arithmetic":{"lambda":1.0,"compute_dtype":"f32"}}"#),
            (r#"{"soup":{}}"#, r#"{"soup":{}}"#),
            (
                r#"{"dare":{"density":[0.2,1]}}"#,
                r#"{"dare":{"density":[0.2,1.0],"seed":0,"join":"sum","lambda":1.0}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&method(written).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn densities_are_above_zero_and_at_most_one() {
        for density in ["0", "-0.1", "1.1", "[0.5, 0]", "[]", r#"{"a":2}"#, r#"[{"value":0}]"#, "\"x\""] {
            let message = match method(&format!(r#"{{"ties":{{"density":{density}}}}}"#)) {
                Ok(method) => method.check(&["a"], Normalization::SumToOne).unwrap_err().message,
                Err(message) => message,
            };
            assert!(message.contains("density") || message.contains("empty") || message.contains("expected"));
        }
        for (density, path) in [
            ("0", "density"),
            ("[0.5, 0]", "density[1]"),
            (r#"{"a":[{"value":[1, 2]}]}"#, "density.a[0].value[1]"),
            (r#"{"b":1}"#, "density.b"),
        ] {
            let method = method(&format!(r#"{{"ties":{{"density":{density}}}}}"#)).unwrap();
            assert_eq!(method.check(&["a"], Normalization::SumToOne).unwrap_err().path, path);
        }
        let each = method(r#"{"ties":{"density":{"a":0.5,"b":[1,0.1]}}}"#).unwrap();
        assert_eq!(each.check(&["a", "b"], Normalization::SumToOne), Ok(()));
        assert!(each.check(&["a", "c"], Normalization::SumToOne).unwrap_err().message.contains("names `b`"));
        assert!(
            each.check(&["a", "b", "c"], Normalization::SumToOne)
                .unwrap_err()
                .message
                .contains("leaves out `c`")
        );
    }

    #[test]
    fn slerp_takes_two_and_a_ratio() {
        let slerp = method(r#"{"slerp":{}}"#).unwrap();
        assert!(
            slerp
                .check(&["a", "b", "c"], Normalization::SumToOne)
                .unwrap_err()
                .message
                .contains("there are 3")
        );
        assert!(slerp.check(&["a", "b"], Normalization::None).unwrap_err().message.contains("`ratio`"));
        assert!(!slerp.needs_base());
        assert!(method(r#"{"slerp":{"vectors":"task"}}"#).unwrap().needs_base());
    }

    #[test]
    fn the_schema_tells_settings_from_tables() {
        let schema = schema_for!(Method).to_value().to_string();
        for word in ["task_arithmetic", "name_contains", "numbers spread over the layers", "embeddings"] {
            assert!(schema.contains(word), "{word}: {schema}");
        }
    }
}
