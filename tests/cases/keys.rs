//! Real keys, pinned.

use std::fmt::Write as _;

use cache::{Digest, Key, Value};

use crate::lab::{Lab, project};

const EXPERIMENT: &str = r#"
[experiment]
seed = 42

[stages.rows]
kind = "source"
path = "rows.tsv"
split = { properties = "|" }

[stages.captions]
kind = "compose"
inputs = { rows = "rows" }
templates = "templates.toml"

[stages.half]
kind = "subset"
inputs = { rows = "captions", exclude = "rows" }
identity.field = "caption"
take.count = 1
axes.seed = { field = "seed", values = [1, 2] }

[stages.answers]
kind = "source"
path = "answers.tsv"

[stages.preferences]
kind = "negatives"
inputs = { rows = "rows", mol2cap = "answers" }

[stages.scores]
kind = "evaluate"
inputs = { rows = "half[seed=1]" }
metrics = ["words"]

[stages.count]
kind = "command"
inputs = { rows = "half[seed=*]" }
files = ["templates.toml"]
parameters = { whole = 3, half = 0.5, text = "é", list = [1, true] }
run = "wc -l < files/templates.toml > outputs/lines/count.txt"
outputs.lines = {}

[stages.tokenizer]
kind = "tokenizer"
inputs = { rows = "rows" }
model.bpe = { vocab_size = 260 }

[stages.trained]
kind = "train"
inputs = { tokenizer = "tokenizer", rows = "preferences" }
prompts.mol2cap = "prompt.txt"
objective.cpo = {}
adapter.lora = { r = 2 }
length.steps = 0
model.llama = { hidden_size = 8, intermediate_size = 8, num_hidden_layers = 1, num_attention_heads = 1, max_position_embeddings = 64 }

[stages.known]
kind = "reference"
inputs = { model = "trained", rows = "preferences" }
prompts.mol2cap = "prompt.txt"

[stages.predictions]
kind = "generate"
inputs = { model = "trained", rows = "captions" }
direction = "mol2cap"
prompt = "prompt.txt"
max_new_tokens = 2

[stages.model]
kind = "source"
path = "model"
format = "model"

[stages.merged]
kind = "merge"
inputs = { one = "model", other = "model" }
ratio = { one = 1, other = [0, 0.5] }
method.slerp = {}

[stages.nli]
kind = "source"
path = "nli"
format = "model"

[stages.judged]
kind = "judge"
inputs = { predictions = "predictions", model = "nli" }
levels = ["full", "atomic"]
"#;

const ROWS: &str =
    "id\tmolecule\tproperties\tcaption\na\tCCO\tsweet|cold\tsugar\nb\tCCC\tcold\tice\nc\tCN\tsweet\thoney\n";

const ANSWERS: &str = "molecule\tcaption\toutput\nOCC\tsugar\tsalt\n";

const TEMPLATES: &str = "format = 2\nmax_properties = 2\nrest = \"role\"\nsentences = [\"It is {role:plain}.\"]\n\n\
                         [[class]]\nname = \"role\"\n\n[lists.plain]\n";

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(project().join("tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// A difference here means "this change throws results away": everybody's caches miss. The
/// commit that makes one says so, and why it is worth it.
#[test]
fn keys_are_what_they_were() {
    let lab = Lab::with(EXPERIMENT);
    lab.write("rows.tsv", ROWS);
    lab.write("answers.tsv", ANSWERS);
    lab.write("templates.toml", TEMPLATES);
    lab.write("prompt.txt", "{molecule}: {caption}");
    lab.write("model/config.json", "{}");
    lab.write_judge("nli");
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    lab.write(
        "model/model.safetensors",
        [&54u64.to_le_bytes()[..], header.as_bytes(), &[0, 0, 128, 63]].concat(),
    );
    lab.run(["run", "x.toml"]).expect(0);
    let told = lab.run(["plan", "x.toml", "--json"]).expect(0);
    let nodes: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    let nodes = nodes.as_array().expect("a list of stages");
    let mut pinned = String::new();
    for node in nodes {
        let (stage, kind) = (node["stage"].as_str().expect("text"), node["kind"].as_str().expect("text"));
        let shown = lab.run(["show", "x.toml", stage]).expect(0).stdout;
        let trace =
            shown.lines().find_map(|line| line.trim().strip_prefix("trace key")).expect("a trace key");
        let key = node["key"].as_str().expect("text");
        writeln!(pinned, "{stage} ({kind})\n  recipe {key}\n  trace  {}", trace.trim()).expect("text");
    }
    for kind in stages::KINDS {
        assert!(nodes.iter().any(|node| node["kind"] == kind.name()), "no key of kind `{}`", kind.name());
    }
    settings().bind(|| insta::assert_snapshot!("keys", pinned));
}

/// The same holds for the encoding below all keys.
#[test]
fn the_encoding_is_what_it_was() {
    let value = Value::map([
        ("nothing", Value::Null),
        ("truth", Value::Bool(true)),
        ("integer", Value::Integer(-1)),
        ("float", Value::Float(0.1)),
        ("text", Value::Text("é".to_owned())),
        ("list", Value::List(vec![Value::Bytes(vec![0, 255]), Value::Digest(Digest::of(b"content"))])),
    ]);
    let mut bytes = Vec::new();
    value.encode(&mut |piece| bytes.extend_from_slice(piece)).expect("no path is left");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<&str> = (0..hex.len()).step_by(64).map(|at| &hex[at..hex.len().min(at + 64)]).collect();
    let key = Key::of("pipeline test", &value).expect("no path is left");
    settings().bind(|| insta::assert_snapshot!("encoding", format!("{}\nkey {key}\n", lines.join("\n"))));
}
