//! The metadata: one JSON value that the host puts and patches.
//!
//! Its size is limited, because the host's clients may pass untrusted data on.

use serde_json::{Map, Value};

/// Why a change was refused. The texts are Firecracker's. The data is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The data would exceed the limit.
    #[error("The MMDS patch request doesn't fit.")]
    TooLarge,
    /// There is no data to patch.
    #[error("The MMDS data store is not initialized.")]
    NotInitialized,
}

/// The metadata.
#[derive(Debug)]
pub struct Store {
    /// The value; null before the first put.
    value: Value,
    initialized: bool,
    limit: usize,
}

impl Store {
    /// Creates a store without data, for at most `limit` bytes of serialised JSON.
    pub fn new(limit: usize) -> Self {
        Self {
            value: Value::Null,
            initialized: false,
            limit,
        }
    }

    /// Replaces the data.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn put(&mut self, value: Value) -> Result<(), StoreError> {
        // A `Value` is printed as compact JSON, which cannot fail.
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
    /// [`StoreError`].
    pub fn patch(&mut self, patch: Value) -> Result<(), StoreError> {
        if !self.initialized {
            return Err(StoreError::NotInitialized);
        }
        let mut patched = self.value.clone();
        merge(&mut patched, patch);
        self.put(patched)
    }

    /// Returns the data for the guest: null before the first [`Self::put`].
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// Merges by RFC 7396, section 2. The recursion is as deep as the values, which the JSON parser bounds.
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
