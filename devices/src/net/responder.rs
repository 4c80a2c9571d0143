//! Somebody on the card itself who answers some of the guest's frames, which then never reach the tap: the
//! metadata service.

use crate::GuestMemory;
use crate::virtio::buffers::Parts;
use std::time::Duration;

/// Bytes at the start of a frame by which [`Responder::takes`] decides: more than the headers of
/// Ethernet and of ARP or IPv4.
pub const HEAD: usize = 64;

/// Answers frames. All frames are Ethernet without a virtio header, and may be anything: what
/// comes is the guest's.
///
/// A guest that was offered it leaves checksums open, and sends TCP segments longer than the MTU, up to
/// 64 KiB: the responder must check no TCP checksum of what it receives, and fill in those of
/// what it sends.
pub trait Responder: Send {
    /// Whether the frame that begins with `head`, of up to [`HEAD`] bytes, is for the responder.
    ///
    /// A frame that is not goes to the tap out of the guest's memory, where the guest may have changed it
    /// since: this chooses who answers, and is no filter for what the tap sees.
    fn takes(&self, head: &[u8]) -> bool;

    /// A whole frame, which it took. Its bytes are those `takes` saw.
    fn receive(&mut self, frame: &[u8]);

    /// Puts the next frame for the guest into `buffer`, which holds any, and tells its length.
    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize>;

    /// Time until [`Self::poll`] is due; asked after each of the other calls.
    fn deadline(&mut self) -> Option<Duration>;

    /// The deadline has come. Frames may follow.
    fn poll(&mut self);
}

/// Gives `frame` to `responder` if it takes it. Each byte is read from the guest once.
pub(super) fn offer(responder: &mut dyn Responder, mem: &GuestMemory, frame: Parts) -> bool {
    let head_len = frame.len().min(HEAD);
    let Some((head, rest)) = frame.split_at(head_len) else {
        return false;
    };
    let mut bytes = vec![0; head_len];
    if head.read(mem, &mut bytes).is_err() || !responder.takes(&bytes) {
        return false;
    }
    bytes.resize(head_len + rest.len(), 0);
    match rest.read(mem, bytes.get_mut(head_len..).unwrap_or_default()) {
        Ok(()) => responder.receive(&bytes),
        Err(e) => log::debug!("dropped a frame for the card itself: {e}"),
    }
    true
}
