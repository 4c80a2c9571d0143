//! Configuration to machine, top to bottom; then the machine runs.

use super::attach::{Attacher, irqfd};
use super::{MachineError, kvm, memory};
use crate::boot_timer::{BootTimer, Timeline};
use crate::console::Console;
use crate::device_config::DeviceConfig;
use crate::event_loop::{self, MainLoop, Stopper};
use crate::exit_status::Outcome;
use crate::vcpu::{self, Buses, Coalesced, FlushTimer, Topology, Vcpu};
use boot::layout;
use boot::{BootPlan, BootSource, CommandLine, FilePiece};
use devices::GuestMemory;
use devices::bus::{Bus, SharedDevice};
use devices::guest_event::EventSink;
use devices::i8042::{self, I8042};
use devices::pci_host::{self, PciHost};
use devices::power::{self, ExitPort, PowerControl};
use devices::pvpanic::PvPanic;
use devices::serial::SerialPort;
use kvm_ioctls::VmFd;
use resources::{DEFAULT_BOOT_ARGS, Drive, HugePages, VmConfig};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How the guest ended: the first to say so is right.
#[derive(Clone)]
pub struct End {
    outcome: Arc<OnceLock<Outcome>>,
    stopper: Stopper,
}

impl End {
    fn new(stopper: Stopper) -> Self {
        Self {
            outcome: Arc::default(),
            stopper,
        }
    }

    /// Ends the guest, unless it has ended.
    pub fn set(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.stopper.stop();
        }
    }

    /// Whether the guest has ended: its vCPUs have nothing more to do.
    pub fn is_set(&self) -> bool {
        self.outcome.get().is_some()
    }

    fn sink(&self) -> EventSink {
        let end = self.clone();
        Arc::new(move |event| end.set(Outcome::Guest(event)))
    }
}

/// What the vCPUs share. They run until the process ends and so keep it all alive: KVM's slots point into
/// the memory.
pub struct Guest {
    /// Where accesses go.
    pub buses: Buses,
    /// How the guest ends.
    pub end: End,
    /// Serial output that KVM collects, where it can.
    pub coalesced: Option<Coalesced>,
    /// The VM.
    pub vm: VmFd,
    _memory: GuestMemory,
}

/// Where the count of a boot's time starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// How long the jailer worked before, if there was one.
    pub jailer: Option<Duration>,
    /// When the monitor's process started.
    pub exec: Instant,
}

/// A guest ready to run.
pub struct Machine {
    vcpus: Vec<Vcpu>,
    buses: Buses,
    main_loop: MainLoop,
    end: End,
    serial: Arc<Mutex<SerialPort>>,
    vm_created: Instant,
    /// Where to count a boot from, if it is timed.
    timed_from: Option<Start>,
    coalesced: Option<Coalesced>,
    vm: VmFd,
    memory: GuestMemory,
}

/// Builds the guest of `config`, whose console writes to `output`. With `timed_from` its boot is
/// timed from there.
///
/// # Errors
/// [`MachineError`]; nothing is left behind.
pub fn build(
    config: &VmConfig,
    output: Box<dyn io::Write + Send>,
    timed_from: Option<Start>,
) -> Result<Machine, MachineError> {
    let topology = Topology::new(config.machine_config.vcpu_count, config.machine_config.smt);
    let kvm = kvm::open(topology.vcpus)?;
    let vm = kvm::create_vm(&kvm)?;
    let vm_created = Instant::now();
    let memory = memory::map(&config.machine_config)?;
    memory::give_to_kvm(&vm, &memory)?;
    kvm::create_interrupt_controllers(&vm)?;

    let main_loop = MainLoop::new()?;
    let end = End::new(main_loop.stopper());
    let mut buses = Buses::default();
    let serial = add_platform(&vm, &mut buses.port, &end.sink(), output, config)?;

    let mut attacher = Attacher::new(&vm, &memory);
    for device in DeviceConfig::all(config) {
        let built = device.build()?;
        let served_by = match device.blocks() {
            true => event_loop::spawn(&device.name())?,
            false => main_loop.endpoint(),
        };
        attacher.attach(&mut buses.memory, &device.name(), built, served_by)?;
    }

    let plan = load(config, &memory, &attacher.windows())?;
    let vcpus = vcpu::create(&kvm, &vm, &topology, &plan.entry)?;
    let coalesced = match vcpus.first() {
        Some(vcpu) => vcpu.coalesced(&vm),
        None => Ok(None),
    };
    Ok(Machine {
        vcpus,
        buses,
        main_loop,
        end,
        serial,
        vm_created,
        timed_from,
        coalesced: coalesced.map_err(MachineError::set_up("the console's ring"))?,
        vm,
        memory,
    })
}

impl Machine {
    /// Runs the guest until it ends. `terminal` says whether the console's input is one.
    ///
    /// # Errors
    /// A thread could not be started or the event loop failed.
    pub fn run(mut self, terminal: bool) -> Result<Outcome, MachineError> {
        let quit = self.end.clone();
        let quit = Box::new(move || quit.set(Outcome::Quit));
        let console = Console::new(terminal, self.serial, quit);
        self.main_loop.add(Box::new(console));
        if let Some(start) = self.timed_from {
            let timer = BootTimer::new(Timeline {
                jailer: start.jailer,
                exec: start.exec,
                vm_created: self.vm_created,
                entered: Instant::now(),
            });
            insert(
                &mut self.buses.memory,
                layout::BOOT_TIMER,
                layout::PAGE_SIZE,
                timer,
            )?;
        }
        let guest = Arc::new(Guest {
            buses: self.buses,
            end: self.end.clone(),
            coalesced: self.coalesced,
            vm: self.vm,
            _memory: self.memory,
        });
        if guest.coalesced.is_some() {
            self.main_loop.add(Box::new(FlushTimer::new(guest.clone())));
        }
        for vcpu in self.vcpus {
            vcpu::start(vcpu, guest.clone())?;
        }
        self.main_loop.run()?;
        // What another vCPU wrote last may still be on its way. Not for one who quits, perhaps because the
        // output is stuck.
        let outcome = self.end.outcome.get().copied();
        let outcome = outcome.unwrap_or(Outcome::VcpuFailed);
        if let Some(coalesced) = &guest.coalesced
            && outcome != Outcome::Quit
        {
            coalesced.drain(&guest.buses);
        }
        Ok(outcome)
    }
}

fn insert(
    bus: &mut Bus,
    base: u64,
    len: u64,
    device: impl devices::bus::BusDevice + 'static,
) -> Result<(), MachineError> {
    let device: SharedDevice = Arc::new(Mutex::new(device));
    bus.insert(base, len, device)
        .map_err(|e| MachineError::set_up("the platform's devices")(io::Error::other(e)))
}

/// The devices every guest has: console, power, panic, exit port, and commonly a keyboard
/// controller.
fn add_platform(
    vm: &VmFd,
    ports: &mut Bus,
    events: &EventSink,
    output: Box<dyn io::Write + Send>,
    config: &VmConfig,
) -> Result<Arc<Mutex<SerialPort>>, MachineError> {
    let line = |gsi| irqfd(vm, gsi).map_err(MachineError::set_up("the platform's interrupts"));
    let serial = Arc::new(Mutex::new(SerialPort::new(line(layout::COM1_GSI)?, output)));
    ports
        .insert(
            layout::COM1_PORT.into(),
            layout::COM1_PORTS.into(),
            serial.clone(),
        )
        .map_err(|e| MachineError::set_up("the console")(io::Error::other(e)))?;

    if config.machine_config.i8042 {
        let keyboard = I8042::new(line(layout::I8042_GSI)?, events.clone());
        insert(ports, layout::I8042_DATA_PORT.into(), i8042::LEN, keyboard)?;
    }
    insert(ports, pci_host::PORT, pci_host::LEN, PciHost::default())?;
    let power = PowerControl::new(events.clone());
    insert(ports, layout::SLEEP_CONTROL_PORT.into(), power::LEN, power)?;
    insert(
        ports,
        layout::PVPANIC_PORT.into(),
        1,
        PvPanic::new(events.clone()),
    )?;
    insert(
        ports,
        layout::PAYLOAD_EXIT_PORT.into(),
        1,
        ExitPort::new(events.clone()),
    )?;
    Ok(serial)
}

fn open(key: &str, path: &Path) -> Result<File, MachineError> {
    File::open(path).map_err(|source| MachineError::Open {
        key: key.into(),
        path: path.display().to_string(),
        source,
    })
}

/// Places kernel, initrd and tables in guest memory.
fn load(
    config: &VmConfig,
    guest: &GuestMemory,
    windows: &[layout::VirtioMmioWindow],
) -> Result<BootPlan, MachineError> {
    let source = &config.boot_source;
    let kernel = open("boot-source.kernel_image_path", &source.kernel_image_path)?;
    let initrd = match &source.initrd_path {
        Some(path) => Some((open("boot-source.initrd_path", path)?, path.as_path())),
        None => None,
    };
    let line = command_line(config, windows)
        .map_err(|e| MachineError::Boot(boot::BootError::Cmdline(e)))?;
    let source = BootSource {
        kernel: &kernel,
        kernel_path: &source.kernel_image_path,
        initrd: initrd.as_ref().map(|(file, path)| (file, *path)),
        cmdline: line.as_str(),
        vcpus: config.machine_config.vcpu_count,
        devices: windows,
        i8042: config.machine_config.i8042,
    };
    // Huge pages cannot be replaced by a file's, and are there to be used whole.
    let mappable = config.machine_config.huge_pages == HugePages::None;
    let mut mapper = |piece: &FilePiece<'_>| mappable && memory::map_file(guest, piece);
    boot::load_with(guest, &source, &mut mapper).map_err(MachineError::Boot)
}

/// What the user wrote, and what a compatible monitor adds to it.
fn command_line(
    config: &VmConfig,
    windows: &[layout::VirtioMmioWindow],
) -> Result<CommandLine, boot::CmdlineError> {
    let given = config.boot_source.boot_args.as_deref();
    let mut line = CommandLine::with_capacity(
        given.unwrap_or(DEFAULT_BOOT_ARGS),
        boot::cmdline::MAX_CAPACITY,
    )?;
    if !line.has("pci=") {
        // There is no PCI. Not `pci=off`, which makes a kernel complain of it on the console.
        line.append("pci=noearly")?;
    }
    if let Some(drive) = config.drives.iter().find(|drive| drive.is_root_device) {
        line.append(&root(drive))?;
    }
    if line.disables_acpi() {
        for window in windows {
            line.append_virtio_mmio(window)?;
        }
    }
    Ok(line)
}

fn root(drive: &Drive) -> String {
    let mode = if drive.is_read_only { "ro" } else { "rw" };
    match &drive.partuuid {
        Some(partuuid) => format!("root=PARTUUID={partuuid} {mode}"),
        None => format!("root=/dev/vda {mode}"),
    }
}
