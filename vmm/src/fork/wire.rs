//! The protocol between a forked guest, the parent, and the processes that become its copies, the children.
//!
//! A child listens at a Unix socket. The parent connects and receives the child's *hello*, with the image files that must
//! become clones of its drives. It clones the images of all children, and sends each child the *fork point*: descriptors of
//! the state (as JSON) and of each layer of the memory, which is not written any more, and the child's overrides. Neither
//! side trusts the other: everything is checked as a snapshot is.
//!
//! ```text
//! child → parent   "BANTAMF1", u32 length, JSON: {"drives": [id, …]}              with a descriptor for each drive
//! parent → child   "BANTAMF1", u32 length, JSON: {"layers": [runs or null, …],    with those of the state and
//!                                                 "own": overrides}                each layer
//! ```

use crate::machine::memory::layers::{Layer, Layers};
use crate::machine::memory::mapping;
use crate::snapshot::{MAX_CHAIN, MAX_STATE_BYTES, Snapshot};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use resources::Overrides;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"BANTAMF1";
const HEADER: usize = 12;
/// Limit of a message in bytes: enough for the ranges of eight layers of a large guest.
const MAX_MESSAGE: usize = 16 << 20;
/// Limit of descriptors in a message, which is the kernel's.
const MAX_DESCRIPTORS: usize = 253;
/// Time that a child may take for a message.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The first message of a child.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Ids of the drives to clone, in the order of the descriptors.
    pub drives: Vec<String>,
}

/// The message of the fork point, beside its descriptors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PointMessage {
    layers: Vec<Option<Vec<(u64, u64)>>>,
    own: Overrides,
}

/// The point at which a guest was forked.
pub struct ForkPoint {
    /// The state, in a sealed memory file.
    pub state: File,
    /// The layers of the memory.
    pub layers: Layers,
}

/// A fork point that a child received.
pub struct Received {
    /// The state.
    pub snapshot: Snapshot,
    /// The layers of the memory.
    pub layers: Layers,
    /// The child's overrides.
    pub own: Overrides,
}

impl ForkPoint {
    /// Creates the fork point of `snapshot` with its memory in `layers`, and seals the state.
    ///
    /// # Errors
    /// The host has no memory for the state.
    pub fn new(snapshot: &Snapshot, layers: Layers) -> io::Result<Self> {
        let json = serde_json::to_vec(snapshot)?;
        let state = mapping::file_in_memory(c"guest-state", json.len() as u64)?;
        state.write_all_at(&json, 0)?;
        mapping::seal(&state)?;
        Ok(Self { state, layers })
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Sends `message` with `descriptors`.
fn send(stream: &UnixStream, message: &impl Serialize, descriptors: &[RawFd]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let len = u32::try_from(json.len()).map_err(io::Error::other)?;
    let header = [MAGIC.as_slice(), &len.to_le_bytes()].concat();
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    let parts = [IoSlice::new(&header)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, control, flags, None)?;
    if sent != header.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    (&*stream).write_all(&json)
}

/// Receives a message with its descriptors.
#[expect(unsafe_code, reason = "descriptors arrive as numbers")]
fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut header = [0; HEADER];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut descriptors = Vec::new();
    let mut parts = [IoSliceMut::new(&mut header)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just created these descriptors for this process, and nothing else owns them.
            let owned = numbers
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            descriptors.extend(owned);
        }
    }
    let bytes = message.bytes;
    let (magic, len) = header.split_at(MAGIC.len());
    if bytes != HEADER || magic != MAGIC {
        return Err(invalid("the message is not of the fork protocol"));
    }
    let len = len.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(invalid(format!(
            "a message of {len} bytes exceeds the limit"
        )));
    }
    let mut json = Vec::new();
    stream.take(len as u64).read_to_end(&mut json)?;
    Ok((serde_json::from_slice(&json)?, descriptors))
}

/// The parent's connection to a child.
pub struct ChildConnection {
    stream: UnixStream,
    /// Empty image files, with the ids of the drives to clone into them.
    pub images: Vec<(String, File)>,
}

impl ChildConnection {
    /// Receives the hello of the child behind `stream`.
    ///
    /// # Errors
    /// The child disconnected, or is not a waiting process.
    pub fn receive_hello(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let (hello, descriptors): (Hello, _) = receive(&stream)?;
        if hello.drives.len() != descriptors.len() {
            return Err(invalid("the numbers of drives and descriptors differ"));
        }
        let files = descriptors.into_iter().map(File::from);
        Ok(Self {
            stream,
            images: hello.drives.into_iter().zip(files).collect(),
        })
    }

    /// Sends the fork point to the child.
    ///
    /// # Errors
    /// The child disconnected.
    pub fn send_point(&self, point: &ForkPoint, own: &Overrides) -> io::Result<()> {
        let layers = &point.layers.0;
        let mut descriptors = vec![point.state.as_raw_fd()];
        descriptors.extend(layers.iter().map(|layer| layer.file.as_raw_fd()));
        let message = PointMessage {
            layers: layers.iter().map(|layer| layer.runs.clone()).collect(),
            own: own.clone(),
        };
        send(&self.stream, &message, &descriptors)
    }
}

/// The child's connection to its parent.
pub struct ParentConnection(UnixStream);

impl ParentConnection {
    /// Sends the hello over `stream`. The parent clones its drives into `images`.
    ///
    /// # Errors
    /// The parent disconnected.
    pub fn send_hello(stream: UnixStream, images: &[(String, File)]) -> io::Result<Self> {
        // No read timeout: the fork point comes after all children have sent their hello. A parent that dies closes the stream.
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let hello = Hello {
            drives: images.iter().map(|(id, _)| id.clone()).collect(),
        };
        let files: Vec<_> = images.iter().map(|(_, file)| file.as_raw_fd()).collect();
        send(&stream, &hello, &files)?;
        Ok(Self(stream))
    }

    /// Receives the fork point.
    ///
    /// # Errors
    /// The parent disconnected, or its message is invalid.
    pub fn receive_point(self) -> io::Result<Received> {
        let (point, descriptors): (PointMessage, _) = receive(&self.0)?;
        let mut files = descriptors.into_iter().map(File::from);
        let state = files
            .next()
            .ok_or_else(|| invalid("the state is missing"))?;
        let layers = files.zip(point.layers).map(|(file, runs)| Layer {
            file: Arc::new(file),
            runs,
        });
        let layers = Layers(layers.take(MAX_CHAIN).collect());
        let len = state.metadata()?.len();
        if len > MAX_STATE_BYTES {
            return Err(invalid(format!("a state of {len} bytes exceeds the limit")));
        }
        let mut json = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        state.read_exact_at(&mut json, 0)?;
        let snapshot = Snapshot::from_json(&json).map_err(invalid)?;
        layers.check(snapshot.memory.bytes).map_err(invalid)?;
        Ok(Received {
            snapshot,
            layers,
            own: point.own,
        })
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod wire_test;
