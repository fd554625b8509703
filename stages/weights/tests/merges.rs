//! Merges are those of mergekit, on its own inputs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use weights::merges::Method;
use weights::{
    Adapter, Dtype, Durability, Expert, MOST_SHARD_BYTES, MergeError, MergeOptions, MergeReport, ModelError,
    ModelFolder, ModelWriter, Normalization, Recipe, Setting, TensorSpec, merge,
};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/merges").join(file)
}

/// A model folder with the tensors of a golden file.
fn model(file: &str) -> (TempDir, ModelFolder) {
    let folder = TempDir::new().expect("a folder");
    fs::copy(golden("config.json"), folder.path().join("config.json")).expect("the config is copied");
    fs::copy(golden(file), folder.path().join("model.safetensors")).expect("the tensors are copied");
    let model = ModelFolder::open(folder.path()).expect("the folder is a model");
    (folder, model)
}

/// Writes a model in another type, with its tensors changed.
fn changed(
    from: &ModelFolder,
    dtype: Dtype,
    mut change: impl FnMut(&str, &mut Vec<f32>),
) -> (TempDir, ModelFolder) {
    let folder = TempDir::new().expect("a folder");
    let specs = from.tensors().iter().map(|tensor| TensorSpec { dtype, ..tensor.into() }).collect();
    let writer = ModelWriter::create(folder.path(), from.config(), specs, MOST_SHARD_BYTES).expect("begun");
    for tensor in from.tensors() {
        let mut values = from.read_f32(&tensor.name).expect("read");
        change(&tensor.name, &mut values);
        writer.write_f32(&tensor.name, &values).expect("written");
    }
    writer.finish(Durability::Buffered).expect("ended");
    let model = ModelFolder::open(folder.path()).expect("the folder is a model");
    (folder, model)
}

fn inputs(dtype: Dtype) -> (Vec<TempDir>, [ModelFolder; 3]) {
    let mut folders = Vec::new();
    let models = ["a.safetensors", "b.safetensors", "base.safetensors"].map(|file| {
        let (folder, model) = model(file);
        let (short, model) = match dtype {
            Dtype::F32 => (folder, model),
            _ => changed(&model, dtype, |_, _| {}),
        };
        folders.push(short);
        model
    });
    (folders, models)
}

fn setting(value: Value) -> Setting {
    serde_json::from_value(value).expect("a setting")
}

fn recipe(method: Value, [a, b, base]: &[ModelFolder; 3], weights: [Value; 2]) -> Recipe {
    let [a_weight, b_weight] = weights.map(setting);
    let expert = |name: &str, model: &ModelFolder, weight| Expert {
        name: name.to_owned(),
        model: model.clone(),
        adapter: None,
        weight,
    };
    Recipe {
        experts: vec![expert("a", a, a_weight), expert("b", b, b_weight)],
        base: Some(base.clone()),
        normalization: Normalization::SumToOne,
        method: serde_json::from_value::<Method>(method).expect("a method"),
        dtype: None,
        tokenizer_from: None,
    }
}

fn run(recipe: &Recipe, threads: usize) -> (TempDir, Result<MergeReport, MergeError>) {
    let folder = TempDir::new().expect("a folder");
    let mut on_progress = |read, all| {
        assert!(read <= all, "{read} of {all}");
        ControlFlow::Continue(())
    };
    let merged = merge(
        recipe,
        folder.path(),
        MergeOptions { threads, durability: Durability::Buffered, on_progress: &mut on_progress },
    );
    (folder, merged)
}

fn merged(recipe: &Recipe) -> (TempDir, ModelFolder) {
    let (folder, merged) = run(recipe, 2);
    merged.expect("the models are merged");
    let model = ModelFolder::open(folder.path()).expect("the result is a model");
    (folder, model)
}

/// Returns the largest difference from a golden file, over all tensors, and how many of how many
/// numbers are not the same.
fn difference(found: &ModelFolder, file: &str) -> (f32, usize, usize) {
    let (_folder, expected) = model(file);
    assert_eq!(found.tensors().len(), expected.tensors().len());
    let (mut largest, mut differing, mut all) = (0f32, 0, 0);
    for tensor in expected.tensors() {
        assert_eq!(found.tensor(&tensor.name).expect("both have it").dtype, tensor.dtype, "{}", tensor.name);
        let values = found.read_f32(&tensor.name).expect("read");
        for (value, expected) in values.iter().zip(expected.read_f32(&tensor.name).expect("read")) {
            largest = largest.max((value - expected).abs());
            differing += usize::from(value.to_bits() != expected.to_bits());
            all += 1;
        }
    }
    (largest, differing, all)
}

/// Checks that two models of bf16 differ by one unit in the last place, and hardly anywhere.
fn expect_level(found: &ModelFolder, file: &str) {
    let (_folder, expected) = model(file);
    let ordered = |bytes: [u8; 2]| {
        let bits = i32::from(i16::from_le_bytes(bytes));
        if bits < 0 { -(bits & 0x7fff) } else { bits }
    };
    let (mut differing, mut all) = (0, 0);
    for tensor in expected.tensors() {
        let [found, expected] =
            [found, &expected].map(|model| model.raw(&tensor.name).expect("there").to_vec());
        for (found, expected) in found.as_chunks::<2>().0.iter().zip(expected.as_chunks::<2>().0) {
            let apart = (ordered(*found) - ordered(*expected)).abs();
            assert!(apart <= 1, "{}: {apart} units", tensor.name);
            differing += apart;
            all += 1;
        }
    }
    assert!(f64::from(differing) <= 1e-4 * f64::from(all), "{differing} of {all} differ in {file}");
}

#[test]
fn slerp_is_that_of_mergekit() {
    let (_folders, models) = inputs(Dtype::F32);
    // t is b's share here: the files were made with t = 1/19 and a the first.
    for (weights, file) in [
        ([json!(18), json!(1)], "slerp_t1over19.safetensors"),
        ([json!(1), json!(1)], "slerp_t0.5.safetensors"),
        (
            [
                json!([
                    { "name_contains": "self_attn", "value": [1, 0.5, 0.7, 0.3, 0] },
                    { "name_contains": "mlp", "value": [0, 0.5, 0.3, 0.7, 1] },
                    { "value": 0.5 },
                ]),
                json!([
                    { "group": "attention", "value": [0, 0.5, 0.3, 0.7, 1] },
                    { "group": "mlp", "value": [1, 0.5, 0.7, 0.3, 0] },
                    { "value": 0.5 },
                ]),
            ],
            "slerp_gradient.safetensors",
        ),
    ] {
        let (_folder, found) = merged(&recipe(json!({ "slerp": {} }), &models, weights));
        let (largest, ..) = difference(&found, file);
        assert!(largest < 1e-6, "{file}: {largest:e}");
    }
}

#[test]
fn soup_and_task_arithmetic_are_those_of_mergekit() {
    let (_folders, models) = inputs(Dtype::F32);
    for (method, file) in [
        (json!({ "soup": {} }), "linear_w1_18.safetensors"),
        (json!({ "task_arithmetic": {} }), "task_arithmetic_w1_18_over19.safetensors"),
    ] {
        let (_folder, found) = merged(&recipe(method, &models, [json!(1), json!(18)]));
        let (largest, ..) = difference(&found, file);
        assert!(largest < 1e-6, "{file}: {largest:e}");
    }
}

#[test]
fn ties_is_that_of_mergekit_bit_for_bit() {
    let (_folders, models) = inputs(Dtype::F32);
    let (_folder, found) = merged(&recipe(json!({ "ties": {} }), &models, [json!(1), json!(18)]));
    assert_eq!(difference(&found, "ties_d0.2_w1_18_norm.safetensors").1, 0);
    let method = json!({ "ties": { "lambda": 0.9, "density": { "a": 0.2, "b": 0.2 } } });
    let recipe = recipe(method, &models, [json!(0.3), json!(0.7)]);
    let (_folder, found) = merged(&Recipe { normalization: Normalization::None, ..recipe });
    assert_eq!(difference(&found, "ties_d0.2_w0.3_0.7_nonorm_lambda0.9.safetensors").1, 0);
}

#[test]
fn merges_of_bf16_are_level_with_mergekit() {
    let (_folders, models) = inputs(Dtype::BF16);
    for (method, weights, file) in [
        (json!({ "slerp": {} }), [json!(18), json!(1)], "bf16_slerp_t1over19.safetensors"),
        (json!({ "soup": {} }), [json!(1), json!(18)], "bf16_linear_w1_18.safetensors"),
    ] {
        let (_folder, found) = merged(&recipe(method, &models, weights));
        expect_level(&found, file);
    }
}

/// mergekit sorts with a sort that is not stable, so where values lie exactly at the cut it is
/// chance which of them it keeps. Everywhere else the result is its own, bit for bit.
#[test]
fn ties_of_bf16_is_that_of_mergekit_but_for_equals_at_the_cut() {
    let (_folders, models) = inputs(Dtype::BF16);
    let method = json!({ "ties": { "compute_dtype": "bf16" } });
    let (_folder, found) = merged(&recipe(method, &models, [json!(1), json!(18)]));
    let (_folder, expected) = model("bf16_ties_d0.2_w1_18_norm.safetensors");
    let (mut differing, mut all) = (0, 0);
    for tensor in expected.tensors() {
        let [a, b, base, found, expected] = [&models[0], &models[1], &models[2], &found, &expected]
            .map(|model| model.read_f32(&tensor.name).expect("read"));
        let magnitudes = [a, b].map(|model| -> Vec<f32> {
            let deltas = model.iter().zip(&base).map(|(value, base)| value - base);
            deltas.map(|delta| weights::floats::rounded(Dtype::BF16, delta).abs()).collect()
        });
        let cuts = magnitudes.clone().map(|mut magnitudes| {
            magnitudes.sort_by(|one, other| other.total_cmp(one));
            magnitudes[magnitudes.len() / 5 - 1]
        });
        for at in (0..found.len()).filter(|at| found[*at] != expected[*at]) {
            let is_at_cut = magnitudes[0][at] == cuts[0] || magnitudes[1][at] == cuts[1];
            assert!(is_at_cut, "{} {at}: {} {}", tensor.name, found[at], expected[at]);
            differing += 1;
        }
        all += found.len();
    }
    assert!(differing * 100 < all, "{differing} of {all}");
}

#[test]
fn exact_intermediates_are_nearer_to_the_exact_result() {
    let (_folders, models) = inputs(Dtype::BF16);
    let weights = || [json!(1), json!(18)];
    let exact = Recipe { dtype: Some(Dtype::F32), ..recipe(json!({ "ties": {} }), &models, weights()) };
    let (_folder, exact) = merged(&exact);
    let error = |method: Value| {
        let (_folder, found) = merged(&recipe(method, &models, weights()));
        let of = |name: &str| -> f32 {
            let (found, exact) = (found.read_f32(name).expect("read"), exact.read_f32(name).expect("read"));
            found.iter().zip(exact).map(|(found, exact)| (found - exact).abs()).sum()
        };
        found.tensors().iter().map(|tensor| of(&tensor.name)).sum::<f32>()
    };
    let (short, long) = (error(json!({ "ties": { "compute_dtype": "bf16" } })), error(json!({ "ties": {} })));
    assert!(long <= short, "{long} {short}");
}

fn bytes(folder: &TempDir) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> = entries
        .map(|entry| {
            (entry.file_name().into_string().expect("a name"), fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn neither_threads_nor_the_order_of_models_change_a_byte() {
    let (_folders, models) = inputs(Dtype::BF16);
    for method in [
        json!({ "slerp": {} }),
        json!({ "slerp": { "vectors": "task", "angle": "model" } }),
        json!({ "soup": {} }),
        json!({ "task_arithmetic": { "lambda": 0.5 } }),
        json!({ "ties": {} }),
        json!({ "ties": { "rule": "paper", "trim": "model" } }),
        json!({ "dare": { "density": 0.3, "seed": 7 } }),
        json!({ "dare": { "density": 0.3, "join": "ties" } }),
    ] {
        let recipe = recipe(method, &models, [json!(1), json!([18, 2])]);
        let mut turned = Recipe { tokenizer_from: Some("a".to_owned()), ..recipe.clone() };
        turned.experts.reverse();
        let results = [(&recipe, 1), (&recipe, 2), (&recipe, 7), (&turned, 3)].map(|(recipe, threads)| {
            let (folder, merged) = run(recipe, threads);
            assert_eq!(merged.expect("merged").notes, Vec::<String>::new());
            bytes(&folder)
        });
        assert!(results.iter().all(|result| *result == results[0]), "{:?}", recipe.method);
    }
}

#[test]
fn trimming_of_the_whole_model_keeps_its_largest_values() {
    let (_folders, models) = inputs(Dtype::F32);
    let [a, _, base] = &models;
    let only = |density: f64, trim: &str| {
        let method = json!({ "ties": { "density": density, "trim": trim } });
        let mut recipe = recipe(method, &models, [json!(1), json!(1)]);
        recipe.experts.pop();
        merged(&recipe).1
    };
    let names: Vec<&str> = base.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let deltas = |model: &ModelFolder| -> Vec<f32> {
        let of = |name: &&str| {
            let (values, base) = (model.read_f32(name).expect("read"), base.read_f32(name).expect("read"));
            values.into_iter().zip(base).map(|(value, base)| value - base).collect::<Vec<_>>()
        };
        names.iter().flat_map(of).collect()
    };
    let whole = deltas(a);
    let mut magnitudes: Vec<f32> = whole.iter().map(|delta| delta.abs()).collect();
    magnitudes.sort_by(|one, other| other.total_cmp(one));
    let least = magnitudes[(whole.len() as f64 * 0.1) as usize - 1];
    for (found, delta) in deltas(&only(0.1, "model")).iter().zip(&whole) {
        let expected = if delta.abs() >= least { *delta } else { 0.0 };
        assert!((found - expected).abs() < 1e-6, "{found} {delta} {least}");
    }
    // All of it is the model itself.
    for trim in ["tensor", "model"] {
        let found = deltas(&only(1.0, trim));
        let largest = found.iter().zip(&whole).map(|(found, delta)| (found - delta).abs());
        assert!(largest.fold(0.0, f32::max) < 1e-6, "{trim}");
    }
}

#[test]
fn the_papers_rule_halves_what_survives() {
    let (_folders, models) = inputs(Dtype::F32);
    let method = json!({ "ties": { "rule": "paper", "density": 1.0 } });
    let (_folder, found) = merged(&recipe(method, &models, [json!(1), json!(18)]));
    for tensor in found.tensors() {
        let read = |model: &ModelFolder| model.read_f32(&tensor.name).expect("read");
        let (values, [a, b, base]) = (read(&found), models.each_ref().map(read));
        for at in 0..values.len() {
            let (one, other) = (a[at] - base[at], b[at] - base[at]);
            let larger = if one.abs() > other.abs() { one } else { other };
            let sum = if one * other < 0.0 { larger } else { one + other };
            assert!((values[at] - (base[at] + sum / 2.0)).abs() < 1e-6, "{} {at}", tensor.name);
        }
    }
}

#[test]
fn types_are_those_of_the_models_or_as_asked() {
    let (_folders, [a, b, base]) = inputs(Dtype::F32);
    let (_short, b) = changed(&b, Dtype::F16, |_, _| {});
    let mixed = recipe(json!({ "soup": {} }), &[a, b, base], [json!(1), json!(1)]);
    let (folder, report) = run(&mixed, 2);
    assert_eq!(
        report.expect("merged").notes,
        ["39 tensors are of different types in the models, and F32 in the result"]
    );
    let model = ModelFolder::open(folder.path()).expect("a model");
    assert!(model.tensors().iter().all(|tensor| tensor.dtype == Dtype::F32));
    for (dtype, name) in [(Dtype::F16, "float16"), (Dtype::BF16, "bfloat16")] {
        let (_folder, model) = merged(&Recipe { dtype: Some(dtype), ..mixed.clone() });
        assert!(model.tensors().iter().all(|tensor| tensor.dtype == dtype));
        assert_eq!(model.config()["dtype"], name);
    }
}

fn refused(recipe: &Recipe) -> String {
    let (folder, merged) = run(recipe, 2);
    let message = merged.expect_err("it is refused").to_string();
    assert!(ModelFolder::open(folder.path()).is_err(), "nothing is left that could be taken for a model");
    assert!(bytes(&folder).iter().all(|(name, _)| !name.contains("safetensors")), "{message}");
    message
}

#[test]
fn what_is_wrong_with_numbers_is_named_and_counted() {
    let (_folders, [a, b, base]) = inputs(Dtype::F32);
    let name = "model.layers.1.mlp.up_proj.weight";
    let (_odd, odd) = changed(&b, Dtype::F32, |tensor, values| {
        if tensor == name {
            values[3] = f32::NAN;
            values[9] = f32::NEG_INFINITY;
            values[11] = f32::INFINITY;
        } else if tensor == "model.norm.weight" {
            values[0] = f32::NAN;
        }
    });
    let expected = format!(
        "tensor `{name}` of `b` (model.safetensors) holds 1 NaN and 2 infinite numbers; 1 more tensors cannot be merged either"
    );
    for method in [json!({ "slerp": {} }), json!({ "soup": {} }), json!({ "ties": {} })] {
        let recipe = recipe(method, &[a.clone(), odd.clone(), base.clone()], [json!(1), json!(1)]);
        assert_eq!(refused(&recipe), expected);
    }
    let (_zero, zero) = changed(&b, Dtype::F32, |tensor, values| {
        if tensor == name {
            values.fill(0.0);
        }
    });
    let slerp = |method: Value, models: [&ModelFolder; 2]| {
        recipe(method, &[models[0].clone(), models[1].clone(), base.clone()], [json!(1), json!(1)])
    };
    assert_eq!(
        refused(&slerp(json!({ "slerp": {} }), [&a, &zero])),
        format!("tensor `{name}` is all zeros in `b` and not in `a`: there is no angle between them")
    );
    let (_folder, both) = merged(&slerp(json!({ "slerp": {} }), [&zero, &zero]));
    assert!(both.read_f32(name).expect("read").iter().all(|value| *value == 0.0));
    // A task vector of zeros is a tensor that was not tuned.
    let (_folder, tuned) = merged(&slerp(json!({ "slerp": { "vectors": "task" } }), [&a, &base]));
    let middle = |model: &ModelFolder| model.read_f32(name).expect("read")[5];
    assert!((middle(&tuned) - (middle(&a) + middle(&base)) / 2.0).abs() < 1e-6);
    let (_large, large) = changed(&a, Dtype::F32, |_, values| values[0] = 70_000.0);
    let large = Recipe { dtype: Some(Dtype::F16), ..slerp(json!({ "soup": {} }), [&large, &large]) };
    let message = refused(&large);
    assert!(
        message.starts_with("1 numbers of the merged tensor `lm_head.weight` are too large for F16"),
        "{message}"
    );
}

#[test]
fn models_that_do_not_fit_together_are_refused() {
    let (_folders, models) = inputs(Dtype::F32);
    let [a, b, base] = &models;
    let soup = |b: &ModelFolder| {
        recipe(json!({ "soup": {} }), &[a.clone(), b.clone(), base.clone()], [json!(1), json!(1)])
    };
    let rewritten = |config: Value, change: &dyn Fn(&mut TensorSpec) -> bool| {
        let folder = TempDir::new().expect("a folder");
        let mut merged = b.config().clone();
        merged.extend(config.as_object().expect("a table").clone());
        let specs = b.tensors().iter().map(TensorSpec::from);
        let specs: Vec<_> = specs.filter_map(|mut spec| change(&mut spec).then_some(spec)).collect();
        let writer =
            ModelWriter::create(folder.path(), &merged, specs.clone(), MOST_SHARD_BYTES).expect("begun");
        for spec in specs {
            let count = spec.shape.iter().product::<u64>() as usize;
            writer.write_f32(&spec.name, &vec![1.0; count]).expect("written");
        }
        writer.finish(Durability::Buffered).expect("ended");
        let model = ModelFolder::open(folder.path()).expect("a model");
        (folder, model)
    };
    let all = |_: &mut TensorSpec| true;
    let (_folder, other) = rewritten(json!({ "num_attention_heads": 4 }), &all);
    assert_eq!(
        refused(&soup(&other)),
        "the models differ in `num_attention_heads` of config.json: 2 in `a`, 4 in `b`"
    );
    let (_folder, other) = rewritten(json!({}), &|spec| !spec.name.starts_with("model.layers.3.mlp"));
    assert_eq!(
        refused(&soup(&other)),
        "tensor `model.layers.3.mlp.down_proj.weight` is in `a` (model.safetensors) and not in `b`, and so are 2 more"
    );
    let (_folder, other) = rewritten(json!({}), &|spec| {
        if spec.name == "lm_head.weight" {
            spec.shape = vec![50, 16];
        }
        true
    });
    assert_eq!(
        refused(&soup(&other)),
        "tensor `lm_head.weight` has the shape [48, 16] in `a` and [50, 16] in `b`"
    );
    let (_folder, other) = rewritten(json!({ "pad_token_id": 7, "transformers_version": "4" }), &all);
    let (_result, report) = run(&soup(&other), 1);
    assert_eq!(
        report.expect("merged").notes,
        ["`pad_token_id` of config.json is 0 in `a` and 7 in `b`; the former is carried over"]
    );
    let without = Recipe { base: None, ..recipe(json!({ "ties": {} }), &models, [json!(1), json!(1)]) };
    assert!(refused(&without).contains("as `base`"));
    let rules = json!([{ "group": "norms", "value": 1 }]);
    let message = refused(&recipe(json!({ "soup": {} }), &models, [json!(1), rules]));
    assert!(message.starts_with("no rule of `b` gives tensor `lm_head.weight` a weight"), "{message}");
    let zeros = [json!([{ "group": "norms", "value": 0 }, { "value": 1 }]), json!([0, 1])];
    let message = refused(&recipe(json!({ "soup": {} }), &models, zeros));
    assert!(message.starts_with("the ratio for tensor `model.layers.0.input_layernorm.weight`"), "{message}");
}

#[test]
fn vocabularies_must_be_the_same_and_tokenizers_are_carried_over() {
    let (folders, models) = inputs(Dtype::F32);
    let tokenizer = |at: usize, vocab: Value, normalizer: Value| {
        let text = json!({ "model": { "type": "BPE", "vocab": vocab }, "normalizer": normalizer,
            "added_tokens": [{ "id": 0, "content": "<s>" }] });
        fs::write(folders[at].path().join("tokenizer.json"), text.to_string()).expect("written");
    };
    let soup = || {
        let paths = [0, 1, 2].map(|at| folders[at].path());
        let models = paths.map(|path| ModelFolder::open(path).expect("a model"));
        recipe(json!({ "soup": {} }), &models, [json!(1), json!(1)])
    };
    tokenizer(0, json!({ "a": 1, "b": 2 }), Value::Null);
    let (_result, report) = run(&soup(), 1);
    assert_eq!(report.expect("merged").notes, ["`b` has no `tokenizer.json` to compare with `a`'s"]);
    tokenizer(1, json!({ "a": 1, "b": 3, "c": 2 }), Value::Null);
    assert_eq!(
        refused(&soup()),
        "the vocabularies differ: token `b` is 2 in `a` and 3 in `b`, and 1 more differ"
    );
    tokenizer(1, json!({ "b": 2, "a": 1 }), json!({ "type": "NFC" }));
    fs::write(folders[1].path().join("special_tokens_map.json"), "{}").expect("written");
    let from_b = Recipe { tokenizer_from: Some("b".to_owned()), ..soup() };
    let (result, report) = run(&from_b, 1);
    assert_eq!(
        report.expect("merged").notes,
        [
            "the tokenizers of `b` and `a` have the same tokens and differ in `normalizer`; the former is carried over"
        ]
    );
    let names: Vec<String> = bytes(&result).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json"]);
    drop(models);
}

#[test]
fn a_merge_that_is_told_to_stop_leaves_nothing() {
    let (_folders, models) = inputs(Dtype::F32);
    let recipe = recipe(json!({ "soup": {} }), &models, [json!(1), json!(1)]);
    let folder = TempDir::new().expect("a folder");
    let mut on_progress = |_, _| ControlFlow::Break(());
    let options =
        MergeOptions { threads: 1, durability: Durability::Buffered, on_progress: &mut on_progress };
    let error = merge(&recipe, folder.path(), options).expect_err("it was stopped");
    assert!(matches!(error, MergeError::Cancelled), "{error}");
    assert_eq!(bytes(&folder), []);
}

/// A disk that fills up while tensors are written, which a limit on the size of files stands in
/// for: room that cannot be taken beforehand is found missing only then.
#[test]
fn a_disk_that_fills_up_is_told_with_file_and_tensor_and_leaves_nothing() {
    const FOLDER: &str = "FOLDER_OF_A_MERGE_THAT_CANNOT_END";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill_up(Path::new(&folder));
    }
    // In a process of its own, for the limit is on all that it writes, and the signal that comes
    // with it would end the tests.
    let folder = TempDir::new().expect("a folder");
    let told = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("the tests are a program"))
        .args(["--exact", "a_disk_that_fills_up_is_told_with_file_and_tensor_and_leaves_nothing"])
        .env(FOLDER, folder.path())
        .output()
        .expect("it starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    assert_eq!(bytes(&folder), []);
}

fn fill_up(folder: &Path) {
    let (_folders, models) = inputs(Dtype::F32);
    // It reads everything before it writes anything: the limit is there in time.
    let recipe = recipe(json!({ "slerp": { "angle": "model" } }), &models, [json!(1), json!(1)]);
    let mut on_progress = |_, _| {
        let partial = folder.join("model.safetensors.partial");
        let limit = fs::metadata(partial).expect("the room is taken").len() * 2 / 3;
        let limit = Rlimit { current: Some(limit), ..getrlimit(Resource::Fsize) };
        setrlimit(Resource::Fsize, limit).expect("a limit may be lowered");
        ControlFlow::Continue(())
    };
    let options =
        MergeOptions { threads: 1, durability: Durability::Buffered, on_progress: &mut on_progress };
    let error = merge(&recipe, folder, options).expect_err("there is no room");
    let MergeError::Writing(ModelError::WriteTensor { tensor, file, source }) = &error else {
        panic!("{error}")
    };
    assert!(models[0].tensor(tensor).is_some(), "{tensor}");
    assert_eq!((file.as_str(), source.kind()), ("model.safetensors", ErrorKind::FileTooLarge));
    assert_eq!(
        error.to_string(),
        format!("cannot write tensor `{tensor}` to `model.safetensors`: File too large (os error 27)")
    );
}

/// A base, and an adapter on it with its configuration and tensors changed.
fn adapted(config: Value, change: impl Fn(&mut Vec<TensorSpec>)) -> (TempDir, ModelFolder, Adapter) {
    let golden = golden("../lora");
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("config.json"), "{\"model_type\": \"llama\"}").expect("written");
    fs::copy(golden.join("base.safetensors"), folder.path().join("model.safetensors")).expect("copied");
    let base = ModelFolder::open(folder.path()).expect("a model");
    let adapter = folder.path().join("adapter");
    fs::create_dir(&adapter).expect("a folder");
    let text = fs::read(golden.join("adapter_config.json")).expect("there is a configuration");
    let mut merged: serde_json::Map<String, Value> = serde_json::from_slice(&text).expect("JSON");
    merged.extend(config.as_object().expect("a table").clone());
    // Written by way of a model, whose file of tensors is one like any other.
    let tensors = TempDir::new().expect("a folder");
    fs::write(tensors.path().join("config.json"), "{}").expect("written");
    fs::copy(golden.join("adapter_model.safetensors"), tensors.path().join("model.safetensors"))
        .expect("copied");
    let original = ModelFolder::open(tensors.path()).expect("tensors");
    let mut specs: Vec<TensorSpec> = original.tensors().iter().map(TensorSpec::from).collect();
    change(&mut specs);
    let writer =
        ModelWriter::create(&adapter, original.config(), specs.clone(), MOST_SHARD_BYTES).expect("begun");
    for TensorSpec { name, shape, .. } in specs {
        let values = original.read_f32(&name).ok();
        let count = shape.iter().product::<u64>() as usize;
        let values = values.filter(|values| values.len() == count).unwrap_or_else(|| vec![2.0; count]);
        writer.write_f32(&name, &values).expect("written");
    }
    writer.finish(Durability::Buffered).expect("ended");
    fs::rename(adapter.join("model.safetensors"), adapter.join("adapter_model.safetensors"))
        .expect("renamed");
    fs::write(adapter.join("adapter_config.json"), Value::Object(merged).to_string()).expect("written");
    assert!(Adapter::is_in(&adapter) && !Adapter::is_in(folder.path()));
    let opened = Adapter::open(&adapter).expect("an adapter");
    (folder, base, opened)
}

/// The weights with an adapter merged in, as the mean of twice the same.
fn with_adapter(base: &ModelFolder, adapter: &Adapter) -> Recipe {
    let models = [base, base, base].map(Clone::clone);
    let mut recipe = recipe(json!({ "soup": {} }), &models, [json!(1), json!(1)]);
    recipe.experts.iter_mut().for_each(|expert| expert.adapter = Some(adapter.clone()));
    recipe
}

#[test]
fn adapters_are_merged_in_as_by_peft() {
    let (_folder, base, adapter) = adapted(json!({}), |_| {});
    let (_folder, found) = merged(&with_adapter(&base, &adapter));
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("config.json"), "{}").expect("written");
    let expected = golden("../lora/expected.safetensors");
    fs::copy(expected, folder.path().join("model.safetensors")).expect("copied");
    let expected = ModelFolder::open(folder.path()).expect("tensors");
    let read = |model: &ModelFolder, name: &str| model.read_f32(name).expect("read");
    assert_eq!(expected.tensors().len(), 4);
    for tensor in expected.tensors() {
        let [found, expected, base] = [&found, &expected, &base].map(|model| read(model, &tensor.name));
        assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6));
        assert!(base.iter().zip(&expected).any(|(base, expected)| (base - expected).abs() > 1e-2));
    }
    // The square root of the rank, and a scale of its own for one module.
    let options = json!({ "use_rslora": true, "alpha_pattern": { "up_proj": 0 } });
    let (_folder, base, adapter) = adapted(options, |_| {});
    let (_folder, scaled) = merged(&with_adapter(&base, &adapter));
    let name = "model.layers.0.self_attn.q_proj.weight";
    let (base_values, expected) = (read(&base, name), read(&expected, name));
    for (at, value) in read(&scaled, name).iter().enumerate() {
        let delta = (expected[at] - base_values[at]) * 8f32.sqrt();
        assert!((value - base_values[at] - delta).abs() < 1e-5, "{at}");
    }
    let unscaled = "model.layers.0.mlp.up_proj.weight";
    assert_eq!(read(&scaled, unscaled), read(&base, unscaled));
}

#[test]
fn an_adapter_may_replace_a_tensor_and_must_fit_its_base() {
    let replaced = |specs: &mut Vec<TensorSpec>| {
        specs.retain(|spec| !spec.name.contains("k_proj"));
        let name = "base_model.model.model.layers.0.self_attn.k_proj.weight".to_owned();
        specs.push(TensorSpec { name, dtype: Dtype::F32, shape: vec![32, 64] });
    };
    let (_folder, base, adapter) = adapted(json!({}), replaced);
    let (_folder, found) = merged(&with_adapter(&base, &adapter));
    let values = found.read_f32("model.layers.0.self_attn.k_proj.weight").expect("read");
    assert!(values.iter().all(|value| *value == 2.0));
    let (_folder, base, adapter) = adapted(json!({}), |specs| specs[0].shape[0] = 4);
    let message = refused(&with_adapter(&base, &adapter));
    assert!(message.contains("lora_B.weight` has the shape [176, 8], and [176, 4] is needed"), "{message}");
    let (_folder, base, adapter) = adapted(json!({}), |specs| drop(specs.pop()));
    assert!(refused(&with_adapter(&base, &adapter)).contains("has no counterpart"));
    let (_folder, base, adapter) = adapted(json!({}), |specs| {
        specs.iter_mut().for_each(|spec| spec.name = spec.name.replace("layers.1", "layers.5"));
    });
    let message = refused(&with_adapter(&base, &adapter));
    assert!(
        message.contains("it changes `model.layers.5.self_attn.q_proj.weight`, which its base"),
        "{message}"
    );
    for (option, value) in [("use_dora", json!(true)), ("peft_type", json!("IA3"))] {
        let folder = TempDir::new().expect("a folder");
        let mut config = json!({ "peft_type": "LORA" });
        config[option] = value;
        fs::write(folder.path().join("adapter_config.json"), config.to_string()).expect("written");
        let message = Adapter::open(folder.path()).expect_err("it is refused").to_string();
        assert!(message.contains(option), "{message}");
    }
}

#[test]
fn the_rank_of_an_adapter_is_that_of_its_tensors() {
    let opened = |change: Value| {
        let folder = TempDir::new().expect("a folder");
        let golden = golden("../lora");
        let text = fs::read(golden.join("adapter_config.json")).expect("there is a configuration");
        let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&text).expect("JSON");
        config.extend(change.as_object().expect("a table").clone());
        fs::write(folder.path().join("adapter_config.json"), Value::Object(config).to_string())
            .expect("written");
        fs::copy(golden.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
            .expect("copied");
        Adapter::open(folder.path()).and_then(|adapter| adapter.products()).map_err(|error| error.to_string())
    };
    assert!(opened(json!({})).is_ok());
    for (field, value) in [
        ("r", json!(-1)),
        ("r", json!(0)),
        ("r", json!(9_223_372_036_854_775_808_u64)),
        ("r", json!("x")),
        ("r", json!(8.5)),
        ("rank_pattern", json!(7)),
        ("rank_pattern", json!({ "q_proj": -2 })),
        ("alpha_pattern", json!({ "q_proj": "x" })),
        ("lora_alpha", json!("x")),
    ] {
        let error = opened(json!({ field: value })).expect_err("it is refused");
        assert!(error.contains(field) && error.contains("`adapter_config.json` is"), "{error}");
    }
    let error = opened(json!({ "r": 4 })).expect_err("it is refused");
    assert!(error.contains("`adapter_config.json` says that `r` of `model.layers."), "{error}");
    assert!(error.contains("is 4, and its tensors have rank 8"), "{error}");
    // Patterns say otherwise, as names or as regular expressions.
    let all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let by_name: serde_json::Map<String, Value> =
        all.iter().map(|name| ((*name).to_owned(), json!(8))).collect();
    assert!(opened(json!({ "r": 4, "rank_pattern": by_name })).is_ok());
    assert!(opened(json!({ "r": 4, "rank_pattern": { ".*_proj": 8 } })).is_ok());
    assert!(opened(json!({ "r": 4, "rank_pattern": { ".*_proj": 16 } })).is_err());
}

#[test]
fn a_head_that_is_tied_may_be_left_to_the_embedding() {
    let (_folders, models) = inputs(Dtype::F32);
    let names = |with_head: bool| {
        let tied = |model: &ModelFolder| {
            let mut config = model.config().clone();
            config.insert("tie_word_embeddings".to_owned(), true.into());
            let folder = TempDir::new().expect("a folder");
            let specs = model.tensors().iter().filter(|tensor| with_head || tensor.name != "lm_head.weight");
            let specs: Vec<TensorSpec> = specs.map(TensorSpec::from).collect();
            let writer = ModelWriter::create(folder.path(), &config, specs.clone(), 8_000).expect("begun");
            for TensorSpec { name, .. } in &specs {
                writer.write_raw(name, model.raw(name).expect("read")).expect("written");
            }
            writer.finish(Durability::Buffered).expect("ended");
            folder
        };
        models.each_ref().map(tied)
    };
    // In shards, too.
    let (with, without) = (names(true), names(false));
    let open = |folder: &TempDir| ModelFolder::open(folder.path()).expect("a model");
    assert!(open(&with[0]).files().len() > 2);
    let mixed = [open(&with[0]), open(&without[1]), open(&with[2])];
    let (folder, report) = run(&recipe(json!({ "ties": {} }), &mixed, [json!(1), json!(1)]), 2);
    assert_eq!(
        report.expect("merged").notes,
        ["`lm_head.weight` is not written: it is tied to the embedding, and not all models have it"]
    );
    assert!(open(&folder).tensor("lm_head.weight").is_none());
    let all = with.each_ref().map(open);
    let (folder, report) = run(&recipe(json!({ "ties": {} }), &all, [json!(1), json!(1)]), 2);
    assert_eq!(report.expect("merged").notes, Vec::<String>::new());
    assert!(open(&folder).tensor("lm_head.weight").is_some());
}

#[test]
fn all_of_one_model_is_that_model() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let (_folders, models) = inputs(dtype);
        for method in
            [json!({ "slerp": {} }), json!({ "slerp": { "angle": "model" } }), json!({ "soup": {} })]
        {
            for (weights, expected) in
                [([json!(1), json!(0)], &models[0]), ([json!(0), json!(3)], &models[1])]
            {
                let (_folder, found) = merged(&recipe(method.clone(), &models, weights));
                for tensor in expected.tensors() {
                    let [found, expected] =
                        [&found, expected].map(|model| model.read_f32(&tensor.name).expect("read"));
                    assert_eq!(found, expected, "{} {method}", tensor.name);
                }
            }
        }
    }
}

#[test]
fn a_model_merged_with_itself_is_itself() {
    let (_folders, [a, _, base]) = inputs(Dtype::BF16);
    let models = [a.clone(), a.clone(), base];
    for method in [
        json!({ "slerp": {} }),
        json!({ "slerp": { "vectors": "task" } }),
        json!({ "soup": {} }),
        json!({ "task_arithmetic": {} }),
        json!({ "ties": { "density": 1.0 } }),
        json!({ "ties": { "density": 1.0, "rule": "paper" } }),
        json!({ "dare": { "density": 1.0, "join": "ties" } }),
    ] {
        let (_folder, found) = merged(&recipe(method.clone(), &models, [json!(1), json!(18)]));
        for tensor in a.tensors() {
            let [found, expected] = [&found, &a].map(|model| model.raw(&tensor.name).expect("read").to_vec());
            assert!(found == expected, "{} {method}", tensor.name);
        }
    }
}
