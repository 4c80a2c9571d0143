use super::*;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::File;

/// Runs `work` in a confined child of this process.
#[expect(unsafe_code, reason = "fork, and a process that ends at once")]
fn confined(work: fn()) -> WaitStatus {
    // SAFETY: the child makes system calls only, and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let status = match confine() {
                Ok(()) => {
                    work();
                    0
                }
                Err(_) => 2,
            };
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

#[test]
fn a_forbidden_system_call_ends_the_reader() {
    assert!(matches!(confined(|| ()), WaitStatus::Exited(_, 0)));
    let forbidden: [(&str, fn()); 5] = [
        ("open a file", || drop(File::open("/"))),
        ("make a process", || {
            #[expect(unsafe_code, reason = "fork")]
            // SAFETY: the call ends this process.
            let _ = unsafe { fork() };
        }),
        ("signal another process", || {
            let _ = kill(Pid::from_raw(1), None);
        }),
        ("make a socket", || {
            let _ = std::net::UdpSocket::bind("127.0.0.1:0");
        }),
        ("become another user", || {
            let _ = nix::unistd::setuid(nix::unistd::Uid::from_raw(0));
        }),
    ];
    for (what, work) in forbidden {
        let status = confined(work);
        assert!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
            "{what}: {status:?}"
        );
    }
}
