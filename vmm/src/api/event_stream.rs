//! The channel of events from the main thread to the API's thread.

use crate::control::lifecycle::{Event, Events};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::Value;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

/// A message to the API's thread.
enum Message {
    /// A line for streaming clients.
    Line(String),
    /// The process ends: send the pending output.
    End,
}

/// The receiving end, on the API's thread.
pub(super) struct EventReceiver {
    messages: mpsc::Receiver<Message>,
    pub(super) ready: Arc<EventFd>,
}

/// The sending end, on the main thread.
pub(super) struct EventSender {
    messages: mpsc::Sender<Message>,
    ready: Arc<EventFd>,
}

/// The messages that arrived.
pub(super) struct Received {
    pub(super) lines: Vec<String>,
    pub(super) end: bool,
}

pub(super) fn channel(events: &Events) -> io::Result<(EventSender, EventReceiver)> {
    let (tx, messages) = mpsc::channel();
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let ready = Arc::new(EventFd::from_flags(flags)?);
    let (to, bell) = (tx.clone(), ready.clone());
    events.subscribe(move |event| {
        // The API's thread is gone only when the process ends.
        let _ = to.send(Message::Line(line(event)));
        let _ = bell.write(1);
    });
    let sender = EventSender {
        messages: tx,
        ready: ready.clone(),
    };
    Ok((sender, EventReceiver { messages, ready }))
}

impl EventSender {
    pub(super) fn end(&self) {
        let _ = self.messages.send(Message::End);
        let _ = self.ready.write(1);
    }
}

impl EventReceiver {
    pub(super) fn take(&self) -> Received {
        let _ = self.ready.read();
        let mut messages = Received {
            lines: Vec::new(),
            end: false,
        };
        for message in self.messages.try_iter() {
            match message {
                Message::Line(line) => messages.lines.push(line),
                Message::End => messages.end = true,
            }
        }
        messages
    }
}

/// Returns `{"time":"…","event":"…",…}` and a line feed.
fn line(event: &Event) -> String {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        object.insert("time".into(), Value::String(time.to_string()));
    }
    format!("{value}\n")
}
