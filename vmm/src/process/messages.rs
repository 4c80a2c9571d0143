//! Plain messages on standard error, and errors as text. Nothing is filtered or logged here.

use std::error::Error;
use std::io::{self, Write as _};

/// Writes `text` to standard error, whatever the level. With nobody there to read it (a closed pipe,
/// a full disk) it is lost: `eprint!` would panic, and end a guest that is well.
pub fn print(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `error` and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
