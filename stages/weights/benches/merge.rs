//! How long merges take, and how much memory, beside copying the same bytes.
//!
//! `cargo bench -p weights --bench merge -- FOLDER` makes random bf16 LLaMA checkpoints (two and
//! their base, 1.08 GB each) in FOLDER, merges them, each merge in a process of its own and with
//! a warm page cache, and removes what it made. `--sizes` merges models of 0.5, 1, 2 and 4 GB by
//! SLERP and TIES as well; that takes 16 GB in FOLDER. `--keep` keeps the checkpoints, and
//! `--peer "mergekit-yaml …"` is run in between with each of the files `slerp.yml` and
//! `ties.yml` that it finds in FOLDER.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use weights::{
    Dtype, Durability, Expert, MOST_SHARD_BYTES, MergeOptions, ModelFolder, ModelWriter, Normalization,
    Recipe, Setting, TensorSpec, merge,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let [mode, folder, out, method, threads, durability] = arguments.as_slice()
        && mode == "--one"
    {
        return one(
            Path::new(folder),
            Path::new(out),
            method,
            threads.parse().expect("a number"),
            durability,
        );
    }
    let Some(folder) = arguments.first().filter(|argument| !argument.starts_with("--")) else {
        // What `cargo test --benches` sees.
        return println!(
            "usage: cargo bench -p weights --bench merge -- FOLDER [--sizes] [--keep] [--peer COMMAND]"
        );
    };
    let folder = PathBuf::from(folder);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{threads} threads; seconds by the clock and of processors; MB of private memory (and with files that are mapped)\n"
    );
    let methods = ["slerp", "soup", "task_arithmetic", "ties", "dare"];
    measure(&folder.join("8-layers"), 8, threads, &methods, has("--keep"));
    let peer = arguments.iter().position(|argument| argument == "--peer").map(|at| &arguments[at + 1]);
    if let Some(peer) = peer {
        for method in ["slerp", "ties"] {
            run_peer(peer, &folder, method);
        }
    }
    if has("--sizes") {
        for layers in [2, 7, 17, 36] {
            measure(&folder.join(format!("{layers}-layers")), layers, threads, &["slerp", "ties"], false);
        }
    }
}

fn measure(folder: &Path, layers: u64, threads: usize, methods: &[&str], keep: bool) {
    make(folder, layers);
    let bytes = ModelFolder::open(folder.join("a")).expect("a model").bytes();
    println!("{layers} layers, {:.2} GB each", bytes as f64 / 1e9);
    let copied = [1, 3].map(|inputs| (inputs, copy(folder, inputs)));
    for (inputs, seconds) in copied {
        println!("  copy of {inputs} read, 1 written   {seconds:6.2} s");
    }
    for method in methods {
        for durability in ["buffered", "synced"] {
            let out = folder.join("out");
            let best = (0..3).map(|_| {
                fs::remove_dir_all(&out).ok();
                fs::create_dir(&out).expect("a folder");
                settle();
                let mut command = Command::new(std::env::current_exe().expect("a name"));
                command.args(["--one".as_ref(), folder.as_os_str(), out.as_os_str(), method.as_ref()]);
                watched(command.args([&threads.to_string(), durability]))
            });
            let best = best.min_by(|one, other| one.seconds.total_cmp(&other.seconds));
            let best = best.expect("there are three");
            println!(
                "  {method:16} {durability:8}  {}  {:5.2} of the copy",
                shown(&best),
                best.seconds / copied[1].1
            );
            fs::remove_dir_all(&out).ok();
        }
    }
    if !keep {
        fs::remove_dir_all(folder).expect("it is removed");
    }
}

/// Lets the disk finish what was written before, or it is paid for by what comes next.
fn settle() {
    Command::new("sync").status().expect("sync runs");
}

fn shown(taken: &Taken) -> String {
    let Taken { seconds, processor_seconds, private_mb, all_mb } = taken;
    format!("{seconds:6.2} s  {processor_seconds:6.2} s of processors  {private_mb:6.0} MB ({all_mb:.0})")
}

/// What a process took.
struct Taken {
    seconds: f64,
    processor_seconds: f64,
    private_mb: f64,
    all_mb: f64,
}

/// Runs a process and looks at its memory all the while.
fn watched(command: &mut Command) -> Taken {
    let before = children_seconds();
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let (mut private, mut all) = (0, 0);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break status;
        }
        let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        private = private.max(kilobytes(&text, "RssAnon:"));
        all = all.max(kilobytes(&text, "VmHWM:"));
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    Taken {
        seconds,
        processor_seconds: children_seconds() - before,
        private_mb: private as f64 / 1e3,
        all_mb: all as f64 / 1e3,
    }
}

/// Returns a number of kB out of what the system tells of a process.
fn kilobytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns how long processors worked for processes that ended, in hundredths.
fn children_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Merges: what a process of its own does.
fn one(folder: &Path, out: &Path, method: &str, threads: usize, durability: &str) {
    let open = |name: &str| ModelFolder::open(folder.join(name)).expect("a model");
    let expert = |name: &str, weight: f64| Expert {
        name: name.to_owned(),
        model: open(name),
        adapter: None,
        weight: Setting::Number(weight),
    };
    let parameters = if method == "dare" { json!({ "density": 0.2 }) } else { json!({}) };
    let mut named = serde_json::Map::new();
    named.insert(method.to_owned(), parameters);
    let recipe = Recipe {
        experts: vec![expert("a", 1.0), expert("b", 18.0)],
        base: Some(open("base")),
        normalization: Normalization::SumToOne,
        method: serde_json::from_value(Value::Object(named)).expect("a method"),
        dtype: None,
        tokenizer_from: None,
    };
    let durability = if durability == "synced" { Durability::Synced } else { Durability::Buffered };
    let mut on_progress = |_, _| ControlFlow::Continue(());
    merge(&recipe, out, MergeOptions { threads, durability, on_progress: &mut on_progress }).expect("merged");
}

/// Reads so many models and writes one of them, 1 MiB at a time, by one thread.
fn copy(folder: &Path, inputs: usize) -> f64 {
    let out = folder.join("copy");
    let best = (0..3).map(|_| {
        fs::remove_file(&out).ok();
        settle();
        let start = Instant::now();
        let mut target = File::create(&out).expect("a file");
        let mut buffer = vec![0; 1 << 20];
        for (number, name) in ["a", "b", "base"].iter().take(inputs).enumerate() {
            let mut source = File::open(folder.join(name).join("model.safetensors")).expect("a file");
            loop {
                let count = source.read(&mut buffer).expect("read");
                if count == 0 {
                    break;
                }
                if number == 0 {
                    target.write_all(&buffer[..count]).expect("written");
                }
            }
        }
        start.elapsed().as_secs_f64()
    });
    let best = best.min_by(f64::total_cmp).expect("there are three");
    fs::remove_file(&out).ok();
    best
}

fn run_peer(peer: &str, folder: &Path, method: &str) {
    let recipe = folder.join(format!("{method}.yml"));
    if !recipe.exists() {
        return println!("  no {}", recipe.display());
    }
    let out = folder.join("peer");
    settle();
    let mut words = peer.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    let taken = watched(command.args(words).arg(&recipe).arg(&out));
    println!("  {method:16} peer      {}", shown(&taken));
    fs::remove_dir_all(&out).ok();
}

/// Makes a base and two models tuned from it: LLaMA with 2,048 dimensions and 32,000 tokens.
fn make(folder: &Path, layers: u64) {
    if folder.join("b").join("config.json").exists() {
        return;
    }
    let (hidden, middle, tokens) = (2048, 5632, 32000);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![tokens, hidden]),
        ("lm_head.weight".to_owned(), vec![tokens, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            shapes.push((name(&format!("self_attn.{part}")), vec![hidden, hidden]));
        }
        shapes.push((name("mlp.gate_proj"), vec![middle, hidden]));
        shapes.push((name("mlp.up_proj"), vec![middle, hidden]));
        shapes.push((name("mlp.down_proj"), vec![hidden, middle]));
        shapes.push((name("input_layernorm"), vec![hidden]));
        shapes.push((name("post_attention_layernorm"), vec![hidden]));
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": middle, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": tokens, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "dtype": "bfloat16",
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    });
    let config = config.as_object().expect("a table");
    let writers = ["base", "a", "b"].map(|name| {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let specs = shapes.iter().map(|(name, shape)| TensorSpec {
            name: name.clone(),
            dtype: Dtype::BF16,
            shape: shape.clone(),
        });
        ModelWriter::create(&folder, config, specs.collect(), MOST_SHARD_BYTES).expect("begun")
    });
    let mut random = Random(layers);
    for (name, shape) in &shapes {
        let count = shape.iter().product::<u64>() as usize;
        let center = if shape.len() == 1 { 1.0 } else { 0.0 };
        let base: Vec<f32> = (0..count).map(|_| center + 0.02 * random.normal()).collect();
        writers[0].write_f32(name, &base).expect("written");
        for writer in &writers[1..] {
            let tuned: Vec<f32> = base.iter().map(|base| base + 0.006 * random.normal()).collect();
            writer.write_f32(name, &tuned).expect("written");
        }
    }
    for writer in writers {
        writer.finish(Durability::Buffered).expect("ended");
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    /// Returns nearly a normal number: the sum of four even ones.
    fn normal(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let state = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let state = state ^ (state >> 31);
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        // Four even numbers between 0 and 65,535 spread by 37,837.
        (sum as f32 - 131_070.0) / 37_837.0
    }
}
