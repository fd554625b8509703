//! Model folders that say what cannot be computed: `generate` refuses them, and names the file.

use crate::experiment::{experiment, tiny_llama, write_molecules};
use crate::lab::Lab;

/// A model that is made, changed by a script, and asked.
fn asked(script: &str) -> Lab {
    let change = "cp inputs/made/* outputs/model/; chmod u+w outputs/model/*; cd outputs/model";
    let lab = experiment()
        .rows()
        .tokenizer()
        .train("made")
        .set("length.steps", 0)
        .set("model.llama", tiny_llama())
        .stage("model", "command")
        .input("made", "made")
        .set("run", format!("{change}; {script}"))
        .set("outputs.model.type", "weights")
        .generate("outputs", "model")
        .set("max_new_tokens", 3)
        .lab();
    write_molecules(&lab);
    lab
}

/// Puts the bytes of one single float at the end of the tensors.
fn last_number(bytes: &str) -> String {
    format!(
        "size=$(wc -c < model.safetensors); \
         printf '{bytes}' | dd of=model.safetensors bs=1 seek=$((size - 4)) conv=notrunc 2> dd.log; rm dd.log"
    )
}

fn replaced(file: &str, from: &str, to: &str) -> String {
    format!("sed 's/{from}/{to}/' {file} > new; ! cmp -s new {file}; mv new {file}")
}

#[test]
fn what_cannot_be_computed_is_refused_with_its_file() {
    let printf = |text: &str, file: &str| format!("printf %s '{text}' > {file}");
    let cases = [
        (
            last_number(r"\000\000\300\177"),
            "model.safetensors: tensor `model.norm.weight` holds 1 NaN and 0 infinite",
        ),
        (
            last_number(r"\000\000\200\177"),
            "model.safetensors: tensor `model.norm.weight` holds 0 NaN and 1 infinite",
        ),
        (
            replaced("config.json", r#""rope_theta": [0-9.]*"#, r#""rope_theta": 0"#),
            "rope_theta`: 0 is not a number above 0",
        ),
        (
            printf(r#"{"eos_token_id": 2"#, "generation_config.json"),
            "generation_config.json: it is no JSON object",
        ),
        (
            printf(r#"{"eos_token_id": "x"}"#, "generation_config.json"),
            "generation_config.json: `eos_token_id` is \"x\"",
        ),
        (
            replaced("tokenizer.json", r#""dropout": null"#, r#""dropout": 0.5"#),
            "tokenizer.json: `model.dropout` is 0.5",
        ),
        (
            replaced(
                "tokenizer.json",
                r#""normalizer": null"#,
                r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}"#,
            ),
            "tokenizer.json: `tokenizers` panicked",
        ),
    ];
    for (script, message) in cases {
        let told = asked(&script).run(["run", "x.toml"]).expect(3);
        assert_eq!(told.ran(), ["made", "model", "rows", "tokenizer"], "{script}\n{}", told.stderr);
        let _ = told.says(&["FAILED    outputs", message]);
    }
    asked("true").run(["run", "x.toml"]).expect(0);
}
