//! Small models: the same bytes however they are made, and
//! errors that name the stage and the row.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::experiment::{self, write_molecules};
use crate::lab::{Lab, ROWS, below, project, wait_until};

/// Returns the names of all blobs of a cache, which are the digests of what they hold. What steps
/// took of the machine, which is never the same twice, is left out.
fn blobs(cache: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![cache.join("blobs")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder of blobs").flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if !is_throughput(&fs::read(entry.path()).expect("a blob")) {
                found.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn is_throughput(content: &[u8]) -> bool {
    let told = b"tokens_per_second";
    content.windows(told.len()).any(|part| part == told)
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
        "slerp/dpo",
        "- the models are Meditron-7B (`kind` of `backbone` is \"train\", not \"source\")",
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
        ran.iter().all(|stage| stage.starts_with("predictions") || stage.starts_with("scores")),
        "{ran:?}"
    );
    assert!(ran.iter().any(|stage| stage.starts_with("predictions[")), "{ran:?}");
}

#[test]
fn tables_2_and_3_train_by_every_objective_of_the_papers() {
    let lab = Lab::new();
    let cache = lab.cache().display().to_string();
    let run = |table: &str| {
        let experiment = project().join(format!("experiments/{table}.toml")).display().to_string();
        lab.run(["run", &experiment, "--profile", "smoke", "--cache", &cache]).expect(0)
    };
    let mut made = run("table2");
    for objective in ["sft", "dpo", "cpo", "kto"] {
        let stage = format!("tuned[objective={objective}]");
        assert!(made.ran().contains(&stage), "{stage}");
        made = made.shows(&[&format!("{objective}  ")]);
    }
    made.shows(&["meditron", "txtchem-t5 (published only)", "cpo - meditron"]);
    let ran = run("table3").ran();
    assert!(
        ran.iter().all(|stage| stage.starts_with("predictions") || stage.starts_with("scores")),
        "{ran:?}"
    );
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
    let _ = told.shows(&["1:1 ", "1:4 ", "1:9 ", "1:18 ", "1:36 ", "a test of the machinery"]);
}

const LLAMA: &str = "llama = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 64 }";
const T5: &str =
    "t5 = { d_model = 16, d_kv = 8, d_ff = 24, num_layers = 1, num_heads = 2, n_positions = 64 }";

/// A model of a few thousand parameters, made from scratch.
fn training(parameters: &str) -> Lab {
    training_of(LLAMA, parameters)
}

fn training_of(model: &str, parameters: &str) -> Lab {
    let lab = experiment::training()
        .lines(&format!("model.{model}\n{parameters}"))
        .table(["validation_loss"])
        .lab();
    write_molecules(&lab);
    lab
}

#[test]
fn a_killed_training_goes_on_and_ends_with_the_same_bytes() {
    let parameters = "learning_rate = 0.01\nlength.steps = 1500\nevals_per_epoch = 1";
    killed_and_whole("cpu", || training(parameters));
}

/// T5 leaves numbers out while it learns: which, follows from the step and not from the run.
#[test]
fn so_does_one_of_an_encoder_and_a_decoder() {
    let parameters = "learning_rate = 0.01\nlength.steps = 600\nevals_per_epoch = 1";
    killed_and_whole("cpu", || training_of(T5, parameters));
}

/// What the first device has learnt goes to the second one when a training goes on.
#[test]
fn so_does_one_on_several_devices() {
    let parameters = "learning_rate = 0.01\nlength.steps = 1500\nevals_per_epoch = 1";
    killed_and_whole("cpu,cpu", || training(parameters));
}

/// Compares a training that is killed, and goes on, with one on a single device that is not.
fn killed_and_whole(device: &str, training: impl Fn() -> Lab) {
    let whole = training();
    whole.run(["run", "x.toml"]).expect(0);
    let killed = training();
    let _ = kill_when_there_is_a_checkpoint(&killed, device);
    assert_eq!(killed.run(["run", "x.toml", "--device", device]).expect(0).ran(), ["model"]);
    killed.run(["log", "x.toml", "model"]).expect(0).shows(&["a killed training went on after step "]);
    assert_eq!(blobs(&whole.cache()), blobs(&killed.cache()));
    // What the steps before the kill took is known as well.
    let steps: Vec<usize> =
        throughput(&killed).iter().map(|step| step["step"].as_u64().unwrap() as usize).collect();
    assert_eq!(steps, (1..=steps.len()).collect::<Vec<_>>());
    assert_eq!(steps.len(), throughput(&whole).len());
}

/// Kills a run when its training is beyond step 100, and returns the folders of its checkpoints,
/// the oldest first.
fn kill_when_there_is_a_checkpoint(lab: &Lab, device: &str) -> Vec<PathBuf> {
    let mut child = lab.spawn(["run", "x.toml", "--device", device]);
    let checkpoints = || {
        let mut checkpoints: Vec<(u32, PathBuf)> = Vec::new();
        for work in fs::read_dir(lab.cache().join("work")).into_iter().flatten().flatten() {
            for entry in fs::read_dir(work.path().join("keep")).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let step = name.strip_prefix("step-").and_then(|step| step.parse().ok());
                checkpoints.extend(step.map(|step| (step, entry.path())));
            }
        }
        checkpoints.sort();
        checkpoints
    };
    let has_checkpoint = || checkpoints().last().is_some_and(|(step, _)| *step > 100);
    wait_until("there is a checkpoint", has_checkpoint);
    for process in below(child.id()) {
        crate::lab::signal(process, rustix::process::Signal::KILL);
    }
    assert!(!child.wait().unwrap().success());
    checkpoints().into_iter().map(|(_, folder)| folder).collect()
}

/// A flipped bit in the tensors is no error to whoever reads them: it would be another model under
/// the same key. The checkpoint before is gone on from; with none that is whole, training starts
/// again.
#[test]
fn a_killed_training_with_damaged_checkpoints_ends_with_the_same_bytes() {
    let training = || training("learning_rate = 0.01\nlength.steps = 1500\nevals_per_epoch = 1");
    let whole = training();
    whole.run(["run", "x.toml"]).expect(0);
    let damage = |checkpoint: &Path| {
        let path = checkpoint.join("tensors.safetensors");
        let mut content = fs::read(&path).expect("a checkpoint has tensors");
        let place = content.len() / 2;
        content[place] ^= 64;
        fs::write(&path, content).unwrap();
    };
    for are_all_damaged in [false, true] {
        let killed = training();
        let checkpoints = kill_when_there_is_a_checkpoint(&killed, "cpu");
        let damaged = if are_all_damaged { &checkpoints[..] } else { &checkpoints[checkpoints.len() - 1..] };
        damaged.iter().for_each(|checkpoint| damage(checkpoint));
        assert_eq!(killed.run(["run", "x.toml"]).expect(0).ran(), ["model"]);
        assert_eq!(blobs(&whole.cache()), blobs(&killed.cache()));
        let log = killed.run(["log", "x.toml", "model"]).expect(0);
        let name = damaged.last().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let told = format!("the checkpoint `{name}` of a killed training is ignored: tensors.safetensors: ");
        assert_eq!(
            log.stdout.contains("a killed training went on after step "),
            checkpoints.len() > damaged.len()
        );
        let _ = log.shows(&[&told]);
    }
}

#[test]
fn a_training_makes_a_model_better() {
    let lab = training("learning_rate = 0.02\nlength.steps = 60\nevals_per_epoch = 1");
    lab.run(["run", "x.toml"]).expect(0);
    let points = rows_of(&lab, "model", "curves");
    let losses: Vec<f64> = points.iter().filter_map(|point| point["validation_loss"].as_f64()).collect();
    assert!(losses[0] > 5.0 && losses.last().unwrap() < &1.5, "{losses:?}");
    assert_eq!(points.iter().filter(|point| point["gradient_norm"].is_number()).count(), 60);
}

/// Returns the rows of an output.
fn rows_of(lab: &Lab, stage: &str, output: &str) -> Vec<serde_json::Value> {
    let shown = lab.run(["show", "x.toml", stage, "--output", output, "--file", "rows.jsonl"]).expect(0);
    shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Returns what the steps of a training took of the machine.
fn throughput(lab: &Lab) -> Vec<serde_json::Value> {
    rows_of(lab, "model", "throughput")
}

#[test]
fn what_each_step_took_is_kept_beside_the_curves() {
    let lab = training("length.steps = 3\nevals_per_epoch = 1");
    lab.run(["run", "x.toml"]).expect(0);
    let steps = throughput(&lab);
    assert_eq!(steps.len(), 3);
    for step in &steps {
        let number = |name: &str| step[name].as_f64().unwrap_or_else(|| panic!("{name}: {step}"));
        assert!((number("tokens_per_second") * number("seconds") - number("tokens")).abs() < 1e-6, "{step}");
        assert!(number("tokens") > 20.0 && step["device_memory_bytes"].is_null(), "{step}");
        if cfg!(target_os = "linux") {
            assert!(number("memory_bytes") > 1e6 && number("peak_memory_bytes") >= number("memory_bytes"));
        }
    }
    let shown = lab.run(["show", "x.toml", "model"]).expect(0);
    for part in ["output throughput (throughput)", "events.out.tfevents.0.pipeline", "tokens_per_second"] {
        assert!(shown.stdout.contains(part), "{}", shown.stdout);
    }
    // The curves, in a line each.
    let line = |name: &str| shown.stdout.lines().find(|line| line.trim_start().starts_with(name));
    assert!(line("loss ").unwrap().contains('█') && line("peak_memory_bytes").unwrap().contains("iB"));
}

#[test]
fn recomputed_layers_are_the_same_work() {
    let lora = "adapter.lora = { r = 2, dropout = 0.1 }";
    for (model, adapter) in [(LLAMA, ""), (T5, ""), (T5, lora), (T5, "adapter.qlora = { r = 2 }")] {
        let parameters = format!("learning_rate = 0.02\nlength.steps = 20\n{adapter}");
        let kept = training_of(model, &parameters);
        kept.run(["run", "x.toml"]).expect(0);
        let anew = training_of(model, &format!("{parameters}\ngradient_checkpointing = true"));
        anew.run(["run", "x.toml"]).expect(0);
        assert_eq!(blobs(&kept.cache()), blobs(&anew.cache()));
        // It is no part of the key, so that a training that ran out of memory goes on with it.
        kept.edit("x.toml", "objective.sft", "gradient_checkpointing = true\nobjective.sft");
        assert_eq!(kept.run(["run", "x.toml"]).expect(0).ran(), [""; 0]);
        let recipe = kept.run(["show", "x.toml", "model"]).expect(0);
        assert!(!recipe.stdout.contains("gradient_checkpointing"), "{}", recipe.stdout);
    }
}

/// A model that has learnt a little, and then trains on by one objective from preferences.
fn tuning(parameters: &str) -> Lab {
    let lab = training("length.steps = 40\nlearning_rate = 0.02");
    let stages = format!(
        r#"[stages.answers]
kind = "source"
path = "answers.jsonl"

[stages.preferences]
kind = "negatives"
inputs = {{ rows = "rows", mol2cap = "answers" }}
matched_by = "id"

[stages.tuned]
kind = "train"
inputs = {{ model = "model" }}
prompts.mol2cap = "prompt.txt"
batch_size = 2
gradient_accumulation_steps = 2
learning_rate = 0.005
{parameters}

[table]
from = "tuned"
"#
    );
    lab.edit("x.toml", "[table]", &stages);
    let answer = |id: &str| format!("{{\"id\":\"{id}\",\"output\":\"The molecule is a metal.\"}}\n");
    lab.write("answers.jsonl", ["ethanol", "propanol", "acetic", "benzene"].map(answer).concat());
    lab
}

/// Returns the validation points of a training's curves.
fn looks(lab: &Lab, stage: &str) -> Vec<serde_json::Value> {
    let points = rows_of(lab, stage, "curves").into_iter();
    points.filter(|point| point["validation_loss"].is_number()).collect()
}

const PAIRS: &str = r#"inputs = { rows = "preferences", validation = "preferences" }"#;
const LABELS: &str = r#"inputs = { rows = "preferences.unpaired", validation = "preferences.unpaired" }"#;

#[test]
fn every_objective_tells_good_outputs_from_bad_ones() {
    let pairs = ["dpo", "cpo", "ipo", "hinge", "robust_dpo", "simpo", "apo_zero"];
    let variants =
        pairs.map(|objective| format!("{objective} = {{ objective.{objective} = {{}}, {PAIRS} }}\n"));
    let labelled = ["kto", "apo_zero_unpaired"];
    let others =
        labelled.map(|objective| format!("{objective} = {{ objective.{objective} = {{}}, {LABELS} }}\n"));
    let packed = format!(
        "packed = {{ objective.dpo = {{}}, adapter.qlora = {{ r = 4, alpha = 8, dropout = 0.0 }}, learning_rate = 0.02, {PAIRS} }}\n"
    );
    let axes = format!(
        "length.steps = 12\n\n[stages.tuned.axes.by]\n{}{}{packed}",
        variants.concat(),
        others.concat()
    );
    let lab = tuning(&axes);
    lab.edit("x.toml", "learning_rate = 0.005\n", "");
    for objective in pairs.iter().chain(&labelled) {
        let with = format!("{objective} = {{ objective");
        lab.edit("x.toml", &with, &format!("{objective} = {{ learning_rate = 0.005, objective"));
    }
    lab.run(["run", "x.toml"]).expect(0);
    for by in pairs.iter().chain(&labelled).chain(&["packed"]) {
        let looks = looks(&lab, &format!("tuned[by={by}]"));
        let margin = |look: &serde_json::Value| look["validation_rewards"]["margin"].as_f64().unwrap();
        let (first, last) = (margin(&looks[0]), margin(looks.last().unwrap()));
        assert!(last > first + 0.01, "{by}: {first} {last}");
    }
    // What training starts from is the reference: nothing tells them apart before the first step.
    for by in ["dpo", "ipo", "robust_dpo", "apo_zero", "kto"] {
        let first = &looks(&lab, &format!("tuned[by={by}]"))[0]["validation_rewards"];
        assert!(first["margin"].as_f64().unwrap().abs() < 1e-6, "{by} {first}");
    }
    let kto = looks(&lab, "tuned[by=kto]");
    assert!(kto.last().unwrap()["validation_rewards"]["divergence"].is_number(), "{kto:?}");
}

#[test]
fn a_reference_of_its_own_is_compared_with() {
    let with = |reference: &str| {
        let inputs = PAIRS.replace(" }", reference);
        let lab = tuning(&format!("{inputs}\nobjective.dpo = {{}}\nlength.steps = 1"));
        let made = "[stages.other]\nkind = \"train\"\ninputs = { tokenizer = \"tokenizer\", rows = \"rows\" }\nprompts.mol2cap = \"prompt.txt\"\nobjective.sft = {}\nlength.steps = 0\nmodel.llama = { hidden_size = 8, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 1, max_position_embeddings = 64 }\n\n[stages.tuned]";
        if reference.contains("other") {
            lab.edit("x.toml", "[stages.tuned]", made);
        }
        lab.edit("x.toml", "inputs = { model = \"model\" }\n", "");
        lab.edit(
            "x.toml",
            "inputs = { rows = \"preferences\"",
            "inputs = { model = \"model\", rows = \"preferences\"",
        );
        lab.run(["run", "x.toml"]).expect(0);
        looks(&lab, "tuned")[0]["validation_rewards"]["margin"].as_f64().unwrap()
    };
    assert!(with(" }").abs() < 1e-6);
    // The other one has learnt nothing, so the model already prefers what it has learnt.
    assert!(with(", reference = \"other\" }") > 0.1);
}

#[test]
fn a_reference_asked_beforehand_gives_the_same_bytes() {
    let from = "inputs = { model = \"model\" }\nprompts.mol2cap";
    let to = "inputs = { model = \"model\", rows = \"preferences\", validation = \"preferences\" }\nprompts.mol2cap";
    let known = to.replace("validation = ", "reference_logps = \"known\", validation = ");
    let asked = format!("[stages.known]\nkind = \"reference\"\n{to} = \"prompt.txt\"\n\n[stages.tuned]");
    let objective = "objective.dpo = {}\nlength.steps = 2";
    let model = |with: &str, asked: &str| {
        let lab = tuning(objective);
        lab.edit("x.toml", from, with);
        lab.edit("x.toml", "[stages.tuned]", asked);
        lab.run(["run", "x.toml"]).expect(0);
        lab.run(["show", "x.toml", "tuned", "--output", "curves", "--file", "rows.jsonl"]).expect(0).stdout
    };
    assert_eq!(model(&known, &asked), model(to, "[stages.tuned]"));

    // One that was asked about other tokens is refused, and so is one where more is needed of it.
    let lab = tuning(objective);
    lab.edit("x.toml", from, &known);
    lab.edit("x.toml", "[stages.tuned]", &asked);
    lab.edit("x.toml", "objective.dpo", "max_length = 30\nobjective.dpo");
    lab.run(["run", "x.toml"]).expect(3).says(&[
        "tuned of x.toml",
        "where the training has `",
        "give the `reference` stage the rows, the prompts",
    ]);
    lab.edit("x.toml", "max_length = 30\nobjective.dpo", "objective.kto");
    lab.run(["run", "x.toml"]).expect(2).says(&["reference_logps"]);
}

#[test]
fn a_full_disk_at_a_checkpoint_costs_nothing_but_the_steps_since_the_last() {
    // A checkpoint of this model has 3.8 MB, and its successor is written before it goes.
    let model = LLAMA
        .replace("hidden_size = 16, intermediate_size = 24", "hidden_size = 128, intermediate_size = 256");
    let lab = training_of(&model, "length.steps = 8\nevals_per_epoch = 1");
    fs::create_dir(lab.cache()).unwrap();
    let script = "mount -t tmpfs -o size=6m tmpfs $CACHE && { $PIPELINE run x.toml; code=$?; \
                  ls $CACHE/work/*/keep; \
                  mount -o remount,size=60m $CACHE && $PIPELINE run x.toml || exit 91; \
                  $PIPELINE log x.toml model; exit $code; }";
    let test = "a_full_disk_at_a_checkpoint_costs_nothing_but_the_steps_since_the_last";
    let Some(told) = super::cache::in_namespace(test, &lab, script) else { return };
    told.expect(3)
        .says(&["FAILED    model of x.toml: failed to train", "cannot write the checkpoint", "No space left"])
        .shows(&["step-2", "a killed training went on after step 2"]);
}

#[test]
fn several_devices_learn_what_one_learns() {
    let run = |device: &str| {
        let lab = training("learning_rate = 0.02\nlength.steps = 6\nevals_per_epoch = 1");
        lab.run(["run", "x.toml", "--device", device]).expect(0);
        lab.run(["show", "x.toml", "model", "--output", "curves", "--file", "rows.jsonl"]).expect(0).stdout
    };
    assert_eq!(run("cpu"), run("cpu,cpu"));
    let lab = training("length.steps = 1");
    lab.run(["run", "x.toml", "--device", "cpu,wgpu"])
        .expect(2)
        .says(&["`cpu` and `wgpu` compute differently", "devices of one kind"]);
}

#[test]
fn sixteen_bits_are_another_key_and_learn_as_well() {
    let losses = |precision: &str, jobs: &str| {
        let parameters = format!("learning_rate = 0.02\nlength.steps = 60\n{precision}");
        let lab = training(&parameters);
        lab.run(["run", "x.toml", "--jobs", jobs]).expect(0);
        let looks = looks(&lab, "model");
        let losses = looks.iter().map(|look| look["validation_loss"].as_f64().unwrap());
        (losses.collect::<Vec<f64>>(), lab)
    };
    let half = "precision = \"bf16\"";
    let ((single, lab), (rounded, _)) = (losses("", "2"), losses(half, "2"));
    assert_ne!(single, rounded);
    let (single, last) = (single.last().unwrap(), rounded.last().unwrap());
    assert!(rounded[0] > 5.0 && *last < 1.5 && (single - last).abs() < 0.3, "{single} {rounded:?}");
    assert_eq!(rounded, losses(half, "1").0);
    // Rounded weights alone are nearer to f32.
    let (weights, _) = losses("precision = \"bf16_weights\"", "2");
    assert!(weights != rounded && (single - weights.last().unwrap()).abs() < 0.3, "{single} {weights:?}");
    // The default is what it was before there was a choice.
    lab.edit("x.toml", "objective.sft = {}", "objective.sft = {}\nprecision = \"f32\"");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), [""; 0]);
    lab.edit("x.toml", "precision = \"f32\"", "precision = \"fp8\"");
    lab.run(["run", "x.toml"]).expect(2).says(&["fp8", "bf16"]);
}

#[test]
fn labels_of_one_kind_are_refused() {
    let lab = tuning("inputs = { rows = \"good\" }\nobjective.kto = {}\nlength.steps = 1");
    lab.edit("x.toml", "inputs = { model = \"model\" }\n", "");
    lab.edit("x.toml", "inputs = { rows = \"good\" }", "inputs = { model = \"model\", rows = \"good\" }");
    lab.edit("x.toml", "[stages.tuned]", "[stages.good]\nkind = \"command\"\ninputs = { all = \"preferences.unpaired\" }\nrun = \"grep -h '\\\"desirable\\\":true' inputs/all/rows.jsonl > outputs/rows/rows.jsonl\"\noutputs.rows.type = \"unpaired\"\n\n[stages.tuned]");
    lab.run(["run", "x.toml"]).expect(3).says(&[
        "tuned of x.toml: failed to train",
        "all 4 rows are desirable",
        "give it `unpaired` of a `negatives` stage",
    ]);
}

#[test]
fn an_encoder_and_a_decoder_learn_and_threads_change_no_bit() {
    let parameters = "learning_rate = 0.02\nlength.steps = 150\nevals_per_epoch = 1";
    let run = |jobs: &str| {
        let lab = training_of(T5, parameters);
        lab.run(["run", "x.toml", "--jobs", jobs]).expect(0);
        lab
    };
    let (one, two) = (run("1"), run("2"));
    assert_eq!(blobs(&one.cache()), blobs(&two.cache()));
    let points = rows_of(&one, "model", "curves");
    let losses: Vec<f64> = points.iter().filter_map(|point| point["validation_loss"].as_f64()).collect();
    assert!(losses[0] > 5.0 && losses.last().unwrap() < &3.0, "{losses:?}");
}

#[test]
fn an_encoder_and_a_decoder_take_an_adapter() {
    let lab = training_of(T5, "length.steps = 2\nadapter.lora = { r = 2, target_modules = [\"q\", \"wo\"] }");
    lab.run(["run", "x.toml"]).expect(0);
    let show = ["show", "x.toml", "model", "--output", "adapter", "--file", "adapter_config.json"];
    lab.run(show).expect(0).shows(&["SEQ_2_SEQ_LM", "\"wo\""]);
    let lab = training_of(T5, "length.steps = 2\nadapter.lora = { r = 2, target_modules = [\"q_proj\"] }");
    lab.run(["run", "x.toml"])
        .expect(3)
        .says(&["no projection is named `q_proj`; there are `q`, `k`, `v`, `o`, `wi`, `wo`"]);
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
    lab.edit("x.toml", "kind = \"tokenizer\"\ninputs.rows = \"rows\"\nmodel.bpe = { vocab_size = 280 }", "kind = \"command\"\nfiles = [\"tokenizer.json\"]\nrun = \"cp files/tokenizer.json outputs/tokenizer/\"\noutputs.tokenizer.type = \"tokenizer\"");
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
    lab.edit("x.toml", "inputs.tokenizer = \"tokenizer\"", "inputs.model = \"weights\"");
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
            "`config.json` says `model_type` `mamba`; `llama`, `internlm2` and `t5` are known",
        ),
        (
            "sed -i 's/LlamaForCausalLM/LlamaModel/' outputs/model/config.json",
            "`config.json` says `architectures` `LlamaModel`; `LlamaForCausalLM` is known",
        ),
        (
            "sed -i 's/\"rope_type\": \"default\"/\"rope_type\": \"spiral\"/' outputs/model/config.json",
            "`rope_parameters.rope_type`: `spiral` is not known",
        ),
        (
            "sed -i 's/\"attention_bias\": false/\"attention_bias\": true/' outputs/model/config.json",
            "there is no tensor `model.layers.0.self_attn.q_proj.bias`",
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

#[test]
fn an_adapter_goes_on_and_is_used_beside_its_base_alone() {
    let parameters =
        "objective.sft = {}\nlength.steps = 4\nadapter.lora = { r = 2, alpha = 4, dropout = 0.0 }";
    let lab = tuning(parameters);
    let from = "inputs = { model = \"model\" }\nprompts.mol2cap = \"prompt.txt\"\nbatch_size = 2\ngradient_accumulation_steps = 2";
    let rows = from.replace("\"model\" }", "\"model\", rows = \"rows\", validation = \"rows\" }");
    lab.edit("x.toml", from, &rows);
    let further = rows.replace("\"model\",", "\"model\", adapter = \"tuned.adapter\",");
    let generate = |name: &str, inputs: &str| {
        format!(
            "[stages.{name}]\nkind = \"generate\"\ninputs = {{ {inputs}, rows = \"rows\" }}\ndirection = \"mol2cap\"\nprompt = \"prompt.txt\"\nmax_new_tokens = 8\n\n"
        )
    };
    let stages = format!(
        "[stages.further]\nkind = \"train\"\n{further}\nlearning_rate = 0.005\n{parameters}\n\n{}{}{}[stages.ranks]\nkind = \"train\"\n{further}\n{}\n\n[table]",
        generate("together", "model = \"model\", adapter = \"tuned.adapter\""),
        generate("merged", "model = \"tuned\""),
        generate("wrong", "model = \"tuned\", adapter = \"tuned.adapter\""),
        parameters.replace("r = 2", "r = 3"),
    );
    lab.edit("x.toml", "[table]", &stages);
    let run = |stage: &str| lab.run(["run", "x.toml", "--until", stage]);
    run("further").expect(0);
    let best = |stage: &str| {
        let looks = looks(&lab, stage);
        let best = looks.iter().map(|look| look["validation_loss"].as_f64().unwrap()).fold(9.9, f64::min);
        (looks[0]["validation_loss"].as_f64().unwrap(), best)
    };
    let ((begin, learnt), (goes_on, end)) = (best("tuned"), best("further"));
    assert!(
        (goes_on - learnt).abs() < 1e-5 && end < learnt && learnt < begin,
        "{begin} {learnt} {goes_on} {end}"
    );
    run("together").expect(0);
    run("merged").expect(0);
    let predictions =
        |stage: &str| lab.run(["show", "x.toml", stage, "--file", "rows.jsonl"]).expect(0).stdout;
    assert_eq!(predictions("together"), predictions("merged"));
    run("wrong").expect(3).says(&["wrong of x.toml", "learnt beside another model", "training started from"]);
    run("ranks").expect(3).says(&[
        "ranks of x.toml: failed to continue the adapter",
        "it has [out, rank, in] [16, 2, 16], and [16, 3, 16] is needed",
    ]);
}
