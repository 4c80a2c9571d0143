use super::*;
use resources::VmConfig;
use std::os::unix::fs::FileExt as _;

fn config() -> MachineConfig {
    let mut machine = VmConfig::default().machine_config;
    machine.mem_size_mib = 32;
    machine
}

fn layer(runs: Option<&[(u64, u64)]>, byte: u8) -> Layer {
    let file = tempfile::tempfile().unwrap();
    file.set_len(32 << 20).unwrap();
    for (at, len) in runs.unwrap_or(&[(0, 64 * PAGE)]) {
        file.write_all_at(&vec![byte; usize::try_from(*len).unwrap()], *at)
            .unwrap();
    }
    Layer {
        file: Arc::new(file),
        runs: runs.map(<[_]>::to_vec),
    }
}

#[test]
fn the_topmost_layer_wins_and_writes_stay_private() {
    // The first run is copied, the second is mapped.
    let top = [(PAGE, PAGE), (10 * PAGE, 8 * PAGE)];
    let layers = Layers(vec![layer(None, 1), layer(Some(&top), 2)]);
    let memory = layers.map(&config()).unwrap();
    let at = |page: u64| memory.read_obj::<u8>(GuestAddress(page * PAGE)).unwrap();
    let seen: Vec<u8> = [0, 1, 2, 9, 10, 17, 18, 64].map(at).into();
    assert_eq!(seen, [1, 2, 1, 1, 2, 2, 1, 0]);
    memory.write_obj(9_u8, GuestAddress(10 * PAGE)).unwrap();
    memory.write_obj(9_u8, GuestAddress(0)).unwrap();
    let other = layers.map(&config()).unwrap();
    assert_eq!(other.read_obj::<u8>(GuestAddress(10 * PAGE)).unwrap(), 2);
    assert_eq!(other.read_obj::<u8>(GuestAddress(0)).unwrap(), 1);
    assert!(layers.holder(1).unwrap().runs.is_some());
    assert!(layers.holder(18).unwrap().runs.is_none());
    let data = layers.data(32 << 20).unwrap();
    assert!(data.contains(&top[1]), "{data:?}");
}

#[test]
fn diffs_without_a_base_cannot_be_mapped() {
    let layers = Layers(vec![layer(Some(&[(0, PAGE)]), 1)]);
    assert!(layers.map(&config()).is_err());
    assert!(Layers::default().map(&config()).is_err());
}
