//! `jailer volume`: raw disk images in pools.

use super::table::{Size, Table, gib};
use crate::dir::ROOT;
use crate::error::Error;
use crate::storage::copy::Source;
use crate::storage::definitions::{self, Held};
use crate::storage::pool::{self, Pool};
use crate::storage::volume::{Content, Wanted};
use crate::storage::{device, lock, qcow2};
use crate::undo::Undo;
use argh::FromArgs;
use nix::fcntl::OFlag;
use resources::Problem;
use serde::Serialize;
use std::path::PathBuf;

/// volumes, the raw disk images in a pool
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "volume",
    example = "jailer volume create --pool web web1 --size 20\njailer volume import --pool web debian-12 --from debian-12.qcow2\njailer volume clone --pool web debian-12 web2 --size 40G\njailer volume list --pool web",
    note = "A guest's drive names a volume by {{\"pool\": \"web\", \"path_on_host\": \"web1\"}}. A volume in use by a\nguest is locked, on this host and, on NFS, on every other: it cannot be cloned, deleted,\nshrunk or given to another guest."
)]
pub struct Volume {
    #[argh(subcommand)]
    action: Action,
}

#[derive(Debug, FromArgs)]
#[argh(subcommand)]
enum Action {
    Create(Create),
    Clone(Clone),
    Resize(Resize),
    List(List),
    Delete(Delete),
    Import(Import),
}

/// make an empty volume
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "create",
    example = "jailer volume create --pool web web1 --size 20\njailer volume create --pool web web1 --size 512M --preallocate"
)]
pub struct Create {
    /// name of the volume
    #[argh(positional)]
    pub name: String,
    /// name of the pool
    #[argh(option)]
    pub pool: String,
    /// size in GiB, or with M, G or T
    #[argh(option)]
    pub size: Size,
    /// take the whole space from the pool now
    #[argh(switch)]
    pub preallocate: bool,
}

/// make a volume that begins as a copy of another
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "clone",
    example = "jailer volume clone --pool web debian-12 web2\njailer volume clone --pool web debian-12 web2 --size 40",
    note = "On XFS, btrfs and NFS 4.2 onto such, both share what neither has changed: it takes no time and no\nspace. Elsewhere what is not a hole is copied."
)]
pub struct Clone {
    /// the volume to copy
    #[argh(positional)]
    pub from: String,
    /// name of the new volume
    #[argh(positional)]
    pub name: String,
    /// name of the pool
    #[argh(option)]
    pub pool: String,
    /// size of the new one, if larger: in GiB, or with M, G or T
    #[argh(option)]
    pub size: Option<Size>,
}

/// change a volume's size
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "resize",
    example = "jailer volume resize --pool web web1 --size 40\njailer volume resize --pool web web1 --size 10 --shrink",
    note = "What is in the volume does not change with it: grow the guest's partition and file system after it,\nshrink them before it."
)]
pub struct Resize {
    /// name of the volume
    #[argh(positional)]
    pub name: String,
    /// name of the pool
    #[argh(option)]
    pub pool: String,
    /// new size in GiB, or with M, G or T
    #[argh(option)]
    pub size: Size,
    /// allow it to become smaller: what is beyond is lost
    #[argh(switch)]
    pub shrink: bool,
}

/// list the volumes of a pool
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "list",
    example = "jailer volume list --pool web\njailer volume list --pool web --json"
)]
pub struct List {
    /// name of the pool
    #[argh(option)]
    pub pool: String,
    /// print JSON, with sizes in bytes
    #[argh(switch)]
    pub json: bool,
}

/// delete a volume that no guest uses
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "delete",
    example = "jailer volume delete --pool web web1"
)]
pub struct Delete {
    /// name of the volume
    #[argh(positional)]
    pub name: String,
    /// name of the pool
    #[argh(option)]
    pub pool: String,
}

/// make a volume from an image file
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "import",
    example = "jailer volume import --pool web debian-12 --from debian-12.qcow2\njailer volume import --pool web data --from old.img --format raw --size 40",
    note = "A qcow2 image is read by `qemu-img` (Debian: qemu-utils) as the user nobody, who sees this file and\nnothing else of the host; one that refers to another file is refused."
)]
pub struct Import {
    /// name of the new volume
    #[argh(positional)]
    pub name: String,
    /// name of the pool
    #[argh(option)]
    pub pool: String,
    /// the image file
    #[argh(option)]
    pub from: PathBuf,
    /// raw or qcow2 (by the file's name: qcow2 if it ends so, else raw)
    #[argh(option)]
    pub format: Option<String>,
    /// size of the volume, if larger: in GiB, or with M, G or T
    #[argh(option)]
    pub size: Option<Size>,
}

impl Volume {
    /// Does what was asked.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let action = match self.action {
            Action::List(list) => return list.run(),
            other => other,
        };
        super::change(|undo| match action {
            Action::Create(create) => create.run(undo),
            Action::Clone(clone) => clone.run(undo),
            Action::Resize(resize) => resize.run(undo),
            Action::Delete(delete) => delete.run(undo),
            Action::Import(import) => import.run(undo),
            Action::List(_) => Ok(()),
        })
    }
}

/// The active pool, held against being stopped; alone if `alone`.
fn hold(name: &str, alone: bool, undo: &mut Undo) -> Result<(Pool, Held), Error> {
    let active = || Pool::active(name).map_err(Error::Problems);
    active()?;
    let held = definitions::hold(name, !alone, undo)?;
    // It may have been stopped meanwhile.
    Ok((active()?, held))
}

fn check_name(pool: &Pool, name: &str) -> Result<(), Error> {
    let wrong = |message| Error::Problems(vec![Problem::new("volume", message)]);
    pool.check_name(name).map_err(wrong)
}

fn problem(problem: Problem) -> Error {
    Error::Problems(vec![problem])
}

/// Makes the volume `name`.
fn make(pool: &Pool, name: &str, wanted: Wanted, undo: &mut Undo) -> Result<(), Error> {
    pool.backend.create(name, wanted, ROOT, undo)?;
    println!("Volume {name} made in {}", pool.name());
    Ok(())
}

impl Create {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _held) = hold(&self.pool, false, undo)?;
        check_name(&pool, &self.name)?;
        let wanted = Wanted::new(&self.name, "--size", Some(self.size.0), Content::Empty);
        let mut wanted = wanted.map_err(problem)?;
        wanted.preallocate = self.preallocate;
        make(&pool, &self.name, wanted, undo)
    }
}

impl Clone {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _held) = hold(&self.pool, false, undo)?;
        check_name(&pool, &self.name)?;
        check_name(&pool, &self.from)?;
        // Nobody writes it meanwhile.
        let file = pool.lock(&self.from, false)?;
        let source = Source::new(file, self.from.as_ref());
        let source = source.map_err(|message| problem(Problem::new("volume", message)))?;
        let size = self.size.map(|size| size.0);
        let wanted = Wanted::new(&self.name, "--size", size, Content::Copy(source));
        make(&pool, &self.name, wanted.map_err(problem)?, undo)
    }
}

impl Resize {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _held) = hold(&self.pool, true, undo)?;
        let (name, size) = (&self.name, self.size.0);
        check_name(&pool, name)?;
        let file = pool.open(name, OFlag::O_RDWR)?;
        let former = device::size(&file)?;
        if size == former {
            println!("Volume {name} has that size");
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        if size < former && !self.shrink {
            let message = format!(
                "{} MiB is less than the {} MiB that `{name}` has: what is beyond would be lost; add --shrink \
                 if that is meant",
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
                "Its guest sees that when it starts anew, or at once after PATCH /drives/ID of the API"
            );
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let pool = Pool::active(&self.pool).map_err(Error::Problems)?;
        let volumes: Vec<_> = pool
            .backend
            .volumes()?
            .into_iter()
            .map(|volume| {
                let opened = pool.backend.open(&volume.name, OFlag::O_PATH);
                Shown {
                    in_use: opened.is_ok_and(|fd| lock::in_use(&fd, false)),
                    name: volume.name,
                    path: volume.path,
                    capacity: volume.capacity,
                    allocation: volume.allocation,
                }
            })
            .collect();
        if self.json {
            return super::print_json(&volumes);
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

/// Deletes the volume `name` of the active pool `pool`, which no guest uses.
///
/// # Errors
/// [`Error`].
pub fn delete(pool: &str, name: &str, undo: &mut Undo) -> Result<(), Error> {
    let (pool, _held) = hold(pool, true, undo)?;
    check_name(&pool, name)?;
    let file = pool.lock(name, true)?;
    pool.backend.delete(name, file, undo)?;
    println!("Volume {name} deleted");
    Ok(())
}

impl Import {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let (pool, _held) = hold(&self.pool, false, undo)?;
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
        // Where it cannot be locked, nobody else locks it either.
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
        let wanted = Wanted::new(&self.name, "--size", size, content);
        make(&pool, &self.name, wanted.map_err(problem)?, undo)
    }
}
