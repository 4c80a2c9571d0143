//! Resources that the monitor opens before it builds the machine, and lends to its devices.

use crate::mmds::Mmds;
use devices::net::responder::Responder;
use devices::virtio::section::BuildError;
use devices::vsock::{Vsock, VsockError};
use resources::NetworkInterface;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Resources that outlive a machine: after a reboot in place the next machine uses the same ones.
pub struct Lent {
    mmds: Mmds,
    mmds_interfaces: Vec<String>,
    /// The listening socket of vsock. Clients may connect as soon as it is configured, before the guest starts.
    vsock: Option<(PathBuf, UnixListener)>,
}

/// Lends a resource of type `R` to the device of a section of type `S`.
pub trait Lend<S, R> {
    /// Returns the resource for the device that `section`, at `key` in the configuration, asks for.
    ///
    /// # Errors
    /// [`BuildError`], naming the key.
    fn lend(&mut self, section: &S, key: &str) -> Result<R, BuildError>;
}

impl<S> Lend<S, ()> for Lent {
    fn lend(&mut self, _section: &S, _key: &str) -> Result<(), BuildError> {
        Ok(())
    }
}

impl Lend<NetworkInterface, Option<Box<dyn Responder>>> for Lent {
    fn lend(
        &mut self,
        interface: &NetworkInterface,
        _key: &str,
    ) -> Result<Option<Box<dyn Responder>>, BuildError> {
        let reaches = self.mmds_interfaces.contains(&interface.iface_id);
        Ok(reaches.then(|| self.mmds.responder()))
    }
}

impl Lend<resources::Vsock, UnixListener> for Lent {
    fn lend(&mut self, vsock: &resources::Vsock, key: &str) -> Result<UnixListener, BuildError> {
        let listener = self.vsock_listener(&vsock.uds_path);
        listener.map_err(BuildError::configuration(format!("{key}.uds_path")))
    }
}

impl Lent {
    /// Creates the resources. No interface reaches the metadata service yet.
    pub fn new(mmds: Mmds) -> Self {
        Self {
            mmds,
            mmds_interfaces: Vec::new(),
            vsock: None,
        }
    }

    /// Sets the ids of the interfaces that reach the metadata service.
    pub fn serve_metadata_on(&mut self, interfaces: &[String]) {
        interfaces.clone_into(&mut self.mmds_interfaces);
    }

    /// Binds the vsock's socket at `path` and removes the one bound before.
    ///
    /// # Errors
    /// [`VsockError`]; the socket bound before is kept.
    pub fn bind_vsock(&mut self, path: &Path) -> Result<(), VsockError> {
        if self.vsock.as_ref().is_some_and(|(bound, _)| bound == path) {
            return Ok(());
        }
        let listener = Vsock::listen(path)?;
        if let Some((before, _)) = self.vsock.replace((path.into(), listener)) {
            // A socket that cannot be removed is reported by the next bind at its path.
            let _ = std::fs::remove_file(before);
        }
        Ok(())
    }

    /// Returns a duplicate of the listener at `path`, which is bound now if it was not.
    fn vsock_listener(&mut self, path: &Path) -> Result<UnixListener, VsockError> {
        self.bind_vsock(path)?;
        let listener = match &self.vsock {
            Some((_, listener)) => listener.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        listener.map_err(|source| VsockError::Bind {
            path: path.into(),
            source,
        })
    }
}
