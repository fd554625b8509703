//! `pipeline show FILE STAGE`: the result of a stage.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;

use cache::{Artifact, Cache, CacheError, Manifest};
use engine::forecast;

use crate::error::CliError;
use crate::series::Series;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;
use crate::units::{bytes, seconds};

/// Show the result of a stage: how it was made, its files, its numbers and its first rows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The stage: `name` or `name[axis=variant]`.
    stage: String,
    /// Show only this output.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Write only this file of the output to standard output.
    #[arg(long = "file", value_name = "PATH")]
    inside: Option<String>,
    /// The number of rows to show.
    #[arg(long, default_value_t = 3, value_name = "N")]
    rows: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open_for(&arguments.experiment, Use::Look, &[&arguments.stage])?;
    let node = session.select_one(&arguments.stage)?;
    let cache = session.cache(&arguments.experiment)?;
    let state = forecast(&session.plan, &session.keys, Some(cache))?.swap_remove(node);
    let label = session.plan.nodes()[node].label();
    let Some(trace) = state.trace else {
        return Err(CliError::NotMade(format!("`{label}` has not been made yet: run the experiment first")));
    };
    let lost = |detail: String| CliError::Cache(CacheError::Row { key: trace.key, detail });
    let manifest = cache.index().manifest(trace.key)?;
    let manifest = manifest.ok_or_else(|| lost(format!("the manifest of `{label}` is missing")))?;
    let mut outputs: Vec<_> = manifest.outputs.iter().collect();
    if let Some(name) = &arguments.output {
        outputs.retain(|output| output.name == *name);
        if outputs.is_empty() {
            let names: Vec<&str> = manifest.outputs.iter().map(|output| output.name.as_str()).collect();
            return Err(CliError::Usage(format!(
                "`{label}` has no output `{name}`; it has {}",
                names.join(", ")
            )));
        }
    }
    if let Some(path) = &arguments.inside {
        for output in outputs {
            if let Some(content) = cache.read(output.artifact, path)? {
                return Ok(terminal::raw().write_all(&content)?);
            }
        }
        return Err(CliError::Usage(format!("`{label}` made no file `{path}`")));
    }
    let mut out = terminal::stdout();
    if arguments.output.is_none() {
        show_making(&mut out, label, &manifest, trace.key)?;
    }
    for output in outputs {
        let Some(artifact) = cache.index().artifact(output.artifact)? else {
            return Err(lost(format!("the list of files of `{label}.{}` is lost", output.name)));
        };
        writeln!(
            out,
            "\noutput {} ({}): {}, {} files, blake3:{}",
            output.name,
            output.artifact_type,
            bytes(output.bytes),
            output.files,
            output.artifact
        )?;
        show_artifact(&mut out, cache, &artifact, arguments.rows)?;
    }
    Ok(())
}

fn show_making(
    out: &mut impl Write,
    label: &str,
    manifest: &Manifest,
    key: cache::Key,
) -> Result<(), CliError> {
    writeln!(out, "{label}: {} version {}", manifest.kind, manifest.version)?;
    writeln!(out, "  trace key   {key}")?;
    writeln!(
        out,
        "  made by     pipeline {}, on {} ({})",
        manifest.program, manifest.device, manifest.instruction_set
    )?;
    writeln!(out, "  took        {}", seconds(manifest.seconds))?;
    if manifest.stage != label {
        writeln!(out, "  first as    {}", manifest.stage)?;
    }
    for (component, version) in &manifest.components {
        writeln!(out, "  component   {component} version {version}")?;
    }
    if let Some(seed) = manifest.seed {
        writeln!(out, "  seed        {seed}")?;
    }
    writeln!(out, "  parameters  {}", manifest.params)?;
    for input in &manifest.inputs {
        let label = input.label.as_ref().map_or_else(String::new, |label| format!(".{label}"));
        writeln!(out, "  input       {}{label} = blake3:{}", input.port, input.from)?;
    }
    for note in &manifest.notes {
        writeln!(out, "  note        {}", terminal::one_line(note))?;
    }
    Ok(())
}

fn show_artifact(
    out: &mut impl Write,
    cache: &Cache,
    artifact: &Artifact,
    rows: usize,
) -> Result<(), CliError> {
    for entry in artifact.entries() {
        writeln!(out, "  {}  {}", terminal::one_line(&entry.path), bytes(entry.bytes))?;
    }
    for entry in artifact.entries() {
        let blob = cache.blobs().checked(entry.digest)?;
        let is_small = entry.bytes < 100_000;
        if entry.path.ends_with(".jsonl") {
            writeln!(out, "  first rows of {}:", terminal::one_line(&entry.path))?;
            for line in lines_of(&blob)?.take(rows) {
                let short: String = line.chars().take(300).collect();
                let more = if short.len() < line.len() { "…" } else { "" };
                writeln!(out, "    {short}{more}")?;
            }
            if let Some(series) = Series::read(lines_of(&blob)?) {
                writeln!(out, "  by step:")?;
                for line in series.lines() {
                    writeln!(out, "    {line}")?;
                }
            }
        } else if entry.path == "metrics.json" && is_small {
            let text = std::fs::read(&blob).map_err(unreadable(&blob))?;
            if let Ok(serde_json::Value::Object(metrics)) = serde_json::from_slice(&text) {
                for (name, value) in metrics {
                    writeln!(out, "    {name} = {value}")?;
                }
            }
        } else if entry.path.ends_with(".json") && is_small {
            writeln!(out, "  {}:", terminal::one_line(&entry.path))?;
            let text = std::fs::read(&blob).map_err(unreadable(&blob))?;
            for line in String::from_utf8_lossy(&text).lines().take(40) {
                writeln!(out, "    {line}")?;
            }
        }
    }
    if artifact.entry("config.json").is_some() {
        show_model(out, cache, artifact)?;
    }
    Ok(())
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    move |error| CliError::failed(&format!("read {}", path.display()), &error)
}

/// Returns the lines of a file.
fn lines_of(path: &Path) -> Result<impl Iterator<Item = String> + use<>, CliError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    Ok(lines.map(|line| String::from_utf8_lossy(&line).into_owned()))
}

/// Lists the tensors of a model.
fn show_model(out: &mut impl Write, cache: &Cache, artifact: &Artifact) -> Result<(), CliError> {
    let files: Vec<_> = artifact
        .entries()
        .iter()
        .map(|entry| (entry.path.clone(), cache.blobs().path(entry.digest)))
        .collect();
    match stages::describe_model(&files) {
        Ok(lines) => {
            for line in lines {
                writeln!(out, "    {line}")?;
            }
        }
        Err(problem) => writeln!(out, "    the model cannot be read: {problem}")?,
    }
    Ok(())
}
