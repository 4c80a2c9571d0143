//! Model-specific registers that firmware sets on a PC, and that a kernel expects to be set.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// IA32_MISC_ENABLE (Intel SDM 4, table 2-2), and its bit for fast string operations.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1 << 0);
/// IA32_MTRR_DEF_TYPE (Intel SDM 3, 11.11.2.1): MTRRs on, all memory write-back. Without it a kernel takes memory for
/// uncached.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);

/// Sets these registers on `vcpu`.
pub(super) fn set(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let entries = [MISC_ENABLE, MTRR_DEF_TYPE].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        reserved: 0,
    });
    let no_memory = |_| kvm_ioctls::Error::new(libc::ENOMEM);
    let msrs = Msrs::from_entries(&entries).map_err(no_memory)?;
    match vcpu.set_msrs(&msrs)? {
        set if set == entries.len() => Ok(()),
        _ => Err(kvm_ioctls::Error::new(libc::EINVAL)),
    }
}
