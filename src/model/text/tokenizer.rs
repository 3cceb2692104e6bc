use std::ops::Range;

use super::super::schema::names;

/// What cuts text into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokenizer {
    /// Words much as Unicode's annex 29 separates them.
    ///
    /// A word is a run of letters, digits and marks; of Han and Hiragana each character is one. An apostrophe between two letters, a
    /// point or comma between two digits, and an underscore between two of either belong to the word. The annex also keeps letters
    /// together that a point or colon is between (`e.g`, `a:b`): here they are two words, so that a file name is found by its
    /// parts.
    Standard,
    /// What is between white space.
    Whitespace,
    /// As [`Self::Standard`], but of a run of Han, Hiragana, Katakana or Hangul every two neighbours are a word, and a character that
    /// is alone.
    Cjk,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    /// Only within a word.
    Mark,
    /// Written without spaces.
    Ideograph,
    Other,
}

impl Tokenizer {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "standard" => Ok(Self::Standard),
            "whitespace" => Ok(Self::Whitespace),
            "cjk" => Ok(Self::Cjk),
            other => {
                let known = names(["standard", "whitespace", "cjk"].into_iter());
                Err(format!("found tokenizer {other:?}, expected {known}"))
            }
        }
    }

    /// Calls `each` with the bytes of every word, in order.
    pub(super) fn split(self, text: &str, each: &mut dyn FnMut(Range<usize>)) {
        let bigrams = self == Self::Cjk;
        // Where the word began that is not at its end yet, and of a run of ideographs the last one and whether it is the first.
        let mut word: Option<usize> = None;
        let mut last: Option<(usize, bool)> = None;
        let mut before = '\0';
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let after = chars.peek().map_or('\0', |(_, next)| *next);
            let class = match self {
                Self::Whitespace if c.is_whitespace() => Class::Other,
                Self::Whitespace => Class::Word,
                _ => class(c, bigrams),
            };
            let stays = match class {
                Class::Word => true,
                Class::Mark => word.is_some(),
                Class::Other => word.is_some() && joins(c, before, after),
                Class::Ideograph => false,
            };
            before = c;
            if class != Class::Ideograph
                && let Some((start, true)) = last.take()
            {
                each(start..at);
            }
            if stays {
                word.get_or_insert(at);
                continue;
            }
            if let Some(start) = word.take() {
                each(start..at);
            }
            if class == Class::Ideograph {
                let end = at + c.len_utf8();
                if !bigrams {
                    each(at..end);
                } else {
                    if let Some((start, _)) = last {
                        each(start..end);
                    }
                    last = Some((at, last.is_none()));
                }
            }
        }
        if let Some((start, true)) = last {
            each(start..text.len());
        }
        if let Some(start) = word {
            each(start..text.len());
        }
    }
}

fn class(c: char, bigrams: bool) -> Class {
    match c {
        '\0'..='\x7f' => {
            if c.is_ascii_alphanumeric() {
                Class::Word
            } else {
                Class::Other
            }
        }
        // Hiragana, Han and its extensions.
        '\u{3041}'..='\u{309f}' | '\u{3005}'..='\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' => {
            Class::Ideograph
        }
        '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' => Class::Ideograph,
        // Katakana and Hangul are words elsewhere.
        '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}'
            if bigrams =>
        {
            Class::Ideograph
        }
        '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{ac00}'..='\u{d7a3}' if bigrams => Class::Ideograph,
        // Marks that are no letters by themselves: accents, signs that silence a vowel, joiners.
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{64b}'..='\u{65f}' => Class::Mark,
        '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe2f}' => {
            Class::Mark
        }
        '\u{93c}'
        | '\u{94d}'
        | '\u{9bc}'
        | '\u{9cd}'
        | '\u{a3c}'
        | '\u{a4d}'
        | '\u{abc}'
        | '\u{acd}'
        | '\u{b3c}'
        | '\u{b4d}'
        | '\u{bcd}'
        | '\u{c4d}'
        | '\u{cbc}'
        | '\u{ccd}'
        | '\u{d4d}'
        | '\u{dca}'
        | '\u{e47}'..='\u{e4e}'
        | '\u{200c}'
        | '\u{200d}' => Class::Mark,
        _ if c.is_alphanumeric() => Class::Word,
        _ => Class::Other,
    }
}

/// Whether `c` between these two does not end a word.
fn joins(c: char, before: char, after: char) -> bool {
    match c {
        '\'' | '\u{2019}' | '\u{b7}' => {
            before.is_alphabetic() && class(after, true) == Class::Word && after.is_alphabetic()
        }
        '.' | ',' => before.is_numeric() && after.is_numeric(),
        '_' => before.is_alphanumeric() && class(after, true) == Class::Word,
        _ => false,
    }
}
