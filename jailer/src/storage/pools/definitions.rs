//! Definitions of pools in `/etc/bantam/pools`, and the state of pools until the host shuts down in
//! `/run/bantam/pools`: a marker for each started pool, and a lock for each pool.

use crate::error::Error;
use crate::sys::dir::{Dir, ROOT};
use crate::undo::{Undo, shared_directories};
use nix::fcntl::{Flock, FlockArg};
use resources::{ConfigError, PoolDefinition, Problem};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Directory of definitions.
pub const DEFINITIONS: &str = "/etc/bantam/pools";
const RUNTIME: &str = "/run/bantam/pools";
/// Time limit of the wait for another command on the same pool.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads the definition of the pool `name`.
pub fn load(name: &str) -> Result<PoolDefinition, Vec<Problem>> {
    let wrong = |message: String| vec![Problem::new("pool", message)];
    resources::check_pool_name(name).map_err(wrong)?;
    let path = path(name);
    PoolDefinition::from_file(&path, name).map_err(|error| match error {
        ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            wrong(format!(
                "there is no pool `{name}`: `bantamctl pool list` shows all pools, `bantamctl pool define {name} \
                 ...` makes one"
            ))
        }
        other => wrong(crate::error::chain(&other)),
    })
}

/// Returns the names of all pools, sorted.
pub fn names() -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(DEFINITIONS) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|name| name.strip_suffix(".json"));
        names.extend(
            name.filter(|n| resources::check_pool_name(n).is_ok())
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

/// Writes a new definition.
///
/// # Errors
/// [`Error::Problems`], if there is a pool of that name.
pub fn save(definition: &PoolDefinition) -> Result<(), Error> {
    let name = &definition.name;
    let (file, temporary) = (format!("{name}.json"), format!(".{name}.json.new"));
    let dir = shared_directories(Path::new(DEFINITIONS), 0o755)?;
    let mut text = serde_json::to_vec_pretty(definition)
        .map_err(|e| Error::step("write the definition")(io::Error::other(e)))?;
    text.push(b'\n');
    let written = dir.write_whole(&file, &temporary, 0o644, &text, false);
    written.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => clash(name),
        _ => Error::step(format!("write {}", path(name).display()))(e),
    })?;
    dir.sync()
        .map_err(Error::step(format!("write {DEFINITIONS}")))
}

/// Returns the error of a command that would define a second pool of that name.
pub fn clash(name: &str) -> Error {
    let message = format!(
        "there is a pool `{name}` already ({}): `bantamctl pool undefine {name}` first, or choose another name",
        path(name).display()
    );
    Error::Problems(vec![Problem::new("pool", message)])
}

/// Removes a definition.
pub fn remove(name: &str) -> Result<(), Error> {
    let path = path(name);
    let removed = || {
        std::fs::remove_file(&path)?;
        File::open(DEFINITIONS)?.sync_all()
    };
    removed().map_err(Error::step(format!("remove {}", path.display())))
}

/// Returns the path of the definition of `name`.
pub fn path(name: &str) -> PathBuf {
    Path::new(DEFINITIONS).join(format!("{name}.json"))
}

/// Opens the directory of markers and locks.
pub fn runtime() -> Result<Dir, Error> {
    shared_directories(Path::new(RUNTIME), 0o755)
}

/// Returns whether `name` was started since the host's boot.
pub fn is_marked(name: &str) -> bool {
    Path::new(RUNTIME).join(name).symlink_metadata().is_ok()
}

/// Records that `name` is started.
pub fn mark(name: &str, undo: &mut Undo) -> Result<(), Error> {
    runtime()?.make_file(undo, name, 0o644, ROOT, |_| Ok(()))
}

/// Records that `name` is stopped.
pub fn unmark(name: &str) -> Result<(), Error> {
    runtime()?.remove_leftover(name)
}

/// The lock of a pool: no other command starts, stops or changes the pool while this lives.
#[derive(Debug)]
pub struct PoolLock {
    _lock: Flock<File>,
}

/// Waits for the lock of the pool `name`. With `shared`, other commands that only add volumes may hold it as well.
///
/// # Errors
/// [`Error`], if another command holds it too long, or a signal asks this one to stop.
pub fn lock(name: &str, shared: bool, undo: &mut Undo) -> Result<PoolLock, Error> {
    let path = runtime()?.path().join(format!(".{name}.lock"));
    let failed = || format!("lock {}", path.display());
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let mut file = options
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(Error::step(failed()))?;
    let how = match shared {
        true => FlockArg::LockSharedNonblock,
        false => FlockArg::LockExclusiveNonblock,
    };
    let started = Instant::now();
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(PoolLock { _lock: lock }),
            Err((_, e)) if e != nix::errno::Errno::EWOULDBLOCK => {
                return Err(Error::step(failed())(e));
            }
            Err((unlocked, _)) if started.elapsed() < PATIENCE => file = unlocked,
            Err(_) => {
                let message = "another command is using it: try again when that has finished";
                return Err(Error::step(format!("use the pool {name}"))(
                    io::Error::other(message),
                ));
            }
        }
        undo.checkpoint()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}
