//! The command line: the only place that prints, reads the environment and chooses exit codes.

mod allocator;
mod bench;
mod cache_command;
mod completions;
mod doctor;
mod exit;
mod graph;
mod house;
mod import_mergekit;
mod log;
mod plan;
mod progress;
mod run;
mod schema;
mod series;
mod show;
mod status;
mod table;
mod terminal;
mod why;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Turns a paper's tables into reproducible graphs.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
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
    allocator::settle();
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
        Command::Completions(arguments) => completions::run(arguments),
        Command::Worker(arguments) => worker::run(arguments),
    };
    exit::code(result)
}

/// Reads the command line. What is wrong with it may be a name that somebody else gave to a file.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let said = error.render().to_string();
        let shown = terminal::printable(&said);
        if shown != said {
            let _ = terminal::stderr().write_all(shown.as_bytes());
            std::process::exit(exit::WRONG.into());
        }
        error.exit()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_two_arguments_are_in_each_others_way() {
        super::Arguments::command().debug_assert();
    }
}
