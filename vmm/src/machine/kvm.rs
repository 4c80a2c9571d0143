//! Opening KVM and making a VM, with errors that say what a user can do.

use kvm_ioctls::{Cap, Kvm, VmFd};
use std::io;

/// KVM's API version since Linux 2.6.22; there is no other.
const API_VERSION: i32 = 12;

/// What this monitor cannot do without, with the name the KVM documentation gives it.
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
    /// No device.
    #[error(
        "there is no /dev/kvm: this machine has no hardware virtualization, it is switched off in the \
         firmware, or the module is not loaded (try `modprobe kvm_intel` or `modprobe kvm_amd`)"
    )]
    NoDevice(#[source] io::Error),
    /// No permission.
    #[error(
        "no permission on /dev/kvm: join its group with `usermod -aG kvm $USER` and log in again, or \
         start through the jailer"
    )]
    NotPermitted(#[source] io::Error),
    /// Another failure of opening.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Not the API we know.
    #[error("/dev/kvm speaks version {0} of its API, not {API_VERSION}: is it KVM?")]
    Version(i32),
    /// Something is missing.
    #[error("this host's KVM lacks {0}: a newer kernel is needed")]
    Lacks(&'static str),
    /// More vCPUs than the host's KVM serves.
    #[error("machine-config.vcpu_count: is {asked}, and this host's KVM serves at most {most}")]
    TooManyVcpus {
        /// Asked for.
        asked: u8,
        /// The host's limit.
        most: usize,
    },
    /// An ioctl failed.
    #[error("KVM refused {what}")]
    Refused {
        /// Which operation.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl KvmError {
    /// For `map_err` of an operation called `what`.
    pub(crate) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Self::Refused {
            what,
            source: e.into(),
        }
    }
}

/// Opens KVM and checks that it can do what a guest of `vcpus` vCPUs needs.
pub(super) fn open(vcpus: u8) -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::NoDevice(e.into()),
        libc::EACCES | libc::EPERM => KvmError::NotPermitted(e.into()),
        _ => KvmError::Open(e.into()),
    })?;
    // Something that is not KVM answers with an error, here -1.
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

/// Names the first capability that `has` denies.
fn check_capabilities(has: impl Fn(Cap) -> bool) -> Result<(), KvmError> {
    match NEEDED.iter().find(|(capability, _)| !has(*capability)) {
        Some((_, name)) => Err(KvmError::Lacks(name)),
        None => Ok(()),
    }
}

/// Makes a VM.
pub(super) fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    loop {
        match kvm.create_vm() {
            Ok(vm) => return Ok(vm),
            // KVM starts a kernel thread, and a signal interrupts the wait for it.
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(KvmError::refused("to create a VM")(e)),
        }
    }
}

/// Gives `vm` its interrupt controllers, in the kernel. There is no PIT: kernels with ACPI take their time
/// from the TSC and the local APIC.
///
/// To be called when the memory is the VM's already: since Linux 6.18 KVM frees what these
/// registrations replace by an unhurried grace period, and a memory slot given meanwhile waits for its end,
/// 4 ms more.
pub(super) fn create_interrupt_controllers(vm: &VmFd) -> Result<(), KvmError> {
    let tss = usize::try_from(boot::layout::KVM_TSS).unwrap_or(usize::MAX);
    vm.set_tss_address(tss)
        .map_err(KvmError::refused("the address of the task-state pages"))?;
    vm.create_irq_chip()
        .map_err(KvmError::refused("to create the interrupt controllers"))
}
