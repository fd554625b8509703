//! `pipeline run FILE`: plan, run, print the table.

use std::collections::BTreeSet;
use std::io::Write as _;

use engine::{Cancel, RunOptions, RunReport, StageResult, run as run_plan};

use crate::exit::{INTERRUPTED, Stop};
use crate::house::{ExperimentArguments, House, Use, foresight, machine};
use crate::progress::{Listener, Mode};
use crate::table::{Format, print_table};
use crate::terminal;
use crate::worker;

/// Plan an experiment, run what is missing, print the table.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// How many cores all stages together may keep busy [default: all].
    #[arg(long, short, value_name = "CORES")]
    jobs: Option<u32>,
    /// How much memory all stages together may ask for, in GiB [default: the machine's].
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// Go on with what does not depend on a failed stage.
    #[arg(long, short)]
    keep_going: bool,
    /// Make this stage and what it needs, and no more. Can be repeated.
    #[arg(long, value_name = "STAGE", conflicts_with = "only")]
    until: Vec<String>,
    /// Make this stage alone, from inputs that must be there. Can be repeated.
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Run this stage even if its result is there. Can be repeated.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Compute on `cpu`, `cuda`, `cuda:N` or `wgpu`; on several GPUs with commas between.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Tell what happens as JSON, one event per line, instead of printing a table.
    #[arg(long)]
    json: bool,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let device = stages::check_device(&arguments.device).map_err(Stop::Usage)?;
    let house = House::open(&arguments.experiment, Use::Keep)?;
    let cache = house.cache(&arguments.experiment)?;
    let options = options(&arguments, &house, device)?;
    let cancel = Cancel::for_a_process_of_its_own();
    listen_for_signals(&cancel)?;
    let mut listener = Listener::new(&house.plan, cache.folder(), Mode::choose(arguments.json));
    let report = run_plan(&house.plan, &house.keys, cache, &options, &cancel, &mut |event| {
        listener.hear(&event);
    });
    let report = report.inspect_err(|_| listener.close())?;
    let mut printed = listener.finish(&report).map_err(Stop::from);
    let mut has_gaps = false;
    let wanted = arguments.until.is_empty() && arguments.only.is_empty();
    if wanted && !report.was_interrupted {
        let reasons = |node: usize| reason(&house, &report, node);
        if let Some(table) = engine::fill(&house.plan, cache, &report.traces, &reasons) {
            has_gaps = crate::table::has_gaps(&table);
            let table_printed = if arguments.json {
                let table = compact(&engine::json(&table));
                let table = terminal::json(&table);
                writeln!(terminal::stdout(), "{{\"event\":\"table\",\"table\":{table}}}").map_err(Stop::from)
            } else {
                print_table(&table, arguments.format)
            };
            printed = printed.and(table_printed);
        }
    }
    match () {
        () if report.was_interrupted => Err(Stop::Interrupted),
        () if report.failed().next().is_some() || has_gaps || was_skipped(&report) => Err(Stop::Stage),
        // A reader that went away must not hide a failure.
        () => printed,
    }
}

fn compact(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .map_or_else(|_| json.to_owned(), |value| value.to_string())
}

fn was_skipped(report: &RunReport) -> bool {
    report.results.iter().any(|result| matches!(result, StageResult::Skipped { .. }))
}

/// Says why a node has no result.
fn reason(house: &House, report: &RunReport, node: usize) -> String {
    let label = house.plan.nodes()[node].label();
    match &report.results[node] {
        StageResult::Failed { message, .. } => format!("`{label}` failed: {message}"),
        StageResult::Skipped { because } => format!("`{label}` was not made: {because}"),
        _ => format!("`{label}` was not made"),
    }
}

fn options(arguments: &Arguments, house: &House, device: String) -> Result<RunOptions, Stop> {
    let select = |texts: &[String]| -> Result<Vec<usize>, Stop> {
        let mut nodes = Vec::new();
        for text in texts {
            nodes.extend(house.select(text)?);
        }
        Ok(nodes)
    };
    let (until, only) = (select(&arguments.until)?, select(&arguments.only)?);
    let force: BTreeSet<usize> = select(&arguments.force)?.into_iter().collect();
    if arguments.jobs == Some(0) {
        return Err(Stop::Usage("`--jobs` is at least 1".to_owned()));
    }
    let memory = arguments.memory.map(|gib| (gib * 1_073_741_824.0) as u64);
    let machine = machine(device, arguments.jobs, memory);
    Ok(RunOptions {
        foresight: foresight(&house.plan, &machine),
        machine,
        keep_going: arguments.keep_going,
        only_targets: !only.is_empty(),
        targets: if only.is_empty() { until } else { only },
        force,
        // The program that runs now, also where another was put in its place meanwhile.
        worker: vec![worker::THIS_PROGRAM.into(), "worker".into()],
        program: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Once finishes cleanly, twice stops now.
fn listen_for_signals(cancel: &Cancel) -> Result<(), Stop> {
    let cancel = cancel.clone();
    ctrlc::set_handler(move || {
        cancel.ask();
        if cancel.is_now() {
            // Programs have been killed; a stage on a thread of ours cannot be, but is safe to leave.
            std::thread::sleep(std::time::Duration::from_secs(2));
            std::process::exit(INTERRUPTED.into());
        }
        let _ = writeln!(terminal::stderr(), "\nstopping when what runs has ended; once more stops now");
    })
    .map_err(|error| Stop::Io(format!("failed to listen for Ctrl-C: {error}")))
}
