//! Models, in the smallest sizes that are models: the same bytes however they are made, and
//! errors that name the stage and the row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::lab::{Lab, below, project, wait_until};

/// Returns the names of all blobs of a cache, which are the digests of what they hold.
fn blobs(cache: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![cache.join("blobs")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder of blobs").flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn the_main_job_gives_the_same_bytes_from_one_thread_and_from_two() {
    let experiment = project().join("experiments/table4.toml").display().to_string();
    let (one, two) = (Lab::new(), Lab::new());
    let run = |lab: &Lab, jobs: &str| {
        let cache = lab.cache().display().to_string();
        let arguments = ["run", &experiment, "--profile", "smoke", "--cache", &cache, "--jobs", jobs];
        lab.run(arguments).expect(0)
    };
    let (alone, together) = (run(&one, "1"), run(&two, "2"));
    assert_eq!(alone.stdout, together.stdout);
    let found = blobs(&one.cache());
    assert!(found.len() > 50, "{found:?}");
    assert_eq!(found, blobs(&two.cache()));
    assert_eq!(run(&one, "2").ran(), [""; 0]);
    alone.shows(&[
        "ties/cpo",
        "slerp/cpo",
        "slerp, not aligned",
        "expert",
        "untrained",
        "slerp/cpo, shuffled",
        "slerp/dpo (published only)",
        "these numbers are not comparable with the published ones",
    ]);
}

#[test]
fn table_5_shares_every_model_with_table_4() {
    let lab = Lab::new();
    let cache = lab.cache().display().to_string();
    let run = |table: &str| {
        let experiment = project().join(format!("experiments/{table}.toml")).display().to_string();
        lab.run(["run", &experiment, "--profile", "smoke", "--cache", &cache]).expect(0)
    };
    run("table4");
    let ran = run("table5").ran();
    assert!(
        ran.iter().all(|stage| stage.starts_with("molecules_") || stage.starts_with("scores")),
        "{ran:?}"
    );
    assert!(ran.iter().any(|stage| stage.starts_with("molecules_aligned")), "{ran:?}");
}

#[test]
fn fig_4_has_a_row_for_each_ratio() {
    let lab = Lab::new();
    let cache = lab.cache().display().to_string();
    let experiment = project().join("experiments/fig4.toml").display().to_string();
    let told = lab.run(["run", &experiment, "--profile", "smoke", "--cache", &cache]).expect(0);
    let ran = told.ran();
    let count = |name: &str| ran.iter().filter(|stage| stage.starts_with(name)).count();
    // One root for all, then a merge and what comes after it for each ratio.
    assert_eq!(["backbone", "expert_", "merged[", "aligned["].map(count), [1, 2, 5, 5], "{ran:?}");
    let _ = told.shows(&["1:1 ", "1:4 ", "1:9 ", "1:18 ", "1:36 ", "these numbers are not comparable"]);
}

const ROWS: &str = r#"{"id":"ethanol","molecule":"CCO","caption":"The molecule is an alcohol."}
{"id":"propanol","molecule":"CCCO","caption":"The molecule is an alcohol."}
{"id":"acetic","molecule":"CC(=O)O","caption":"The molecule is an acid."}
{"id":"benzene","molecule":"c1ccccc1","caption":"The molecule is aromatic."}
"#;

/// A model of a few thousand parameters, made from scratch.
fn training(parameters: &str) -> Lab {
    let lab = Lab::with(&format!(
        r#"
[stages.rows]
kind = "source"
path = "rows.jsonl"

[stages.tokenizer]
kind = "tokenizer"
inputs = {{ rows = "rows" }}
model.bpe = {{ vocabulary_size = 280 }}

[stages.model]
kind = "train"
inputs = {{ tokenizer = "tokenizer", rows = "rows", validation = "rows" }}
prompts.mol2cap = "prompt.txt"
objective.sft = {{}}
batch_size = 2
gradient_accumulation_steps = 1
model.llama = {{ hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 64 }}
{parameters}

[table]
columns = ["validation_loss"]
"#
    ));
    lab.write("rows.jsonl", ROWS);
    lab.write("prompt.txt", "Molecule: {molecule} Caption: {caption}\n");
    lab
}

#[test]
fn a_killed_training_goes_on_and_ends_with_the_same_bytes() {
    let parameters = "learning_rate = 0.01\nlength.steps = 1500\nvalidations_per_epoch = 1";
    let whole = training(parameters);
    whole.run(["run", "x.toml"]).expect(0);
    let killed = training(parameters);
    let mut child = killed.spawn(["run", "x.toml"]);
    let has_checkpoint = || {
        let mut open = vec![killed.cache().join("work")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name
                    .strip_prefix("step-")
                    .and_then(|step| step.parse().ok())
                    .is_some_and(|step: u32| step > 100)
                {
                    return true;
                }
                if entry.path().is_dir() {
                    open.push(entry.path());
                }
            }
        }
        false
    };
    wait_until("there is a checkpoint", has_checkpoint);
    for process in below(child.id()) {
        crate::lab::signal(process, rustix::process::Signal::KILL);
    }
    assert!(!child.wait().unwrap().success());
    assert_eq!(killed.run(["run", "x.toml"]).expect(0).ran(), ["model"]);
    killed.run(["log", "x.toml", "model"]).expect(0).shows(&["a killed training went on after step "]);
    assert_eq!(blobs(&whole.cache()), blobs(&killed.cache()));
}

#[test]
fn a_training_makes_a_model_better() {
    let lab = training("learning_rate = 0.02\nlength.steps = 60\nvalidations_per_epoch = 1");
    lab.run(["run", "x.toml"]).expect(0);
    let curves = lab.run(["show", "x.toml", "model", "--output", "curves", "--file", "rows.jsonl"]).expect(0);
    let points: Vec<serde_json::Value> =
        curves.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let losses: Vec<f64> = points.iter().filter_map(|point| point["validation_loss"].as_f64()).collect();
    assert!(losses[0] > 5.0 && losses.last().unwrap() < &1.5, "{losses:?}");
    assert_eq!(points.iter().filter(|point| point["gradient_norm"].is_number()).count(), 60);
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_the_rows() {
    let lab = training("learning_rate = 1e30\nlength.steps = 20\nwarmup_ratio = 0.0\nmax_grad_norm = 1e30");
    lab.run(["run", "x.toml"]).expect(3).says(&[
        "model of x.toml: failed to train",
        "the loss became",
        "of 20 (learning rate 9.9",
        "/mol2cap",
        "lower `learning_rate`",
    ]);
}

#[test]
fn what_does_not_fit_the_context_is_counted() {
    let lab = training("length.steps = 1\nmax_length = 24");
    let told = lab.run(["run", "x.toml"]).expect(0);
    told.says(&["rows have outputs that end beyond 24 tokens, and were cut there"]);
    let lab = training("length.steps = 1\nmax_length = 5");
    lab.run(["run", "x.toml"]).expect(3).says(&[
        "4 rows have prompts of 5 tokens or more, and were left out",
        "there is nothing to learn from in `rows`",
    ]);
}

#[test]
fn a_row_without_a_target_names_itself() {
    let lab = training("length.steps = 1");
    lab.write("rows.jsonl", format!("{ROWS}{}\n", r#"{"id":"water","molecule":"O","caption":7}"#));
    lab.run(["run", "x.toml"]).expect(3).says(&["`water`", "`caption`"]);
}

#[test]
fn a_tokenizer_that_lacks_characters_names_them_and_the_row() {
    let lab = training("length.steps = 1");
    lab.write(
        "tokenizer.json",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{"type":"BPE","dropout":null,
"unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
"byte_fallback":false,"ignore_merges":false,"vocab":{"<pad>":0,"<s>":1,"</s>":2,"<unk>":3,"C":4},"merges":[]}}"#,
    );
    lab.edit("x.toml", "kind = \"tokenizer\"\ninputs = { rows = \"rows\" }\nmodel.bpe = { vocabulary_size = 280 }", "kind = \"command\"\nfiles = [\"tokenizer.json\"]\nrun = \"cp files/tokenizer.json outputs/tokenizer/\"\noutputs.tokenizer.type = \"tokenizer\"");
    lab.run(["run", "x.toml"]).expect(3).says(&[
        "model of x.toml: failed to read row `ethanol/mol2cap`",
        "the tokenizer lacks the characters",
        "`O`",
    ]);
}

/// A training from the weights that a shell script writes.
fn from_weights(script: &str) -> Lab {
    let lab = training("length.steps = 1");
    lab.edit("x.toml", "model.llama = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 64 }", "");
    lab.edit("x.toml", "tokenizer = \"tokenizer\", rows", "model = \"weights\", rows");
    let stage = format!(
        "[stages.weights]\nkind = \"command\"\ninputs = {{ made = \"made\", tokenizer = \"tokenizer\" }}\nrun = '''cp inputs/made/* outputs/model/; {script}'''\noutputs.model.type = \"weights\"\n\n[stages.made]\nkind = \"train\"\ninputs = {{ tokenizer = \"tokenizer\", rows = \"rows\" }}\nprompts.mol2cap = \"prompt.txt\"\nobjective.sft = {{}}\nlength.steps = 0\nmodel.llama = {{ hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 64 }}\n\n[stages.model]"
    );
    lab.edit("x.toml", "[stages.model]", &stage);
    lab.edit(
        "x.toml",
        "columns = [\"validation_loss\"]",
        "columns = [\"validation_loss\"]\nfrom = \"model\"",
    );
    lab
}

#[test]
fn a_model_folder_that_is_none_says_what_is_wrong_with_it() {
    from_weights("true").run(["run", "x.toml"]).expect(0);
    let cases = [
        ("rm -f outputs/model/config.json", "there is no `config.json`"),
        (
            "sed -i 's/\"hidden_size\": 16/\"hidden_size\": 32/' outputs/model/config.json",
            "tensor `model.embed_tokens.weight` has shape [280, 16], and `config.json` makes it [280, 32]",
        ),
        (
            "sed -i 's/\"num_hidden_layers\": 1/\"num_hidden_layers\": 2/' outputs/model/config.json",
            "there is no tensor `model.layers.1.self_attn.q_proj.weight`",
        ),
        (
            "sed -i 's/\"num_key_value_heads\": 2/\"num_key_value_heads\": 3/' outputs/model/config.json",
            "3 key-value heads do not divide 2 heads",
        ),
        (
            "sed -i 's/\"llama\"/\"mamba\"/' outputs/model/config.json",
            "`config.json` says `model_type` `mamba`; `llama` is known",
        ),
        ("rm -f outputs/model/tokenizer.json", "cannot read the tokenizer"),
        ("truncate -s 1000 outputs/model/model.safetensors", "`model.safetensors`"),
    ];
    for (script, message) in cases {
        from_weights(&format!("chmod -R u+w outputs; {script}"))
            .run(["run", "x.toml"])
            .expect(3)
            .says(&["model of x.toml: failed to open the model", message]);
    }
}
