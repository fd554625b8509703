//! Ends what a killed run leaves running.
//!
//! The system kills a program when the run that started it dies, but not the program's own
//! children, and nobody is left to end those. So a process beside the run is told of every
//! group of processes that begins and ends, and when its pipe closes with groups still going,
//! the run is dead and it kills them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::{Pid, test_kill_process_group};

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

    /// Has a program tell of itself before it begins, so that there is no moment in which the
    /// run could die with a group that the guard has not heard of.
    #[allow(unsafe_code)]
    pub fn hear_of(&mut self, command: &mut Command) {
        self.start();
        // A run without a guard is still a run.
        let Some(pipe) = self.pipe.as_ref().and_then(|pipe| pipe.as_fd().try_clone_to_owned().ok()) else {
            return;
        };
        let tell = move || {
            let mut line = [b'+', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'\n'];
            let mut rest = rustix::process::getpid().as_raw_nonzero().get();
            for digit in line[1..11].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            // Whoever killed the guard has taken what comes of it upon himself.
            let _ = rustix::io::write(&pipe, &line);
            Ok(())
        };
        // SAFETY: between fork and exec only two system calls are made, both async-signal-safe,
        // and nothing is allocated.
        unsafe {
            command.pre_exec(tell);
        }
    }

    fn start(&mut self) {
        let (None, Some((program, arguments))) = (&self.pipe, self.command.split_first()) else {
            return;
        };
        let mut command = Command::new(program);
        // In a group of its own, so that Ctrl-C does not end it before its time.
        command.args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.pipe = command.spawn().ok().and_then(|mut child| child.stdin.take());
    }

    /// Tells that a group has ended.
    pub fn ended(&mut self, group: i32) {
        self.tell(&format!("-{group}"));
    }

    /// Tells that a program could not be started, and so is gone already.
    pub fn not_begun(&mut self) {
        self.tell("?");
    }

    fn tell(&mut self, line: &str) {
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "{line}");
        }
    }
}

/// Is a guard: hears of groups on standard input, and kills those that are left when it closes.
pub fn guard() {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            Some(("+", group)) => groups.extend(group.parse::<i32>()),
            Some(("-", group)) => groups.retain(|known| group.parse() != Ok(*known)),
            _ => groups.retain(|known| is_there(*known)),
        }
    }
    for group in groups {
        kill_group(group);
    }
}

fn is_there(group: i32) -> bool {
    Pid::from_raw(group).is_some_and(|group| test_kill_process_group(group).is_ok())
}
