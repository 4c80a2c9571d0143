//! `jailer pool`: storage pools, defined once, started at boot or by hand. The words are those of `virsh`.

use super::table::{Table, gib};
use crate::error::{self, Error};
use crate::storage::{autostart, definitions, pool as storage};
use crate::undo::Undo;
use argh::FromArgs;
use resources::{PoolDefinition, PoolType, Problem};
use serde::Serialize;

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
        match self.action {
            Action::List(list) => return list.run(),
            Action::Show(show) => return show.run(),
            _ => super::need_root()?,
        }
        super::change(|undo| match self.action {
            Action::Define(define) => define.run(undo),
            Action::Undefine(undefine) => undefine.run(undo),
            Action::Start(start) => start.run(undo),
            Action::Stop(stop) => stop.run(undo),
            Action::Autostart(autostart) => autostart.run(undo),
            Action::List(_) | Action::Show(_) => Ok(()),
        })
    }
}

fn load(name: &str) -> Result<storage::Pool, Error> {
    storage::Pool::load(name).map_err(Error::Problems)
}

impl Define {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let Some(kind) = PoolType::named(&self.kind) else {
            let message = format!("`{}` is not dir, netfs, logical or disk", self.kind);
            return Err(Error::Problems(vec![Problem::new("--type", message)]));
        };
        let definition = PoolDefinition {
            name: self.name,
            kind,
            source_host: self.source_host,
            source_path: self.source_path.map(Into::into),
            source_dev: self.source_dev.map(Into::into),
            source_name: self.source_name,
            source_options: self.source_options,
            target: self.target.map(Into::into),
        };
        let problems = definition.problems();
        if !problems.is_empty() {
            let flag = |p: Problem| match p.key.as_str() {
                "name" => p,
                key => Problem::new(format!("--{}", key.replace('_', "-")), p.message),
            };
            return Err(Error::Problems(problems.into_iter().map(flag).collect()));
        }
        let name = &definition.name;
        let _held = definitions::hold(name, false, undo)?;
        if definitions::path(name).exists() {
            return Err(definitions::clash(name));
        }
        definitions::save(&definition, undo)?;
        println!("Pool {name} defined; `jailer pool start {name}` starts it");
        Ok(())
    }
}

impl Undefine {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let name = &self.name;
        // Also one whose definition is broken.
        resources::check_pool_name(name)
            .map_err(|message| Error::Problems(vec![Problem::new("pool", message)]))?;
        if !definitions::path(name).exists() {
            load(name)?;
        }
        let _held = definitions::hold(name, false, undo)?;
        if load(name).is_ok_and(|pool| pool.is_active()) {
            let message = format!("`{name}` is active: `jailer pool stop {name}` first");
            return Err(Error::Problems(vec![Problem::new("pool", message)]));
        }
        autostart::disable(name)?;
        definitions::remove(name)?;
        definitions::unmark(name)?;
        println!("Pool {name} undefined");
        Ok(())
    }
}

impl Start {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let name = &self.name;
        let pool = load(name)?;
        let _held = definitions::hold(name, false, undo)?;
        if pool.is_active() {
            println!("Pool {name} is active already");
            return Ok(());
        }
        pool.backend.start(self.build, undo)?;
        definitions::mark(name, undo)?;
        println!("Pool {name} started");
        Ok(())
    }
}

impl Stop {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let name = &self.name;
        let pool = load(name)?;
        let _held = definitions::hold(name, false, undo)?;
        if !pool.is_active() {
            definitions::unmark(name)?;
            println!("Pool {name} is not active");
            return Ok(());
        }
        let used = pool.in_use()?;
        if !used.is_empty() {
            let message = format!("in use by guests: {}: stop these first", used.join(", "));
            return Err(Error::Problems(vec![Problem::new("pool", message)]));
        }
        pool.backend.stop()?;
        definitions::unmark(name)?;
        println!("Pool {name} stopped");
        Ok(())
    }
}

impl Autostart {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let name = &self.name;
        let pool = load(name)?;
        let _held = definitions::hold(name, false, undo)?;
        if self.disable {
            autostart::disable(name)?;
            println!("Pool {name} does not start with the host");
        } else {
            autostart::enable(&pool.definition, undo)?;
            println!("Pool {name} starts with the host");
        }
        Ok(())
    }
}

/// A pool as it is now.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    definition: PoolDefinition,
    active: bool,
    autostart: bool,
    /// Why it cannot tell how full it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    usage: Option<Bytes>,
}

#[derive(Serialize)]
struct Bytes {
    capacity: u64,
    allocation: u64,
    available: u64,
}

impl Shown {
    fn new(pool: storage::Pool) -> Self {
        let active = pool.is_active();
        let (usage, error) = match active.then(|| pool.backend.usage()) {
            None => (None, None),
            Some(Ok(usage)) => (Some(usage), None),
            Some(Err(e)) => (None, Some(error::chain(&e))),
        };
        Self {
            active,
            autostart: autostart::is_enabled(pool.name()),
            error,
            usage: usage.map(|usage| Bytes {
                capacity: usage.capacity,
                allocation: usage.allocation,
                available: usage.available,
            }),
            definition: pool.definition,
        }
    }

    fn state(&self) -> &'static str {
        match (self.active, &self.error) {
            (false, _) => "inactive",
            (true, None) => "active",
            (true, Some(_)) => "failed",
        }
    }

    fn size(&self, of: impl Fn(&Bytes) -> u64) -> String {
        self.usage
            .as_ref()
            .map_or("-".into(), |usage| gib(of(usage)))
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let names = definitions::names();
        let names = names.map_err(Error::step(format!("list {}", definitions::DEFINITIONS)))?;
        let mut shown = Vec::new();
        for name in names {
            match load(&name) {
                Ok(pool) => shown.push(Shown::new(pool)),
                Err(e) => error::warn(&error::chain(&e)),
            }
        }
        if self.json {
            return super::print_json(&shown);
        }
        let mut table = Table::new([
            "Name",
            "State",
            "Autostart",
            "Type",
            "Capacity",
            "Allocation",
            "Available",
        ]);
        for pool in &shown {
            table.row([
                pool.definition.name.clone(),
                pool.state().into(),
                if pool.autostart { "yes" } else { "no" }.into(),
                pool.definition.kind.name().into(),
                pool.size(|usage| usage.capacity),
                pool.size(|usage| usage.allocation),
                pool.size(|usage| usage.available),
            ]);
        }
        table.print();
        for pool in &shown {
            if let Some(message) = &pool.error {
                error::warn(&format!("{}: {message}", pool.definition.name));
            }
        }
        Ok(())
    }
}

impl Show {
    fn run(self) -> Result<(), Error> {
        let pool = load(&self.name)?;
        let shown = Shown::new(pool);
        if self.json {
            return super::print_json(&shown);
        }
        let definition = &shown.definition;
        let path =
            |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
        for (key, value) in [
            ("Name", Some(definition.name.clone())),
            ("Type", Some(definition.kind.name().into())),
            ("State", Some(shown.state().into())),
            (
                "Autostart",
                Some(if shown.autostart { "yes" } else { "no" }.into()),
            ),
            ("Source host", definition.source_host.clone()),
            ("Source path", path(&definition.source_path)),
            ("Source device", path(&definition.source_dev)),
            ("Source name", definition.source_name.clone()),
            ("Options", definition.source_options.clone()),
            ("Target", path(&definition.target)),
            ("Capacity", Some(shown.size(|usage| usage.capacity))),
            ("Allocation", Some(shown.size(|usage| usage.allocation))),
            ("Available", Some(shown.size(|usage| usage.available))),
            ("Error", shown.error.clone()),
        ] {
            if let Some(value) = value {
                println!("{:<15}{value}", format!("{key}:"));
            }
        }
        Ok(())
    }
}
