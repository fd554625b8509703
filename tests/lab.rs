//! A temporary workspace with experiments in it, and the binary to run on them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Four molecules and what is said of them.
pub(crate) const ROWS: &str = r#"{"id":"ethanol","molecule":"CCO","caption":"The molecule is an alcohol."}
{"id":"propanol","molecule":"CCCO","caption":"The molecule is an alcohol."}
{"id":"acetic","molecule":"CC(=O)O","caption":"The molecule is an acid."}
{"id":"benzene","molecule":"c1ccccc1","caption":"The molecule is aromatic."}
"#;

/// The project's own folder.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the real data lies, or `None`, said loudly.
pub(crate) fn data() -> Option<PathBuf> {
    crate::real_data::path("")
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Told {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Told {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code, showing everything if it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Returns the stages that ran, sorted.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.told("ran")
    }

    /// Returns the stages of which a line on standard error tells with this first word, sorted.
    pub(crate) fn told(&self, word: &str) -> Vec<String> {
        let lines = self.stderr.lines().filter_map(|line| line.strip_prefix(&format!("{word:<10}")));
        let mut names: Vec<String> =
            lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// Asserts that standard error has every one of some pieces.
    #[track_caller]
    pub(crate) fn says(self, pieces: &[&str]) -> Self {
        for piece in pieces {
            assert!(self.stderr.contains(piece), "no `{piece}` in stderr:\n{}", self.stderr);
        }
        self
    }

    /// Asserts that standard output has every one of some pieces.
    #[track_caller]
    pub(crate) fn shows(self, pieces: &[&str]) -> Self {
        for piece in pieces {
            assert!(self.stdout.contains(piece), "no `{piece}` in stdout:\n{}", self.stdout);
        }
        self
    }

    /// Returns the most stages that ran at once, by the events of a run, of those that count.
    #[track_caller]
    pub(crate) fn most_at_once(&self, counts: impl Fn(&str) -> bool) -> usize {
        let (mut now, mut most) = (BTreeSet::new(), 0);
        for event in self.events() {
            let stage = event["stage"].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str() {
                Some("started") if counts(&stage) => drop(now.insert(stage)),
                // A stage whose outputs are being stored leaves its cores and memory to others.
                Some("recording" | "finished") => drop(now.remove(&stage)),
                _ => {}
            }
            most = most.max(now.len());
        }
        most
    }

    /// Reads standard output as JSON, one document per line.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("`{line}` is not JSON: {error}"))
        };
        self.stdout.lines().map(parse).collect()
    }
}

/// Looks again and again until something holds, and gives up with a panic after a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the processes below one, children before their own children.
pub(crate) fn below(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    found.split_off(1)
}

/// Returns the processes whose command line or environment names a text.
pub(crate) fn processes_naming(text: &str) -> Vec<u32> {
    let names = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let content = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&content).contains(text)
        })
    };
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(names).collect()
}

/// Sends a signal to a process, which may be gone.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A temporary workspace.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Makes a workspace in shared memory where there is such a thing, for tests that run a lot: what
    /// is kept there is synced at once, and a killed process loses as little as on a disk.
    pub(crate) fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.expect("a temporary folder") }
    }

    /// Makes a workspace with one experiment, `x.toml`.
    pub(crate) fn with(experiment: &str) -> Self {
        let lab = Self::new();
        lab.write("x.toml", experiment);
        lab
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    pub(crate) fn write(&self, inside: &str, content: impl AsRef<[u8]>) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folders can be made");
        fs::write(path, content).expect("files can be written");
    }

    /// Puts a small model that can judge into a folder: DeBERTa with random weights, and a
    /// tokenizer that knows fifteen words.
    pub(crate) fn write_judge(&self, inside: &str) {
        let golden = project().join("stages/learn/tests/golden/deberta_v3");
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            self.write(&format!("{inside}/{file}"), fs::read(golden.join(file)).expect("the file is there"));
        }
    }

    /// Puts a small InternLM2 with random weights into a folder, and a tokenizer with a token for each
    /// character of ASCII.
    pub(crate) fn write_internlm2(&self, inside: &str) {
        let golden = project().join("stages/learn/tests/golden/internlm2");
        for file in ["config.json", "model.safetensors"] {
            self.write(&format!("{inside}/{file}"), fs::read(golden.join(file)).expect("the file is there"));
        }
        let special = ["<pad>", "<s>", "</s>"].map(str::to_owned).into_iter();
        let characters = std::iter::once('\n').chain(' '..='~').map(String::from);
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            special.chain(characters).enumerate().map(|(id, token)| (token, id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
        });
        self.write(&format!("{inside}/tokenizer.json"), tokenizer.to_string());
    }

    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).expect("the file is there")
    }

    /// Prepares the binary in this workspace, with its cache in `.pipeline` and no settings of ours.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
            .env("PIPELINE_CACHE", self.path(".pipeline"))
            .env_remove("PIPELINE_DATA")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0");
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Told {
        Told::of(self.command(arguments).output().expect("the binary starts"))
    }

    /// Runs the binary with a standard input that never ends. None if it does not end within a time;
    /// then it is killed, with what it started.
    pub(crate) fn run_within<S: AsRef<OsStr>>(
        &self,
        limit: Duration,
        arguments: impl IntoIterator<Item = S>,
    ) -> Option<Told> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdin = child.stdin.take();
        let pid = child.id();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait_with_output()));
        let output = end.recv_timeout(limit).ok();
        if output.is_none() {
            for pid in below(pid).into_iter().chain([pid]) {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
        drop(stdin);
        output.map(|output| Told::of(output.expect("the binary ends")))
    }

    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Waits for a spawned binary.
    pub(crate) fn told(&self, child: Child) -> Told {
        Told::of(child.wait_with_output().expect("the binary ends"))
    }

    /// Changes a file by replacing the first occurrence of a text.
    #[track_caller]
    pub(crate) fn edit(&self, inside: &str, from: &str, to: &str) {
        let text = self.read(inside);
        assert!(text.contains(from), "no `{from}` in {inside}");
        self.write(inside, text.replacen(from, to, 1));
    }

    /// Returns a line for the shell that waits until a file of this workspace is there, so that a
    /// test decides when a stage goes on.
    pub(crate) fn gate(&self, inside: &str) -> String {
        format!("while [ ! -e {} ]; do sleep 0.01; done", self.path(inside).display())
    }

    /// Returns the cache's folder.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path(".pipeline")
    }

    /// Returns what a stage of `x.toml` wrote to a file of its only output.
    #[track_caller]
    pub(crate) fn made(&self, stage: &str, file: &str) -> String {
        self.run(["show", "x.toml", stage, "--file", file]).expect(0).stdout
    }

    /// Returns the blob that holds this content.
    pub(crate) fn blob(&self, content: &[u8]) -> PathBuf {
        let mut open = vec![self.cache().join("blobs")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder of blobs").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if fs::read(&path).is_ok_and(|found| found == content) {
                    return path;
                }
            }
        }
        panic!("no blob holds {:?}", String::from_utf8_lossy(content))
    }

    /// Flips a bit in the blob that holds this content; size and name stay.
    pub(crate) fn damage(&self, content: &[u8]) -> PathBuf {
        let path = self.blob(content);
        let mut bytes = content.to_vec();
        bytes[0] ^= 1;
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, writable).expect("the blob is ours");
        fs::write(&path, bytes).expect("the blob is ours");
        path
    }
}
