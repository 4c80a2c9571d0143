//! The socket at which a process waits to become a copy of another guest.

use crate::event_loop::{self, Added};
use crate::process::options::ForkChild;
use devices::util::unix_socket;
use devices::virtio::worker::Loop;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The listening socket, and the lifeline to the process that arranges the fork.
pub struct ForkListener {
    listener: UnixListener,
    options: ForkChild,
    connections: Added,
    lifeline: Option<Lifeline>,
}

/// The pipe whose other end a living process holds for as long as a parent may still connect.
struct Lifeline {
    closed: Arc<AtomicBool>,
    added: Added,
}

/// The state of a [`ForkListener`].
pub enum Arrival {
    /// A parent connected.
    Connected(UnixStream),
    /// No parent has connected yet.
    Waiting,
    /// The lifeline was closed: no parent will connect.
    Abandoned,
}

/// Wakes the event loop when a parent connects.
struct ConnectionWatch(OwnedFd);

impl MutEventSubscriber for ConnectionWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        if let Err(e) = ops.add(Events::new(&self.0, events)) {
            log::error!("cannot watch --fork-socket: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {}
}

/// Wakes the event loop when the lifeline is closed.
struct LifelineWatch {
    pipe: OwnedFd,
    closed: Arc<AtomicBool>,
}

impl MutEventSubscriber for LifelineWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // epoll reports a hang-up without being asked.
        if let Err(e) = ops.add(Events::new(&self.pipe, EventSet::EDGE_TRIGGERED)) {
            log::error!("cannot watch --fork-lifeline: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.closed.store(true, Ordering::Release);
    }
}

/// Takes ownership of the descriptor `number`, which this process inherited.
#[expect(unsafe_code, reason = "the descriptor arrives as a number")]
fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this call only asks whether the descriptor is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the command line hands it over to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

impl ForkListener {
    /// Listens at the socket of `options`, watched by `event_loop`.
    ///
    /// # Errors
    /// The socket cannot be created, or the lifeline is not an open descriptor.
    pub fn bind(options: &ForkChild, event_loop: &Loop) -> io::Result<Self> {
        let listener = unix_socket::listen(&options.socket)?;
        listener.set_nonblocking(true)?;
        let watch = ConnectionWatch(listener.as_fd().try_clone_to_owned()?);
        let lifeline = options.lifeline.map(|number| {
            let closed = Arc::new(AtomicBool::new(false));
            let watch = LifelineWatch {
                pipe: inherited(number)?,
                closed: closed.clone(),
            };
            let added = event_loop::add(event_loop, Box::new(watch));
            Ok::<_, io::Error>(Lifeline { closed, added })
        });
        Ok(Self {
            listener,
            options: options.clone(),
            connections: event_loop::add(event_loop, Box::new(watch)),
            lifeline: lifeline.transpose()?,
        })
    }

    /// Returns the options that the process was started with.
    pub fn options(&self) -> &ForkChild {
        &self.options
    }

    /// Accepts a connection, if there is one.
    pub fn accept(&self) -> Arrival {
        match self.listener.accept() {
            Ok((stream, _)) => Arrival::Connected(stream),
            Err(_) if self.is_abandoned() => Arrival::Abandoned,
            Err(_) => Arrival::Waiting,
        }
    }

    fn is_abandoned(&self) -> bool {
        let lifeline = self.lifeline.as_ref();
        lifeline.is_some_and(|lifeline| lifeline.closed.load(Ordering::Acquire))
    }

    /// Stops watching and removes the socket's name.
    pub fn close(self) {
        self.connections.remove();
        if let Some(lifeline) = self.lifeline {
            lifeline.added.remove();
        }
        // A name that cannot be removed is reported by the next process that binds it.
        let _ = std::fs::remove_file(&self.options.socket);
    }
}
