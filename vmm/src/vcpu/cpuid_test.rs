use super::*;

fn host() -> CpuId {
    let leaf = |function, eax| kvm_cpuid_entry2 {
        function,
        eax,
        ..Default::default()
    };
    CpuId::from_entries(&[
        leaf(1, 0),
        leaf(4, 1 << 5 | 1),
        leaf(4, 3 << 5 | 3),
        leaf(0xa, 5),
        leaf(0xb, 9),
        leaf(0x8000_0008, 0x3030),
        leaf(0x8000_001e, 0),
    ])
    .unwrap()
}

fn find(cpuid: &CpuId, function: u32, index: usize) -> kvm_cpuid_entry2 {
    let mut found = cpuid.as_slice().iter().filter(|e| e.function == function);
    *found.nth(index).unwrap()
}

#[test]
fn each_vcpu_has_its_apic_id_in_all_leaves() {
    let topology = Topology::new(4, false);
    for index in 0..4 {
        let cpuid = for_vcpu(&host(), &topology, index);
        let id = u32::from(index);
        assert_eq!(find(&cpuid, 1, 0).ebx >> 24, id);
        assert_eq!(find(&cpuid, 0xb, 0).edx, id);
        assert_eq!(find(&cpuid, 0xb, 1).edx, id);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, id);
    }
}

#[test]
fn threads_share_a_core_only_with_smt() {
    let with = for_vcpu(&host(), &Topology::new(4, true), 3);
    let (threads, cores) = (find(&with, 0xb, 0), find(&with, 0xb, 1));
    assert_eq!((threads.eax, threads.ebx, threads.ecx), (1, 2, 0x100));
    assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 4, 0x201));
    assert_eq!(find(&with, 0x8000_001e, 0).ebx, 1 | 1 << 8);
    assert_eq!(
        find(&with, 4, 0).eax >> 14 & 0xfff,
        1,
        "two threads share a first-level cache"
    );
    assert_eq!(find(&with, 4, 0).eax >> 26, 1, "two cores");

    let without = for_vcpu(&host(), &Topology::new(4, false), 3);
    assert_eq!(find(&without, 0xb, 0).eax, 0);
    assert_eq!(find(&without, 4, 0).eax >> 14 & 0xfff, 0);
    assert_eq!(
        find(&without, 4, 1).eax >> 14 & 0xfff,
        3,
        "all cores share the last-level cache"
    );
}

#[test]
fn performance_counters_and_host_levels_are_hidden() {
    let cpuid = for_vcpu(&host(), &Topology::new(1, true), 0);
    assert_eq!(find(&cpuid, 0xa, 0).eax, 0);
    assert_eq!(
        cpuid
            .as_slice()
            .iter()
            .filter(|e| e.function == 0xb)
            .count(),
        3
    );
    assert_eq!(find(&cpuid, 1, 0).edx & HTT, 0);
    let features = find(&cpuid, 1, 0).ecx;
    assert_eq!(
        features & (X2APIC | TSC_DEADLINE | HYPERVISOR),
        X2APIC | TSC_DEADLINE | HYPERVISOR
    );
}

#[test]
fn thirty_two_and_odd_numbers_of_vcpus_are_described() {
    for (vcpus, smt, package_bits) in [(32, false, 5), (32, true, 5), (6, true, 3)] {
        let cpuid = for_vcpu(&host(), &Topology::new(vcpus, smt), vcpus - 1);
        let cores = find(&cpuid, 0xb, 1);
        assert_eq!((cores.eax, cores.ebx), (package_bits, u32::from(vcpus)));
        assert_eq!(find(&cpuid, 1, 0).ebx >> 16 & 0xff, u32::from(vcpus));
        assert_eq!(
            find(&cpuid, 0x8000_0008, 0).ecx & 0xff,
            u32::from(vcpus) - 1
        );
    }
}
