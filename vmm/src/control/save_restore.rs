//! Saving the guest to a snapshot, and restoring it from one.

use super::command::{CommandError, Reply, refused};
use super::controller::{Controller, Phase};
use super::lifecycle::Event;
use crate::machine::memory::layers::Layers;
use crate::machine::{MachineState, Origin};
use crate::process::messages;
use crate::snapshot::prefetch::Prefetch;
use crate::snapshot::{self, Saved};
use devices::GuestMemory;
use resources::{MemoryBackendType, SnapshotCreate, SnapshotLoad, SnapshotType, VmConfig};
use std::time::Instant;

impl Controller {
    pub(super) fn create_snapshot(&mut self, create: &SnapshotCreate) -> Result<(), CommandError> {
        let started = Instant::now();
        let Phase::Paused(machine) = &mut self.phase else {
            return Err(refused(
                "Create snapshot",
                "Cannot save the microVM state: the microVM is not paused",
            ));
        };
        let since = match create.snapshot_type {
            SnapshotType::Full => None,
            SnapshotType::Diff => self.snapshot.as_ref(),
        };
        let paths = (
            create.snapshot_path.as_path(),
            create.mem_file_path.as_path(),
        );
        let saved = snapshot::save(machine, &self.config, paths, since)
            .map_err(CommandError::refused("Create snapshot"))?;
        let latencies = &self.process.metrics.latencies;
        let gauges = match create.snapshot_type {
            SnapshotType::Full => [
                &latencies.full_create_snapshot,
                &latencies.vmm_full_create_snapshot,
            ],
            SnapshotType::Diff => [
                &latencies.diff_create_snapshot,
                &latencies.vmm_diff_create_snapshot,
            ],
        };
        for gauge in gauges {
            gauge.set_time(started.elapsed());
        }
        log::info!(
            "snapshot {} was saved: {} KiB of memory",
            saved.base.id,
            saved.written >> 10
        );
        let id = saved.base.id.clone();
        self.snapshot = Some(saved);
        self.process.events.publish(Event::Saved { id });
        Ok(())
    }

    /// Restores the guest from a snapshot. If that fails the process ends, as Firecracker does.
    ///
    /// # Errors
    /// The reason, naming the file or the key.
    pub fn load_snapshot(&mut self, load: &SnapshotLoad) -> Result<Reply, CommandError> {
        let refused = |why: String| refused("Load snapshot", why);
        if self.guest_is_configured {
            return Err(refused(
                "Loading a microVM snapshot not allowed after configuring boot-specific resources."
                    .into(),
            ));
        }
        let loaded = self.restore(load).map_err(refused);
        self.load_failed = loaded.is_err();
        loaded.map(|()| Reply::Done)
    }

    fn restore(&mut self, load: &SnapshotLoad) -> Result<(), String> {
        let started = Instant::now();
        let text = |e: &dyn std::error::Error| messages::chain(e);
        let memory = load.memory()?;
        let (state, place) = (&load.snapshot_path, &memory.backend_path);
        let loaded = match memory.backend_type {
            MemoryBackendType::File => snapshot::load(state, place),
            MemoryBackendType::Uffd => snapshot::load_served(state, place),
        };
        let mut loaded = loaded.map_err(|e| text(&e))?;
        let mut config = loaded.snapshot.config.clone();
        load.apply(&mut config)?;
        let guest_memory = loaded.memory(&config.machine_config);
        let guest_memory = guest_memory.map_err(|e| text(&e))?;
        self.prefetch = load.prefetch().and_then(|time| {
            let of = (loaded.base.id.as_str(), place.as_path());
            Prefetch::start(&guest_memory, of, time, &self.process.seccomp)
        });
        let mut state = loaded.snapshot.machine;
        if load.clock_realtime {
            state.advance_clocks();
        }
        self.load_state(config, &state, (guest_memory, loaded.layers))?;
        if let Some(prefetch) = &mut self.prefetch {
            let confined = prefetch.wait_until_confined();
            confined.map_err(|e| format!("the seccomp filter of the prefetching thread: {e}"))?;
        }
        let latencies = &self.process.metrics.latencies;
        for gauge in [&latencies.load_snapshot, &latencies.vmm_load_snapshot] {
            gauge.set_time(started.elapsed());
        }
        let id = loaded.base.id.clone();
        self.snapshot = Some(Saved {
            base: loaded.base,
            written: 0,
            samples: loaded.snapshot.memory.samples,
            files: loaded.files,
            whole: loaded.whole,
        });
        log::info!(
            "snapshot {id} was loaded in {} us",
            started.elapsed().as_micros()
        );
        self.process.events.publish(Event::Restored { id });
        if load.resume_vm {
            self.resume();
        }
        self.report();
        Ok(())
    }

    /// Builds a paused machine from `config` and loads `state` into it.
    pub(super) fn load_state(
        &mut self,
        mut config: VmConfig,
        state: &MachineState,
        (memory, layers): (GuestMemory, Layers),
    ) -> Result<(), String> {
        // These sections belong to the process, not to the guest.
        config.logger = self.config.logger.take();
        config.metrics = self.config.metrics.take();
        config.serial = self.config.serial.take();
        let problems: Vec<_> = config.problems().iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        if let Some(mmds) = &config.mmds_config {
            self.process.mmds.configure(mmds);
            self.lent.serve_metadata_on(&mmds.network_interfaces);
        }
        self.config = config;
        let machine = self.build(Origin::Saved(state, memory, layers));
        let machine = machine.map_err(|e| messages::chain(&e))?;
        self.process.timed_from = None;
        self.adopt_machine(machine, true);
        Ok(())
    }
}
