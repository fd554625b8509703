//! Runs programs: each below a supervisor, confined, its output read, until it has ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::cancel::Cancel;
use crate::process::sandbox::ruleset;
use crate::process::signal::described;
use crate::process::supervisor::supervise;

/// How much of a log's beginning is kept.
const LOG_HEAD_BYTES: usize = 8 << 20;
/// How much of a flooding log's end is kept.
const LOG_TAIL_BYTES: usize = 1 << 20;

/// How long after a program's end its log is read on.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// With exit code 0.
    Well,
    /// With another exit code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It ran longer than allowed, and was killed.
    TimedOut(Duration),
    /// The user stopped the run.
    Interrupted,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("exited with code 0"),
            Self::Exit(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "was killed by {}", described(*number)),
            Self::TimedOut(limit) => write!(f, "ran longer than its timeout of {} s", limit.as_secs_f64()),
            Self::Interrupted => f.write_str("was interrupted"),
        }
    }
}

/// A program that could not be run at all.
#[derive(Debug)]
pub(crate) struct ProcessError {
    pub message: String,
    pub source: io::Error,
}

/// A foreign program and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    /// What to start, and its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to the environment.
    pub environment: Vec<(String, OsString)>,
    /// Variables taken out of the environment.
    pub without: Vec<&'static str>,
    /// Whether it confines what it runs itself, as a container does, and must be let do so.
    pub is_contained: bool,
}

impl Program {
    pub(crate) fn run(
        &self,
        folder: &Path,
        keep: &Path,
        log: File,
        timeout: Option<Duration>,
        cancel: &Cancel,
    ) -> Result<Ended, ProcessError> {
        let Some((program, arguments)) = self.arguments.split_first() else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(ProcessError { message: "start a program without a name".to_owned(), source });
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        for name in &self.without {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let own: &[&Path] = &[folder, keep];
        let confined_to = (!self.is_contained).then_some(own);
        let options = ProcessOptions { log, lines: None, timeout, confined_to };
        options.run(&mut command, cancel)
    }
}

/// How a process is run.
pub(crate) struct ProcessOptions<'a> {
    /// Where its output goes.
    pub log: File,
    /// Who takes its standard output line by line, instead of the log.
    pub lines: Option<&'a mut (dyn FnMut(&str) + Send)>,
    /// After what time it is killed.
    pub timeout: Option<Duration>,
    /// The folders that it may write to; `None` for all.
    pub confined_to: Option<&'a [&'a Path]>,
}

impl ProcessOptions<'_> {
    /// Starts a program and waits until it and all that it started have ended.
    ///
    /// # Errors
    /// What could not be had to start it: the program, a pipe, a thread.
    pub(crate) fn run(self, command: &mut Command, cancel: &Cancel) -> Result<Ended, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |what: &str| {
            let message = format!("{what} `{program}`");
            move |source| ProcessError { message, source }
        };
        let Self { log, lines, timeout, confined_to } = self;
        let (output, their_output) = io::pipe().map_err(failed("listen to"))?;
        let mut stdout = None;
        match &lines {
            Some(_) => {
                let (ours, theirs) = io::pipe().map_err(failed("listen to"))?;
                stdout = Some(ours);
                command.stdout(theirs);
            }
            None => {
                command.stdout(their_output.try_clone().map_err(failed("listen to"))?);
            }
        }
        command.stderr(their_output);
        let control = supervise(command, confined_to.and_then(ruleset)).map_err(failed("supervise"))?;
        // Whoever listens is there before the program is: a thread that cannot be made must not
        // leave a program running that nobody listens to.
        let (pumping, pumped) = mpsc::channel::<()>();
        let pump = move || {
            copy_to_log(output, log);
            drop(pumping);
        };
        let end = thread::scope(|scope| {
            thread::Builder::new().spawn(pump).map_err(failed("make a thread to listen to"))?;
            if let (Some(stdout), Some(lines)) = (stdout, lines) {
                let read = move || {
                    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                        lines(&line);
                    }
                };
                let made = thread::Builder::new().spawn_scoped(scope, read);
                if let Err(error) = made {
                    // Our copies of the writing ends would keep the other listener waiting.
                    command.stdout(Stdio::null()).stderr(Stdio::null());
                    return Err(failed("make a thread to listen to")(error));
                }
            }
            let started = cancel.start(command, control);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = started.map_err(failed("start"))?;
            Ok(wait(&mut child, timeout, cancel))
        })?;
        // What could not be killed may hold the log open for as long as it likes.
        let _ = pumped.recv_timeout(LOG_PATIENCE);
        Ok(end)
    }
}

/// Waits for a supervised program.
fn wait(child: &mut Child, timeout: Option<Duration>, cancel: &Cancel) -> Ended {
    let supervisor = child.id() as i32;
    // Held open until the end: a worker takes its closing for our death, and waiting closes it.
    let _stdin = child.stdin.take();
    let mut has_timed_out = false;
    if let Some(limit) = timeout
        && !ends_within(child, limit)
    {
        has_timed_out = true;
        cancel.kill(supervisor);
    }
    let status = child.wait();
    let was_killed = status.as_ref().map_or(true, |status| status.signal().is_some());
    cancel.ended(supervisor, was_killed);
    match status {
        _ if has_timed_out => Ended::TimedOut(timeout.unwrap_or_default()),
        Ok(status) => ended(status, cancel),
        Err(_) => Ended::Signal(9),
    }
}

/// Returns whether a child ends within a time.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now().checked_add(limit);
    let handle = Pid::from_raw(child.id() as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        // A deadline beyond all time is none.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return false;
        }
        let patience = left.unwrap_or(Duration::from_secs(3600)).min(Duration::from_secs(3600));
        match &handle {
            Some(handle) => {
                let time =
                    Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
                let _ = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&time));
            }
            None => thread::sleep(patience.min(Duration::from_millis(10))),
        }
    }
}

fn ended(status: ExitStatus, cancel: &Cancel) -> Ended {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Well,
        (_, _) if cancel.is_now() => Ended::Interrupted,
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(9)),
    }
}

/// Copies output to the log: all of its beginning, and the end of what floods it.
fn copy_to_log(mut output: impl Read, mut log: File) {
    let mut buffer = vec![0; 16 << 10];
    let mut room = LOG_HEAD_BYTES;
    let mut tail: VecDeque<u8> = VecDeque::new();
    let mut left_out = 0usize;
    // Reading goes on even if the log cannot be written, or the program would block.
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let (head, rest) = buffer[..count].split_at(count.min(room));
        room -= head.len();
        let _ = log.write_all(head);
        tail.extend(rest);
        let over = tail.len().saturating_sub(LOG_TAIL_BYTES);
        left_out += over;
        tail.drain(..over);
    }
    if left_out > 0 {
        let _ = writeln!(log, "\n[… {left_out} bytes left out here …]");
    }
    let (first, second) = tail.as_slices();
    let _ = log.write_all(first).and_then(|()| log.write_all(second));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<f64>, cancel: &Cancel) -> (Ended, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let program = Program {
            arguments: vec!["sh".into(), "-c".into(), script.into()],
            environment: vec![],
            without: vec![],
            is_contained: false,
        };
        let log = File::create(&path).unwrap();
        let timeout = timeout.map(Duration::from_secs_f64);
        let ended = program.run(folder.path(), folder.path(), log, timeout, cancel).unwrap();
        (ended, String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
    }

    #[test]
    fn output_goes_to_the_log_and_the_end_is_told() {
        let cancel = Cancel::new();
        assert_eq!(shell("echo a; echo b >&2", None, &cancel), (Ended::Well, "a\nb\n".to_owned()));
        assert_eq!(shell("exit 3", None, &cancel).0, Ended::Exit(3));
        assert_eq!(shell("kill -TERM $$", None, &cancel).0, Ended::Signal(15));
        assert_eq!(shell("sleep 30", Some(0.1), &cancel).0, Ended::TimedOut(Duration::from_millis(100)));
    }

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end() {
        let script = "echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last";
        let (ended, log) = shell(script, None, &Cancel::new());
        assert_eq!(ended, Ended::Well);
        assert!(log.len() < LOG_HEAD_BYTES + LOG_TAIL_BYTES + 100);
        assert!(log.starts_with("first\n") && log.ends_with("last\n") && log.contains("bytes left out"));
    }

    #[test]
    fn what_a_program_leaves_running_is_ended() {
        let began = std::time::Instant::now();
        assert_eq!(shell("sleep 30 & echo started", None, &Cancel::new()).0, Ended::Well);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn asking_twice_kills_what_runs() {
        let cancel = Cancel::new();
        let asking = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            asking.ask();
            asking.ask();
        });
        assert_eq!(shell("sleep 30", None, &cancel).0, Ended::Interrupted);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let program = Program {
            arguments: vec!["no-such-program-here".into()],
            environment: vec![],
            without: vec![],
            is_contained: false,
        };
        let error = program.run(folder.path(), folder.path(), log, None, &Cancel::new()).unwrap_err();
        assert!(error.message.contains("no-such-program-here"));
    }
}
