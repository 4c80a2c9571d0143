//! Makes the things that a copy of a running guest does not share: its record, empty disk images and a network
//! namespace. [`jailer::jail::copies::forget`] removes it.

use crate::guests::guest::Guest;
use jailer::error::Error;
use jailer::jail::copies;
use jailer::network;
use jailer::sys::dir::{Dir, Owner};
use jailer::undo::{Undo, shared_directories};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes the record of `copy`, whose name is free.
pub fn save(copy: &Guest) -> Result<(), Error> {
    let directory = copies::directory()?;
    let failed =
        || Error::step::<io::Error>(format!("write {}", copies::path(&copy.name).display()));
    let text = serde_json::to_vec_pretty(&copy.config).map_err(io::Error::from);
    let text = text.map_err(failed())?;
    let (file, partial) = (copies::file(&copy.name), copies::partial(&copy.name));
    let written = directory.write_whole(&file, &partial, 0o600, &text, false);
    written.map_err(failed())
}

/// Makes the disk images and the network namespace of `copy`, whose record is written.
pub fn make(copy: &Guest, owner: Owner, undo: &mut Undo) -> Result<(), Error> {
    for drive in copy.config.drives.iter().filter(|d| !d.is_read_only) {
        let path = drive.path_on_host.clone().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parent = path.parent().unwrap_or(Path::new("/"));
        let failed = || format!("make the image {}", path.display());
        let directory = Dir::open(parent).map_err(Error::step(failed()))?;
        // Another's file of that name is never replaced.
        if directory.stat(&name).is_ok() {
            return Err(Error::step(failed())(Errno::EEXIST));
        }
        directory.make_file(undo, &name, 0o600, owner, |_| Ok(()))?;
    }
    let network = copies::network(&copy.name);
    shared_directories(Path::new(copies::NAMESPACES), 0o755)?;
    let made = make_network(&network);
    made.map_err(Error::step(format!(
        "make the network namespace {}",
        network.display()
    )))?;
    undo.checkpoint()
}

fn make_network(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o444);
    options.open(path)?;
    // A thread makes the namespace, so that no other thread is moved into it.
    let own = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let namespace = Path::new("/proc/thread-self/ns/net");
        let none: Option<&Path> = None;
        mount(Some(namespace), path, none, MsFlags::MS_BIND, none)?;
        network::switch_on_loopback()
    };
    let thread = std::thread::scope(|scope| scope.spawn(own).join());
    thread.map_err(|_| io::Error::other("a thread failed"))?
}
