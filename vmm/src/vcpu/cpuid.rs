//! The CPUID of the guest: the host's features with a topology of our own.

use super::error::VcpuError;
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

/// Leaf 1, ECX: x2APIC.
const X2APIC: u32 = 1 << 21;
/// Leaf 1, ECX: TSC deadline mode of the local APIC's timer. KVM supports it but leaves the bit to its user.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, ECX: performance capabilities MSR.
const PDCM: u32 = 1 << 15;
/// Leaf 1, EDX: EBX[23:16] is the number of logical processors.
const HTT: u32 = 1 << 28;

/// Number and arrangement of the vCPUs in one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Threads of a core: 1 or 2.
    pub threads_per_core: u8,
}

impl Topology {
    /// Returns a topology of `vcpus` vCPUs. With `smt`, two share a core.
    pub fn new(vcpus: u8, smt: bool) -> Self {
        let threads_per_core = if smt && vcpus > 1 { 2 } else { 1 };
        Self {
            vcpus,
            threads_per_core,
        }
    }

    /// Returns the number of APIC id bits for the threads of a core.
    fn thread_bits(self) -> u32 {
        bits(self.threads_per_core.into())
    }

    /// Returns the number of APIC id bits for the package.
    fn package_bits(self) -> u32 {
        bits(self.vcpus.into())
    }
}

/// Returns the number of bits that count to `count`.
fn bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Returns the CPUID that the host's KVM supports.
pub(super) fn supported(kvm: &Kvm) -> Result<CpuId, VcpuError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|e| VcpuError::SupportedCpuid(e.into()))
}

/// Returns the CPUID of vCPU `index`.
pub(super) fn for_vcpu(supported: &CpuId, topology: &Topology, index: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let extended = extended_topology(&cpuid);
    for entry in cpuid.as_mut_slice() {
        set_topology(entry, topology, index);
    }
    // The host has as many topology leaves as its processor has levels. The guest has two levels and an end.
    cpuid.retain(|entry| !extended.contains(&entry.function));
    for function in extended {
        for level in topology_levels(function, topology, index) {
            // The table cannot exceed KVM's limit, because the host's leaves were removed.
            if let Err(e) = cpuid.push(level) {
                log::warn!("CPUID leaf {function:#x} is missing: {e:?}");
            }
        }
    }
    cpuid
}

/// Returns the extended topology leaves that the host's processor has.
fn extended_topology(cpuid: &CpuId) -> Vec<u32> {
    let has = |function: &u32| cpuid.as_slice().iter().any(|e| e.function == *function);
    [0xb, 0x1f].into_iter().filter(has).collect()
}

fn set_topology(entry: &mut kvm_cpuid_entry2, topology: &Topology, index: u8) {
    let vcpus = u32::from(topology.vcpus);
    let apic_id = u32::from(index);
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | apic_id << 24;
            entry.ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR;
            entry.ecx &= !PDCM;
            entry.edx = if vcpus > 1 {
                entry.edx | HTT
            } else {
                entry.edx & !HTT
            };
        }
        // Deterministic cache parameters: the sharers of a cache (Intel SDM 2A, CPUID, leaf 4).
        0x4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = match level {
                1 | 2 => u32::from(topology.threads_per_core),
                _ => 1 << topology.package_bits(),
            };
            let cores = 1 << (topology.package_bits() - topology.thread_bits());
            entry.eax = entry.eax & 0x3fff | (sharing - 1) << 14 | (cores - 1) << 26;
        }
        // No performance counters, because they would be the host's.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        // AMD: size of the APIC id and number of threads (APM 3, E.4.7).
        0x8000_0008 => {
            entry.ecx = entry.ecx & !0xf0ff | topology.package_bits() << 12 | (vcpus - 1);
        }
        // AMD: cache topology, like leaf 4.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = match entry.eax >> 5 & 7 {
                1 | 2 => u32::from(topology.threads_per_core),
                _ => vcpus,
            };
            entry.eax = entry.eax & !(0xfff << 14) | (sharing - 1) << 14;
        }
        // AMD: APIC id, core id with threads per core, one node.
        0x8000_001e => {
            let threads = u32::from(topology.threads_per_core);
            entry.eax = apic_id;
            entry.ebx = (apic_id / threads) | ((threads - 1) << 8);
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Returns the levels of an extended topology leaf (Intel SDM 2A, CPUID, leaf 0BH): threads, cores, end.
fn topology_levels(function: u32, topology: &Topology, index: u8) -> [kvm_cpuid_entry2; 3] {
    let level = |number: u32, kind: u32, shift: u32, count: u32| kvm_cpuid_entry2 {
        function,
        index: number,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind << 8 | number,
        edx: index.into(),
        ..Default::default()
    };
    [
        level(
            0,
            1,
            topology.thread_bits(),
            topology.threads_per_core.into(),
        ),
        level(1, 2, topology.package_bits(), topology.vcpus.into()),
        level(2, 0, 0, 0),
    ]
}

/// Leaves with feature registers, and which registers those are (Intel SDM 2A, CPUID; AMD APM 3, appendix E).
const FEATURES: [(u32, u32, [bool; 4]); 6] = [
    (0x1, 0, [false, false, true, true]),
    (0x7, 0, [false, true, true, true]),
    (0x7, 1, [true, true, true, true]),
    (0xd, 0, [true, false, false, true]),
    (0xd, 1, [true, false, false, false]),
    (0x8000_0001, 0, [false, false, true, true]),
];
/// Bits of leaf 1, ECX that KVM supports without reporting them, or that depend on the guest's state (OSXSAVE).
const ALWAYS_SERVED: u32 = X2APIC | TSC_DEADLINE | HYPERVISOR | 1 << 27;
/// Leaf 7, ECX: OSPKE, which follows CR4.
const OSPKE: u32 = 1 << 4;

/// Checks that a host with `supported` can run a guest that sees `saved`.
///
/// # Errors
/// The feature that the host lacks.
pub(super) fn missing(
    saved: &[kvm_cpuid_entry2],
    supported: &[kvm_cpuid_entry2],
) -> Result<(), String> {
    let find = |all: &[kvm_cpuid_entry2], function, index| {
        let mut all = all.iter();
        let found = all.find(|e| e.function == function && (e.index == index || e.flags == 0));
        found.copied().unwrap_or_default()
    };
    let vendor = |all| {
        let leaf = find(all, 0, 0);
        [leaf.ebx, leaf.edx, leaf.ecx]
            .map(u32::to_le_bytes)
            .concat()
    };
    if vendor(saved) != vendor(supported) {
        return Err(format!(
            "it was saved on a processor of {}, and this host has one of {}",
            String::from_utf8_lossy(&vendor(saved)),
            String::from_utf8_lossy(&vendor(supported))
        ));
    }
    for (function, index, registers) in FEATURES {
        let [had, has] = [saved, supported].map(|all| {
            let leaf = find(all, function, index);
            [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
        });
        let names = ["EAX", "EBX", "ECX", "EDX"];
        for (((had, has), name), counts) in had.into_iter().zip(has).zip(names).zip(registers) {
            let served = match (function, name) {
                (0x1, "ECX") => ALWAYS_SERVED,
                // HTT depends on the topology.
                (0x1, "EDX") => HTT,
                (0x7, "ECX") if index == 0 => OSPKE,
                _ => 0,
            };
            let lacks = had & !has & !served;
            if counts && lacks != 0 {
                return Err(format!(
                    "it uses processor features that this host lacks: CPUID leaf {function:#x}, subleaf {index}, {name} \
                     bits {lacks:#x}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod cpuid_test;
