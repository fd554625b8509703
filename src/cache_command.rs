//! `pipeline cache ls | verify | rebuild`: what is kept, and whether it is sound.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use cache::{Cache, CacheError, Damage, DamagedBlob, Key};

use crate::exit::Stop;
use crate::house::{CacheArguments, bytes, look_at, seconds};
use crate::terminal;

/// List or verify what is kept, or make its index again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all finished work, oldest first, and sum it up.
    Ls,
    /// Read every byte and compare it with its digest.
    Verify {
        /// Discard what is damaged, so that the next run makes it again.
        #[arg(long)]
        repair: bool,
    },
    /// Make the index again from the results that are there; the old one is kept beside it.
    Rebuild,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let folder = arguments.cache.folder(None);
    match arguments.action {
        Action::Ls => {
            let cache = look_at(&folder)?.ok_or(CacheError::Absent { path: folder })?;
            list(&cache)
        }
        Action::Verify { repair } => {
            let cache = look_at(&folder)?.ok_or(CacheError::Absent { path: folder })?;
            verify(&cache, repair)
        }
        Action::Rebuild => rebuild(&folder),
    }
}

fn rebuild(folder: &Path) -> Result<(), Stop> {
    let rebuilt = Cache::rebuild_index(folder)?;
    let mut out = terminal::stdout();
    for problem in &rebuilt.unreadable {
        writeln!(out, "unreadable  {problem}")?;
    }
    if let Some(kept) = &rebuilt.kept {
        writeln!(out, "the old index is kept as {}", kept.display())?;
    }
    writeln!(
        out,
        "{} results recovered, {} lack a file and will be made again",
        rebuilt.results, rebuilt.incomplete
    )?;
    Ok(())
}

fn list(cache: &Cache) -> Result<(), Stop> {
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
    Err(Stop::Damaged)
}

fn verify(cache: &Cache, repair: bool) -> Result<(), Stop> {
    let verification = cache.verify(&mut |_, _| {})?;
    let mut out = terminal::stdout();
    for line in &verification.index {
        writeln!(out, "index    {line}")?;
    }
    for flaw in &verification.flaws {
        writeln!(out, "index    {}", flaw.text)?;
    }
    for DamagedBlob { digest, damage, makers } in &verification.damaged {
        let path = cache.blobs().path(*digest);
        writeln!(out, "{}  {}  of {}", told(damage), path.display(), stages(cache, makers))?;
    }
    for (digest, damage, maker) in &verification.records {
        let of = stages(cache, std::slice::from_ref(maker));
        writeln!(out, "{}  the record {} of {of}", told(damage), digest.short())?;
    }
    writeln!(
        out,
        "{} blobs sound, {} damaged, {} that nothing names",
        verification.sound,
        verification.damage(),
        verification.unreferenced
    )?;
    let is_mendable = verification.damage() > verification.index.len();
    if repair && is_mendable {
        cache.repair(&verification)?;
        writeln!(out, "discarded what is damaged; the next run makes it again")?;
    }
    if !verification.index.is_empty() {
        writeln!(terminal::stderr(), "help: run `pipeline cache rebuild`, which makes the index again")?;
    }
    match verification.is_sound() || (repair && verification.index.is_empty()) {
        true => Ok(()),
        false => Err(Stop::Damaged),
    }
}

/// Writes how something is damaged, the word that people know first.
fn told(damage: &Damage) -> String {
    match damage {
        Damage::Missing => "missing".to_owned(),
        Damage::Changed => "changed".to_owned(),
        Damage::Unreadable(why) => format!("unreadable ({why})"),
    }
}

/// Names the stages that made something.
fn stages(cache: &Cache, makers: &[Key]) -> String {
    let name = |maker: &Key| match cache.index().manifest(*maker) {
        Ok(Some(manifest)) => Some(format!("`{}`", manifest.stage)),
        // What the index does not know is among its own damage.
        Ok(None) | Err(_) => None,
    };
    let mut stages: Vec<String> = makers.iter().filter_map(name).collect();
    stages.sort();
    stages.dedup();
    match stages.is_empty() {
        true => "a source".to_owned(),
        false => stages.join(", "),
    }
}
