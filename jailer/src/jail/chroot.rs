//! The jail: `BASE/MONITOR/ID/root` is made here, and becomes the process's `/`.
//!
//! During the preparation the jail's root belongs to root, so that the guest's user cannot change names in it. The
//! guest's files are not copied but mounted over placeholders, in this process's mount namespace. Only a kernel found
//! in an image, its initrd, and the seed are files in the jail.

use crate::confine::namespaces::{self, HostMounts};
use crate::error::Error;
use crate::image::{self, Destination, Found};
use crate::jail::exec_file::ExecFile;
use crate::jail::layout::{CONFIG, DRIVES, INITRD, KERNEL, PROCESS, RUN};
use crate::jail::lock::{self, Lock};
use crate::jail::options::Options;
use crate::jail::seed;
use crate::storage::drives::{Files, HostFile};
use crate::sys::dir::{Dir, Owner, ROOT, kind};
use crate::undo::Undo;
use nix::sys::stat::{SFlag, makedev, stat};
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use resources::VmConfig;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Device numbers that Linux fixes (devices.txt): KVM, TUN, urandom.
const KVM: (u64, u64) = (10, 232);
const TUN: (u64, u64) = (10, 200);
const URANDOM: (u64, u64) = (1, 9);
/// Device for page faults that a process handles itself; the host chooses its number.
const USERFAULTFD: &str = "/dev/userfaultfd";

/// The files with the monitor's process id: one in the jail for clients, and one outside that the guest cannot change.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    files: Vec<File>,
}

impl PidFile {
    /// Writes the process id: digits only, because clients parse the whole file.
    pub fn write(self, process: u32) -> Result<(), Error> {
        let text = process.to_string();
        let mut files = self.files.iter();
        let written = files.try_for_each(|mut file| file.write_all(text.as_bytes()));
        written.map_err(Error::step(format!("write {}", self.path.display())))
    }
}

/// A jail that this process has locked.
#[derive(Debug)]
pub struct Jail {
    jails: Dir,
    id: String,
    directory: Dir,
    root: Dir,
    owner: Owner,
    lock: Lock,
}

impl Jail {
    /// Makes the jail's directories, or takes over existing ones if no guest runs in them.
    pub fn claim(options: &Options, undo: &mut Undo) -> Result<Self, Error> {
        let base = open_base(options, undo)?;
        let jails = base.make_dir(undo, &options.exec_name, 0o755)?;
        let directory = jails.make_dir(undo, &options.id, 0o755)?;
        let lock = lock::lock(&directory, &options.id, undo)?;
        let root = directory.make_dir(undo, "root", 0o700)?;
        let taken = take(&root, undo);
        let path = root.path().display();
        taken.map_err(Error::step(format!("take over {path}")))?;
        undo.checkpoint()?;
        Ok(Self {
            jails,
            id: options.id.clone(),
            directory,
            root,
            owner: options.owner,
            lock,
        })
    }

    /// Adds the files that every monitor needs: its program, devices, a directory for sockets, and empty files for its
    /// process id.
    pub fn add_monitor_files(
        &self,
        exec: &ExecFile,
        name: &str,
        undo: &mut Undo,
    ) -> Result<PidFile, Error> {
        let (root, owner) = (&self.root, self.owner);
        exec.place(root, name, owner, undo)?;
        let dev = root.make_own_dir(undo, "dev", 0o755, ROOT)?;
        let net = dev.make_own_dir(undo, "net", 0o755, ROOT)?;
        for (dir, name, (major, minor)) in [
            (&dev, "kvm", KVM),
            (&net, "tun", TUN),
            (&dev, "urandom", URANDOM),
        ] {
            dir.make_device(undo, name, makedev(major, minor), owner)?;
        }
        if let Ok(stat) = stat(USERFAULTFD)
            && kind(&stat) == SFlag::S_IFCHR
        {
            dev.make_device(undo, "userfaultfd", stat.st_rdev, owner)?;
        }
        root.make_own_dir(undo, RUN, 0o700, owner)?;
        let mut files = Vec::new();
        for (dir, name) in [
            (root, format!("{name}.pid")),
            (&self.directory, PROCESS.into()),
        ] {
            dir.make_file(undo, &name, 0o644, ROOT, |file| {
                files.push(file.try_clone()?);
                Ok(())
            })?;
        }
        let path = root.path().join(format!("{name}.pid"));
        Ok(PidFile { path, files })
    }

    /// Adds the kernel and the initrd in the image of a drive, if `config` has the guest boot them.
    pub fn add_boot_files(
        &self,
        config: &VmConfig,
        files: &Files<HostFile>,
        undo: &mut Undo,
    ) -> Result<Option<Found>, Error> {
        let wanted = config.boot_source.image_drive.as_ref();
        let mut drives = config.drives.iter().zip(&files.drives);
        let Some((drive, file)) = drives.find(|(drive, _)| Some(&drive.drive_id) == wanted) else {
            return Ok(None);
        };
        let path = drive.path_on_host.clone().unwrap_or_default();
        let shown = format!("{} of drive {}", path.display(), drive.drive_id);
        let to = Destination {
            directory: &self.root,
            group: self.owner.gid,
            kernel: KERNEL,
            initrd: INITRD,
        };
        image::extract(&to, file, &shown, undo).map(Some)
    }

    /// Links the kernel and the initrd that were found in the image of the guest `of`, if `config`, its copy's, has the
    /// guest boot them.
    pub fn link_boot_files(
        &self,
        config: &VmConfig,
        of: &str,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        if config.boot_source.image_drive.is_none() {
            return Ok(());
        }
        let from = self.jails.enter(of).and_then(|jail| jail.enter("root"));
        let from = from.map_err(Error::step(format!("open the jail of {of}")))?;
        for name in [KERNEL, INITRD] {
            if from.stat(name).is_err() {
                continue;
            }
            let path = from.path().join(name);
            let failed = || format!("link {} for a copy", path.display());
            self.root.remove_leftover(name)?;
            from.link(name, &self.root, name)
                .map_err(Error::step(failed()))?;
            self.root.record(undo, name, UnlinkatFlags::NoRemoveDir)?;
            // The other guest's user may have replaced it.
            let stat = self.root.stat(name).map_err(Error::step(failed()))?;
            if kind(&stat) != SFlag::S_IFREG || stat.st_uid != ROOT.uid.as_raw() {
                let message = "it is not the jailer's file any more";
                return Err(Error::step(failed())(io::Error::other(message)));
            }
        }
        Ok(())
    }

    /// Adds this guest's files: its configuration, its seed, if any, and placeholders to mount its images on.
    pub fn add_guest_files(
        &self,
        config: &VmConfig,
        seed: Option<&[u8]>,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let (root, owner) = (&self.root, self.owner);
        root.make_placeholder(undo, KERNEL)?;
        if config.boot_source.initrd_path.is_some() {
            root.make_placeholder(undo, INITRD)?;
        }
        let drives = root.make_own_dir(undo, DRIVES, 0o755, ROOT)?;
        if let Some(seed) = seed {
            let owner = Owner {
                gid: owner.gid,
                ..ROOT
            };
            drives.make_file(undo, seed::DRIVE, 0o440, owner, |file| file.write_all(seed))?;
        }
        for drive in &config.drives {
            drives.make_placeholder(undo, &drive.drive_id)?;
        }
        root.make_file(undo, CONFIG, 0o400, owner, |file| {
            file.write_all(&serde_json::to_vec_pretty(config)?)
        })
    }

    /// Mounts the guest's files, gives the jail to its user and enters it. Afterwards the jail's root is the working
    /// directory, only the jail's directory is above it, read-only, and `privileges::drop_all` makes it `/`.
    pub fn enter(
        self,
        guest: Option<(&VmConfig, &Files<HostFile>)>,
        home: HostMounts,
        undo: &mut Undo,
    ) -> Result<Lock, Error> {
        // Undone before all earlier steps, whose files are then removed in the former mount namespace.
        undo.made("the mount namespace", move || home.enter())?;
        let path = self.root.path().display();
        let mounted = namespaces::mount_on_itself(&self.jails, &self.id).and_then(|directory| {
            let root = namespaces::mount_on_itself(&directory, "root")?;
            // After the root's mount, which must not be restricted.
            namespaces::restrict(&directory, true, false)?;
            same(&self.directory, &directory)?;
            Ok((directory, root))
        });
        let (directory, root) = mounted.map_err(Error::step(format!("mount {path} on itself")))?;
        undo.checkpoint()?;
        if let Some((config, files)) = guest {
            mount_files(&root, config, files, undo)?;
        }
        let entered = same(&self.root, &root)
            .and_then(|()| self.root.give(0o700, self.owner))
            .and_then(|()| namespaces::pivot(&directory, &root));
        entered.map_err(Error::step(format!("enter {path}")))?;
        undo.checkpoint()?;
        Ok(self.lock)
    }
}

fn open_base(options: &Options, undo: &mut Undo) -> Result<Dir, Error> {
    let base = &options.base;
    let shown = base.display();
    match Dir::open(base) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !options.base_given => {
            let parent = base.parent().unwrap_or(base);
            let name = base.file_name().and_then(|name| name.to_str());
            let parent = Dir::open(parent).map_err(Error::step(format!("create {shown}")))?;
            parent.make_dir(undo, name.unwrap_or_default(), 0o755)
        }
        opened => opened.map_err(Error::step(format!("open --chroot-base-dir {shown}"))),
    }
}

/// Gives an existing jail's root to root until the guest's user gets it.
fn take(root: &Dir, undo: &mut Undo) -> Result<(), io::Error> {
    let before = root.own_stat()?;
    root.give(0o700, ROOT)?;
    let owner = Owner {
        uid: Uid::from_raw(before.st_uid),
        gid: Gid::from_raw(before.st_gid),
    };
    let dir = root.clone();
    let restore = move || dir.give(before.st_mode & 0o7777, owner);
    // The caller's checkpoint reports a signal.
    let _ = undo.made(format!("the owner of {}", root.path().display()), restore);
    Ok(())
}

fn mount_files(
    root: &Dir,
    config: &VmConfig,
    files: &Files<HostFile>,
    undo: &mut Undo,
) -> Result<(), Error> {
    let boot = &config.boot_source;
    if let Some(kernel) = &files.kernel {
        let path = boot.kernel_image_path.display();
        mount(root, KERNEL, kernel)
            .map_err(Error::step(format!("mount the kernel {path} in the jail")))?;
        undo.checkpoint()?;
    }
    if let (Some(path), Some(initrd)) = (&boot.initrd_path, &files.initrd) {
        let path = path.display();
        mount(root, INITRD, initrd)
            .map_err(Error::step(format!("mount the initrd {path} in the jail")))?;
        undo.checkpoint()?;
    }
    for (drive, file) in config.drives.iter().zip(&files.drives) {
        let mounted = root
            .enter(DRIVES)
            .and_then(|drives| mount(&drives, &drive.drive_id, file));
        let path = drive.path_on_host.clone().unwrap_or_default();
        mounted.map_err(Error::step(format!(
            "mount the image {} of drive {} in the jail",
            path.display(),
            drive.drive_id
        )))?;
        undo.checkpoint()?;
    }
    Ok(())
}

fn mount(dir: &Dir, name: &str, file: &HostFile) -> io::Result<()> {
    namespaces::bind(file, &dir.handle(name)?)?;
    // Looked up again, the name leads to the mount.
    namespaces::restrict(&dir.handle(name)?, file.read_only, file.device)
}

fn same(a: &Dir, b: &Dir) -> io::Result<()> {
    let (a, b) = (a.own_stat()?, b.own_stat()?);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return Ok(());
    }
    Err(io::Error::other("another process has replaced it"))
}
