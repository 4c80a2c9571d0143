//! KVM structures in JSON: base64 of their bytes in the layout of the kernel's interface.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A KVM structure.
pub struct Raw<T>(pub T);

/// A list of KVM structures.
#[derive(Clone)]
pub struct RawList<T>(pub Vec<T>);

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::any::type_name::<T>())
    }
}

impl<T> fmt::Debug for RawList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.0.len(), std::any::type_name::<T>())
    }
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    BASE64_STANDARD
        .decode(text.as_bytes())
        .map_err(D::Error::custom)
}

impl<T: IntoBytes + Immutable> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0.as_bytes()))
    }
}

impl<'de, T: FromBytes> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = decode(deserializer)?;
        let value = T::read_from_bytes(&bytes).map_err(|_| {
            let needed = size_of::<T>();
            D::Error::custom(format!("{} bytes where {needed} are needed", bytes.len()))
        })?;
        Ok(Self(value))
    }
}

impl<T: IntoBytes + Immutable> Serialize for RawList<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0.as_bytes()))
    }
}

impl<'de, T: FromBytes> Deserialize<'de> for RawList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = decode(deserializer)?;
        let entries = bytes.chunks(size_of::<T>().max(1)).map(|entry| {
            T::read_from_bytes(entry)
                .map_err(|_| D::Error::custom("the last entry of a list is cut off"))
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }
}
