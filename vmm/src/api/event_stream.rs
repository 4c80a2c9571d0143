//! Events on their way from the main thread to the API's.

use crate::control::lifecycle::{Event, Events};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::Value;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

/// What the main thread tells the API's.
enum Note {
    /// A line for those who listen.
    Line(String),
    /// The process ends: what is under way is brought out.
    End,
}

/// The API's end.
pub(super) struct Inbox {
    notes: mpsc::Receiver<Note>,
    pub(super) ready: Arc<EventFd>,
}

/// The main thread's end.
pub(super) struct Outbox {
    notes: mpsc::Sender<Note>,
    ready: Arc<EventFd>,
}

/// What came.
pub(super) struct Notes {
    pub(super) lines: Vec<String>,
    pub(super) end: bool,
}

pub(super) fn channel(events: &Events) -> io::Result<(Outbox, Inbox)> {
    let (tx, notes) = mpsc::channel();
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let ready = Arc::new(EventFd::from_flags(flags)?);
    let (to, bell) = (tx.clone(), ready.clone());
    events.listen(move |event| {
        // Nobody is there any more only when the process ends.
        let _ = to.send(Note::Line(line(event)));
        let _ = bell.write(1);
    });
    let outbox = Outbox {
        notes: tx,
        ready: ready.clone(),
    };
    Ok((outbox, Inbox { notes, ready }))
}

impl Outbox {
    pub(super) fn end(&self) {
        let _ = self.notes.send(Note::End);
        let _ = self.ready.write(1);
    }
}

impl Inbox {
    pub(super) fn take(&self) -> Notes {
        let _ = self.ready.read();
        let mut notes = Notes {
            lines: Vec::new(),
            end: false,
        };
        for note in self.notes.try_iter() {
            match note {
                Note::Line(line) => notes.lines.push(line),
                Note::End => notes.end = true,
            }
        }
        notes
    }
}

/// `{"time":"…","event":"…",…}` and a line feed.
fn line(event: &Event) -> String {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        object.insert("time".into(), Value::String(time.to_string()));
    }
    format!("{value}\n")
}
