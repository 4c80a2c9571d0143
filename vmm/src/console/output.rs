//! Where the guest's console writes: standard output or a file, and those who are attached.

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

/// Bytes of output kept for who attaches later: some thousand lines.
const HISTORY: usize = 64 << 10;
/// Bytes written at once: a pipe that is ready takes them (PIPE_BUF), a terminal commonly does.
const PIECE: usize = 512;
/// How long to wait for an output that is full before looking whether to.
const PATIENCE_MS: u8 = 20;
/// Most who are attached at once.
pub(super) const MAX_ATTACHED: usize = 8;

/// Those who are attached through the console's socket, and what they would have missed.
#[derive(Default)]
pub struct Attached {
    history: VecDeque<u8>,
    clients: Vec<Client>,
    next_id: u64,
}

struct Client {
    id: u64,
    stream: UnixStream,
    /// What its socket did not take yet; a client that lags by more than the history loses the rest.
    behind: VecDeque<u8>,
}

impl Client {
    /// Returns false if it is gone.
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
    /// Attaches `stream`, which must not block, and sends it the history. Returns the number it has here;
    /// `None` if there are too many.
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

    /// The client's socket has room again.
    pub fn flush(&mut self, id: u64) {
        self.clients
            .retain_mut(|client| client.id != id || client.flush());
    }

    /// What the client typed; `None` if it is gone.
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

    /// Lets the client go.
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

/// The console's output, made once and lent to each machine.
#[derive(Clone)]
pub struct Output {
    target: Arc<File>,
    /// A file of the user's, which must not block the guest.
    lossy: bool,
    limit: Option<Arc<Mutex<Bucket>>>,
    attached: Option<Arc<Mutex<Attached>>>,
    waiting: Arc<Waiting>,
    /// Of the port that writes.
    metrics: Arc<SerialMetrics>,
}

/// Output for a pipe or a terminal that is full: whoever writes waits, as on a real line that is held up.
#[derive(Default)]
struct Waiting {
    /// Nobody waits any more: the vCPU that writes is wanted elsewhere.
    nonblocking: AtomicBool,
    /// What was not written then, for the next time; what is above [`HISTORY`] is lost.
    bytes: Mutex<VecDeque<u8>>,
}

impl Output {
    /// As `config` says; standard output if it says nothing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(config: &Serial) -> io::Result<Self> {
        let target = match &config.serial_out_path {
            Some(path) => open_nonblocking(path)?,
            // Unbuffered: a guest's prompt has no newline.
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

    /// The same for a port that counts in `metrics`.
    pub fn counting(&self, metrics: Arc<SerialMetrics>) -> Self {
        Self {
            metrics,
            ..self.clone()
        }
    }

    /// Those who are attached; `None` without a socket.
    pub fn attached(&self) -> Option<Arc<Mutex<Attached>>> {
        self.attached.clone()
    }

    /// Whether it takes what a serial port sends at once, as a pipe does that is ready.
    pub fn is_writable(&self) -> bool {
        self.lossy || is_ready(self.target.as_fd(), PollTimeout::ZERO)
    }

    /// Whether a writer waits for an output that is full; one that does not keeps what it could not write.
    pub fn set_blocking(&self, wait: bool) {
        self.waiting.nonblocking.store(!wait, Ordering::Release);
    }

    /// Writes what waits, and `bytes` after it, as far as the output takes it.
    fn write_waiting(&self, bytes: &[u8]) -> io::Result<()> {
        let mut waiting = lock(&self.waiting.bytes);
        let room = HISTORY.saturating_sub(waiting.len());
        waiting.extend(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        while !waiting.is_empty() {
            if !is_ready(self.target.as_fd(), PATIENCE_MS.into()) {
                // A signal, or nobody reads.
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
                // Lost, as on a line that nobody holds up.
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

/// A descriptor of `stream` for a loop to watch: the loop owns what it watches.
pub(super) fn watched(stream: &UnixStream) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}
