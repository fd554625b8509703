//! What shows the program on a GPU, `benches/gpu/show`, with a program that stands in for ours: it
//! ends in time, names what failed, and loses nothing behind a failed step.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::lab::{Lab, Told, project};

const STEPS: [&str; 12] = [
    "card",
    "matmul",
    "kernels",
    "convergence",
    "parity",
    "memory",
    "write",
    "qlora",
    "model_packed",
    "model_dense",
    "peft",
    "table4",
];

/// Returns whether there is a Python, and says so loudly if not.
fn has_python() -> bool {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("SKIPPED: there is no `python3`, which benches/gpu/show needs");
    }
    is_there
}

/// What a run showed: how it ended, and its results.
struct Shown {
    told: Told,
    results: Value,
}

impl Shown {
    fn step(&self, name: &str) -> &Value {
        let steps = self.results["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("{name}: {}", self.results))
    }

    /// Asserts which steps failed, and as what; all others were done or skipped.
    #[track_caller]
    fn failed(&self, expected: &[(&str, &str)]) {
        for name in STEPS {
            let step = self.step(name);
            let failure = expected.iter().find(|(step, _)| *step == name).map(|(_, failure)| *failure);
            let (status, named) = (step["status"].as_str().unwrap(), step["failure"]["name"].as_str());
            assert_eq!(named, failure, "{name}: {step}\n{}", self.told.stdout);
            let ended: &[&str] = if failure.is_some() { &["failed"] } else { &["ok", "skipped"] };
            assert!(ended.contains(&status), "{name}: {step}");
        }
        assert_eq!(self.told.code, i32::from(!expected.is_empty()), "{}", self.told.stderr);
    }
}

/// Shows the stand-in, with a fault, on a device, from a folder as `pack` makes it.
fn show(device: &str, fault: &str, options: &[&str]) -> Shown {
    let lab = Lab::new();
    lab.write("gpu/manifest.json", r#"{"commit": "0123456789abcdef", "cuda_version": 13000}"#);
    lab.write("gpu/table4.smoke.csv", "label,BLEU-2,BLEU-2_published,missing\nSFT,0.25,0.6,\n");
    let place = |name: &str| lab.path(&format!("gpu/{name}"));
    fs::copy(project().join("benches/gpu/show"), place("show")).unwrap();
    let stand_in: PathBuf = project().join("tests/gpu/program");
    symlink(&stand_in, place("pipeline")).unwrap();
    symlink(&stand_in, place("learn-tests")).unwrap();
    let output = Command::new("python3")
        .arg(place("show"))
        .args(["--device", device, "--small", "--out", "shown", "--budget", "240"])
        .args(options)
        .current_dir(lab.path("."))
        .env("FAULT", fault)
        .output()
        .unwrap();
    let results = serde_json::from_str(&lab.read("shown/results.json")).unwrap();
    assert!(!lab.path("shown/model").exists(), "what was written on the way is removed");
    Shown { told: Told::of(output), results }
}

#[test]
fn every_step_has_its_lines_and_its_results() {
    if !has_python() {
        return;
    }
    let shown = show("wgpu", "", &[]);
    shown.failed(&[]);
    assert_eq!(shown.results["format"], 1);
    assert_eq!(shown.results["program"]["commit"], "0123456789abcdef");
    assert_eq!(shown.step("kernels")["result"]["passed"], serde_json::json!(["tensor::nf4::packed"]));
    // WebGPU has no bfloat16, which is no failure.
    assert_eq!(shown.step("convergence")["result"]["bf16"]["failure"], "the precision is refused");
    assert_eq!(shown.step("qlora")["result"]["taken_over_estimated"], 0.75);
    assert_eq!(shown.step("table4")["result"]["largest_difference"]["BLEU-2"], 0.25);
    assert_eq!(shown.step("peft")["status"], "skipped");
    let told = shown.told.shows(&["== matmul: ", "-- matmul: ok", "== all steps", "results.json"]);
    assert!(told.stderr.is_empty(), "{}", told.stderr);
}

#[test]
fn a_failure_is_named_and_stops_no_other_step() {
    if !has_python() {
        return;
    }
    let without = |failure: &'static str, spared: &[&str]| -> Vec<(&'static str, &'static str)> {
        STEPS.into_iter().filter(|step| !spared.contains(step)).map(|step| (step, failure)).collect()
    };
    // What needs no device is done all the same.
    let spared = ["write", "peft"];
    show("cuda", "no driver", &[]).failed(&without("no driver", &spared));
    for (fault, step, failure) in [
        ("out of memory", "qlora", "out of memory"),
        ("killed", "qlora", "killed"),
        ("kernel", "kernels", "a kernel does not compile"),
        ("garbage", "matmul", "no JSON"),
        ("short sums", "matmul", "sums are not accumulated in f32"),
        ("memory grows", "memory", "memory grows"),
    ] {
        show("wgpu", fault, &[]).failed(&[(step, failure)]);
    }
    let old = show("cuda", "driver too old", &["--only", "matmul,qlora,write"]);
    for step in ["matmul", "qlora"] {
        assert_eq!(old.step(step)["failure"]["name"], "driver too old", "{}", old.results);
    }
    assert_eq!(old.step("write")["status"], "ok");
    let kernels = show("wgpu", "kernel", &["--only", "kernels"]);
    let failed = &kernels.step("kernels")["result"]["failed"]["tensor::nf4::packed"];
    assert!(failed.as_str().unwrap().contains("NVRTC_ERROR_COMPILATION"), "{failed}");
}

#[test]
fn what_hangs_is_stopped_and_what_is_left_over_is_reported() {
    if !has_python() {
        return;
    }
    // Four and a half seconds for the step that hangs.
    let shown = show("wgpu", "hangs", &["--only", "write,qlora,matmul", "--stretch", "0.05"]);
    assert_eq!(shown.step("write")["failure"]["name"], "out of time");
    assert_eq!(shown.step("qlora")["status"], "skipped");
    assert_eq!(shown.step("matmul")["status"], "ok");
    let shown = show("wgpu", "hangs", &["--only", "write,qlora", "--budget", "11"]);
    assert_eq!(shown.step("write")["failure"]["name"], "out of time");
    assert_eq!(shown.step("qlora")["failure"]["name"], "no time left");
    assert!(shown.results["seconds"].as_f64().unwrap() < 30.0, "{}", shown.results["seconds"]);
}

#[test]
fn the_docs_say_what_was_seen() {
    if !has_python() {
        return;
    }
    let report = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        Told::of(command.arg(project().join("benches/gpu/report")).args(arguments).output().unwrap())
    };
    let _ = report(&["--check"]).expect(0);
    let lab = Lab::new();
    let shown = show("wgpu", "kernel", &[]);
    lab.write("wgpu.json", shown.results.to_string());
    // The same with a card.
    let mut card = show("wgpu", "", &[]).results;
    card["device"] = "cuda".into();
    card["card"] = serde_json::json!({ "name": "NVIDIA H100", "driver": "580.1" });
    lab.write("cuda.json", card.to_string());
    let [wgpu, cuda] = ["wgpu.json", "cuda.json"].map(|name| lab.path(name).display().to_string());
    let _ = report(&["--print", &wgpu]).expect(0).shows(&[
        "Nothing of this has run on an NVIDIA GPU yet.",
        "| not seen | failed: a kernel does not compile |",
        "Nothing was measured on a GPU yet.",
    ]);
    let _ = report(&["--print", &cuda, &wgpu]).expect(0).shows(&[
        "NVIDIA H100, driver 580.1",
        "| large products in f32 | 1 TFLOP/s |",
        "| memory of the device, `qlora`: taken, estimated | 3.0, 4.0 GiB |",
        "| Table 4, largest distance from the CPU's numbers | 0.25 (BLEU-2) |",
    ]);
    report(&["--check", &cuda]).expect(1).says(&["run it"]);
}
