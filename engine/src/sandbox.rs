//! Confines foreign programs to their scratch folder, where the system can.

use std::path::Path;

/// Whether a program's writes were confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Writes outside the scratch folder fail.
    Enforced,
    /// The system cannot confine programs; they get copies of their inputs instead of links.
    Unavailable,
}

impl Sandbox {
    /// Returns what this system can do.
    pub fn available() -> Self {
        use std::sync::OnceLock;
        static FOUND: OnceLock<Sandbox> = OnceLock::new();
        // Tried on a thread of its own, for the confinement cannot be taken back.
        *FOUND.get_or_init(|| {
            std::thread::spawn(|| confine_this_thread(&[])).join().unwrap_or(Self::Unavailable)
        })
    }
}

/// Lets this thread, and what it starts, write only below `folders` and to devices.
/// The confinement lasts as long as the thread.
#[cfg(target_os = "linux")]
pub(crate) fn confine_this_thread(folders: &[&Path]) -> Sandbox {
    use landlock::{
        ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
        RulesetStatus,
    };

    fn restrict(folders: &[&Path]) -> Result<RulesetStatus, RulesetError> {
        let all = AccessFs::from_write(ABI::V5);
        let mut rules = Ruleset::default().handle_access(all)?.create()?;
        let device_files = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let devices: [(&Path, BitFlags<AccessFs>); 2] =
            [(Path::new("/dev"), device_files), (Path::new("/dev/shm"), all)];
        let own = folders.iter().map(|folder| (*folder, all));
        for (path, access) in own.chain(devices) {
            // A folder that is not there needs no permission.
            if let Ok(opened) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(opened, access))?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    }

    match restrict(folders) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Sandbox::Enforced,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Sandbox::Unavailable,
    }
}

/// Lets this thread, and what it starts, write only below `folders` and to devices.
#[cfg(not(target_os = "linux"))]
pub(crate) fn confine_this_thread(_: &[&Path]) -> Sandbox {
    Sandbox::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_thread_writes_inside_and_not_outside() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let outside = folder.path().join("outside.txt");
        std::thread::scope(|scope| {
            scope.spawn(|| match confine_this_thread(&[&inside]) {
                Sandbox::Enforced => {
                    std::fs::write(inside.join("a"), "x").unwrap();
                    assert!(std::fs::write(&outside, "x").is_err());
                    std::fs::write("/dev/null", "x").unwrap();
                }
                Sandbox::Unavailable => eprintln!("SKIPPED: this system cannot confine programs"),
            });
        });
        std::fs::write(&outside, "x").unwrap();
    }
}
