use super::super::compile::compile;
use super::super::{DEFAULT, parse};
use super::*;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::path::Path;

fn text(number: libc::c_int, registers: &[libc::greg_t]) -> String {
    let text = describe(number, registers);
    String::from_utf8(text.bytes[..text.len].to_vec()).unwrap()
}

#[test]
fn a_refused_call_is_named_with_its_thread_and_arguments() {
    call_this_thread("fc_vcpu 0");
    let mut registers = [0; 23];
    registers[usize::try_from(libc::REG_RDI).unwrap()] = 0x1234;
    let text = text(165, &registers);
    assert!(
        text.starts_with("bantam: error: thread fc_vcpu 0 made the system call mount (165), which its seccomp filter refuses"),
        "{text}"
    );
    assert!(text.ends_with(": 0x1234 0x0 0x0 0x0 0x0 0x0\n"), "{text}");
}

#[test]
fn unknown_call_numbers_and_long_thread_names_are_reported() {
    call_this_thread(&"x".repeat(200));
    let text = text(9999, &[]);
    assert!(text.contains("that has no name (9999)"), "{text}");
    assert!(text.len() < 400 && text.ends_with('\n'), "{text}");
}

/// Returns the end of a process with the handler that sends itself SIGSYS, on a confined thread if `confined`.
#[expect(unsafe_code, reason = "a process to end")]
fn end_by_sent_signal(confined: bool) -> WaitStatus {
    let lists = parse(Path::new("default.json"), DEFAULT.as_bytes()).unwrap();
    // SAFETY: the C library keeps its allocator usable in the child, which takes no lock of this process and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            install().unwrap();
            let programs = compile(&[&lists.vcpu, &lists.report], std::process::id()).unwrap();
            for program in programs.iter().filter(|_| confined) {
                seccompiler::apply_filter(program).unwrap();
            }
            let _ = raise(Signal::SIGSYS);
            // SAFETY: the call ends the process.
            unsafe { libc::_exit(99) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

#[test]
fn a_sigsys_sent_by_a_process_ends_this_one_confined_or_not() {
    for confined in [false, true] {
        let end = end_by_sent_signal(confined);
        assert!(
            matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
            "{confined}: {end:?}"
        );
    }
}
