//! `bantamctl fork`: copies of a running guest, each in a jail of its own.

use crate::commands::common::{change, need_root, print_json};
use crate::commands::destroy;
use crate::guests::guest::Guest;
use crate::guests::making::{self, Making};
use crate::guests::{channel, copies, definitions, fork, options};
use clap::Args;
use jailer::error::{self, Error, warn};
use jailer::jail;
use jailer::jail::options::place;
use jailer::undo::Undo;
use nix::sys::signal::SigSet;
use serde_json::json;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most copies of one call.
const MAX_COUNT: u32 = 500;
/// Number of monitors that are started at once.
const AT_ONCE: usize = 16;
/// Time limit for a copy to run.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two requests for a copy's state.
const INTERVAL: Duration = Duration::from_millis(2);

/// Copy a running guest
#[derive(Debug, Args)]
#[command(
    after_help = "Each copy continues from this moment in a jail and a network of its own, while the guest itself\n\
                  runs on. The guest must have been started with machine-config.forkable\n\
                  (`bantamctl create --forkable`).\n\n\
                  A copy keeps the guest's MAC and IP addresses, so it has a network namespace of its own,\n\
                  bantam-COPY, with a tap and a bridge like the guest's; nothing leads out of it. Writable\n\
                  disks share their blocks until one is written, which needs btrfs or XFS with reflinks;\n\
                  read-only disks are shared. A copy is listed, shown and copied like any guest, and\n\
                  `bantamctl stop` or `destroy` deletes it with its disks. If one copy fails, none is made,\n\
                  and the guest runs on. If `bantamctl fork` is killed, the next `bantamctl fork` or\n\
                  `bantamctl clean` cleans up.\n\n\
                  Examples:\n  \
                  bantamctl fork web1 --count 3\n  \
                  ip netns exec bantam-web1-2 ping 10.88.0.5\n  \
                  bantamctl destroy web1-2"
)]
pub struct Fork {
    /// Name of the guest
    name: String,
    /// Number of copies
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// Copies are named PREFIX-1, PREFIX-2, ... (default: NAME)
    #[arg(long)]
    prefix: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Fork {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        if !(1..=MAX_COUNT).contains(&self.count) {
            let message = format!("--count {}: make 1 to {MAX_COUNT} at a time", self.count);
            return Err(Error::Arguments(message));
        }
        let parent = Guest::load(&self.name)?;
        fork::check(&parent)?;
        let started = Instant::now();
        // Kept until everything made is kept or undone.
        let mut kept = None;
        change(|undo| {
            let (copies, making) = self.write_down(&parent, undo)?;
            let making = &*kept.insert(making);
            for copy in &copies {
                let host = copy.config.host.clone().unwrap_or_default();
                let owner = options::owner(host.uid.unwrap_or_default(), host.gid);
                copies::make(copy, owner, undo)?;
            }
            start(&copies, making, undo)?;
            let forked = fork::fork(&parent, &copies, undo)?;
            for copy in &copies {
                wait(copy, undo, "run", || match channel::is_up(copy) {
                    Ok(false) => Err(io::Error::other("it has not received its guest yet")),
                    other => other.map(drop),
                })?;
            }
            copies.iter().try_for_each(|copy| making.done(&copy.name))?;
            self.print(&copies, &forked, started.elapsed())
        })
    }

    /// Chooses names and users, and writes the records of the copies.
    fn write_down(&self, parent: &Guest, undo: &mut Undo) -> Result<(Vec<Guest>, Making), Error> {
        let locked = definitions::Locked::new()?;
        if let Err(e) = sweep(&locked) {
            warn(&error::chain(&e));
        }
        let prefix = self.prefix.as_ref().unwrap_or(&self.name);
        let names = fork::names(prefix, self.count)?;
        let users = fork::users(names.len(), &locked.uids()?)?;
        let making = Making::new(&names, undo)?;
        let mut copies = Vec::new();
        for (name, uid) in names.iter().zip(users) {
            let copy = fork::copy(parent, name, uid)?;
            let discarded = name.clone();
            undo.made(format!("the copy {name}"), move || {
                discard(&discarded).map_err(|e| io::Error::other(error::chain(&e)))
            })?;
            copies::save(&copy)?;
            copies.push(copy);
        }
        Ok((copies, making))
    }

    fn print(&self, copies: &[Guest], forked: &fork::Forked, took: Duration) -> Result<(), Error> {
        let names: Vec<_> = copies.iter().map(|copy| copy.name.as_str()).collect();
        if self.json {
            return print_json(&json!({
                "guest": self.name,
                "copies": names,
                "held_us": forked.held_us,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }));
        }
        names.iter().for_each(|name| println!("{name}"));
        println!(
            "{} was held for {}.{:03} ms; `bantamctl destroy COPY` deletes a copy",
            self.name,
            forked.held_us / 1000,
            forked.held_us % 1000
        );
        Ok(())
    }
}

/// Starts the monitors of all copies, which then wait for their guest.
fn start(copies: &[Guest], making: &Making, undo: &mut Undo) -> Result<(), Error> {
    for some in copies.chunks(AT_ONCE) {
        let mut starts = Vec::new();
        for copy in some {
            let start = spawn(&copy.name, making);
            starts.push(start.map_err(Error::step("run this program")));
        }
        // Each is waited for, even if one has failed.
        let ends: Vec<_> = starts
            .into_iter()
            .map(|start| start.and_then(|mut child| end(&mut child)))
            .collect();
        ends.into_iter().collect::<Result<(), _>>()?;
        undo.checkpoint()?;
    }
    for copy in copies {
        wait(copy, undo, "wait for its guest", || fork::prepare(copy))?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "code between fork and exec")]
fn spawn(name: &str, making: &Making) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--detach", "--lifeline", name]);
    command.stdin(making.lifeline()?);
    // This process alone prints names, and a terminal's Ctrl-C reaches it alone.
    command.stdout(Stdio::null()).process_group(0);
    // SAFETY: the closure makes one system call. It unblocks the signals that are blocked here.
    unsafe {
        command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
    }
    command.spawn()
}

fn end(child: &mut Child) -> Result<(), Error> {
    let status = child.wait().map_err(Error::step("run this program"))?;
    match status.code() {
        Some(0) => Ok(()),
        code => {
            let status = code.and_then(|code| u8::try_from(code).ok());
            Err(Error::Reported(status.unwrap_or(1)))
        }
    }
}

/// Tries until `tried` succeeds: then `copy` does `what`.
fn wait(
    copy: &Guest,
    undo: &mut Undo,
    what: &str,
    mut tried: impl FnMut() -> io::Result<()>,
) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let Err(e) = tried() else {
            return Ok(());
        };
        if !copy.is_running() || started.elapsed() > PATIENCE {
            let messages = options::messages(&copy.name);
            let step = format!("make {} {what}; see {}", copy.name, messages.display());
            return Err(Error::step(step)(e));
        }
        undo.checkpoint()?;
        std::thread::sleep(INTERVAL);
    }
}

/// Removes the copies that a killed `bantamctl fork` has left. A copy that has received its guest runs on.
pub fn sweep(_locked: &definitions::Locked) -> Result<(), Error> {
    for name in making::abandoned()? {
        if jail::copies::path(&name).exists() {
            let copy = Guest::load(&name)?;
            if !has_guest(&copy)? {
                discard(&name)?;
            }
            fork::remove_link(&copy);
        }
        jail::copies::forget_making(&name)?;
    }
    Ok(())
}

/// Returns whether `copy`, which no process is making any more, has received its guest. If not, its monitor has ended
/// or is about to.
fn has_guest(copy: &Guest) -> Result<bool, Error> {
    let started = Instant::now();
    while copy.is_running() {
        if channel::is_up(copy).is_ok_and(|up| up) {
            return Ok(true);
        }
        if started.elapsed() > making::PATIENCE {
            let step = format!(
                "find out whether {0} has received its guest; `bantamctl destroy {0}` deletes it",
                copy.name
            );
            return Err(Error::step(step)(io::Error::from(io::ErrorKind::TimedOut)));
        }
        std::thread::sleep(making::INTERVAL);
    }
    Ok(false)
}

/// Removes the copy `name`, as far as it was made.
fn discard(name: &str) -> Result<(), Error> {
    if !jail::copies::path(name).exists() {
        return Ok(());
    }
    let copy = Guest::load(name)?;
    destroy::destroy(&copy)?;
    let (base, exec_name) = place(&copy.config);
    jail::clean::clean(base, &exec_name, name)
}
