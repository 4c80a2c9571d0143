//! The API: HTTP bytes on a Unix socket to commands and back. It knows no VM; commands go to the main
//! thread one at a time, and it waits for each answer.

mod connection;
mod event_stream;
mod http;
mod response;
mod routes;
mod server;

pub use response::Response;
pub use routes::{Parsed, RouteError, parse};
pub use server::{Api, ApiError, CommandQueue, Options, bind};
