//! The child's side of a fork: becoming a copy of another guest.

use super::controller::Controller;
use super::lifecycle::Event;
use crate::fork::listener::{Arrival, ForkListener};
use crate::fork::wire::ParentConnection;
use crate::process::options::ForkChild;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

impl Controller {
    /// Listens for a parent that brings a copy of its guest.
    ///
    /// # Errors
    /// The socket cannot be created, or the lifeline is not an open descriptor.
    pub fn wait_for_fork(&mut self, options: &ForkChild) -> io::Result<()> {
        self.fork_listener = Some(ForkListener::bind(options, &self.process.event_loop)?);
        Ok(())
    }

    /// Accepts a fork point if a parent has connected. Ends the process if the lifeline is closed and there is no guest.
    pub(super) fn accept_fork(&mut self) {
        let Some(listener) = &self.fork_listener else {
            return;
        };
        let stream = match listener.accept() {
            Arrival::Connected(stream) => stream,
            Arrival::Abandoned if self.machine().is_none() => {
                log::error!("--fork-lifeline was closed before a copy was received");
                let _ = std::fs::remove_file(&listener.options().socket);
                self.load_failed = true;
                return;
            }
            Arrival::Abandoned | Arrival::Waiting => return,
        };
        let Some(listener) = self.fork_listener.take() else {
            return;
        };
        let options = listener.options().clone();
        let socket = options.socket.clone();
        // From here on no other process can connect.
        listener.close();
        if let Err(why) = self.become_copy(stream, options) {
            log::error!("{}: {why}", socket.display());
            self.load_failed = true;
        }
    }

    fn become_copy(&mut self, stream: UnixStream, options: ForkChild) -> Result<(), String> {
        if self.guest_is_configured || self.machine().is_some() {
            return Err("a copy of another guest comes too late: this process has a guest".into());
        }
        let mut images = Vec::new();
        for (id, path) in &options.images {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
            images.push((id.clone(), file));
        }
        let parent = ParentConnection::send_hello(stream, &images);
        let parent = parent.map_err(|e| format!("the parent disconnected: {e}"))?;
        let started = Instant::now();
        let received = parent.receive_point();
        let received = received.map_err(|e| format!("no copy was received: {e}"))?;
        let waited = started.elapsed();
        // The guest's own locks on the images would conflict with these.
        drop(images);
        let mut config = received.snapshot.config;
        for (id, path) in options.images {
            let drive = config.drives.iter_mut().find(|d| d.drive_id == id);
            let drive = drive.ok_or_else(|| format!("the guest has no drive `{id}`"))?;
            drive.path_on_host = Some(path);
        }
        received.own.apply(&mut config)?;
        for (id, tap) in options.taps {
            let interfaces = &mut config.network_interfaces;
            let interface = interfaces.iter_mut().find(|n| n.iface_id == id);
            let interface =
                interface.ok_or_else(|| format!("the guest has no interface `{id}`"))?;
            interface.tap_fd = Some(tap);
        }
        let memory = received.layers.map(&config.machine_config);
        let memory = memory.map_err(|e| format!("the copy's memory cannot be mapped: {e}"))?;
        let state = &received.snapshot.machine;
        self.load_state(config, state, (memory, received.layers))?;
        let took = started.elapsed().saturating_sub(waited);
        let id = received.snapshot.id;
        log::info!("became copy {id} within {} us", took.as_micros());
        self.process.events.publish(Event::Restored { id });
        self.resume();
        self.report();
        Ok(())
    }
}
