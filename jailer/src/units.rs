//! Units of systemd that the commands write: templates, and links as `systemctl enable` makes them. systemd need
//! not run.

use crate::dir::{Dir, ROOT};
use crate::error::Error;
use crate::tool::{self, Tool};
use crate::undo::Undo;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Where an administrator's units are.
pub fn directory() -> &'static Path {
    Path::new("/etc/systemd/system")
}

/// Whether systemd runs this host (sd_booted(3)).
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Installs the unit `file`, with this program's path in place of `@JAILER@`. One that an administrator
/// changed stays.
///
/// # Errors
/// [`Error`], naming the file.
pub fn install(file: &str, template: &str, undo: &mut Undo) -> Result<(), Error> {
    let jailer = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let dir = open_or_make(directory(), undo)?;
    if dir.stat(file).is_ok() {
        return Ok(());
    }
    let text = template.replace("@JAILER@", &escaped(&jailer));
    write_in(&dir, file, &text, undo)
}

/// Writes the file `name` in `directory`, which is made if it is not there.
///
/// # Errors
/// [`Error`], naming the file.
pub fn write(directory: &Path, name: &str, text: &str, undo: &mut Undo) -> Result<(), Error> {
    let dir = open_or_make(directory, undo)?;
    write_in(&dir, name, text, undo)
}

/// Removes the file `path`, if it is there.
///
/// # Errors
/// [`Error`], naming the file.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::step(format!("remove {}", path.display()))(e))
        }
        _ => Ok(()),
    }
}

/// A path as a word of a unit file: `%` begins a specifier, and `\x20` is a space.
pub fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%%")
        .replace('\\', "\\\\")
        .replace(' ', "\\x20")
}

fn open_or_make(path: &Path, undo: &mut Undo) -> Result<Dir, Error> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).collect();
    for path in missing.into_iter().rev() {
        let parent = Dir::open(path.parent().unwrap_or(Path::new("/")));
        let parent = parent.map_err(Error::step(format!("make {}", path.display())))?;
        let name = path.file_name().and_then(|name| name.to_str());
        parent.make_dir(undo, name.unwrap_or_default(), 0o755)?;
    }
    Dir::open(path).map_err(Error::step(format!("open {}", path.display())))
}

fn write_in(dir: &Dir, file: &str, text: &str, undo: &mut Undo) -> Result<(), Error> {
    dir.make_file(undo, file, 0o644, ROOT, |to| {
        to.write_all(text.as_bytes())?;
        to.sync_all()
    })
}

/// Makes the link `link`, to `to`, unless something is there.
///
/// # Errors
/// [`Error`], naming the link.
pub fn lay(link: &Path, to: &str, undo: &mut Undo) -> Result<(), Error> {
    open_or_make(link.parent().unwrap_or(directory()), undo)?;
    match symlink(to, link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::step(format!("make the link {}", link.display()))(e)),
        Ok(()) => {
            let path = link.to_owned();
            undo.made(path.display().to_string(), move || fs::remove_file(path))
        }
    }
}

/// Tells systemd, if it runs; at the next boot it reads the files anyway.
pub fn reload() {
    if systemd_runs() && tool::find("systemctl").is_some() {
        let told = Tool::new("systemctl", "systemd");
        if let Err(e) = told.and_then(|tool| tool.args(["daemon-reload"]).run_to_end()) {
            crate::error::warn(&crate::error::chain(&e));
        }
    }
}
