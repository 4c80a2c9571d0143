//! Sizes and tables, as the commands read and write them.

use std::str::FromStr;

/// A size in bytes, as an argument: GiB, or with M, G or T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Largest volume, in bytes: 64 TiB, as of a drive.
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

/// `bytes` for a person, in the unit that fits.
pub fn gib(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..0x4000_0000 => (20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (30, "GiB"),
        _ => (40, "TiB"),
    };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

/// Columns of text.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self {
            rows: vec![titles.map(str::to_owned).into()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A file's name may hold anything.
        let cells = cells.map(|cell| cell.replace(char::is_control, "?"));
        self.rows.push(cells.into());
    }

    /// Prints it, each column as wide as its widest cell.
    pub fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths);
            let cells: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod table_test;
