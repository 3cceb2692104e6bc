use std::fmt;

/// A pattern of `like`: `%` is any run of characters, `_` one character, and a backslash takes what follows as it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern {
    source: String,
    /// What stands between the `%`; one part when there is none.
    parts: Vec<Part>,
}

/// Characters that a text must have one after the other.
#[derive(Debug, Clone, PartialEq, Default)]
struct Part {
    /// Literal runs; between two of them lies one character that may be any.
    runs: Vec<String>,
}

impl Pattern {
    /// The pattern that `source` describes.
    ///
    /// # Errors
    /// With the character's position in `source` when it ends in a lone backslash.
    pub(super) fn new(source: &str) -> Result<Self, usize> {
        let mut parts = vec![Part { runs: vec![String::new()] }];
        let mut characters = source.chars().enumerate();
        while let Some((at, c)) = characters.next() {
            let part = parts.last_mut().expect("the first part is there from the start");
            match c {
                '%' => parts.push(Part { runs: vec![String::new()] }),
                '_' => part.runs.push(String::new()),
                c => {
                    let c = if c == '\\' { characters.next().ok_or(at)?.1 } else { c };
                    part.runs.last_mut().expect("a part has a run").push(c);
                }
            }
        }
        Ok(Self { source: source.to_string(), parts })
    }

    /// How every text that fits begins.
    pub(super) fn prefix(&self) -> &str {
        self.parts.first().and_then(|part| part.runs.first()).map_or("", String::as_str)
    }

    /// Whether the whole of `text` fits. The leftmost place is taken for each part between two `%`, which never loses a match.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self.parts.as_slice() {
            [] => text.is_empty(),
            [only] => only.at_start(text) == Some(""),
            [first, middle @ .., last] => {
                let Some(mut rest) = first.at_start(text) else { return false };
                for part in middle {
                    match part.find(rest) {
                        Some(after) => rest = after,
                        None => return false,
                    }
                }
                last.at_end(rest)
            }
        }
    }
}

impl Part {
    /// What follows this part in `text`, when `text` starts with it.
    fn at_start<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (first, others) = self.runs.split_first()?;
        let mut rest = text.strip_prefix(first.as_str())?;
        for run in others {
            let mut characters = rest.chars();
            characters.next()?;
            rest = characters.as_str().strip_prefix(run.as_str())?;
        }
        Some(rest)
    }

    /// Whether `text` ends with this part.
    fn at_end(&self, text: &str) -> bool {
        let Some((first, others)) = self.runs.split_first() else { return true };
        let mut rest = text;
        for run in others.iter().rev() {
            let Some(before) = rest.strip_suffix(run.as_str()) else { return false };
            let mut characters = before.chars();
            if characters.next_back().is_none() {
                return false;
            }
            rest = characters.as_str();
        }
        rest.ends_with(first.as_str())
    }

    /// What follows the first place of this part in `text`.
    fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        let first = self.runs.first()?;
        let mut from = 0;
        loop {
            // Only places where the first run stands are tried.
            let start = from + text[from..].find(first.as_str())?;
            if let Some(after) = self.at_start(&text[start..]) {
                return Some(after);
            }
            from = start + text[start..].chars().next()?.len_utf8();
        }
    }
}

impl fmt::Display for Pattern {
    /// Its source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    /// The definition, letter by letter.
    fn oracle(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            (['%', rest @ ..], _) => (0..=text.len()).any(|skip| oracle(rest, &text[skip..])),
            (['\\', c, rest @ ..], [t, text @ ..]) => c == t && oracle(rest, text),
            (['_', rest @ ..], [_, text @ ..]) => oracle(rest, text),
            ([c, rest @ ..], [t, text @ ..]) => c == t && oracle(rest, text),
            (_, []) => false,
        }
    }

    #[test]
    fn knows_its_signs() {
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("%", "") && matches("%", "anything\nat all"));
        assert!(matches("rain%", "rainy") && !matches("rain%", "brain"));
        assert!(matches("%ain", "rain") && !matches("%ain", "rains"));
        assert!(matches("%a%a%", "banana") && !matches("%a%a%a%a%", "banana"));
        assert!(matches("_", "é") && matches("_", "😀") && !matches("_", "ab"));
        assert!(matches("a_c%", "abcd") && matches("%_", "x") && !matches("%_", ""));
        assert!(matches(r"50\%", "50%") && !matches(r"50\%", "500"));
        assert!(matches(r"a\_b\\", r"a_b\"));
        assert_eq!(Pattern::new(r"ab\"), Err(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_the_definition(pattern in "([abé_%]|\\\\[%_a\\\\]){0,8}", text in "[abé%_]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), oracle(&p, &t), "{} like {}", text, pattern);
        }
    }
}
