//! Programs: started in a group of their own, listened to, confined, and ended.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::guard::Guard;
use crate::sandbox::confine_this_thread;
use crate::signal::described;

/// How much of a log's beginning is kept.
const LOG_HEAD_BYTES: usize = 8 << 20;
/// How much of a flooding log's end is kept.
const LOG_TAIL_BYTES: usize = 1 << 20;

/// How long after a program's end its log is read on.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How the user asks a run to stop. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    level: AtomicU8,
    groups: Mutex<BTreeSet<i32>>,
    guard: Mutex<Guard>,
}

impl Cancel {
    /// Makes one that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one with a guard, started by a command line that calls [`crate::guard`], which ends
    /// what runs when this process is killed.
    pub fn guarded(command: Vec<OsString>) -> Self {
        Self(Arc::new(CancelState { guard: Mutex::new(Guard::new(command)), ..CancelState::default() }))
    }

    /// Asks once: begin nothing new. Asks twice: stop now, and kill what runs.
    pub fn ask(&self) {
        let before = self.0.level.fetch_add(1, Ordering::SeqCst);
        if before >= 1 {
            for group in self.0.groups.lock().expect("no panic while held").iter() {
                kill_group(*group);
            }
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

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.0.guard.lock().expect("no panic while held")
    }

    fn watch(&self, group: i32) {
        self.0.groups.lock().expect("no panic while held").insert(group);
        // It may have been asked for between the start of the program and now.
        if self.is_now() {
            kill_group(group);
        }
    }

    fn unwatch(&self, group: i32) {
        self.guard().ended(group);
        self.0.groups.lock().expect("no panic while held").remove(&group);
    }
}

pub(crate) fn kill_group(group: i32) {
    if let Some(pid) = Pid::from_raw(group) {
        // It may be gone already, which is what was wanted.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

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
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // The confinement cannot be taken back, so a thread is spent on it.
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine_this_thread(&[folder, keep]);
                watch(&mut command, log, None, timeout, cancel)
            });
            confined.join().expect("the watching thread does not panic")
        })
    }
}

/// Starts a program in a group of its own and waits for its end. Its output goes to the log,
/// or its standard output line by line to `lines`.
pub(crate) fn watch(
    command: &mut Command,
    log: File,
    lines: Option<&mut (dyn FnMut(&str) + Send)>,
    timeout: Option<Duration>,
    cancel: &Cancel,
) -> Result<Ended, ProcessError> {
    let failed = |what: &'static str| {
        let program = command.get_program().to_string_lossy().into_owned();
        move |source| ProcessError { message: format!("{what} `{program}`"), source }
    };
    let (start, listen) = (failed("start"), failed("listen to"));
    let (output, their_output) = io::pipe().map_err(listen)?;
    let lines_pipe = match lines {
        Some(lines) => {
            command.stdout(Stdio::piped());
            Some(lines)
        }
        None => {
            command.stdout(their_output.try_clone().map_err(failed("listen to"))?);
            None
        }
    };
    command.stderr(their_output).process_group(0);
    die_with_parent(command);
    cancel.guard().hear_of(command);
    let mut child = command.spawn().map_err(|error| {
        cancel.guard().not_begun();
        start(error)
    })?;
    // Our copy of the writing end would keep the pipe open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(attend(&mut child, output, log, lines_pipe, timeout, cancel))
}

fn attend(
    child: &mut Child,
    output: io::PipeReader,
    log: File,
    lines: Option<&mut (dyn FnMut(&str) + Send)>,
    timeout: Option<Duration>,
    cancel: &Cancel,
) -> Ended {
    let group = child.id() as i32;
    let stdout = child.stdout.take();
    // Held open until the end: a worker takes its closing for our death, and waiting closes it.
    let _stdin = child.stdin.take();
    let timed_out = AtomicBool::new(false);
    cancel.watch(group);
    let (pumping, pumped) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        pump(output, log);
        drop(pumping);
    });
    let status = std::thread::scope(|scope| {
        if let (Some(stdout), Some(lines)) = (stdout, lines) {
            scope.spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    lines(&line);
                }
            });
        }
        let (ended, wait_for_end) = mpsc::channel::<()>();
        if let Some(limit) = timeout {
            let timed_out = &timed_out;
            scope.spawn(move || {
                if wait_for_end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                    timed_out.store(true, Ordering::SeqCst);
                    kill_group(group);
                }
            });
        }
        let status = child.wait();
        drop(ended);
        // What it left running holds the log open, and has no business going on.
        kill_group(group);
        cancel.unwatch(group);
        status
    });
    // What left the group may hold the log open for as long as it likes.
    let _ = pumped.recv_timeout(LOG_PATIENCE);
    match status {
        _ if timed_out.load(Ordering::SeqCst) => Ended::TimedOut(timeout.unwrap_or_default()),
        Ok(status) => ended(status, cancel),
        Err(_) => Ended::Signal(9),
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
fn pump(mut output: impl Read, mut log: File) {
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

/// Has the program killed when the thread that started it dies, so that a killed run leaves
/// nothing running.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let arrange = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only one system call is made, which is async-signal-safe
    // and touches no memory that another thread may hold.
    unsafe {
        command.pre_exec(arrange);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<f64>, cancel: &Cancel) -> (Ended, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let program =
            Program { arguments: vec!["sh".into(), "-c".into(), script.into()], environment: vec![] };
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
        let program = Program { arguments: vec!["no-such-program-here".into()], environment: vec![] };
        let error = program.run(folder.path(), folder.path(), log, None, &Cancel::new()).unwrap_err();
        assert!(error.message.contains("no-such-program-here"));
    }
}
