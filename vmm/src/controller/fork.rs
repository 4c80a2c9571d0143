//! Copies of the running guest, and being one.

use super::{Controller, refused};
use crate::cli::Waiting;
use crate::command::{CommandError, Reply};
use crate::event_loop::{self, Added};
use crate::events::Event;
use crate::logging;
use crate::machine::{Machine, MachineState};
use crate::snapshot::fork::{ForkPoint, ToChild, ToParent, clone_file};
use crate::snapshot::{Layers, MemoryState, Snapshot, new_id};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use resources::{Fork, ForkChild};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn failed(why: impl Into<String>) -> CommandError {
    refused("Fork", why)
}

/// The parent's side.
impl Controller {
    /// Makes the copies that `fork` names. The guest is held for as long as it takes to freeze its memory; if anything
    /// fails it goes on as before.
    pub(super) fn fork(&mut self, fork: &Fork) -> Result<Reply, CommandError> {
        if fork.children.is_empty() {
            return Err(failed("children: names no process that waits for a copy"));
        }
        let children = call_on(&fork.children)?;
        let images = self.images(&children)?;
        let machine = self.machine_mut()?;
        let freezing = machine.prepare_to_freeze();
        let freezing = freezing.map_err(|e| failed(logging::chain(&e)))?;
        let started = Instant::now();
        let was_running = self.hold();
        let frozen = self.machine_mut().and_then(|machine| {
            let frozen = machine.freeze(freezing);
            let frozen = frozen.map_err(|e| failed(logging::chain(&e)))?;
            copy_drives(&images, &children)?;
            Ok(frozen)
        });
        if was_running {
            self.let_go();
        }
        let held = started.elapsed();
        let (state, layers) = frozen?;
        let point = self.fork_point(state, layers);
        let point = point.map_err(|e| failed(e.to_string()))?;
        for (child, to) in fork.children.iter().zip(&children) {
            to.give(&point, &child.own).map_err(|e| {
                let path = child.socket.display();
                failed(format!("the process at {path} did not take its copy: {e}"))
            })?;
        }
        let count = children.len();
        log::info!("forked {count} times, held for {} us", held.as_micros());
        self.process.events.tell(Event::Forked { children: count });
        let answer = json!({
            "children": count,
            "held_us": u64::try_from(held.as_micros()).unwrap_or(u64::MAX),
            "layers": point.layers.0.len(),
        });
        Ok(Reply::Json(answer.to_string()))
    }

    /// The images of the drives that children want copied.
    fn images(&self, children: &[ToChild]) -> Result<BTreeMap<String, File>, CommandError> {
        let mut images = BTreeMap::new();
        for (id, _) in children.iter().flat_map(|child| &child.wanted) {
            if images.contains_key(id) {
                continue;
            }
            let drive = self.config.drives.iter().find(|d| d.drive_id == *id);
            let path = drive.and_then(|drive| drive.path_on_host.as_ref());
            let path = path.ok_or_else(|| failed(format!("the guest has no drive `{id}`")))?;
            let open = || {
                let file = File::open(path)?;
                // What is written already need not be waited for while the guest is held.
                file.sync_data().map(|()| file)
            };
            let file = open().map_err(|e| failed(format!("{}: {e}", path.display())))?;
            images.insert(id.clone(), file);
        }
        Ok(images)
    }

    fn fork_point(&self, state: MachineState, layers: Layers) -> io::Result<ForkPoint> {
        let snapshot = Snapshot {
            id: new_id()?,
            written_by: env!("CARGO_PKG_VERSION").into(),
            memory: MemoryState {
                bytes: self.config.machine_config.mem_bytes(),
                written: 0,
                path: std::path::PathBuf::new(),
                inode: 0,
                base: None,
                samples: Vec::new(),
            },
            config: self.config.clone(),
            machine: state,
        };
        self.machine().map_or(Ok(()), Machine::seal_layers)?;
        ForkPoint::new(&snapshot, layers)
    }
}

/// Connects to all of `children`, so that they come side by side, and hears what they want.
fn call_on(children: &[ForkChild]) -> Result<Vec<ToChild>, CommandError> {
    let nobody = |child: &ForkChild, e: &io::Error| {
        let path = child.socket.display();
        failed(format!("no process waits for a copy at {path}: {e}"))
    };
    let mut connected = Vec::with_capacity(children.len());
    for child in children {
        let stream = UnixStream::connect(&child.socket).map_err(|e| nobody(child, &e))?;
        connected.push((child, stream));
    }
    let heard = connected
        .into_iter()
        .map(|(child, stream)| ToChild::hear(stream).map_err(|e| nobody(child, &e)));
    heard.collect()
}

/// Makes the images that the children prepared copies of the guest's, which nobody writes to.
fn copy_drives(images: &BTreeMap<String, File>, children: &[ToChild]) -> Result<(), CommandError> {
    for (id, to) in children.iter().flat_map(|child| &child.wanted) {
        let Some(from) = images.get(id) else {
            continue;
        };
        clone_file(from, to).map_err(|e| match e.kind() {
            io::ErrorKind::Unsupported => failed(format!(
                "drive `{id}`: its file system cannot copy it at once: keep the images of both on one btrfs or XFS, \
                 or make the drive read-only"
            )),
            _ => failed(format!("drive `{id}` cannot be copied: {e}")),
        })?;
    }
    Ok(())
}

/// Where a process waits for a copy of another's guest.
pub(super) struct Door {
    listener: UnixListener,
    waiting: Waiting,
    added: Added,
    lifeline: Option<Lifeline>,
}

/// Tells whether there is anybody yet who would bring a guest.
struct Lifeline {
    gone: Arc<AtomicBool>,
    added: Added,
}

/// Turns the loop when somebody knocks.
struct Knock(OwnedFd);

impl MutEventSubscriber for Knock {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        if let Err(e) = ops.add(Events::new(&self.0, events)) {
            log::error!("cannot wait for a guest: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {}
}

/// Turns the loop when the pipe's other end is closed.
struct End(OwnedFd, Arc<AtomicBool>);

impl MutEventSubscriber for End {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // A hang-up needs no asking for.
        if let Err(e) = ops.add(Events::new(&self.0, EventSet::EDGE_TRIGGERED)) {
            log::error!("--fork-lifeline: cannot be watched: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.1.store(true, Ordering::Release);
    }
}

/// The descriptor `number`, which this process was started with.
#[expect(unsafe_code, reason = "a descriptor that comes as a number")]
fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this only asks whether it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the command line says that it is this process's to close.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The child's side.
impl Controller {
    /// Waits for a copy of another guest. Each of the images is made, and becomes a copy of that guest's drive.
    ///
    /// # Errors
    /// The socket cannot be made, or the lifeline is none.
    pub fn wait_for_fork(&mut self, waiting: &Waiting) -> io::Result<()> {
        let listener = devices::util::unix_socket::listen(&waiting.socket)?;
        listener.set_nonblocking(true)?;
        let knock = Knock(listener.as_fd().try_clone_to_owned()?);
        let lifeline = waiting.lifeline.map(|number| {
            let gone = Arc::new(AtomicBool::new(false));
            let end = End(inherited(number)?, gone.clone());
            let added = event_loop::add(&self.process.event_loop, Box::new(end));
            Ok::<_, io::Error>(Lifeline { gone, added })
        });
        self.door = Some(Door {
            listener,
            waiting: waiting.clone(),
            added: event_loop::add(&self.process.event_loop, Box::new(knock)),
            lifeline: lifeline.transpose()?,
        });
        Ok(())
    }

    /// Has the guest that somebody brings, if somebody does; ends if nobody will.
    pub(super) fn answer_door(&mut self) {
        let Some(door) = &self.door else {
            return;
        };
        let is_alone = |line: &Lifeline| line.gone.load(Ordering::Acquire);
        let stream = match door.listener.accept() {
            Ok(stream) => stream,
            Err(_) if self.machine().is_none() && door.lifeline.as_ref().is_some_and(is_alone) => {
                log::error!("--fork-lifeline: was closed, and no guest has come");
                let _ = std::fs::remove_file(&door.waiting.socket);
                self.not_restored = true;
                return;
            }
            Err(_) => return,
        };
        let Some(door) = self.door.take() else {
            return;
        };
        let path = door.waiting.socket.clone();
        if let Err(why) = self.take_in(stream.0, door) {
            log::error!("{}: {why}", path.display());
            self.not_restored = true;
        }
    }

    fn take_in(&mut self, stream: UnixStream, door: Door) -> Result<(), String> {
        door.added.remove();
        if let Some(lifeline) = door.lifeline {
            lifeline.added.remove();
        }
        // Nobody else is let in; a name that stays is in the way of the next, which says so.
        let _ = std::fs::remove_file(&door.waiting.socket);
        if self.described || self.machine().is_some() {
            return Err("a copy of another guest comes too late: there is one".into());
        }
        let mut images = Vec::new();
        for (id, path) in &door.waiting.images {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
            images.push((id.clone(), file));
        }
        let parent = ToParent::greet(stream, &images);
        let parent = parent.map_err(|e| format!("the parent is gone: {e}"))?;
        let started = Instant::now();
        let received = parent.receive();
        let received = received.map_err(|e| format!("no guest came: {e}"))?;
        let waited = started.elapsed();
        // Their locks would be in the way of the guest's own.
        drop(images);
        let mut config = received.snapshot.config;
        for (id, path) in door.waiting.images {
            let drive = config.drives.iter_mut().find(|d| d.drive_id == id);
            let drive = drive.ok_or_else(|| format!("the guest has no drive `{id}`"))?;
            drive.path_on_host = Some(path);
        }
        received.own.apply(&mut config)?;
        for (id, tap) in door.waiting.taps {
            let interfaces = &mut config.network_interfaces;
            let interface = interfaces.iter_mut().find(|n| n.iface_id == id);
            let interface =
                interface.ok_or_else(|| format!("the guest has no interface `{id}`"))?;
            interface.tap_fd = Some(tap);
        }
        let memory = received.layers.map(&config.machine_config);
        let memory = memory.map_err(|e| format!("its memory cannot be mapped: {e}"))?;
        let state = &received.snapshot.machine;
        self.go_on(config, state, (memory, received.layers))?;
        let took = started.elapsed().saturating_sub(waited);
        let id = received.snapshot.id;
        log::info!("the copy {id} was taken in within {} us", took.as_micros());
        self.process.events.tell(Event::Restored { id });
        self.resume();
        self.report();
        Ok(())
    }
}
