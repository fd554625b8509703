//! `pipeline table FILE`: the table, from what is there.

use std::io::Write as _;

use engine::{CellValue, RowOrigin, Table, forecast};

use crate::exit::Stop;
use crate::house::{ExperimentArguments, House, Use};
use crate::terminal;

/// Print the table from what is there, running nothing.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Text,
    /// A table in Markdown.
    Markdown,
    /// Comma-separated values at full precision.
    Csv,
    /// Everything, with the artifact that each number came from.
    Json,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let house = House::open(&arguments.experiment, Use::Look)?;
    let cache = house.cache(&arguments.experiment)?;
    let states = forecast(&house.plan, &house.keys, Some(cache))?;
    let traces: Vec<_> = states.into_iter().map(|state| state.trace).collect();
    let reason = |node: usize| {
        let label = house.plan.nodes()[node].label();
        match cache.index().last_execution(house.keys.recipe(node)) {
            Ok(Some(last)) if last.outcome != "done" => {
                format!("`{label}` {}: {}", last.outcome, last.message)
            }
            _ => format!("`{label}` has not been run"),
        }
    };
    let Some(table) = engine::fill(&house.plan, cache, &traces, &reason) else {
        return Err(Stop::Usage(format!("{} has no `[table]`", arguments.experiment.file.display())));
    };
    print_table(&table, arguments.format)?;
    if has_gaps(&table) { Err(Stop::Stage) } else { Ok(()) }
}

/// Prints a table to standard output.
pub fn print_table(table: &Table, format: Format) -> Result<(), Stop> {
    let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let text = match format {
        Format::Text => engine::text(table, width),
        Format::Markdown => engine::markdown(table),
        Format::Csv => engine::csv(table),
        Format::Json => terminal::json(&engine::json(table)).into_owned(),
    };
    let mut out = terminal::stdout();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Returns whether a cell that the experiment makes has no number.
pub fn has_gaps(table: &Table) -> bool {
    let made = table.rows.iter().filter(|row| matches!(row.origin, RowOrigin::Made { .. }));
    made.flat_map(|row| &row.cells).any(|cell| matches!(cell.value, CellValue::Missing { .. }))
}
