use super::*;
use crate::lock;
use crate::testing::properties;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Mutex;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_CONTROL: u64 = 3;
const MODEM: u64 = 4;
const LINE_STATUS: u64 = 5;
const LOOP_BACK: u8 = 1 << 4;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn port(output: impl Write + Send + 'static) -> (SerialPort, EventFd) {
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let line = irq.try_clone().unwrap();
    (SerialPort::new(line, Box::new(output), Arc::default()), irq)
}

fn read(port: &mut SerialPort, register: u64) -> u8 {
    let mut value = [0];
    port.read(register, &mut value);
    value[0]
}

/// Reads while the line status reports data.
fn received(port: &mut SerialPort) -> Vec<u8> {
    let mut bytes = Vec::new();
    while read(port, LINE_STATUS) & 1 != 0 {
        bytes.push(read(port, DATA));
    }
    bytes
}

#[test]
fn output_of_the_guest_is_written() {
    let output = Output::default();
    let (mut port, _irq) = port(output.clone());
    assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60, "ready to send");
    for byte in b"hello" {
        port.write(DATA, &[*byte]);
    }
    // Neither a divisor write nor a wide access is output.
    port.write(LINE_CONTROL, &[0x80]);
    port.write(DATA, &[12]);
    port.write(LINE_CONTROL, &[3]);
    port.write(DATA, b"xx");
    port.write(DATA, b"");
    port.write(DATA + 256, b"x");
    assert_eq!(*lock(&output.0), b"hello");
}

#[test]
fn a_broken_output_does_not_stop_the_guest() {
    let (mut port, irq) = port(Broken);
    port.write(INTERRUPT_ENABLE, &[2]);
    irq.read().unwrap();
    port.read(2, &mut [0]);
    port.write(DATA, b"a");
    assert!(irq.read().is_ok(), "the transmit interrupt still comes");
}

#[test]
fn a_pasted_script_arrives_completely() {
    let (mut port, irq) = port(Output::default());
    port.write(INTERRUPT_ENABLE, &[1]);
    let script: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(port.input(&script), script.len());
    assert!(irq.read().is_ok());
    assert_eq!(received(&mut port), script);
    assert!(irq.read().is_ok(), "each FIFO is worth an interrupt");
    assert_eq!(port.input(b"more"), 4);
    assert_eq!(received(&mut port), b"more");
    assert_eq!(port.room(), MAX_PENDING);
}

#[test]
fn at_most_64_kib_are_queued_for_a_guest_that_does_not_read() {
    let (mut port, _irq) = port(Output::default());
    let chunk = [b'x'; 5000];
    let taken: usize = (0..100).map(|_| port.input(&chunk)).sum();
    // The queue and the FIFO.
    assert_eq!(taken, MAX_PENDING + 64);
    assert_eq!(port.room(), 0);
    assert_eq!(port.input(b"y"), 0);
    assert_eq!(received(&mut port), vec![b'x'; taken]);
}

#[test]
fn loop_back_delays_input_only() {
    let (mut port, irq) = port(Output::default());
    port.write(INTERRUPT_ENABLE, &[1]);
    port.write(MODEM, &[LOOP_BACK]);
    port.input(b"typed");
    assert_eq!(read(&mut port, LINE_STATUS) & 1, 0);
    port.write(DATA, b"t");
    assert_eq!(received(&mut port), b"t", "the driver's test of itself");
    while irq.read().is_ok() {}
    port.write(MODEM, &[8]);
    assert!(irq.read().is_ok(), "interrupted at once");
    assert_eq!(received(&mut port), b"typed");
}

fn through_json(state: &SerialState) -> SerialState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

#[test]
fn a_restored_port_has_the_queued_input() {
    let (mut first, _irq) = port(Output::default());
    first.write(INTERRUPT_ENABLE, &[1]);
    first.write(7, &[0x5a]);
    first.write(LINE_CONTROL, &[0x80]);
    first.write(DATA, &[12]);
    first.write(LINE_CONTROL, &[3]);
    let typed: Vec<u8> = (0..200).collect();
    first.input(&typed);
    for byte in &typed[..10] {
        assert_eq!(read(&mut first, DATA), *byte);
    }
    first.input(b"!");
    let state = through_json(&first.save());

    let output = Output::default();
    let (mut again, irq) = port(output.clone());
    again.restore(&state).unwrap();
    assert_eq!(again.save(), state);
    again.write(DATA, b"x");
    assert_eq!(*lock(&output.0), b"x", "the output was kept");
    assert_eq!(read(&mut again, 7), 0x5a);
    irq.read().unwrap();
    assert_eq!(received(&mut again), [&typed[10..], b"!"].concat());
    assert!(irq.read().is_ok(), "each FIFO is worth an interrupt");
}

#[test]
fn a_pending_interrupt_is_raised_after_restore() {
    let (mut first, first_irq) = port(Output::default());
    first.write(INTERRUPT_ENABLE, &[1]);
    first.input(b"a");
    assert!(first_irq.read().is_ok());
    let (mut again, irq) = port(Output::default());
    again.restore(&first.save()).unwrap();
    assert!(irq.read().is_ok());
    assert_eq!(received(&mut again), b"a");
    again.input(b"b");
    assert!(irq.read().is_ok(), "the interrupt line was kept");
    assert_eq!(received(&mut again), b"b");
}

#[test]
fn a_state_with_too_many_bytes_is_refused() {
    let (mut port, _irq) = port(Output::default());
    port.input(b"kept");
    let before = port.save();
    for (fifo, pending) in [(65, 0), (0, MAX_PENDING + 1)] {
        let state = SerialState {
            fifo: vec![0; fifo],
            pending: vec![0; pending],
            ..SerialState::default()
        };
        let error = port.restore(&state).unwrap_err().to_string();
        assert!(error.contains("serial port has 6"), "{error}");
        assert_eq!(port.save(), before);
    }
    assert_eq!(received(&mut port), b"kept");
}

#[test]
fn any_saved_state_is_loaded_or_refused_without_a_panic() {
    let bytes = |most| vec(any::<u8>(), 0..most);
    let state = (any::<[u8; 9]>(), bytes(70), bytes(300)).prop_map(
        |([low, high, ier, iir, lcr, lsr, mcr, msr, scratch], fifo, pending)| SerialState {
            divisor: [low, high],
            interrupt_enable: ier,
            interrupt_identification: iir,
            line_control: lcr,
            line_status: lsr,
            modem_control: mcr,
            modem_status: msr,
            scratch,
            fifo,
            pending,
        },
    );
    let access = (0_u64..8, any::<Option<u8>>());
    let run = |(state, accesses): (SerialState, Vec<(u64, Option<u8>)>)| {
        let (mut port, _irq) = port(Output::default());
        let loaded = port.restore(&state);
        assert_eq!(loaded.is_ok(), state.fifo.len() <= FIFO);
        for (offset, value) in accesses {
            match value {
                Some(value) => port.write(offset, &[value]),
                None => port.read(offset, &mut [0]),
            }
        }
        port.input(b"more");
        port.write(LINE_CONTROL, &[3]);
        port.write(MODEM, &[0]);
        assert!(received(&mut port).ends_with(b"more"));
        assert!(port.pending.is_empty(), "all of it was fed");
        Ok(())
    };
    let cases = (state, vec(access, 0..50));
    properties().run(&cases, run).unwrap();
}

#[test]
fn any_order_of_accesses_keeps_input_and_stays_bounded() {
    let access = (0_u64..10, 0_usize..=8, any::<Option<u8>>(), 0_usize..300);
    let run = |accesses: Vec<(u64, usize, Option<u8>, usize)>| {
        let (mut port, _irq) = port(Output::default());
        let mut given = 0;
        for (offset, width, value, typed) in accesses {
            match value {
                Some(value) => port.write(offset, &vec![value; width]),
                None => port.read(offset, &mut vec![0xff; width]),
            }
            given += port.input(&vec![b'i'; typed]);
            assert!(port.pending.len() <= MAX_PENDING);
            assert!(port.uart.fifo_capacity() <= 64);
        }
        port.write(LINE_CONTROL, &[3]);
        port.write(MODEM, &[0]);
        let read = received(&mut port).len();
        assert!(
            read <= given + 64,
            "{read} of {given}, and what looped back"
        );
        assert!(port.pending.is_empty(), "all of it was fed");
        Ok(())
    };
    properties().run(&vec(access, 1..100), run).unwrap();
}
