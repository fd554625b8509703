//! What every command begins with: the experiment, its plan and keys, and the cache.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cache::{Cache, CacheError, Sources};
use engine::{Device, Experiment, FileProblem, Foresight, Keys, Machine, Plan, Request, SourceFiles};

use crate::exit::Stop;

/// A text that a person writes is not larger than this.
const TEXT_BYTES: u64 = 64 << 20;

/// Which experiment, and how it is changed.
#[derive(Debug, Clone, clap::Args)]
pub struct ExperimentArguments {
    /// The experiment file.
    pub file: PathBuf,
    /// Lay this profile over the file; `mini` if the file has it.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Override one value: `stages.NAME.FIELD=VALUE`. Can be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// What `${data}` stands for [default: `$PIPELINE_DATA`].
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// Read all source files again instead of trusting their time stamps.
    #[arg(long)]
    pub rehash: bool,
}

/// Where results are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct CacheArguments {
    /// Keep results here [default: `$PIPELINE_CACHE`, else `.pipeline` beside the workspace].
    #[arg(long, value_name = "FOLDER", global = true)]
    pub cache: Option<PathBuf>,
}

impl CacheArguments {
    /// Returns the cache's folder for an experiment file, or for the folder where we are.
    pub fn folder(&self, file: Option<&Path>) -> PathBuf {
        let chosen = self.cache.clone().or_else(|| environment_path("PIPELINE_CACHE"));
        chosen.unwrap_or_else(|| workspace_of(file).join(".pipeline"))
    }
}

/// Finds the workspace of a file: the nearest folder above with a cache, else with a `.git`,
/// else the file's own.
fn workspace_of(file: Option<&Path>) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let start = match file {
        Some(file) => here.join(file).parent().map_or(here, Path::to_owned),
        None => here,
    };
    let having = |name: &str| start.ancestors().find(|folder| folder.join(name).exists()).map(Path::to_owned);
    having(".pipeline/index.sqlite").or_else(|| having(".git")).unwrap_or(start)
}

fn environment_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// How a command uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It keeps results, and makes the cache if there is none.
    Keep,
    /// It only looks, and a cache that is not there is empty.
    Look,
}

/// An experiment, planned and keyed, with the cache it is kept in.
pub struct House {
    pub plan: Plan,
    pub keys: Keys,
    pub cache: Option<Cache>,
}

impl House {
    /// Opens everything that a command on an experiment needs.
    pub fn open(arguments: &ExperimentArguments, use_of_cache: Use) -> Result<Self, Stop> {
        let plan = plan(arguments)?;
        let folder = arguments.cache.folder(Some(&arguments.file));
        let cache = match use_of_cache {
            Use::Keep => Some(Cache::open(&folder)?),
            Use::Look => look_at(&folder)?,
        };
        let files = source_files(&plan, cache.as_ref().filter(|_| !arguments.rehash))?;
        let keys = Keys::new(&plan, files);
        Ok(Self { plan, keys, cache })
    }

    /// Returns the cache, or says that there is none.
    pub fn cache(&self, arguments: &ExperimentArguments) -> Result<&Cache, Stop> {
        let absent = || CacheError::Absent { path: arguments.cache.folder(Some(&arguments.file)) };
        self.cache.as_ref().ok_or_else(|| Stop::Cache(absent()))
    }

    /// Returns the nodes that a text names.
    pub fn select(&self, text: &str) -> Result<Vec<usize>, Stop> {
        self.plan.select(text).map_err(Stop::Usage)
    }

    /// Returns the one node that a text names.
    pub fn select_one(&self, text: &str) -> Result<usize, Stop> {
        let found = self.select(text)?;
        let labels: Vec<&str> = found.iter().map(|node| self.plan.nodes()[*node].label()).collect();
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(Stop::Usage(format!("`{text}` selects nothing"))),
            _ => Err(Stop::Usage(format!("`{text}` is one of\n  {}\nname one of them", labels.join("\n  ")))),
        }
    }
}

/// Opens a cache for looking; one that is not there is none. One that can be written to
/// remembers the digests of sources, so that looking twice is quick.
pub fn look_at(folder: &Path) -> Result<Option<Cache>, Stop> {
    match Cache::exists(folder)? {
        true => Ok(Some(Cache::open(folder)?)),
        false => Ok(None),
    }
}

fn plan(arguments: &ExperimentArguments) -> Result<Plan, Stop> {
    let request = Request {
        file: arguments.file.clone(),
        profile: arguments.profile.clone(),
        set: arguments.set.clone(),
        data: arguments.data.clone().or_else(|| environment_path("PIPELINE_DATA")),
    };
    let experiment = Experiment::load(&request, stages::KINDS, &read_text);
    Ok(Plan::new(experiment)?)
}

/// Reads an experiment, a file that it includes, or another text that a person wrote. A device or
/// a pipe would have a command wait for ever, or fill the memory.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::InvalidInput`] for what is no file or too large.
pub fn read_text(path: &Path) -> io::Result<String> {
    let content = cache::read_regular(path, TEXT_BYTES).map_err(|error| match error {
        CacheError::Io { source, .. } => source,
        other => io::Error::new(io::ErrorKind::InvalidInput, other.to_string()),
    })?;
    String::from_utf8(content).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

fn source_files(plan: &Plan, memory: Option<&Cache>) -> Result<SourceFiles, Stop> {
    let sources = memory.map_or_else(Sources::rehashed, |cache| Sources::remembered(cache.index()));
    let here = std::env::current_dir().unwrap_or_default();
    let mut files = BTreeMap::new();
    let mut problems = Vec::new();
    for path in plan.files() {
        if files.contains_key(path) {
            continue;
        }
        match sources.state(&here.join(path)) {
            Ok(state) => {
                files.insert(path.to_owned(), state);
            }
            Err(
                error @ (CacheError::Io { .. }
                | CacheError::Unstable { .. }
                | CacheError::UnsupportedFile { .. }),
            ) => {
                let help = matches!(error, CacheError::Unstable { .. })
                    .then_some("somebody writes to it: run again when nobody does, or take it from a copy");
                let message = match error {
                    // As the experiment leads to it: an absolute path would say less.
                    CacheError::Io { source, .. } => format!("failed to read {}: {source}", path.display()),
                    error => error.to_string(),
                };
                problems.push(FileProblem { path: path.to_owned(), message, help });
            }
            Err(error) => return Err(error.into()),
        }
    }
    match plan.report_files(&problems) {
        Some(report) => Err(report.into()),
        None => Ok(SourceFiles(files)),
    }
}

/// Returns where a plan is to run: as much of this machine as there is, or as is allowed.
pub fn machine(device: String, cores: Option<u32>, memory_bytes: Option<u64>) -> Machine {
    let device_memory_bytes = crate::doctor::device_memory_bytes(&device);
    Machine {
        cores: cores.unwrap_or_else(crate::doctor::cores),
        memory_bytes: memory_bytes.unwrap_or_else(crate::doctor::memory_bytes),
        device: Device(device),
        device_memory_bytes,
    }
}

/// Returns what the stages of a plan need of memory.
pub fn foresight(plan: &Plan, machine: &Machine) -> Foresight {
    Foresight::new(plan, machine, &|path| read_text(path).ok())
}

/// Writes a number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Writes a time for people.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:.0} s", (s / 60.0).floor(), s % 60.0),
        s => format!("{:.0} h {:.0} min", (s / 3600.0).floor(), (s % 3600.0) / 60.0),
    }
}
