use super::*;

#[test]
fn advancing_the_clock_advances_the_tsc() {
    let json = serde_json::json!({
        "cpuid": "", "tsc_khz": 2_000_000, "mp_state": 0,
        "regs": zeroes::<kvm_regs>(), "sregs": zeroes::<kvm_sregs>(), "xsave": zeroes::<kvm_xsave>(),
        "xcrs": zeroes::<kvm_xcrs>(), "debug": zeroes::<kvm_debugregs>(),
        "lapic": zeroes::<kvm_lapic_state>(), "msrs": [[1, 2], [TSC, 100]],
        "events": zeroes::<kvm_vcpu_events>(),
    });
    let mut state: VcpuState = serde_json::from_value(json).unwrap();
    state.advance(1_500);
    assert_eq!(state.msrs, [Msr(1, 2), Msr(TSC, 3_100)]);
    state.tsc_khz = None;
    state.advance(1_500);
    assert_eq!(state.msrs, [Msr(1, 2), Msr(TSC, 3_100)]);
}

fn zeroes<T>() -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(vec![0; size_of::<T>()])
}

#[test]
fn a_truncated_structure_is_refused() {
    let short = serde_json::from_str::<Raw<kvm_regs>>("\"AAAA\"");
    assert!(
        short
            .unwrap_err()
            .to_string()
            .contains("3 bytes where 144 are needed")
    );
    assert!(serde_json::from_str::<Raw<kvm_regs>>("\"?\"").is_err());
    assert!(serde_json::from_str::<RawList<kvm_cpuid_entry2>>("\"AAAA\"").is_err());
}
