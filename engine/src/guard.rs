//! Ends what a killed run leaves running.
//!
//! The system kills a program when the run that started it dies, but not the program's own
//! children, and nobody is left to end those. So a process beside the run is told of every
//! group of processes that begins and ends, and when its pipe closes with groups still going,
//! the run is dead and it kills them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};

use crate::process::kill_group;

/// The near end of a guard, started when there is something to guard.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    command: Vec<OsString>,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Prepares the guard that a command line starts.
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, pipe: None }
    }

    /// Tells of a group that begins.
    pub fn begun(&mut self, group: i32) {
        if self.pipe.is_none()
            && let Some((program, arguments)) = self.command.split_first()
        {
            let mut command = Command::new(program);
            // In a group of its own, so that Ctrl-C does not end it before its time.
            command.args(arguments).process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            // A run without a guard is still a run.
            self.pipe = command.spawn().ok().and_then(|mut child| child.stdin.take());
        }
        self.tell('+', group);
    }

    /// Tells of a group that has ended.
    pub fn ended(&mut self, group: i32) {
        self.tell('-', group);
    }

    fn tell(&mut self, sign: char, group: i32) {
        if let Some(pipe) = &mut self.pipe {
            // Whoever killed the guard has taken what comes of it upon himself.
            let _ = writeln!(pipe, "{sign}{group}");
        }
    }
}

/// Is a guard: hears of groups on standard input, and kills those that are left when it closes.
pub fn guard() {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            Some(("+", group)) => groups.extend(group.parse::<i32>()),
            Some((_, group)) => groups.retain(|known| group.parse() != Ok(*known)),
            None => {}
        }
    }
    for group in groups {
        kill_group(group);
    }
}
