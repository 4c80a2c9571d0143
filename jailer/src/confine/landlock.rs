//! Landlock (landlock(7)), where the kernel has it: a second wall behind the jail and the dropped capabilities, which
//! also holds outside the jail.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::OwnedFd;

/// The newest ABI that is requested; an older kernel applies the rules that it knows.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread to files below its root. It can execute `program` alone, make no device node, use no TCP, and
/// not signal, trace or connect to processes outside. A kernel without Landlock is no error.
pub fn restrict(program: &str) -> io::Result<()> {
    let (root, program) = (open("/")?, open(program)?);
    apply(root, program).map_err(io::Error::other)
}

fn apply(root: OwnedFd, program: OwnedFd) -> Result<(), RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let denied: BitFlags<AccessFs> = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock;
    let _ = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(root, all & !denied))?
        .add_rule(PathBeneath::new(
            program,
            AccessFs::Execute | AccessFs::ReadFile,
        ))?
        .restrict_self()?;
    Ok(())
}

fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path, flags, Mode::empty())?)
}
