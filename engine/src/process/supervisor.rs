//! A supervisor over each program: a small process that ends all that the program started.
//!
//! The system kills a program's children neither when the program ends nor when the run dies, and
//! a child that begins a session of its own is in no group that could be killed. So between the run
//! and each program stands a supervisor, forked from the run:
//!
//! - It begins a session, so that neither it nor the program has a terminal.
//! - It is a *child subreaper*: descendants whose parent ends become its children, wherever they
//!   went, so it can find and kill them all.
//! - When the program ends, it kills what is left and then ends as the program did.
//! - When its control pipe closes (the run asks for the end, or the run is dead), it kills
//!   everything, the program included.
//!
//! If the supervisor itself is killed, the system kills the program, and the run, which is a
//! subreaper as well, kills what it inherits. Only when run and supervisor are killed together can
//! something be left.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;

/// The near end of a supervisor's control pipe: dropped, all that the program started is killed.
#[derive(Debug)]
pub(crate) struct Control {
    _pipe: OwnedFd,
}

/// Has a command start below a supervisor, confined by a Landlock ruleset if there is one.
///
/// # Errors
/// What the system says if there can be no pipe.
pub(crate) fn supervise(command: &mut Command, ruleset: Option<OwnedFd>) -> io::Result<Control> {
    platform::supervise(command, ruleset)
}

/// Makes this process inherit the descendants of supervisors that are killed.
/// Returns whether the system can do that.
pub(crate) fn inherit_orphans() -> bool {
    platform::inherit_orphans()
}

/// Kills the children of this process that are not among `known`, and what they leave in turn.
pub(crate) fn end_orphans(known: &dyn Fn(i32) -> bool) {
    platform::end_orphans(known);
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "system calls between fork and exec have no safe interface")]
mod platform {
    use std::collections::BTreeMap;
    use std::ffi::{CString, OsString};
    use std::fs;
    use std::io;
    use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::time::Duration;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::Control;

    /// How often the children are killed again while some are left. With a millisecond between,
    /// this is seconds: more than any process needs to die that can.
    const MOST_ROUNDS: usize = 5000;

    /// The stack of a process until it is the program, without its list of arguments.
    const STACK_BYTES: usize = 64 << 10;

    /// Marks open files to be closed when the program begins, instead of closing them: Linux 5.11.
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

    pub(super) fn supervise(command: &mut Command, ruleset: Option<OwnedFd>) -> io::Result<Control> {
        let (control, pipe) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut image = Image::of(command)?;
        let begin = move || begin(&mut image, control.as_raw_fd(), ruleset.as_ref().map(OwnedFd::as_raw_fd));
        // SAFETY: between fork and exec, and in the supervisor for all of its life, only system calls
        // are made; nothing is allocated and no lock is taken that another thread could have held.
        unsafe {
            command.pre_exec(begin);
        }
        Ok(Control { _pipe: pipe })
    }

    /// What a process needs to become a program: all that must be allocated is, before the fork.
    struct Image {
        /// The program and its arguments, and its environment, each with a null at the end.
        arguments: Vec<*const libc::c_char>,
        environment: Vec<*const libc::c_char>,
        /// What these point to.
        _texts: Vec<CString>,
        /// The process stands on this until it is the program.
        stack: Vec<u8>,
    }

    // SAFETY: the pointers are to the heap memory of texts that the image owns and never changes.
    unsafe impl Send for Image {}
    // SAFETY: as above.
    unsafe impl Sync for Image {}

    impl Image {
        fn of(command: &Command) -> io::Result<Self> {
            let arguments = std::iter::once(command.get_program()).chain(command.get_args());
            let arguments = arguments.map(|text| CString::new(text.as_bytes()));
            let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => variables.insert(name.to_owned(), value.to_owned()),
                    None => variables.remove(name),
                };
            }
            let environment = variables
                .iter()
                .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
            let mut texts = arguments.collect::<Result<Vec<_>, _>>()?;
            let count = texts.len();
            texts.extend(environment.collect::<Result<Vec<_>, _>>()?);
            let pointers = |texts: &[CString]| {
                let pointers = texts.iter().map(|text| text.as_ptr());
                pointers.chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
            };
            // The search along PATH may copy the list of arguments to the stack.
            let stack = vec![0; STACK_BYTES + 16 * count];
            Ok(Self {
                arguments: pointers(&texts[..count]),
                environment: pointers(&texts[count..]),
                _texts: texts,
                stack,
            })
        }
    }

    pub(super) fn inherit_orphans() -> bool {
        // SAFETY: changes a flag of this process.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 }
    }

    pub(super) fn end_orphans(known: &dyn Fn(i32) -> bool) {
        for _ in 0..MOST_ROUNDS {
            let orphans: Vec<i32> = children().into_iter().filter(|child| !known(*child)).collect();
            if orphans.is_empty() {
                return;
            }
            for orphan in orphans {
                // SAFETY: a child that was not waited for keeps its number.
                unsafe {
                    libc::kill(orphan, libc::SIGKILL);
                    libc::waitpid(orphan, std::ptr::null_mut(), libc::WNOHANG);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lists the children of all threads of this process.
    fn children() -> Vec<i32> {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let mut children = Vec::new();
        for list in lists {
            children.extend(list.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        children
    }

    /// What a supervisor passes to the process of a program, which shares its memory until it is the
    /// program.
    struct Beginning<'a> {
        image: &'a Image,
        ruleset: Option<RawFd>,
        supervisor: libc::pid_t,
        /// Why it could not become the program.
        error: libc::c_int,
    }

    /// Turns the process that was forked for a program into its supervisor, and starts the program.
    /// Returns only if that fails.
    fn begin(image: &mut Image, control: RawFd, ruleset: Option<RawFd>) -> io::Result<()> {
        // The stack grows downwards from an aligned end.
        let end = image.stack.as_mut_ptr_range().end;
        // SAFETY: system calls alone, on values of this frame. The new process runs on a stack of its
        // own in the memory of this one, which waits until it has become the program or has ended.
        unsafe {
            let stack = end.sub(end as usize % 16).cast();
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            let mut beginning = Beginning { image, ruleset, supervisor: libc::getpid(), error: 0 };
            // No second copy of the run's memory, which would cost more than all else here.
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let child = libc::clone(become_program, stack, flags, (&raw mut beginning).cast());
            if child < 0 {
                return Err(io::Error::last_os_error());
            }
            let error = (&raw const beginning.error).read_volatile();
            if error != 0 {
                libc::waitpid(child, std::ptr::null_mut(), 0);
                return Err(io::Error::from_raw_os_error(error));
            }
            oversee(child, control)
        }
    }

    /// Becomes a program, in a process that was just made.
    extern "C" fn become_program(beginning: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the supervisor waits with what this points to. System calls alone, and the search
        // of the program along PATH, which allocates nothing but on the stack.
        unsafe {
            let beginning = &mut *beginning.cast::<Beginning<'_>>();
            // So that it can be killed with its group where children cannot be listed.
            libc::setpgid(0, 0);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
            if libc::getppid() != beginning.supervisor {
                libc::_exit(1);
            }
            if beginning.ruleset.is_none_or(confine) {
                // What whoever started the run has open besides is no business of a stage.
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
                let Image { arguments, environment, .. } = beginning.image;
                libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr());
            }
            beginning.error = *libc::__errno_location();
            libc::_exit(127)
        }
    }

    /// Confines this process by a ruleset, for good. Returns whether that was done.
    fn confine(ruleset: RawFd) -> bool {
        // SAFETY: system calls alone.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) == 0
        }
    }

    /// Waits for the end of a program or of the run, kills what is left, and ends as the program.
    unsafe fn oversee(program: libc::pid_t, control: RawFd) -> ! {
        // SAFETY: system calls alone, on values of this frame.
        unsafe {
            // A signal to all processes of a job must not part the supervisor from what it oversees.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_IGN);
            }
            // Nothing may be held open that others wait for: pipes, locks, the program's log.
            libc::dup2(control, 0);
            libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
            libc::prctl(libc::PR_SET_NAME, c"pipeline-stage".as_ptr());
            let watched = libc::syscall(libc::SYS_pidfd_open, program, 0) as RawFd;
            let mut status = None;
            loop {
                let mut events = [
                    libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 },
                    libc::pollfd { fd: watched, events: libc::POLLIN, revents: 0 },
                ];
                // Orphans that end by themselves are waited for now and then.
                let patience = if watched < 0 { 10 } else { 1000 };
                libc::poll(events.as_mut_ptr(), 2, patience);
                reap(program, &mut status);
                if status.is_some() || events[0].revents != 0 {
                    break;
                }
            }
            for _ in 0..MOST_ROUNDS {
                if !reap(program, &mut status) {
                    break;
                }
                kill_children(program);
                if !reap(program, &mut status) {
                    break;
                }
                libc::poll(std::ptr::null_mut(), 0, 1);
            }
            leave(status)
        }
    }

    /// Takes note of children that have ended. Returns whether any are left.
    unsafe fn reap(program: libc::pid_t, status: &mut Option<libc::c_int>) -> bool {
        loop {
            let mut ended = 0;
            // SAFETY: the pointer is to a value of this frame.
            let child = unsafe { libc::waitpid(-1, &raw mut ended, libc::WNOHANG) };
            match child {
                ..0 => return false,
                0 => return true,
                child if child == program => *status = Some(ended),
                _ => {}
            }
        }
    }

    /// Kills all children, each with the group that it leads.
    unsafe fn kill_children(program: libc::pid_t) {
        // SAFETY: system calls alone; the buffer is of this frame. No signal goes to a process that
        // is not a child: a child that was not waited for keeps its number.
        unsafe {
            let list = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if list < 0 {
                libc::kill(-program, libc::SIGKILL);
                libc::kill(program, libc::SIGKILL);
                return;
            }
            let mut buffer = [0u8; 4096];
            let mut child: libc::pid_t = 0;
            loop {
                let count = libc::read(list, buffer.as_mut_ptr().cast(), buffer.len());
                if count <= 0 {
                    break;
                }
                for byte in &buffer[..count as usize] {
                    match byte {
                        b'0'..=b'9' => child = child * 10 + libc::pid_t::from(byte - b'0'),
                        _ => {
                            kill_child(child);
                            child = 0;
                        }
                    }
                }
            }
            kill_child(child);
            libc::close(list);
        }
    }

    unsafe fn kill_child(child: libc::pid_t) {
        if child > 1 {
            // SAFETY: system calls alone.
            unsafe {
                libc::kill(-child, libc::SIGKILL);
                libc::kill(child, libc::SIGKILL);
            }
        }
    }

    /// Ends as the program ended, so that whoever waits for the supervisor sees the program's end.
    unsafe fn leave(status: Option<libc::c_int>) -> ! {
        // SAFETY: system calls alone.
        unsafe {
            let signal = match status {
                Some(status) if libc::WIFEXITED(status) => libc::_exit(libc::WEXITSTATUS(status)),
                Some(status) if libc::WIFSIGNALED(status) => libc::WTERMSIG(status),
                _ => libc::SIGKILL,
            };
            // One dump of memory, the program's own, is enough.
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            libc::kill(libc::getpid(), signal);
            libc::_exit(128 + signal)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use super::Control;

    pub fn supervise(_: &mut Command, _: Option<OwnedFd>) -> io::Result<Control> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "programs can be supervised on Linux alone"))
    }

    pub fn inherit_orphans() -> bool {
        false
    }

    pub fn end_orphans(_: &dyn Fn(i32) -> bool) {}
}
