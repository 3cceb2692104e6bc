/// A place in text that is cut into tokens.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    /// The place of the next character, in bytes.
    pub(crate) byte: usize,
    /// The same in characters.
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, byte: 0, at: 0 }
    }

    /// What comes.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.byte..]
    }

    /// What came from that byte on.
    pub(crate) fn since(&self, byte: usize) -> &'a str {
        &self.text[byte..self.byte]
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn bump(&mut self) {
        if let Some(c) = self.peek() {
            self.byte += c.len_utf8();
            self.at += 1;
        }
    }

    pub(crate) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let start = self.byte;
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        self.since(start)
    }
}
