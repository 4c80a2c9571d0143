//! Sizes of disks: parsed from arguments, and written for users.

use std::str::FromStr;

/// A size in bytes. As an argument it is in GiB, or has the unit M, G or T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Largest size of a volume and of a drive, in bytes: 64 TiB.
const MAX: u64 = 64 << 40;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let shift = match unit.to_ascii_uppercase().as_str() {
            "M" | "MB" | "MIB" => 20,
            "" | "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => 64,
        };
        let number = digits.parse::<u64>().ok();
        number
            .and_then(|number| number.checked_mul(1_u64.checked_shl(shift)?))
            .filter(|bytes| (1..=MAX).contains(bytes))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "write a size in GiB like 20, or 512M, 20G, 1T; at most 64T, not `{text:.40}`"
                )
            })
    }
}

/// Returns `bytes` for a person, in MiB, GiB or TiB with two decimals.
pub fn gib(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..0x4000_0000 => (20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (30, "GiB"),
        _ => (40, "TiB"),
    };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
#[path = "size_test.rs"]
mod size_test;
