//! The console socket: each client that connects is attached to the guest's console until it disconnects.

use super::output::{Attached, watched};
use super::serial_input::{CurrentSerial, send_to_serial};
use devices::lock;
use devices::util::unix_socket;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Token of the listener. Clients have tokens from 1.
const LISTENER: u32 = 0;

/// The console socket as a subscriber of the event loop.
pub struct ConsoleSocket {
    listener: UnixListener,
    attached: Arc<Mutex<Attached>>,
    serial: CurrentSerial,
    /// The watched clients by their number, which is their token.
    watched: BTreeMap<u32, OwnedFd>,
}

impl ConsoleSocket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// The path is in use, or the socket cannot be created.
    pub fn bind(
        path: &Path,
        attached: Arc<Mutex<Attached>>,
        serial: CurrentSerial,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: unix_socket::listen(path)?,
            attached,
            serial,
            watched: BTreeMap::new(),
        })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) -> io::Result<()> {
        let (stream, _) = match self.listener.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            accepted => accepted?,
        };
        stream.set_nonblocking(true)?;
        let watched = watched(&stream)?;
        let Some(id) = lock(&self.attached).attach(stream) else {
            log::warn!("refused a client of the console: too many are attached");
            return Ok(());
        };
        let token = u32::try_from(id).map_err(io::Error::other)?;
        // Edge-triggered, so that room in the socket wakes the loop only once.
        let events = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        ops.add(Events::with_data(&watched, token, events))
            .map_err(|e| io::Error::other(e.to_string()))?;
        self.watched.insert(token, watched);
        Ok(())
    }

    /// Serves a client. Returns false if it is gone.
    fn serve(&self, id: u64, events: EventSet) -> bool {
        let mut buffer = [0; 4096];
        if events.contains(EventSet::OUT) {
            lock(&self.attached).flush(id);
        }
        loop {
            // The lock is released before the input is sent, because the port writes to the clients.
            let typed = lock(&self.attached).read(id, &mut buffer).map(<[u8]>::len);
            match typed {
                None => return false,
                Some(0) => return true,
                Some(len) => {
                    let serial = lock(&self.serial).clone();
                    if let Some(serial) = serial {
                        send_to_serial(&serial, buffer.get(..len).unwrap_or_default());
                    }
                }
            }
        }
    }
}

impl MutEventSubscriber for ConsoleSocket {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::with_data(&self.listener, LISTENER, EventSet::IN);
        if let Err(e) = ops.add(events) {
            log::error!("cannot watch the console's socket: {e}");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let token = events.data();
        if token == LISTENER {
            if let Err(e) = self.accept(ops) {
                log::warn!("the console's socket: {e}");
            }
        } else if !self.serve(token.into(), events.event_set()) {
            lock(&self.attached).detach(token.into());
            // The loop must forget the descriptor before it is closed.
            if let Err(e) = ops.remove(events) {
                log::error!("cannot stop watching a client of the console: {e}");
            }
            self.watched.remove(&token);
        }
    }
}
