//! The words of GRUB's script language (GRUB manual, "Writing full configuration files directly"): quotes, escapes,
//! variables, and separators of commands. `grub.rs` interprets them.

use std::collections::BTreeMap;

/// Longest expanded word, in bytes. A kernel takes 2 KiB, but a variable that is set to itself twice would double with
/// each assignment.
const MAX_WORD: usize = 4096;

/// A token of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word, before the expansion of its variables.
    Word(Vec<Piece>),
    /// The end of a command.
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Plain text; whether it was quoted.
    Text(String, bool),
    /// The value of a variable; whether it was quoted, so that it stays one word.
    Variable(String, bool),
}

/// Variables.
pub type Variables = BTreeMap<String, String>;

impl Token {
    /// Returns the word, if it has neither quotes nor variables: a keyword or a command.
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::Word(pieces) => match pieces.as_slice() {
                [Piece::Text(text, false)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Returns the tokens of `text`. An unclosed quote extends to the end.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        tokens: Vec::new(),
        word: None,
    };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    tokens: Vec<Token>,
    /// The unfinished word.
    word: Option<Vec<Piece>>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.chars.next() {
            match c {
                '\n' | ';' | '|' | '&' | '<' | '>' => self.end_word(Some(Token::End)),
                '{' => self.end_word(Some(Token::Open)),
                '}' => self.end_word(Some(Token::Close)),
                ' ' | '\t' | '\r' => self.end_word(None),
                '#' if self.word.is_none() => while self.chars.next_if(|c| *c != '\n').is_some() {},
                '\'' => {
                    self.text("", true);
                    while let Some(c) = self.chars.next_if(|c| *c != '\'') {
                        self.text(c.encode_utf8(&mut [0; 4]), true);
                    }
                    self.chars.next();
                }
                '"' => self.quoted(),
                '\\' => match self.chars.next() {
                    // A continued line.
                    Some('\n') | None => {}
                    Some(c) => self.text(c.encode_utf8(&mut [0; 4]), true),
                },
                '$' => self.variable(false),
                c => self.text(c.encode_utf8(&mut [0; 4]), false),
            }
        }
        self.end_word(Some(Token::End));
    }

    fn quoted(&mut self) {
        self.text("", true);
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return,
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(c @ ('"' | '\\' | '$')) => self.text(c.encode_utf8(&mut [0; 4]), true),
                    Some(c) => {
                        self.text("\\", true);
                        self.text(c.encode_utf8(&mut [0; 4]), true);
                    }
                },
                '$' => self.variable(true),
                c => self.text(c.encode_utf8(&mut [0; 4]), true),
            }
        }
    }

    /// Reads a variable, after its `$`.
    fn variable(&mut self, quoted: bool) {
        let braced = self.chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        if braced {
            self.chars.next_if_eq(&'}');
        } else if name.is_empty() && self.chars.next_if(|c| "?*#@".contains(*c)).is_none() {
            return self.text("$", quoted);
        }
        let word = self.word.get_or_insert_default();
        word.push(Piece::Variable(name, quoted));
    }

    fn text(&mut self, text: &str, quoted: bool) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Piece::Text(last, same)) if *same == quoted => last.push_str(text),
            _ => word.push(Piece::Text(text.into(), quoted)),
        }
    }

    fn end_word(&mut self, then: Option<Token>) {
        self.tokens.extend(self.word.take().map(Token::Word));
        self.tokens.extend(then);
    }
}

/// Returns the words to which `word` expands: a variable without quotes may become several words, or none.
///
/// # Errors
/// A message, if a word gets too long.
pub fn expand(word: &[Piece], variables: &Variables) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut current: Option<String> = None;
    for piece in word {
        let (text, whole) = match piece {
            Piece::Text(text, _) => (text.as_str(), true),
            Piece::Variable(name, quoted) => {
                let value = variables.get(name).map(String::as_str);
                (value.unwrap_or_default(), *quoted)
            }
        };
        if whole {
            current.get_or_insert_default().push_str(text);
        } else {
            for (i, part) in text.split([' ', '\t', '\n']).enumerate() {
                if i > 0 {
                    words.extend(current.take());
                }
                if !part.is_empty() {
                    current.get_or_insert_default().push_str(part);
                }
            }
        }
        if current.as_ref().is_some_and(|word| word.len() > MAX_WORD) || words.len() > MAX_WORD {
            return Err(format!("a word is longer than {MAX_WORD} bytes"));
        }
    }
    words.extend(current);
    Ok(words)
}

#[cfg(test)]
#[path = "script_test.rs"]
mod script_test;
