//! The built-in lists as BPF programs, compiled by the build.

use super::compile::Programs;
use seccompiler::sock_filter;

/// A program without the process id.
pub(super) struct BuiltIn {
    /// Indices of the instructions that need the process id.
    pid_at: &'static [usize],
    /// Instructions: code, jumps, operand.
    code: &'static [(u16, u8, u8, u32)],
}

include!(concat!(env!("OUT_DIR"), "/seccomp_built_in.rs"));

/// Returns the programs of `list` for the process `pid`.
pub(super) fn programs(list: &[BuiltIn], pid: u32) -> Programs {
    let programs = list.iter().map(|built_in| {
        let code = built_in.code.iter();
        let mut program: Vec<_> = code
            .map(|&(code, jt, jf, k)| sock_filter { code, jt, jf, k })
            .collect();
        for at in built_in.pid_at {
            if let Some(instruction) = program.get_mut(*at) {
                instruction.k = pid;
            }
        }
        program
    });
    programs.collect()
}
