//! The API: HTTP on a Unix socket, translated to commands and back.
//!
//! `run.rs` starts its thread. It passes commands to the main thread one at a time and waits for each answer. It knows
//! neither machine nor guest.

mod connection;
mod event_stream;
mod http;
mod response;
mod routes;
mod server;

pub use response::Response;
pub use routes::{Parsed, RouteError, parse};
pub use server::{Api, ApiError, CommandQueue, Options, bind};
