//! The console's output: standard output or a file, and the clients of the console socket.

use crate::process::output_file::{is_ready, open_nonblocking};
use devices::lock;
use devices::platform::serial::SerialMetrics;
use devices::util::rate_limiter::Bucket;
use devices::util::timer::now;
use nix::poll::PollTimeout;
use resources::Serial;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Output kept for clients that attach later, in bytes: about a thousand lines.
const HISTORY: usize = 64 << 10;
/// Bytes written at once. A pipe that is ready takes as many (PIPE_BUF), and a terminal usually does.
const PIECE: usize = 512;
/// Time to wait for a full output before checking whether to wait at all.
const PATIENCE_MS: u8 = 20;
/// Limit of attached clients.
pub(super) const MAX_ATTACHED: usize = 8;

/// The clients of the console socket, and the output kept for new ones.
#[derive(Default)]
pub struct Attached {
    history: VecDeque<u8>,
    clients: Vec<Client>,
    next_id: u64,
}

struct Client {
    id: u64,
    stream: UnixStream,
    /// Output that the client's socket did not take yet. A client that lags by more than the history loses the rest.
    behind: VecDeque<u8>,
}

impl Client {
    /// Sends `bytes`. Returns false if the client is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let room = HISTORY.saturating_sub(self.behind.len());
        self.behind
            .extend(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.behind.is_empty() {
            let (front, _) = self.behind.as_slices();
            match self.stream.write(front) {
                Ok(0) => return false,
                Ok(taken) => drop(self.behind.drain(..taken)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl Attached {
    /// Attaches `stream`, which must not block, and sends it the history. Returns the client's number; `None` if there are too
    /// many clients.
    pub fn attach(&mut self, stream: UnixStream) -> Option<u64> {
        if self.clients.len() >= MAX_ATTACHED {
            return None;
        }
        self.next_id += 1;
        let mut client = Client {
            id: self.next_id,
            stream,
            behind: self.history.clone(),
        };
        client.flush();
        self.clients.push(client);
        Some(self.next_id)
    }

    /// Sends the pending output of a client whose socket has room again.
    pub fn flush(&mut self, id: u64) {
        self.clients
            .retain_mut(|client| client.id != id || client.flush());
    }

    /// Reads the client's input. Returns `None` if the client is gone.
    pub fn read<'b>(&mut self, id: u64, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let client = self.clients.iter_mut().find(|client| client.id == id)?;
        match client.stream.read(buffer) {
            Ok(0) => None,
            Ok(len) => buffer.get(..len),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Some(&[])
            }
            Err(_) => None,
        }
    }

    /// Detaches the client.
    pub fn detach(&mut self, id: u64) {
        self.clients.retain(|client| client.id != id);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.history.extend(bytes);
        let above = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..above);
        self.clients.retain_mut(|client| client.send(bytes));
    }
}

/// The console's output. It outlives the machines that write to it.
#[derive(Clone)]
pub struct Output {
    target: Arc<File>,
    /// Whether the output is a user's file, which must not block the guest.
    lossy: bool,
    limit: Option<Arc<Mutex<Bucket>>>,
    attached: Option<Arc<Mutex<Attached>>>,
    waiting: Arc<Waiting>,
    /// Metrics of the serial port that writes.
    metrics: Arc<SerialMetrics>,
}

/// Output that a full pipe or terminal has not taken. Writers wait, as on a real line with flow control.
#[derive(Default)]
struct Waiting {
    /// Whether writers must not wait, because the vCPU that writes must pause.
    nonblocking: AtomicBool,
    /// Output that was not written without waiting. Bytes beyond [`HISTORY`] are lost.
    bytes: Mutex<VecDeque<u8>>,
}

impl Output {
    /// Opens the output of `config`, or standard output.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(config: &Serial) -> io::Result<Self> {
        let target = match &config.serial_out_path {
            Some(path) => open_nonblocking(path)?,
            // Unbuffered, because a prompt has no line feed.
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        let limit = config.rate_limiter.and_then(|b| Bucket::new(&b, now()));
        Ok(Self {
            target: Arc::new(target),
            lossy: config.serial_out_path.is_some(),
            limit: limit.map(|bucket| Arc::new(Mutex::new(bucket))),
            attached: config.socket.as_ref().map(|_| Arc::default()),
            waiting: Arc::default(),
            metrics: Arc::default(),
        })
    }

    /// Returns the same output with the metrics of another port.
    pub fn counting(&self, metrics: Arc<SerialMetrics>) -> Self {
        Self {
            metrics,
            ..self.clone()
        }
    }

    /// Returns the clients of the console socket; `None` without a socket.
    pub fn attached(&self) -> Option<Arc<Mutex<Attached>>> {
        self.attached.clone()
    }

    /// Returns whether the output takes the bytes that a serial port sends at once.
    pub fn is_writable(&self) -> bool {
        self.lossy || is_ready(self.target.as_fd(), PollTimeout::ZERO)
    }

    /// Sets whether a writer waits for a full output. If not, the bytes are kept for the next write.
    pub fn set_blocking(&self, wait: bool) {
        self.waiting.nonblocking.store(!wait, Ordering::Release);
    }

    /// Writes the kept bytes and then `bytes`, as far as the output takes them.
    fn write_waiting(&self, bytes: &[u8]) -> io::Result<()> {
        let mut waiting = lock(&self.waiting.bytes);
        let room = HISTORY.saturating_sub(waiting.len());
        waiting.extend(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        while !waiting.is_empty() {
            if !is_ready(self.target.as_fd(), PATIENCE_MS.into()) {
                // A signal came, or the output is not read.
                if self.waiting.nonblocking.load(Ordering::Acquire) {
                    return Ok(());
                }
                continue;
            }
            let (front, _) = waiting.as_slices();
            let piece = front.get(..front.len().min(PIECE)).unwrap_or_default();
            match (&*self.target).write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => drop(waiting.drain(..taken)),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(e) => {
                    waiting.clear();
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(limit) = &self.limit {
            let wanted = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if lock(limit).take(wanted, now()).is_err() {
                // The bytes are lost, as on a line without flow control.
                self.metrics.rate_limiter_dropped_bytes.add(wanted);
                return Ok(bytes.len());
            }
        }
        if let Some(attached) = &self.attached {
            lock(attached).write(bytes);
        }
        if !self.lossy {
            self.write_waiting(bytes)?;
            return Ok(bytes.len());
        }
        match (&*self.target).write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(bytes.len()),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a duplicate of `stream` for an event loop, which must own what it watches.
pub(super) fn watched(stream: &UnixStream) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}
