//! Measures the engine, beside ninja where it is there, and prints one table.
//!
//! `cargo bench --bench engine`, or with ` -- quick` for small sizes. Ninja comes from
//! `pip install ninja`; without it, only our own numbers are told.
//!
//! The graph is layered, about as wide as it is deep: every stage reads 1 KB of two stages
//! above it and writes 1 KB, by the same line of shell for both programs. What is compared is
//! measured in pairs, one right after the other, and the medians are told.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod usage;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use usage::{Usage, measure};

const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");
/// Files younger than this are read again, whatever is remembered of them.
const RACY: Duration = Duration::from_millis(2200);

struct Sizes {
    unchanged: usize,
    cold: usize,
    source_bytes: u64,
    planned: [usize; 3],
    crossed: (usize, usize),
    pairs: usize,
}

const FULL: Sizes = Sizes {
    unchanged: 10_000,
    cold: 1_000,
    source_bytes: 4 << 30,
    planned: [1_000, 10_000, 100_000],
    crossed: (1_000, 100),
    pairs: 5,
};

const QUICK: Sizes = Sizes {
    unchanged: 400,
    cold: 100,
    source_bytes: 64 << 20,
    planned: [100, 1_000, 10_000],
    crossed: (100, 10),
    pairs: 3,
};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "hash") {
        return hash(Path::new(&arguments[at + 1]));
    }
    let sizes = if arguments.iter().any(|argument| argument == "quick") { QUICK } else { FULL };
    let ninja = ninja();
    match &ninja {
        Some(ninja) => println!("beside ninja {}\n", ninja.version),
        None => println!("NO NINJA: `pip install ninja` to compare; these are our own numbers only\n"),
    }
    println!("| what | pipeline | beside it | ratio |\n|---|---|---|---|");
    nothing_to_do(&sizes, ninja.as_ref())?;
    cold(&sizes, ninja.as_ref())?;
    large_source(&sizes)?;
    planning(&sizes)
}

/// (1) A run with nothing to do.
fn nothing_to_do(sizes: &Sizes, ninja: Option<&Ninja>) -> io::Result<()> {
    let workspace = Workspace::layered(sizes.unchanged)?;
    workspace.run();
    if let Some(ninja) = ninja {
        ninja.run(&workspace);
    }
    // What is written so recently that it may change unseen is read again.
    std::thread::sleep(RACY);
    workspace.run();
    let pairs = pairs(sizes, || (workspace.run(), ninja.map(|ninja| ninja.run(&workspace))));
    tell_usage(&format!("nothing to do, {} stages", sizes.unchanged), &pairs);
    Ok(())
}

/// (2) A run with everything to do.
fn cold(sizes: &Sizes, ninja: Option<&Ninja>) -> io::Result<()> {
    let workspace = Workspace::layered(sizes.cold)?;
    let pairs = pairs(sizes, || {
        workspace.forget();
        (workspace.run(), ninja.map(|ninja| ninja.run(&workspace)))
    });
    tell_usage(&format!("cold, {} trivial stages, -j2", sizes.cold), &pairs);
    Ok(())
}

/// (3) A source that takes long to read.
fn large_source(sizes: &Sizes) -> io::Result<()> {
    let workspace = Workspace::empty()?;
    let source = workspace.path("large");
    File::create(&source)?.set_len(sizes.source_bytes)?;
    let small = "[stages.small]\nkind = 'command'\nrun = 'echo > outputs/out/x'\noutputs.out = {}\n";
    let large = "[stages.large]\nkind = 'command'\nrun = ':'\nfiles = ['large']\noutputs.out = {}\n";
    workspace.write("without.toml", small)?;
    workspace.write("x.toml", &format!("{small}{large}"))?;
    std::thread::sleep(RACY);
    measure(workspace.pipeline(["run", "x.toml", "--until", "small"]));

    let size = format!("{:.1} GB source", sizes.source_bytes as f64 / 1e9);
    let unchanged = pairs(sizes, || {
        (
            measure(workspace.pipeline(["plan", "x.toml"])),
            Some(measure(workspace.pipeline(["plan", "without.toml"]))),
        )
    });
    let (ours, without) = (median(&unchanged, |pair| pair.0.wall), median_of_peer(&unchanged, |u| u.wall));
    tell(
        &format!("{size}, unchanged: `plan`, wall"),
        &milliseconds(ours),
        &format!("{} without the source", milliseconds(without)),
        &format!("{} more", milliseconds(ours - without)),
    );

    let changed = pairs(sizes, || {
        let touched = File::options().write(true).open(&source).expect("the source is there");
        touched.set_modified(SystemTime::now()).expect("the source is ours");
        let hash = Command::new(env::current_exe().expect("we run"));
        (
            measure(workspace.pipeline(["plan", "x.toml"])),
            Some(measure(with(hash, ["hash".as_ref(), source.as_ref()]))),
        )
    });
    let (ours, hashed) = (median(&changed, |pair| pair.0.wall), median_of_peer(&changed, |u| u.wall));
    let speed = |seconds: f64| {
        format!("{}, {:.1} GB/s", plain_seconds(seconds), sizes.source_bytes as f64 / 1e9 / seconds)
    };
    tell(
        &format!("{size}, changed: `plan`, wall"),
        &speed(ours),
        &format!("{} for `blake3` alone, all cores", speed(hashed)),
        &format!("{:.2}", median(&changed, |pair| pair.0.wall / pair.1.map_or(f64::NAN, |u| u.wall))),
    );
    Ok(())
}

/// Hashes a file with all cores, as a process of its own: it would count in our own memory.
fn hash(file: &Path) -> io::Result<()> {
    println!("{}", blake3::Hasher::new().update_mmap_rayon(file)?.finalize());
    Ok(())
}

/// (4) Planning alone, without a cache.
fn planning(sizes: &Sizes) -> io::Result<()> {
    let plan = |workspace: &Workspace, what: &str, stages: usize| {
        let usages: Vec<Usage> =
            (0..sizes.pairs).map(|_| measure(workspace.pipeline(["plan", "x.toml"]))).collect();
        let of = |value: fn(&Usage) -> f64| middle(usages.iter().map(value).collect());
        tell(
            &format!("`plan` of {what}, CPU"),
            &plain_seconds(of(|usage| usage.cpu)),
            &format!("peak {}", megabytes(of(|usage| usage.peak_bytes))),
            &format!("{:.1} µs per stage", of(|usage| usage.cpu) * 1e6 / stages as f64),
        );
    };
    for stages in sizes.planned {
        plan(&Workspace::layered(stages)?, &format!("{stages} stages"), stages);
    }
    let (outer, inner) = sizes.crossed;
    let workspace = Workspace::empty()?;
    let values = |count: usize| (0..count).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let axis = |name: &str, count: usize| {
        format!("axes.{name} = {{ field = 'parameters.{name}', values = [{}] }}\n", values(count))
    };
    let stage = "kind = 'command'\nrun = ':'\noutputs.out = {}\n";
    let first = format!("[stages.first]\n{stage}{}", axis("a", outer));
    let second = format!("[stages.second]\n{stage}inputs = {{ x = 'first' }}\n{}", axis("b", inner));
    workspace.write("x.toml", &format!("{first}{second}"))?;
    plan(&workspace, &format!("an axis of {outer} crossed with {inner}"), outer * (inner + 1));
    Ok(())
}

/// A temporary folder with an experiment, and the same as a build file.
struct Workspace {
    folder: tempfile::TempDir,
}

impl Workspace {
    fn empty() -> io::Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    fn layered(stages: usize) -> io::Result<Self> {
        let workspace = Self::empty()?;
        let graph = Graph::new(stages);
        fs::create_dir(workspace.path("in"))?;
        for input in 0..graph.width {
            let line = format!("input {input} ");
            fs::write(workspace.path(&format!("in/i{input}")), &line.repeat(1024)[..1024])?;
        }
        graph.write_experiment(&mut BufWriter::new(File::create(workspace.path("x.toml"))?))?;
        graph.write_build(&mut BufWriter::new(File::create(workspace.path("build.ninja"))?))?;
        Ok(workspace)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn write(&self, inside: &str, text: &str) -> io::Result<()> {
        fs::write(self.path(inside), text)
    }

    /// Removes everything that a run has made.
    fn forget(&self) {
        for made in [".pipeline", "out", ".ninja_log", ".ninja_deps"] {
            let path = self.path(made);
            // What is not there needs no removing.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }

    fn pipeline<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = with(Command::new(PIPELINE), arguments.map(str::as_ref));
        command.current_dir(self.folder.path()).env_remove("PIPELINE_CACHE");
        command
    }

    fn run(&self) -> Usage {
        measure(self.pipeline(["run", "x.toml", "--jobs", "2"]))
    }
}

/// A layered graph: every stage reads two of the layer above, the first layer reads files.
struct Graph {
    stages: usize,
    width: usize,
}

impl Graph {
    fn new(stages: usize) -> Self {
        Self { stages, width: stages.isqrt().max(2) }
    }

    /// Returns whether a stage is in the first layer, and which two of the layer above it reads.
    fn above(&self, stage: usize) -> (bool, [usize; 2]) {
        let (layer, place) = (stage / self.width, stage % self.width);
        // Any spread does that is the same every time.
        let other = (place + 1 + (stage * 7919) % (self.width - 1)) % self.width;
        match layer.checked_sub(1) {
            None => (true, [place, other]),
            Some(above) => (false, [above * self.width + place, above * self.width + other]),
        }
    }

    fn shell(stage: usize, inputs: [&str; 2], output: &str) -> String {
        let [a, b] = inputs;
        format!("(echo s{stage:05} 0; head -c 400 {a}; head -c 400 {b}; head -c 215 /dev/zero) > {output}")
    }

    fn write_experiment(&self, out: &mut impl io::Write) -> io::Result<()> {
        for stage in 0..self.stages {
            let (is_first, [a, b]) = self.above(stage);
            let (reads, inputs) = if is_first {
                (
                    format!("files = [\"in/i{a}\", \"in/i{b}\"]"),
                    [format!("files/i{a}"), format!("files/i{b}")],
                )
            } else {
                let reads = format!("inputs = {{ a = \"s{a:05}\", b = \"s{b:05}\" }}");
                (reads, ["inputs/a/data".to_owned(), "inputs/b/data".to_owned()])
            };
            let run = Self::shell(stage, [&inputs[0], &inputs[1]], "outputs/out/data");
            writeln!(
                out,
                "[stages.s{stage:05}]\nkind = \"command\"\n{reads}\nrun = \"{run}\"\noutputs.out = {{}}\n"
            )?;
        }
        out.flush()
    }

    fn write_build(&self, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "rule sh\n  command = $cmd\n")?;
        for stage in 0..self.stages {
            let (is_first, above) = self.above(stage);
            let [a, b] =
                above.map(|from| if is_first { format!("in/i{from}") } else { format!("out/s{from:05}") });
            let output = format!("out/s{stage:05}");
            let run = Self::shell(stage, [&a, &b], &output);
            writeln!(out, "build {output}: sh {a} {b}\n  cmd = {run}\n  restat = 1")?;
        }
        out.flush()
    }
}

struct Ninja {
    program: OsString,
    version: String,
}

/// Finds ninja itself: the wrapper that Python starts would count as ninja's time.
fn ninja() -> Option<Ninja> {
    let tell = |command: &mut Command| {
        let output = command.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let packaged = || {
        let line = "import ninja, os; print(os.path.join(ninja.BIN_DIR, 'ninja'))";
        tell(&mut with(Command::new("python3"), ["-c", line].map(str::as_ref))).map(OsString::from)
    };
    let found = |program: OsString| {
        let version = tell(&mut with(Command::new(&program), ["--version".as_ref()]))?;
        Some(Ninja { program, version })
    };
    // The package's own program first: what PATH finds may be a script that starts it.
    packaged().and_then(found).or_else(|| found("ninja".into()))
}

impl Ninja {
    fn run(&self, workspace: &Workspace) -> Usage {
        let mut command = with(Command::new(&self.program), ["-j2".as_ref()]);
        command.current_dir(workspace.folder.path());
        measure(command)
    }
}

fn with<const N: usize>(mut command: Command, arguments: [&std::ffi::OsStr; N]) -> Command {
    command.args(arguments);
    command
}

/// Ours, and what it is compared with, measured right after it.
type Pair = (Usage, Option<Usage>);

fn pairs(sizes: &Sizes, mut pair: impl FnMut() -> Pair) -> Vec<Pair> {
    (0..sizes.pairs).map(|_| pair()).collect()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn median(pairs: &[Pair], value: impl Fn(&Pair) -> f64) -> f64 {
    middle(pairs.iter().map(value).collect())
}

fn median_of_peer(pairs: &[Pair], value: fn(&Usage) -> f64) -> f64 {
    median(pairs, |pair| pair.1.as_ref().map_or(f64::NAN, value))
}

/// A figure: its name, how it is read, and how it is written.
type Figure = (&'static str, fn(&Usage) -> f64, fn(f64) -> String);

fn tell_usage(what: &str, pairs: &[Pair]) {
    let rows: [Figure; 3] = [
        ("CPU", |usage| usage.cpu, plain_seconds),
        ("wall", |usage| usage.wall, plain_seconds),
        ("peak memory", |usage| usage.peak_bytes, megabytes),
    ];
    for (name, value, written) in rows {
        let ours = written(median(pairs, |pair| value(&pair.0)));
        let (theirs, ratio) = match pairs[0].1 {
            Some(_) => (
                format!("ninja {}", written(median_of_peer(pairs, value))),
                format!(
                    "{:.2}",
                    median(pairs, |pair| value(&pair.0) / pair.1.as_ref().map_or(f64::NAN, value))
                ),
            ),
            None => ("no ninja".to_owned(), "-".to_owned()),
        };
        tell(&format!("{what}, {name}"), &ours, &theirs, &ratio);
    }
}

fn tell(what: &str, ours: &str, beside: &str, ratio: &str) {
    println!("| {what} | {ours} | {beside} | {ratio} |");
}

fn plain_seconds(seconds: f64) -> String {
    format!("{seconds:.3} s")
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}
