//! The format of seccomp lists: the built-in lists (`default.json`, printed by `--print-seccomp-filter`) and a file given
//! with `--seccomp-filter`.
//!
//! ```json
//! {
//!   "main":    {"rules": [{"syscall": "close"},
//!                         {"syscall": "fcntl", "args": [{"index": 1, "op": "eq", "value": 4, "comment": "F_SETFL"}]}]},
//!   "restart": {"rules": []},
//!   "vcpu":    {"rules": []},
//!   "drive":   {"rules": []},
//!   "api":     {"default_action": "log", "rules": []}
//! }
//! ```
//!
//! | part | threads |
//! |---|---|
//! | `main` | the event loop: network, console, timers, commands |
//! | `restart` | added to `main`, with the calls of `vcpu` and `drive`, if `machine-config.on_reboot` is `restart`: new threads inherit the main thread's filter, so it must allow what they need |
//! | `vcpu` | each vCPU |
//! | `drive` | each device with a loop of its own |
//! | `api` | the API |
//! | `prefetch` | the thread that records or reads ahead the pages of a restored guest. The built-in part is used if a user's file has none |
//! | `report` | all: the calls that reporting a refused call needs. It is added to a user's file, too |
//!
//! A call that no rule allows gets the part's `default_action`: `trap` (the default: a message names the call, and the exit
//! status is 148), `kill_process` (by SIGSYS, without a message) or `log` (the call is made, and the kernel's audit log
//! reports it; for writing a list).
//!
//! A rule allows a call if all its `args` match: the argument `index`, from 0, is compared by `op` (`eq`, `ne`, `lt`, `le`,
//! `gt`, `ge`, or `masked_eq` with a `mask`) with `value`, which is a number, a string with a number (`"0xae80"`), or
//! `"own_pid"`. 32 bits are compared, as the kernel does for an `int`, or all 64 with `"width": 64`. With `errno`, the call
//! is not made and returns that error. `comment` is allowed everywhere; `rare` tells why no test makes the call.

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr as _;
use syscalls::Sysno;

/// Number of arguments of a system call.
pub const ARGUMENTS: usize = 6;

/// The lists of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lists {
    /// Comment for the reader.
    pub comment: Option<String>,
    /// List of the main thread.
    pub main: List,
    /// Calls added to `main` if the guest may start again.
    #[serde(default)]
    pub restart: List,
    /// List of each vCPU thread.
    pub vcpu: List,
    /// List of each device thread.
    pub drive: List,
    /// List of the API's thread.
    pub api: List,
    /// List of the prefetch thread. Files of older versions do not have it.
    pub prefetch: Option<List>,
    /// Calls allowed on all threads.
    #[serde(default)]
    pub report: List,
}

impl Lists {
    /// Returns the lists of each kind of thread, by its name. Missing lists come from `default`.
    pub fn threads<'l>(&'l self, default: &'l Self) -> [(&'static str, Vec<&'l List>); 6] {
        let Self {
            main,
            restart,
            vcpu,
            drive,
            api,
            prefetch,
            ..
        } = self;
        let report = &default.report;
        let prefetch = prefetch.iter().chain(&default.prefetch).take(1);
        [
            ("main", vec![main, report]),
            // Threads that start later have the main thread's filter, too.
            ("restart", vec![main, restart, vcpu, drive, report]),
            ("vcpu", vec![vcpu, report]),
            ("drive", vec![drive, report]),
            ("api", vec![api, report]),
            ("prefetch", prefetch.chain([report]).collect()),
        ]
    }
}

/// The list of one kind of thread.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Comment for the reader.
    pub comment: Option<String>,
    /// Action for calls that no rule allows.
    #[serde(default)]
    pub default_action: Action,
    /// Rules in any order.
    pub rules: Vec<Rule>,
}

/// The action for a call that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A message names the call, and the process ends with status 148.
    #[default]
    Trap,
    /// The kernel kills the process.
    KillProcess,
    /// The call is made, and the kernel logs it.
    Log,
}

/// A rule that allows a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The call.
    pub syscall: Syscall,
    /// Conditions on its arguments; none for any arguments.
    #[serde(default)]
    pub args: Vec<Condition>,
    /// Error that is returned instead of making the call.
    pub errno: Option<u16>,
    /// Comment for the reader.
    pub comment: Option<String>,
    /// Why no test makes the call.
    pub rare: Option<String>,
}

impl Rule {
    /// Returns whether the rule allows the call `number` with `arguments` in the process `pid`.
    pub fn allows(&self, number: i32, arguments: &[u64; ARGUMENTS], pid: u32) -> bool {
        self.syscall.0.id() == number
            && self.args.iter().all(|condition| {
                let value = arguments.get(usize::from(condition.index));
                value.is_some_and(|value| condition.holds(*value, pid))
            })
    }
}

/// A system call, named as on x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall(pub Sysno);

impl<'de> Deserialize<'de> for Syscall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        let number = Sysno::from_str(&name).map_err(|_| {
            D::Error::custom(format!(
                "x86-64 has no system call `{name}`; syscalls(2) has the names"
            ))
        })?;
        Ok(Self(number))
    }
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal in the bits of the mask.
    MaskedEq,
}

/// A condition on one argument.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Condition {
    /// Index of the argument, from 0.
    pub index: u8,
    /// The comparison.
    pub op: Op,
    /// The value to compare with.
    pub value: Value,
    /// The bits that [`Op::MaskedEq`] compares.
    pub mask: u64,
    /// Whether all 64 bits are compared instead of 32.
    pub wide: bool,
}

impl Condition {
    fn holds(&self, argument: u64, pid: u32) -> bool {
        let argument = match self.wide {
            true => argument,
            false => argument & u64::from(u32::MAX),
        };
        let value = self.value.in_process(pid);
        match self.op {
            Op::Eq => argument == value,
            Op::Ne => argument != value,
            Op::Lt => argument < value,
            Op::Le => argument <= value,
            Op::Gt => argument > value,
            Op::Ge => argument >= value,
            Op::MaskedEq => argument & self.mask == value & self.mask,
        }
    }
}

/// A condition as written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    index: u8,
    op: Op,
    value: Value,
    mask: Option<Value>,
    width: Option<u8>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

impl TryFrom<Written> for Condition {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if usize::from(written.index) >= ARGUMENTS {
            return Err(format!(
                "index {}: a system call has the arguments 0 to {}",
                written.index,
                ARGUMENTS - 1
            ));
        }
        let wide = match written.width {
            None | Some(32) => false,
            Some(64) => true,
            Some(other) => {
                return Err(format!(
                    "width {other}: use 32, which is the default, or 64"
                ));
            }
        };
        let mask = match (written.op, written.mask) {
            (Op::MaskedEq, Some(Value::Number(mask))) => mask,
            (Op::MaskedEq, _) => return Err("op masked_eq needs a number as `mask`".into()),
            (_, None) => u64::MAX,
            (_, Some(_)) => return Err("`mask` is for the op masked_eq".into()),
        };
        let fits = |number: u64| wide || number <= u64::from(u32::MAX);
        let value_fits = match written.value {
            Value::Number(number) => fits(number),
            Value::OwnPid => true,
        };
        if !value_fits || written.mask.is_some() && !fits(mask) {
            return Err("32 bits are compared, and the number has more: add \"width\": 64".into());
        }
        Ok(Self {
            index: written.index,
            op: written.op,
            value: written.value,
            mask,
            wide,
        })
    }
}

/// The value that an argument is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// The id of the confined process.
    OwnPid,
}

impl Value {
    /// Returns the number in the process `pid`.
    pub fn in_process(self, pid: u32) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::OwnPid => pid.into(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a string with a number such as \"0xae80\" or \"42\", or \"own_pid\"")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        if text == "own_pid" {
            return Ok(Value::OwnPid);
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number
            .map(Value::Number)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod rules_test;
