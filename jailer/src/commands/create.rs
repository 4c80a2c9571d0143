//! `jailer create`: one command from nothing to a guest that runs.

use super::table::gib;
use crate::dir::Owner;
use crate::error::{Error, warn};
use crate::guests::{self, Guest, copies, definitions, disk, network, options, service};
use crate::storage;
use crate::uids;
use crate::undo::Undo;
use argh::FromArgs;
use resources::{BootSource, Host, MachineConfig, Problem, Seed, Serial, VmConfig};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Most bytes of a file of public keys that are read.
const MAX_KEYS: u64 = 1 << 20;
/// Memory if nothing is said, in MiB.
const DEFAULT_RAM: u64 = 1024;

/// Make a guest with its disks and network, and start it. Its definition is /etc/bantam/vms/NAME.json, the JSON
/// file that `jailer --config-file` takes: edit it, and the next start has it.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "create",
    example = "jailer create --name web1 --ram 2048 --vcpus 2 --image debian-12.raw --disk pool=vms,size=20 \\\n    --network bridge=br0,address=10.88.0.5/24,gateway=10.88.0.1 --ssh-key ~/.ssh/id_ed25519.pub --autostart\njailer create --name test --kernel /boot/vmlinuz --initrd /boot/initrd.img --disk path=test.img,size=2",
    note = "--disk: pool=POOL | path=FILE, size=GIB, name=VOLUME, template=FILE (what it begins as), format=raw, readonly=on, cache=writeback|unsafe,\ndiscard=unmap|ignore. --network: bridge=NAME, mac=, target=TAP, mtu=, address=ADDRESS/BITS (of the guest;\nrepeat for more), gateway=, dns=, bridge-address=ADDRESS/BITS (if the jailer makes the bridge), nat=on,\nisolated=on, guard=on. `jailer start|stop|console|show|destroy|undefine NAME` act on the guest."
)]
pub struct Create {
    /// name of the guest: 1 to 64 letters, digits and `-`
    #[argh(option)]
    name: String,
    /// memory in MiB (1024)
    #[argh(option, long = "ram")]
    ram: Option<u64>,
    /// the same
    #[argh(option)]
    memory: Option<u64>,
    /// processors (1)
    #[argh(option, default = "1")]
    vcpus: u8,
    /// a disk; the first is the root disk; may be repeated
    #[argh(option)]
    disk: Vec<String>,
    /// a network interface; may be repeated
    #[argh(option)]
    network: Vec<String>,
    /// raw disk image that the root disk begins as, and whose own kernel is booted at each start
    #[argh(option)]
    image: Option<PathBuf>,
    /// kernel on this host, instead of --image
    #[argh(option)]
    kernel: Option<PathBuf>,
    /// its initrd
    #[argh(option)]
    initrd: Option<PathBuf>,
    /// its command line (console=ttyS0 reboot=k panic=1); with --image, appended to the image's own
    #[argh(option)]
    boot_args: Option<String>,
    /// host name, told by a NoCloud seed (NAME)
    #[argh(option)]
    hostname: Option<String>,
    /// file of public keys that may log in, told by the seed; may be repeated
    #[argh(option)]
    ssh_key: Vec<PathBuf>,
    /// whom the keys let in (the image's default user)
    #[argh(option)]
    user: Option<String>,
    /// user that the guest runs as on this host (the first from 64200 that no guest has)
    #[argh(option)]
    uid: Option<u32>,
    /// its group (of the same number)
    #[argh(option)]
    gid: Option<u32>,
    /// the VMM (bantam, beside this program)
    #[argh(option)]
    exec_file: Option<PathBuf>,
    /// let `jailer fork` copy the guest while it runs, at the cost of huge pages
    #[argh(switch)]
    forkable: bool,
    /// start the guest with the host
    #[argh(switch)]
    autostart: bool,
    /// make it, but do not start it
    #[argh(switch)]
    no_start: bool,
    /// show what would be made, and make nothing
    #[argh(switch)]
    dry_run: bool,
}

impl Create {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`]: nothing was made then.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        guests::check_name(&self.name)?;
        let dry = self.dry_run;
        let start = !self.no_start;
        let name = self.name.clone();
        super::change(|undo| self.make(undo))?;
        if start && !dry {
            return super::start::start(&Guest::load(&name)?);
        }
        Ok(())
    }

    fn make(self, undo: &mut Undo) -> Result<(), Error> {
        let held = definitions::Held::new()?;
        held.check_new(&self.name)?;
        let others = held.others()?;
        let config = self.config(&others)?;
        let mut problems = config.problems();
        let host = config.host.clone().unwrap_or_default();
        let owner = options::owner(host.uid.unwrap_or_default(), host.gid);
        let files = match problems.is_empty() {
            true => storage::check(&config, owner, &mut problems),
            false => None,
        };
        crate::network::check_new(&config.network_interfaces, &others, &mut problems);
        let Some(files) = files.filter(|_| problems.is_empty()) else {
            return Err(Error::Problems(problems));
        };
        println!("{}", summary(&self.name, &config, self.autostart, owner));
        if self.dry_run {
            println!(
                "--dry-run: nothing was made. {} would be:",
                definitions::path(&self.name).display()
            );
            return super::print_json(&without_making(config));
        }
        files.make(owner, undo)?;
        held.save(&self.name, &without_making(config), undo)?;
        if self.autostart {
            service::enable(&self.name, undo)?;
        }
        Ok(())
    }

    fn config(&self, others: &[VmConfig]) -> Result<VmConfig, Error> {
        let arguments = Error::Arguments;
        let image = self.image.as_ref().map(std::path::absolute).transpose();
        let image = image.map_err(Error::step("find --image"))?;
        if image.is_some() == self.kernel.is_some() {
            return Err(arguments(
                "give one of --image (a disk image with its own kernel) and --kernel".into(),
            ));
        }
        if self.disk.is_empty() && image.is_some() {
            return Err(arguments(
                "--image needs a --disk to be copied to, e.g. --disk pool=POOL,size=20".into(),
            ));
        }
        let mut drives = Vec::new();
        for (index, text) in self.disk.iter().enumerate() {
            let template = image.as_ref().filter(|_| index == 0);
            let mut drive = disk::parse(text, &self.name, index, template).map_err(arguments)?;
            // An image's own command line names its root file system.
            drive.is_root_device = index == 0 && image.is_none();
            drives.push(drive);
        }
        let interfaces = others.iter().flat_map(|other| &other.network_interfaces);
        let mut taken: Vec<_> = interfaces.filter_map(|other| other.guest_mac).collect();
        let mut network_interfaces = Vec::new();
        for (index, text) in self.network.iter().enumerate() {
            let interface = network::parse(text, &self.name, index, &taken).map_err(arguments)?;
            taken.extend(interface.guest_mac);
            network_interfaces.push(interface);
        }
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let kernel = self.kernel.as_ref().map(absolute).transpose();
        let initrd = self.initrd.as_ref().map(absolute).transpose();
        let boot_args = match (&self.boot_args, &image) {
            (Some(given), _) => Some(given.clone()),
            (None, None) => Some("console=ttyS0 reboot=k panic=1".into()),
            (None, Some(_)) => None,
        };
        let uid = self.user_number(others)?;
        Ok(VmConfig {
            boot_source: BootSource {
                kernel_image_path: kernel
                    .map_err(Error::step("find --kernel"))?
                    .unwrap_or_default(),
                initrd_path: initrd.map_err(Error::step("find --initrd"))?,
                boot_args,
                image_drive: image.is_some().then(|| "root".into()),
            },
            drives,
            machine_config: MachineConfig {
                vcpu_count: self.vcpus,
                mem_size_mib: self.ram.or(self.memory).unwrap_or(DEFAULT_RAM),
                forkable: self.forkable,
                ..MachineConfig::default()
            },
            network_interfaces,
            entropy: Some(resources::Entropy::default()),
            serial: Some(Serial {
                socket: Some(format!("/run/{}", guests::channel::CONSOLE).into()),
                ..Serial::default()
            }),
            host: Some(Host {
                exec_file: self
                    .exec_file
                    .as_ref()
                    .map(absolute)
                    .transpose()
                    .map_err(Error::step("find --exec-file"))?,
                uid: Some(uid),
                gid: self.gid,
                seed: self.seed(image.is_some())?,
                copy_of: None,
            }),
            ..VmConfig::default()
        })
    }

    /// A user whom no other guest has.
    fn user_number(&self, others: &[VmConfig]) -> Result<u32, Error> {
        let copies = copies::uids()?;
        let taken = |uid: u32| {
            let mut hosts = others.iter().filter_map(|other| other.host.as_ref());
            copies.contains(&uid) || hosts.any(|host| host.uid == Some(uid))
        };
        if let Some(uid) = self.uid {
            if taken(uid) {
                let message =
                    format!("{uid} is another guest's: leave it out and a free one is taken");
                return Err(Error::Problems(vec![Problem::new("--uid", message)]));
            }
            return Ok(uid);
        }
        for uid in uids::Range::parse(None)
            .map_err(Error::Arguments)?
            .numbers()
        {
            if !taken(uid) && uids::claim(uid)?.is_some() {
                return Ok(uid);
            }
        }
        let message = "none is free from 64200 to 65199: name one";
        Err(Error::Problems(vec![Problem::new("--uid", message)]))
    }

    fn seed(&self, image: bool) -> Result<Option<Seed>, Error> {
        let asked = self.hostname.is_some() || self.user.is_some() || !self.ssh_key.is_empty();
        if !image && !asked {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for path in &self.ssh_key {
            let text = resources::read_bounded(path, MAX_KEYS);
            let text = text.map_err(Error::step(format!("read --ssh-key {}", path.display())))?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            keys.extend(lines.map(str::to_owned));
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|e| Error::step("draw a number")(std::io::Error::other(e)))?;
        let number = u64::from_ne_bytes(random);
        Ok(Some(Seed {
            instance_id: format!("{}-{number:016x}", self.name),
            hostname: Some(self.hostname.clone().unwrap_or_else(|| self.name.clone())),
            user: self.user.clone(),
            ssh_authorized_keys: keys,
        }))
    }
}

/// The definition as it is kept: what is made now is not made again if it has gone, but missed.
fn without_making(mut config: VmConfig) -> VmConfig {
    for drive in &mut config.drives {
        drive.size_mib = None;
        drive.template = None;
    }
    config
}

/// Everything about the guest, defaults too, a line each.
fn summary(name: &str, config: &VmConfig, autostart: bool, owner: Owner) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("name", name.into());
    line(
        "memory",
        format!("{} MiB", config.machine_config.mem_size_mib),
    );
    line("vcpus", config.machine_config.vcpu_count.to_string());
    let boot = &config.boot_source;
    line(
        "boot",
        match &boot.image_drive {
            Some(id) => format!("the kernel in the image of drive {id}"),
            None => boot.kernel_image_path.display().to_string(),
        },
    );
    if let Some(args) = &boot.boot_args {
        line("boot args", args.clone());
    }
    for drive in &config.drives {
        let place = drive.path_on_host.clone().unwrap_or_default();
        let place = match &drive.pool {
            Some(pool) => format!("volume {} of pool {pool}", place.display()),
            None => place.display().to_string(),
        };
        let size = drive.size_mib.map(|mib| format!(", {}", gib(mib << 20)));
        let from = drive.template.as_ref();
        let from = from.map(|from| format!(", begins as {}", from.display()));
        line(
            "disk",
            format!(
                "{}: {place}{}{}, cache {:?}{}",
                drive.drive_id,
                size.unwrap_or_default(),
                from.unwrap_or_default(),
                drive.cache_type,
                if drive.is_read_only {
                    ", read-only"
                } else {
                    ""
                }
            ),
        );
    }
    for interface in &config.network_interfaces {
        let host = interface.host.clone().unwrap_or_default();
        let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
        line(
            "network",
            format!(
                "{}: tap {} on {}, MAC {}{}",
                interface.iface_id,
                interface.host_dev_name,
                interface.bridge.clone().unwrap_or_default(),
                interface
                    .guest_mac
                    .map(|mac| mac.to_string())
                    .unwrap_or_default(),
                match addresses.is_empty() {
                    true => String::new(),
                    false => format!(", {}", addresses.join(", ")),
                }
            ),
        );
    }
    if config.network_interfaces.is_empty() {
        line("network", "none (--network bridge=br0)".into());
    }
    if let Some(seed) = config.host.as_ref().and_then(|host| host.seed.as_ref()) {
        line(
            "seed",
            format!(
                "host name {}, {} keys",
                seed.hostname.clone().unwrap_or_default(),
                seed.ssh_authorized_keys.len()
            ),
        );
    }
    line(
        "runs as",
        format!("user {}, group {}", owner.uid, owner.gid),
    );
    line("autostart", if autostart { "yes" } else { "no" }.into());
    text.truncate(text.trim_end().len());
    if options::default_monitor().is_ok_and(|path| !path.exists())
        && config
            .host
            .as_ref()
            .is_some_and(|host| host.exec_file.is_none())
    {
        warn("there is no bantam beside this program: name it by --exec-file");
    }
    text
}
