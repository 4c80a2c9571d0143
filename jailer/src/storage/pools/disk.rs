//! Pools of type `disk`: a volume is a partition of a GPT, identified by its name in that table. sfdisk reads and
//! writes the table. partx announces only the changed partition to the kernel, so that others may be in use.

use crate::error::Error;
use crate::storage::pools::backend::{Backend, Usage, VolumeInfo, volume_clash};
use crate::storage::pools::device::{self, open_device};
use crate::storage::volume::VolumeRequest;
use crate::sys::dir::Owner;
use crate::sys::tool::Tool;
use crate::undo::Undo;
use nix::fcntl::{Flock, FlockArg, OFlag};
use resources::{PoolDefinition, Problem};
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Debian's package with sfdisk.
const PACKAGE: &str = "fdisk";
/// Alignment of partitions in bytes, as sfdisk has it.
const ALIGNMENT: u64 = 1 << 20;
/// Time limit for the kernel or udev to create a new partition's device node.
const PATIENCE: Duration = Duration::from_secs(5);

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    device: PathBuf,
}

/// sfdisk's report about a disk.
#[derive(Debug, Deserialize)]
struct Report {
    partitiontable: Table,
}

#[derive(Debug, Deserialize)]
struct Table {
    label: String,
    firstlba: Option<u64>,
    lastlba: Option<u64>,
    #[serde(default = "sector")]
    sectorsize: u64,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    node: PathBuf,
    start: u64,
    size: u64,
    name: Option<String>,
}

impl Table {
    /// Returns the bytes of the largest gap between partitions, from the first aligned byte.
    fn largest_gap(&self) -> u64 {
        let unit = ALIGNMENT / self.sectorsize.clamp(1, ALIGNMENT);
        let mut taken: Vec<_> = self.partitions.iter().map(|p| (p.start, p.size)).collect();
        taken.push((self.lastlba.unwrap_or(0).saturating_add(1), 0));
        taken.sort_unstable();
        let (mut free, mut largest) = (self.firstlba.unwrap_or(0), 0);
        for (start, size) in taken {
            let first = free.next_multiple_of(unit);
            largest = start.saturating_sub(first).max(largest);
            free = start.saturating_add(size).max(free);
        }
        largest.saturating_mul(self.sectorsize)
    }
}

fn sector() -> u64 {
    512
}

impl Partition {
    /// Returns its number, which its node's name ends with.
    fn number(&self) -> String {
        let node = self.node.to_string_lossy();
        let digits = node.chars().rev().take_while(char::is_ascii_digit).count();
        node.get(node.len() - digits..).unwrap_or_default().into()
    }
}

impl Disk {
    /// Returns the disk that `definition` defines.
    pub fn new(definition: &PoolDefinition) -> Self {
        Self {
            device: definition.source_dev.clone().unwrap_or_default(),
        }
    }

    fn table(&self) -> Result<Table, Error> {
        let tool = Tool::new("sfdisk", PACKAGE)?.args(["--json", "--"]);
        let tool = tool.args([&self.device]);
        let failed = Error::step(format!("read the partitions of {}", self.device.display()));
        let report: Report =
            serde_json::from_str(&tool.run_to_end()?).map_err(|e| failed(io::Error::other(e)))?;
        Ok(report.partitiontable)
    }

    fn partition(&self, name: &str) -> Result<Option<Partition>, Error> {
        let mut partitions = self.table()?.partitions.into_iter();
        Ok(partitions.find(|partition| partition.name.as_deref() == Some(name)))
    }

    fn known(&self, name: &str) -> Result<Partition, Error> {
        self.partition(name)?.ok_or_else(|| {
            Error::step(format!("find the partition {name}"))(io::Error::from(
                io::ErrorKind::NotFound,
            ))
        })
    }

    /// Locks the disk's table against other processes; udev and sfdisk respect the lock.
    fn alone(&self) -> Result<Flock<File>, Error> {
        let failed = || format!("lock {}", self.device.display());
        let file = File::open(&self.device).map_err(Error::step(failed()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, e)| Error::step(failed())(e))
    }

    /// Changes the table, without telling the kernel.
    fn change(&self, args: &[&str], script: &str, undo: &mut Undo) -> Result<(), Error> {
        let flags = [
            "-q",
            "--no-reread",
            "--no-tell-kernel",
            "-w",
            "never",
            "-W",
            "never",
        ];
        let tool = Tool::new("sfdisk", PACKAGE)?.args(flags).args(args);
        let tool = tool.args([&self.device]).input(script);
        tool.run(undo).map(drop)
    }

    /// Makes the kernel `--add`, `--update` or `--delete` the partition `number`.
    fn tell(&self, what: &str, number: &str, undo: &mut Undo) -> Result<(), Error> {
        let tool = Tool::new("partx", "util-linux")?.args([what, "--nr", number]);
        tool.args([&self.device]).run(undo).map(drop)
    }

    /// Removes the partition `number`. The kernel refuses to remove an open one.
    fn remove(&self, number: &str, undo: &mut Undo) -> Result<(), Error> {
        if self.is_known(number) {
            self.tell("--delete", number, undo)?;
        }
        let flags = ["-q", "--no-reread", "--no-tell-kernel", "--delete"];
        let tool = Tool::new("sfdisk", PACKAGE)?.args(flags);
        tool.args([&self.device]).args([number]).run(undo).map(drop)
    }

    /// Returns whether the kernel knows the partition `number`.
    fn is_known(&self, number: &str) -> bool {
        let table = self
            .table()
            .map(|table| table.partitions)
            .unwrap_or_default();
        table
            .iter()
            .any(|partition| partition.number() == number && partition.node.exists())
    }

    /// Checks that the device can be a pool.
    fn check(&self) -> Result<(), String> {
        let shown = self.device.display();
        let metadata = self.device.metadata();
        let metadata = metadata.map_err(|e| format!("cannot use {shown}: {e}"))?;
        if !metadata.file_type().is_block_device() {
            return Err(format!("{shown} is not a block device"));
        }
        let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        if Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists() {
            return Err(format!("{shown} is a partition: name the whole disk"));
        }
        Ok(())
    }

    fn build(&self, undo: &mut Undo) -> Result<(), Error> {
        let shown = self.device.display();
        let wrong = |message| Error::Problems(vec![Problem::new("source_dev", message)]);
        // O_EXCL fails if the device is mounted or in use by another driver.
        let mut options = File::options();
        let alone = options
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(&self.device);
        alone.map_err(|e| wrong(format!("{shown} is in use: {e}")))?;
        let signatures = Tool::new("wipefs", "util-linux")?.args(["--noheadings"]);
        let signatures = signatures.args([&self.device]).run(undo)?;
        if !signatures.trim().is_empty() {
            return Err(wrong(format!(
                "{shown} is not empty, and was not changed: it has {}; to erase it, \
                 `wipefs --all {shown}`",
                crate::sys::tool::printable(&signatures)
            )));
        }
        self.change(&[], "label: gpt\n", undo)
    }
}

impl Backend for Disk {
    fn is_there(&self) -> bool {
        self.check().is_ok()
    }

    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error> {
        let wrong = |message| Error::Problems(vec![Problem::new("source_dev", message)]);
        self.check().map_err(wrong)?;
        let shown = self.device.display();
        match self.table() {
            Ok(table) if table.label == "gpt" => Ok(()),
            Ok(table) => Err(wrong(format!(
                "the partition table of {shown} is of type {}, but a pool needs a GPT",
                table.label
            ))),
            Err(Error::Step { .. }) if build => self.build(undo),
            Err(Error::Step { source, .. }) => Err(wrong(format!(
                "{shown} has no partition table ({source}): if it is empty, `--build` makes one"
            ))),
            Err(other) => Err(other),
        }
    }

    fn stop(&self) -> Result<(), Error> {
        Ok(())
    }

    fn usage(&self) -> Result<Usage, Error> {
        let table = self.table()?;
        let (first, last) = (table.firstlba.unwrap_or(0), table.lastlba.unwrap_or(0));
        let bytes = |sectors: u64| sectors.saturating_mul(table.sectorsize);
        let capacity = bytes(last.saturating_add(1).saturating_sub(first));
        let taken = table.partitions.iter().map(|p| bytes(p.size));
        let allocation = taken.fold(0, u64::saturating_add);
        Ok(Usage {
            capacity,
            allocation,
            available: capacity.saturating_sub(allocation),
        })
    }

    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        let table = self.table()?;
        let volumes = table.partitions.into_iter().filter_map(|partition| {
            let size = partition.size.saturating_mul(table.sectorsize);
            Some(VolumeInfo {
                name: partition.name?,
                path: partition.node,
                capacity: size,
                allocation: size,
            })
        });
        Ok(volumes.collect())
    }

    /// UEFI, table 5.6: 36 characters; and none with a meaning in sfdisk's script.
    fn check_name(&self, name: &str) -> Result<(), String> {
        device::check_name(name, 36, "partition")
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let found = self
            .partition(name)
            .map_err(|e| io::Error::other(crate::error::chain(&e)))?;
        found
            .map(|partition| partition.node)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
        open_device(&self.path(name)?, flags)
    }

    fn create(
        &self,
        name: &str,
        request: VolumeRequest,
        _: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let alone = self.alone()?;
        if self.partition(name)?.is_some() {
            return Err(volume_clash(name));
        }
        let mib = request.size.div_ceil(ALIGNMENT);
        // sfdisk would silently make a smaller partition.
        let gap = self.table()?.largest_gap() / ALIGNMENT;
        if mib > gap {
            let message = format!(
                "the largest gap on the disk has {gap} MiB, but the volume needs {mib} MiB"
            );
            return Err(Error::Problems(vec![Problem::new("--size", message)]));
        }
        let script = format!("size={mib}MiB, type=L, name=\"{name}\"\n");
        // Uninterrupted, so that it is known whether the partition was made.
        self.change(&["--append"], &script, &mut Undo::uninterrupted())?;
        let partition = self.known(name)?;
        drop(alone);
        let (disk, number) = (self.clone(), partition.number());
        undo.made(format!("the partition {name}"), move || {
            let removed = disk.remove(&number, &mut Undo::uninterrupted());
            removed.map_err(|e| io::Error::other(crate::error::chain(&e)))
        })?;
        self.tell("--add", &partition.number(), undo)?;
        let started = Instant::now();
        let file = loop {
            match open_device(&partition.node, OFlag::O_RDWR) {
                Err(_) if started.elapsed() < PATIENCE => undo.checkpoint()?,
                other => break other,
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let shown = partition.node.display();
        let file = file.map_err(Error::step(format!("open the new partition {shown}")))?;
        device::fill(&file.into(), &request, undo)
    }

    fn delete(&self, name: &str, file: File, undo: &mut Undo) -> Result<(), Error> {
        let _alone = self.alone()?;
        let number = self.known(name)?.number();
        // The kernel would keep an open partition.
        drop(file);
        self.remove(&number, undo)
    }

    fn resize(&self, name: &str, file: &File, size: u64, undo: &mut Undo) -> Result<(), Error> {
        let former = device::size(file)?;
        let alone = self.alone()?;
        let table = self.table()?;
        let partition = self.known(name)?;
        let mib = size.div_ceil(ALIGNMENT);
        let sectors = mib.saturating_mul(ALIGNMENT / table.sectorsize.max(1));
        let end = partition.start.saturating_add(sectors);
        let after = table
            .partitions
            .iter()
            .filter(|p| p.start > partition.start);
        let limit = after.map(|p| p.start).min();
        let limit = limit.unwrap_or(table.lastlba.unwrap_or(0).saturating_add(1));
        if end > limit {
            let room = limit.saturating_sub(partition.start) * table.sectorsize / ALIGNMENT;
            let message = format!(
                "the partition `{name}` can have at most {room} MiB, because another follows: clone it to a larger \
                 volume"
            );
            return Err(Error::Problems(vec![Problem::new("--size", message)]));
        }
        let number = partition.number();
        self.change(&["-N", &number], &format!("size={mib}MiB\n"), undo)?;
        self.tell("--update", &number, undo)?;
        drop(alone);
        device::zero_beyond(file, former, undo)
    }
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_test;
