//! What every command on an experiment starts with: the experiment, its plan and keys, and the cache.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cache::{Cache, CacheError, Execution, Sources};
use engine::{Experiment, Keys, Machine, MemoryForecast, Plan, Request, SourceFiles, UnreadableFile};

use crate::error::CliError;

/// The largest text file that is read.
const TEXT_BYTES: u64 = 64 << 20;

/// Which experiment, and how it is changed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExperimentArguments {
    /// The experiment file.
    pub file: PathBuf,
    /// Apply this profile [default: `mini`, if the file has it].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Override one value: `stages.NAME.FIELD=VALUE`. Can be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Make everything that uses a seed with this many, from the experiment's own on, in place of the
    /// `seeds` that it says; tables show the mean.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub seeds: Option<u32>,
    /// The folder that `${data}` stands for [default: `$PIPELINE_DATA`].
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// Hash all source files again, even if their time stamps have not changed.
    #[arg(long)]
    pub rehash: bool,
}

/// Where the cache is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CacheArguments {
    /// The folder of the cache [default: `$PIPELINE_CACHE`, else `.pipeline` in the workspace].
    #[arg(long, value_name = "FOLDER", global = true)]
    pub cache: Option<PathBuf>,
}

impl CacheArguments {
    /// Returns the cache's folder for an experiment file, or for the current folder.
    pub(crate) fn folder(&self, file: Option<&Path>) -> PathBuf {
        let chosen = self.cache.clone().or_else(|| environment_path("PIPELINE_CACHE"));
        chosen.unwrap_or_else(|| workspace_of(file).join(".pipeline"))
    }
}

/// Finds the workspace of a file: the nearest folder above it with a cache, else with a `.git`,
/// else the file's own folder.
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
pub(crate) enum Use {
    /// It stores results, and creates the cache if there is none.
    Keep,
    /// It only reads, and takes a missing cache for an empty one.
    Look,
}

/// An experiment, its plan and keys, and the cache.
pub(crate) struct Session {
    pub plan: Plan,
    pub keys: Keys,
    pub cache: Option<Cache>,
}

impl Session {
    /// Opens everything that a command on an experiment needs.
    pub(crate) fn open(arguments: &ExperimentArguments, use_of_cache: Use) -> Result<Self, CliError> {
        Self::open_for(arguments, use_of_cache, &[])
    }

    /// Opens everything that a command on an experiment needs, for stages that need not be targets.
    pub(crate) fn open_for(
        arguments: &ExperimentArguments,
        use_of_cache: Use,
        stages: &[&str],
    ) -> Result<Self, CliError> {
        let mut plan = plan(arguments)?;
        for stage in stages {
            let nodes = plan.select(stage).map_err(CliError::Usage)?;
            plan.require(&nodes)?;
        }
        let folder = arguments.cache.folder(Some(&arguments.file));
        let cache = match use_of_cache {
            Use::Keep => Some(Cache::open(&folder)?),
            Use::Look => open_existing(&folder)?,
        };
        let files = source_files(&plan, cache.as_ref().filter(|_| !arguments.rehash))?;
        let keys = Keys::new(&plan, files);
        Ok(Self { plan, keys, cache })
    }

    /// Returns the cache, or says that there is none.
    pub(crate) fn cache(&self, arguments: &ExperimentArguments) -> Result<&Cache, CliError> {
        let absent = || CacheError::Absent { path: arguments.cache.folder(Some(&arguments.file)) };
        self.cache.as_ref().ok_or_else(|| CliError::Cache(absent()))
    }

    /// Returns the last attempt at a node.
    pub(crate) fn last_execution(&self, cache: &Cache, node: usize) -> Result<Option<Execution>, CliError> {
        Ok(match self.keys.recipe(node) {
            Some(recipe) => cache.index().last_execution(recipe)?,
            None => None,
        })
    }

    /// Returns the nodes that a text names.
    pub(crate) fn select(&self, text: &str) -> Result<Vec<usize>, CliError> {
        self.plan.select(text).map_err(CliError::Usage)
    }

    /// Returns the one node that a text names.
    pub(crate) fn select_one(&self, text: &str) -> Result<usize, CliError> {
        let nodes = self.select(text)?;
        let labels: Vec<&str> = nodes.iter().map(|node| self.plan.nodes()[*node].label()).collect();
        match nodes.as_slice() {
            [only] => Ok(*only),
            [] => Err(CliError::Usage(format!("`{text}` selects no stage"))),
            _ => Err(CliError::Usage(format!(
                "`{text}` selects several stages:\n  {}\nname one of them",
                labels.join("\n  ")
            ))),
        }
    }
}

/// Opens a cache for reading, if there is one. If it can be written to, it remembers the digests of
/// source files, so that the next command is quick.
pub(crate) fn open_existing(folder: &Path) -> Result<Option<Cache>, CliError> {
    if Cache::exists(folder)? { Ok(Some(Cache::open(folder)?)) } else { Ok(None) }
}

fn plan(arguments: &ExperimentArguments) -> Result<Plan, CliError> {
    let request = Request {
        file: arguments.file.clone(),
        profile: arguments.profile.clone(),
        set: arguments.set.clone(),
        seeds: arguments.seeds,
        data: arguments.data.clone().or_else(|| environment_path("PIPELINE_DATA")),
    };
    let experiment = Experiment::load(&request, stages::KINDS, &read_text);
    Ok(Plan::new(experiment)?)
}

/// Reads an experiment, a file that it includes, or another text file that a person wrote. Devices
/// and pipes are refused: reading one could block for ever or fill the memory.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::InvalidInput`] for what is no file or too large.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let content = cache::read_regular(path, TEXT_BYTES).map_err(|error| match error {
        CacheError::Io { source, .. } => source,
        other => io::Error::new(io::ErrorKind::InvalidInput, other.to_string()),
    })?;
    String::from_utf8(content).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

fn source_files(plan: &Plan, memory: Option<&Cache>) -> Result<SourceFiles, CliError> {
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
                let help = matches!(error, CacheError::Unstable { .. }).then_some(
                    "another process writes to it: run again when it has ended, or use a copy of the file",
                );
                let message = match error {
                    // The path as the experiment gives it, which says more than an absolute one.
                    CacheError::Io { source, .. } => format!("failed to read {}: {source}", path.display()),
                    error => error.to_string(),
                };
                problems.push(UnreadableFile { path: path.to_owned(), message, help });
            }
            Err(error) => return Err(error.into()),
        }
    }
    match plan.report_files(&problems) {
        Some(report) => Err(report.into()),
        None => Ok(SourceFiles(files)),
    }
}

/// Returns what the stages of a plan need of memory.
pub(crate) fn memory_forecast(plan: &Plan, machine: &Machine) -> MemoryForecast {
    MemoryForecast::new(plan, machine, &|path| read_text(path).ok())
}
