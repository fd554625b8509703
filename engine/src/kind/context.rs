//! What a running stage works with: its inputs, its outputs, its log and its progress.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::kind::failure::StageFailure;
use crate::process::cancel::Cancel;
use crate::process::job::{Job, JobInput, Progress};
use crate::process::program::{Ended, ProcessError, Program};

/// One input as a running stage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its label where several were gathered.
    pub label: Option<String>,
    /// The folder with its files. Read-only.
    pub folder: PathBuf,
    /// The digest of its content: the same for the same files, wherever they come from.
    pub digest: String,
}

/// What a running stage works with: its inputs, its outputs, its log and its progress.
pub struct Context {
    job: Job,
    inputs: BTreeMap<String, Vec<Input>>,
    log: fs::File,
    notes: Vec<String>,
    on_progress: Box<dyn FnMut(Progress) + Send>,
    cancel: Cancel,
}

impl Context {
    pub(crate) fn new(
        job: Job,
        log: fs::File,
        on_progress: Box<dyn FnMut(Progress) + Send>,
        cancel: Cancel,
    ) -> Self {
        let mut inputs: BTreeMap<String, Vec<Input>> = BTreeMap::new();
        for JobInput { port, label, folder, digest } in &job.inputs {
            let folder = job.scratch.join(folder);
            let input = Input { label: label.clone(), folder, digest: digest.clone() };
            inputs.entry(port.clone()).or_default().push(input);
        }
        Self { job, inputs, log, notes: Vec::new(), on_progress, cancel }
    }

    /// Returns the folder of an input that must be there.
    ///
    /// # Errors
    /// [`StageFailure`] if the port has none or several; planning rules that out.
    pub fn input(&self, port: &str) -> Result<&Path, StageFailure> {
        match self.inputs(port) {
            [only] => Ok(&only.folder),
            inputs => Err(StageFailure::new(format!(
                "port `{port}` has {} inputs, and one is needed",
                inputs.len()
            ))),
        }
    }

    /// Returns the folder of an input that may have been left out.
    pub fn optional_input(&self, port: &str) -> Option<&Path> {
        self.inputs(port).first().map(|input| input.folder.as_path())
    }

    /// Returns all inputs of a port, in order.
    pub fn inputs(&self, port: &str) -> &[Input] {
        self.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// Returns an output's folder, made and empty.
    ///
    /// # Errors
    /// [`StageFailure`] if the ports name no such output, or the folder cannot be made.
    pub fn output(&self, name: &str) -> Result<PathBuf, StageFailure> {
        if !self.job.outputs.iter().any(|output| output == name) {
            return Err(StageFailure::new(format!("the stage has no output `{name}`")));
        }
        let folder = self.job.scratch.join("outputs").join(name);
        fs::create_dir_all(&folder).map_err(StageFailure::writing(&folder))?;
        Ok(folder)
    }

    /// Returns the folder that is the stage's alone; it is gone afterwards.
    pub fn scratch(&self) -> &Path {
        &self.job.scratch
    }

    /// Returns the folder whose content outlives a kill of this stage, for checkpoints.
    ///
    /// # Errors
    /// [`StageFailure`] if it cannot be made.
    pub fn keep(&self) -> Result<PathBuf, StageFailure> {
        fs::create_dir_all(&self.job.keep).map_err(StageFailure::writing(&self.job.keep))?;
        Ok(self.job.keep.clone())
    }

    /// Returns the experiment's seed, for kinds that said that they use one.
    ///
    /// # Errors
    /// [`StageFailure`] if the kind is not `SEEDED`: then the seed is not in its key.
    pub fn seed(&self) -> Result<u64, StageFailure> {
        self.job
            .seed
            .ok_or_else(|| StageFailure::new("this stage kind did not declare that it uses the seed"))
    }

    /// Returns how many threads the stage may keep busy.
    pub fn cores(&self) -> u32 {
        self.job.cores
    }

    /// Returns the name of the device to use.
    pub fn device(&self) -> &str {
        &self.job.device.0
    }

    /// Writes a line to the stage's log.
    pub fn log(&mut self, line: impl fmt::Display) {
        // A log that cannot be written must not fail the work it describes.
        let _ = writeln!(self.log, "{line}");
    }

    /// Says something about the data that the user must see with every use of the result:
    /// skipped rows, counted.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.log(&note);
        self.notes.push(note);
    }

    /// Reports how far the work is.
    pub fn progress(&mut self, done: u64, all: u64, unit: &str) {
        (self.on_progress)(Progress { done, all, unit: unit.to_owned(), detail: String::new() });
    }

    /// Reports how far the work is, and a detail such as the loss.
    pub fn progress_with(&mut self, done: u64, all: u64, unit: &str, detail: String) {
        (self.on_progress)(Progress { done, all, unit: unit.to_owned(), detail });
    }

    /// Returns whether the run must stop now.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_now()
    }

    /// Runs a program in the scratch folder, its output in the log, confined to that folder.
    ///
    /// # Errors
    /// [`StageFailure`] if it cannot be started, exits with something other than 0, is killed, or
    /// runs out of time.
    pub fn run_program(&mut self, program: &Program) -> Result<(), StageFailure> {
        let log = self.log.try_clone().map_err(|error| StageFailure::caused("open the log", error))?;
        match program.run(&self.job.scratch, &self.job.keep, log, self.job.timeout(), &self.cancel) {
            Ok(Ended::Well) => Ok(()),
            Ok(ended) => Err(StageFailure::ended(&ended)),
            Err(ProcessError { message, source }) => Err(StageFailure::caused(message, source)),
        }
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes
    }
}
