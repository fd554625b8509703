//! `pipeline run FILE`: plans, runs and prints the table.

use std::collections::BTreeSet;
use std::io::Write as _;

use engine::{Cancel, RunOptions, RunReasons, RunReport, StageResult, run as run_plan};

use crate::convert;
use crate::error::CliError;
use crate::exit_code::INTERRUPTED;
use crate::machine::machine;
use crate::progress::{Listener, Mode};
use crate::session::{ExperimentArguments, Session, Use, memory_forecast};
use crate::table::{Format, print_tables};
use crate::terminal;
use crate::worker;

/// Plan an experiment, run the stages whose results are missing, and print the table.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The number of cores for all running stages together [default: all].
    #[arg(long, short, value_name = "CORES")]
    jobs: Option<u32>,
    /// The memory for all running stages together, in GiB [default: the machine's].
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// After a failure, go on with the stages that do not depend on the failed one.
    #[arg(long, short)]
    keep_going: bool,
    /// Run only this stage and the stages that it depends on. Can be repeated.
    #[arg(long, value_name = "STAGE", conflicts_with = "only")]
    until: Vec<String>,
    /// Run only this stage; its inputs must have been made. Can be repeated.
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Run this stage even if it has a result. Can be repeated.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// The device: `cpu`, `cuda`, `cuda:N` or `wgpu`; several GPUs separated by commas.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Print events as JSON, one per line, instead of a table.
    #[arg(long)]
    json: bool,
    /// The format of the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let device = stages::check_device(&arguments.device).map_err(CliError::Usage)?;
    let named = arguments.until.iter().chain(&arguments.only).chain(&arguments.force);
    let named: Vec<&str> = named.map(String::as_str).collect();
    let session = Session::open_for(&arguments.experiment, Use::Keep, &named)?;
    let cache = session.cache(&arguments.experiment)?;
    let options = options(&arguments, &session, device)?;
    let cancel = Cancel::for_a_process_of_its_own();
    listen_for_signals(&cancel)?;
    let reasons = RunReasons::new(&session.plan, &session.keys, cache, &options.force)?;
    let mode = Mode::choose(arguments.json);
    let mut listener = Listener::new(&session.plan, reasons, cache.folder(), mode);
    let report = run_plan(&session.plan, &session.keys, cache, &options, &cancel, &mut |event| {
        listener.on_event(&event);
    });
    let report = report.inspect_err(|_| listener.close())?;
    let mut printed = listener.finish(&report).map_err(CliError::from);
    let mut has_gaps = false;
    let wanted = arguments.until.is_empty() && arguments.only.is_empty();
    if wanted && !report.was_interrupted {
        let reasons = |node: usize| reason(&session, &report, node);
        let tables = engine::fill(&session.plan, cache, &report.traces, &reasons);
        has_gaps = tables.iter().any(crate::table::has_gaps);
        if arguments.json {
            for table in &tables {
                let table = compact(&report::table::json(&convert::table(table)));
                let table = terminal::json(&table);
                let written = writeln!(terminal::stdout(), "{{\"event\":\"table\",\"table\":{table}}}");
                printed = printed.and(written.map_err(CliError::from));
            }
        } else if !tables.is_empty() {
            printed = printed.and(print_tables(&tables, arguments.format));
        }
    }
    match () {
        () if report.was_interrupted => Err(CliError::Interrupted),
        () if report.failed().next().is_some() || has_gaps || was_skipped(&report) => Err(CliError::Stage),
        // That the output was closed must not hide a failure.
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

/// Returns why a node has no result.
fn reason(session: &Session, report: &RunReport, node: usize) -> String {
    let label = session.plan.nodes()[node].label();
    match &report.results[node] {
        StageResult::Failed { failure, .. } => format!("`{label}` failed: {failure}"),
        StageResult::Skipped { because } => format!("`{label}` was not made: {because}"),
        _ => format!("`{label}` was not made"),
    }
}

fn options(arguments: &Arguments, session: &Session, device: String) -> Result<RunOptions, CliError> {
    let select = |texts: &[String]| -> Result<Vec<usize>, CliError> {
        let mut nodes = Vec::new();
        for text in texts {
            nodes.extend(session.select(text)?);
        }
        Ok(nodes)
    };
    let (until, only) = (select(&arguments.until)?, select(&arguments.only)?);
    let force: BTreeSet<usize> = select(&arguments.force)?.into_iter().collect();
    if arguments.jobs == Some(0) {
        return Err(CliError::Usage("`--jobs` must be at least 1".to_owned()));
    }
    let memory = arguments.memory.map(|gib| (gib * 1_073_741_824.0) as u64);
    let machine = machine(device, arguments.jobs, memory);
    Ok(RunOptions {
        memory_forecast: memory_forecast(&session.plan, &machine),
        machine,
        keep_going: arguments.keep_going,
        only_targets: !only.is_empty(),
        targets: if only.is_empty() { until } else { only },
        force,
        // The program that is running, even if its file has been replaced meanwhile.
        worker: vec![worker::THIS_PROGRAM.into(), "worker".into()],
        program: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The first signal lets running stages end; the second stops them.
fn listen_for_signals(cancel: &Cancel) -> Result<(), CliError> {
    let cancel = cancel.clone();
    ctrlc::set_handler(move || {
        cancel.ask();
        if cancel.is_now() {
            // Programs have been killed; a stage on a thread of ours cannot be, but is safe to leave.
            std::thread::sleep(std::time::Duration::from_secs(2));
            std::process::exit(INTERRUPTED.into());
        }
        let _ = writeln!(
            terminal::stderr(),
            "\nstopping when the running stages have ended; press Ctrl-C again to stop now"
        );
    })
    .map_err(|error| CliError::Io(format!("failed to install the handler for Ctrl-C: {error}")))
}
