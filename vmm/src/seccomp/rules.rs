//! Lists of system calls in the form that users read and write: that of the built-in list
//! (`default.json`, printed by `--print-seccomp-filter`) and of a file given with `--seccomp-filter`.
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
//! | part | which threads |
//! |---|---|
//! | `main` | the event loop: network, console, timers, commands |
//! | `restart` | added to `main`'s, with those of `vcpu` and `drive`, where `machine-config.on_reboot` is `restart`: the threads of a guest that is started again inherit what is refused to `main` |
//! | `vcpu` | each vCPU's |
//! | `drive` | each disk's |
//! | `api` | the API's |
//! | `prefetch` | the one that reads or records what a restored guest touches. The built-in one if a user's list has none |
//! | `report` | all: what it takes to say that a system call was refused. Added to a user's list too |
//!
//! A call that no rule lets through meets the part's `default_action`: `trap` (which is the default: the
//! call is named, the exit status is 148), `kill_process` (by SIGSYS, without a word) or `log` (it is made
//! all the same, and the kernel's audit log tells: for writing a list).
//!
//! A rule lets a call through if all its `args` are as they say: the argument `index`, from 0, compared
//! by `op` (`eq`, `ne`, `lt`, `le`, `gt`, `ge`, or `masked_eq` with a `mask`) with `value`: a number, a
//! text with one (`"0xae80"`), or `"own_pid"`. 32 bits are compared, as the kernel does for whatever is an
//! `int` there, and all 64 with `"width": 64`. With `errno` the call is not made and answers that error.
//! `comment` may stand anywhere; `rare` says why no test of ours makes the call.

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr as _;
use syscalls::Sysno;

/// Arguments a system call can have.
pub const ARGUMENTS: usize = 6;

/// All of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lists {
    /// For the reader.
    pub comment: Option<String>,
    /// The main thread's.
    pub main: List,
    /// What is added to it if the guest may be started again.
    #[serde(default)]
    pub restart: List,
    /// Each vCPU's.
    pub vcpu: List,
    /// Each disk's.
    pub drive: List,
    /// The API's.
    pub api: List,
    /// That of who reads or records what a restored guest touches; later than the others.
    pub prefetch: Option<List>,
    /// All threads'.
    #[serde(default)]
    pub report: List,
}

impl Lists {
    /// The lists that confine each kind of thread, by its name, with what `default` has for all of them and for
    /// those that have none here.
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
            // Threads that are started later have the main thread's filter too.
            ("restart", vec![main, restart, vcpu, drive, report]),
            ("vcpu", vec![vcpu, report]),
            ("drive", vec![drive, report]),
            ("api", vec![api, report]),
            ("prefetch", prefetch.chain([report]).collect()),
        ]
    }
}

/// What one kind of thread may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// For the reader.
    pub comment: Option<String>,
    /// What becomes of the other calls.
    #[serde(default)]
    pub default_action: Action,
    /// The calls, in any order.
    pub rules: Vec<Rule>,
}

/// What becomes of a call that no rule lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is named, and the process ends with 148.
    #[default]
    Trap,
    /// The process is killed.
    KillProcess,
    /// It is made, and logged by the kernel.
    Log,
}

/// One way to make one call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The call.
    pub syscall: Syscall,
    /// What its arguments must be; any if empty.
    #[serde(default)]
    pub args: Vec<Condition>,
    /// The error that is answered without making it.
    pub errno: Option<u16>,
    /// For the reader.
    pub comment: Option<String>,
    /// Why no test makes it.
    pub rare: Option<String>,
}

impl Rule {
    /// Whether it lets through the call `number` with `arguments` in a process `pid`.
    pub fn admits(&self, number: i32, arguments: &[u64; ARGUMENTS], pid: u32) -> bool {
        self.syscall.0.id() == number
            && self.args.iter().all(|condition| {
                let value = arguments.get(usize::from(condition.index));
                value.is_some_and(|value| condition.holds(*value, pid))
            })
    }
}

/// A system call by its name on x86-64.
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

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// It is the value.
    Eq,
    /// It is not.
    Ne,
    /// It is less.
    Lt,
    /// It is not more.
    Le,
    /// It is more.
    Gt,
    /// It is not less.
    Ge,
    /// Its bits that the mask has are the value's.
    MaskedEq,
}

/// What one argument must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Condition {
    /// Which argument, from 0.
    pub index: u8,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: Value,
    /// Which bits are compared by [`Op::MaskedEq`].
    pub mask: u64,
    /// Whether all 64 bits are compared, or 32.
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

/// A condition as it is written, before it is known to make sense.
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

/// What an argument is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This.
    Number(u64),
    /// The number of the process that is confined.
    OwnPid,
}

impl Value {
    /// The number it is in a process `pid`.
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
        f.write_str("a number, a text with one as \"0xae80\" or \"42\", or \"own_pid\"")
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
