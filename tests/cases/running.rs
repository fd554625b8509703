//! What runs, and what does not.

use crate::lab::Lab;

const TWO: &str = r#"
[stages.a]
kind = "command"
run = "echo hello > outputs/out/a.txt"
outputs.out = {}

[stages.b]
kind = "command"
inputs = { a = "a" }
run = "cat inputs/a/a.txt inputs/a/a.txt > outputs/out/b.txt"
outputs.out = {}
"#;

#[test]
fn a_second_run_does_nothing() {
    let lab = Lab::with(TWO);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["a", "b"]);
    let again = lab.run(["run", "x.toml"]).expect(0);
    assert!(again.ran().is_empty() && again.stderr.contains("0 ran, 2 reused"), "{}", again.stderr);
}
