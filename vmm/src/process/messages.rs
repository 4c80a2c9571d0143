//! Messages on standard error, and the text of an error with its causes. Nothing is filtered or logged here.

use std::error::Error;
use std::io::{self, Write as _};

/// Writes `text` to standard error, at any log level. The text is lost if the output fails (a closed pipe, a full
/// disk); `eprint!` would panic and end a healthy guest.
pub fn print(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Returns `error` and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
