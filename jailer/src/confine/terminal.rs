//! Protects the terminal at which the jailer was started, and which becomes the guest's console.
//!
//! A process that has the terminal open can insert input there, which the shell reads when the guest has ended
//! (ioctl_tty(2), TIOCSTI). The monitor cannot get a session of its own, in which the kernel would refuse that: a
//! process group's leader gets none, and the monitor has the jailer's process id. So a seccomp filter refuses these
//! requests; the monitor's own filter is added to it.

use nix::errno::Errno;
use std::io::{self, IsTerminal as _};

/// Insert input; paste the selection of a virtual console, among others; change the line discipline.
const REFUSED: [libc::c_ulong; 3] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];
/// `AUDIT_ARCH_X86_64`: 62, 64 bits, little-endian (linux/audit.h).
const ARCHITECTURE: u32 = 0xc000_003e;
/// Bit of the system call numbers of the x32 interface, which 64-bit programs can use.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`: the call's number, its architecture, and the lower half of its second argument,
/// which is all that the kernel reads of an ioctl's request.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const REQUEST: u32 = 24;

/// Keeps this thread from inserting input at a terminal, if it has one open.
pub fn protect() -> io::Result<()> {
    let terminal = io::stdin().is_terminal() || io::stdout().is_terminal();
    if terminal || io::stderr().is_terminal() {
        return install(&filter()?);
    }
    Ok(())
}

fn filter() -> io::Result<Vec<libc::sock_filter>> {
    let short = |code: u32| u16::try_from(code).map_err(io::Error::other);
    let load = short(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS)?;
    let equal = short(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K)?;
    let at_least = short(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K)?;
    let end = short(libc::BPF_RET | libc::BPF_K)?;
    let line = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    // A jump counts the instructions that it skips.
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let number = |number: libc::c_long| u32::try_from(number).map_err(io::Error::other);
    let denied = libc::SECCOMP_RET_ERRNO | u32::from_ne_bytes(libc::EPERM.to_ne_bytes());
    let mut filter = vec![
        line(load, ARCH),
        jump(equal, ARCHITECTURE, 1, 0),
        // The 32-bit interface has other numbers.
        line(end, denied),
        line(load, NUMBER),
        jump(at_least, X32, 0, 1),
        line(end, denied),
        jump(equal, number(libc::SYS_ioctl)?, 1, 0),
        line(end, libc::SECCOMP_RET_ALLOW),
        line(load, REQUEST),
    ];
    for request in REFUSED {
        let request = u32::try_from(request).map_err(io::Error::other)?;
        filter.extend([jump(equal, request, 0, 1), line(end, denied)]);
    }
    filter.push(line(end, libc::SECCOMP_RET_ALLOW));
    Ok(filter)
}

#[expect(unsafe_code, reason = "seccomp has no safe wrapper")]
fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program and its instructions live until the call returns, which reads `len` instructions.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) } {
        -1 => Err(Errno::last().into()),
        _ => Ok(()),
    }
}
