//! The command line: the only place that prints, reads the environment and chooses exit codes.

mod allocator;
mod bench;
mod cache_command;
mod completions;
mod convert;
mod doctor;
mod error;
mod exit_code;
mod graph;
mod import_mergekit;
mod log;
mod machine;
mod plan;
mod progress;
mod run;
mod schema;
mod series;
mod session;
mod show;
mod status;
mod table;
mod terminal;
mod units;
mod why;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Turns a paper's tables into reproducible graphs.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = exit_code::help())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

// One entry per file of this folder, in the order of the manual.
#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Plan(plan::Arguments),
    Why(why::Arguments),
    Status(status::Arguments),
    Table(table::Arguments),
    Graph(graph::Arguments),
    Show(show::Arguments),
    Log(log::Arguments),
    Cache(cache_command::Arguments),
    ImportMergekit(import_mergekit::Arguments),
    Schema(schema::Arguments),
    Doctor(doctor::Arguments),
    Bench(bench::Arguments),
    Completions(completions::Arguments),
    #[command(hide = true)]
    Worker(worker::Arguments),
}

fn main() -> ExitCode {
    allocator::configure();
    let result = match arguments().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Why(arguments) => why::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Table(arguments) => table::run(arguments),
        Command::Graph(arguments) => graph::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Log(arguments) => log::run(arguments),
        Command::Cache(arguments) => cache_command::run(arguments),
        Command::ImportMergekit(arguments) => import_mergekit::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Completions(arguments) => completions::run(arguments, Arguments::command()),
        Command::Worker(arguments) => worker::run(arguments),
    };
    error::report(result)
}

/// Parses the command line. An error may quote the name of a file, which need not be printable.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let message = error.render().to_string();
        let printable = terminal::printable(&message);
        if printable != message {
            let _ = terminal::stderr().write_all(printable.as_bytes());
            std::process::exit(exit_code::INPUT.into());
        }
        error.exit()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Arguments::command().debug_assert();
    }
}
