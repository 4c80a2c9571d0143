//! `jailer volume`: raw disk images in pools.

use crate::error::Error;
use argh::FromArgs;

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
    pub size: String,
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
    pub size: Option<String>,
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
    pub size: String,
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
    pub from: std::path::PathBuf,
    /// raw or qcow2 (by the file's name: qcow2 if it ends so, else raw)
    #[argh(option)]
    pub format: Option<String>,
    /// size of the volume, if larger: in GiB, or with M, G or T
    #[argh(option)]
    pub size: Option<String>,
}

impl Volume {
    /// Does what was asked.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        let unsupported = std::io::Error::other("not supported by this version");
        Err(Error::step(format!("{:?}", self.action))(unsupported))
    }
}
