//! Property test: any packets in any order, with a host that behaves as it likes. The loop keeps turning, memory stays
//! bounded, and a new connection works.

use super::vsock_test::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// Host ports: two with a listener, one without, two of host clients.
const HOST_PORTS: [u32; 5] = [1, 2, 3, 1 << 30, (1 << 30) + 1];

#[derive(Clone, Debug)]
enum Step {
    /// A packet with an operation, a port of each side, flags, announced length and credit, and its real length.
    Say(u16, usize, u32, u32, (u32, u32, u32), u32),
    /// The same with another type or address.
    Odd(u16, u16, u64, u64),
    /// A request of a host client.
    Client(&'static str),
    /// The latest host socket writes.
    Write(usize),
    Read(usize),
    Close,
    End,
    Pause,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || prop_oneof![Just(0), Just(1), 0_u32..100_000, any::<u32>()];
    let op = || prop_oneof![8 => 1_u16..=7, 4 => Just(op::RW), 1 => any::<u16>()];
    let credit = (number(), number(), number());
    let len = prop_oneof![Just(0_u32), 1_u32..100, Just(65536), Just(4096)];
    let say = (op(), 0..HOST_PORTS.len(), 0_u32..3, 0_u32..5, credit, len);
    let say = say.prop_map(|(op, host, guest, flags, credit, len)| {
        // Mostly valid values.
        let (said, alloc, used) = credit;
        let said = if said % 4 == 0 { said } else { len };
        Step::Say(op, host, guest, flags, (said, alloc, used), len)
    });
    let odd = (op(), any::<u16>(), any::<u64>(), any::<u64>());
    let line = proptest::sample::select(&["", "CONNECT 1\n", "CONNECT 2\nearly", "CON", "\n"][..]);
    let step = prop_oneof![
        20 => say,
        1 => odd.prop_map(|(op, kind, from, to)| Step::Odd(op, kind, from, to)),
        4 => line.prop_map(Step::Client),
        4 => (0_usize..100_000).prop_map(Step::Write),
        4 => (0_usize..100_000).prop_map(Step::Read),
        2 => Just(Step::Close),
        1 => Just(Step::End),
        1 => Just(Step::Pause),
        1 => Just(Step::Reset),
    ];
    vec(step, 1..60)
}

struct Attack {
    bench: Bench,
    servers: Vec<std::os::unix::net::UnixListener>,
    sockets: Vec<UnixStream>,
}

impl Attack {
    fn hear_all(&mut self) {
        self.bench.guest.settle();
        while let Some((header, payload)) = self.bench.hear_now() {
            assert!(payload.is_empty() || header.op == op::RW);
            assert!((1..=7).contains(&header.op), "{header:?}");
        }
        for server in &self.servers {
            if let Ok((socket, _)) = server.accept() {
                self.sockets.push(socket);
            }
        }
        for socket in &self.sockets {
            socket.set_nonblocking(true).unwrap();
        }
    }

    fn step(&mut self, step: &Step) {
        let last = self.sockets.last();
        match *step {
            Step::Say(op, host, guest, flags, (said, buf_alloc, fwd_cnt), len) => {
                let ports = Ports {
                    host: HOST_PORTS[host],
                    guest,
                };
                let header = Header {
                    flags,
                    len: said,
                    buf_alloc,
                    fwd_cnt,
                    ..packet(ports, op)
                };
                self.bench.say(header, &vec![0x77; len as usize]);
            }
            Step::Odd(op, kind, src_cid, dst_cid) => {
                let ports = Ports { host: 1, guest: 1 };
                let header = Header {
                    kind,
                    src_cid,
                    dst_cid,
                    ..packet(ports, op)
                };
                self.bench.say(header, &[]);
            }
            Step::Client(line) => {
                let mut client = self.bench.connect();
                client.write_all(line.as_bytes()).unwrap();
                self.sockets.push(client);
            }
            // The write may fail; that is up to the device.
            Step::Write(len) => drop(last.map(|mut s| s.write(&vec![0x66; len]))),
            Step::Read(len) => drop(last.map(|mut s| s.read(&mut vec![0; len]))),
            Step::End => drop(last.map(|s| s.shutdown(std::net::Shutdown::Write))),
            Step::Close => drop(self.sockets.pop()),
            Step::Pause => {
                crate::lock(&self.bench.guest.transport).pause();
                crate::lock(&self.bench.guest.transport).resume();
            }
            Step::Reset => {
                self.bench.restart();
                for _ in 0..8 {
                    self.bench.offer();
                }
            }
        }
    }
}

#[test]
fn any_order_of_packets_is_survived() {
    let event_loop = TestLoop::spawn();
    let run = |steps: Vec<Step>| {
        let bench = Bench::on(event_loop.clone());
        let servers = [1, 2].map(|port| bench.listen(port));
        for server in &servers {
            server.set_nonblocking(true).unwrap();
        }
        let mut attack = Attack {
            bench,
            servers: servers.into(),
            sockets: Vec::new(),
        };
        for step in &steps {
            attack.step(step);
            attack.hear_all();
        }
        let Attack { mut bench, .. } = attack;
        bench.hear_nothing();
        assert!(bench.event_loop.is_alive());
        let (_, mut client) = bench.asked_by_host();
        client.write_all(b"well").unwrap();
        assert_eq!(bench.hear().1, b"well");
        Ok(())
    };
    if let Err(e) = properties().run(&steps(), run) {
        panic!("{e}");
    }
}
