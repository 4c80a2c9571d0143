//! `jailer pool`: storage pools, defined once, started at boot or by hand. The words are those of `virsh`.

use crate::error::Error;
use argh::FromArgs;

/// storage pools: a directory, an NFS export, an LVM volume group or a disk that volumes are made in
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "pool",
    example = "jailer pool define web --type dir --target /srv/images\njailer pool start web --build\njailer pool autostart web\njailer volume create --pool web web1 --size 20",
    note = "A pool's definition is /etc/bantam/pools/NAME.json, which can be written by hand too. No daemon\nwatches pools: each command looks at the host."
)]
pub struct Pool {
    #[argh(subcommand)]
    action: Action,
}

#[derive(Debug, FromArgs)]
#[argh(subcommand)]
enum Action {
    Define(Define),
    Undefine(Undefine),
    Start(Start),
    Stop(Stop),
    List(List),
    Show(Show),
    Autostart(Autostart),
}

/// describe a pool, without starting it
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "define",
    example = "jailer pool define web --type dir --target /srv/images\njailer pool define nas --type netfs --source-host 10.0.0.2 --source-path /export/images --source-options vers=4.2\njailer pool define fast --type logical --source-name vg0\njailer pool define raw --type disk --source-dev /dev/sdb",
    note = "Without --target, a `dir` or `netfs` pool is at /var/lib/bantam/pools/NAME. Mount options go to\nmount(8) as they are; with `nolock`, two hosts could start the same volume."
)]
pub struct Define {
    /// name of the pool: 1 to 64 letters, digits, `.`, `_`, `-`
    #[argh(positional)]
    pub name: String,
    /// dir (a directory), netfs (an NFS export), logical (an LVM volume group) or disk (a whole disk with a GPT)
    #[argh(option, long = "type")]
    pub kind: String,
    /// netfs: name or address of the NFS server
    #[argh(option)]
    pub source_host: Option<String>,
    /// netfs: the exported directory
    #[argh(option)]
    pub source_path: Option<String>,
    /// disk: the device, best by a name that lasts, e.g. /dev/disk/by-id/NAME
    #[argh(option)]
    pub source_dev: Option<String>,
    /// logical: the volume group (the pool's own name)
    #[argh(option)]
    pub source_name: Option<String>,
    /// netfs: mount options, e.g. vers=4.2,hard
    #[argh(option)]
    pub source_options: Option<String>,
    /// dir and netfs: the directory in which the volumes are
    #[argh(option)]
    pub target: Option<String>,
}

/// forget a pool that is not active; its volumes stay
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "undefine",
    example = "jailer pool stop web\njailer pool undefine web"
)]
pub struct Undefine {
    /// name of the pool
    #[argh(positional)]
    pub name: String,
}

/// make a pool's volumes available: mount the export, activate the volume group
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "start",
    example = "jailer pool start web --build",
    note = "A pool that is active already is left alone, with status 0. An interrupted start takes back\nwhat it did."
)]
pub struct Start {
    /// name of the pool
    #[argh(positional)]
    pub name: String,
    /// dir: make the directory if it is absent; disk: write a GPT if the disk is empty
    #[argh(switch)]
    pub build: bool,
}

/// unmount or deactivate a pool that no guest uses
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "stop", example = "jailer pool stop web")]
pub struct Stop {
    /// name of the pool
    #[argh(positional)]
    pub name: String,
}

/// list all pools
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "list",
    example = "jailer pool list \njailer pool list --json"
)]
pub struct List {
    /// print JSON, with sizes in bytes
    #[argh(switch)]
    pub json: bool,
}

/// show one pool
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "show",
    example = "jailer pool show web\njailer pool show web --json"
)]
pub struct Show {
    /// name of the pool
    #[argh(positional)]
    pub name: String,
    /// print JSON, with sizes in bytes
    #[argh(switch)]
    pub json: bool,
}

/// start a pool whenever the host boots, by systemd
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "autostart",
    example = "jailer pool autostart web\njailer pool autostart web --disable",
    note = "Writes /etc/systemd/system/bantam-pool@.service if it is absent, what is particular to the pool\nbeside it, and the link that has it started. The pool itself is not started now."
)]
pub struct Autostart {
    /// name of the pool
    #[argh(positional)]
    pub name: String,
    /// not any more
    #[argh(switch)]
    pub disable: bool,
}

impl Pool {
    /// Does what was asked.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        let unsupported = std::io::Error::other("not supported by this version");
        Err(Error::step(format!("{:?}", self.action))(unsupported))
    }
}
