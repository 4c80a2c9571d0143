//! The gate stops the vCPU threads between two entries of the guest, and lets them continue.
//!
//! A signal kicks a running vCPU out of the guest and keeps one out that is about to enter. It is sent again until every
//! vCPU is out, because a thread may serve an exit after one signal and enter again before the next.

use devices::lock;
use kvm_ioctls::VcpuFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN};

/// Time after which a vCPU that is still in the guest is kicked again.
const KICK_INTERVAL: Duration = Duration::from_millis(1);

/// The wanted state of the vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Wait,
    End,
}

/// A function that each vCPU thread runs once while it waits. It gets the vCPU's number and the vCPU.
pub type Job = Arc<dyn Fn(u8, &VcpuFd) + Send + Sync>;

struct State {
    wanted: Wanted,
    /// Number of threads that wait or have ended.
    out: usize,
    /// The current job and the number of jobs so far.
    job: Option<Job>,
    jobs: u64,
    /// Number of threads that have finished the job.
    done: usize,
}

/// The gate of a machine, which all its vCPUs pass.
pub struct Gate {
    /// Whether to look at the state before the next entry: the only field that a running vCPU reads.
    shut: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// The next step of a vCPU thread.
pub enum Pass {
    /// Enter the guest.
    Enter,
    /// Enter the guest after a pause.
    EnterAfterPause,
    /// Run this job, call [`Gate::finish_job`], and pass the gate again.
    Job(Job),
    /// End the thread.
    End,
}

impl Gate {
    /// Creates a gate that is shut. The first [`Vcpus::resume`] opens it.
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

    /// Returns whether a vCPU must wait at the gate.
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Waits while the gate is shut. A vCPU thread calls it before each entry. `jobs` is the thread's own counter of jobs that
    /// it has seen, from 0.
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
            // The thread stays counted as out.
            Wanted::End => Pass::End,
            Wanted::Run | Wanted::Wait => {
                state.out -= 1;
                Pass::EnterAfterPause
            }
        }
    }

    /// Counts the calling vCPU thread as finished with the current job.
    pub fn finish_job(&self) {
        lock(&self.state).done += 1;
        self.changed.notify_all();
    }

    /// Runs `job` on all `threads` and `meanwhile` on this one. Returns the result of `meanwhile` when all are done.
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

    /// Waits for the end of the thread, after its guest has ended.
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

    /// Shuts the gate and waits until all of `threads` are out of the guest.
    fn shut(&self, wanted: Wanted, threads: &[JoinHandle<()>]) {
        let mut state = lock(&self.state);
        state.wanted = wanted;
        self.shut.store(true, Ordering::Release);
        self.changed.notify_all();
        while state.out < threads.len() {
            for thread in threads {
                // The call fails only for a thread that has ended, which counts as out.
                let _ = thread.kill(SIGRTMIN());
            }
            let waited = self.changed.wait_timeout(state, KICK_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The running vCPU threads.
pub struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Takes ownership of `threads`, which pass `gate`.
    pub fn new(gate: Arc<Gate>, threads: Vec<JoinHandle<()>>) -> Self {
        Self { gate, threads }
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        self.gate.open();
    }

    /// Stops the vCPUs. On return, none is in the guest.
    pub fn pause(&self) {
        self.gate.shut(Wanted::Wait, &self.threads);
    }

    /// Runs `job` on each vCPU thread while all are paused, and `meanwhile` on this one. Returns when all are done. Call it
    /// only between [`Self::pause`] and [`Self::resume`], and only if the guest has not ended: its threads run no job after
    /// that.
    pub fn run_job<T>(&self, job: Job, meanwhile: impl FnOnce() -> T) -> T {
        self.gate.run_job(job, self.threads.len(), meanwhile)
    }

    /// Ends the threads and waits for them.
    pub fn end(self) {
        self.gate.shut(Wanted::End, &self.threads);
        for thread in self.threads {
            // The thread cannot have panicked: a panic aborts the process.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod gate_test;
