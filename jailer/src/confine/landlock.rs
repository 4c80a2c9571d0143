//! Landlock (landlock(7)), where the kernel has it: rules on this thread that it cannot lift, under the
//! jail and the missing capabilities. They hold also against what a way out of the jail would reach.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::OwnedFd;

/// The newest rules that are asked for; an older kernel takes those that it knows.
const NEWEST: ABI = ABI::V6;

/// Lets this thread reach nothing outside its root, execute nothing but `program`, make no device node,
/// and neither use TCP nor signal, trace or connect to processes outside.
///
/// # Errors
/// What the host says; a kernel without Landlock is none.
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
