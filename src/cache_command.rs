//! `pipeline cache ls | verify`: what is kept, and whether it is sound.

use std::io::{BufWriter, Write as _};

use cache::{Cache, CacheError, Damage};

use crate::exit::Stop;
use crate::house::{CacheArguments, bytes, look_at, seconds};
use crate::terminal;

/// List or verify what is kept.
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
    }
}

fn list(cache: &Cache) -> Result<(), Stop> {
    let mut out = BufWriter::new(terminal::stdout());
    let listed = cache.index().list()?;
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
    let totals = cache.index().totals()?;
    writeln!(
        out,
        "{}: {} results, {} artifacts, {}",
        cache.folder().display(),
        totals.traces,
        totals.artifacts,
        bytes(totals.bytes)
    )?;
    Ok(out.flush()?)
}

fn verify(cache: &Cache, repair: bool) -> Result<(), Stop> {
    let found = cache.verify(&mut |_, _| {})?;
    let mut out = terminal::stdout();
    for line in &found.index {
        writeln!(out, "index    {line}")?;
    }
    for (digest, damage, makers) in &found.damaged {
        let what = match damage {
            Damage::Missing => "missing",
            Damage::Changed => "changed",
        };
        let mut stages = Vec::new();
        for maker in makers {
            if let Some(manifest) = cache.index().manifest(*maker)? {
                stages.push(format!("`{}`", manifest.stage));
            }
        }
        stages.sort();
        stages.dedup();
        writeln!(out, "{what}  {}  of {}", cache.blobs().path(*digest).display(), stages.join(", "))?;
    }
    writeln!(
        out,
        "{} blobs sound, {} damaged, {} that nothing names",
        found.sound,
        found.damaged.len(),
        found.unreferenced
    )?;
    if repair && !found.damaged.is_empty() {
        cache.repair(&found)?;
        writeln!(out, "discarded what is damaged; the next run makes it again")?;
    }
    match found.is_sound() || (repair && found.index.is_empty()) {
        true => Ok(()),
        false => Err(Stop::Damaged),
    }
}
