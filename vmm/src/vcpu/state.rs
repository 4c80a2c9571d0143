//! The state of a vCPU: saving and restoring it.
//!
//! Registers keep the layout of the KVM API (`Documentation/virt/kvm/api.rst`), which is stable: KVM's structures grow only
//! at their end, and these have had their full size for a long time.

use super::cpuid;
use super::error::{VcpuError, refused};
use super::raw::{Raw, RawList};
use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

/// Time-stamp counter (Intel SDM 4, table 2-2).
const TSC: u32 = 0x10;
/// Distance of a first TSC write from the saved value. KVM treats a write within one second of the expected value as
/// *synchronize with the other vCPUs* and ignores the value; until Linux 6.7 it did so for a TSC that was never written, too.
/// A write this far away makes the next write to vCPU 0 take effect; the other vCPUs then synchronize with vCPU 0.
const FAR: u64 = 1 << 62;
/// Limit of registers in one call, which is KVM's own.
const MSRS_AT_ONCE: usize = 256;

/// A model-specific register: index and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msr(u32, u64);

/// The state of a paused vCPU.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: RawList<kvm_cpuid_entry2>,
    /// TSC frequency; `None` if the host's KVM does not report it.
    tsc_khz: Option<u32>,
    mp_state: u32,
    regs: Raw<kvm_regs>,
    sregs: Raw<kvm_sregs>,
    xsave: Raw<kvm_xsave>,
    xcrs: Raw<kvm_xcrs>,
    debug: Raw<kvm_debugregs>,
    lapic: Raw<kvm_lapic_state>,
    msrs: Vec<Msr>,
    events: Raw<kvm_vcpu_events>,
}

/// Saves the state of vCPU `index`, which is out of the guest, has completed its last exit, and has the CPUID `cpuid`.
/// `msrs` is the list that [`indices`] returned.
///
/// # Errors
/// [`VcpuError::Refused`].
/// [`VcpuError::Refused`].
pub fn save(
    index: u8,
    vcpu: &VcpuFd,
    cpuid: Option<&CpuId>,
    msrs: &[u32],
) -> Result<VcpuState, VcpuError> {
    let refused = |what| refused(index, what);
    // The multiprocessing state comes first, because reading it makes KVM process a pending INIT and SIPI.
    let mp_state = vcpu.get_mp_state().map_err(refused("its run state"))?;
    Ok(VcpuState {
        mp_state: mp_state.mp_state,
        cpuid: RawList(cpuid.map(|all| all.as_slice().to_vec()).unwrap_or_default()),
        tsc_khz: vcpu.get_tsc_khz().ok(),
        regs: Raw(vcpu.get_regs().map_err(refused("its registers"))?),
        sregs: Raw(vcpu.get_sregs().map_err(refused("its special registers"))?),
        xsave: Raw(vcpu.get_xsave().map_err(refused("its vector registers"))?),
        xcrs: Raw(vcpu.get_xcrs().map_err(refused("its extended controls"))?),
        debug: Raw(vcpu
            .get_debug_regs()
            .map_err(refused("its debug registers"))?),
        lapic: Raw(vcpu.get_lapic().map_err(refused("its local APIC"))?),
        msrs: get_msrs(vcpu, msrs).map_err(refused("its model-specific registers"))?,
        events: Raw(vcpu.get_vcpu_events().map_err(refused("its events"))?),
    })
}

/// Returns the model-specific registers to save on this host.
///
/// # Errors
/// KVM does not return the list.
pub fn indices(kvm: &Kvm) -> Result<Vec<u32>, kvm_ioctls::Error> {
    Ok(kvm.get_msr_index_list()?.as_slice().to_vec())
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        reserved: 0,
    }
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, kvm_ioctls::Error> {
    Msrs::from_entries(entries).map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))
}

/// Reads registers. KVM stops at a register that this vCPU does not have, which is skipped.
fn get_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<Msr>, kvm_ioctls::Error> {
    let mut found = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let now = rest.get(..rest.len().min(MSRS_AT_ONCE)).unwrap_or(rest);
        let entries: Vec<_> = now.iter().map(|index| entry(*index, 0)).collect();
        let mut msrs = list(&entries)?;
        let got = vcpu.get_msrs(&mut msrs)?;
        let read = msrs.as_slice().iter().take(got);
        found.extend(read.map(|msr| Msr(msr.index, msr.data)));
        let skip = if got < now.len() { got + 1 } else { got };
        rest = rest.get(skip..).unwrap_or_default();
    }
    Ok(found)
}

/// Writes registers. A register that KVM refuses is ignored if it holds the value already, or if the value is zero.
fn set_msrs(vcpu: &VcpuFd, msrs: &[Msr]) -> Result<(), kvm_ioctls::Error> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let now = rest.get(..rest.len().min(MSRS_AT_ONCE)).unwrap_or(rest);
        let entries: Vec<_> = now.iter().map(|msr| entry(msr.0, msr.1)).collect();
        let mut taken = vcpu.set_msrs(&list(&entries)?)?;
        if let Some(Msr(index, data)) = now.get(taken) {
            let same = get_msrs(vcpu, &[*index])?.contains(&Msr(*index, *data));
            if !same && *data != 0 {
                log::error!(
                    "KVM refused the value {data:#x} of the model-specific register {index:#x}"
                );
                return Err(kvm_ioctls::Error::new(libc::EINVAL));
            }
            taken += 1;
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(())
}

impl VcpuState {
    /// Checks that a host with `supported` can run this vCPU.
    ///
    /// # Errors
    /// The feature that the host lacks.
    pub fn fits(&self, supported: &CpuId) -> Result<(), String> {
        cpuid::missing(&self.cpuid.0, supported.as_slice())
    }

    /// Returns the saved CPUID, which must be set first.
    fn cpuid(&self) -> Result<CpuId, kvm_ioctls::Error> {
        CpuId::from_entries(&self.cpuid.0).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
    }

    /// Advances the TSC by `nanoseconds`.
    pub fn advance(&mut self, nanoseconds: u64) {
        let Some(khz) = self.tsc_khz else {
            return;
        };
        let ticks = u128::from(nanoseconds) * u128::from(khz) / 1_000_000;
        let ticks = u64::try_from(ticks).unwrap_or_default();
        if let Some(tsc) = self.msrs.iter_mut().find(|msr| msr.0 == TSC) {
            tsc.1 = tsc.1.wrapping_add(ticks);
        }
    }
}

/// Loads `state` into the new vCPU `index`. Returns its CPUID. The order is KVM's: the APIC's mode is part of the special
/// registers, its deadline counts only in that mode, and events must come last, because later calls change them.
///
/// # Errors
/// [`VcpuError::Refused`].
pub(super) fn restore(
    index: u8,
    vm: &VmFd,
    vcpu: &VcpuFd,
    state: &VcpuState,
) -> Result<CpuId, VcpuError> {
    let refused = |what| refused(index, what);
    let cpuid = state.cpuid().map_err(refused("the saved CPUID"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(refused("the saved CPUID"))?;
    if let Some(khz) = state.tsc_khz
        && vcpu.get_tsc_khz().ok() != Some(khz)
        && vm.check_extension(Cap::TscControl)
    {
        vcpu.set_tsc_khz(khz)
            .map_err(refused("the saved frequency of the time-stamp counter"))?;
    }
    let mp_state = kvm_mp_state {
        mp_state: state.mp_state,
    };
    vcpu.set_mp_state(mp_state)
        .map_err(refused("the saved run state"))?;
    vcpu.set_regs(&state.regs.0)
        .map_err(refused("the saved registers"))?;
    vcpu.set_sregs(&state.sregs.0)
        .map_err(refused("the saved special registers"))?;
    set_xsave(vcpu, &state.xsave.0).map_err(refused("the saved vector registers"))?;
    vcpu.set_xcrs(&state.xcrs.0)
        .map_err(refused("the saved extended controls"))?;
    vcpu.set_debug_regs(&state.debug.0)
        .map_err(refused("the saved debug registers"))?;
    vcpu.set_lapic(&state.lapic.0)
        .map_err(refused("the saved local APIC"))?;
    if index == 0
        && let Some(Msr(_, counter)) = state.msrs.iter().find(|msr| msr.0 == TSC)
    {
        set_msrs(vcpu, &[Msr(TSC, counter ^ FAR)]).map_err(refused("a time-stamp counter"))?;
    }
    set_msrs(vcpu, &state.msrs).map_err(refused("the saved model-specific registers"))?;
    vcpu.set_vcpu_events(&state.events.0)
        .map_err(refused("the saved events"))?;
    Ok(cpuid)
}

#[expect(unsafe_code, reason = "KVM reads as many bytes as the guest may use")]
fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM reads more than `kvm_xsave` only for guest features that a process must request by arch_prctl(2), which
    // this process does not do.
    unsafe { vcpu.set_xsave(xsave) }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod state_test;
