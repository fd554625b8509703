//! Memory: what stages and models need, told before they run, beside what they take.

use serde_json::{Value, json};

use crate::experiment::{Experiment, experiment, write_molecules};
use crate::lab::{Lab, Told, project};

/// Two trainings that do not wait for each other, and a generation.
fn workspace() -> Lab {
    let model = json!({
        "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4,
        "max_position_embeddings": 64,
    });
    let training = |experiment: Experiment, name: &str| {
        experiment
            .train(name)
            .set("batch_size", 4)
            .set("gradient_accumulation_steps", 1)
            .set("length.steps", 2)
            .set("model.llama", model.clone())
            .set("resources.cores", 1)
    };
    let experiment = training(experiment().rows().tokenizer(), "model").input("validation", "rows");
    let experiment = training(experiment, "other").set("prompts.cap2mol", "back.txt");
    let lab = experiment.generate("captions", "model").set("max_new_tokens", 8).lab();
    write_molecules(&lab);
    lab.write("back.txt", "Caption: {caption} Molecule: {molecule}\n");
    lab
}

/// Returns what `plan` says that a stage needs.
fn needs(lab: &Lab, stage: &str) -> Value {
    let told = lab.run(["plan", "x.toml", "--json"]).expect(0);
    let stages: Vec<Value> = serde_json::from_str(&told.stdout).unwrap();
    let found = stages.into_iter().find(|found| found["stage"] == stage).expect("the stage is planned");
    found["memory"].clone()
}

#[test]
fn a_plan_says_what_stages_need() {
    let lab = workspace();
    let told = lab.run(["plan", "x.toml"]).expect(0);
    let line = |stage: &str| {
        let found = told.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(stage));
        found.expect("the stage is planned").to_owned()
    };
    for stage in ["model", "other", "captions"] {
        assert!(line(stage).ends_with("MiB memory for texts of 64 tokens"), "{}", line(stage));
    }
    assert!(!line("rows").contains("memory") && !line("tokenizer").contains("memory"), "{}", told.stdout);
    let need = needs(&lab, "model");
    let number = |need: &Value, of: &str, part: &str| need[of][part].as_u64().unwrap();
    assert!(number(&need, "machine", "least") < number(&need, "machine", "likely"), "{need}");
    assert_eq!(number(&need, "device", "likely"), 0);
    // On a device of its own it is the device that needs it.
    let told = lab.run(["plan", "x.toml", "--device", "cuda:1"]).expect(0);
    assert!(told.stdout.contains(" on cuda:1 for texts of 64 tokens"), "{}", told.stdout);
    // An adapter learns less, and needs less.
    lab.edit("x.toml", "length.steps = 2\n", "length.steps = 2\nadapter.lora = { r = 4 }\n");
    assert!(number(&needs(&lab, "model"), "machine", "least") < number(&need, "machine", "least"));
    // What the experiment says counts for more.
    lab.edit("x.toml", "resources.cores = 1\n", "resources = { cores = 1, memory = \"3 GiB\" }\n");
    assert_eq!(needs(&lab, "model")["machine"]["likely"], 3u64 << 30);
}

#[test]
fn models_from_folders_and_merges_are_sized_up_and_others_are_not_known() {
    let lab = experiment()
        .rows()
        .stage("one", "source")
        .set("path", "model")
        .set("format", "model")
        .stage("merged", "merge")
        .input("one", "one")
        .input("other", "made")
        .set("ratio", json!({ "one": 1, "other": 1 }))
        .set("method.slerp", json!({}))
        .stage("made", "command")
        .set("run", "cp -r model outputs/model")
        .set("outputs.model.type", "weights")
        .generate("known", "merged")
        .generate("unknown", "made")
        .lab();
    write_molecules(&lab);
    let golden = project().join("stages/learn/tests/golden/llama");
    lab.write("model/config.json", std::fs::read(golden.join("config.json")).unwrap());
    assert!(needs(&lab, "known")["machine"]["likely"].as_u64().unwrap() > 0);
    let told = lab.run(["plan", "x.toml"]).expect(0);
    let _ = told.shows(&["memory not known: nothing is known of `model` before it is made"]);
    // A type that is not known is no reason to refuse a plan.
    lab.edit("model/config.json", "\"llama\"", "\"mamba\"");
    let unknown = &needs(&lab, "known")["unknown"];
    assert_eq!(unknown, "`config.json` says `model_type` `mamba`, which is not known");
}

#[test]
fn a_stage_that_cannot_fit_is_warned_of_and_not_started() {
    let lab = workspace();
    let told = lab.run(["run", "x.toml", "--memory", "0.05", "--keep-going"]).expect(3);
    assert_eq!(told.ran(), ["rows", "tokenizer"]);
    let _ = told.says(&[
        "warning   `model` needs at least ",
        "model of x.toml: it was not started",
        "other of x.toml: it was not started",
        "of memory; this machine has 51.2 MiB",
        "it was not started: it needs at least",
        "set `resources.memory` of the stage",
    ]);
    // Whoever wrote the experiment may know better.
    lab.edit("x.toml", "resources.cores = 1\n", "resources = { cores = 1, memory = \"1 MiB\" }\n");
    let told = lab.run(["run", "x.toml", "--memory", "0.05", "--until", "model"]).expect(0);
    assert_eq!(told.ran(), ["model"]);
}

#[test]
fn stages_that_do_not_fit_together_run_one_after_the_other() {
    let most_at_once = |memory: Option<u64>| {
        let lab = workspace();
        let gib = memory.map(|bytes| (bytes as f64 / (1u64 << 30) as f64).to_string());
        let mut arguments = vec!["run", "x.toml", "--json", "--jobs", "2"];
        for given in gib.iter() {
            arguments.extend(["--memory", given]);
        }
        let is_training = |stage: &str| ["model", "other"].contains(&stage);
        lab.run(arguments).expect(0).most_at_once(is_training)
    };
    let need = needs(&workspace(), "model")["machine"]["likely"].as_u64().unwrap();
    assert_eq!(most_at_once(None), 2);
    assert_eq!(most_at_once(Some(need * 3 / 2)), 1);
}

/// Returns the peak that a training wrote to its log, in bytes.
fn peak_of_training(lab: &Lab, stage: &str) -> u64 {
    let log = lab.run(["log", "x.toml", stage]).expect(0).stdout;
    let peaks = log.lines().filter_map(|line| line.split_once("peak memory ")?.1.strip_suffix(" MiB"));
    let most = peaks.filter_map(|peak| peak.parse::<u64>().ok()).max();
    most.unwrap_or_else(|| panic!("no peak in {log}")) << 20
}

#[test]
fn a_training_takes_what_was_estimated() {
    let lab = workspace();
    let need = &needs(&lab, "model")["machine"];
    let (least, likely) = (need["least"].as_u64().unwrap(), need["likely"].as_u64().unwrap());
    lab.run(["run", "x.toml", "--until", "model"]).expect(0);
    let peak = peak_of_training(&lab, "model");
    // What the program takes by itself differs by system, and is about 40 MiB.
    let slack = 40 << 20;
    assert!(least <= peak + slack, "at least {least} were estimated, and it took {peak}");
    assert!(peak <= likely + likely * 3 / 10 + slack, "{likely} were estimated, and it took {peak}");
    assert!(likely <= peak + peak * 3 / 10 + slack, "{likely} were estimated, and it took {peak}");
}

fn bench(arguments: &[&str]) -> Value {
    let lab = Lab::new();
    let told = lab.run(["bench", "model", "--json", "--threads", "1"].iter().chain(arguments)).expect(0);
    serde_json::from_str(&told.stdout).unwrap()
}

/// 34 million numbers: 68 MB in five files; the largest tensor is 16 MB in f32.
#[test]
fn a_model_in_shards_is_opened_in_little_more_than_its_own_memory() {
    let measured = |arguments: &[&str]| {
        let found = bench(&[&["--shape", "small", "--prompt", "8", "--new", "2"], arguments].concat());
        let number = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("{name} of {found}"));
        (number("file_bytes"), number("weight_bytes"), number("load_peak_bytes"), number("peak_bytes"))
    };
    let (largest, program) = (8000 * 512 * 4, 40 << 20);
    let (files, dense, peak, _) = measured(&[]);
    assert_eq!(dense, 2 * files);
    assert!(peak < dense + largest + program, "{dense} bytes of weights, and {peak} were taken");
    // Packed as it is read: there never is a model in f32.
    let (_, packed, peak, _) = measured(&["--nf4"]);
    assert!(packed + largest + program < dense, "{packed}");
    assert!(peak < packed + largest + program, "{packed} bytes of weights, and {peak} were taken");
}

#[test]
fn a_bench_of_qlora_trains_and_says_how_fast() {
    let lab = Lab::new();
    let asked = ["bench", "qlora", "--batch", "3", "--tokens", "16", "--steps", "2", "--rank", "4"];
    let told = lab.run(asked.iter().chain(&["--threads", "2", "--json", "--precision=bf16"])).expect(0);
    let found: Value = serde_json::from_str(&told.stdout).unwrap();
    let number = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name} of {found}"));
    // Beside each of 28 projections `r (in + out)` numbers.
    let beside = 4 * (4 * 256 + 3 * (128 + 352));
    assert_eq!((number("parameters"), number("learning")), (1_059_968.0, f64::from(4 * beside)));
    let rate = number("tokens_per_second") * number("step_seconds");
    assert!((rate - 48.0).abs() < 1e-6, "{found}");
    assert!(number("step_operations_per_second") > 0.0 && number("limit_operations_per_second") > 0.0);
    assert!(number("loss") > 0.0 && found["device_peak_bytes"].is_null(), "{found}");
    let shown = lab.run(asked).expect(0);
    let _ = shown.shows(&["model     1059968 parameters, ", "step", "TFLOP/s", "estimated"]);
    let refused = |arguments: &[&str], what: &str| -> Told {
        lab.run(["bench", "qlora"].iter().chain(arguments)).expect(2).says(&[what])
    };
    refused(&["--steps", "0"], "`--batch`, `--steps` and `--rank` must be at least 1");
    refused(&["--tokens", "1"], "`--tokens` must be at least 2");
    refused(&["--precision", "f8"], "the precision must be `f32`, `tf32`, `bf16` or `bf16_weights`");
    refused(&["--device", "cuda"], "this program was built without `cuda`");
    // What only the model knows is found when there is one.
    lab.run(["bench", "qlora", "--tokens", "600"]).expect(3).says(&["the model takes no text of 600 tokens"]);
}

#[test]
fn a_bench_of_a_training_reports_the_loss_and_the_memory_of_each_step() {
    let lab = Lab::new();
    let _ = lab.run(["bench", "write", "kept", "--shape", "tiny"]).expect(0);
    lab.run(["bench", "write", "kept"]).expect(2).says(&["failed to create the folder kept"]);
    let asked = ["bench", "train", "--model", "kept", "--batch", "2", "--tokens", "12", "--steps", "8"];
    let measured = |arguments: &[&str]| -> Value {
        let told = lab.run(asked.iter().chain(arguments).chain(&["--threads", "2", "--json"])).expect(0);
        serde_json::from_str(&told.stdout).unwrap()
    };
    let losses = |found: &Value| -> Vec<f64> {
        found["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
    };
    let [single, half, lora] = [
        measured(&["--learning-rate", "0.003"]),
        measured(&["--learning-rate", "0.003", "--precision", "bf16"]),
        measured(&["--rank", "4"]),
    ];
    assert_eq!((&single["parameters"], &single["learning"]), (&1_059_968.into(), &1_059_968.into()));
    assert!(lora["learning"].as_u64() < single["learning"].as_u64() && losses(&lora).len() == 8);
    let (single_losses, half_losses) = (losses(&single), losses(&half));
    assert_eq!(single_losses.len(), 8);
    assert!(single_losses[7] < single_losses[0], "{single_losses:?}");
    assert_ne!(single_losses, half_losses);
    for (single, half) in single_losses.iter().zip(&half_losses) {
        assert!((single - half).abs() < 0.01 * single, "{single} {half}");
    }
    for of in ["memory_bytes", "device_memory_bytes"] {
        assert_eq!(single[of].as_array().unwrap().len(), 8);
    }
    assert!(single["memory_bytes"][7].as_u64() > Some(0) && single["device_memory_bytes"][7].is_null());
    lab.run(asked).expect(0).shows(&[
        "model     1059968 parameters",
        "in step 1;",
        "in step 8;",
        "estimated",
    ]);
    for (arguments, what) in [
        (["--steps", "0"], "`--batch`, `--steps` and `--rank` must be at least 1"),
        (["--tokens", "1"], "`--tokens` must be at least 2"),
        (["--learning-rate", "0"], "`--learning-rate` must be above 0"),
    ] {
        lab.run(["bench", "train"].iter().chain(&arguments)).expect(2).says(&[what]);
    }
}

#[test]
fn a_bench_of_products_says_how_near_to_exact_they_are() {
    let lab = Lab::new();
    let told = lab.run(["bench", "matmul", "--threads", "1", "--json"]).expect(0);
    let found: Value = serde_json::from_str(&told.stdout).unwrap();
    for (at, precision) in ["f32", "tf32", "bf16", "bf16_weights"].into_iter().enumerate() {
        let product = &found[at];
        assert_eq!(product["precision"], precision);
        assert!(product["operations_per_second"].as_f64() > Some(0.0), "{product}");
        assert_eq!((&product["accumulates_in_f32"], &product["is_tf32"]), (&true.into(), &false.into()));
        assert_eq!(product["accuracy"].as_array().unwrap().len(), 2);
    }
    let told = lab.run(["bench", "matmul", "--threads", "1", "--precision", "bf16"]).expect(0);
    assert!(!told.stdout.contains("f32       "), "{}", told.stdout);
    told.shows(&["bf16      ", "TFLOP/s; relative error", "sums are accumulated in f32"]);
    lab.run(["bench", "matmul", "--threads", "0"]).expect(2).says(&["`--threads` must be at least 1"]);
    lab.run(["bench", "matmul", "--device", "cuda"]).expect(2).says(&["built without `cuda`"]);
}

#[test]
fn a_bench_of_a_model_says_how_fast_it_is_and_leaves_nothing() {
    let lab = Lab::new();
    let told = lab.run(["bench", "model", "--prompt", "8", "--new", "3", "--scratch", "here"]).expect(0);
    let _ = told.shows(&[
        "model     1059968 parameters, 2.02 MiB in files, 4.04 MiB in memory (f32)",
        "load  ",
        "prefill  ",
        "decode  ",
        "tokens/s",
        "estimated",
    ]);
    assert!(!lab.path("here").exists());
    let refused = |arguments: &[&str], what: &str| -> Told {
        lab.run(["bench", "model"].iter().chain(arguments)).expect(2).says(&[what])
    };
    refused(&["--shape", "70b"], "there is no shape `70b`; there are `tiny`, `small`, `1b`, `7b`");
    refused(&["--dtype", "i8"], "there is no type `i8`; there are `f32`, `f16` and `bf16`");
    refused(&["--new", "1"], "`--new` must be at least 2");
    refused(&["--model", "nowhere"], "there is no `config.json`");
    lab.write("here/x", "");
    refused(&["--scratch", "here"], "failed to create the folder here");
}

#[test]
fn doctor_says_what_a_model_needs() {
    let lab = Lab::new();
    let told = lab.run(["doctor", "--model", "7b", "--tokens", "1024"]).expect(0);
    let told = told.shows(&["model     llama, 6738415616 parameters", "texts of 1024 tokens", "total"]);
    for work in ["generation", "training", "LoRA", "QLoRA"] {
        let line = told.stdout.lines().find(|line| line.starts_with(work)).expect("it is told");
        assert!(["does not fit", "may not fit", "fits"].iter().any(|fit| line.ends_with(fit)), "{line}");
    }
    // Seven billion numbers in f32, and three times that for AdamW.
    let _ = told.shows(&["25.10 GiB", "50.21 GiB"]);
    lab.write_judge("judge");
    let _ = lab.run(["doctor", "--model", "judge"]).expect(0).shows(&["deberta-v2", "judging "]);
    let _ = lab
        .run(["doctor", "--model", "nowhere"])
        .expect(2)
        .says(&["`nowhere` is no folder, and there is no shape `nowhere`; there are `tiny`"]);
}
