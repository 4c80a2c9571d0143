//! `bantamctl pool`: storage pools, defined once, started at boot or by hand.

use crate::commands::common::{change, need_root, print_json};
use crate::size::gib;
use crate::table::Table;
use crate::units;
use clap::{Args, Subcommand};
use jailer::error::{self, Error};
use jailer::storage::pools::{definitions, pool as storage};
use jailer::undo::Undo;
use resources::{PoolDefinition, PoolType, Problem};
use serde::Serialize;

/// Storage pools: directories, NFS exports, volume groups, disks
#[derive(Debug, Args)]
#[command(
    after_help = "A pool's definition is /etc/bantam/pools/NAME.json; it can be written by hand, too. No\n\
                  daemon watches pools: each command looks at the host.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl pool define web --type dir --target /srv/images\n\
                  \x20 bantamctl pool start web --build\n\
                  \x20 bantamctl pool autostart web\n\
                  \x20 bantamctl volume create --pool web web1 --size 20"
)]
pub struct Pool {
    #[command(subcommand)]
    action: Action,
}

/// A command for pools
#[derive(Debug, Subcommand)]
enum Action {
    Define(Define),
    Undefine(Undefine),
    Start(Start),
    Stop(Stop),
    List(List),
    Show(Show),
    Autostart(Autostart),
}

/// Define a pool, without starting it
#[derive(Debug, Args)]
#[command(
    after_help = "Types: dir (a directory), netfs (an NFS export), logical (an LVM volume group) and disk (a\n\
                  whole disk with a GPT). Without --target, a dir or netfs pool is at\n\
                  /var/lib/bantam/pools/NAME. Mount options go to mount(8) unchanged; with `nolock`, two hosts\n\
                  could start guests on the same volume.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl pool define web --type dir --target /srv/images\n\
                  \x20 bantamctl pool define nas --type netfs --source-host 10.0.0.2 \\\n\
                  \x20     --source-path /export/images --source-options vers=4.2\n\
                  \x20 bantamctl pool define fast --type logical --source-name vg0\n\
                  \x20 bantamctl pool define raw --type disk --source-dev /dev/sdb"
)]
pub struct Define {
    /// Name of the pool: 1 to 64 letters, digits, `.`, `_`, `-`
    pub name: String,
    /// Type: dir, netfs, logical or disk
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: String,
    /// For netfs: name or address of the NFS server
    #[arg(long, value_name = "HOST")]
    pub source_host: Option<String>,
    /// For netfs: the exported directory
    #[arg(long, value_name = "PATH")]
    pub source_path: Option<String>,
    /// For disk: the device, best as /dev/disk/by-id/NAME
    #[arg(long, value_name = "DEVICE")]
    pub source_dev: Option<String>,
    /// For logical: the volume group (default: the pool's name)
    #[arg(long, value_name = "GROUP")]
    pub source_name: Option<String>,
    /// For netfs: mount options, e.g. vers=4.2,hard
    #[arg(long, value_name = "OPTIONS")]
    pub source_options: Option<String>,
    /// For dir, netfs: the directory (default: one for the pool)
    #[arg(long, value_name = "DIRECTORY")]
    pub target: Option<String>,
}

/// Delete the definition of an inactive pool; its volumes stay
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n\
                  \x20 bantamctl pool stop web\n\
                  \x20 bantamctl pool undefine web")]
pub struct Undefine {
    /// Name of the pool
    pub name: String,
}

/// Make a pool's volumes available: mount or activate it
#[derive(Debug, Args)]
#[command(
    after_help = "An active pool is left as it is, with exit status 0. An interrupted start undoes what it did.\n\
                  \n\
                  Example:\n\
                  \x20 bantamctl pool start web --build"
)]
pub struct Start {
    /// Name of the pool
    pub name: String,
    /// Create a missing directory, or write a GPT to an empty disk
    #[arg(long)]
    pub build: bool,
}

/// Unmount or deactivate a pool that no guest uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n\
                  \x20 bantamctl pool stop web")]
pub struct Stop {
    /// Name of the pool
    pub name: String,
}

/// List all pools
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n\
                  \x20 bantamctl pool list\n\
                  \x20 bantamctl pool list --json")]
pub struct List {
    /// Print JSON, with sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// Show one pool
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n\
                  \x20 bantamctl pool show web\n\
                  \x20 bantamctl pool show web --json")]
pub struct Show {
    /// Name of the pool
    pub name: String,
    /// Print JSON, with sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// Start a pool whenever the host boots
#[derive(Debug, Args)]
#[command(
    after_help = "Enables bantam-pool@NAME.service, and writes a drop-in for it that names what this type of\n\
                  pool depends on. The pool is not started now.\n\
                  \n\
                  Examples:\n\
                  \x20 bantamctl pool autostart web\n\
                  \x20 bantamctl pool autostart web --disable"
)]
pub struct Autostart {
    /// Name of the pool
    pub name: String,
    /// No longer start the pool at boot
    #[arg(long)]
    pub disable: bool,
}

impl Pool {
    pub fn run(self) -> Result<(), Error> {
        match self.action {
            Action::List(list) => return list.run(),
            Action::Show(show) => return show.run(),
            _ => need_root()?,
        }
        change(|undo| match self.action {
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
        let _lock = definitions::lock(name, false, undo)?;
        if definitions::path(name).exists() {
            return Err(definitions::clash(name));
        }
        definitions::save(&definition)?;
        println!("Pool {name} defined; start it with `bantamctl pool start {name}`");
        Ok(())
    }
}

impl Undefine {
    fn run(self, undo: &mut Undo) -> Result<(), Error> {
        let name = &self.name;
        // A broken definition can be deleted, too.
        resources::check_pool_name(name)
            .map_err(|message| Error::Problems(vec![Problem::new("pool", message)]))?;
        if !definitions::path(name).exists() {
            load(name)?;
        }
        let _lock = definitions::lock(name, false, undo)?;
        if load(name).is_ok_and(|pool| pool.is_active()) {
            let message = format!("`{name}` is active: `bantamctl pool stop {name}` first");
            return Err(Error::Problems(vec![Problem::new("pool", message)]));
        }
        units::pool::disable(name)?;
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
        let _lock = definitions::lock(name, false, undo)?;
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
        let _lock = definitions::lock(name, false, undo)?;
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
        let _lock = definitions::lock(name, false, undo)?;
        if self.disable {
            units::pool::disable(name)?;
            println!("Pool {name} no longer starts with the host");
        } else {
            units::pool::enable(&pool.definition, undo)?;
            println!("Pool {name} starts with the host");
        }
        Ok(())
    }
}

/// The state of a pool, for output.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    definition: PoolDefinition,
    active: bool,
    autostart: bool,
    /// Why its usage is unknown.
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
            autostart: units::pool::is_enabled(pool.name()),
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
            return print_json(&shown);
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
            return print_json(&shown);
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
