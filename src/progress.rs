//! Reports what happens: live bars on a terminal, plain lines in a pipe, or JSON events.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Comparison, Event, Plan, Progress, RunReasons, RunReport, StageFailure, StageResult};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use crate::terminal;
use crate::units::seconds;

/// How many lines of a failed stage's log are shown.
const LOG_LINES: usize = 8;

/// How events are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Bars that move, on standard error.
    Live,
    /// A line per stage that ran, on standard error.
    Plain,
    /// A JSON object per event, on standard output.
    Json,
}

impl Mode {
    /// Chooses by what standard error is.
    pub(crate) fn choose(json: bool) -> Self {
        match (json, terminal::is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Live,
            (false, false) => Self::Plain,
        }
    }
}

/// Reports the events of a run.
pub(crate) struct Listener<'a> {
    plan: &'a Plan,
    reasons: RunReasons<'a>,
    cache: PathBuf,
    mode: Mode,
    bars: MultiProgress,
    all: Option<ProgressBar>,
    running: BTreeMap<usize, ProgressBar>,
    /// Why each running node runs.
    because: BTreeMap<usize, String>,
    began: Instant,
    /// The first failure to write an event.
    unwritten: io::Result<()>,
}

impl<'a> Listener<'a> {
    /// Listens to the run of a plan.
    pub(crate) fn new(plan: &'a Plan, reasons: RunReasons<'a>, cache: &Path, mode: Mode) -> Self {
        Self {
            plan,
            reasons,
            cache: cache.to_owned(),
            mode,
            bars: MultiProgress::new(),
            all: None,
            running: BTreeMap::new(),
            because: BTreeMap::new(),
            began: Instant::now(),
            unwritten: Ok(()),
        }
    }

    /// Reports one event.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let Event::Started { node } = event {
            // A reason that cannot be looked up does not stop the run.
            if let Ok(reason) = self.reasons.of(*node) {
                self.because.insert(*node, reason.to_string());
            }
        }
        match self.mode {
            Mode::Json => self.print_json(event),
            Mode::Live | Mode::Plain => self.print(event),
        }
        if let Event::Finished { node, .. } = event {
            self.because.remove(node);
        }
    }

    fn label(&self, node: usize) -> &'a str {
        self.plan.nodes()[node].label()
    }

    fn line(&self, text: &str) {
        // Further lines of a message are indented, so that no line of ours begins there.
        let text = terminal::printable(text).trim_end().replace('\n', "\n          ");
        if self.mode == Mode::Live && !self.running.is_empty() {
            let _ = self.bars.println(text);
        } else {
            // A reader that went away does not stop the run.
            let _ = writeln!(terminal::stderr(), "{text}");
        }
    }

    /// Writes an event. A failure to write does not stop the run; it is returned at the end.
    fn write_json(&mut self, value: &serde_json::Value) {
        let written = writeln!(terminal::stdout(), "{}", terminal::json(&value.to_string()));
        if self.unwritten.is_ok() {
            self.unwritten = written;
        }
    }

    fn print(&mut self, event: &Event) {
        match event {
            Event::RunStarted { nodes, hits } => {
                if self.mode == Mode::Live && nodes > hits {
                    let bar = ProgressBar::new(*nodes as u64).with_position(*hits as u64);
                    bar.set_style(style("{bar:24} {pos} of {len} stages  {elapsed}"));
                    bar.enable_steady_tick(Duration::from_secs(1));
                    self.all = Some(self.bars.add(bar));
                }
            }
            Event::Started { node } => {
                let label = self.label(*node);
                if self.mode == Mode::Live {
                    let bar = self.bars.add(ProgressBar::new_spinner().with_message(shown(label)));
                    bar.set_style(style("{spinner} {msg}  {elapsed}"));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    self.running.insert(*node, bar);
                }
            }
            Event::Waiting { node } => self
                .line(&format!("wait      {}  (the same result is being made already)", self.label(*node))),
            Event::Progress { node, progress } => self.move_bar(*node, progress),
            Event::Recording { .. } => {}
            Event::Retrying { node, message } => {
                self.line(&format!("retry     {}  ({message})", self.label(*node)))
            }
            Event::Finished { node, result } => {
                if let Some(bar) = self.running.remove(node) {
                    bar.finish_and_clear();
                }
                if let Some(all) = &self.all {
                    all.inc(1);
                }
                self.print_result(*node, result);
            }
            Event::Warning { message } => self.line(&format!("warning   {message}")),
        }
    }

    fn move_bar(&self, node: usize, progress: &Progress) {
        let Some(bar) = self.running.get(&node) else {
            return;
        };
        let detail =
            if progress.detail.is_empty() { String::new() } else { format!("  {}", shown(&progress.detail)) };
        let (label, unit) = (shown(self.label(node)), shown(&progress.unit));
        if progress.all > 0 {
            if bar.length() != Some(progress.all) {
                bar.set_length(progress.all);
                let numbers = if progress.unit == "bytes" {
                    "{bytes} of {total_bytes}  {bytes_per_sec}".to_owned()
                } else {
                    format!("{{pos}} of {{len}} {unit}  {{rate}}")
                };
                bar.set_style(style(&format!(
                    "{{spinner}} {{bar:24}} {{prefix}}  {numbers}  {{eta}} left{{msg}}"
                )));
                bar.set_prefix(label);
            }
            bar.set_message(detail);
        } else {
            bar.set_style(style(&format!("{{spinner}} {{msg}}  {{pos}} {unit}  {{rate}}  {{elapsed}}")));
            bar.set_message(format!("{label}{detail}"));
        }
        bar.set_position(progress.done);
    }

    fn print_result(&self, node: usize, result: &StageResult) {
        let label = self.label(node);
        match result {
            StageResult::Ran { seconds: took, notes, comparison } => {
                let identical =
                    if *comparison == Comparison::Identical { ", the same bytes as before" } else { "" };
                let because = self
                    .because
                    .get(&node)
                    .map_or_else(String::new, |because| format!("  {}", terminal::one_line(because)));
                self.line(&format!("ran       {label}  ({}{identical}){because}", seconds(*took)));
                for note in notes {
                    self.line(&format!("          note: {note}"));
                }
                if let Comparison::Different(outputs) = comparison {
                    self.line(&format!(
                        "warning   `{label}` made other bytes than before under the same key"
                    ));
                    for output in outputs {
                        self.line(&format!("          {output}"));
                    }
                }
            }
            StageResult::EarlyCutoff => {
                self.line(&format!("unchanged {label}  (its inputs are the same as before)"))
            }
            StageResult::Shared => {
                self.line(&format!("shared    {label}  (made by an equal stage or another run)"))
            }
            StageResult::Failed { failure, log } => {
                self.line(&format!(
                    "FAILED    {label} of {}: {failure}",
                    self.plan.experiment().file().display()
                ));
                if let Some(help) = &failure.help {
                    self.line(&format!("          help: {help}"));
                }
                if !log.is_empty() {
                    self.show_log(node, log);
                }
            }
            StageResult::Skipped { because } => self.line(&format!("skipped   {label}  ({because})")),
            StageResult::Hit | StageResult::NotNeeded => {}
        }
    }

    fn show_log(&self, node: usize, log: &str) {
        let text = std::fs::read(self.cache.join(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            let short: String = line.chars().take(200).collect();
            self.line(&format!("          | {short}"));
        }
        let file = self.plan.experiment().file().display();
        self.line(&format!("          whole log: pipeline log {file} '{}'", self.label(node)));
    }

    fn print_json(&mut self, event: &Event) {
        let value = match event {
            Event::RunStarted { nodes, hits } => {
                json!({ "event": "run-started", "stages": nodes, "hits": hits })
            }
            Event::Started { node } => {
                let because = self.because.get(node);
                json!({ "event": "started", "stage": self.label(*node), "because": because })
            }
            Event::Waiting { node } => json!({ "event": "waiting", "stage": self.label(*node) }),
            Event::Progress { node, progress } => {
                json!({ "event": "progress", "stage": self.label(*node), "progress": progress })
            }
            Event::Recording { node } => json!({ "event": "recording", "stage": self.label(*node) }),
            Event::Retrying { node, message } => {
                json!({ "event": "retrying", "stage": self.label(*node), "message": message })
            }
            Event::Finished { node, result } => {
                let mut value = json!({ "event": "finished", "stage": self.label(*node) });
                let fields = value.as_object_mut().expect("written as an object");
                let (how, more) = describe(result);
                fields.insert("result".to_owned(), how.into());
                if let (StageResult::Ran { .. }, Some(because)) = (result, self.because.get(node)) {
                    fields.insert("because".to_owned(), because.as_str().into());
                }
                fields.extend(more);
                value
            }
            Event::Warning { message } => json!({ "event": "warning", "message": message }),
        };
        self.write_json(&value);
    }

    /// Takes the bars off the screen.
    pub(crate) fn close(&mut self) {
        for (_, bar) in std::mem::take(&mut self.running) {
            bar.finish_and_clear();
        }
        if let Some(all) = self.all.take() {
            all.finish_and_clear();
        }
    }

    /// Sums the run up, and says whether all events could be written.
    pub(crate) fn finish(&mut self, report: &RunReport) -> io::Result<()> {
        self.close();
        let count = |is: fn(&StageResult) -> bool| report.results.iter().filter(|result| is(result)).count();
        let ran = report.ran();
        let hits = count(|result| {
            matches!(result, StageResult::Hit | StageResult::EarlyCutoff | StageResult::Shared)
        });
        let failed = report.failed().count();
        let skipped = count(|result| matches!(result, StageResult::Skipped { .. }));
        let unneeded = count(|result| matches!(result, StageResult::NotNeeded));
        if self.mode == Mode::Json {
            let value = json!({
                "event": "run-finished", "ran": ran, "reused": hits, "failed": failed, "skipped": skipped,
                "not_needed": unneeded, "interrupted": report.was_interrupted,
                "seconds": self.began.elapsed().as_secs_f64(),
            });
            self.write_json(&value);
            return std::mem::replace(&mut self.unwritten, Ok(()));
        }
        let mut parts = vec![format!("{ran} ran"), format!("{hits} reused")];
        for (number, word) in [(failed, "failed"), (skipped, "skipped"), (unneeded, "not needed")] {
            if number > 0 {
                parts.push(format!("{number} {word}"));
            }
        }
        if report.was_interrupted {
            parts.push("interrupted".to_owned());
        }
        self.line(&format!(
            "{} stages: {}  ({})",
            report.results.len(),
            parts.join(", "),
            seconds(self.began.elapsed().as_secs_f64())
        ));
        Ok(())
    }
}

fn describe(result: &StageResult) -> (&'static str, serde_json::Map<String, serde_json::Value>) {
    let (how, more) = match result {
        StageResult::Hit => ("hit", json!({})),
        StageResult::EarlyCutoff => ("unchanged", json!({})),
        StageResult::Shared => ("shared", json!({})),
        StageResult::Ran { seconds, notes, comparison } => {
            let mut more = json!({ "seconds": seconds, "notes": notes });
            let compared = match comparison {
                Comparison::None => None,
                Comparison::Identical => Some(json!({ "identical": true })),
                Comparison::Different(outputs) => Some(json!({ "identical": false, "outputs": outputs })),
            };
            if let (Some(fields), Some(compared)) = (more.as_object_mut(), compared) {
                fields.insert("compared".to_owned(), compared);
            }
            ("ran", more)
        }
        StageResult::Failed { failure: StageFailure { reason, message, help }, log } => {
            ("failed", json!({ "reason": reason.word(), "message": message, "help": help, "log": log }))
        }
        StageResult::Skipped { because } => ("skipped", json!({ "because": because })),
        StageResult::NotNeeded => ("not-needed", json!({})),
    };
    match more {
        serde_json::Value::Object(fields) => (how, fields),
        _ => unreachable!("written as objects"),
    }
}

/// Returns a text as a bar shows it.
fn shown(text: &str) -> String {
    terminal::one_line(text).into_owned()
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A line that cannot be drawn is drawn the next time.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    })
}
