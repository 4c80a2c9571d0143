//! The signal that calls a vCPU's thread out of the guest. A vCPU that is just about to enter does not: the signal's handler
//! leaves word where KVM looks before it enters (KVM API, 5, `immediate_exit`).

use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ptr::null_mut;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// The `immediate_exit` of the vCPU that this thread runs; null if it runs none.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// Makes the signal that calls a vCPU interrupt what its thread does, and keep it out of the guest once.
///
/// # Errors
/// The host refused.
pub fn install_signal() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), kicked).map_err(Into::into)
}

#[expect(
    unsafe_code,
    reason = "a signal's handler has what it works on from a pointer"
)]
extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: the pointer is this thread's, and is null again before what it points to is unmapped. It is a byte that
        // the kernel shares, which is read by nobody else meanwhile: this thread is here.
        unsafe { flag.write_volatile(1) };
    }
}

/// For as long as it lives, a signal keeps the calling thread's vCPU out of the guest.
pub(super) struct KickGuard<'v> {
    vcpu: &'v mut VcpuFd,
    /// It is of this thread.
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

    /// Forgets calls so far. To be called before the gate is looked at, which tells of them, too.
    pub(super) fn clear(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }
}

impl Drop for KickGuard<'_> {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}
