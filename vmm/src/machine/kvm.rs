//! Opens KVM and creates a VM, with errors that tell a user what to do.

use kvm_ioctls::{Cap, Kvm, VmFd};
use std::io;

/// KVM's API version since Linux 2.6.22. There is no other.
const API_VERSION: i32 = 12;

/// The required capabilities with their names in the KVM documentation.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// /dev/kvm does not exist.
    #[error(
        "there is no /dev/kvm: this machine has no hardware virtualization, it is switched off in the \
         firmware, or the module is not loaded (try `modprobe kvm_intel` or `modprobe kvm_amd`)"
    )]
    NoDevice(#[source] io::Error),
    /// The user may not open /dev/kvm.
    #[error(
        "no permission on /dev/kvm: join its group with `usermod -aG kvm $USER` and log in again, or \
         start through the jailer"
    )]
    NotPermitted(#[source] io::Error),
    /// /dev/kvm cannot be opened for another reason.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// KVM has another API version.
    #[error("/dev/kvm has version {0} of KVM's API, not {API_VERSION}: is it KVM?")]
    Version(i32),
    /// A required capability is missing.
    #[error("this host's KVM lacks {0}: use a newer kernel")]
    Lacks(&'static str),
    /// The guest has more vCPUs than KVM supports.
    #[error("machine-config.vcpu_count: is {asked}, and this host's KVM supports at most {most}")]
    TooManyVcpus {
        /// vCPUs of the guest.
        asked: u8,
        /// KVM's limit.
        most: usize,
    },
    /// KVM refused an operation.
    #[error("KVM refused {what}")]
    Refused {
        /// The operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl KvmError {
    /// Returns a closure for `map_err` of the operation `what`.
    pub(crate) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Self::Refused {
            what,
            source: e.into(),
        }
    }
}

/// Opens KVM and checks that it supports a guest with `vcpus` vCPUs.
pub(super) fn open(vcpus: u8) -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::NoDevice(e.into()),
        libc::EACCES | libc::EPERM => KvmError::NotPermitted(e.into()),
        _ => KvmError::Open(e.into()),
    })?;
    // A device that is not KVM returns an error, here -1.
    match kvm.get_api_version() {
        API_VERSION => {}
        other => return Err(KvmError::Version(other)),
    }
    check_capabilities(|capability| kvm.check_extension(capability))?;
    match kvm.get_max_vcpus() {
        most if usize::from(vcpus) > most => Err(KvmError::TooManyVcpus { asked: vcpus, most }),
        _ => Ok(kvm),
    }
}

/// Returns the first required capability that is missing as an error.
fn check_capabilities(has: impl Fn(Cap) -> bool) -> Result<(), KvmError> {
    match NEEDED.iter().find(|(capability, _)| !has(*capability)) {
        Some((_, name)) => Err(KvmError::Lacks(name)),
        None => Ok(()),
    }
}

/// Creates a VM.
pub(super) fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    loop {
        match kvm.create_vm() {
            Ok(vm) => return Ok(vm),
            // A signal interrupted the wait for a kernel thread that KVM starts.
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(KvmError::refused("to create a VM")(e)),
        }
    }
}

/// Creates the in-kernel interrupt controllers of `vm`. There is no PIT: kernels with ACPI use the TSC and the local APIC.
///
/// Call it after the memory slots are set. Since Linux 6.18 KVM frees what these registrations replace after a slow grace
/// period, and a memory slot set meanwhile waits 4 ms for its end.
pub(super) fn create_interrupt_controllers(vm: &VmFd) -> Result<(), KvmError> {
    let tss = usize::try_from(boot::layout::KVM_TSS).unwrap_or(usize::MAX);
    vm.set_tss_address(tss)
        .map_err(KvmError::refused("the address of the task-state pages"))?;
    vm.create_irq_chip()
        .map_err(KvmError::refused("to create the interrupt controllers"))
}
