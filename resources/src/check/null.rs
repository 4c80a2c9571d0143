//! Deserializes `null` as the default value.

/// Deserializes a value, or the default for `null`, which clients write for values that they do not set.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    let value = <Option<T> as serde::Deserialize>::deserialize(deserializer);
    value.map(Option::unwrap_or_default)
}
