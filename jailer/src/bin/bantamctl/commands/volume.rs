//! `bantamctl volume`: raw disk images in pools.

use crate::commands::common::{change, need_root, print_json};
use crate::size::{Size, gib};
use crate::table::Table;
use clap::{Args, Subcommand};
use jailer::error::Error;
use jailer::storage::copy::Source;
use jailer::storage::pools::definitions::{self, PoolLock};
use jailer::storage::pools::device;
use jailer::storage::pools::pool::{self, Pool};
use jailer::storage::volume::{Content, VolumeRequest};
use jailer::storage::{lock, qcow2};
use jailer::sys::dir::ROOT;
use jailer::undo::Undo;
use nix::fcntl::OFlag;
use resources::Problem;
use serde::Serialize;
use std::path::PathBuf;

/// Volumes: the raw disk images in a pool
#[derive(Debug, Args)]
#[command(
    after_help = "A guest's drive names a volume by {\"pool\": \"web\", \"path_on_host\": \"web1\"}. The volume of a\n\
                  running guest is locked, on NFS also against other hosts: it cannot be cloned, deleted,\n\
                  shrunk or used by another guest.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl volume create --pool web web1 --size 20\n\
                  \x20 bantamctl volume import --pool web debian-12 --from debian-12.qcow2\n\
                  \x20 bantamctl volume clone --pool web debian-12 web2 --size 40G\n\
                  \x20 bantamctl volume list --pool web"
)]
pub struct Volume {
    #[command(subcommand)]
    action: Action,
}

/// A command for volumes
#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    Clone(Clone),
    Resize(Resize),
    List(List),
    Delete(Delete),
    Import(Import),
}

/// Create an empty volume
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n\
                  \x20 bantamctl volume create --pool web web1 --size 20\n\
                  \x20 bantamctl volume create --pool web web1 --size 512M --preallocate")]
pub struct Create {
    /// Name of the volume
    pub name: String,
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
    /// Size: in GiB, or with M, G or T
    #[arg(long)]
    pub size: Size,
    /// Allocate all its space in the pool now
    #[arg(long)]
    pub preallocate: bool,
}

/// Copy a volume to a new one
#[derive(Debug, Args)]
#[command(
    after_help = "On XFS, btrfs and NFS 4.2 exports of these, both volumes share unchanged blocks: a clone\n\
                  takes no time and no space. Elsewhere the data is copied, and holes stay holes.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl volume clone --pool web debian-12 web2\n\
                  \x20 bantamctl volume clone --pool web debian-12 web2 --size 40"
)]
pub struct Clone {
    /// The volume to copy
    pub from: String,
    /// Name of the new volume
    pub name: String,
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
    /// Size of the new volume, if larger: in GiB, or with M, G or T
    #[arg(long)]
    pub size: Option<Size>,
}

/// Change a volume's size
#[derive(Debug, Args)]
#[command(
    after_help = "The contents do not change with the size: grow the guest's partition and file system\n\
                  afterwards, or shrink them before.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl volume resize --pool web web1 --size 40\n\
                  \x20 bantamctl volume resize --pool web web1 --size 10 --shrink"
)]
pub struct Resize {
    /// Name of the volume
    pub name: String,
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
    /// New size: in GiB, or with M, G or T
    #[arg(long)]
    pub size: Size,
    /// Allow a smaller size; the data beyond it is lost
    #[arg(long)]
    pub shrink: bool,
}

/// List the volumes of a pool
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n\
                  \x20 bantamctl volume list --pool web\n\
                  \x20 bantamctl volume list --pool web --json")]
pub struct List {
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
    /// Print JSON, with sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// Delete a volume that no guest uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n\
                  \x20 bantamctl volume delete --pool web web1")]
pub struct Delete {
    /// Name of the volume
    pub name: String,
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
}

/// Create a volume from an image file
#[derive(Debug, Args)]
#[command(
    after_help = "`qemu-img` (Debian: qemu-utils) reads a qcow2 image as the user nobody, and sees no other\n\
                  file of the host. An image that refers to another file is refused.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl volume import --pool web debian-12 --from debian-12.qcow2\n\
                  \x20 bantamctl volume import --pool web data --from old.img --format raw --size 40"
)]
pub struct Import {
    /// Name of the new volume
    pub name: String,
    /// Name of the pool
    #[arg(long)]
    pub pool: String,
    /// The image file
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// raw or qcow2 (default: qcow2 if the file's name ends so, else raw)
    #[arg(long)]
    pub format: Option<String>,
    /// Size of the volume, if larger: in GiB, or with M, G or T
    #[arg(long)]
    pub size: Option<Size>,
}

impl Volume {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let action = match self.action {
            Action::List(list) => return list.run(),
            other => other,
        };
        change(|undo| match action {
            Action::Create(create) => create.run(undo),
            Action::Clone(clone) => clone.run(undo),
            Action::Resize(resize) => resize.run(undo),
            Action::Delete(delete) => delete.run(undo),
            Action::Import(import) => import.run(undo),
            Action::List(_) => Ok(()),
        })
    }
}

/// Returns the active pool `name`, locked against a stop; against every other command if `alone`.
fn lock_pool(name: &str, alone: bool, undo: &mut Undo) -> Result<(Pool, PoolLock), Error> {
    let active = || Pool::active(name).map_err(Error::Problems);
    active()?;
    let lock = definitions::lock(name, !alone, undo)?;
    // It may have been stopped before this took the lock.
    Ok((active()?, lock))
}

fn check_name(pool: &Pool, name: &str) -> Result<(), Error> {
    let wrong = |message| Error::Problems(vec![Problem::new("volume", message)]);
    pool.check_name(name).map_err(wrong)
}

fn problem(problem: Problem) -> Error {
    Error::Problems(vec![problem])
}

/// Makes the volume `name`, and says so.
fn make(pool: &Pool, name: &str, request: VolumeRequest, undo: &mut Undo) -> Result<(), Error> {
    pool.backend.create(name, request, ROOT, undo)?;
    println!("Volume {name} made in {}", pool.name());
    Ok(())
}

impl Create {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _lock) = lock_pool(&self.pool, false, undo)?;
        check_name(&pool, &self.name)?;
        let request = VolumeRequest::new(&self.name, "--size", Some(self.size.0), Content::Empty);
        let mut request = request.map_err(problem)?;
        request.preallocate = self.preallocate;
        make(&pool, &self.name, request, undo)
    }
}

impl Clone {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _lock) = lock_pool(&self.pool, false, undo)?;
        check_name(&pool, &self.name)?;
        check_name(&pool, &self.from)?;
        let file = pool.lock(&self.from, false)?;
        let source = Source::new(file, self.from.as_ref());
        let source = source.map_err(|message| problem(Problem::new("volume", message)))?;
        let size = self.size.map(|size| size.0);
        let request = VolumeRequest::new(&self.name, "--size", size, Content::Copy(source));
        make(&pool, &self.name, request.map_err(problem)?, undo)
    }
}

impl Resize {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _lock) = lock_pool(&self.pool, true, undo)?;
        let (name, size) = (&self.name, self.size.0);
        check_name(&pool, name)?;
        let file = pool.open(name, OFlag::O_RDWR)?;
        let former = device::size(&file)?;
        if size == former {
            println!("Volume {name} has that size already");
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        if size < former && !self.shrink {
            let message = format!(
                "{} MiB is less than the {} MiB of `{name}`, and the data beyond would be lost: add --shrink if that \
                 is meant",
                mib(size),
                mib(former)
            );
            return Err(problem(Problem::new("--size", message)));
        }
        let alone = lock::lock(&file, false);
        let alone = alone.map_err(Error::step(format!("lock the volume {name}")))?;
        if size < former && !alone {
            return Err(pool::in_use(pool.name(), name));
        }
        pool.backend.resize(name, &file, size, undo)?;
        println!("Volume {name} resized to {}", gib(device::size(&file)?));
        if !alone {
            println!(
                "Its guest sees the new size at its next start, or after PATCH /drives/ID of the API"
            );
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let pool = Pool::active(&self.pool).map_err(Error::Problems)?;
        let volumes: Vec<_> = pool
            .volumes()?
            .into_iter()
            .map(|volume| Shown {
                in_use: pool.is_in_use(&volume.name),
                name: volume.name,
                path: volume.path,
                capacity: volume.capacity,
                allocation: volume.allocation,
            })
            .collect();
        if self.json {
            return print_json(&volumes);
        }
        let mut table = Table::new(["Name", "Capacity", "Allocation", "In use", "Path"]);
        for volume in volumes {
            table.row([
                volume.name,
                gib(volume.capacity),
                gib(volume.allocation),
                if volume.in_use { "yes" } else { "no" }.into(),
                volume.path.display().to_string(),
            ]);
        }
        table.print();
        Ok(())
    }
}

#[derive(Serialize)]
struct Shown {
    name: String,
    path: PathBuf,
    capacity: u64,
    allocation: u64,
    in_use: bool,
}

impl Delete {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        delete(&self.pool, &self.name, undo)
    }
}

/// Deletes the volume `name` of the active pool `pool`. No guest may use it.
pub fn delete(pool: &str, name: &str, undo: &mut Undo) -> Result<(), Error> {
    let (pool, _lock) = lock_pool(pool, true, undo)?;
    check_name(&pool, name)?;
    let file = pool.lock(name, true)?;
    pool.backend.delete(name, file, undo)?;
    println!("Volume {name} deleted");
    Ok(())
}

impl Import {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _lock) = lock_pool(&self.pool, false, undo)?;
        check_name(&pool, &self.name)?;
        let by_name = self.from.extension().is_some_and(|end| end == "qcow2");
        let qcow2 = match self.format.as_deref() {
            None => by_name,
            Some("raw") => false,
            Some("qcow2") => true,
            Some(other) => {
                let message = format!("`{other}` is not raw or qcow2");
                return Err(problem(Problem::new("--format", message)));
            }
        };
        let source = Source::open(&self.from);
        let mut source = source.map_err(|message| problem(Problem::new("--from", message)))?;
        // A file system without locks has no guests to protect from.
        if matches!(lock::lock(&source.file, true), Ok(false)) {
            let message = format!(
                "{} is in use by a guest: stop that first",
                self.from.display()
            );
            return Err(problem(Problem::new("--from", message)));
        }
        let content = if qcow2 {
            qcow2::check(&source)?;
            source.size = qcow2::disk_size(&source, undo)?;
            Content::Qcow2(source)
        } else {
            Content::Copy(source)
        };
        let size = self.size.map(|size| size.0);
        let request = VolumeRequest::new(&self.name, "--size", size, content);
        make(&pool, &self.name, request.map_err(problem)?, undo)
    }
}
