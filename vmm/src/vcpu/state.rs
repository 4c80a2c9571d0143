//! All of a vCPU, to be saved and to be put into another one.
//!
//! Registers are kept as the KVM API lays them out (`Documentation/virt/kvm/api.rst`), which is for good: KVM's
//! structures grow only at their end, and those here have their full size since long.

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
/// Between two counters that nobody takes for one. KVM has a counter go on as it does if it is set within a second of that,
/// so that those of all vCPUs are one; until Linux 6.7 also one that was never set, so that a guest lost what it had of
/// its first second. The first vCPU's is set far off before, and the others' are what its then is.
const FAR: u64 = 1 << 62;
/// Most registers at once; KVM itself takes no more.
const MSRS_AT_ONCE: usize = 256;

/// A model-specific register and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msr(u32, u64);

/// A vCPU at rest.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: RawList<kvm_cpuid_entry2>,
    /// `None` if the host's KVM does not know.
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

/// Reads the state of vCPU `index`, which is in no guest, of which the last exit is completed, and which was told to be
/// `cpuid`. `msrs` are those that [`indices`] found.
///
/// # Errors
/// [`VcpuError::Refused`].
pub fn save(
    index: u8,
    vcpu: &VcpuFd,
    cpuid: Option<&CpuId>,
    msrs: &[u32],
) -> Result<VcpuState, VcpuError> {
    let refused = |what| refused(index, what);
    // The multiprocessing state first: asking for it makes KVM take up pending INIT and SIPI.
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

/// Which model-specific registers there are to save on this host.
///
/// # Errors
/// KVM does not say.
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

/// KVM stops at a register that this vCPU does not have: that one is left out.
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

/// A register that KVM does not take is no loss if it holds the same already, or held nothing.
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
                    "KVM does not take {data:#x} for the model-specific register {index:#x}"
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
    /// Whether a host with `supported` can go on with this vCPU.
    ///
    /// # Errors
    /// What it lacks.
    pub fn fits(&self, supported: &CpuId) -> Result<(), String> {
        cpuid::missing(&self.cpuid.0, supported.as_slice())
    }

    /// The CPUID, to be set before all else.
    fn cpuid(&self) -> Result<CpuId, kvm_ioctls::Error> {
        CpuId::from_entries(&self.cpuid.0).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
    }

    /// Lets time go on by `nanoseconds` for those who count by the time-stamp counter.
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

/// Puts `state` into vCPU `index`, which was just made; returns what it was told to be. The order is KVM's: the APIC's mode comes with the special
/// registers, its deadline counts only once it is in that mode, and events are as they were only if nothing else is set
/// after them.
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
    // SAFETY: KVM reads more than `kvm_xsave` only for a guest with features that a process must ask for by
    // arch_prctl(2), which this one does not.
    unsafe { vcpu.set_xsave(xsave) }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod state_test;
