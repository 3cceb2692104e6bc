pub(crate) use super::token::quoted;
use crate::base::{Error, ErrorKind};

/// How many characters of the line are shown on each side of the caret.
const SHOWN_MAX: usize = 60;

/// What is wrong with an expression, and at which character of it (from 0).
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Fault {
    /// The expression is wrong.
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidArgument, at, message: message.into() }
    }

    /// The expression is right, but this version cannot evaluate it.
    pub(crate) fn unsupported(at: usize, what: &str) -> Self {
        Self { kind: ErrorKind::Unsupported, at, message: format!("{what} is not supported by this version") }
    }

    /// With the position, and the line of `text` that it is in with a caret below.
    pub(crate) fn into_error(self, text: &str) -> Error {
        let Self { kind, at, message } = self;
        let (line, column) = line_at(text, at);
        let start = column.saturating_sub(SHOWN_MAX);
        let mut shown = String::new();
        let mut caret = String::new();
        if start > 0 {
            shown.push('…');
            caret.push(' ');
        }
        shown.extend(line.chars().skip(start).take(2 * SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }));
        if line.chars().nth(start + 2 * SHOWN_MAX).is_some() {
            shown.push('…');
        }
        caret.extend(std::iter::repeat_n(' ', column - start));
        Error::new(kind, format!("{message}, at position {at}\n    {shown}\n    {caret}^")).at(at)
    }
}

/// The line that holds character `at` of `text`, and the character's column in it, from 0.
fn line_at(text: &str, at: usize) -> (&str, usize) {
    let byte = text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let start = text[..byte].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[byte..].find('\n').map_or(text.len(), |newline| byte + newline);
    (&text[start..end], text[start..byte].chars().count())
}

/// The one of `names` that `name` was probably meant to be: at most two in five of its letters differ.
pub(crate) fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > 255 {
        return None;
    }
    names
        .map(|candidate| (edit_distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 5 <= 2 * length.max(candidate.chars().count()))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_and_a_caret() {
        let error = Fault::new(9, "expected a value, found `)`").into_error("a == 1\nb )\nc");
        assert_eq!(error.message(), "expected a value, found `)`, at position 9\n    b )\n      ^");
        assert_eq!(error.position(), Some(9));
        let long = "x".repeat(500);
        let shown = Fault::new(300, "no").into_error(&long).message().to_string();
        let mut lines = shown.lines().skip(1);
        let (text, caret) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(text.starts_with("    …x") && text.ends_with("x…"));
        assert_eq!(caret.find('^'), Some(4 + 1 + SHOWN_MAX));
        assert!(Fault::new(0, "empty").into_error("").message().ends_with("\n    \n    ^"));
    }

    #[test]
    fn suggests_only_what_is_near() {
        let names = || ["title", "category", "id"].into_iter();
        assert_eq!(closest("tilte", names()), Some("title"));
        assert_eq!(closest("Category", names()), Some("category"));
        assert_eq!(closest("embedding", names()), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
