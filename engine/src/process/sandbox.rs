//! Confines foreign programs to their scratch folder, where the system can.

use std::os::fd::OwnedFd;
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
        static AVAILABLE: OnceLock<Sandbox> = OnceLock::new();
        *AVAILABLE.get_or_init(|| match ruleset(&[]) {
            Some(_) => Self::Enforced,
            None => Self::Unavailable,
        })
    }

    /// Returns whether the system can also keep a program's signals to its own descendants.
    #[cfg(target_os = "linux")]
    pub fn confines_signals() -> bool {
        use landlock::{ABI, Access as _, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope};

        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        rules.scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create).is_ok()
    }

    /// Returns whether the system can also keep a program's signals to its own descendants.
    #[cfg(not(target_os = "linux"))]
    pub fn confines_signals() -> bool {
        false
    }
}

/// Device files that a program may write to: the ones that hold nothing, and those of GPUs and of
/// the networks between them. Terminals are not among them, or a program could type into them.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const GPU_FOLDERS: [&str; 4] = ["accel", "dri", "infiniband", "nvidia-caps"];

/// Returns the Landlock ruleset of a program that may write only below `folders` and to a few
/// devices, and send signals only to its own descendants; `None` where the system has no Landlock.
#[cfg(target_os = "linux")]
pub(crate) fn ruleset(folders: &[&Path]) -> Option<OwnedFd> {
    use landlock::{
        ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _, RulesetError, Scope,
    };

    fn build(folders: &[&Path]) -> Result<Option<OwnedFd>, RulesetError> {
        let all = AccessFs::from_write(ABI::V5);
        let scopes = Scope::from_all(ABI::V6);
        let mut rules = Ruleset::default().handle_access(all)?.scope(scopes)?.create()?;
        // A node made for a disk is a way to the whole disk.
        let below = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        let gpu = write | AccessFs::IoctlDev;
        let mut allowed: Vec<(std::path::PathBuf, BitFlags<AccessFs>)> =
            folders.iter().map(|folder| (folder.to_path_buf(), below)).collect();
        let device = |name: &str| Path::new("/dev").join(name);
        allowed.push((device("shm"), below));
        allowed.extend(DEVICES.map(|name| (device(name), write)));
        allowed.extend(GPU_FOLDERS.map(|name| (device(name), gpu)));
        for entry in std::fs::read_dir("/dev").into_iter().flatten().flatten() {
            let is_gpu =
                entry.file_name().to_str().is_some_and(|name| name.starts_with("nvidia") || name == "kfd");
            if is_gpu && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                allowed.push((entry.path(), gpu));
            }
        }
        for (path, access) in allowed {
            // What is not there needs no permission.
            if let Ok(opened) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(opened, access))?;
            }
        }
        Ok(rules.into())
    }

    build(folders).ok().flatten()
}

/// Returns the ruleset of a program; there is none here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ruleset(_: &[&Path]) -> Option<OwnedFd> {
    None
}
