use super::super::{DEFAULT, parse};
use super::*;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::path::Path;

fn list(text: &str) -> List {
    serde_json::from_str(text).unwrap()
}

/// Returns the exit status of a process that applies `text` and then runs `work`; the negated number for a signal.
#[expect(unsafe_code, reason = "a process to confine")]
fn confined(text: &str, work: fn() -> i32) -> i32 {
    // Compiled before the fork, because the child of a process with threads must not allocate.
    let programs = compile(&[&list(text)], std::process::id()).unwrap();
    // SAFETY: the child only makes system calls, and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            for program in &programs {
                if seccompiler::apply_filter(program).is_err() {
                    // SAFETY: the call ends the process.
                    unsafe { libc::_exit(99) };
                }
            }
            // SAFETY: the call ends the process.
            unsafe { libc::_exit(work()) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, status) => status,
            WaitStatus::Signaled(_, signal, _) => -(signal as i32),
            other => panic!("{other:?}"),
        },
    }
}

#[expect(unsafe_code, reason = "a system call")]
fn umask() -> i32 {
    // SAFETY: the call takes a number.
    unsafe { libc::umask(0o22) };
    7
}

#[expect(unsafe_code, reason = "a system call")]
fn dup_of_0() -> i32 {
    // SAFETY: the call takes a number.
    match unsafe { libc::dup(0) } {
        -1 => nix::errno::Errno::last_raw(),
        _ => 7,
    }
}

#[test]
fn an_unlisted_call_gets_the_default_action() {
    let status = confined(r#"{"rules": [{"syscall": "exit_group"}]}"#, umask);
    assert_eq!(status, -libc::SIGSYS);
    let killed = r#"{"default_action": "kill_process", "rules": [{"syscall": "exit_group"}]}"#;
    assert_eq!(confined(killed, umask), -libc::SIGSYS);
    let logged = r#"{"default_action": "log", "rules": [{"syscall": "exit_group"}]}"#;
    assert_eq!(confined(logged, umask), 7);
}

#[test]
fn a_rule_without_conditions_includes_the_others() {
    let text = r#"{"rules": [
        {"syscall": "exit_group"},
        {"syscall": "dup", "args": [{"index": 0, "op": "eq", "value": 5}]},
        {"syscall": "dup"},
        {"syscall": "dup", "args": [{"index": 0, "op": "eq", "value": 6}]}]}"#;
    assert_eq!(confined(text, dup_of_0), 7);
}

#[test]
fn arguments_are_checked_by_the_kernel() {
    let text = |value| {
        format!(
            r#"{{"rules": [{{"syscall": "exit_group"}},
            {{"syscall": "dup", "args": [{{"index": 0, "op": "eq", "value": {value}}}]}}]}}"#
        )
    };
    assert_eq!(confined(&text(0), dup_of_0), 7);
    assert_eq!(confined(&text(1), dup_of_0), -libc::SIGSYS);
}

#[test]
fn a_rule_with_errno_returns_the_error() {
    let text = r#"{"rules": [{"syscall": "exit_group"}, {"syscall": "dup", "errno": 38}]}"#;
    assert_eq!(confined(text, dup_of_0), libc::ENOSYS);
}

#[test]
fn the_built_in_lists_compile() {
    let lists = parse(Path::new("default.json"), DEFAULT.as_bytes()).unwrap();
    for list in [
        &lists.main,
        &lists.restart,
        &lists.vcpu,
        &lists.drive,
        &lists.api,
        &lists.report,
    ] {
        assert!(!list.rules.is_empty());
        assert_eq!(list.default_action, Action::Trap);
        for program in compile(&[list], 1).unwrap() {
            assert!(program.len() < 1000, "{} instructions", program.len());
        }
    }
}
