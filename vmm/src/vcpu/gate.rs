//! Stops the vCPUs' threads between two entries of the guest, and lets them go on.
//!
//! A vCPU that runs is called out of the guest by a signal, which keeps one out that is about to enter. It is sent again until
//! every vCPU has come: what a thread does for its guest may go on after a signal, until the next.

use devices::lock;
use kvm_ioctls::VcpuFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN};

/// How long a vCPU may take before it is called again.
const KICK_INTERVAL: Duration = Duration::from_millis(1);

/// What the vCPUs are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Wait,
    End,
}

/// Something that each vCPU's thread does once while it waits: its vCPU's number, and the vCPU.
pub type Job = Arc<dyn Fn(u8, &VcpuFd) + Send + Sync>;

struct State {
    wanted: Wanted,
    /// Threads that wait or have ended.
    out: usize,
    /// What those that wait are to do, and how many jobs there were before it.
    job: Option<Job>,
    jobs: u64,
    /// Threads that have done it.
    done: usize,
}

/// The gate before the guest, one for all vCPUs of a machine.
pub struct Gate {
    /// Whether to look at the state before the next entry: the only thing a running vCPU reads.
    shut: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// Where a vCPU goes on.
pub enum Pass {
    /// Into the guest.
    Enter,
    /// Into the guest, after a pause.
    EnterAfterPause,
    /// Nowhere yet: its thread does this, says [`Gate::finish_job`] and comes again.
    Job(Job),
    /// Its thread ends.
    End,
}

impl Gate {
    /// A gate that is shut: the first [`Vcpus::resume`] opens it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shut: AtomicBool::new(true),
            state: Mutex::new(State {
                wanted: Wanted::Wait,
                out: 0,
                job: None,
                jobs: 0,
                done: 0,
            }),
            changed: Condvar::new(),
        })
    }

    /// Whether a vCPU that comes now has to wait.
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Called by a vCPU's thread before each entry; waits while the gate is shut. `jobs` is the thread's
    /// own, from 0: how many it has seen.
    pub fn pass(&self, jobs: &mut u64) -> Pass {
        if !self.is_shut() {
            return Pass::Enter;
        }
        let mut state = lock(&self.state);
        state.out += 1;
        self.changed.notify_all();
        while state.wanted == Wanted::Wait {
            if let Some(job) = state.job.clone().filter(|_| *jobs < state.jobs) {
                *jobs = state.jobs;
                state.out -= 1;
                return Pass::Job(job);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match state.wanted {
            // It stays out.
            Wanted::End => Pass::End,
            Wanted::Run | Wanted::Wait => {
                state.out -= 1;
                Pass::EnterAfterPause
            }
        }
    }

    /// Called by a vCPU's thread that has done an job.
    pub fn finish_job(&self) {
        lock(&self.state).done += 1;
        self.changed.notify_all();
    }

    /// Has each of `threads` do `job`, does `meanwhile` itself, and returns what that did when all have done theirs.
    fn run_job<T>(&self, job: Job, threads: usize, meanwhile: impl FnOnce() -> T) -> T {
        let mut state = lock(&self.state);
        state.job = Some(job);
        state.jobs += 1;
        state.done = 0;
        self.changed.notify_all();
        drop(state);
        let result = meanwhile();
        let mut state = lock(&self.state);
        while state.done < threads {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        result
    }

    /// Called by a vCPU's thread whose guest has ended.
    pub fn wait_for_end(&self) {
        let mut state = lock(&self.state);
        state.out += 1;
        self.changed.notify_all();
        while state.wanted != Wanted::End {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) {
        let mut state = lock(&self.state);
        state.wanted = Wanted::Run;
        self.shut.store(false, Ordering::Release);
        self.changed.notify_all();
    }

    /// Shuts the gate and waits until all of `threads` are out.
    fn shut(&self, wanted: Wanted, threads: &[JoinHandle<()>]) {
        let mut state = lock(&self.state);
        state.wanted = wanted;
        self.shut.store(true, Ordering::Release);
        self.changed.notify_all();
        while state.out < threads.len() {
            for thread in threads {
                // It fails only for a thread that has ended, which is out.
                let _ = thread.kill(SIGRTMIN());
            }
            let waited = self.changed.wait_timeout(state, KICK_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The running threads.
pub struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Takes charge of `threads`, which pass `gate`.
    pub fn new(gate: Arc<Gate>, threads: Vec<JoinHandle<()>>) -> Self {
        Self { gate, threads }
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        self.gate.open();
    }

    /// Returns when none is in the guest.
    pub fn pause(&self) {
        self.gate.shut(Wanted::Wait, &self.threads);
    }

    /// Has each vCPU's thread do `job` while all are held, and does `meanwhile` itself; returns when both are
    /// done. To be called only between [`Self::pause`] and [`Self::resume`], of a guest that has not ended: a thread
    /// whose guest has ended does nothing any more.
    pub fn run_job<T>(&self, job: Job, meanwhile: impl FnOnce() -> T) -> T {
        self.gate.run_job(job, self.threads.len(), meanwhile)
    }

    /// Ends the threads.
    pub fn end(self) {
        self.gate.shut(Wanted::End, &self.threads);
        for thread in self.threads {
            // A panic aborts the process, so there is no other end.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod gate_test;
