//! Every virtio device, named once: what the configuration asks for becomes a device.

use super::error::MachineError;
use crate::mmds::Mmds;
use devices::balloon::{Balloon, BalloonMetrics};
use devices::block::backing::Backing;
use devices::block::{Block, BlockMetrics, BlockOptions};
use devices::net::responder::Responder;
use devices::net::tap::Tap;
use devices::net::{Net, NetMetrics, NetOptions};
use devices::rng::{Rng, RngMetrics};
use devices::util::metrics::MetricSet;
use devices::virtio::device::VirtioDevice;
use devices::vsock::{Vsock, VsockError, VsockMetrics};
use resources::{CacheType, Drive, Entropy, NetworkInterface, VmConfig};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The host's source of randomness.
const RANDOM: &str = "/dev/urandom";

/// What is opened before the guest is built, and lent to each that is.
pub struct Prepared {
    mmds: Mmds,
    mmds_interfaces: Vec<String>,
    /// The socket of vsock: clients may come to it from when it is configured, whichever machine they find.
    vsock: Option<(PathBuf, UnixListener)>,
}

impl Prepared {
    /// Nothing but the metadata service.
    pub fn new(mmds: Mmds) -> Self {
        Self {
            mmds,
            mmds_interfaces: Vec::new(),
            vsock: None,
        }
    }

    /// Which interfaces reach the metadata service, from now on.
    pub fn serve_metadata_on(&mut self, interfaces: &[String]) {
        interfaces.clone_into(&mut self.mmds_interfaces);
    }

    /// Makes the socket at `path`, in place of the one before, which is removed.
    ///
    /// # Errors
    /// [`VsockError`]; the one before is then still there.
    pub fn bind_vsock(&mut self, path: &Path) -> Result<(), VsockError> {
        if self.vsock.as_ref().is_some_and(|(bound, _)| bound == path) {
            return Ok(());
        }
        let listener = Vsock::listen(path)?;
        if let Some((before, _)) = self.vsock.replace((path.into(), listener)) {
            // If it cannot be removed it is in the way of the next, which says so.
            let _ = std::fs::remove_file(before);
        }
        Ok(())
    }

    /// The device, at the socket that is bound, now if it was not before.
    fn vsock(&mut self, config: &resources::Vsock) -> Result<Vsock, VsockError> {
        self.bind_vsock(&config.uds_path)?;
        let lent = match &self.vsock {
            Some((_, listener)) => listener.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let lent = lent.map_err(|source| VsockError::Bind {
            path: config.uds_path.clone(),
            source,
        })?;
        Vsock::at(config, lent)
    }
}

/// One device as the configuration names it, with its place there.
#[derive(Clone, Debug)]
pub enum DeviceConfig {
    /// An entry of `drives`.
    Block(usize, Drive),
    /// An entry of `network-interfaces`.
    Net(usize, NetworkInterface),
    /// The section `entropy`.
    Rng(Entropy),
    /// The section `balloon`.
    Balloon(resources::Balloon),
    /// The section `vsock`.
    Vsock(resources::Vsock),
}

/// The counters of each type of device, all zero: what is told of one that a guest does not have.
pub fn no_metrics() -> Vec<Arc<dyn MetricSet>> {
    vec![
        Arc::new(BalloonMetrics::default()),
        Arc::new(BlockMetrics::default()),
        Arc::new(NetMetrics::default()),
        Arc::new(RngMetrics::default()),
        Arc::new(VsockMetrics::default()),
    ]
}

impl DeviceConfig {
    /// All devices of `config`, in the order of their windows: the root device is the first disk, which
    /// the kernel calls vda.
    pub fn all(config: &VmConfig) -> Vec<Self> {
        let drives = config.drives.iter().cloned().enumerate();
        let mut drives: Vec<_> = drives.map(|(i, drive)| Self::Block(i, drive)).collect();
        drives.sort_by_key(|device| !matches!(device, Self::Block(_, d) if d.is_root_device));
        let interfaces = config.network_interfaces.iter().cloned().enumerate();
        let interfaces = interfaces.map(|(i, interface)| Self::Net(i, interface));
        let balloon = config.balloon.map(Self::Balloon);
        let vsock = config.vsock.clone().map(Self::Vsock);
        let rng = config.entropy.map(Self::Rng);
        let single = [balloon, vsock, rng].into_iter().flatten();
        drives.into_iter().chain(interfaces).chain(single).collect()
    }

    /// What messages and threads call it.
    pub fn name(&self) -> String {
        match self {
            Self::Block(_, drive) => format!("drive {}", drive.drive_id),
            Self::Net(_, interface) => format!("interface {}", interface.iface_id),
            Self::Rng(_) => "entropy".into(),
            Self::Balloon(_) => "balloon".into(),
            Self::Vsock(_) => "vsock".into(),
        }
    }

    /// Its id in the API, where there may be several.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Block(_, drive) => Some(&drive.drive_id),
            Self::Net(_, interface) => Some(&interface.iface_id),
            _ => None,
        }
    }

    /// Whether it blocks the loop that serves it, and so has one of its own.
    pub fn blocks(&self) -> bool {
        matches!(self, Self::Block(..))
    }

    /// Makes the device, opening what it needs of the host.
    ///
    /// # Errors
    /// [`MachineError`], naming the key.
    pub fn build(&self, prepared: &mut Prepared) -> Result<Box<dyn VirtioDevice>, MachineError> {
        match self {
            Self::Block(index, drive) => block(&format!("drives[{index}]"), drive),
            Self::Net(index, interface) => {
                let key = format!("network-interfaces[{index}]");
                let responder = prepared.mmds_interfaces.contains(&interface.iface_id);
                let responder = responder.then(|| prepared.mmds.responder());
                net(&key, interface, responder)
            }
            Self::Rng(entropy) => {
                let limits = entropy.rate_limiter.unwrap_or_default();
                let rng = Rng::new(Path::new(RANDOM), &limits);
                let key = format!("entropy: cannot open {RANDOM}");
                Ok(Box::new(rng.map_err(MachineError::device(key, true))?))
            }
            Self::Balloon(config) => {
                let balloon = Balloon::new(config);
                let refused = MachineError::device("balloon.amount_mib", true);
                Ok(Box::new(balloon.map_err(refused)?))
            }
            Self::Vsock(config) => {
                let vsock = prepared.vsock(config);
                let refused = MachineError::device("vsock.uds_path", true);
                Ok(Box::new(vsock.map_err(refused)?))
            }
        }
    }
}

/// Why a drive with a pool is refused here.
pub const POOL_IS_THE_JAILER_S: &str = "only the jailer finds volumes in pools: start this guest with it, or name the \
     volume's path on this host (`jailer volume list` shows it) without `pool`";

fn block(key: &str, drive: &Drive) -> Result<Box<dyn VirtioDevice>, MachineError> {
    if drive.pool.is_some() {
        let refused = MachineError::device(format!("{key}.pool"), true);
        return Err(refused(std::io::Error::other(POOL_IS_THE_JAILER_S)));
    }
    let path = drive.path_on_host.clone().unwrap_or_default();
    if drive.io_engine == resources::IoEngine::Async {
        log::warn!("{key}.io_engine: Async is served like Sync by this version");
    }
    let refused = MachineError::device(format!("{key}.path_on_host"), true);
    let backing = Backing::open(&path, drive.is_read_only).map_err(refused)?;
    let options = BlockOptions {
        serial: drive.drive_id.clone(),
        read_only: drive.is_read_only,
        flush: drive.cache_type == CacheType::Writeback,
        discard: drive.discard,
        rate_limiter: drive.rate_limiter.unwrap_or_default(),
    };
    Ok(Box::new(Block::new(backing, options)))
}

fn net(
    key: &str,
    interface: &NetworkInterface,
    responder: Option<Box<dyn Responder>>,
) -> Result<Box<dyn VirtioDevice>, MachineError> {
    let name = &interface.host_dev_name;
    let tap = match interface.tap_fd {
        Some(fd) => Tap::inherited(fd, name),
        None => {
            if let Some(bridge) = &interface.bridge {
                log::warn!(
                    "{key}.bridge: putting {name} on {bridge} is the jailer's work: without it the tap \
                     must be there already"
                );
            }
            Tap::open(name)
        }
    };
    let refused = MachineError::device(format!("{key}.host_dev_name"), false);
    let tap = tap.map_err(refused)?;
    let options = NetOptions {
        mac: interface.guest_mac.map(|mac| mac.0),
        mtu: interface.mtu,
        rx_rate_limiter: interface.rx_rate_limiter.unwrap_or_default(),
        tx_rate_limiter: interface.tx_rate_limiter.unwrap_or_default(),
        responder,
    };
    Ok(Box::new(Net::new(tap, options)))
}
