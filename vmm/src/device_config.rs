//! Every virtio device, named once: what the configuration asks for becomes a device.

use crate::machine::MachineError;
use devices::block::backing::Backing;
use devices::block::{Block, BlockOptions};
use devices::net::tap::Tap;
use devices::net::{Net, NetOptions};
use devices::rng::Rng;
use devices::virtio::device::VirtioDevice;
use resources::{CacheType, Drive, Entropy, NetworkInterface, VmConfig};
use std::path::Path;

/// The host's source of randomness.
const RANDOM: &str = "/dev/urandom";

/// One device as the configuration names it, with its place there.
#[derive(Clone, Debug)]
pub enum DeviceConfig {
    /// An entry of `drives`.
    Block(usize, Drive),
    /// An entry of `network-interfaces`.
    Net(usize, NetworkInterface),
    /// The section `entropy`.
    Rng(Entropy),
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
        let rng = config.entropy.map(Self::Rng);
        drives.into_iter().chain(interfaces).chain(rng).collect()
    }

    /// What messages and threads call it.
    pub fn name(&self) -> String {
        match self {
            Self::Block(_, drive) => format!("drive {}", drive.drive_id),
            Self::Net(_, interface) => format!("interface {}", interface.iface_id),
            Self::Rng(_) => "entropy".into(),
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
    pub fn build(&self) -> Result<Box<dyn VirtioDevice>, MachineError> {
        match self {
            Self::Block(index, drive) => block(&format!("drives[{index}]"), drive),
            Self::Net(index, interface) => net(&format!("network-interfaces[{index}]"), interface),
            Self::Rng(entropy) => {
                let limits = entropy.rate_limiter.unwrap_or_default();
                let rng =
                    Rng::new(Path::new(RANDOM), &limits).map_err(|source| MachineError::Open {
                        key: "entropy".into(),
                        path: RANDOM.into(),
                        source,
                    })?;
                Ok(Box::new(rng))
            }
        }
    }
}

fn block(key: &str, drive: &Drive) -> Result<Box<dyn VirtioDevice>, MachineError> {
    let path = drive.path_on_host.clone().unwrap_or_default();
    if drive.io_engine == resources::IoEngine::Async {
        log::warn!("{key}.io_engine: Async is served like Sync by this version");
    }
    let backing =
        Backing::open(&path, drive.is_read_only).map_err(|source| MachineError::Disk {
            key: key.into(),
            source,
        })?;
    let options = BlockOptions {
        serial: drive.drive_id.clone(),
        read_only: drive.is_read_only,
        flush: drive.cache_type == CacheType::Writeback,
        discard: drive.discard,
        rate_limiter: drive.rate_limiter.unwrap_or_default(),
    };
    Ok(Box::new(Block::new(backing, options)))
}

fn net(key: &str, interface: &NetworkInterface) -> Result<Box<dyn VirtioDevice>, MachineError> {
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
    let tap = tap.map_err(|source| MachineError::Tap {
        key: key.into(),
        source,
    })?;
    let options = NetOptions {
        mac: interface.guest_mac.map(|mac| mac.0),
        mtu: interface.mtu,
        rx_rate_limiter: interface.rx_rate_limiter.unwrap_or_default(),
        tx_rate_limiter: interface.tx_rate_limiter.unwrap_or_default(),
        responder: None,
    };
    Ok(Box::new(Net::new(tap, options)))
}
