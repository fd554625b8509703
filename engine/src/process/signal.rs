//! The usual names of signals.

use rustix::process::Signal;

const NAMES: &[(Signal, &str)] = &[
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::TRAP, "SIGTRAP"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::BUS, "SIGBUS"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::TERM, "SIGTERM"),
    (Signal::XCPU, "SIGXCPU"),
    (Signal::XFSZ, "SIGXFSZ"),
    (Signal::SYS, "SIGSYS"),
];

/// Returns a signal's number with its name, and what it usually means to whoever runs a program.
pub(crate) fn described(number: i32) -> String {
    let name = NAMES.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name);
    let meaning = match name {
        Some("SIGKILL") => ", as when memory runs out",
        Some("SIGABRT") => ", as when it gives up, also for want of memory",
        Some("SIGXCPU" | "SIGXFSZ") => ", as when a limit of `ulimit` is reached",
        _ => "",
    };
    match name {
        Some(name) => format!("signal {number} ({name}){meaning}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_usual_names() {
        assert_eq!(described(9), "signal 9 (SIGKILL), as when memory runs out");
        assert_eq!(described(13), "signal 13 (SIGPIPE)");
        assert_eq!(described(6), "signal 6 (SIGABRT), as when it gives up, also for want of memory");
        assert_eq!(described(40), "signal 40");
    }
}
