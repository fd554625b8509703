//! What a process uses, for the benches.

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a process and everything that it waited for has used, in seconds and bytes.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of all cores.
    pub cpu: f64,
    /// The most memory of any one process.
    pub peak_bytes: f64,
}

/// Runs a command that must succeed.
// `wait4` below waits for the child, and tells what it has used.
#[expect(unsafe_code, clippy::zombie_processes, reason = "`wait4` waits for the child and says what it used")]
pub(crate) fn measure(mut command: Command) -> Usage {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().expect("the program starts");
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: both pointers are to live locals. The child is ours and nobody else waits for it,
    // so the call returns its number, and then it has filled `usage`.
    let usage = unsafe {
        let ended = libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr());
        assert_eq!(ended, child.id() as libc::pid_t, "waiting for {command:?}");
        usage.assume_init()
    };
    let wall = began.elapsed().as_secs_f64();
    assert_eq!(status, 0, "{command:?} failed");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Linux counts in kilobytes, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    Usage {
        wall,
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_bytes: usage.ru_maxrss as f64 * unit,
    }
}
