//! The interface of a responder: a service on the card that answers some of the guest's frames, such as the metadata
//! service. These frames never reach the tap.

use crate::GuestMemory;
use crate::virtio::buffers::Parts;
use std::time::Duration;

/// Bytes at the start of a frame that [`Responder::takes`] sees: more than the headers of Ethernet and of ARP or IPv4.
pub const HEAD: usize = 64;

/// Answers frames of the guest. All frames are Ethernet frames without a virtio header. Received frames are untrusted.
///
/// A guest that accepted offloads sends frames without checksums, and TCP segments of up to 64 KiB. A responder must not
/// check TCP checksums of received frames, and must fill them in when it sends.
pub trait Responder: Send {
    /// Returns true if the frame that starts with `head`, at most [`HEAD`] bytes, is for the responder.
    ///
    /// Other frames go to the tap from guest memory, where the guest may have changed them since. So this decides who
    /// answers, but it does not filter what the tap gets.
    fn takes(&self, head: &[u8]) -> bool;

    /// Handles a frame that [`Self::takes`] accepted. Its first bytes are those that `takes` saw.
    fn receive(&mut self, frame: &[u8]);

    /// Writes the next frame for the guest into `buffer`, which is large enough, and returns its length.
    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize>;

    /// Returns the time until [`Self::poll`] is due. Called after each of the other calls.
    fn deadline(&mut self) -> Option<Duration>;

    /// Handles the deadline. Frames may follow.
    fn poll(&mut self);
}

/// Passes `frame` to `responder` if it takes it. Guest memory is read once.
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
        Err(e) => log::debug!("dropped a frame for the responder: {e}"),
    }
    true
}
