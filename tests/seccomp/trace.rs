//! Traces of a monitor's threads after their filters were applied, and the rules that allow the traced calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;
use syscalls::Sysno;
use vmm::seccomp::rules::{ARGUMENTS, Lists, Rule};

/// Returns a command that runs a monitor under strace with its trace in `file`. The monitor's arguments follow. Calls that
/// the lists refuse are logged and made, so that all of them are seen.
pub fn traced(file: &Path) -> Command {
    let lists = file.with_extension("json");
    let logged = vmm::seccomp::DEFAULT.replace(
        "{\"rules\": [",
        "{\"default_action\": \"log\", \"rules\": [",
    );
    assert!(logged.contains("\"log\""));
    fs::write(&lists, logged).unwrap();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-Y", "-e", "raw=all", "-o"])
        .arg(file)
        .arg(crate::harness::bantam())
        .arg("--seccomp-filter")
        .arg(lists);
    command
}

/// Returns the parts of the lists by their names.
fn parts(lists: &Lists) -> [(&'static str, &[Rule]); 7] {
    [
        ("main", &lists.main.rules),
        ("restart", &lists.restart.rules),
        ("vcpu", &lists.vcpu.rules),
        ("drive", &lists.drive.rules),
        ("api", &lists.api.rules),
        (
            "prefetch",
            lists.prefetch.as_ref().map_or(&[], |list| &list.rules),
        ),
        ("report", &lists.report.rules),
    ]
}

/// The calls of all traces.
#[derive(Default)]
pub struct Seen {
    /// Used rules: the part and the index in it.
    used: BTreeSet<(&'static str, usize)>,
    /// Calls that no rule allows, in strace's words.
    pub refused: BTreeSet<String>,
}

impl Seen {
    /// Adds the trace in `file`. A guest that `restarts` has wider lists.
    pub fn add(&mut self, file: &Path, lists: &Lists, restarts: bool) {
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        let mut threads = BTreeMap::<u32, Confined>::new();
        let mut first = None;
        let mut main_is_confined = false;
        let lines: Vec<_> = text.lines().filter_map(split).collect();
        let mut next = BTreeMap::<u32, &str>::new();
        let mut cut_off = vec![false; lines.len()];
        for (at, (tid, _, call)) in lines.iter().enumerate().rev() {
            // strace may misread a thread that is being killed.
            cut_off[at] = call.ends_with("<unfinished ...>")
                && next
                    .insert(*tid, call)
                    .is_none_or(|next| next.starts_with("+++") || next.ends_with("= ?"));
            next.insert(*tid, call);
        }
        for ((tid, name, call), cut_off) in lines.into_iter().zip(cut_off) {
            let pid = *first.get_or_insert(tid);
            let born = match main_is_confined {
                true => Confined::Inherits,
                false => Confined::No,
            };
            let confined = threads.entry(tid).or_insert(born);
            let Some((number, arguments)) = parse(call) else {
                continue;
            };
            let installs =
                matches!(number, Sysno::seccomp) || number == Sysno::prctl && arguments[0] == 38;
            let allowed: &[&str] = match (*confined, name) {
                (Confined::No, _) if !installs => continue,
                (Confined::Yes, _) if number == Sysno::seccomp => continue,
                (Confined::Inherits, _) => &["main", "restart", "vcpu", "drive", "report"],
                (_, name) if name.starts_with("fc_vcpu") => &["vcpu", "report"],
                (_, name) if name.starts_with("drive ") => &["drive", "report"],
                (_, "prefetch") => &["prefetch", "report"],
                (_, "fc_api") => &["api", "report"],
                _ if restarts => &["main", "restart", "vcpu", "drive", "report"],
                _ => &["main", "report"],
            };
            if !(installs && *confined == Confined::No || cut_off) {
                self.look_up(
                    lists,
                    allowed,
                    number,
                    &arguments,
                    pid,
                    &format!("{name}: {call}"),
                );
            }
            if number == Sysno::seccomp {
                *confined = Confined::Yes;
                main_is_confined |= tid == pid;
            }
        }
    }

    fn look_up(
        &mut self,
        lists: &Lists,
        allowed: &[&str],
        number: Sysno,
        arguments: &[u64; ARGUMENTS],
        pid: u32,
        what: &str,
    ) {
        let admitting: Vec<_> = parts(lists)
            .into_iter()
            .filter(|(part, _)| allowed.contains(part))
            .flat_map(|(part, rules)| (0..).zip(rules).map(move |(at, rule)| (part, at, rule)))
            .filter(|(_, _, rule)| rule.allows(number.id(), arguments, pid))
            .collect();
        // If the guest may restart, a rule of that part counts only if no rule of another part allows the call, which would
        // make it unnecessary. Rules of other parts belong to other runs.
        let wide = allowed.contains(&"restart");
        let needed = admitting.iter().all(|(part, ..)| *part == "restart");
        if !wide || needed {
            let rules = admitting.iter().map(|(part, at, _)| (*part, *at));
            self.used.extend(rules);
        }
        let admitted = !admitting.is_empty();
        if !admitted {
            self.refused.insert(what.to_owned());
        }
    }

    /// Returns the unused rules without a reason.
    pub fn unused(&self, lists: &Lists) -> Vec<String> {
        let mut unused = Vec::new();
        for (part, rules) in parts(lists) {
            for (at, rule) in rules.iter().enumerate() {
                if rule.rare.is_none() && !self.used.contains(&(part, at)) {
                    unused.push(format!(
                        "{part}.rules[{at}]: {} {:?}",
                        rule.syscall.0, rule.args
                    ));
                }
            }
        }
        unused
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Confined {
    No,
    /// By the main thread's filter, at its creation.
    Inherits,
    /// By its own filter.
    Yes,
}

/// Splits `TID<NAME> CALL`.
fn split(line: &str) -> Option<(u32, &str, &str)> {
    let (tid, rest) = line.split_once('<')?;
    let (name, call) = rest.split_once("> ")?;
    Some((tid.trim().parse().ok()?, name, call.trim_start()))
}

/// Parses a call with its arguments. Returns `None` for signals, exits, and the second half of a call.
fn parse(call: &str) -> Option<(Sysno, [u64; ARGUMENTS])> {
    let (name, rest) = call.split_once('(')?;
    let number = Sysno::from_str(name).ok()?;
    let mut arguments = [0; ARGUMENTS];
    let end = rest.find([')', '<']).unwrap_or(rest.len());
    for (to, from) in arguments.iter_mut().zip(rest[..end].split(',')) {
        let from = from.trim();
        *to = match from.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).unwrap_or_default(),
            None => from.parse().unwrap_or_default(),
        };
    }
    Some((number, arguments))
}

/// Returns the file of the trace `name` in `dir`.
pub fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.trace"))
}
