//! Builds a machine from a configuration, from top to bottom.

use super::attach::Attacher;
use super::boot_timer::{BootTimer, Timeline};
use super::device_factory;
use super::error::MachineError;
use super::kvm;
use super::lent::Lent;
use super::memory::layers::Layers;
use super::memory::mapping;
use super::pages::Pages;
use super::platform::{add_platform, insert};
use super::running::{Device, Machine};
use super::state::{MachineState, SavedDevice};
use crate::console::Output;
use crate::event_loop::{self, SpawnedLoop};
use crate::seccomp::{Filters, Thread};
use crate::vcpu::{
    self, Buses, FlushTimer, Gate, GuestEnd, Topology, Vcpu, VcpuMetrics, VmContext,
};
use boot::layout;
use boot::{BootPlan, BootSource, CommandLine, FilePiece};
use devices::GuestMemory;
use devices::lock;
use devices::virtio::device::Loops;
use devices::virtio::worker::Loop;
use resources::{DEFAULT_BOOT_ARGS, Drive, HugePages, VmConfig, open_regular};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The times from which a boot is measured.
#[derive(Clone, Copy, Debug)]
pub struct StartTimes {
    /// Time that the jailer worked before, if there was one.
    pub jailer: Option<Duration>,
    /// Start of the monitor's process.
    pub exec: Instant,
}

/// The resources of the process that a machine is built with.
pub struct Host<'a> {
    /// The event loop of the main thread.
    pub event_loop: &'a Loop,
    /// The console's output.
    pub output: &'a Output,
    /// Start times, if the boot is timed.
    pub timed_from: Option<StartTimes>,
    /// Metrics of the vCPUs.
    pub metrics: &'a Arc<VcpuMetrics>,
    /// Resources lent to devices.
    pub lent: &'a mut Lent,
    /// Seccomp filters of the threads.
    pub seccomp: &'a Arc<Filters>,
}

/// The point where a guest begins.
pub enum Origin<'a> {
    /// The kernel's first instruction.
    Boot,
    /// A saved state, with the memory mapped from these layers.
    Saved(&'a MachineState, GuestMemory, Layers),
}

/// Builds the machine of `config` at `origin`. It is paused until [`Machine::resume`].
///
/// # Errors
/// [`MachineError`]; nothing is left behind.
pub fn build(
    config: &VmConfig,
    host: Host<'_>,
    origin: Origin<'_>,
) -> Result<Machine, MachineError> {
    let topology = Topology::new(config.machine_config.vcpu_count, config.machine_config.smt);
    let kvm = kvm::open(topology.vcpus)?;
    let vm = kvm::create_vm(&kvm)?;
    let vm_created = Instant::now();
    let of_memory = &config.machine_config;
    let (saved, memory, layers, file) = match origin {
        Origin::Boot if of_memory.forkable => {
            let (memory, file) = mapping::map_forkable(of_memory)?;
            (None, memory, Layers::default(), Some(file))
        }
        Origin::Boot => (None, mapping::map(of_memory)?, Layers::default(), None),
        Origin::Saved(state, memory, layers) => (Some(state), memory, layers, None),
    };
    let mut pages = Pages::new(&memory, of_memory, layers, file);
    mapping::register_with_kvm(&vm, &memory, pages.log_writes())?;
    kvm::create_interrupt_controllers(&vm)?;

    let end = GuestEnd::new(host.event_loop);
    let mut buses = Buses::default();
    let ports = &mut buses.port;
    let platform = add_platform(&vm, &memory, ports, &end.sink(), host.output, config)?;

    let mut attacher = Attacher::new(&vm, &memory);
    let mut devices = Vec::new();
    for request in device_factory::requests(config) {
        let identity = request.identity.clone();
        let device = request.build(host.lent)?;
        let own_loop = (device.offer().loops == Loops::Own).then(|| {
            let (seccomp, thread) = (host.seccomp.clone(), identity.name.clone());
            SpawnedLoop::start(&identity.name, move || {
                seccomp.confine(Thread::Drive, &thread)
            })
        });
        let own_loop = own_loop.transpose()?;
        let served_by = match &own_loop {
            Some(own_loop) => own_loop.endpoint(),
            None => host.event_loop.clone(),
        };
        let transport = attacher.attach(&mut buses.memory, &identity.name, device, served_by)?;
        devices.push(Device::new(identity, transport, own_loop));
    }

    let vcpus = match saved {
        None => {
            let plan = load(config, &memory, &attacher.windows(), &mut pages)?;
            let first = platform.generation.first().map_err(io::Error::other);
            first.map_err(MachineError::set_up("the guest's generation"))?;
            vcpu::create(&kvm, &vm, &topology, &plan.entry)?
        }
        Some(state) => {
            let vcpus = vcpu::restore(&kvm, &vm, &state.vcpus)?;
            state.vm.restore(&vm)?;
            restore_devices(&devices, &state.devices)?;
            platform.restore(&state.platform)?;
            vcpus
        }
    };
    let coalesced = match vcpus.first() {
        Some(vcpu) => vcpu.coalesced(&vm),
        None => Ok(None),
    };
    if let Some(start) = host.timed_from {
        let timer = BootTimer::new(Timeline {
            jailer: start.jailer,
            exec: start.exec,
            vm_created,
            entered: Instant::now(),
        });
        let memory = &mut buses.memory;
        insert(memory, layout::BOOT_TIMER, layout::PAGE_SIZE, timer)?;
    }
    let coalesced = coalesced.map_err(MachineError::set_up("the console's ring"))?;
    if let (Some(coalesced), Some(state)) = (&coalesced, saved)
        && state.platform.collects_console
    {
        coalesced.start(&vm);
    }
    let context = Arc::new(VmContext {
        cpuids: vcpus.iter().map(Vcpu::cpuid).collect(),
        buses,
        end,
        gate: Gate::new(),
        coalesced,
        metrics: host.metrics.clone(),
        vm,
        kvm,
        memory,
    });
    let flush = FlushTimer::new(&context, host.output.clone());
    let flush = flush.map_err(MachineError::set_up("the console's timer"))?;
    let flush = flush.map(|timer| event_loop::add(host.event_loop, Box::new(timer)));
    let started = vcpu::start(vcpus, &context, host.seccomp)?;
    Ok(Machine::new(
        context, started, devices, platform, flush, pages,
    ))
}

/// Loads the saved states into the devices.
fn restore_devices(devices: &[Device], saved: &[SavedDevice]) -> Result<(), MachineError> {
    let names = |all: Vec<String>| all.join(", ");
    let present: Vec<_> = devices
        .iter()
        .map(|device| device.identity.name.clone())
        .collect();
    let of_state: Vec<_> = saved.iter().map(|device| device.name.clone()).collect();
    if present != of_state {
        let (present, of_state) = (names(present), names(of_state));
        return Err(MachineError::State(format!(
            "the configuration has the devices {present}, and the state is of {of_state}"
        )));
    }
    for (device, saved) in devices.iter().zip(saved) {
        lock(&device.transport)
            .restore(&saved.state)
            .map_err(|e| MachineError::State(format!("{}: {e}", saved.name)))?;
    }
    Ok(())
}

fn open(key: &str, path: &Path) -> Result<File, MachineError> {
    open_regular(path).map_err(|source| MachineError::Open {
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
    pages: &mut Pages,
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
    // A file cannot be mapped over huge pages, and the copies of a forkable guest see one memory file only.
    let machine = &config.machine_config;
    let mappable = machine.huge_pages == HugePages::None && !machine.forkable;
    let mut mapper = |piece: &FilePiece<'_>| {
        let mapped = mappable && mapping::map_file(guest, piece);
        if mapped {
            pages.mapped_from_file(piece);
        }
        mapped
    };
    boot::load_with(guest, &source, &mut mapper).map_err(MachineError::Boot)
}

/// Returns the user's command line with the arguments that Firecracker adds.
fn command_line(
    config: &VmConfig,
    windows: &[layout::VirtioMmioWindow],
) -> Result<CommandLine, boot::CmdlineError> {
    let given = config.boot_source.boot_args.as_deref();
    let mut line = CommandLine::with_capacity(
        given.unwrap_or(DEFAULT_BOOT_ARGS),
        boot::kernel::cmdline::MAX_CAPACITY,
    )?;
    if !line.has("pci=") {
        // There is no PCI. With `pci=off` the kernel would print a complaint.
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
