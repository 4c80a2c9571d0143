//! What a guest's processors are to show instead of the host's: the compatible monitor's custom
//! CPU templates.

use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;

/// The `cpu-config` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuConfig {
    /// Numbers of KVM capabilities to ask for; `!` before one leaves it out.
    #[serde(default)]
    pub kvm_capabilities: Vec<String>,
    /// Changes of CPUID.
    #[serde(default)]
    pub cpuid_modifiers: Vec<CpuidLeaf>,
    /// Changes of model-specific registers.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes of one leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidLeaf {
    /// EAX of the question.
    pub leaf: Number,
    /// ECX of the question.
    pub subleaf: Number,
    /// KVM's flags of the entry.
    pub flags: u32,
    /// Changes of the answer.
    pub modifiers: Vec<CpuidModifier>,
}

/// A change of one register of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidModifier {
    /// Which.
    pub register: CpuidRegister,
    /// Bits as text.
    pub bitmap: Bitmap,
}

/// A register of CPUID's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// A change of one model-specific register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsrModifier {
    /// Which.
    pub addr: Number,
    /// Bits as text.
    pub bitmap: Bitmap,
}

/// A number written as text: `0x1`, `0b1` or `1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Number(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
            (Some(hex), _) => u32::from_str_radix(hex, 16),
            (_, Some(binary)) => u32::from_str_radix(binary, 2),
            _ => text.parse(),
        };
        match parsed {
            Ok(_) => Ok(Self(text)),
            Err(e) => Err(serde::de::Error::custom(format!(
                "`{text}` is not a number of 32 bits: {e}"
            ))),
        }
    }
}

/// Up to 64 bits, highest first, after `0b`: `0`, `1`, or `x` for one that stays; `_` may part them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bitmap(String);

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bits = text.strip_prefix("0b").map(|bits| bits.replace('_', ""));
        let good = bits.is_some_and(|bits| {
            (1..=64).contains(&bits.len()) && bits.chars().all(|c| matches!(c, '0' | '1' | 'x'))
        });
        match good {
            true => Ok(Self(text)),
            false => Err(serde::de::Error::custom(format!(
                "`{text}` is not a bitmap: write 0b and up to 64 of 0, 1 and x"
            ))),
        }
    }
}

impl CpuConfig {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The section as a file may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CpuConfigOrPath {
    /// A file that holds it.
    Path(PathBuf),
    /// Itself.
    Inline(CpuConfig),
}
