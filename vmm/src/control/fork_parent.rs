//! The parent's side of a fork: copying the running guest.

use super::command::{CommandError, Reply, refused};
use super::controller::Controller;
use super::lifecycle::Event;
use crate::fork::clone_file::clone_file;
use crate::fork::wire::{ChildConnection, ForkPoint};
use crate::machine::memory::layers::Layers;
use crate::machine::{Machine, MachineState};
use crate::process::messages;
use crate::snapshot::{MemoryState, Snapshot, new_id};
use resources::{Fork, ForkChild};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

fn failed(why: impl Into<String>) -> CommandError {
    refused("Fork", why)
}

/// Handling of `PUT /vm/fork`.
impl Controller {
    /// Copies the guest to the children that `fork` names. The guest is paused only while its memory is frozen. If anything
    /// fails, it resumes as before.
    pub(super) fn fork(&mut self, fork: &Fork) -> Result<Reply, CommandError> {
        if fork.children.is_empty() {
            return Err(failed(
                "children: is empty: name the sockets of waiting processes",
            ));
        }
        let children = connect_to_children(&fork.children)?;
        let images = self.images(&children)?;
        let machine = self.machine_mut()?;
        let freezing = machine.prepare_to_freeze();
        let freezing = freezing.map_err(|e| failed(messages::chain(&e)))?;
        let started = Instant::now();
        let was_running = self.pause_machine();
        let frozen = self.machine_mut().and_then(|machine| {
            let frozen = machine.freeze(freezing);
            let frozen = frozen.map_err(|e| failed(messages::chain(&e)))?;
            copy_drives(&images, &children)?;
            Ok(frozen)
        });
        if was_running {
            self.resume_machine();
        }
        let paused = started.elapsed();
        let (state, layers) = frozen?;
        let point = self.fork_point(state, layers);
        let point = point.map_err(|e| failed(e.to_string()))?;
        for (child, to) in fork.children.iter().zip(&children) {
            to.send_point(&point, &child.own).map_err(|e| {
                let path = child.socket.display();
                failed(format!(
                    "the process at {path} did not receive its copy: {e}"
                ))
            })?;
        }
        let count = children.len();
        log::info!("forked {count} times, paused for {} us", paused.as_micros());
        self.process
            .events
            .publish(Event::Forked { children: count });
        let answer = json!({
            "children": count,
            "held_us": u64::try_from(paused.as_micros()).unwrap_or(u64::MAX),
            "layers": point.layers.0.len(),
        });
        Ok(Reply::Json(answer.to_string()))
    }

    /// Opens the images of the drives that children want copied.
    fn images(&self, children: &[ChildConnection]) -> Result<BTreeMap<String, File>, CommandError> {
        let mut images = BTreeMap::new();
        for (id, _) in children.iter().flat_map(|child| &child.images) {
            if images.contains_key(id) {
                continue;
            }
            let drive = self.config.drives.iter().find(|d| d.drive_id == *id);
            let path = drive.and_then(|drive| drive.path_on_host.as_ref());
            let path = path.ok_or_else(|| failed(format!("the guest has no drive `{id}`")))?;
            let open = || {
                let file = File::open(path)?;
                // Dirty pages are written now, so that the clone does not wait for them while the guest is paused.
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

/// Connects to all of `children` first, so that they start at the same time, and then receives each one's hello.
fn connect_to_children(children: &[ForkChild]) -> Result<Vec<ChildConnection>, CommandError> {
    let no_child = |child: &ForkChild, e: &io::Error| {
        let path = child.socket.display();
        failed(format!("no process waits for a copy at {path}: {e}"))
    };
    let mut connected = Vec::with_capacity(children.len());
    for child in children {
        let stream = UnixStream::connect(&child.socket).map_err(|e| no_child(child, &e))?;
        connected.push((child, stream));
    }
    let connections = connected.into_iter().map(|(child, stream)| {
        ChildConnection::receive_hello(stream).map_err(|e| no_child(child, &e))
    });
    connections.collect()
}

/// Turns the children's image files into copies of the guest's images, which are not written while the guest is paused.
fn copy_drives(
    images: &BTreeMap<String, File>,
    children: &[ChildConnection],
) -> Result<(), CommandError> {
    for (id, to) in children.iter().flat_map(|child| &child.images) {
        let Some(from) = images.get(id) else {
            continue;
        };
        clone_file(from, to).map_err(|e| match e.kind() {
            io::ErrorKind::Unsupported => failed(format!(
                "drive `{id}`: the file system cannot clone its image: keep both images on one btrfs or XFS file system, \
                 or make the drive read-only"
            )),
            _ => failed(format!("drive `{id}` cannot be copied: {e}")),
        })?;
    }
    Ok(())
}
