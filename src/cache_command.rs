//! `pipeline cache ls | verify | rebuild`: lists, verifies and repairs the cache.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use cache::{Cache, CacheError, Corruption, Key};

use crate::error::CliError;
use crate::session::{CacheArguments, open_existing};
use crate::terminal;
use crate::units::{bytes, seconds};

/// List, verify or repair the cache.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all results, oldest first, and their total size.
    Ls,
    /// Read every byte and compare it with its digest.
    Verify {
        /// Remove what is corrupt, so that the next run makes it again.
        #[arg(long)]
        repair: bool,
    },
    /// Rebuild the index from the records of results. The old index is kept beside it.
    Rebuild,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let folder = arguments.cache.folder(None);
    match arguments.action {
        Action::Ls => {
            let cache = open_existing(&folder)?.ok_or(CacheError::Absent { path: folder })?;
            list(&cache)
        }
        Action::Verify { repair } => {
            let cache = open_existing(&folder)?.ok_or(CacheError::Absent { path: folder })?;
            verify(&cache, repair)
        }
        Action::Rebuild => rebuild(&folder),
    }
}

fn rebuild(folder: &Path) -> Result<(), CliError> {
    let rebuilt = Cache::rebuild_index(folder)?;
    let mut out = terminal::stdout();
    for problem in &rebuilt.unreadable {
        writeln!(out, "unreadable  {problem}")?;
    }
    if let Some(backup) = &rebuilt.backup {
        writeln!(out, "the old index is kept as {}", backup.display())?;
    }
    writeln!(
        out,
        "{} results recovered, {} lack a file and will be made again",
        rebuilt.results, rebuilt.incomplete
    )?;
    Ok(())
}

fn list(cache: &Cache) -> Result<(), CliError> {
    let mut out = BufWriter::new(terminal::stdout());
    let (listed, unreadable) = cache.index().list()?;
    let width = listed.iter().map(|entry| entry.manifest.stage.chars().count()).max().unwrap_or(0).min(60);
    for entry in &listed {
        let size: u64 = entry.manifest.outputs.iter().map(|output| output.bytes).sum();
        writeln!(
            out,
            "{}  {:<10} {:<width$}  {:>12}  {:>10}",
            entry.trace.short(),
            entry.manifest.kind,
            terminal::one_line(&entry.manifest.stage),
            bytes(size),
            seconds(entry.manifest.seconds)
        )?;
    }
    for problem in &unreadable {
        writeln!(out, "unreadable  {problem}")?;
    }
    let totals = cache.index().totals()?;
    writeln!(
        out,
        "{}: {} results, {} artifacts, {}",
        cache.folder().display(),
        totals.traces,
        totals.artifacts,
        bytes(totals.bytes)
    )?;
    out.flush()?;
    if unreadable.is_empty() {
        return Ok(());
    }
    drop(out);
    writeln!(terminal::stderr(), "help: run `pipeline cache verify --repair`")?;
    Err(CliError::CorruptCache)
}

fn verify(cache: &Cache, repair: bool) -> Result<(), CliError> {
    let verification = cache.verify(&mut |_, _| {})?;
    let mut out = terminal::stdout();
    for error in &verification.sqlite_errors {
        writeln!(out, "index    {error}")?;
    }
    for flaw in &verification.flaws {
        writeln!(out, "index    {}", flaw.text)?;
    }
    for blob in &verification.corrupt {
        let path = cache.blobs().path(blob.digest);
        let stages = stages(cache, &blob.producers);
        writeln!(out, "{}  {}  of {stages}", describe(&blob.corruption), path.display())?;
    }
    for (digest, corruption, producer) in &verification.corrupt_records {
        let stages = stages(cache, std::slice::from_ref(producer));
        writeln!(out, "{}  the record {} of {stages}", describe(corruption), digest.short())?;
    }
    writeln!(
        out,
        "{} blobs intact, {} corrupt, {} unreferenced",
        verification.intact,
        verification.corruptions(),
        verification.unreferenced
    )?;
    let is_repairable = verification.corruptions() > verification.sqlite_errors.len();
    if repair && is_repairable {
        cache.repair(&verification)?;
        writeln!(out, "removed what is corrupt; the next run makes it again")?;
    }
    if !verification.sqlite_errors.is_empty() {
        writeln!(terminal::stderr(), "help: run `pipeline cache rebuild` to rebuild the index")?;
    }
    if verification.is_intact() || (repair && verification.sqlite_errors.is_empty()) {
        Ok(())
    } else {
        Err(CliError::CorruptCache)
    }
}

/// Writes how something is corrupt, the most telling word first.
fn describe(corruption: &Corruption) -> String {
    match corruption {
        Corruption::Missing => "missing".to_owned(),
        Corruption::Changed => "changed".to_owned(),
        Corruption::Unreadable(why) => format!("unreadable ({why})"),
    }
}

/// Names the stages that made something.
fn stages(cache: &Cache, producers: &[Key]) -> String {
    let name = |producer: &Key| match cache.index().manifest(*producer) {
        Ok(Some(manifest)) => Some(format!("`{}`", manifest.stage)),
        // That the index does not know it is reported by itself.
        Ok(None) | Err(_) => None,
    };
    let mut stages: Vec<String> = producers.iter().filter_map(name).collect();
    stages.sort();
    stages.dedup();
    if stages.is_empty() { "a source".to_owned() } else { stages.join(", ") }
}
