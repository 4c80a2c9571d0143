//! The floor of a restore: the KVM calls that create a VM with a state, and nothing else.

use crate::Failure;
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, Msrs,
    kvm_irqchip, kvm_msr_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::Kvm;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use vm_memory::{FileOffset, MmapRegion};

const TSS: usize = 0xfffb_d000;
/// MSRs that every KVM accepts: time-stamp counter, system calls, memory types.
const MSRS: [u32; 8] = [
    0x10,
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
];
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// Measures the calls for one vCPU with `bytes` of memory, mapped privately from the file `memory`.
#[expect(
    unsafe_code,
    reason = "KVM is given memory, and reads a state of its own size"
)]
pub fn once(memory: &Path, bytes: usize) -> Result<Duration, Failure> {
    let started = Instant::now();
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let file = FileOffset::new(File::open(memory)?, 0);
    let (prot, flags) = (
        nix::libc::PROT_READ | nix::libc::PROT_WRITE,
        nix::libc::MAP_PRIVATE | nix::libc::MAP_NORESERVE,
    );
    let region = MmapRegion::<()>::build(Some(file), bytes, prot, flags)?;
    let slot = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: region.size().try_into()?,
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: the mapping outlives the VM, and nothing refers to it.
    unsafe { vm.set_user_memory_region(slot)? };
    vm.set_tss_address(TSS)?;
    vm.create_irq_chip()?;
    let vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    // The initial state of a vCPU is a state like any other.
    vcpu.set_mp_state(vcpu.get_mp_state()?)?;
    vcpu.set_regs(&vcpu.get_regs()?)?;
    vcpu.set_sregs(&vcpu.get_sregs()?)?;
    // SAFETY: KVM reads no more than this structure, because no dynamically enabled feature was requested.
    unsafe { vcpu.set_xsave(&vcpu.get_xsave()?)? };
    vcpu.set_xcrs(&vcpu.get_xcrs()?)?;
    vcpu.set_debug_regs(&vcpu.get_debug_regs()?)?;
    vcpu.set_lapic(&vcpu.get_lapic()?)?;
    let entries = MSRS.map(|index| kvm_msr_entry {
        index,
        ..Default::default()
    });
    let mut msrs = Msrs::from_entries(&entries).map_err(|e| format!("{e:?}"))?;
    vcpu.get_msrs(&mut msrs)?;
    vcpu.set_msrs(&msrs)?;
    vcpu.set_vcpu_events(&vcpu.get_vcpu_events()?)?;
    for chip_id in IRQCHIPS {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        vm.get_irqchip(&mut chip)?;
        vm.set_irqchip(&chip)?;
    }
    let took = started.elapsed();
    drop(vcpu);
    drop(vm);
    Ok(took)
}
