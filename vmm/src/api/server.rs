//! The API's thread: accepts clients, passes their requests to the main thread one by one, and returns the answers. A slow
//! client delays only itself.

use super::connection::{Connection, Next};
use super::event_stream::{EventReceiver, EventSender, channel};
use super::http::Request;
use super::response::Response;
use super::routes::{Parsed, parse};
use crate::control::command::{Command, CommandError, Reply};
use crate::control::lifecycle::Events;
use crate::event_loop::wake;
use crate::metrics::Metrics;
use crate::process::confined_thread;
use crate::seccomp::{Filters, Thread};
use devices::util::timer::now;
use devices::util::unix_socket;
use devices::virtio::worker::Loop;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Name of the API's thread, as Firecracker calls it.
const THREAD: &str = "fc_api";
/// Limit of connections. Another client replaces an idle one, or waits in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
/// Time after which an idle client may be replaced: longer than clients that keep their connection pause between two
/// requests.
const IDLE: Duration = Duration::from_secs(1);
/// Pause after a failed accept. Nothing reports when a descriptor becomes free.
const PAUSE: Duration = Duration::from_millis(100);
const LISTENER: u64 = 0;
const MESSAGES: u64 = 1;
/// Token of the first client.
const FIRST: u64 = 2;
/// Limit of events in one turn.
const EVENTS: usize = 32;
/// Limit of the time that the process waits at its end for the last answers. The thread waits for no client, so it needs
/// this much only on a host whose processors are busy.
const FINAL_FLUSH: Duration = Duration::from_secs(5);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path exists already.
    #[error(
        "cannot listen at {}: another process does, or a file is in the way; choose another path with \
         --api-sock", .0.display()
    )]
    InUse(PathBuf),
    /// The host refused the socket.
    #[error("cannot listen at {}", path.display())]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The host has no more descriptors or threads, or refused the thread's filter.
    #[error("cannot start the API")]
    Start(#[source] io::Error),
}

/// Listens at `path`.
///
/// # Errors
/// [`ApiError::InUse`], [`ApiError::Bind`].
pub fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    unix_socket::listen(path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ApiError::InUse(path.into()),
        _ => ApiError::Bind {
            path: path.into(),
            source,
        },
    })
}

type Answer = Result<Reply, CommandError>;

struct PendingCommand {
    command: Command,
    answer: mpsc::SyncSender<Answer>,
}

/// The commands that wait for the main thread.
pub struct CommandQueue {
    commands: mpsc::Receiver<PendingCommand>,
    sender: EventSender,
    ended: mpsc::Receiver<()>,
}

impl CommandQueue {
    /// Carries out all waiting commands with `apply`.
    pub fn serve(&self, mut apply: impl FnMut(Command) -> Answer) {
        for PendingCommand { command, answer } in self.commands.try_iter() {
            // The API's thread waits for the answer, unless it has failed.
            let _ = answer.send(apply(command));
        }
    }

    /// Waits until clients have their last answers and events. Called at the end of the process.
    pub fn end(self) {
        // The queue is closed first: a thread that waits for a command's answer reads no message.
        drop(self.commands);
        self.sender.end();
        let _ = self.ended.recv_timeout(FINAL_FLUSH);
    }
}

/// The options of the API's thread.
pub struct Options {
    /// Limit of a body in bytes.
    pub max_body: usize,
    /// The loop of the main thread.
    pub event_loop: Loop,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Seccomp filters.
    pub seccomp: Arc<Filters>,
}

/// The state of the API's thread.
pub struct Api {
    listener: UnixListener,
    epoll: Epoll,
    connections: BTreeMap<u64, Connection>,
    next_token: u64,
    /// Whether the listener is watched.
    accepting: bool,
    /// End of the pause in accepting. A client that disconnects ends it, too.
    paused: Option<Duration>,
    commands: mpsc::Sender<PendingCommand>,
    receiver: EventReceiver,
    options: Options,
}

impl Api {
    /// Starts a thread that serves `listener`.
    ///
    /// # Errors
    /// [`ApiError::Start`].
    pub fn start(
        listener: UnixListener,
        events: &Events,
        options: Options,
    ) -> Result<CommandQueue, ApiError> {
        let (commands, queue) = mpsc::channel();
        let (sender, receiver) = channel(events).map_err(ApiError::Start)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let mut api = Self {
            listener,
            epoll: epoll.map_err(|e| ApiError::Start(e.into()))?,
            connections: BTreeMap::new(),
            next_token: FIRST,
            accepting: false,
            paused: None,
            commands,
            receiver,
            options,
        };
        api.prepare().map_err(ApiError::Start)?;
        let (end, ended) = mpsc::sync_channel(1);
        let seccomp = api.options.seccomp.clone();
        let confine = move || seccomp.confine(Thread::Api, THREAD);
        let started = confined_thread::spawn(THREAD, confine, move |is_confined| {
            if !is_confined {
                return;
            }
            if let Err(e) = api.run() {
                log::error!("the API failed: {e}");
            }
            let _ = end.send(());
        });
        let (_, confinement) = started.map_err(ApiError::Start)?;
        confinement.wait().map_err(ApiError::Start)?;
        Ok(CommandQueue {
            commands: queue,
            sender,
            ended,
        })
    }

    fn prepare(&mut self) -> io::Result<()> {
        let ready = EpollEvent::new(EpollFlags::EPOLLIN, MESSAGES);
        self.epoll.add(&self.receiver.ready, ready)?;
        self.accept_more()
    }

    /// Watches the listener, unless accepting is paused.
    fn accept_more(&mut self) -> io::Result<()> {
        self.paused = self.paused.filter(|end| *end > now());
        let wanted = self.paused.is_none();
        if wanted != self.accepting {
            match wanted {
                true => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
                    self.epoll.add(&self.listener, event)?;
                }
                false => self.epoll.delete(&self.listener)?,
            }
            self.accepting = wanted;
        }
        Ok(())
    }

    /// Pauses accepting. A client that cannot be accepted stays in the queue, and would wake the thread again and again.
    fn pause(&mut self) {
        self.paused = Some(now().saturating_add(PAUSE));
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut events = [EpollEvent::empty(); EVENTS];
            let timeout = match self.paused {
                Some(_) => EpollTimeout::try_from(PAUSE).unwrap_or(EpollTimeout::ZERO),
                None => EpollTimeout::NONE,
            };
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            for event in events.iter().take(count) {
                match event.data() {
                    LISTENER => self.accept(),
                    MESSAGES => {
                        if self.send_events() {
                            return Ok(());
                        }
                    }
                    token => self.serve(token, event.events()),
                }
            }
            self.accept_more()?;
        }
    }

    fn accept(&mut self) {
        if self.connections.len() >= MAX_CONNECTIONS && !self.make_room() {
            return self.pause();
        }
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) => {
                log::debug!("cannot accept a client of the API: {e}");
                // Either the client is gone, or there are no more descriptors.
                if !matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                ) {
                    self.pause();
                }
                return;
            }
        };
        if let Err(e) = stream.set_nonblocking(true) {
            return log::warn!("cannot serve a client of the API: {e}");
        }
        let token = self.next_token;
        self.next_token += 1;
        let connection = Connection::new(stream);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        match self.epoll.add(&connection, event) {
            Ok(()) => drop(self.connections.insert(token, connection)),
            Err(e) => log::warn!("cannot serve a client of the API: {e}"),
        }
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    fn make_room(&mut self) -> bool {
        let time = now();
        let idle = |connection: &Connection| {
            let since = connection.idle_since()?;
            (time.saturating_sub(since) >= IDLE).then_some(since)
        };
        let connections = self.connections.iter();
        let mut all: Vec<_> = connections
            .filter_map(|(token, connection)| Some((idle(connection)?, *token)))
            .collect();
        all.sort_unstable();
        for (_, token) in all {
            // The client may have sent a request in this turn.
            self.serve(token, EpollFlags::EPOLLIN);
            if self
                .connections
                .get(&token)
                .is_none_or(|c| idle(c).is_some())
            {
                log::debug!("closed the connection of an idle client of the API");
                self.close(token);
                return true;
            }
        }
        false
    }

    /// Sends events to streaming clients. Returns whether the process ends.
    fn send_events(&mut self) -> bool {
        let messages = self.receiver.take();
        let tokens: Vec<u64> = self.connections.keys().copied().collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let keeps_up = messages.lines.iter().all(|line| connection.event(line));
            if !keeps_up {
                log::warn!("closed an event stream: its client does not read it");
                self.close(token);
                continue;
            }
            self.proceed(token);
        }
        messages.end
    }

    fn serve(&mut self, token: u64, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let read = match events.intersects(readable) {
            true => connection.read(),
            false => Ok(()),
        };
        match read {
            Ok(()) => self.proceed(token),
            Err(_) => self.close(token),
        }
    }

    /// Answers requests and sends answers as far as possible without waiting for the client.
    fn proceed(&mut self, token: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&token) else {
                return;
            };
            if connection.flush().is_err() {
                return self.close(token);
            }
            match connection.next(self.options.max_body) {
                Next::Close => return self.close(token),
                Next::Wait if !connection.wants_output() => break,
                // A rejected request was answered already. The next one waits until that answer is sent.
                Next::Wait => match connection.flush() {
                    Err(_) => return self.close(token),
                    Ok(()) if connection.wants_output() => break,
                    Ok(()) => {}
                },
                Next::Answer(request) => match self.answer(&request) {
                    Some(response) => {
                        if let Some(connection) = self.connections.get_mut(&token) {
                            connection.answer(&response);
                        }
                    }
                    None => {
                        if let Some(connection) = self.connections.get_mut(&token) {
                            connection.stream_events();
                        }
                    }
                },
            }
        }
        self.watch(token);
    }

    /// Answers a request. Returns `None` if the client asked for events.
    fn answer(&self, request: &Request) -> Option<Response> {
        let started = now();
        let metrics = &self.options.metrics;
        log::info!(
            "The API server received a {} request on {:?}.",
            request.method.name(),
            request.path
        );
        let response = match parse(request) {
            Ok((Parsed::Events, _)) => return None,
            Ok((Parsed::Command(command), deprecated)) => {
                for text in &deprecated {
                    log::warn!("{text}");
                    metrics.deprecated.deprecated_http_api_calls.increment();
                }
                Response::to(self.run_command(command)).deprecated(!deprecated.is_empty())
            }
            Err(e) => Response::unrouted(&e),
        };
        let first = request.path.trim_start_matches('/').split('/').next();
        let first = first.unwrap_or_default();
        metrics
            .api
            .count(request.method.name(), first, response.failed());
        metrics
            .server
            .request_agg
            .record(now().saturating_sub(started));
        log::info!(
            "The request was answered with status {}.",
            response.status()
        );
        Some(response)
    }

    /// Runs a command on the main thread and returns its answer.
    fn run_command(&self, command: Command) -> Answer {
        let (answer, answered) = mpsc::sync_channel(1);
        let gone = |_| CommandError::Unsupported("the guest has ended".into());
        // The main thread is gone only when the process ends.
        self.commands
            .send(PendingCommand { command, answer })
            .map_err(|_| CommandError::Unsupported("the guest has ended".into()))?;
        wake(&self.options.event_loop);
        answered.recv().map_err(gone)?
    }

    fn watch(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else {
            return;
        };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, connection.wants_input());
        flags.set(EpollFlags::EPOLLOUT, connection.wants_output());
        let mut event = EpollEvent::new(flags, token);
        if self.epoll.modify(connection, &mut event).is_err() {
            self.close(token);
        }
    }

    fn close(&mut self, token: u64) {
        if let Some(connection) = self.connections.remove(&token) {
            // The call fails only for a descriptor that is not watched.
            let _ = self.epoll.delete(&connection);
            self.paused = None;
        }
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod server_test;
