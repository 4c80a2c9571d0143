//! The data that a guest can ask for: one JSON value that the host puts and patches.
//!
//! It knows neither who asks nor how; the size is limited because the host's clients write it.

use serde_json::{Map, Value};

/// Why a change was refused, in the words that compatible clients know. The data stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// With the change the data would be longer than the limit.
    #[error("The MMDS patch request doesn't fit.")]
    TooLarge,
    /// There is nothing to patch yet.
    #[error("The MMDS data store is not initialized.")]
    NotInitialized,
}

/// The data.
#[derive(Debug)]
pub struct Store {
    /// Null until something was put.
    value: Value,
    initialized: bool,
    limit: usize,
}

impl Store {
    /// A store without data, for at most `limit` bytes of serialised JSON.
    pub fn new(limit: usize) -> Self {
        Self {
            value: Value::Null,
            initialized: false,
            limit,
        }
    }

    /// Replaces all data.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn put(&mut self, value: Value) -> Result<(), StoreError> {
        // `Value`'s text is compact JSON, which cannot fail.
        if value.to_string().len() > self.limit {
            return Err(StoreError::TooLarge);
        }
        self.value = value;
        self.initialized = true;
        Ok(())
    }

    /// Merges `patch` into the data (RFC 7396).
    ///
    /// # Errors
    /// Both of [`StoreError`].
    pub fn patch(&mut self, patch: Value) -> Result<(), StoreError> {
        if !self.initialized {
            return Err(StoreError::NotInitialized);
        }
        let mut patched = self.value.clone();
        merge(&mut patched, patch);
        self.put(patched)
    }

    /// The data as the guest sees it: null before the first [`Self::put`].
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// RFC 7396, section 2. Its depth is that of the values, which the JSON parser bounds.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
#[path = "store_test.rs"]
mod store_test;
