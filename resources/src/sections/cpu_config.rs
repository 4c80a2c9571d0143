//! The `cpu-config` section: a custom CPU template in Firecracker's format.

use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;

/// The `cpu-config` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuConfig {
    /// Numbers of KVM capabilities to require. `!` before a number drops the requirement.
    #[serde(default)]
    pub kvm_capabilities: Vec<String>,
    /// Changes of CPUID leaves.
    #[serde(default)]
    pub cpuid_modifiers: Vec<CpuidLeaf>,
    /// Changes of model-specific registers.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes of one CPUID leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidLeaf {
    /// EAX input.
    pub leaf: Number,
    /// ECX input.
    pub subleaf: Number,
    /// KVM's flags of the entry.
    pub flags: u32,
    /// Changes of the output registers.
    pub modifiers: Vec<CpuidModifier>,
}

/// A change of one output register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidModifier {
    /// The register.
    pub register: CpuidRegister,
    /// The bits.
    pub bitmap: Bitmap,
}

/// An output register of CPUID.
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
    /// Address of the register.
    pub addr: Number,
    /// The bits.
    pub bitmap: Bitmap,
}

/// A number as text: `0x1`, `0b1` or `1`.
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

/// Up to 64 bits, highest first, after `0b`: `0`, `1`, or `x` for an unchanged bit. `_` may separate them.
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
    /// Returns true if nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The section, or the path of a file with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CpuConfigOrPath {
    /// Path of a file with the section.
    Path(PathBuf),
    /// The section.
    Inline(CpuConfig),
}
