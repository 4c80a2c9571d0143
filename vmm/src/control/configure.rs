//! Configuring the guest before the start. Each section is checked when it is set, as far as it can be checked without the
//! others.

use super::command::{CommandError, Configure, PhaseRule, Reply, refused};
use super::controller::Controller;
use crate::metrics::Sink;
use crate::process::{logging, messages};
use devices::block::POOL_NEEDS_JAILER;
use devices::block::backing::Backing;
use resources::{
    Balloon, BootSource, CpuConfig, CpuConfigOrPath, Drive, InterfaceFault, Logger, MachineConfig,
    MachineConfigUpdate, MachineFault, MemoryHotplug, Metrics, MmdsConfig, NetworkInterface, Pmem,
    Serial, Vsock, open_regular,
};

/// Replaces the item with the same key, or appends `item`.
fn upsert<T>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> &str) {
    match list.iter_mut().find(|old| key(old) == key(&item)) {
        Some(old) => *old = item,
        None => list.push(item),
    }
}

/// Stores a section that needs no check, or calls the method of [`Controller`] that checks and stores it.
macro_rules! set {
    ($controller:ident, $section:ident, $field:ident) => {
        $controller.config.$field = Some($section)
    };
    ($controller:ident, $section:ident, $field:ident, $method:ident) => {
        $controller.$method($section)?
    };
}

macro_rules! configure {
    ($($body:ident $field:ident $path:tt $id:tt ($($set:ident)?) $phase:ident;)*) => {
        fn set_section(controller: &mut Controller, section: Configure) -> Result<(), CommandError> {
            match section {
                $(Configure::$body(section) => set!(controller, section, $field $(, $set)?),)*
            }
            Ok(())
        }
    };
}
resources::for_each_put!(configure);

impl Controller {
    /// Sets a section of the configuration before the start.
    pub(super) fn configure(&mut self, section: Configure) -> Result<Reply, CommandError> {
        self.guest_is_configured |= section.phase_rule() != PhaseRule::Process;
        set_section(self, section)?;
        Ok(Reply::Done)
    }

    /// Changes some keys of `machine-config` before the start.
    pub(super) fn update_machine(
        &mut self,
        update: &MachineConfigUpdate,
    ) -> Result<Reply, CommandError> {
        self.guest_is_configured = true;
        self.set_machine(update.apply(&self.config.machine_config))?;
        Ok(Reply::Done)
    }

    fn set_cpu_config(&mut self, config: CpuConfig) -> Result<(), CommandError> {
        // A configuration that changes nothing is shown as absent.
        let config = Some(config).filter(|config| !config.is_empty());
        self.config.cpu_config = config.map(CpuConfigOrPath::Inline);
        Ok(())
    }

    fn set_logger(&mut self, logger: Logger) -> Result<(), CommandError> {
        logging::configure(&logger).map_err(CommandError::refused("Logger"))?;
        self.config.logger = Some(logger);
        Ok(())
    }

    fn set_memory_hotplug(&mut self, config: MemoryHotplug) -> Result<(), CommandError> {
        let valid = config.validate();
        valid.map_err(|why| refused("Memory hotplug config", why))?;
        self.config.memory_hotplug = Some(config);
        Ok(())
    }

    fn set_metrics(&mut self, config: Metrics) -> Result<(), CommandError> {
        let set =
            Sink::open(&config).and_then(|sink| self.reporter.set(sink, &self.process.event_loop));
        set.map_err(CommandError::refused("Metrics"))?;
        self.config.metrics = Some(config);
        Ok(())
    }

    fn set_serial(&mut self, serial: Serial) -> Result<(), CommandError> {
        // A start that failed may have opened the console.
        self.close_console();
        self.config.serial = Some(serial);
        Ok(())
    }

    fn set_balloon(&mut self, balloon: Balloon) -> Result<(), CommandError> {
        if !self.config.machine_config.holds_balloon(balloon.amount_mib) {
            return Err(refused(
                "Balloon config",
                "Amount of pages requested is too large.",
            ));
        }
        self.config.balloon = Some(balloon);
        Ok(())
    }

    fn set_boot_source(&mut self, source: BootSource) -> Result<(), CommandError> {
        let refused = |why| refused("Boot source", why);
        open_regular(&source.kernel_image_path)
            .map_err(|e| refused(format!("The kernel file cannot be opened: {e}")))?;
        if let Some(initrd) = &source.initrd_path {
            open_regular(initrd).map_err(|e| {
                refused(format!(
                    "The initrd file cannot be opened due to invalid path or invalid permissions. {e}"
                ))
            })?;
        }
        if let Some(arguments) = &source.boot_args {
            boot::CommandLine::new(arguments)
                .map_err(|e| refused(format!("The kernel command line is invalid: {e}")))?;
        }
        self.config.boot_source = source;
        Ok(())
    }

    fn set_drive(&mut self, drive: Drive) -> Result<(), CommandError> {
        let refused = |why: String| refused("Drive config", why);
        let create =
            |why: String| refused(format!("Unable to create the virtio block device: {why}"));
        let other_root = |other: &Drive| other.is_root_device && other.drive_id != drive.drive_id;
        if drive.is_root_device && self.config.drives.iter().any(other_root) {
            return Err(refused("A root block device already exists!".into()));
        }
        if drive.pool.is_some() {
            return Err(create(POOL_NEEDS_JAILER.into()));
        }
        match (&drive.path_on_host, &drive.socket) {
            (Some(path), None) => Backing::look(path, drive.is_read_only)
                .map_err(|e| create(format!("Virtio backend error: {}", messages::chain(&e))))?,
            (None, Some(_)) => {
                return Err(create(
                    "vhost-user drives are not supported by this version: use path_on_host".into(),
                ));
            }
            _ => return Err(create("Invalid block config.".into())),
        }
        upsert(&mut self.config.drives, drive, |d| &d.drive_id);
        Ok(())
    }

    fn set_machine(&mut self, mut config: MachineConfig) -> Result<(), CommandError> {
        let refused = |why| Err(refused("Machine config", why));
        // The texts are Firecracker's, to the letter.
        for fault in config.faults() {
            match fault {
                MachineFault::Vcpus(_) | MachineFault::HalfCore => {
                    return refused(
                        "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even \
                         number if SMT is enabled.",
                    );
                }
                // Any other size is accepted here and refused at the start.
                MachineFault::Memory(1..) => {}
                MachineFault::ForkableReserve => {
                    return Err(super::command::refused(
                        "Machine config",
                        format!("{} {fault}", fault.field()),
                    ));
                }
                MachineFault::Memory(0) | MachineFault::HalfPage => {
                    return refused(
                        "The memory size (MiB) is either 0, or not a multiple of the configured page size.",
                    );
                }
            }
        }
        let balloon = self.config.balloon.map_or(0, |balloon| balloon.amount_mib);
        if !config.holds_balloon(balloon) {
            return refused(
                "The memory size (MiB) is smaller than the previously set balloon device target size.",
            );
        }
        config.cpu_template = config
            .cpu_template
            .filter(|template| *template != resources::CpuTemplate::None);
        self.config.machine_config = config;
        Ok(())
    }

    fn set_mmds(&mut self, config: MmdsConfig) -> Result<(), CommandError> {
        let ids = self.config.network_interfaces.iter();
        let ids: Vec<&str> = ids.map(|interface| interface.iface_id.as_str()).collect();
        // The text is Firecracker's, to the letter.
        let valid = config.validate(&ids);
        valid.map_err(CommandError::refused("MMMDS config"))?;
        self.process.mmds.configure(&config);
        self.lent.serve_metadata_on(&config.network_interfaces);
        self.config.mmds_config = Some(config);
        Ok(())
    }

    fn set_network(&mut self, interface: NetworkInterface) -> Result<(), CommandError> {
        let others = self.config.network_interfaces.iter();
        let others = others.filter(|other| other.iface_id != interface.iface_id);
        if let Some(fault) = interface.faults(others).first() {
            let no_tap = "Could not create the network device: Open tap device failed:";
            // The first texts are Firecracker's.
            let why = match fault {
                InterfaceFault::Tap(_) => format!("{no_tap} Invalid interface name"),
                InterfaceFault::SharedMac { mac, .. } => {
                    format!("The MAC address is already in use: {mac}")
                }
                InterfaceFault::SharedTap { name, .. } => {
                    format!("{no_tap} {name} is another interface's")
                }
                _ => format!("{}: {fault}", fault.field()),
            };
            return Err(refused("Network config", why));
        }
        let list = &mut self.config.network_interfaces;
        upsert(list, interface, |interface| &interface.iface_id);
        Ok(())
    }

    fn set_pmem(&mut self, pmem: Pmem) -> Result<(), CommandError> {
        let root = self.config.drives.iter().any(|drive| drive.is_root_device);
        if pmem.root_device && root {
            return Err(refused(
                "Pmem config",
                "Attempt to add pmem as a root device while the root device defined as a block device",
            ));
        }
        upsert(&mut self.config.pmem, pmem, |pmem| &pmem.id);
        Ok(())
    }

    fn set_vsock(&mut self, vsock: Vsock) -> Result<(), CommandError> {
        // The socket is bound at once, because clients expect it to exist.
        let bound = self.lent.bind_vsock(&vsock.uds_path);
        bound.map_err(CommandError::refused("Vsock config"))?;
        self.config.vsock = Some(vsock);
        Ok(())
    }
}
