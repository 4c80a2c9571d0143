//! Helpers of this room's tests: a service with a clock of the test's, and the guest's frames.

use super::ethernet::{self, Frame, Mac};
use super::ipv4;
use super::service::Mmds;
use super::tcp::{Header, Segment, Seq};
use devices::util::metrics::{MetricSet as _, Value};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// MAC address of the guest.
pub const GUEST_MAC: Mac = [2, 0, 0, 0, 0, 9];
/// IP address of the guest.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// IP address of the service.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Limit of the data.
pub const LIMIT: usize = 51200;

/// A clock that the test advances.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// Returns the time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Advances the clock by `time`, rounded up to microseconds.
    pub fn advance(&self, time: Duration) {
        let micros = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap();
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Returns a service and its clock.
pub fn service() -> (Mmds, TestClock) {
    let clock = TestClock::default();
    let its = clock.clone();
    let mmds = Mmds::with_clock(LIMIT, Box::new(move || its.now())).unwrap();
    (mmds, clock)
}

/// Returns a metric of `mmds`.
pub fn counted(mmds: &Mmds, metric: &str) -> u64 {
    let mut count = None;
    mmds.0.metrics.visit(&mut |name, value| {
        if let (true, Value::Count(n)) = (name == metric, value) {
            count = Some(n);
        }
    });
    count.unwrap()
}

/// Returns a frame of the guest with `payload`.
pub fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet::header(ethernet::OUR_MAC, ethertype).to_vec();
    frame[6..12].copy_from_slice(&GUEST_MAC);
    frame.extend_from_slice(payload);
    frame
}

/// Returns a frame of the guest with a TCP segment for the service, without a checksum.
pub fn segment_frame(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; header.size() + payload.len()];
    header.write(GUEST, SERVICE, payload, &mut segment);
    segment[16..18].fill(0xab);
    let ip = ipv4::header(GUEST, SERVICE, segment.len()).unwrap();
    frame(ethernet::IPV4, &[&ip[..], &segment].concat())
}

/// Returns the header of a segment from the guest's `peer_port` to port 80.
pub fn to_service(peer_port: u16, seq: Seq, ack: Seq, flags: u8) -> Header {
    Header {
        port: peer_port,
        peer_port: 80,
        seq,
        ack,
        flags,
        window: 0xffff,
        mss: None,
    }
}

/// Returns the segment in a frame of the service, and checks all headers and checksums.
pub fn segment_of(bytes: &[u8]) -> Segment<'_> {
    assert_eq!(bytes[..6], GUEST_MAC);
    let frame = Frame::parse(bytes).unwrap();
    assert_eq!(
        (frame.source, frame.ethertype),
        (ethernet::OUR_MAC, ethernet::IPV4)
    );
    assert_eq!(ipv4::destination(frame.payload), Some(GUEST));
    let header = ipv4::Checksum::default().with(&frame.payload[..ipv4::HEADER]);
    assert_eq!(header.value(), 0);
    let packet = ipv4::Packet::parse(frame.payload).unwrap();
    assert_eq!((packet.source, packet.protocol), (SERVICE, ipv4::TCP));
    assert_eq!(ipv4::HEADER + packet.payload.len(), frame.payload.len());
    let sum = ipv4::Checksum::of_pseudo_header(SERVICE, GUEST, packet.payload.len());
    assert_eq!(sum.with(packet.payload).value(), 0);
    Segment::parse(packet.payload).unwrap()
}
