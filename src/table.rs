//! `pipeline table FILE`: the table, from existing results.

use std::io::Write as _;

use engine::{CellValue, RowOrigin, Table, forecast};
use report::table;

use crate::convert;
use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Print the table from existing results, without running anything.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The format of the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Text,
    /// A table in Markdown.
    Markdown,
    /// Comma-separated values at full precision.
    Csv,
    /// Everything, with the artifact that each number comes from.
    Json,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open(&arguments.experiment, Use::Look)?;
    let cache = session.cache(&arguments.experiment)?;
    let states = forecast(&session.plan, &session.keys, Some(cache))?;
    let traces: Vec<_> = states.into_iter().map(|state| state.trace).collect();
    let reason = |node: usize| {
        let label = session.plan.nodes()[node].label();
        match cache.index().last_execution(session.keys.recipe(node)) {
            Ok(Some(last)) if last.outcome != "done" => {
                format!("`{label}` {}: {}", last.outcome, last.message)
            }
            _ => format!("`{label}` has not been run"),
        }
    };
    let Some(table) = engine::fill(&session.plan, cache, &traces, &reason) else {
        return Err(CliError::Usage(format!("{} has no `[table]`", arguments.experiment.file.display())));
    };
    print_table(&table, arguments.format)?;
    if has_gaps(&table) { Err(CliError::Stage) } else { Ok(()) }
}

/// Prints a table to standard output.
pub(crate) fn print_table(table: &Table, format: Format) -> Result<(), CliError> {
    let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let table = convert::table(table);
    let text = match format {
        Format::Text => table::text(&table, width),
        Format::Markdown => table::markdown(&table),
        Format::Csv => table::csv(&table),
        Format::Json => terminal::json(&table::json(&table)).into_owned(),
    };
    let mut out = terminal::stdout();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Returns whether a cell that the experiment makes has no number.
pub(crate) fn has_gaps(table: &Table) -> bool {
    let made = table.rows.iter().filter(|row| matches!(row.origin, RowOrigin::Made { .. }));
    made.flat_map(|row| &row.cells).any(|cell| matches!(cell.value, CellValue::Missing { .. }))
}
