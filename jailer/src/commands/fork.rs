//! `jailer fork`: copies of a running guest, each in a jail of its own.

use super::stop;
use crate::clean;
use crate::error::{Error, warn};
use crate::guests::making::{self, Making};
use crate::guests::{Guest, channel, copies, definitions, fork, options};
use crate::undo::Undo;
use argh::FromArgs;
use nix::sys::signal::SigSet;
use serde_json::json;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most copies of one call.
const MAX_COUNT: u32 = 500;
/// How many are started at once.
const AT_ONCE: usize = 16;
/// How long a copy may take until it runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it does.
const INTERVAL: Duration = Duration::from_millis(2);

/// Make copies of a running guest: each goes on from this moment, in a jail and a network of its own, while the guest
/// itself runs on. It must have been started with machine-config.forkable (`jailer create --forkable`).
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "fork",
    example = "jailer create --name web1 --forkable --ram 1024 --kernel vmlinuz --initrd initrd.img --network bridge=br0,address=10.88.0.5/24\njailer fork web1 --count 3\nip netns exec bantam-web1-2 ping 10.88.0.5\njailer destroy web1-2",
    note = "A copy keeps its MAC address and its addresses, so it has a network namespace of its own, bantam-COPY, with a tap and\na bridge like its guest's; nothing leads out of it. Writable disks are shared until written, which needs btrfs or XFS\nwith reflinks; read-only ones are shared for good. A copy is the guest of a user of its own, is listed, shown, attached\nto and copied as any guest, and ends for good, with its disks, by `jailer stop|destroy COPY`. If one copy cannot be\nmade none is, and the guest runs on. What a call that was killed has left the next one removes, or `jailer clean`."
)]
pub struct Fork {
    /// name of the guest
    #[argh(positional)]
    name: String,
    /// number of copies (1)
    #[argh(option, default = "1")]
    count: u32,
    /// what their names begin with (NAME): PREFIX-1, PREFIX-2, ... those that are free
    #[argh(option)]
    prefix: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

impl Fork {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`]: no copy was made.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        if !(1..=MAX_COUNT).contains(&self.count) {
            let message = format!("--count {}: make 1 to {MAX_COUNT} at a time", self.count);
            return Err(Error::Arguments(message));
        }
        let parent = Guest::load(&self.name)?;
        fork::check(&parent)?;
        let started = Instant::now();
        // Until what was made is kept or taken back.
        let mut held = None;
        super::change(|undo| {
            let (copies, making) = self.write_down(&parent, undo)?;
            let making = &*held.insert(making);
            for copy in &copies {
                let host = copy.config.host.clone().unwrap_or_default();
                let owner = options::owner(host.uid.unwrap_or_default(), host.gid);
                copies::make(copy, owner, undo)?;
            }
            start(&copies, making, undo)?;
            let forked = fork::fork(&parent, &copies, undo)?;
            for copy in &copies {
                wait(copy, undo, "go on", || match channel::is_up(copy) {
                    Ok(false) => Err(io::Error::other("it has no guest yet")),
                    other => other.map(drop),
                })?;
            }
            copies.iter().try_for_each(|copy| making.done(&copy.name))?;
            self.tell(&copies, &forked, started.elapsed())
        })
    }

    /// Chooses names and users.
    fn write_down(&self, parent: &Guest, undo: &mut Undo) -> Result<(Vec<Guest>, Making), Error> {
        let held = definitions::Held::new()?;
        if let Err(e) = sweep(&held) {
            warn(&crate::error::chain(&e));
        }
        let prefix = self.prefix.as_ref().unwrap_or(&self.name);
        let names = fork::names(prefix, self.count)?;
        let users = fork::users(names.len(), &held.others()?)?;
        let making = Making::new(&names, undo)?;
        let mut copies = Vec::new();
        for (name, uid) in names.iter().zip(users) {
            let copy = fork::copy(parent, name, uid)?;
            let taken_back = name.clone();
            undo.made(format!("the copy {name}"), move || {
                discard(&taken_back).map_err(|e| io::Error::other(crate::error::chain(&e)))
            })?;
            copies::save(&copy, undo)?;
            copies.push(copy);
        }
        Ok((copies, making))
    }

    fn tell(&self, copies: &[Guest], forked: &fork::Forked, took: Duration) -> Result<(), Error> {
        let names: Vec<_> = copies.iter().map(|copy| copy.name.as_str()).collect();
        if self.json {
            return super::print_json(&json!({
                "guest": self.name,
                "copies": names,
                "held_us": forked.held_us,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }));
        }
        names.iter().for_each(|name| println!("{name}"));
        println!(
            "{} was held for {}.{:03} ms; `jailer destroy COPY` ends a copy",
            self.name,
            forked.held_us / 1000,
            forked.held_us % 1000
        );
        Ok(())
    }
}

/// Starts the VMMs of all copies, which then wait.
fn start(copies: &[Guest], making: &Making, undo: &mut Undo) -> Result<(), Error> {
    for some in copies.chunks(AT_ONCE) {
        let mut starts = Vec::new();
        for copy in some {
            let start = spawn(&copy.name, making);
            starts.push(start.map_err(Error::step("run this program")));
        }
        // All of them are waited for, whatever became of one.
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

#[expect(unsafe_code, reason = "what is done between fork and exec")]
fn spawn(name: &str, making: &Making) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--detach", "--lifeline", name]);
    command.stdin(making.lifeline()?);
    // Lists of names are ours to print. A terminal's Ctrl-C reaches us alone.
    command.stdout(Stdio::null()).process_group(0);
    // SAFETY: only a system call is made. The signals that we hold back are not held back there.
    unsafe {
        command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
    }
    command.spawn()
}

fn end(child: &mut Child) -> Result<(), Error> {
    let status = child.wait().map_err(Error::step("run this program"))?;
    match status.code() {
        Some(0) => Ok(()),
        // It has told why.
        code => {
            let status = code.and_then(|code| u8::try_from(code).ok());
            Err(Error::Told(status.unwrap_or(1)))
        }
    }
}

/// Tries again and again until `copy`'s VMM has come to `what`.
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
            let step = format!(
                "have {} {what}; {} tells more",
                copy.name,
                messages.display()
            );
            return Err(Error::step(step)(e));
        }
        undo.checkpoint()?;
        std::thread::sleep(INTERVAL);
    }
}

/// Removes what `jailer fork`s that were killed have left. A copy that has its guest goes on.
///
/// # Errors
/// [`Error`], naming what cannot be removed.
pub fn sweep(_held: &definitions::Held) -> Result<(), Error> {
    for name in making::abandoned()? {
        if copies::path(&name).exists() {
            let copy = Guest::load(&name)?;
            if !has_guest(&copy)? {
                discard(&name)?;
            }
            fork::close_door(&copy);
        }
        making::forget(&name)?;
    }
    Ok(())
}

/// Whether `copy`, which nobody makes any more, has its guest; if not, its VMM has ended, or is about to.
fn has_guest(copy: &Guest) -> Result<bool, Error> {
    let started = Instant::now();
    while copy.is_running() {
        if channel::is_up(copy).is_ok_and(|up| up) {
            return Ok(true);
        }
        if started.elapsed() > making::PATIENCE {
            let step = format!(
                "see whether {0} has its guest: look, and `jailer destroy {0}`",
                copy.name
            );
            return Err(Error::step(step)(io::Error::from(io::ErrorKind::TimedOut)));
        }
        std::thread::sleep(making::INTERVAL);
    }
    Ok(false)
}

/// Takes back the copy `name`, whatever there is of it.
fn discard(name: &str) -> Result<(), Error> {
    if !copies::path(name).exists() {
        return Ok(());
    }
    let copy = Guest::load(name)?;
    stop::destroy(&copy)?;
    let (base, exec_name) = options::place(&copy.config);
    clean::clean(base, &exec_name, name)
}
