//! How a guest that is forked reaches the processes that are to have its copies.
//!
//! A process waits at a Unix socket. The parent connects and reads its *hello*, which carries the images that the process wants
//! copied; then it makes the copies of all, and sends each the *fork point*: descriptors of the state (as JSON) and of each
//! layer of the memory, none of which anybody writes to any more, and what is the child's own. All that arrives may be
//! hostile, and is checked as a snapshot is.
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
/// Most bytes of a message: the runs of eight layers of a large guest.
const MAX_MESSAGE: usize = 16 << 20;
/// Most descriptors of a message; the kernel's limit.
const MAX_DESCRIPTORS: usize = 253;
/// How long a child may be silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a waiting process says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The drives of which it wants a copy, in the order of the descriptors.
    pub drives: Vec<String>,
}

/// What it is given, besides the descriptors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PointMessage {
    layers: Vec<Option<Vec<(u64, u64)>>>,
    own: Overrides,
}

/// Where a guest was forked.
pub struct ForkPoint {
    /// Its state, in memory.
    pub state: File,
    /// Its memory.
    pub layers: Layers,
}

/// What arrived at a child.
pub struct Received {
    /// The state.
    pub snapshot: Snapshot,
    /// The memory.
    pub layers: Layers,
    /// What is the child's own.
    pub own: Overrides,
}

impl ForkPoint {
    /// Where the guest of `snapshot` is, with its memory in `layers`. Nobody who gets it can change it.
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
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
            let owned = numbers
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            descriptors.extend(owned);
        }
    }
    let bytes = message.bytes;
    let (magic, len) = header.split_at(MAGIC.len());
    if bytes != HEADER || magic != MAGIC {
        return Err(invalid("the other side does not speak of forks"));
    }
    let len = len.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(invalid(format!("a message of {len} bytes")));
    }
    let mut json = Vec::new();
    stream.take(len as u64).read_to_end(&mut json)?;
    Ok((serde_json::from_slice(&json)?, descriptors))
}

/// The parent's side of a connection to a child.
pub struct ChildConnection {
    stream: UnixStream,
    /// Empty images, with the ids of the drives that they are to be copies of.
    pub images: Vec<(String, File)>,
}

impl ChildConnection {
    /// Has heard what the child at the other end of `stream`, which was connected to its socket, wants.
    ///
    /// # Errors
    /// It is gone, or is somebody else.
    pub fn receive_hello(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let (hello, descriptors): (Hello, _) = receive(&stream)?;
        if hello.drives.len() != descriptors.len() {
            return Err(invalid("a drive without an image, or an image too many"));
        }
        let files = descriptors.into_iter().map(File::from);
        Ok(Self {
            stream,
            images: hello.drives.into_iter().zip(files).collect(),
        })
    }

    /// Gives the child its guest.
    ///
    /// # Errors
    /// It is gone.
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

/// The child's side.
pub struct ParentConnection(UnixStream);

impl ParentConnection {
    /// Over `stream`, which the parent opened. `images` are to become copies of the parent's drives.
    ///
    /// # Errors
    /// It is gone.
    pub fn send_hello(stream: UnixStream, images: &[(String, File)]) -> io::Result<Self> {
        // The guest comes when all children have been heard, however many there are; a parent that is gone is heard of.
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let hello = Hello {
            drives: images.iter().map(|(id, _)| id.clone()).collect(),
        };
        let files: Vec<_> = images.iter().map(|(_, file)| file.as_raw_fd()).collect();
        send(&stream, &hello, &files)?;
        Ok(Self(stream))
    }

    /// Waits for the guest.
    ///
    /// # Errors
    /// The parent is gone, or what it sent is no guest.
    pub fn receive_point(self) -> io::Result<Received> {
        let (point, descriptors): (PointMessage, _) = receive(&self.0)?;
        let mut files = descriptors.into_iter().map(File::from);
        let state = files.next().ok_or_else(|| invalid("there is no state"))?;
        let layers = files.zip(point.layers).map(|(file, runs)| Layer {
            file: Arc::new(file),
            runs,
        });
        let layers = Layers(layers.take(MAX_CHAIN).collect());
        let len = state.metadata()?.len();
        if len > MAX_STATE_BYTES {
            return Err(invalid(format!("a state of {len} bytes")));
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
