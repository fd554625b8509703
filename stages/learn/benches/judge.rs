//! How long a judge of DeBERTa-v3-base's shape takes for 16 pairs of 64 tokens, and ChemNet for a
//! set of molecules.
//!
//! `cargo bench -p learn --bench judge -- [--peer PYTHON] [SMILES CHEMNET]`. The judge's weights
//! are random, and its vocabulary is small, which touches nothing but memory: each token looks one
//! row up. PYTHON has torch and transformers; `benches/judge.py` runs the same folder with them, in
//! turn with us. SMILES is a file of molecules, one per line, and CHEMNET ChemNet's weights; without
//! them only the judge is timed.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[path = "../../../src/allocator.rs"]
mod allocator;

use learn::{ChemNet, Classifier, DeviceName};
use serde_json::{Map, Value, json};
use weights::{Dtype, Durability, MOST_SHARD_BYTES, ModelWriter, TensorSpec};

/// The best of so many runs counts.
const RUNS: usize = 7;

/// How often each is measured.
const TURNS: usize = 3;

const PAIRS: usize = 16;
const LENGTH: usize = 64;
const VOCABULARY: u64 = 1000;

fn main() {
    allocator::configure();
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let peer = arguments.iter().position(|argument| argument == "--peer").map(|place| {
        arguments.remove(place);
        arguments.remove(place)
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{threads} threads; seconds, the best of {RUNS}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_judge(folder.path());
    let judge = Classifier::open(folder.path(), &DeviceName::Cpu).expect("the judge can be opened");
    // Three special tokens, and different words on both sides.
    let text = |seed: usize, words: usize| -> String {
        (0..words).map(|word| format!("w{} ", (seed * 37 + word * 11) % 900 + 10)).collect()
    };
    let pairs: Vec<(String, String)> =
        (0..PAIRS).map(|pair| (text(pair, 30), text(pair + 100, LENGTH - 33))).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(one, two)| (one.as_str(), two.as_str())).collect();
    let once = || judge.probabilities(&pairs, threads, &|_| true).expect("it judges").is_some();
    let (mut seconds, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TURNS {
        seconds = seconds.min(best(RUNS, once));
        if let Some(python) = &peer {
            theirs = theirs.min(run_peer(python, threads, folder.path()));
        }
    }
    println!("DeBERTa-v3-base, {PAIRS}x{LENGTH}: {seconds:.3}");
    if peer.is_some() {
        println!("transformers: {theirs:.3}, ratio {:.2}", seconds / theirs);
    }
    if let [smiles, weights] = &arguments[..] {
        let smiles = std::fs::read_to_string(smiles).expect("the file of molecules can be read");
        let smiles: Vec<&str> = smiles.lines().collect();
        let net = ChemNet::open(Path::new(weights)).expect("ChemNet can be opened");
        let seconds = best(2, || net.activations(&smiles, threads, &|_| true).is_some());
        println!("ChemNet, {} molecules: {seconds:.3}", smiles.len());
    }
}

fn run_peer(python: &str, threads: usize, folder: &Path) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/judge.py");
    let told = Command::new(python).arg(script).arg(threads.to_string()).arg(folder).output();
    let told = told.expect("Python starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).trim().parse().expect("seconds")
}

fn best(runs: usize, run: impl Fn() -> bool) -> f64 {
    let time = || {
        let begun = Instant::now();
        assert!(run(), "nothing stops it");
        begun.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| time()).fold(f64::INFINITY, f64::min)
}

/// Writes a judge of DeBERTa-v3-base's shape.
fn write_judge(folder: &Path) {
    let config = json!({
        "model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"],
        "vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 0,
        "layer_norm_eps": 1e-7, "relative_attention": true, "max_relative_positions": -1, "position_buckets": 256,
        "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": false, "pooler_hidden_act": "gelu",
        "id2label": { "0": "entailment", "1": "neutral", "2": "contradiction" },
    });
    let mut shapes: Vec<(String, Vec<u64>)> = vec![
        ("deberta.embeddings.word_embeddings.weight".to_owned(), vec![VOCABULARY, 768]),
        ("deberta.encoder.rel_embeddings.weight".to_owned(), vec![512, 768]),
    ];
    let mut norms = vec!["deberta.embeddings.LayerNorm".to_owned(), "deberta.encoder.LayerNorm".to_owned()];
    let mut affine = vec![("pooler.dense".to_owned(), 768, 768), ("classifier".to_owned(), 3, 768)];
    for number in 0..12 {
        let layer = format!("deberta.encoder.layer.{number}");
        for name in ["self.query_proj", "self.key_proj", "self.value_proj", "output.dense"] {
            affine.push((format!("{layer}.attention.{name}"), 768, 768));
        }
        affine.push((format!("{layer}.intermediate.dense"), 3072, 768));
        affine.push((format!("{layer}.output.dense"), 768, 3072));
        norms.extend(["attention.output", "output"].map(|name| format!("{layer}.{name}.LayerNorm")));
    }
    for (path, outputs, inputs) in affine {
        shapes.push((format!("{path}.weight"), vec![outputs, inputs]));
        shapes.push((format!("{path}.bias"), vec![outputs]));
    }
    shapes.extend(
        norms.iter().flat_map(|path| ["weight", "bias"].map(|name| (format!("{path}.{name}"), vec![768]))),
    );
    let specs = shapes.iter().map(|(name, shape)| TensorSpec {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: shape.clone(),
    });
    let config: &Map<String, Value> = config.as_object().expect("a table");
    let writer = ModelWriter::create(folder, config, specs.collect(), MOST_SHARD_BYTES);
    let writer = writer.expect("the folder can be written to");
    let mut state = 1u32;
    for (name, shape) in &shapes {
        let count: u64 = shape.iter().product();
        let is_gain = name.ends_with("LayerNorm.weight");
        let numbers: Vec<f32> = (0..count)
            .map(|_| {
                // A linear congruential generator: any numbers will do.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if is_gain { 1.0 } else { ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.07 }
            })
            .collect();
        writer.write_f32(name, &numbers).expect("a tensor can be written");
    }
    writer.finish(Durability::Buffered).expect("the folder can be written to");
    let vocabulary: Map<String, Value> = (0..VOCABULARY).map(|id| (format!("w{id}"), id.into())).collect();
    let special = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("w1"), text("A"), special("w2")],
            "pair": [special("w1"), text("A"), special("w2"), text("B"), special("w2")],
            "special_tokens": {
                "w1": { "id": "w1", "ids": [1], "tokens": ["w1"] },
                "w2": { "id": "w2", "ids": [2], "tokens": ["w2"] },
            },
        },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("a file can be written");
}
