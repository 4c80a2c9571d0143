//! Values of the form `key=value,key=value`, as in virt-install.

use std::str::FromStr;

/// The pairs that have not been taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    flag: &'static str,
    left: Vec<(String, String)>,
}

impl Pairs {
    /// Reads `text`, the value of `flag`.
    pub fn parse(flag: &'static str, text: &str) -> Result<Self, String> {
        let mut left: Vec<(String, String)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let pair = part.split_once('=');
            let Some((key, value)) =
                pair.filter(|(key, value)| !key.is_empty() && !value.is_empty())
            else {
                return Err(format!("{flag} {part:.60}: write KEY=VALUE,KEY=VALUE"));
            };
            if left.iter().any(|(known, _)| known == key) && !REPEATED.contains(&key) {
                return Err(format!("{flag}: `{key:.60}` is given twice"));
            }
            left.push((key.into(), value.into()));
        }
        Ok(Self { flag, left })
    }

    /// Takes the value of `key`.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.left.iter().position(|(known, _)| known == key)?;
        Some(self.left.remove(at).1)
    }

    /// Takes the value of `key`, parsed.
    pub fn take_as<T: FromStr>(&mut self, key: &str, example: &str) -> Result<Option<T>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| format!("{} {key}={text:.60}: write {key}={example}", self.flag))
    }

    /// Takes all values of `key`, parsed.
    pub fn take_all<T: FromStr>(&mut self, key: &str, example: &str) -> Result<Vec<T>, String> {
        let mut all = Vec::new();
        while let Some(one) = self.take_as(key, example)? {
            all.push(one);
        }
        Ok(all)
    }

    /// Takes a switch, `on` or `off`; the default is off.
    pub fn take_switch(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key).as_deref() {
            None | Some("off" | "no") => Ok(false),
            Some("on" | "yes") => Ok(true),
            Some(other) => Err(format!("{} {key}={other:.60}: write on or off", self.flag)),
        }
    }

    /// Refuses a pair that was not taken; `known` are all keys.
    pub fn end(self, known: &str) -> Result<(), String> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "{}: unknown key `{key:.60}`; the keys are {known}",
                self.flag
            )),
        }
    }
}

/// Keys that may be repeated.
const REPEATED: [&str; 4] = ["address", "gateway", "dns", "bridge-address"];

#[cfg(test)]
#[path = "pairs_test.rs"]
mod pairs_test;
