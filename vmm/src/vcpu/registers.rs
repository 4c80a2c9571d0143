//! The registers of the boot processor, translated from the boot plan.

use boot::{DescriptorTable, EntryState, Segment};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

/// Sets the registers of `vcpu` from `entry`. The FPU keeps its state after KVM's reset, which is the architecture's.
pub(super) fn set(vcpu: &VcpuFd, entry: &EntryState) -> Result<(), kvm_ioctls::Error> {
    let mut special = vcpu.get_sregs()?;
    special.cs = segment(&entry.cs);
    special.ds = segment(&entry.ds);
    special.es = segment(&entry.es);
    special.fs = segment(&entry.fs);
    special.gs = segment(&entry.gs);
    special.ss = segment(&entry.ss);
    special.tr = segment(&entry.tr);
    special.gdt = table(entry.gdt);
    special.idt = table(entry.idt);
    special.cr0 = entry.cr0;
    special.cr3 = entry.cr3;
    special.cr4 = entry.cr4;
    special.efer = entry.efer;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry.rip,
        rsp: entry.rsp,
        rbp: entry.rbp,
        rsi: entry.rsi,
        rbx: entry.rbx,
        rflags: entry.rflags,
        ..Default::default()
    })
}

fn segment(segment: &Segment) -> kvm_segment {
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.type_,
        present: segment.present,
        dpl: segment.dpl,
        db: segment.db,
        s: segment.s,
        l: segment.l,
        g: segment.g,
        avl: segment.avl,
        unusable: segment.unusable,
        padding: 0,
    }
}

fn table(table: DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}
