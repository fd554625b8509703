//! `pipeline plan FILE`: what a run would do, stage by stage.

use std::io::{BufWriter, Write as _};

use engine::{Fit, Machine, Memory, MemoryForecast, State, forecast, resolved};

use crate::error::CliError;
use crate::machine::machine;
use crate::session::{ExperimentArguments, Session, Use, memory_forecast};
use crate::terminal;
use crate::units::{bytes, seconds};

/// Print what a run would do, stage by stage.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// Print every resolved value, and the file and line that it comes from.
    #[arg(long)]
    resolved: bool,
    /// Print recipe keys in full.
    #[arg(long)]
    keys: bool,
    /// The device to estimate memory for: `cpu`, `cuda`, `cuda:N` or `wgpu`.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open(&arguments.experiment, Use::Look)?;
    let states = forecast(&session.plan, &session.keys, session.cache.as_ref())?;
    let machine = machine(arguments.device, None, None);
    let memory_forecast = memory_forecast(&session.plan, &machine);
    let mut out = BufWriter::new(terminal::stdout());
    if arguments.json {
        let stages: Vec<_> = session
            .plan
            .nodes()
            .iter()
            .zip(&states)
            .enumerate()
            .map(|(at, (node, state))| {
                serde_json::json!({
                    "stage": node.label(), "kind": session.plan.kind_name(at), "state": state.state.word(),
                    "key": session.keys.recipe(at), "needed": session.plan.is_needed(at),
                    "seconds": state.seconds, "memory": memory_as_json(memory_forecast.of(at)),
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&stages).expect("plain data");
        writeln!(out, "{}", terminal::json(&text))?;
        return Ok(out.flush()?);
    }
    let width =
        session.plan.nodes().iter().map(|node| node.label().chars().count()).max().unwrap_or(0).min(60);
    for (at, (node, state)) in session.plan.nodes().iter().zip(&states).enumerate() {
        let mut line = format!(
            "{:<10} {:<width$}  {:<10}",
            state.state.word(),
            node.label(),
            session.plan.kind_name(at)
        );
        if let Some(before) = state.seconds {
            line.push_str(&format!("  about {}", seconds(before)));
        }
        if !session.plan.is_needed(at) {
            line.push_str("  no table reads it");
        } else if state.state != State::Hit {
            line.push_str(&memory(&memory_forecast, at, &machine));
        }
        if arguments.keys {
            let key =
                session.keys.recipe(at).map_or_else(|| "key not known".to_owned(), |key| key.to_string());
            line.push_str(&format!("  {key}"));
        }
        writeln!(out, "{}", line.trim_end())?;
        if arguments.resolved {
            let values = resolved(&session.plan, at);
            let column =
                values.iter().map(|value| value.path.len() + value.value.len() + 3).max().unwrap_or(0);
            for value in values {
                let text = format!("{} = {}", value.path, value.value);
                let hides = match value.hides.as_slice() {
                    [] => String::new(),
                    hides => format!("  (hides {})", hides.join("; ")),
                };
                writeln!(
                    out,
                    "           {text:<width$}  # {}{hides}",
                    value.origin,
                    width = column.min(60)
                )?;
            }
        }
    }
    let count = |wanted: State| states.iter().filter(|state| state.state == wanted).count();
    let known: f64 = states.iter().filter_map(|state| state.seconds).sum();
    let estimate =
        if known > 0.0 { format!(", about {} of known work", seconds(known)) } else { String::new() };
    writeln!(
        out,
        "{} stages: {} hit, {} run, {} maybe, {} not needed{estimate}",
        states.len(),
        count(State::Hit),
        count(State::Run),
        count(State::Maybe),
        count(State::NotNeeded)
    )?;
    let unread = (0..states.len()).filter(|node| !session.plan.is_needed(*node)).count();
    if unread > 0 {
        writeln!(out, "no table reads {unread} of them; `pipeline run FILE --until STAGE` makes one")?;
    }
    Ok(out.flush()?)
}

/// Describes the memory that a node needs, and whether the machine has it.
fn memory(memory_forecast: &MemoryForecast, at: usize, machine: &Machine) -> String {
    let need = match (memory_forecast.of(at), memory_forecast.fit(at, machine)) {
        (_, Fit::CannotFit(problem) | Fit::MayNotFit(problem)) => return format!("  {problem}"),
        (Memory::Little, Fit::Fits) => return String::new(),
        (Memory::Unknown(because), Fit::Fits) => return format!("  memory not known: {because}"),
        (Memory::Known(need), Fit::Fits) => need,
    };
    let mut text = format!("  {} memory", bytes(need.machine.likely));
    if need.device.likely > 0 {
        text.push_str(&format!(", {} on {}", bytes(need.device.likely), machine.device.0));
    }
    match need.assuming.as_str() {
        "" => text,
        assuming => format!("{text} {assuming}"),
    }
}

fn memory_as_json(memory: &Memory) -> serde_json::Value {
    match memory {
        Memory::Little => serde_json::Value::Null,
        Memory::Unknown(because) => serde_json::json!({ "unknown": because }),
        Memory::Known(need) => serde_json::to_value(need).expect("plain data"),
    }
}
