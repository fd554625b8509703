//! What tests of several kinds begin with: a few rows, and the smallest model there is.

use engine::testing::{StageRun, StageTest};

use crate::tokenizer::Tokenizer;
use crate::train::Train;

/// Three rows.
pub(crate) const ROWS: &str = r#"{"id":"a","molecule":"CO","caption":"It is methanol."}
{"id":"b","molecule":"CCO","caption":"It is ethanol."}
{"id":"c","molecule":"O","caption":"It is water."}
"#;

/// Two preferences.
pub(crate) const PREFERENCES: &str = r#"{"id":"a/mol2cap","direction":"mol2cap","input":"CO","chosen":"It is methanol.","rejected":"It is water."}
{"id":"b/mol2cap","direction":"mol2cap","input":"CCO","chosen":"It is ethanol.","rejected":"It is sweet."}
"#;

/// What asks for a caption.
pub(crate) const PROMPT: &str = "Molecule: {molecule}\nCaption: {caption}\n";

/// The sizes of the smallest model.
pub(crate) const LLAMA: &str = "model.llama = { hidden_size = 8, intermediate_size = 8, \
                                num_hidden_layers = 1, num_attention_heads = 1, max_position_embeddings = 128 }";

/// Returns a tokenizer of single bytes.
pub(crate) fn tokenizer() -> StageRun {
    let test = StageTest::<Tokenizer>::new("model.bpe.vocab_size = 259");
    test.input("rows", &[("rows.jsonl", ROWS)]).run().expect("a tokenizer can be trained")
}

/// Returns a model with random weights.
pub(crate) fn model() -> StageRun {
    let params = format!("objective.sft = {{}}\nprompts.mol2cap = 'prompt.txt'\nlength.steps = 0\n{LLAMA}");
    StageTest::<Train>::new(&params)
        .file("prompt.txt", PROMPT)
        .input_folder("tokenizer", &tokenizer().output("tokenizer"))
        .input("rows", &[("rows.jsonl", ROWS)])
        .run()
        .expect("a model can be made")
}
