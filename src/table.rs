//! `pipeline table FILE`: the tables, from existing results.

use std::io::Write as _;

use engine::{CellValue, RowOrigin, Table, forecast};
use report::table;

use crate::convert;
use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Print the tables from existing results, without running anything.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The format of the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Print only this table, `[tables.NAME]`, or `table` for `[table]`. Can be repeated.
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
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
        match session.last_execution(cache, node) {
            Ok(Some(last)) if last.outcome != "done" => {
                format!("`{label}` {}: {}", last.outcome, last.message)
            }
            _ => format!("`{label}` has not been run"),
        }
    };
    let mut tables = engine::fill(&session.plan, cache, &traces, &reason);
    if tables.is_empty() {
        return Err(CliError::Usage(format!("{} has no `[table]`", arguments.experiment.file.display())));
    }
    if !arguments.table.is_empty() {
        tables = select(tables, &arguments.table)?;
    }
    print_tables(&tables, arguments.format)?;
    if tables.iter().any(has_gaps) { Err(CliError::Stage) } else { Ok(()) }
}

/// Returns the tables of these names, in the order of the experiment.
fn select(mut tables: Vec<Table>, names: &[String]) -> Result<Vec<Table>, CliError> {
    let known: Vec<String> = tables.iter().map(|table| name(table).to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        let known = known.join(", ");
        return Err(CliError::Usage(format!("there is no table `{unknown}`; tables: {known}")));
    }
    tables.retain(|table| names.iter().any(|wanted| wanted == name(table)));
    Ok(tables)
}

/// Returns the name of a table: that of `[tables.NAME]`, or `table`.
fn name(table: &Table) -> &str {
    table.name.as_deref().unwrap_or("table")
}

/// Prints tables to standard output, one after the other; as JSON, several are a list.
pub(crate) fn print_tables(tables: &[Table], format: Format) -> Result<(), CliError> {
    let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let text = |table: &Table| {
        let table = convert::table(table);
        let mut text = match format {
            Format::Text => table::text(&table, width),
            Format::Markdown => table::markdown(&table),
            Format::Csv => table::csv(&table),
            Format::Json => terminal::json(&table::json(&table)).into_owned(),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    };
    let texts: Vec<String> = tables.iter().map(text).collect();
    let text = match (format, texts.as_slice()) {
        (Format::Json, [_, _, ..]) => format!("[\n{}]\n", texts.join(",\n")),
        _ => texts.join("\n"),
    };
    let mut out = terminal::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Returns whether a cell that the experiment makes has no number.
pub(crate) fn has_gaps(table: &Table) -> bool {
    let made = table.rows.iter().filter(|row| matches!(row.origin, RowOrigin::Made { .. }));
    made.flat_map(|row| &row.cells).any(|cell| matches!(cell.value, CellValue::Missing { .. }))
}
