//! How a run is stopped, and the programs that run now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::process::supervisor::{Control, end_orphans, inherit_orphans};

/// Held for writing while a process is started, and for reading while an executable file is written.
static STARTS: RwLock<()> = RwLock::new(());

/// Does work while no process is started. A process that is just being started has copies of all that
/// is open, and a file that anybody has open for writing cannot be executed ("text file busy"): so
/// executable files are written in here.
pub fn while_nothing_starts<T>(work: impl FnOnce() -> T) -> T {
    // Nothing is protected that a panic could have left half done.
    let _held = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Cancels a run. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    level: AtomicU8,
    programs: Mutex<Programs>,
}

/// The programs that run now.
#[derive(Debug, Default)]
struct Programs {
    /// By the process number of the supervisor.
    controls: BTreeMap<i32, Control>,
    /// Supervisors that have not been waited for.
    supervisors: BTreeSet<i32>,
    /// Whether what killed supervisors leave becomes ours.
    inherits: bool,
}

impl Cancel {
    /// Makes one that is not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one for a process whose only children are the programs of its stages: what such a
    /// program has started is then ended even if its supervisor is killed.
    pub fn for_a_process_of_its_own() -> Self {
        let cancel = Self::default();
        cancel.programs().inherits = inherit_orphans();
        cancel
    }

    /// Called once: starts nothing new. Called twice: stops now, and kills what runs.
    pub fn ask(&self) {
        let before = self.0.level.fetch_add(1, Ordering::SeqCst);
        if before >= 1 {
            self.programs().controls.clear();
        }
    }

    /// Returns whether nothing new should begin.
    pub fn is_asked(&self) -> bool {
        self.0.level.load(Ordering::SeqCst) >= 1
    }

    /// Returns whether everything should stop.
    pub fn is_now(&self) -> bool {
        self.0.level.load(Ordering::SeqCst) >= 2
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.0.programs.lock().expect("no panic while held")
    }

    /// Starts a program below a supervisor.
    pub(crate) fn start(&self, command: &mut Command, control: Control) -> io::Result<Child> {
        // Held meanwhile, so that no child is taken for an orphan before it is known.
        let mut programs = self.programs();
        // When this returns, the copies are closed: the error pipe of the start is one of them.
        let child = {
            let _held = STARTS.write().unwrap_or_else(PoisonError::into_inner);
            command.spawn()?
        };
        let supervisor = child.id() as i32;
        programs.supervisors.insert(supervisor);
        // The run may have been cancelled meanwhile; then the control is dropped at once.
        if !self.is_now() {
            programs.controls.insert(supervisor, control);
        }
        Ok(child)
    }

    /// Kills a program and all that it started.
    pub(crate) fn kill(&self, supervisor: i32) {
        self.programs().controls.remove(&supervisor);
    }

    /// Forgets a program that has ended, and ends what a killed supervisor left.
    pub(crate) fn ended(&self, supervisor: i32, was_killed: bool) {
        let mut programs = self.programs();
        programs.controls.remove(&supervisor);
        programs.supervisors.remove(&supervisor);
        if was_killed && programs.inherits {
            end_orphans(&|child| programs.supervisors.contains(&child));
        }
    }
}
