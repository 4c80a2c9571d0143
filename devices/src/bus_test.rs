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
fn an_access_reaches_only_the_device_at_the_address() {
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

/// All port devices at neighbouring addresses, as a hostile guest would try them.
#[test]
fn any_port_access_leaves_other_devices_alone() {
    use crate::platform::guest_event::GuestEvent;
    use crate::platform::i8042::{self, I8042};
    use crate::platform::pci_host::{self, PciHost};
    use crate::platform::power::{self, ExitPort, PowerControl};
    use crate::platform::pvpanic::PvPanic;
    use crate::platform::serial::SerialPort;
    use crate::testing::{properties, recorded_events};
    use proptest::prelude::*;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    const END: u64 = 0x40;
    let irq = || EventFd::new(EFD_NONBLOCK).unwrap();
    let access = (0..END + 8, 0_usize..=8, any::<Option<u64>>());
    let run = |accesses: Vec<(u64, usize, Option<u64>)>| {
        let (sink, events) = recorded_events();
        let mut bus = Bus::default();
        let serial = SerialPort::new(irq(), Box::new(std::io::sink()), Default::default());
        let devices: [(u64, u64, SharedDevice); 6] = [
            (0, 8, Arc::new(Mutex::new(serial))),
            (
                8,
                i8042::LEN,
                Arc::new(Mutex::new(I8042::new(irq(), sink.clone()))),
            ),
            (
                0x10,
                pci_host::LEN,
                Arc::new(Mutex::new(PciHost::default())),
            ),
            (
                0x18,
                power::LEN,
                Arc::new(Mutex::new(PowerControl::new(sink.clone()))),
            ),
            (0x20, 1, Arc::new(Mutex::new(ExitPort::new(sink.clone())))),
            (0x3f, 1, Arc::new(Mutex::new(PvPanic::new(sink)))),
        ];
        let owned: Vec<_> = devices
            .iter()
            .map(|(base, len, _)| *base..base + len)
            .collect();
        for (base, len, device) in devices {
            bus.insert(base, len, device).unwrap();
        }
        for (address, width, value) in accesses {
            let end = address + width as u64;
            let owner = owned.iter().find(|r| r.start <= address && end <= r.end);
            let mut data = value.unwrap_or_default().to_le_bytes();
            let found = match value {
                Some(_) => bus.write(address, &data[..width]),
                None => bus.read(address, &mut data[..width]),
            };
            assert!(
                width == 0 || found == owner.is_some(),
                "{address:#x}+{width}"
            );
            assert!(data[width..].iter().all(|byte| *byte == 0) || value.is_some());
            let told = events.take();
            assert!(told.len() <= 1 && (width == 1 || told.is_empty()));
            if let [GuestEvent::Exit(status)] = told[..] {
                assert!(power::EXIT_STATUSES.contains(&status));
            }
        }
        Ok(())
    };
    let accesses = proptest::collection::vec(access, 1..100);
    properties().run(&accesses, run).unwrap();
}
