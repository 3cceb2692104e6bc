use crate::query::cursor::Cursor;
use crate::query::fault::{Fault, quoted};

/// One token of SQL text. It has a tokenizer of its own, for SQL's quotes are not those of filters: `'…'` is a text with `''` inside for
/// a quote, `"…"` and backquotes are names, `--` begins a comment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Without its sign: `i64::MIN` needs one more than `i64::MAX`.
    Int(u64),
    Float(f64),
    Text(String),
    /// A word that is not quoted, as it is written: a keyword or a name, as the place demands.
    Word(String),
    /// A name in quotes.
    Quoted(String),
    Sign(&'static str),
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned {
    pub(super) token: Token,
    /// Its first character, from 0.
    pub(super) at: usize,
    /// As it is written, for messages.
    pub(super) written: String,
}

/// Longest first, so that a prefix never wins.
const SIGNS: &[&str] = &[
    "<=", ">=", "<>", "!=", "==", "||", "::", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}",
    ",", ".", ";",
];

/// Cuts text into tokens, one at a time.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { cursor: Cursor::new(text) }
    }

    /// The next token; [`Token::End`] again and again after the last one.
    pub(super) fn next(&mut self) -> Result<Spanned, Fault> {
        self.skip()?;
        let (at, byte) = (self.cursor.at, self.cursor.byte);
        let token = self.token(at)?;
        let written = match token {
            Token::End => "the end".to_string(),
            _ => quoted(self.cursor.since(byte)),
        };
        Ok(Spanned { token, at, written })
    }

    /// Spaces and comments.
    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            self.cursor.take_while(char::is_whitespace);
            if self.cursor.rest().starts_with("--") {
                self.cursor.take_while(|c| c != '\n');
            } else if self.cursor.rest().starts_with("/*") {
                let at = self.cursor.at;
                let Some(length) = self.cursor.rest()[2..].find("*/") else {
                    return Err(Fault::new(at, "this comment does not end: expected `*/`"));
                };
                let end = self.cursor.byte + length + 4;
                while self.cursor.byte < end {
                    self.cursor.bump();
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self, at: usize) -> Result<Token, Fault> {
        let Some(first) = self.cursor.peek() else { return Ok(Token::End) };
        if first.is_ascii_digit() || (first == '.' && self.cursor.rest()[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number(at);
        }
        match first {
            '\'' => return self.quoted(at, first).map(Token::Text),
            '"' | '`' => {
                let name = self.quoted(at, first)?;
                return if name.is_empty() {
                    Err(Fault::new(at, "this name is empty"))
                } else {
                    Ok(Token::Quoted(name))
                };
            }
            _ if first.is_alphabetic() || first == '_' => {
                let word = self.cursor.take_while(|c| c.is_alphanumeric() || c == '_');
                return Ok(Token::Word(word.to_string()));
            }
            _ => {}
        }
        if let Some(sign) = SIGNS.iter().find(|sign| self.cursor.rest().starts_with(**sign)) {
            sign.chars().for_each(|_| self.cursor.bump());
            return Ok(Token::Sign(sign));
        }
        let mut found = [0; 4];
        Err(Fault::new(
            at,
            format!("found {}, expected a name, a value or an operator", quoted(first.encode_utf8(&mut found))),
        ))
    }

    fn number(&mut self, at: usize) -> Result<Token, Fault> {
        let start = self.cursor.byte;
        let mut float = false;
        self.cursor.take_while(|c| c.is_ascii_digit());
        if self.cursor.peek() == Some('.') {
            float = true;
            self.cursor.bump();
            self.cursor.take_while(|c| c.is_ascii_digit());
        }
        if matches!(self.cursor.peek(), Some('e' | 'E')) {
            float = true;
            self.cursor.bump();
            if matches!(self.cursor.peek(), Some('+' | '-')) {
                self.cursor.bump();
            }
        }
        self.cursor.take_while(|c| c.is_alphanumeric() || c == '_');
        let written = self.cursor.since(start);
        if float {
            return match written.parse::<f64>() {
                Ok(float) if float.is_finite() => Ok(Token::Float(float)),
                Ok(_) => Err(Fault::new(at, format!("found {}, which is too large for a double", quoted(written)))),
                Err(_) => Err(Fault::new(at, format!("found {}, expected a number", quoted(written)))),
            };
        }
        if !written.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::new(at, format!("found {}, expected a number", quoted(written))));
        }
        written.parse().map(Token::Int).map_err(|_| out_of_range(written, at))
    }

    /// What is between two of `quote`, which doubled stands for itself.
    fn quoted(&mut self, at: usize, quote: char) -> Result<String, Fault> {
        self.cursor.bump();
        let mut text = String::new();
        loop {
            match self.cursor.peek() {
                None => return Err(Fault::new(at, format!("what is quoted here does not end: expected {quote}"))),
                Some(c) => {
                    self.cursor.bump();
                    if c == quote {
                        if self.cursor.peek() != Some(quote) {
                            return Ok(text);
                        }
                        self.cursor.bump();
                    }
                    text.push(c);
                }
            }
        }
    }
}

/// For an integer that 64 bits do not hold.
pub(super) fn out_of_range(written: &str, at: usize) -> Fault {
    Fault::new(at, format!("found {}, which is out of the range of BIGINT", quoted(written)))
}
