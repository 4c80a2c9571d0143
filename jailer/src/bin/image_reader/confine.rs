//! The last restrictions, which the program sets on itself: a filter of system calls, and limits that would have kept
//! it from being executed.

use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io;

/// Restricts this process to reading descriptor 0, writing to descriptor 1, asking for memory, and ending.
pub fn confine() -> io::Result<()> {
    // Else another process of the same user, nobody, could attach to this one and read the image through it.
    nix::sys::prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, 2, 2)?;
    nix::unistd::close(2)?;
    let rules = rules().map_err(io::Error::other)?;
    seccompiler::apply_filter(&rules).map_err(io::Error::other)
}

/// The system calls that reading an image needs; any other ends the process.
fn rules() -> Result<BpfProgram, seccompiler::BackendError> {
    let any = Vec::new;
    let argument = |index, op, value| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let condition = SeccompCondition::new(index, Len::Dword, op, value)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let not_executable = || argument(2, Op::MaskedEq(executable), 0);
    let rules = BTreeMap::from([
        (libc::SYS_pread64, argument(0, Op::Eq, 0)?),
        (libc::SYS_write, argument(0, Op::Eq, 1)?),
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_munmap, any()),
        (libc::SYS_mremap, any()),
        (libc::SYS_madvise, any()),
        (libc::SYS_brk, any()),
        (libc::SYS_futex, any()),
        // The allocator and the clock need these; they concern this process alone.
        (libc::SYS_sched_yield, any()),
        (libc::SYS_sched_getaffinity, any()),
        (libc::SYS_getrandom, any()),
        (libc::SYS_clock_gettime, any()),
        (libc::SYS_rt_sigprocmask, any()),
        (libc::SYS_exit, any()),
        (libc::SYS_exit_group, any()),
    ]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        seccompiler::TargetArch::x86_64,
    )?
    .try_into()
}

#[cfg(test)]
#[path = "confine_test.rs"]
mod confine_test;
