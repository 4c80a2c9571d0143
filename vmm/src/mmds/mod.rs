//! The metadata service.
pub mod http;
pub mod metrics;
pub mod store;
pub mod token;
