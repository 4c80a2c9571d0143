//! The signal that kicks a vCPU out of the guest. For a vCPU that is about to enter, the signal handler sets the flag that
//! KVM checks before it enters (KVM API, 5, `immediate_exit`).

use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ptr::null_mut;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// The `immediate_exit` flag of the vCPU that this thread runs; null if it runs none.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// Installs the handler of the signal that kicks a vCPU.
///
/// # Errors
/// The host refused the handler.
pub fn install_signal() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), kicked).map_err(Into::into)
}

#[expect(unsafe_code, reason = "a signal handler gets its data from a pointer")]
extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: the pointer belongs to this thread, and is null again before the flag is unmapped. The kernel shares the
        // byte, but reads it only when this thread enters the guest.
        unsafe { flag.write_volatile(1) };
    }
}

/// A guard: while it lives, the signal keeps the calling thread's vCPU out of the guest.
pub(super) struct KickGuard<'v> {
    vcpu: &'v mut VcpuFd,
    /// Ties the guard to its thread.
    thread: PhantomData<*const ()>,
}

impl<'v> KickGuard<'v> {
    pub(super) fn start(vcpu: &'v mut VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
        Self {
            vcpu,
            thread: PhantomData,
        }
    }

    pub(super) fn vcpu(&mut self) -> &mut VcpuFd {
        self.vcpu
    }

    /// Clears earlier kicks. Call it before looking at the gate, which knows of them, too.
    pub(super) fn clear(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }
}

impl Drop for KickGuard<'_> {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}
