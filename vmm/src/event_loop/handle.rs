//! Access to an event loop from other threads and from the loop's own subscribers.

use devices::virtio::worker::{Loop, Subscriber};
use event_manager::{SubscriberId, SubscriberOps};
use std::sync::{Arc, Mutex};

/// Makes the loop behind `endpoint` take another turn.
pub fn wake(endpoint: &Loop) {
    if let Err(e) = endpoint.kick() {
        log::error!("cannot wake the event loop: {e}");
    }
}

/// A subscriber that was added to a loop.
pub struct Added {
    endpoint: Loop,
    id: Arc<Mutex<Option<SubscriberId>>>,
}

/// Adds `subscriber` to the loop behind `endpoint`, from any thread. The subscriber owns the descriptors that it watches.
pub fn add(endpoint: &Loop, subscriber: Subscriber) -> Added {
    let id = Arc::new(Mutex::new(None));
    let subscriber_id = id.clone();
    fire(endpoint, move |ops| {
        *devices::lock(&subscriber_id) = Some(ops.add_subscriber(subscriber));
    });
    Added {
        endpoint: endpoint.clone(),
        id,
    }
}

impl Added {
    /// Removes the subscriber from the loop, which drops it in its next turn.
    pub fn remove(self) {
        let id = self.id;
        fire(&self.endpoint, move |ops| {
            let id = devices::lock(&id).take();
            if let Some(Err(e)) = id.map(|id| ops.remove_subscriber(id)) {
                log::error!("cannot remove a subscriber from the event loop: {e}");
            }
        });
    }
}

fn fire(
    endpoint: &Loop,
    call: impl FnOnce(&mut dyn SubscriberOps<Subscriber = Subscriber>) + Send + 'static,
) {
    if let Err(e) = endpoint.fire(call) {
        log::error!("cannot reach the event loop: {e}");
    }
}
