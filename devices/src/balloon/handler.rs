//! The queue-serving half of the balloon: releases pages and receives statistics.

use super::metrics::BalloonMetrics;
use super::shared::{DONE, STOP, Shared};
use super::{Role, pages, statistics};
use crate::GuestMemory;
use crate::lock;
use crate::util::metrics::Counter;
use crate::util::source::Source;
use crate::util::timer::{Timer, now};
use crate::virtio::buffers::{ChainBuffers, Parts};
use crate::virtio::device::QueueHandler;
use crate::virtio::queue::{Chain, DeviceQueue, QueueError, Served};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Largest number of page numbers in a chain that are read; Linux sends 256. The guest keeps the rest.
const MAX_PAGES: usize = 4096;
/// Pages released per turn. A chain names less than 2^20.
const PAGE_BUDGET: u64 = 1 << 16;

pub(super) struct BalloonHandler {
    /// Purposes by queue.
    roles: Vec<Role>,
    shared: Arc<Shared>,
    statistics: Option<Statistics>,
    metrics: Arc<BalloonMetrics>,
}

/// Statistics. The guest fills the buffer when it gets it back (section 5.5.6.3).
struct Statistics {
    queue: usize,
    interval: Duration,
    timer: Timer,
    /// Head of the guest's buffer, while the device has it.
    buffer: Option<u16>,
}

impl BalloonHandler {
    /// Creates a handler for queues of these `roles`, which requests statistics at each `interval`.
    pub(super) fn new(
        roles: Vec<Role>,
        interval: Duration,
        shared: Arc<Shared>,
        metrics: Arc<BalloonMetrics>,
    ) -> io::Result<Self> {
        let queue = roles.iter().position(|role| *role == Role::Statistics);
        let statistics = match queue {
            Some(queue) => {
                let timer = Timer::new()?;
                timer.set(now().saturating_add(interval));
                Some(Statistics {
                    queue,
                    interval,
                    timer,
                    buffer: None,
                })
            }
            None => None,
        };
        Ok(Self {
            roles,
            shared,
            statistics,
            metrics,
        })
    }

    /// Returns the guest's buffer, which requests statistics.
    fn ask(&mut self, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let Some(statistics) = &mut self.statistics else {
            return Ok(());
        };
        match (queues.get_mut(statistics.queue), statistics.buffer.take()) {
            (Some(queue), Some(buffer)) => queue.complete(buffer, 0),
            _ => Ok(()),
        }
    }

    fn serve(
        &mut self,
        role: Role,
        index: usize,
        queues: &mut [DeviceQueue],
    ) -> Result<(), QueueError> {
        let Some(queue) = queues.get_mut(index) else {
            return Ok(());
        };
        match role {
            Role::Inflate => {
                self.metrics.inflate_count.increment();
                self.release_from(queue, |this, mem, chain, budget| {
                    this.inflate(mem, &chain.readable, budget);
                })
            }
            Role::Deflate => {
                self.metrics.deflate_count.increment();
                // Deflated pages come back when the guest touches them.
                queue.serve(|_, _| Served::Done(0))
            }
            Role::Statistics => self.take_statistics(queue),
            Role::Hinting => {
                self.metrics.free_page_hint_count.increment();
                let mut done = false;
                self.release_from(queue, |this, mem, chain, budget| {
                    done |= this.hint(mem, &chain, budget);
                })?;
                match done {
                    true => queue.signal_config_change(),
                    false => Ok(()),
                }
            }
            Role::Reporting => {
                self.metrics.free_page_report_count.increment();
                self.release_from(queue, |this, mem, chain, budget| {
                    let BalloonMetrics {
                        free_page_report_freed: freed,
                        free_page_report_fails: fails,
                        ..
                    } = &*this.metrics;
                    release_all(mem, &chain.writable, (freed, fails), budget);
                })
            }
        }
    }

    /// Serves a queue whose chains name pages, until `one` has used up the budget.
    fn release_from(
        &self,
        queue: &mut DeviceQueue,
        mut one: impl FnMut(&Self, &GuestMemory, ChainBuffers, &mut u64),
    ) -> Result<(), QueueError> {
        let mut budget = PAGE_BUDGET;
        let mut more = false;
        queue.serve(|mem, chain| {
            if budget == 0 {
                more = true;
                return Served::NotYet;
            }
            // An empty chain costs time, too.
            budget -= 1;
            match ChainBuffers::collect(chain) {
                Ok(chain) => one(self, mem, chain, &mut budget),
                Err(e) => {
                    log::debug!("balloon: {e}");
                    self.metrics.event_fails.increment();
                }
            }
            Served::Done(0)
        })?;
        match more {
            true => queue.ring(),
            false => Ok(()),
        }
    }

    /// Releases the pages that the guest put into the balloon.
    fn inflate(&self, mem: &GuestMemory, numbers: &Parts, budget: &mut u64) {
        // Complete numbers of 32 bits.
        let mut bytes = vec![0; numbers.len().min(4 * MAX_PAGES) & !3];
        if numbers.len() > bytes.len() {
            log::debug!(
                "balloon: a chain with {} bytes of page numbers",
                numbers.len()
            );
            self.metrics.event_fails.increment();
        }
        if let Err(e) = numbers.read(mem, &mut bytes) {
            log::debug!("balloon: {e}");
            self.metrics.event_fails.increment();
            return;
        }
        let numbers = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
        let (ranges, outside) = pages::ranges(mem, numbers.collect());
        if outside > 0 {
            log::debug!("balloon: {outside} pages are outside guest memory");
            self.metrics.event_fails.increment();
        }
        for range in ranges {
            if release(mem, &range, budget).is_none() {
                self.metrics.event_fails.increment();
            }
        }
    }

    /// Handles a command or pages of a hinting run. Returns true if the run is complete and must be acknowledged.
    fn hint(&self, mem: &GuestMemory, chain: &ChainBuffers, budget: &mut u64) -> bool {
        let mut told = lock(&self.shared.told);
        let mut done = false;
        if !chain.readable.is_empty() {
            let mut command = [0; 4];
            if let Err(e) = chain.readable.read(mem, &mut command) {
                log::debug!("balloon: cannot read a hinting command: {e}");
                self.metrics.free_page_hint_fails.increment();
                return false;
            }
            let command = u32::from_le_bytes(command);
            told.command = Some(command);
            if command == STOP && told.acknowledge && self.shared.run().is_some() {
                self.shared.command.store(DONE, Ordering::Release);
                done = true;
            }
        }
        // The pages of an earlier run belong to the guest again.
        let current = self.shared.run().is_some() && self.shared.run() == told.command;
        drop(told);
        if !chain.writable.is_empty() && current {
            let counts = (
                &self.metrics.free_page_hint_freed,
                &self.metrics.free_page_hint_fails,
            );
            release_all(mem, &chain.writable, counts, budget);
        }
        done
    }

    /// Reads statistics. The buffer stays with the device until the next request.
    fn take_statistics(&mut self, queue: &mut DeviceQueue) -> Result<(), QueueError> {
        let Some(statistics) = &mut self.statistics else {
            return Ok(());
        };
        // A guest has one buffer. If it provides several, the last counts.
        let mut earlier = Vec::new();
        queue.serve(|mem, chain| {
            earlier.extend(statistics.buffer.replace(chain.head_index()));
            match read_statistics(mem, chain) {
                Some(stats) => {
                    self.metrics.stats_updates_count.increment();
                    lock(&self.shared.told).statistics = stats;
                }
                None => self.metrics.stats_update_fails.increment(),
            }
            Served::Later
        })?;
        for buffer in earlier {
            queue.complete(buffer, 0)?;
        }
        Ok(())
    }
}

fn read_statistics(mem: &GuestMemory, chain: Chain<'_>) -> Option<resources::BalloonStats> {
    let readable = ChainBuffers::collect(chain).ok()?.readable;
    let mut bytes = vec![0; readable.len().min(statistics::MAX_STATISTICS)];
    readable.read(mem, &mut bytes).ok()?;
    Some(statistics::parse(&bytes))
}

/// Releases the pages of `ranges`, and counts bytes and failures.
fn release_all(
    mem: &GuestMemory,
    ranges: &Parts,
    (freed, fails): (&Counter, &Counter),
    budget: &mut u64,
) {
    for (address, len) in ranges.ranges() {
        match release(mem, &pages::whole(address, len), budget) {
            Some(len) => freed.add_bytes(len),
            None => fails.increment(),
        }
    }
}

/// Releases a range at the cost of its length. Returns the number of bytes; `None` on failure.
fn release(mem: &GuestMemory, range: &Range<u64>, budget: &mut u64) -> Option<usize> {
    *budget = budget.saturating_sub(1 + range.end - range.start);
    pages::release(mem, range)
        .inspect_err(|e| log::debug!("balloon: cannot release the pages {range:#x?}: {e}"))
        .ok()
}

impl QueueHandler for BalloonHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        let timer = self.statistics.as_ref().map(|s| s.timer.source());
        timer.into_iter().collect()
    }

    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let Some(role) = self.roles.get(index).copied() else {
            // The queue belongs to a feature that was not negotiated.
            return Ok(());
        };
        self.serve(role, index, queues)
            .inspect_err(|_| self.metrics.event_fails.increment())
    }

    fn on_source(&mut self, _token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        if let Some(Statistics {
            timer, interval, ..
        }) = &self.statistics
        {
            timer.acknowledge();
            timer.set(now().saturating_add(*interval));
        }
        self.ask(queues)
            .inspect_err(|_| self.metrics.event_fails.increment())
    }

    fn drain(&mut self, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        // The next handler gets the buffer again, with new statistics.
        self.ask(queues)
    }
}
