//! `bantamctl create`: one command from nothing to a running guest.

use crate::commands::common::{change, need_root, print_json};
use crate::commands::start::start;
use crate::commands::summary::summary;
use crate::guests::guest::{Guest, check_name};
use crate::guests::{definitions, disk, network, options};
use crate::units;
use clap::Args;
use jailer::error::Error;
use jailer::jail::layout::{CONSOLE, RUN};
use jailer::jail::uids;
use jailer::storage::drives;
use jailer::undo::Undo;
use resources::{BootSource, Host, MachineConfig, Problem, Seed, Serial, VmConfig};
use std::io;
use std::path::PathBuf;

/// Most bytes of a file of public keys that are read.
const MAX_KEYS: u64 = 1 << 20;

/// Create a guest with its disks and network, and start it
#[derive(Debug, Args)]
#[command(
    after_help = "The guest's definition is /etc/bantam/vms/NAME.json, in the format of `jailer --config-file`:\n\
                  edit it, and the next start uses it. Without --image, the default command line is\n\
                  `console=ttyS0 reboot=k panic=1`.\n\n\
                  Keys of --disk, separated by commas:\n  \
        pool=POOL            volume in a pool, or path=FILE for a file or a block device\n  \
        size=GIB             size of a new disk, or with M, G or T\n  \
        name=VOLUME          name of the volume (default: the guest's)\n  \
        template=FILE        raw image to copy to a new disk\n  \
        readonly=on, format=raw, cache=writeback|unsafe, discard=unmap|ignore\n\n\
        Keys of --network, separated by commas:\n  \
        bridge=NAME          bridge to join; created if absent\n  \
        address=ADDRESS/BITS address of the guest; may be repeated\n  \
        gateway=, dns=       of the guest; may be repeated\n  \
        bridge-address=ADDRESS/BITS  address of a bridge that is created\n  \
        mac=, target=TAP, mtu=, nat=on, isolated=on, guard=on\n\n\
        Examples:\n  \
        bantamctl create --name web1 --ram 2048 --vcpus 2 --image debian-12.raw \\\n      \
        --disk pool=vms,size=20 \\\n      \
        --network bridge=br0,address=10.88.0.5/24,gateway=10.88.0.1 \\\n      \
        --ssh-key ~/.ssh/id_ed25519.pub --autostart\n  \
        bantamctl create --name test --kernel /boot/vmlinuz --initrd /boot/initrd.img \\\n      \
        --disk path=test.img,size=2"
)]
pub struct Create {
    /// Name of the guest: 1 to 64 letters, digits and `-`
    #[arg(short, long, help_heading = "Guest")]
    name: String,
    /// Memory
    #[arg(
        short,
        long,
        visible_alias = "memory",
        value_name = "MIB",
        default_value_t = 1024,
        value_parser = mib,
        help_heading = "Guest"
    )]
    ram: u64,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Guest")]
    vcpus: u8,
    /// Let `bantamctl fork` copy the running guest; disables huge pages
    #[arg(long, help_heading = "Guest")]
    forkable: bool,
    /// Start the guest with the host
    #[arg(long, help_heading = "Guest")]
    autostart: bool,
    /// A disk; the first one is the root disk; may be repeated
    #[arg(long, value_name = "KEY=VALUE,...", help_heading = "Disks")]
    disk: Vec<String>,
    /// A network interface; may be repeated
    #[arg(
        short = 'w',
        long,
        value_name = "KEY=VALUE,...",
        help_heading = "Network"
    )]
    network: Vec<String>,
    /// Raw image to copy to the root disk; the guest boots the kernel in it
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    image: Option<PathBuf>,
    /// Kernel on this host, instead of --image
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    kernel: Option<PathBuf>,
    /// Initrd of --kernel
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    initrd: Option<PathBuf>,
    /// Kernel command line; with --image, appended to the image's own
    #[arg(long, value_name = "WORDS", help_heading = "Boot")]
    boot_args: Option<String>,
    /// Host name set by cloud-init (default: NAME)
    #[arg(long, value_name = "NAME", help_heading = "cloud-init")]
    hostname: Option<String>,
    /// File of SSH public keys to install; may be repeated
    #[arg(long, value_name = "FILE", help_heading = "cloud-init")]
    ssh_key: Vec<PathBuf>,
    /// User to install the keys for (default: the image's)
    #[arg(long, value_name = "USER", help_heading = "cloud-init")]
    user: Option<String>,
    /// User id of the monitor (default: the first free one from 64200)
    #[arg(long, value_name = "UID", help_heading = "Host")]
    uid: Option<u32>,
    /// Group id of the monitor (default: UID)
    #[arg(long, value_name = "GID", help_heading = "Host")]
    gid: Option<u32>,
    /// The monitor (default: bantam beside this program)
    #[arg(long, value_name = "FILE", help_heading = "Host")]
    exec_file: Option<PathBuf>,
    /// Create the guest, but do not start it
    #[arg(long, help_heading = "Action")]
    no_start: bool,
    /// Show what would be created, and create nothing
    #[arg(long, help_heading = "Action")]
    dry_run: bool,
}

/// Reads a size of memory in MiB.
fn mib(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "write a number of MiB, like 2048".into())
}

impl Create {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        check_name(&self.name)?;
        let start_it = !self.no_start && !self.dry_run;
        let name = self.name.clone();
        change(|undo| self.make(undo))?;
        match start_it {
            true => start(&Guest::load(&name)?),
            false => Ok(()),
        }
    }

    fn make(self, undo: &mut Undo) -> Result<(), Error> {
        let locked = definitions::Locked::new()?;
        locked.check_new(&self.name)?;
        let others = locked.others()?;
        let config = self.config(&locked, &others)?;
        let mut problems = config.problems();
        let host = config.host.clone().unwrap_or_default();
        let owner = options::owner(host.uid.unwrap_or_default(), host.gid);
        let files = match problems.is_empty() {
            true => drives::check(&config, owner, &mut problems),
            false => None,
        };
        jailer::network::check_new(&config.network_interfaces, &others, &mut problems);
        let Some(files) = files.filter(|_| problems.is_empty()) else {
            return Err(Error::Problems(problems));
        };
        println!("{}", summary(&self.name, &config, self.autostart, owner));
        if self.dry_run {
            println!(
                "--dry-run: nothing was created. {} would be:",
                definitions::path(&self.name).display()
            );
            return print_json(&without_making(config));
        }
        files.make(owner, undo)?;
        locked.save(&self.name, &without_making(config), undo)?;
        if self.autostart {
            units::guest::enable(&self.name, undo)?;
        }
        Ok(())
    }

    fn config(&self, locked: &definitions::Locked, others: &[VmConfig]) -> Result<VmConfig, Error> {
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
            // The command line in an image names the root file system.
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
        let uid = self.user_number(locked)?;
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
                mem_size_mib: self.ram,
                forkable: self.forkable,
                ..MachineConfig::default()
            },
            network_interfaces,
            entropy: Some(resources::Entropy::default()),
            serial: Some(Serial {
                socket: Some(format!("/{RUN}/{CONSOLE}").into()),
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

    /// Returns the user that the command names, or a free one.
    fn user_number(&self, locked: &definitions::Locked) -> Result<u32, Error> {
        let taken = locked.uids()?;
        let problem = |message| Error::Problems(vec![Problem::new("--uid", message)]);
        if let Some(uid) = self.uid {
            return match taken.contains(&uid) {
                false => Ok(uid),
                true => Err(problem(format!(
                    "{uid} is another guest's: leave the option out to get a free one"
                ))),
            };
        }
        let range = uids::Range::parse(None).map_err(Error::Arguments)?;
        let free = range.first_free(1, |uid| taken.contains(&uid))?;
        let free = free.first().copied();
        free.ok_or_else(|| problem("no uid between 64200 and 65199 is free: name one".into()))
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
            .map_err(|e| Error::step("get random bytes")(io::Error::other(e)))?;
        let number = u64::from_ne_bytes(random);
        Ok(Some(Seed {
            instance_id: format!("{}-{number:016x}", self.name),
            hostname: Some(self.hostname.clone().unwrap_or_else(|| self.name.clone())),
            user: self.user.clone(),
            ssh_authorized_keys: keys,
        }))
    }
}

/// Returns the definition as it is saved: a disk that disappears later is reported as missing, not made anew.
fn without_making(mut config: VmConfig) -> VmConfig {
    for drive in &mut config.drives {
        drive.size_mib = None;
        drive.template = None;
    }
    config
}
