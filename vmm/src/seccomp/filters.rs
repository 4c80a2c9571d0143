//! Loads the filters of all threads and applies them.

use super::compile::{Programs, compile};
use super::rules::Lists;
use super::{built_in, violation};
use crate::process::options::SeccompMode;
use resources::{MAX_CONFIG_BYTES, read_bounded};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The built-in lists, in the format of [`super::rules`].
pub const DEFAULT: &str = include_str!("default.json");

/// Why a filter file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The file cannot be read.
    #[error("--seccomp-filter {}: cannot be read", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file's content is invalid.
    #[error(
        "--seccomp-filter {}: {place}: {message}; `bantam --print-seccomp-filter` prints a list that can \
         be used", path.display()
    )]
    Parse {
        /// The file's path.
        path: PathBuf,
        /// The place in the file.
        place: String,
        /// The reason, with line and column.
        message: String,
    },
    /// A program is too long for the kernel.
    #[error("--seccomp-filter {}: {thread}", path.display())]
    Compile {
        /// The file's path.
        path: PathBuf,
        /// The kind of thread.
        thread: &'static str,
        /// The cause.
        #[source]
        source: seccompiler::BackendError,
    },
}

/// A kind of thread, other than the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// A vCPU thread.
    Vcpu,
    /// The thread of a device with a loop of its own.
    Drive,
    /// The API's thread.
    Api,
    /// The thread that records or reads ahead the pages of a restored guest.
    Prefetch,
}

/// The filters of all threads, or none.
#[derive(Debug, Default)]
pub struct Filters {
    programs: Option<All>,
    /// Whether the main thread has applied its filter.
    main_is_confined: AtomicBool,
}

#[derive(Debug, PartialEq)]
struct All {
    main: Programs,
    main_with_restart: Programs,
    vcpu: Programs,
    drive: Programs,
    api: Programs,
    prefetch: Programs,
}

impl Filters {
    /// Loads the filters that `seccomp` asks for.
    ///
    /// # Errors
    /// [`SeccompError`]: the user's file cannot be used.
    pub fn load(seccomp: &SeccompMode) -> Result<Self, SeccompError> {
        let programs = match seccomp {
            SeccompMode::Off => return Ok(Self::default()),
            SeccompMode::Default => All::built_in(),
            SeccompMode::File(path) => {
                let lists = parse(path, &read(path)?)?;
                let default = parse(Path::new("(built-in)"), DEFAULT.as_bytes())?;
                All::compile(path, &lists, &default)?
            }
        };
        Ok(Self {
            programs: Some(programs),
            main_is_confined: AtomicBool::new(false),
        })
    }

    /// Installs a handler that names a refused call and ends the process with status 148.
    ///
    /// # Errors
    /// The host refused the handler.
    pub fn report_violations(&self) -> io::Result<()> {
        match self.programs {
            Some(_) => violation::install(),
            None => Ok(()),
        }
    }

    /// Applies the filter of a `thread` to the calling thread, which messages call `name`.
    ///
    /// # Errors
    /// The kernel refused the filter: the thread must not continue.
    pub fn confine(&self, thread: Thread, name: &str) -> io::Result<()> {
        let Some(all) = &self.programs else {
            return Ok(());
        };
        let programs = match thread {
            Thread::Vcpu => &all.vcpu,
            Thread::Drive => &all.drive,
            Thread::Api => &all.api,
            Thread::Prefetch => &all.prefetch,
        };
        apply(programs, name)
    }

    /// Applies the main thread's filter to the calling thread, unless it was applied before. With `restarts`, it allows the
    /// calls that starting the guest again needs.
    ///
    /// # Errors
    /// The kernel refused the filter: the guest must not run.
    pub fn confine_main(&self, restarts: bool) -> io::Result<()> {
        let Some(all) = &self.programs else {
            return Ok(());
        };
        if self.main_is_confined.load(Ordering::Relaxed) {
            return Ok(());
        }
        let programs = match restarts {
            true => &all.main_with_restart,
            false => &all.main,
        };
        apply(programs, "main")?;
        self.main_is_confined.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl All {
    fn built_in() -> Self {
        let programs = |list| built_in::programs(list, std::process::id());
        Self {
            main: programs(built_in::MAIN),
            main_with_restart: programs(built_in::RESTART),
            vcpu: programs(built_in::VCPU),
            drive: programs(built_in::DRIVE),
            api: programs(built_in::API),
            prefetch: programs(built_in::PREFETCH),
        }
    }

    fn compile(path: &Path, lists: &Lists, default: &Lists) -> Result<Self, SeccompError> {
        let pid = std::process::id();
        let programs = lists.threads(default).map(|(thread, parts)| {
            compile(&parts, pid).map_err(|source| SeccompError::Compile {
                path: path.into(),
                thread,
                source,
            })
        });
        let [main, main_with_restart, vcpu, drive, api, prefetch] = programs;
        Ok(Self {
            main: main?,
            main_with_restart: main_with_restart?,
            vcpu: vcpu?,
            drive: drive?,
            api: api?,
            prefetch: prefetch?,
        })
    }
}

fn apply(programs: &Programs, name: &str) -> io::Result<()> {
    violation::call_this_thread(name);
    for program in programs {
        // The call also sets no_new_privs.
        seccompiler::apply_filter(program).map_err(|e| match e {
            seccompiler::Error::Prctl(e) | seccompiler::Error::Seccomp(e) => e,
            other => io::Error::other(other),
        })?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, SeccompError> {
    read_bounded(path, MAX_CONFIG_BYTES).map_err(|source| SeccompError::Read {
        path: path.into(),
        source,
    })
}

/// Parses the lists in `text`, the content of the file `path`.
///
/// # Errors
/// [`SeccompError::Parse`].
pub fn parse(path: &Path, text: &[u8]) -> Result<Lists, SeccompError> {
    let wrong = |place: String, e: &serde_json::Error| SeccompError::Parse {
        path: path.into(),
        place: match place.as_str() {
            "." => "(file)".into(),
            _ => place,
        },
        message: e.to_string(),
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let lists = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| wrong(e.path().to_string(), e.inner()))?;
    json.end().map_err(|e| wrong(".".into(), &e))?;
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_the_build_match_the_lists() {
        let path = Path::new("(built-in)");
        let lists = parse(path, DEFAULT.as_bytes()).unwrap();
        let compiled = All::compile(path, &lists, &lists).unwrap();
        assert!(All::built_in() == compiled);
    }
}
