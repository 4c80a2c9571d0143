//! The filters of each thread: loading and applying them.

use super::compile::{Programs, compile};
use super::rules::Lists;
use super::{built_in, violation};
use crate::process::options::SeccompMode;
use resources::{MAX_CONFIG_BYTES, read_bounded};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The built-in lists, in the form of [`super::rules`].
pub const DEFAULT: &str = include_str!("default.json");

/// Why the lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The file cannot be read.
    #[error("--seccomp-filter {}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error(
        "--seccomp-filter {}: {place}: {message}; `bantam --print-seccomp-filter` prints a list that can \
         be used", path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// The place in it.
        place: String,
        /// What, with line and column.
        message: String,
    },
    /// The kernel would not take it.
    #[error("--seccomp-filter {}: {thread}", path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// Whose list.
        thread: &'static str,
        /// Why.
        #[source]
        source: seccompiler::BackendError,
    },
}

/// A kind of thread, but for the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// A vCPU's.
    Vcpu,
    /// A disk's.
    Drive,
    /// The API's.
    Api,
    /// The one that reads or records what a restored guest touches.
    Prefetch,
}

/// The filters of all threads, or none.
#[derive(Debug, Default)]
pub struct Filters {
    programs: Option<All>,
    /// The main thread is, for good.
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
    /// What `seccomp` asks for.
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

    /// Names refused calls from now on, and ends with a status of their own.
    ///
    /// # Errors
    /// The host refused.
    pub fn report_violations(&self) -> io::Result<()> {
        match self.programs {
            Some(_) => violation::install(),
            None => Ok(()),
        }
    }

    /// Confines the calling thread, a `thread` that messages call `name`.
    ///
    /// # Errors
    /// The kernel refused: the thread must not go on.
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

    /// Confines the calling thread, which is the main one, unless it is already; with what it takes to start
    /// the guest again if it `restarts`.
    ///
    /// # Errors
    /// The kernel refused: the guest must not run.
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
        // It forbids the process new privileges too.
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

/// The lists in `text`, which is of the file `path`.
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
    fn what_the_build_compiled_is_what_the_lists_say() {
        let path = Path::new("(built-in)");
        let lists = parse(path, DEFAULT.as_bytes()).unwrap();
        let compiled = All::compile(path, &lists, &lists).unwrap();
        assert!(All::built_in() == compiled);
    }
}
