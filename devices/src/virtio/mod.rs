//! The parts that all virtio devices share: the device contract, queues, the mmio transport, and the worker that serves
//! queues on an event loop. Section numbers are those of Virtio 1.2.
//!
//! Devices implement the contract; the monitor's machine builder creates a transport per device. No file here knows a
//! particular device.

pub mod buffers;
pub mod device;
pub mod interrupt;
pub mod mmio;
pub mod queue;
pub mod report;
pub mod section;
pub mod state;
pub mod throttle;
pub mod update;
pub mod worker;

#[cfg(test)]
#[path = "conformance_test.rs"]
mod conformance_test;
#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_test;
#[cfg(test)]
#[path = "saved_test.rs"]
mod saved_test;
#[cfg(test)]
#[path = "subjects_test.rs"]
mod subjects;
