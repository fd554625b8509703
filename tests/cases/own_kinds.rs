//! Kinds that an experiment makes of programs, and the environments that programs run in.

use std::process::Command;

use crate::lab::{Lab, project};

/// Counts characters of captions: a metric that is no metric of the program.
const KINDS: &str = r#"
[kinds.length]
about = "the mean length of texts, in characters"
run = ["sh", "files/length.sh"]
files = ["length.sh"]
inputs.rows = "rows"
outputs.scores = { type = "scores", columns = [{ metric = "length", label = "mean length", better = "lower" }] }

[kinds.length.parameters]
field = { type = "string", default = "caption", help = "the field of a row that is measured" }
scale = 1
words = { type = "file", default = "words.txt" }
"#;

const SCRIPT: &str = r#"
n=$(grep -o "\"$PARAM_field\": *\"[^\"]*\"" inputs/rows/rows.jsonl | wc -c)
test "$(cat "$PARAM_words")" = stop
echo "{ \"length\": $((n * PARAM_scale)) }" > outputs/scores/metrics.json
"#;

fn lab(stages: &str) -> Lab {
    let lab = Lab::with(&format!(
        "[experiment]\ninclude = ['kinds/kinds.toml']\n\
         [stages.rows]\nkind = 'source'\npath = 'rows.jsonl'\n{stages}"
    ));
    lab.write("rows.jsonl", "{\"caption\": \"one\"}\n{\"caption\": \"twenty\"}\n");
    lab.write("kinds/kinds.toml", KINDS);
    lab.write("kinds/length.sh", SCRIPT);
    lab.write("kinds/words.txt", "stop");
    lab
}

const STAGE: &str = "[stages.measured]\nkind = 'length'\ninputs.rows = 'rows'\n";

#[test]
fn a_kind_of_ones_own_is_used_like_any_other() {
    let lab = lab(&format!(
        "{STAGE}axes.scale = {{ field = 'scale', values = [1, 2] }}\n[table]\ncolumns = ['length']\n\
         average = ['scale']\n"
    ));
    let told = lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(told.ran(), ["measured[scale=1]", "measured[scale=2]", "rows"]);
    assert!(told.stdout.contains("mean length ↓"), "{}", told.stdout);
    lab.run(["plan", "x.toml"]).expect(0).shows(&["measured[scale=2]", "  length\n"]);
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
    // Every value has a place: the kind's file or the stage.
    lab.run(["plan", "x.toml", "--resolved"]).expect(0).shows(&[
        "parameters.field",
        "\"caption\"",
        "kinds/kinds.toml:",
    ]);
    lab.edit("kinds/words.txt", "stop", "stop\n");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran().len(), 2, "a file that it names is keyed");
}

#[test]
fn what_a_stage_says_of_an_own_kind_is_checked_when_it_is_planned() {
    let refused = |stage: &str, message: &str| {
        let told = lab(stage).run(["plan", "x.toml"]).expect(2);
        assert!(told.stderr.contains(message), "{message}\n{}", told.stderr);
    };
    refused(&format!("{STAGE}feild = 'caption'\n"), "stage `measured` (length): unknown field `feild`");
    refused(&format!("{STAGE}scale = 'large'\n"), "`scale` is an integer, not `large`");
    refused("[stages.measured]\nkind = 'length'\n", "stage `measured` needs an input `rows`");
    refused(&STAGE.replace("'length'", "'lenght'"), "did you mean `length`?");
    refused(&format!("{STAGE}inputs.more = 'rows'\n"), "stage `measured` has no input `more`");
}

#[test]
fn a_stage_that_is_written_out_has_the_same_key() {
    let own = lab(STAGE);
    own.run(["run", "x.toml"]).expect(0);
    own.write(
        "x.toml",
        "[stages.rows]\nkind = 'source'\npath = 'rows.jsonl'\n\
         [stages.other]\nkind = 'command'\nrun = ['sh', 'files/length.sh']\ninputs.rows = 'rows'\n\
         files = ['kinds/length.sh', 'kinds/words.txt']\n\
         parameters = { field = 'caption', scale = 1, words = 'files/words.txt' }\n\
         outputs.scores = { type = 'scores', columns = ['length'] }\n",
    );
    assert!(own.run(["run", "x.toml"]).expect(0).ran().is_empty());
}

#[test]
fn editors_know_own_kinds() {
    let lab = lab(STAGE);
    let schema: serde_json::Value =
        serde_json::from_str(&lab.run(["schema", "x.toml"]).expect(0).stdout).unwrap();
    let kinds = schema["$defs"]["stages"]["additionalProperties"]["anyOf"].as_array().unwrap();
    let own = kinds.iter().find(|kind| kind["properties"]["kind"]["const"] == "length").unwrap();
    assert_eq!(own["properties"]["scale"], serde_json::json!({ "type": "integer", "default": 1 }));
    assert_eq!(own["properties"]["field"]["description"], "the field of a row that is measured");
}

const LOCK: &str = "version = 1\n[[package]]\nname = 'torch'\nversion = '2.11.0'\n\
    wheels = [{ url = 'https://x/t.whl', hash = 'sha256:aa' }]\n\
    [[package]]\nname = 'ruff'\nversion = '0.9.0'\nwheels = [{ url = 'https://x/r.whl', hash = 'sha256:bb' }]\n";

#[test]
fn a_lock_file_is_keyed_whole_or_by_some_packages() {
    let ran = |environment: &str, from: &str, to: &str| {
        let lab = Lab::with(&format!(
            "[stages.a]\nkind = 'command'\nrun = 'echo 1 > outputs/o/f'\noutputs.o = {{}}\n\
             environment = {environment}\n"
        ));
        lab.write("env/uv.lock", LOCK);
        lab.run(["run", "x.toml"]).expect(0);
        assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
        lab.edit("env/uv.lock", from, to);
        lab.run(["run", "x.toml"]).expect(0).ran().len()
    };
    let some = "{ lock = 'env/uv.lock', packages = ['torch'] }";
    assert_eq!(ran("{ lock = 'env/uv.lock' }", "0.9.0", "0.9.1"), 1);
    assert_eq!(ran(some, "0.9.0", "0.9.1"), 0, "a package that it does not need");
    assert_eq!(ran(some, "sha256:aa", "sha256:ac"), 1);
}

#[test]
fn why_names_the_package_that_changed() {
    let lab = lab("");
    lab.write("uv.lock", LOCK);
    lab.write(
        "x.toml",
        "[stages.a]\nkind = 'command'\nrun = 'echo 1 > outputs/o/f'\noutputs.o = {}\n\
         environment = { lock = 'uv.lock', packages = ['torch'] }\n",
    );
    lab.run(["run", "x.toml"]).expect(0);
    lab.edit("uv.lock", "2.11.0", "2.12.0");
    lab.run(["why", "x.toml", "a"]).expect(0).shows(&["torch", "2.11.0", "2.12.0"]);
}

#[test]
fn a_container_needs_something_that_runs_it() {
    let digest = "0".repeat(64);
    let lab = Lab::with(&format!(
        "[stages.a]\nkind = 'command'\nrun = ['true']\noutputs.o = {{}}\n\
         environment.container = 'localhost/none@sha256:{digest}'\n"
    ));
    lab.run(["plan", "x.toml"]).expect(0);
    let mut run = lab.command(["run", "x.toml"]);
    let output = run.env("PATH", lab.path("nowhere")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("there is neither apptainer nor podman"), "{told}");
}

/// Needs podman and an image, which is made of a busybox; says so where it is skipped.
#[test]
fn a_container_sees_its_inputs_and_nothing_else() {
    let Some(image) = busybox_image() else {
        return eprintln!("SKIPPED: podman, busybox or something that podman needs is not here");
    };
    let lab = Lab::with(&format!(
        "[stages.rows]\nkind = 'source'\npath = 'rows.jsonl'\n\
         [stages.a]\nkind = 'command'\ninputs.rows = 'rows'\nparameters.x = 'b c'\noutputs.o = {{}}\n\
         run = ['sh', '-ec', 'cat inputs/rows/rows.jsonl > outputs/o/f; echo \"$PARAM_x\" >> outputs/o/f; \
         ! touch inputs/rows/more; ! ls {} 2>&1']\nenvironment.container = '{image}'\n",
        project().display()
    ));
    lab.write("rows.jsonl", "{\"a\":\"1\"}\n");
    lab.run(["run", "x.toml"]).expect(0);
    assert!(lab.made("a", "f").ends_with("b c\n") && lab.made("a", "f").contains("\"a\""));
}

/// Makes an image of a static busybox. Returns its name and digest.
fn busybox_image() -> Option<String> {
    let run = |program: &str, arguments: &[&str]| -> Option<String> {
        let output = Command::new(program).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let name = "localhost/pipeline-test";
    let root = tempfile::tempdir().ok()?;
    std::fs::create_dir(root.path().join("bin")).ok()?;
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).ok()?;
    for applet in ["sh", "cat", "ls", "touch"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).ok()?;
    }
    let tar = root.path().join("root.tar").display().to_string();
    run("tar", &["-C", root.path().to_str()?, "-cf", &tar, "bin"])?;
    run("podman", &["import", &tar, name])?;
    let digest = run("podman", &["image", "inspect", "--format", "{{.Digest}}", name])?;
    let image = format!("{name}@{digest}");
    run("podman", &["run", "--rm", "--network=none", &image, "cat", "/dev/null"])?;
    Some(image)
}
