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

/// What a driver reads while the line status says that there is something.
fn received(port: &mut SerialPort) -> Vec<u8> {
    let mut bytes = Vec::new();
    while read(port, LINE_STATUS) & 1 != 0 {
        bytes.push(read(port, DATA));
    }
    bytes
}

#[test]
fn what_the_guest_sends_comes_out() {
    let output = Output::default();
    let (mut port, _irq) = port(output.clone());
    assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60, "ready to send");
    for byte in b"hello" {
        port.write(DATA, &[*byte]);
    }
    // The divisor is no output; neither is a wide access.
    port.write(LINE_CONTROL, &[0x80]);
    port.write(DATA, &[12]);
    port.write(LINE_CONTROL, &[3]);
    port.write(DATA, b"xx");
    port.write(DATA, b"");
    port.write(DATA + 256, b"x");
    assert_eq!(*lock(&output.0), b"hello");
}

#[test]
fn an_output_that_is_gone_does_not_stop_the_guest() {
    let (mut port, irq) = port(Broken);
    port.write(INTERRUPT_ENABLE, &[2]);
    irq.read().unwrap();
    port.read(2, &mut [0]);
    port.write(DATA, b"a");
    assert!(irq.read().is_ok(), "still told that it may send");
}

#[test]
fn a_pasted_script_arrives_whole() {
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
fn a_guest_that_does_not_read_keeps_64_kib() {
    let (mut port, _irq) = port(Output::default());
    let chunk = [b'x'; 5000];
    let taken: usize = (0..100).map(|_| port.input(&chunk)).sum();
    // What is pending, and what is in the FIFO.
    assert_eq!(taken, MAX_PENDING + 64);
    assert_eq!(port.room(), 0);
    assert_eq!(port.input(b"y"), 0);
    assert_eq!(received(&mut port), vec![b'x'; taken]);
}

#[test]
fn loop_back_only_holds_input_up() {
    let (mut port, irq) = port(Output::default());
    port.write(INTERRUPT_ENABLE, &[1]);
    port.write(MODEM, &[LOOP_BACK]);
    port.input(b"typed");
    assert_eq!(read(&mut port, LINE_STATUS) & 1, 0);
    port.write(DATA, b"t");
    assert_eq!(received(&mut port), b"t", "the driver's test of itself");
    while irq.read().is_ok() {}
    port.write(MODEM, &[8]);
    assert!(irq.read().is_ok(), "told at once");
    assert_eq!(received(&mut port), b"typed");
}

fn through_json(state: &SerialState) -> SerialState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

#[test]
fn a_restored_port_goes_on_with_what_was_typed() {
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
    assert_eq!(*lock(&output.0), b"x", "it has its output");
    assert_eq!(read(&mut again, 7), 0x5a);
    irq.read().unwrap();
    assert_eq!(received(&mut again), [&typed[10..], b"!"].concat());
    assert!(irq.read().is_ok(), "each FIFO is worth an interrupt");
}

#[test]
fn a_pending_interrupt_is_raised_again() {
    let (mut first, first_irq) = port(Output::default());
    first.write(INTERRUPT_ENABLE, &[1]);
    first.input(b"a");
    assert!(first_irq.read().is_ok());
    let (mut again, irq) = port(Output::default());
    again.restore(&first.save()).unwrap();
    assert!(irq.read().is_ok());
    assert_eq!(received(&mut again), b"a");
    again.input(b"b");
    assert!(irq.read().is_ok(), "it has its line");
    assert_eq!(received(&mut again), b"b");
}

#[test]
fn a_port_that_holds_too_much_is_refused() {
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
fn no_state_of_a_port_does_harm() {
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
fn no_order_of_accesses_loses_input_or_grows_without_bound() {
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
