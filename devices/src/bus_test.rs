use super::*;

struct Register(u8);

impl BusDevice for Register {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(self.0 + u8::try_from(offset).unwrap());
    }
    fn write(&mut self, _offset: u64, data: &[u8]) {
        self.0 = data[0];
    }
}

fn register(value: u8) -> SharedDevice {
    Arc::new(Mutex::new(Register(value)))
}

#[test]
fn an_access_reaches_the_owner_and_nobody_else() {
    let mut bus = Bus::default();
    bus.insert(0x10, 4, register(1)).unwrap();
    bus.insert(0x14, 4, register(100)).unwrap();
    let mut byte = [0];
    assert!(bus.read(0x13, &mut byte));
    assert_eq!(byte, [4]);
    assert!(bus.write(0x14, &[7]));
    assert!(bus.read(0x14, &mut byte));
    assert_eq!(byte, [7]);
    assert!(!bus.read(0xf, &mut byte));
    assert!(!bus.read(0x18, &mut byte));
    assert!(!bus.read(0x12, &mut [0; 4]), "straddles two devices");
    assert!(!bus.write(u64::MAX, &[0, 0]));
}

#[test]
fn ranges_may_touch_but_not_overlap() {
    let mut bus = Bus::default();
    bus.insert(0x10, 4, register(1)).unwrap();
    for (base, len) in [
        (0x10, 4),
        (0xf, 2),
        (0x13, 1),
        (0, 0x100),
        (u64::MAX, 2),
        (0x20, 0),
    ] {
        assert!(
            bus.insert(base, len, register(0)).is_err(),
            "{base:#x}+{len}"
        );
    }
    bus.insert(0xc, 4, register(2)).unwrap();
}
