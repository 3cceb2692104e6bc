use super::cursor::Cursor;
use super::fault::Fault;

/// One token of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// An integer without its sign: `i64::MIN` needs one more than `i64::MAX`.
    Int(u64),
    Float(f64),
    Text(String),
    /// A name.
    Name(String),
    /// `$meta`.
    Meta,
    /// A keyword by its lower-case or symbolic spelling (`&&` is `and`), or punctuation.
    Sign(&'static str),
    End,
}

/// A token, and the characters of the text that it is made of.
#[derive(Debug, Clone)]
pub(super) struct Spanned {
    pub(super) token: Token,
    /// Its first character, from 0.
    pub(super) at: usize,
    /// As it is written, for messages.
    pub(super) written: String,
}

/// Longest first, so that a prefix never wins.
const SIGNS: &[(&str, &str)] = &[
    ("**", "**"),
    ("<<", "<<"),
    (">>", ">>"),
    ("<=", "<="),
    (">=", ">="),
    ("==", "=="),
    ("!=", "!="),
    ("&&", "and"),
    ("||", "or"),
    ("=~", "=~"),
    ("!~", "!~"),
    ("=", "="),
    ("<", "<"),
    (">", ">"),
    ("+", "+"),
    ("-", "-"),
    ("*", "*"),
    ("/", "/"),
    ("%", "%"),
    ("&", "&"),
    ("|", "|"),
    ("^", "^"),
    ("~", "~"),
    ("!", "not"),
    ("(", "("),
    (")", ")"),
    ("[", "["),
    ("]", "]"),
    ("{", "{"),
    ("}", "}"),
    (",", ","),
];

/// Words that are never names.
const KEYWORDS: &[(&str, &str, &str)] = &[
    ("and", "AND", "and"),
    ("or", "OR", "or"),
    ("not", "NOT", "not"),
    ("in", "IN", "in"),
    ("like", "LIKE", "like"),
    ("exists", "EXISTS", "exists"),
    ("true", "TRUE", "true"),
    ("True", "True", "true"),
    ("false", "FALSE", "false"),
    ("False", "False", "false"),
    ("null", "NULL", "null"),
];

/// Cuts an expression into tokens, one at a time, so that memory is bounded by the tree and not by the text.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { cursor: Cursor::new(text) }
    }

    /// The next token; [`Token::End`] again and again after the last one.
    pub(super) fn next(&mut self) -> Result<Spanned, Fault> {
        self.cursor.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
        let (at, byte) = (self.cursor.at, self.cursor.byte);
        let token = self.token(at)?;
        let written = match token {
            Token::End => "the end of the expression".to_string(),
            _ => quoted(self.cursor.since(byte)),
        };
        Ok(Spanned { token, at, written })
    }

    fn token(&mut self, at: usize) -> Result<Token, Fault> {
        let Some(first) = self.cursor.peek() else { return Ok(Token::End) };
        if first.is_ascii_digit() || (first == '.' && self.cursor.rest()[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number(at);
        }
        if first == '"' || first == '\'' {
            return self.text(at, false);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if matches!(self.cursor.peek(), Some('"' | '\'')) {
                match word {
                    "r" | "R" => return self.text(at, true),
                    "u8" | "u" | "U" | "L" => return self.text(at, false),
                    _ => {}
                }
            }
            return Ok(KEYWORDS
                .iter()
                .find(|(lower, upper, _)| word == *lower || word == *upper)
                .map_or_else(|| Token::Name(word.to_string()), |(_, _, sign)| Token::Sign(sign)));
        }
        if first == '$' {
            self.cursor.bump();
            return match self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_') {
                "meta" => Ok(Token::Meta),
                "" => Err(Fault::unsupported(at, "`$`, the element of an array of structs,")),
                word => Err(Fault::new(at, format!("found {}, expected `$meta`", quoted(&format!("${word}"))))),
            };
        }
        if let Some((spelling, sign)) = SIGNS.iter().find(|(spelling, _)| self.cursor.rest().starts_with(spelling)) {
            spelling.chars().for_each(|_| self.cursor.bump());
            return Ok(Token::Sign(sign));
        }
        Err(Fault::new(
            at,
            match first {
                c if c.is_alphabetic() => format!(
                    "found {}, expected an ASCII letter: other names are written `$meta[\"…\"]`",
                    quoted(c.encode_utf8(&mut [0; 4]))
                ),
                c => format!("found {}, expected a name, a value or an operator", quoted(c.encode_utf8(&mut [0; 4]))),
            },
        ))
    }

    fn number(&mut self, at: usize) -> Result<Token, Fault> {
        let (start, rest) = (self.cursor.byte, self.cursor.rest());
        let radix = match rest.as_bytes() {
            [b'0', b'x' | b'X', ..] => 16,
            [b'0', b'b' | b'B', ..] => 2,
            _ => 10,
        };
        if radix != 10 {
            self.cursor.bump();
            self.cursor.bump();
            let digits = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            let written = self.cursor.since(start);
            if self.cursor.peek() == Some('.') || (radix == 16 && digits.contains(['p', 'P'])) {
                return Err(Fault::unsupported(at, "a hexadecimal floating-point number"));
            }
            return integer(digits, radix, written, at);
        }
        self.cursor.take_while(|c| c.is_ascii_digit());
        let mut float = false;
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
            self.cursor.take_while(|c| c.is_ascii_digit());
        }
        self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let written = self.cursor.since(start);
        if float {
            return match written.parse::<f64>() {
                Ok(float) if float.is_finite() => Ok(Token::Float(float)),
                Ok(_) => Err(Fault::new(at, format!("found {}, which is too large for a double", quoted(written)))),
                Err(_) => Err(Fault::new(at, format!("found {}, expected a number", quoted(written)))),
            };
        }
        match written.strip_prefix('0') {
            Some(digits) if !digits.is_empty() => integer(digits, 8, written, at),
            _ => integer(written, 10, written, at),
        }
    }

    /// A string, from its opening quote.
    fn text(&mut self, at: usize, raw: bool) -> Result<Token, Fault> {
        let quote = self.cursor.peek();
        self.cursor.bump();
        let mut text = String::new();
        loop {
            let escape_at = self.cursor.at;
            match self.cursor.peek() {
                None | Some('\n' | '\r') => {
                    let quote = quote.unwrap_or('"');
                    return Err(Fault::new(at, format!("this string does not end: expected `{quote}`")));
                }
                c if c == quote => {
                    self.cursor.bump();
                    return Ok(Token::Text(text));
                }
                Some('\\') => {
                    self.cursor.bump();
                    if raw {
                        text.push('\\');
                        // It only keeps the quote from ending the string; both stay.
                        if let Some(c) = self.cursor.peek()
                            && !matches!(c, '\n' | '\r')
                        {
                            text.push(c);
                            self.cursor.bump();
                        }
                    } else {
                        self.escape(escape_at, &mut text)?;
                    }
                }
                Some(c) => {
                    text.push(c);
                    self.cursor.bump();
                }
            }
        }
    }

    /// What follows a backslash at `at`.
    fn escape(&mut self, at: usize, text: &mut String) -> Result<(), Fault> {
        // The end of the text is found by the caller.
        let Some(c) = self.cursor.peek() else { return Ok(()) };
        if c.is_digit(8) {
            let code = self.code(3, 8).unwrap_or_default();
            text.extend(char::from_u32(code));
            return Ok(());
        }
        self.cursor.bump();
        match c {
            '\'' | '"' | '?' | '\\' => text.push(c),
            'a' => text.push('\x07'),
            'b' => text.push('\x08'),
            'f' => text.push('\x0c'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'v' => text.push('\x0b'),
            // The line goes on.
            '\n' => {}
            '\r' => {
                if self.cursor.peek() == Some('\n') {
                    self.cursor.bump();
                }
            }
            'x' | 'u' | 'U' => {
                let digits = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let mut code = self.hexadecimal(at, digits)?;
                if (0xd800..0xdc00).contains(&code) && self.cursor.rest().starts_with("\\u") {
                    self.cursor.bump();
                    self.cursor.bump();
                    let low = self.hexadecimal(at, 4)?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    }
                }
                match char::from_u32(code) {
                    Some(c) => text.push(c),
                    None => {
                        return Err(Fault::new(at, format!("found the escape of {code:#x}, which is no character")));
                    }
                }
            }
            // `\%` and `\_` are for `like`, which sees the backslash.
            c => text.extend(['\\', c]),
        }
        Ok(())
    }

    fn hexadecimal(&mut self, at: usize, digits: usize) -> Result<u32, Fault> {
        let start = self.cursor.at;
        match self.code(digits, 16) {
            Some(code) if self.cursor.at - start == digits => Ok(code),
            _ => Err(Fault::new(at, format!("this escape needs {digits} hexadecimal digits"))),
        }
    }

    /// The number in up to `digits` digits that follow.
    fn code(&mut self, digits: usize, radix: u32) -> Option<u32> {
        let mut code = None;
        for _ in 0..digits {
            let Some(digit) = self.cursor.peek().and_then(|c| c.to_digit(radix)) else { break };
            code = Some(code.unwrap_or(0u32).wrapping_mul(radix).wrapping_add(digit));
            self.cursor.bump();
        }
        code
    }
}

fn integer(digits: &str, radix: u32, written: &str, at: usize) -> Result<Token, Fault> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        let kind = match radix {
            2 => "a binary number",
            8 => "an octal number, as the leading 0 says",
            16 => "a hexadecimal number",
            _ => "a number",
        };
        return Err(Fault::new(at, format!("found {}, expected {kind}", quoted(written))));
    }
    u64::from_str_radix(digits, radix).map(Token::Int).map_err(|_| out_of_range(written, at))
}

/// For an integer literal that 64 bits do not hold.
pub(super) fn out_of_range(written: &str, at: usize) -> Fault {
    Fault::new(at, format!("found {}, which is out of the range of int64", quoted(written)))
}

/// `text` in backquotes for a message, shortened.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
        let mut lexer = Lexer::new(text);
        let mut tokens = vec![];
        loop {
            match lexer.next()?.token {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    fn fault(text: &str) -> (usize, String) {
        let fault = tokens(text).unwrap_err();
        (fault.at, fault.message)
    }

    #[test]
    fn reads_numbers() {
        assert_eq!(
            tokens("0 7 010 0x1F 0b101 9223372036854775808").unwrap(),
            [Token::Int(0), Token::Int(7), Token::Int(8), Token::Int(31), Token::Int(5), Token::Int(1 << 63)]
        );
        assert_eq!(tokens("1. .5 1e3 2.5E-1 01.5").unwrap(), [1.0, 0.5, 1000.0, 0.25, 1.5].map(Token::Float));
        assert_eq!(fault("x 08"), (2, "found `08`, expected an octal number, as the leading 0 says".into()));
        assert_eq!(fault("0x"), (0, "found `0x`, expected a hexadecimal number".into()));
        assert_eq!(fault("12ab").1, "found `12ab`, expected a number");
        assert_eq!(fault("1e").1, "found `1e`, expected a number");
        assert_eq!(fault("1e999").1, "found `1e999`, which is too large for a double");
        assert!(fault("99999999999999999999").1.contains("out of the range"));
    }

    #[test]
    fn reads_strings() {
        let text = |source: &str| match &tokens(source).unwrap()[..] {
            [Token::Text(text)] => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(r#""a'b" "#), "a'b");
        assert_eq!(text(r"'a\'b\n\t\x41\u00e9\U0001F600\101\0'"), "a'b\n\tA\u{e9}\u{1f600}A\0");
        assert_eq!(text(r"'\ud83d\ude00'"), "\u{1f600}");
        assert_eq!(text(r"'50\%\_'"), r"50\%\_");
        assert_eq!(text(r"r'a\n\'b'"), r"a\n\'b");
        assert_eq!(text("u8'a' "), "a");
        assert_eq!(text("'a\\\nb'"), "ab");
        assert_eq!(fault("a == 'b"), (5, "this string does not end: expected `'`".into()));
        assert_eq!(fault("'b\\"), (0, "this string does not end: expected `'`".into()));
        assert_eq!(fault(r"'é\ud800'"), (2, "found the escape of 0xd800, which is no character".into()));
        assert_eq!(fault(r"'\u12'"), (1, "this escape needs 4 hexadecimal digits".into()));
    }

    #[test]
    fn reads_words_and_signs() {
        assert_eq!(
            tokens("And AND && and ! not").unwrap(),
            [
                Token::Name("And".into()),
                Token::Sign("and"),
                Token::Sign("and"),
                Token::Sign("and"),
                Token::Sign("not"),
                Token::Sign("not")
            ]
        );
        assert_eq!(
            tokens("a<<b**!=").unwrap()[1..],
            [Token::Sign("<<"), Token::Name("b".into()), Token::Sign("**"), Token::Sign("!=")]
        );
        assert_eq!(tokens("$meta[").unwrap(), [Token::Meta, Token::Sign("[")]);
        assert_eq!(fault("é = 1").0, 0);
        assert_eq!(fault("a # 1").1, "found `#`, expected a name, a value or an operator");
    }
}
