//! The English stemmer of Snowball, which its author calls Porter2, from its description at
//! <https://snowballstem.org/algorithms/english/stemmer.html>, as of its version 2, which other search engines have.

/// Words with a stem that no rule gives.
const EXCEPTIONS: [(&str, &str); 18] = [
    ("skis", "ski"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("idly", "idl"),
    ("gently", "gentl"),
    ("ugly", "ugli"),
    ("early", "earli"),
    ("only", "onli"),
    ("singly", "singl"),
    ("sky", "sky"),
    ("news", "news"),
    ("howe", "howe"),
    ("atlas", "atlas"),
    ("cosmos", "cosmos"),
    ("bias", "bias"),
    ("andes", "andes"),
];

/// Words that are left alone once a plural's end is off.
const INVARIANT: [&str; 9] =
    ["inning", "outing", "canning", "herring", "earring", "evening", "proceed", "exceed", "succeed"];

/// Beginnings after which the first region begins.
const PREFIXES: [&str; 3] = ["gener", "commun", "arsen"];

/// Endings of step 2 and what stands for them in the first region; the longest that fits counts.
const STEP_2: [(&str, &str); 24] = [
    ("ational", "ate"),
    ("ization", "ize"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("iveness", "ive"),
    ("tional", "tion"),
    ("biliti", "ble"),
    ("lessli", "less"),
    ("entli", "ent"),
    ("ation", "ate"),
    ("alism", "al"),
    ("aliti", "al"),
    ("ousli", "ous"),
    ("iviti", "ive"),
    ("fulli", "ful"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("abli", "able"),
    ("izer", "ize"),
    ("ator", "ate"),
    ("alli", "al"),
    ("bli", "ble"),
    ("ogi", "og"),
    ("li", ""),
];

/// The same of step 3.
const STEP_3: [(&str, &str); 9] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("alize", "al"),
    ("icate", "ic"),
    ("iciti", "ic"),
    ("ative", ""),
    ("ical", "ic"),
    ("ness", ""),
    ("ful", ""),
];

/// What step 4 takes off in the second region.
const STEP_4: [&str; 18] = [
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "ion",
    "al", "er", "ic",
];

/// Replaces an English word in lower case by its stem; others stay as they are.
pub(super) fn stem(word: &mut String) {
    if word.len() < 3 || !word.is_ascii() {
        return;
    }
    if let Some((_, stem)) = EXCEPTIONS.iter().find(|(exception, _)| exception == word) {
        *word = (*stem).to_owned();
        return;
    }
    let mut stemmer = Stemmer { word: std::mem::take(word).into_bytes(), r1: 0, r2: 0 };
    stemmer.run();
    stemmer.word.iter_mut().filter(|byte| **byte == b'Y').for_each(|byte| *byte = b'y');
    *word = String::from_utf8(stemmer.word).unwrap_or_default();
}

/// A word on its way. A `y` that is no vowel is written `Y`.
struct Stemmer {
    word: Vec<u8>,
    /// Where the two regions begin.
    r1: usize,
    r2: usize,
}

const fn is_vowel(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

impl Stemmer {
    fn run(&mut self) {
        if self.word[0] == b'\'' {
            self.word.remove(0);
        }
        for at in 0..self.word.len() {
            if self.word[at] == b'y' && (at == 0 || is_vowel(self.word[at - 1])) {
                self.word[at] = b'Y';
            }
        }
        let prefix = PREFIXES.iter().find(|prefix| self.word.starts_with(prefix.as_bytes()));
        self.r1 = prefix.map_or_else(|| self.region(0), |prefix| prefix.len());
        self.r2 = self.region(self.r1);
        self.step_1a();
        if INVARIANT.iter().any(|word| word.as_bytes() == self.word) {
            return;
        }
        self.step_1b();
        self.step_1c();
        self.step_2();
        self.step_3();
        self.step_4();
        self.step_5();
    }

    /// After the first consonant that follows a vowel.
    fn region(&self, from: usize) -> usize {
        let vowel = (from..self.word.len()).find(|&at| is_vowel(self.word[at])).unwrap_or(self.word.len());
        (vowel..self.word.len()).find(|&at| !is_vowel(self.word[at])).map_or(self.word.len(), |at| at + 1)
    }

    fn ends(&self, suffix: &str) -> bool {
        self.word.ends_with(suffix.as_bytes())
    }

    /// Where a suffix begins.
    fn before(&self, suffix: &str) -> usize {
        self.word.len() - suffix.len()
    }

    fn replace(&mut self, suffix: &str, by: &str) {
        self.word.truncate(self.before(suffix));
        self.word.extend_from_slice(by.as_bytes());
    }

    fn has_vowel_before(&self, end: usize) -> bool {
        self.word[..end].iter().copied().any(is_vowel)
    }

    /// Whether the first `end` letters end with a short syllable.
    fn is_short(&self, end: usize) -> bool {
        let vowel = |at: usize| is_vowel(self.word[at]);
        match end {
            0 | 1 => false,
            2 => vowel(0) && !vowel(1),
            _ => {
                !vowel(end - 1)
                    && !matches!(self.word[end - 1], b'w' | b'x' | b'Y')
                    && vowel(end - 2)
                    && !vowel(end - 3)
            }
        }
    }

    fn step_1a(&mut self) {
        if let Some(suffix) = ["'s'", "'s", "'"].into_iter().find(|suffix| self.ends(suffix)) {
            self.replace(suffix, "");
        }
        if self.ends("sses") {
            self.replace("es", "");
        } else if self.ends("ied") || self.ends("ies") {
            let long = self.word.len() > 4;
            self.replace("ied", if long { "i" } else { "ie" });
        } else if self.ends("s")
            && !self.ends("us")
            && !self.ends("ss")
            && self.word.len() > 2
            && self.has_vowel_before(self.word.len() - 2)
        {
            self.word.pop();
        }
    }

    fn step_1b(&mut self) {
        if let Some(suffix) = ["eedly", "eed"].into_iter().find(|suffix| self.ends(suffix)) {
            if self.before(suffix) >= self.r1 {
                self.replace(suffix, "ee");
            }
            return;
        }
        let suffix = ["ingly", "edly", "ing", "ed"].into_iter().find(|suffix| self.ends(suffix));
        let Some(suffix) = suffix.filter(|suffix| self.has_vowel_before(self.before(suffix))) else { return };
        self.replace(suffix, "");
        let len = self.word.len();
        if ["at", "bl", "iz"].into_iter().any(|suffix| self.ends(suffix)) {
            self.word.push(b'e');
        } else if ["bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"].into_iter().any(|suffix| self.ends(suffix)) {
            // Not where it is all but one letter, as in `egg`.
            if !(len == 3 && matches!(self.word[0], b'a' | b'e' | b'o')) {
                self.word.pop();
            }
        } else if self.r1 >= len && self.is_short(len) {
            self.word.push(b'e');
        }
    }

    fn step_1c(&mut self) {
        let len = self.word.len();
        if len > 2 && matches!(self.word[len - 1], b'y' | b'Y') && !is_vowel(self.word[len - 2]) {
            self.word[len - 1] = b'i';
        }
    }

    fn step_2(&mut self) {
        let Some((suffix, by)) = STEP_2.into_iter().find(|(suffix, _)| self.ends(suffix)) else { return };
        let start = self.before(suffix);
        if start < self.r1 {
            return;
        }
        let last = start.checked_sub(1).map(|at| self.word[at]);
        let fits = match suffix {
            "ogi" => last == Some(b'l'),
            "li" => last.is_some_and(|last| b"cdeghkmnrt".contains(&last)),
            _ => true,
        };
        if fits {
            self.replace(suffix, by);
        }
    }

    fn step_3(&mut self) {
        let Some((suffix, by)) = STEP_3.into_iter().find(|(suffix, _)| self.ends(suffix)) else { return };
        let start = self.before(suffix);
        if start >= self.r1 && (suffix != "ative" || start >= self.r2) {
            self.replace(suffix, by);
        }
    }

    fn step_4(&mut self) {
        let Some(suffix) = STEP_4.into_iter().find(|suffix| self.ends(suffix)) else { return };
        let start = self.before(suffix);
        let fits = suffix != "ion" || start.checked_sub(1).is_some_and(|at| matches!(self.word[at], b's' | b't'));
        if start >= self.r2 && fits {
            self.replace(suffix, "");
        }
    }

    fn step_5(&mut self) {
        let Some(last) = self.word.len().checked_sub(1) else { return };
        let takes = match self.word[last] {
            b'e' => last >= self.r2 || (last >= self.r1 && !self.is_short(last)),
            b'l' => last >= self.r2 && last > 0 && self.word[last - 1] == b'l',
            _ => false,
        };
        if takes {
            self.word.pop();
        }
    }
}
