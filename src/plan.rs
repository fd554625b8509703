//! `pipeline plan FILE`: hit, run or maybe, per stage.

use std::io::{self, BufWriter, Write as _};

use engine::{State, forecast, resolved};

use crate::exit::Stop;
use crate::house::{ExperimentArguments, House, Use, bytes, seconds};

/// Say per stage what would happen: hit, run, maybe.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// Print every value that came out, and the file and line it came from.
    #[arg(long)]
    resolved: bool,
    /// Print recipe keys in full.
    #[arg(long)]
    keys: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let house = House::open(&arguments.experiment, Use::Look)?;
    let states = forecast(&house.plan, &house.keys, house.cache.as_ref())?;
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.json {
        let stages: Vec<_> = house
            .plan
            .nodes()
            .iter()
            .zip(&states)
            .enumerate()
            .map(|(at, (node, state))| {
                serde_json::json!({
                    "stage": node.label(), "kind": node.kind().name(), "state": state.state.word(),
                    "key": house.keys.recipe(at), "seconds": state.seconds,
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&stages).expect("plain data"))?;
        return Ok(out.flush()?);
    }
    let width = house.plan.nodes().iter().map(|node| node.label().chars().count()).max().unwrap_or(0).min(60);
    for (at, (node, state)) in house.plan.nodes().iter().zip(&states).enumerate() {
        let mut line =
            format!("{:<10} {:<width$}  {:<10}", state.state.word(), node.label(), node.kind().name());
        if let Some(before) = state.seconds {
            line.push_str(&format!("  about {}", seconds(before)));
        }
        let resources = node.resources();
        if state.state != State::Hit && resources.memory_bytes > 0 {
            line.push_str(&format!("  {} memory", bytes(resources.memory_bytes)));
        }
        if arguments.keys {
            line.push_str(&format!("  {}", house.keys.recipe(at)));
        }
        writeln!(out, "{}", line.trim_end())?;
        if arguments.resolved {
            let values = resolved(&house.plan, at);
            let column =
                values.iter().map(|value| value.path.len() + value.value.len() + 3).max().unwrap_or(0);
            for value in values {
                let text = format!("{} = {}", value.path, value.value);
                writeln!(out, "           {text:<width$}  # {}", value.origin, width = column.min(60))?;
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
    Ok(out.flush()?)
}
