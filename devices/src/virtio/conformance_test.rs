use crate::rng::Rng;
use crate::testing::*;
use std::path::Path;

#[test]
fn rng_fills_the_buffer() {
    let guest = FakeGuest::new(Box::new(Rng::new(Path::new("/dev/urandom")).unwrap()));
    let mut rings = guest.start(guest.offered(), 16);
    assert_eq!(guest.request(&mut rings[0], &[(DATA, 64, true)]), 64);
}
