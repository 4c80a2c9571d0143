//! Reads ahead the pages that a guest touched after an earlier restore, so that it does not wait for page faults.
//!
//! The first restore records. `/proc/self/pagemap` tells which pages are in memory. It is opened before the process is
//! confined and read again and again until the recording time is over or the guest is paused for the first time. Pages
//! beside a touched one may be recorded, too, because the kernel maps neighbours that its cache has. Without /proc, as in a
//! jail, nothing is recorded, and a file recorded elsewhere is used.
//!
//! Later restores read: first the file's ranges, then the pages into this process's page tables; pages that were written
//! become private copies. The content of memory does not change. A thread with a filter of its own does either, and ends.

use super::temp_file::TempFile;
use super::working_set::{self, MAX_RUNS, Touched};
use crate::machine::memory::page::PAGE;
use crate::machine::memory::page_set::PageSet;
use crate::machine::memory::view::{Piece, View};
use crate::process::confined_thread::{self, Confinement};
use crate::process::messages;
use crate::seccomp::{Filters, Thread};
use devices::{GuestMemory, lock};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Name of the thread.
const NAME: &str = "prefetch";
/// Shortest time between two reads of the page map. The order of pages touched within it is lost.
const INTERVAL: Duration = Duration::from_millis(5);
/// Share of the time that reading may take: one part in this many.
const SHARE: u32 = 8;
/// Bytes that are read ahead of the mapping.
const AHEAD: u64 = 16 << 20;
/// Bytes that are mapped at a time.
const PIECE: u64 = 2 << 20;
/// Pages whose entries are read together.
const WINDOW: u64 = 8192;

// Bits of Documentation/admin-guide/mm/pagemap.rst.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// The phase of the restored guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuestPhase {
    /// The guest was not resumed yet.
    Paused,
    /// The guest runs.
    Running,
    /// The guest was paused after it ran, or has ended.
    Over,
}

#[derive(Debug)]
struct Shared {
    phase: Mutex<GuestPhase>,
    changed: Condvar,
}

impl Shared {
    /// Waits until `done`, for at most `timeout`. Returns the phase.
    fn wait(&self, timeout: Duration, done: impl Fn(GuestPhase) -> bool) -> GuestPhase {
        let phase = lock(&self.phase);
        let waited = self
            .changed
            .wait_timeout_while(phase, timeout, |phase| !done(*phase));
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The handle of the thread that records or reads ahead.
#[derive(Debug)]
pub struct Prefetch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    confinement: Option<Confinement>,
}

/// The work of the thread.
enum Work {
    Record(Recorder),
    Read(Vec<Touched>),
}

impl Prefetch {
    /// Starts a thread that reads ahead the recorded pages of the snapshot `id`, whose memory file `path` is mapped as `memory`.
    /// Without a recording, the thread records for at most `time`. Returns `None` and logs a message if neither is possible.
    pub fn start(
        memory: &GuestMemory,
        (id, path): (&str, &Path),
        time: Duration,
        seccomp: &Arc<Filters>,
    ) -> Option<Self> {
        let view = View::new(memory);
        let path = working_set::path_for(path);
        let shown = path.display();
        let recorded = working_set::read(&path, id, view.bytes() / PAGE);
        let recorded = recorded.unwrap_or_else(|e| {
            let why = messages::chain(&e);
            log::warn!("prefetch: {shown} is recorded again: {why}");
            None
        });
        let work = match recorded {
            Some(runs) => Work::Read(runs),
            None => match Recorder::new(&path, id, time, &view) {
                Ok(recorder) => Work::Record(recorder),
                Err(e) => {
                    log::warn!("prefetch: {shown} is not recorded: {e}");
                    return None;
                }
            },
        };
        let shared = Arc::new(Shared {
            phase: Mutex::new(GuestPhase::Paused),
            changed: Condvar::new(),
        });
        let (of_thread, seccomp) = (shared.clone(), seccomp.clone());
        let confine = move || seccomp.confine(Thread::Prefetch, NAME);
        let thread = confined_thread::spawn(NAME, confine, move |is_confined| match work {
            _ if !is_confined => {}
            Work::Record(recorder) => recorder.run(&view, &of_thread),
            Work::Read(runs) => read_ahead(&view, &runs, &of_thread),
        });
        match thread {
            Ok((thread, confinement)) => Some(Self {
                shared,
                thread: Some(thread),
                confinement: Some(confinement),
            }),
            Err(e) => {
                log::warn!("prefetch: cannot start its thread: {e}");
                None
            }
        }
    }

    /// Waits until the thread is confined. The guest must not run before.
    ///
    /// # Errors
    /// The kernel refused the filter.
    pub fn wait_until_confined(&mut self) -> io::Result<()> {
        self.confinement.take().map_or(Ok(()), Confinement::wait)
    }

    fn set(&self, phase: GuestPhase) {
        let mut now = lock(&self.shared.phase);
        // A guest that was paused once is not a freshly restored one any more.
        if *now != GuestPhase::Over {
            *now = phase;
        }
        self.shared.changed.notify_all();
    }

    /// Reports that the guest was resumed.
    pub fn guest_resumed(&self) {
        self.set(GuestPhase::Running);
    }

    /// Reports that the guest was paused, which ends the thread's work.
    pub fn guest_paused(&self) {
        self.set(GuestPhase::Over);
    }

    /// Ends the work and waits until the recording is written. Called at the end of the process.
    pub fn finish(mut self) {
        self.set(GuestPhase::Over);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has reported it.
            let _ = thread.join();
        }
    }
}

/// The state of a recording. Its files are opened before the process is confined.
struct Recorder {
    pagemap: File,
    file: TempFile,
    path: PathBuf,
    id: String,
    time: Duration,
    seen: PageSet,
    written: PageSet,
    runs: Vec<Touched>,
}

impl Recorder {
    fn new(path: &Path, id: &str, time: Duration, view: &View) -> io::Result<Self> {
        let no_proc = |e| io::Error::other(format!("/proc/self/pagemap: {e}"));
        let pagemap = File::open("/proc/self/pagemap").map_err(no_proc)?;
        let pages = view.bytes() / PAGE;
        Ok(Self {
            pagemap,
            file: TempFile::create(path)?,
            path: path.into(),
            id: id.into(),
            time,
            seen: PageSet::empty(pages),
            written: PageSet::empty(pages),
            runs: Vec::new(),
        })
    }

    fn run(mut self, view: &View, shared: &Shared) {
        shared.wait(Duration::MAX, |phase| phase != GuestPhase::Paused);
        let started = Instant::now();
        let recorded = loop {
            let read = Instant::now();
            if let Err(e) = self.record_new(view) {
                break Err(e);
            }
            let left = self.time.saturating_sub(started.elapsed());
            let pause = INTERVAL.max(read.elapsed() * SHARE).min(left);
            let phase = shared.wait(pause, |phase| phase == GuestPhase::Over);
            if phase == GuestPhase::Over || left.is_zero() {
                // The pages touched since the last call.
                break self.record_new(view);
            }
        };
        let path = self.path.display().to_string();
        let pages: u64 = self.runs.iter().map(|run| u64::from(run.pages)).sum();
        match recorded.and_then(|()| self.write()) {
            Ok(()) => log::info!(
                "prefetch: recorded the {} KiB that the guest touched in {} ms: {path}",
                (pages * PAGE) >> 10,
                started.elapsed().as_millis()
            ),
            Err(e) => log::warn!("prefetch: {path} is not recorded: {e}"),
        }
    }

    /// Adds the pages touched since the last call.
    fn record_new(&mut self, view: &View) -> io::Result<()> {
        let mut bytes = Vec::new();
        for piece in view.pieces(WINDOW * PAGE) {
            let len = usize::try_from(piece.len / PAGE * 8).map_err(io::Error::other)?;
            bytes.resize(len, 0);
            let at = piece.address() / PAGE * 8;
            self.pagemap.read_exact_at(&mut bytes, at)?;
            let entries = bytes.as_chunks::<8>().0.iter();
            let entries = entries.map(|entry| u64::from_le_bytes(*entry));
            for (page, entry) in (piece.offset / PAGE..).zip(entries) {
                if entry & (PRESENT | SWAPPED) != 0 {
                    self.add(page, entry & OF_FILE == 0);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, page: u64, written: bool) {
        let known = match written {
            true => self.written.contains(page),
            false => self.seen.contains(page),
        };
        let (false, Ok(start)) = (known, u32::try_from(page)) else {
            return;
        };
        self.seen.insert(page);
        if written {
            self.written.insert(page);
        }
        let full = self.runs.len() >= MAX_RUNS;
        match self.runs.last_mut() {
            Some(run) if run.written == written && run.start + run.pages == start => {
                run.pages += 1;
            }
            _ if full => {}
            _ => self.runs.push(Touched {
                start,
                pages: 1,
                written,
            }),
        }
    }

    fn write(self) -> io::Result<()> {
        let bytes = working_set::encode(&self.id, &self.runs);
        self.file.file()?.write_all_at(&bytes, 0)?;
        self.file.sync()?;
        self.file.commit()
    }
}

/// Reads ahead `runs` in their order.
fn read_ahead(view: &View, runs: &[Touched], shared: &Shared) {
    let started = Instant::now();
    let pieces = |run: &Touched| view.range(run.start.into(), run.pages.into());
    let mut ahead = runs.iter();
    let (mut asked, mut done) = (0, 0);
    let mut maps = true;
    for run in runs {
        while asked < done + AHEAD
            && let Some(next) = ahead.next()
        {
            for piece in pieces(next) {
                // Pages that cannot be read ahead are read when they are touched.
                let _ = piece.advise(libc::MADV_WILLNEED);
                asked += piece.len;
            }
        }
        for piece in pieces(run).iter().flat_map(|piece| piece.cuts(PIECE)) {
            if *lock(&shared.phase) == GuestPhase::Over {
                return;
            }
            done += piece.len;
            maps = maps && map_pages(&piece, run.written);
        }
    }
    log::info!(
        "prefetch: read ahead {} KiB in {} ms",
        done >> 10,
        started.elapsed().as_millis()
    );
}

/// Maps the pages of `piece`. Returns false if the kernel does not support it (before Linux 5.14).
fn map_pages(piece: &Piece, written: bool) -> bool {
    let advice = match written {
        true => libc::MADV_POPULATE_WRITE,
        false => libc::MADV_POPULATE_READ,
    };
    match piece.advise(advice) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => false,
        // A page that cannot be read fails again when the guest touches it.
        _ => true,
    }
}

#[cfg(test)]
#[path = "prefetch_test.rs"]
mod prefetch_test;
