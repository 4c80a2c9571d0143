//! Tests of the entry state against the architecture's encodings.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fixtures::memory_at;

fn memory() -> GuestMemory {
    memory_at(&[(0, 1 << 20)])
}

#[test]
fn descriptors_have_their_classic_encodings() {
    assert_eq!(
        descriptor(&code_segment(Protocol::Linux64)),
        0x00af_9b00_0000_ffff
    );
    assert_eq!(
        descriptor(&code_segment(Protocol::Pvh)),
        0x00cf_9b00_0000_ffff
    );
    assert_eq!(descriptor(&data_segment()), 0x00cf_9300_0000_ffff);
    assert_eq!(descriptor(&task_segment()), 0x0000_8b00_0000_0067);
}

#[test]
fn long_mode_entry_is_consistent() {
    let state = EntryState::new(Protocol::Linux64, 0x100_0000);
    assert_eq!(
        (state.rip, state.rsi, state.rbx),
        (0x100_0000, layout::ZERO_PAGE, 0)
    );
    assert_eq!(
        (state.cr0, state.cr4, state.efer),
        (0x8000_0011, 0x20, 0x500)
    );
    assert_eq!((state.cs.l, state.cs.db), (1, 0));
    assert_eq!(state.rflags, 2);
}

#[test]
fn pvh_entry_has_no_paging() {
    let state = EntryState::new(Protocol::Pvh, 0x100_0000);
    assert_eq!((state.rsi, state.rbx), (0, layout::PVH_START_INFO));
    assert_eq!(
        (state.cr0, state.cr3, state.cr4, state.efer),
        (0x11, 0, 0, 0)
    );
    assert_eq!((state.cs.l, state.cs.db), (0, 1));
}

#[test]
fn the_registers_point_to_the_tables() {
    let mem = memory();
    let state = EntryState::new(Protocol::Linux64, 0);
    state.write_tables(&mem).unwrap();
    let at = |address: u64| -> u64 { mem.read_obj(GuestAddress(address)).unwrap() };
    assert_eq!(
        at(layout::GDT_START + u64::from(CODE_SELECTOR)),
        0x00af_9b00_0000_ffff
    );
    assert_eq!(
        at(layout::GDT_START + u64::from(DATA_SELECTOR)),
        0x00cf_9300_0000_ffff
    );

    // Walk the tables for a few addresses, as the processor would.
    for address in [0u64, 0x10_0000, 0xc000_1000, 0xfee0_0000, 0xffff_ffff] {
        let pml4e = at(state.cr3 + (address >> 39 & 511) * 8);
        let pdpte = at((pml4e & !0xfff) + (address >> 30 & 511) * 8);
        let pde = at((pdpte & !0xfff) + (address >> 21 & 511) * 8);
        assert_eq!(pml4e & 3, 3);
        assert_eq!(pdpte & 3, 3);
        assert_eq!(pde & 0x83, 0x83);
        assert_eq!((pde & !0x1f_ffff) + (address & 0x1f_ffff), address);
    }
}

#[test]
fn page_tables_and_gdt_do_not_overlap_other_areas() {
    let len = identity_page_tables(layout::PAGE_TABLES).len() as u64;
    assert_eq!(len, 6 * layout::PAGE_SIZE);
    assert!(layout::PAGE_TABLES + len <= layout::CMDLINE_START);
    assert!(layout::GDT_START + u64::from(gdt_limit()) < layout::PVH_START_INFO);
}
