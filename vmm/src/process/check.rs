//! `--check`: reports everything wrong with a configuration file, with the files it names, and with the paths where the
//! monitor creates files and sockets. It creates nothing.

use super::messages::chain;
use devices::block::backing::Backing;
use devices::util::unix_socket;
use nix::unistd::{AccessFlags, eaccess};
use resources::{Problem, VmConfig, open_regular};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Returns the problems of `file`, and the warnings about ignored keys. Without problems a guest can be started, as far as
/// that can be told without starting it.
pub fn problems(file: &Path) -> (Vec<String>, Vec<String>) {
    let (config, mut problems, warnings) = match VmConfig::read_from_file(file) {
        Err(e) => return (vec![chain(&e)], Vec::new()),
        Ok((config, problems, warnings)) => (config, problems, warnings),
    };
    let mut wrong = |key: String, message: String| problems.push(Problem::new(key, message));
    let source = &config.boot_source;
    let initrd = source.initrd_path.as_deref();
    for (key, path) in [
        (
            "kernel_image_path",
            Some(source.kernel_image_path.as_path()),
        ),
        ("initrd_path", initrd),
    ] {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        if let Some(Err(e)) = path.map(open_regular) {
            let path = path.unwrap_or(file).display();
            wrong(
                format!("boot-source.{key}"),
                format!("cannot open {path}: {e}"),
            );
        }
    }
    if let Some(Err(e)) = source.boot_args.as_deref().map(boot::CommandLine::new) {
        wrong("boot-source.boot_args".into(), e.to_string());
    }
    for (i, drive) in config.drives.iter().enumerate() {
        let path = drive.path_on_host.as_deref();
        // The jailer finds volumes and creates missing images.
        if drive.pool.is_some() {
            continue;
        }
        let made = drive.size_mib.is_some() || drive.template.is_some();
        let path = path.filter(|path| !(path.as_os_str().is_empty() || made && !path.exists()));
        if let Some(Err(e)) = path.map(|path| Backing::look(path, drive.is_read_only)) {
            wrong(format!("drives[{i}].path_on_host"), chain(&e));
        }
    }
    if !is_for_jailer(&config) {
        for (key, place) in places(&config) {
            let known = problems.iter().any(|problem| problem.key == key);
            if let (false, Err(e)) = (known, place.check()) {
                problems.push(Problem::new(key, e.to_string()));
            }
        }
    }
    let problems = problems.iter().map(ToString::to_string).collect();
    (problems, warnings)
}

/// Returns whether the jailer prepares this guest. Its monitor then creates files in a jail that does not exist yet.
fn is_for_jailer(config: &VmConfig) -> bool {
    let mut drives = config.drives.iter();
    let mut interfaces = config.network_interfaces.iter();
    drives.any(|drive| drive.size_mib.is_some() || drive.template.is_some())
        || interfaces.any(|interface| interface.bridge.is_some())
}

/// A path where the monitor creates something that may exist already.
enum Place<'a> {
    /// A file or FIFO that is appended to.
    Output(&'a Path),
    /// A file that is replaced by rename.
    Replaced(&'a Path),
    /// A listening socket.
    Socket(&'a Path),
}

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    #[error("the directory {} does not exist: create it first", .0.display())]
    NoDirectory(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("cannot write to the directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} exists and is something else, or is in use: remove it or choose another path", .0.display())]
    InTheWay(PathBuf),
    #[error("cannot use {}: {source}", path.display())]
    Refused { path: PathBuf, source: io::Error },
}

/// Returns all such paths with the keys that name them.
fn places(config: &VmConfig) -> Vec<(&'static str, Place<'_>)> {
    let logger = config.logger.as_ref();
    let metrics = config.metrics.as_ref();
    let serial = config.serial.as_ref();
    let vsock = config.vsock.as_ref();
    let places = [
        (
            "logger.log_path",
            logger.and_then(|l| Some(Place::Output(l.log_path.as_deref()?))),
        ),
        (
            "metrics.metrics_path",
            metrics.map(|m| Place::Output(&m.metrics_path)),
        ),
        (
            "metrics.prometheus_path",
            metrics.and_then(|m| Some(Place::Replaced(m.prometheus_path.as_deref()?))),
        ),
        (
            "serial.serial_out_path",
            serial.and_then(|s| Some(Place::Output(s.serial_out_path.as_deref()?))),
        ),
        (
            "serial.socket",
            serial.and_then(|s| Some(Place::Socket(s.socket.as_deref()?))),
        ),
        ("vsock.uds_path", vsock.map(|v| Place::Socket(&v.uds_path))),
    ];
    let places = places.into_iter();
    places
        .filter_map(|(key, place)| Some((key, place?)))
        .collect()
}

impl Place<'_> {
    /// Checks the path without creating anything.
    fn check(&self) -> Result<(), PlaceError> {
        match self {
            // Any existing file that can be written is accepted: a FIFO or a terminal too, and the target of a link.
            Self::Output(path) => match path.exists() {
                true => take_output(path),
                false => check_directory(path),
            },
            Self::Replaced(path) => {
                check_directory(path)?;
                // A file can be renamed over everything but a directory.
                match path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                    true => Err(PlaceError::InTheWay(path.into())),
                    false => Ok(()),
                }
            }
            Self::Socket(path) => {
                check_directory(path)?;
                unix_socket::look(path).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => PlaceError::InTheWay(path.into()),
                    _ => PlaceError::Refused {
                        path: path.into(),
                        source,
                    },
                })
            }
        }
    }
}

/// Opens an existing output as the monitor will open it, and writes nothing.
fn take_output(path: &Path) -> Result<(), PlaceError> {
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Ok(_) => Ok(()),
        Err(_) if path.is_dir() => Err(PlaceError::InTheWay(path.into())),
        Err(source) => Err(PlaceError::Refused {
            path: path.into(),
            source,
        }),
    }
}

/// Checks that a file could be created at `path`.
fn check_directory(path: &Path) -> Result<(), PlaceError> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(PlaceError::InTheWay(path.into())),
    };
    match directory.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(PlaceError::NoDirectory(directory.into()));
        }
        Ok(metadata) if !metadata.is_dir() => {
            return Err(PlaceError::NotADirectory(directory.into()));
        }
        _ => {}
    }
    let writable = eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK);
    writable.map_err(|e| PlaceError::Directory {
        path: directory.into(),
        source: e.into(),
    })
}

/// Returns the text of all problems, one line each.
pub fn report(file: &Path, problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| {
        let name = file.display().to_string();
        // A parse error names the file already.
        match problem.starts_with(&name) {
            true => format!("{text}{problem}\n"),
            false => format!("{text}{name}: {problem}\n"),
        }
    })
}

#[cfg(test)]
#[path = "check_test.rs"]
mod check_test;
