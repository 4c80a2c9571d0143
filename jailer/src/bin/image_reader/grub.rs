//! GRUB's configuration: the default entry of its menu, and what it boots. The script is interpreted as far as that
//! needs: variables, conditions and menus, but no loops, no functions, and no access to devices.

use crate::boot::Boot;
use crate::loader_entries::LoaderEntry;
use crate::script::{self, Piece, Token, Variables};
use std::ops::Range;

/// Deepest nesting of conditions and of menus.
const MAX_DEPTH: usize = 32;
/// Most entries of a menu.
const MAX_ITEMS: usize = 4096;
/// Longest value of a variable, in bytes.
const MAX_VALUE: usize = 4096;
/// First line of an environment block (GRUB manual, "The GRUB environment block").
const ENVIRONMENT: &str = "# GRUB Environment Block";

/// Returns what the default entry of `config` boots, with the variables of its environment block. `entries` are the
/// entries that the command `blscfg` adds, in order.
///
/// # Errors
/// A message, if the script is invalid, or boots no kernel.
pub fn chosen(config: &str, environment: &str, entries: &[LoaderEntry]) -> Result<Boot, String> {
    let tokens = script::tokens(config);
    let mut run = Run::new(&tokens, environment, entries);
    run.all(0..tokens.len())?;
    for _ in 0..MAX_DEPTH {
        let default = run.variables.get("default").cloned().unwrap_or_default();
        let (first, rest) = split(&default);
        let items = std::mem::take(&mut run.items);
        let Some(item) = select(&items, &first) else {
            break;
        };
        match &item.content {
            Content::Entry(body) => {
                run.boot = Boot::default();
                run.all(body.clone())?;
                break;
            }
            Content::Menu(body) => {
                run.variables.insert("default".into(), rest);
                run.all(body.clone())?;
            }
            Content::Loader(index) => {
                let entry = entries.get(*index);
                return entry.map_or(Err("it has no entries".into()), |e| run.loader(e));
            }
        }
    }
    match run.boot.kernel.is_empty() {
        false => Ok(run.boot),
        true => Err("its default entry loads no Linux kernel".into()),
    }
}

/// Returns the variables of an environment block, except `next_entry`: it is for one boot only, and nothing here can
/// delete it.
pub fn environment(text: &str) -> impl Iterator<Item = (&str, String)> {
    let there = text.starts_with(ENVIRONMENT);
    let lines = text
        .lines()
        .filter(move |line| there && !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .filter(|(name, _)| *name != "next_entry")
        .map(|(name, value)| {
            let mut plain = String::new();
            let mut chars = value.chars();
            while let Some(c) = chars.next() {
                plain.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
            (name, plain)
        })
}

/// Splits a path of menus, `a>b`, after its first part; `>>` is a `>` in a name.
fn split(default: &str) -> (String, String) {
    let mut first = String::new();
    let mut chars = default.chars();
    while let Some(c) = chars.next() {
        if c == '>' {
            let rest = chars.as_str();
            match rest.strip_prefix('>') {
                Some(_) => drop(chars.next()),
                None => return (first, rest.into()),
            }
        }
        first.push(c);
    }
    (first, String::new())
}

/// Returns the entry that `wanted` names by its number, id or title, or else the first one.
fn select<'a>(items: &'a [Item], wanted: &str) -> Option<&'a Item> {
    let by_number = || items.get(wanted.parse::<usize>().ok()?);
    let named = |item: &&Item| item.id == wanted || item.title == wanted;
    let by_name = || items.iter().find(named);
    by_number().or_else(by_name).or_else(|| items.first())
}

#[derive(Debug)]
struct Item {
    title: String,
    id: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Tokens of its body.
    Entry(Range<usize>),
    /// Tokens of its body, which define further entries.
    Menu(Range<usize>),
    /// Index of a boot-loader entry.
    Loader(usize),
}

struct Run<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
    environment: &'a str,
    entries: &'a [LoaderEntry],
    variables: Variables,
    items: Vec<Item>,
    boot: Boot,
}

impl<'a> Run<'a> {
    fn new(tokens: &'a [Token], environment: &'a str, entries: &'a [LoaderEntry]) -> Self {
        // Variables that GRUB itself sets.
        let known = [
            ("grub_platform", "pc"),
            ("grub_cpu", "i386"),
            ("feature_menuentry_id", "y"),
            ("feature_platform_search_hint", "y"),
            ("feature_default_font_path", "y"),
            ("feature_all_video_module", "y"),
            ("feature_timeout_style", "y"),
            ("feature_chainloader_bpb", "y"),
            ("feature_ntldr", "y"),
        ];
        let known = known.into_iter();
        Self {
            tokens,
            at: 0,
            end: 0,
            environment,
            entries,
            variables: known.map(|(k, v)| (k.into(), v.into())).collect(),
            items: Vec::new(),
            boot: Boot::default(),
        }
    }

    fn all(&mut self, range: Range<usize>) -> Result<(), String> {
        (self.at, self.end) = (range.start, range.end);
        // An unmatched closing word only ends a list of commands.
        while self.at < self.end {
            self.commands(true, &[], 0)?;
            self.at += 1;
        }
        Ok(())
    }

    fn token(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).filter(|_| self.at < self.end)
    }

    fn keyword(&self) -> &'a str {
        self.token().and_then(Token::plain).unwrap_or_default()
    }

    /// Runs commands up to one of `stops` or a `}`; returns whether the last one succeeded.
    fn commands(&mut self, run: bool, stops: &[&str], depth: usize) -> Result<bool, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        let mut succeeded = true;
        while let Some(token) = self.token() {
            match token {
                Token::End => self.at += 1,
                Token::Close => break,
                Token::Open => self.at += 1,
                Token::Word(_) if stops.contains(&self.keyword()) => break,
                Token::Word(_) => succeeded = self.command(run, depth)?,
            }
        }
        Ok(succeeded)
    }

    fn command(&mut self, run: bool, depth: usize) -> Result<bool, String> {
        match self.keyword() {
            "if" => self.condition(run, depth).map(|()| true),
            // No generated configuration chooses its kernel in a loop.
            "for" | "while" | "until" => {
                self.at += 1;
                self.commands(false, &["do"], depth + 1)?;
                self.at += 1;
                self.commands(false, &["done"], depth + 1)?;
                self.at += 1;
                Ok(true)
            }
            "function" => {
                self.words();
                self.body();
                Ok(true)
            }
            kind @ ("menuentry" | "submenu") => {
                let words = self.words();
                let body = self.body();
                if run && self.items.len() < MAX_ITEMS {
                    let words = self.expand(words)?;
                    self.items.push(Item::new(&words, kind, body));
                }
                Ok(true)
            }
            _ => {
                let words = self.words();
                match run {
                    true => {
                        let words = self.expand(words)?;
                        self.simple(&words)
                    }
                    false => Ok(false),
                }
            }
        }
    }

    fn condition(&mut self, run: bool, depth: usize) -> Result<(), String> {
        let mut done = !run;
        loop {
            // Skips `if` or `elif`.
            self.at += 1;
            let holds = self.commands(!done, &["then"], depth + 1)?;
            self.at += 1;
            self.commands(!done && holds, &["elif", "else", "fi"], depth + 1)?;
            done |= holds;
            match self.keyword() {
                "elif" => {}
                "else" => {
                    self.at += 1;
                    self.commands(!done, &["fi"], depth + 1)?;
                    break;
                }
                _ => break,
            }
        }
        if self.keyword() == "fi" {
            self.at += 1;
        }
        Ok(())
    }

    /// Returns the words of the command that begins here.
    fn words(&mut self) -> Range<usize> {
        let start = self.at;
        while matches!(self.token(), Some(Token::Word(_))) {
            self.at += 1;
        }
        start..self.at
    }

    /// Returns the tokens between the braces that follow, if any.
    fn body(&mut self) -> Range<usize> {
        if self.token() != Some(&Token::Open) {
            return self.at..self.at;
        }
        let start = self.at + 1;
        let mut depth = 0_usize;
        while let Some(token) = self.token() {
            match token {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return start..self.at - 1;
            }
        }
        start..self.end
    }

    fn expand(&self, words: Range<usize>) -> Result<Vec<String>, String> {
        let mut expanded = Vec::new();
        for token in self.tokens.get(words).unwrap_or_default() {
            if let Token::Word(word) = token {
                expanded.extend(script::expand(word, &self.variables)?);
            }
        }
        Ok(expanded)
    }

    fn simple(&mut self, words: &[String]) -> Result<bool, String> {
        let Some((name, rest)) = words.split_first() else {
            return Ok(true);
        };
        match name.as_str() {
            "set" => rest.iter().try_for_each(|word| self.assign(word))?,
            "unset" => rest
                .iter()
                .for_each(|name| drop(self.variables.remove(name))),
            "load_env" => {
                for (name, value) in environment(self.environment) {
                    self.variables.insert(name.into(), value);
                }
            }
            "linux" | "linux16" | "linuxefi" => {
                if let Some((kernel, arguments)) = rest.split_first() {
                    self.boot.kernel.clone_from(kernel);
                    self.boot.arguments = arguments.to_vec();
                    self.boot.initrds.clear();
                }
            }
            "initrd" | "initrd16" | "initrdefi" => self.boot.initrds = rest.to_vec(),
            "blscfg" => {
                let entries = self.entries.iter().enumerate();
                let items = entries.map(|(i, entry)| Item {
                    title: entry.title.clone(),
                    id: entry.id.clone(),
                    content: Content::Loader(i),
                });
                self.items.extend(items.take(MAX_ITEMS));
            }
            "[" | "test" => return Ok(self.test(rest)),
            "!" => return self.simple(rest).map(|holds| !holds),
            "true" | "search" | "insmod" | "export" | "echo" => {}
            word if word.contains('=') => self.assign(word)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn assign(&mut self, word: &str) -> Result<(), String> {
        if let Some((name, value)) = word.split_once('=') {
            if value.len() > MAX_VALUE {
                return Err(format!(
                    "the value of {name} is longer than {MAX_VALUE} bytes"
                ));
            }
            self.variables.insert(name.into(), value.into());
        }
        Ok(())
    }

    /// Runs the command `test`. The environment block is the only file that exists.
    fn test(&self, words: &[String]) -> bool {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let words = words.strip_suffix(&["]"]).unwrap_or(&words);
        words.split(|word| *word == "-o").any(|part| {
            let mut all = part.split(|word| *word == "-a");
            all.all(|term| self.term(term))
        })
    }

    fn term(&self, words: &[&str]) -> bool {
        match words {
            ["!", rest @ ..] => !self.term(rest),
            ["-z"] => true,
            [] | ["-n"] => false,
            ["-n", text] | [text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            ["-f" | "-e" | "-s", path] => {
                path.ends_with("/grubenv") && !self.environment.is_empty()
            }
            [a, "=" | "==" | "-eq", b] => a == b,
            [a, "!=" | "-ne", b] => a != b,
            _ => false,
        }
    }

    /// Returns what `entry` boots. Its lines may have variables of the script.
    fn loader(&self, entry: &LoaderEntry) -> Result<Boot, String> {
        let words = |text: &str| -> Result<Vec<String>, String> {
            let mut words = Vec::new();
            for word in text.split_whitespace() {
                let piece = match word.strip_prefix('$') {
                    Some(name) => Piece::Variable(name.trim_matches(['{', '}']).to_owned(), false),
                    None => Piece::Text(word.into(), true),
                };
                words.extend(script::expand(&[piece], &self.variables)?);
            }
            Ok(words)
        };
        Ok(Boot {
            kernel: entry.kernel.clone(),
            arguments: words(&entry.options)?,
            initrds: words(&entry.initrds)?,
        })
    }
}

impl Item {
    fn new(words: &[String], kind: &str, body: Range<usize>) -> Self {
        let mut words = words.iter().skip(1);
        let (mut title, mut id) = (None, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--id" => id = words.next(),
                "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
                option if option.starts_with("--") => {}
                _ => title = title.or(Some(word)),
            }
        }
        Self {
            title: title.cloned().unwrap_or_default(),
            id: id.or(title).cloned().unwrap_or_default(),
            content: match kind {
                "submenu" => Content::Menu(body),
                _ => Content::Entry(body),
            },
        }
    }
}

#[cfg(test)]
#[path = "grub_test.rs"]
mod grub_test;
