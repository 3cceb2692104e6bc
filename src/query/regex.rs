use std::fmt;

use crate::base::sort_by;

/// More steps than this are refused: each is visited once a character of the text at worst.
const STEPS_MAX: usize = 10_000;
/// Groups that lie one in the other.
const DEPTH_MAX: usize = 64;

/// A regular expression that is looked for anywhere in a text, in time proportional to the length of both, whatever it is.
///
/// It is compiled into steps that are all followed at once, character by character (Thompson, "Regular Expression Search
/// Algorithm", 1968; Cox, "Regular Expression Matching Can Be Simple And Fast", 2007). Its language is that of RE2 and Rust without
/// Unicode's classes, and without back references and look-around, which none of them has. A crate that does the same would take the
/// browser several times the bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Regex {
    source: String,
    steps: Vec<Step>,
    /// The whole of it, when it is nothing but these characters.
    literal: Option<String>,
}

/// Ranges of characters that ascend and do not touch.
type Ranges = Vec<(char, char)>;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Goes on behind a character of one of these ranges.
    Take(Ranges),
    /// Goes on at both.
    Fork(usize, usize),
    /// Goes on here, …
    Look(Look),
    Done,
}

/// … where this is so.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    WordEdge(bool),
}

#[derive(Debug, Clone)]
enum Node {
    Set(Ranges),
    Look(Look),
    Concat(Vec<Node>),
    Either(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

/// What is wrong, and at which character of the expression.
pub(super) type Wrong = (usize, &'static str);

impl Regex {
    pub(super) fn new(source: &str) -> Result<Self, Wrong> {
        let mut parser = Parser { text: source.chars().collect(), at: 0, depth: 0, flags: Flags::default() };
        let node = parser.either()?;
        if parser.at < parser.text.len() {
            return Err((parser.at, "a `)` without its `(`"));
        }
        let mut steps = Vec::new();
        compile(&node, &mut steps).ok_or((0, "too large when its repetitions are written out"))?;
        steps.push(Step::Done);
        let single = |step: &Step| match step {
            Step::Take(ranges) => match ranges.as_slice() {
                [(first, last)] if first == last => Some(*first),
                _ => None,
            },
            _ => None,
        };
        let literal = steps[..steps.len() - 1].iter().map(single).collect();
        Ok(Self { source: source.to_owned(), steps, literal })
    }

    /// Whether it is found in `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        if let Some(literal) = &self.literal {
            return text.contains(literal.as_str());
        }
        let (mut now, mut next) = (Threads::new(self.steps.len()), Threads::new(self.steps.len()));
        let mut before = None;
        let mut rest = text.chars();
        loop {
            let after = rest.clone().next();
            // It may begin at every character.
            if self.follow(0, before, after, &mut now) {
                return true;
            }
            let Some(character) = rest.next() else { return false };
            next.clear();
            let behind = rest.clone().next();
            for &at in &now.order {
                if let Step::Take(ranges) = &self.steps[at]
                    && holds(ranges, character)
                    && self.follow(at + 1, Some(character), behind, &mut next)
                {
                    return true;
                }
            }
            std::mem::swap(&mut now, &mut next);
            before = Some(character);
        }
    }

    /// Adds `start` and all steps that are reached from it without a character; tells whether the end is.
    fn follow(&self, start: usize, before: Option<char>, after: Option<char>, threads: &mut Threads) -> bool {
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            if !threads.insert(at) {
                continue;
            }
            match &self.steps[at] {
                Step::Done => return true,
                Step::Take(_) => {}
                Step::Fork(first, second) => open.extend([*second, *first]),
                Step::Look(look) => {
                    let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
                    let here = match look {
                        Look::TextStart => before.is_none(),
                        Look::TextEnd => after.is_none(),
                        Look::LineStart => before.is_none_or(|c| c == '\n'),
                        Look::LineEnd => after.is_none_or(|c| c == '\n'),
                        Look::WordEdge(wanted) => (word(before) != word(after)) == *wanted,
                    };
                    if here {
                        open.push(at + 1);
                    }
                }
            }
        }
        false
    }
}

impl fmt::Display for Regex {
    /// Its source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// Steps that are followed at one character, each once.
struct Threads {
    order: Vec<usize>,
    there: Vec<bool>,
}

impl Threads {
    fn new(steps: usize) -> Self {
        Self { order: Vec::new(), there: vec![false; steps] }
    }

    fn insert(&mut self, at: usize) -> bool {
        let new = !std::mem::replace(&mut self.there[at], true);
        if new {
            self.order.push(at);
        }
        new
    }

    fn clear(&mut self) {
        for at in self.order.drain(..) {
            self.there[at] = false;
        }
    }
}

fn holds(ranges: &Ranges, c: char) -> bool {
    ranges.iter().any(|&(first, last)| first <= c && c <= last)
}

/// Appends the steps of `node`; `None` when they are too many.
fn compile(node: &Node, steps: &mut Vec<Step>) -> Option<()> {
    if steps.len() > STEPS_MAX {
        return None;
    }
    match node {
        Node::Set(ranges) => steps.push(Step::Take(ranges.clone())),
        Node::Look(look) => steps.push(Step::Look(*look)),
        Node::Concat(nodes) => nodes.iter().try_for_each(|node| compile(node, steps))?,
        Node::Either(nodes) => {
            let mut ends = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                let fork = steps.len();
                if index + 1 < nodes.len() {
                    steps.push(Step::Fork(fork + 1, 0));
                }
                compile(node, steps)?;
                if index + 1 < nodes.len() {
                    ends.push(steps.len());
                    steps.push(Step::Fork(0, 0));
                    steps[fork] = Step::Fork(fork + 1, steps.len());
                }
            }
            let end = steps.len();
            ends.into_iter().for_each(|at| steps[at] = Step::Fork(end, end));
        }
        Node::Repeat(node, least, most) => {
            for _ in 0..*least {
                let before = steps.len();
                compile(node, steps)?;
                if steps.len() == before {
                    // Nothing, however often.
                    return Some(());
                }
            }
            let Some(most) = most else {
                let fork = steps.len();
                steps.push(Step::Fork(0, 0));
                compile(node, steps)?;
                steps.push(Step::Fork(fork, fork));
                steps[fork] = Step::Fork(fork + 1, steps.len());
                return Some(());
            };
            let mut forks = Vec::new();
            for _ in *least..*most {
                forks.push(steps.len());
                steps.push(Step::Fork(0, 0));
                compile(node, steps)?;
            }
            let end = steps.len();
            forks.into_iter().for_each(|at| steps[at] = Step::Fork(at + 1, end));
        }
    }
    (steps.len() <= STEPS_MAX).then_some(())
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    /// `i`: letters of ASCII match in either case.
    caseless: bool,
    /// `s`: `.` takes a newline too.
    dot_all: bool,
    /// `m`: `^` and `$` are at the ends of lines too.
    lines: bool,
}

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
    flags: Flags,
}

const DIGITS: &[(char, char)] = &[('0', '9')];
const WORDS: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
const SPACES: &[(char, char)] = &[('\t', '\r'), (' ', ' ')];
const CLASSES: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("digit", DIGITS),
    ("lower", &[('a', 'z')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", SPACES),
    ("upper", &[('A', 'Z')]),
    ("word", WORDS),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn either(&mut self) -> Result<Node, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err((self.at, "nested too deeply"));
        }
        let mut nodes = vec![self.concat()?];
        while self.eat('|') {
            nodes.push(self.concat()?);
        }
        self.depth -= 1;
        Ok(Node::Either(nodes))
    }

    fn concat(&mut self) -> Result<Node, Wrong> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            let start = self.at;
            self.at += 1;
            let node = match c {
                '(' => match self.group(start)? {
                    Some(node) => node,
                    None => continue,
                },
                '[' => self.class(start)?,
                '.' if self.flags.dot_all => Node::Set(vec![('\0', char::MAX)]),
                '.' => Node::Set(opposite(&[('\n', '\n')])),
                '^' => Node::Look(if self.flags.lines { Look::LineStart } else { Look::TextStart }),
                '$' => Node::Look(if self.flags.lines { Look::LineEnd } else { Look::TextEnd }),
                '*' | '+' | '?' | '{' => return Err((start, "nothing before it to repeat")),
                '\\' => match self.peek() {
                    Some('b') => self.look(Look::WordEdge(true)),
                    Some('B') => self.look(Look::WordEdge(false)),
                    Some('A') => self.look(Look::TextStart),
                    Some('z') => self.look(Look::TextEnd),
                    _ => Node::Set(self.escape()?),
                },
                c => Node::Set(vec![(c, c)]),
            };
            let node = match node {
                Node::Set(ranges) if self.flags.caseless => Node::Set(caseless(ranges)),
                node => node,
            };
            let node = self.repeated(node)?;
            nodes.push(node);
        }
        Ok(Node::Concat(nodes))
    }

    fn look(&mut self, look: Look) -> Node {
        self.at += 1;
        Node::Look(look)
    }

    /// What follows a `(`; nothing where only flags are set.
    fn group(&mut self, start: usize) -> Result<Option<Node>, Wrong> {
        let outside = self.flags;
        if self.eat('?') {
            if self.eat('P') && self.peek() != Some('<') {
                return Err((self.at, "no name of a group"));
            }
            if self.eat('<') {
                let name = self.at;
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
                if self.at == name || !self.eat('>') {
                    return Err((name, "no name of a group: there is no look-around"));
                }
            } else {
                let mut on = true;
                loop {
                    let at = self.at;
                    self.at += 1;
                    match self.text.get(at) {
                        Some('i') => self.flags.caseless = on,
                        Some('s') => self.flags.dot_all = on,
                        Some('m') => self.flags.lines = on,
                        // Laziness does not change whether something is found.
                        Some('U') => {}
                        Some('-') if on => on = false,
                        Some(':') => break,
                        // For the rest of the group that this stands in.
                        Some(')') if at > start + 2 => return Ok(None),
                        _ => return Err((at, "no flag: there are i, s, m and U, and no look-around")),
                    }
                }
            }
        }
        let node = self.either()?;
        if !self.eat(')') {
            return Err((start, "a `(` without its `)`"));
        }
        self.flags = outside;
        Ok(Some(node))
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node, Wrong> {
        let mut levels = 0;
        loop {
            let start = self.at;
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    self.at += 1;
                    let least = self.number(start)?;
                    let most = match self.eat(',') {
                        false => Some(least),
                        true if self.peek() == Some('}') => None,
                        true => Some(self.number(start)?),
                    };
                    if self.peek() != Some('}') || most.is_some_and(|most| most < least) {
                        return Err((start, "no repetition such as `{2}`, `{2,}` or `{2,5}`"));
                    }
                    (least, most)
                }
                _ => return Ok(node),
            };
            self.at += 1;
            self.eat('?');
            // Towers of repetitions would make the tree as deep as the text is long.
            levels += 1;
            if self.depth + levels > DEPTH_MAX {
                return Err((start, "nested too deeply"));
            }
            node = Node::Repeat(Box::new(node), least, most);
        }
    }

    fn number(&mut self, start: usize) -> Result<u32, Wrong> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some((number.unwrap_or(0) * 10 + digit).min(STEPS_MAX as u32));
        }
        number.ok_or((start, "no repetition such as `{2}`, `{2,}` or `{2,5}`"))
    }

    /// What follows a `[`.
    fn class(&mut self, start: usize) -> Result<Node, Wrong> {
        let negated = self.eat('^');
        let mut ranges = Ranges::new();
        let first = self.at;
        loop {
            let at = self.at;
            let Some(c) = self.peek() else { return Err((start, "a `[` without its `]`")) };
            self.at += 1;
            if c == ']' && at > first {
                break;
            }
            if c == '[' && self.peek() == Some(':') {
                ranges.extend(self.posix(at)?);
                continue;
            }
            if c == '[' || (c == '&' && self.peek() == Some('&')) {
                return Err((at, "no classes inside of classes: write a backslash before it"));
            }
            let low = if c == '\\' { self.escape()? } else { vec![(c, c)] };
            let &[(low, one)] = low.as_slice() else {
                ranges.extend(low);
                continue;
            };
            let is_range = one == low
                && self.peek() == Some('-')
                && self.text.get(self.at + 1).is_some_and(|&next| next != ']' && next != '-');
            if !is_range {
                ranges.push((low, one));
                continue;
            }
            self.at += 1;
            let c = self.text[self.at];
            self.at += 1;
            let high = if c == '\\' { self.escape()? } else { vec![(c, c)] };
            match high.as_slice() {
                &[(high, last)] if high == last && low <= high => ranges.push((low, high)),
                _ => return Err((at, "a range of characters that does not ascend")),
            }
        }
        if self.flags.caseless {
            ranges = caseless(ranges);
        }
        Ok(Node::Set(if negated { opposite(&joined(ranges)) } else { joined(ranges) }))
    }

    /// `[:name:]` in a class, from its colon.
    fn posix(&mut self, start: usize) -> Result<Ranges, Wrong> {
        self.at += 1;
        let negated = self.eat('^');
        let rest: String = self.text[self.at..].iter().take(10).collect();
        let found = CLASSES.iter().find(|(name, _)| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(":]")));
        let Some((name, ranges)) = found else { return Err((start, "no such class of characters")) };
        self.at += name.len() + 2;
        Ok(if negated { opposite(ranges) } else { ranges.to_vec() })
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<Ranges, Wrong> {
        let at = self.at;
        let Some(c) = self.peek() else { return Err((at.saturating_sub(1), "a backslash at the end")) };
        self.at += 1;
        let one = match c {
            'd' => return Ok(DIGITS.to_vec()),
            'D' => return Ok(opposite(DIGITS)),
            'w' => return Ok(WORDS.to_vec()),
            'W' => return Ok(opposite(WORDS)),
            's' => return Ok(SPACES.to_vec()),
            'S' => return Ok(opposite(SPACES)),
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' | 'u' | 'U' => {
                let digits: String = if self.eat('{') {
                    let digits = self.text[self.at..].iter().take_while(|c| c.is_ascii_hexdigit()).take(9).collect();
                    self.at += String::len(&digits) + 1;
                    digits
                } else {
                    let count = if c == 'x' {
                        2
                    } else if c == 'u' {
                        4
                    } else {
                        8
                    };
                    let digits: String = self.text[self.at..].iter().take(count).collect();
                    self.at += digits.chars().count();
                    digits
                };
                let closed = self.text.get(at + 1) != Some(&'{') || self.text.get(self.at - 1) == Some(&'}');
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| closed);
                code.and_then(char::from_u32).ok_or((at, "no character of that number"))?
            }
            c if c.is_ascii_alphanumeric() || c == '<' || c == '>' || !c.is_ascii() => {
                return Err((at, "no such escape: there are no back references and no classes of Unicode"));
            }
            c => c,
        };
        Ok(vec![(one, one)])
    }
}

/// Ascending, and those that touch as one.
fn joined(mut ranges: Ranges) -> Ranges {
    sort_by(&mut ranges, Ord::cmp);
    let mut out = Ranges::new();
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out
}

/// All characters but these, which ascend.
fn opposite(ranges: &[(char, char)]) -> Ranges {
    let mut out = Ranges::new();
    let mut from = '\0';
    for &(first, last) in ranges {
        if from < first {
            // The numbers below 0xE000 and from 0xD800 on are no characters.
            let before =
                if first == '\u{e000}' { '\u{d7ff}' } else { char::from_u32(u32::from(first) - 1).unwrap_or(from) };
            out.push((from, before));
        }
        if last == char::MAX {
            return out;
        }
        from = if last == '\u{d7ff}' { '\u{e000}' } else { char::from_u32(u32::from(last) + 1).unwrap_or(char::MAX) };
    }
    out.push((from, char::MAX));
    out
}

/// With the other case of every letter of ASCII.
fn caseless(mut ranges: Ranges) -> Ranges {
    for (first, last) in ranges.clone() {
        for (from, to, other) in [('a', 'z', b'A'), ('A', 'Z', b'a')] {
            let (low, high) = (first.max(from), last.min(to));
            if low <= high {
                let turned = |c: char| char::from(c as u8 - from as u8 + other);
                ranges.push((turned(low), turned(high)));
            }
        }
    }
    joined(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Regex::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn is_found_anywhere() {
        for (pattern, yes, no) in [
            ("", "", None),
            ("rain", "brainy", Some("ran")),
            ("^rain$", "rain", Some("rainy")),
            (r"\bcat\b", "a cat!", Some("concat")),
            ("[a-c]+x", "zzabcx", Some("dx")),
            ("[^a-z]", "A", Some("abc")),
            ("(?i)straße", "STRAßE", Some("STRASSE")),
            ("a{2,3}b", "aab", Some("ab")),
            ("^(ab|c)*$", "abcab", Some("abcb")),
            ("^a.c$", "aéc", Some("a\nc")),
            ("(?s)^a.c$", "a\nc", Some("ac")),
            ("(?m)^b$", "a\nb\nc", Some("abc")),
            (r"\d{4}-\d\d", "on 2024-05", Some("24-05")),
            (r"[\w.]+@[\w-]+\.com", "x.y@z-1.com", Some("@.com")),
            (r"\x41\u{1F600}", "A😀", Some("A")),
            ("[[:upper:]]", "aB", Some("ab")),
            ("[]a]", "]", Some("b")),
            ("[a-]", "-", Some("b")),
            ("(?P<name>x)|(?<other>y)|(?:z)", "y", Some("w")),
            ("(a*)*b", "aaab", Some("aaa")),
            ("(?i:A)b", "ab", Some("aB")),
        ] {
            assert!(matches(pattern, yes), "{pattern} in {yes}");
            assert!(no.is_none_or(|no| !matches(pattern, no)), "{pattern} in {no:?}");
        }
    }

    #[test]
    fn tells_what_is_wrong_and_where() {
        for (pattern, at) in [
            ("a(b", 1),
            ("a)", 1),
            ("[ab", 0),
            ("*a", 0),
            ("a|+", 2),
            ("a{3,2}", 1),
            ("a{x}", 1),
            (r"(a)\1", 4),
            ("(?=a)", 2),
            ("(?<=a)", 3),
            (r"\pL", 1),
            ("[z-a]", 1),
            ("[[:nothing:]]", 1),
            ("a\\", 1),
            (r"\x{110000}", 1),
        ] {
            assert_eq!(Regex::new(pattern).unwrap_err().0, at, "{pattern}");
        }
        assert!(matches("^((){9999}){9999}a$", "a"));
        assert!(Regex::new("(((a{100}){100}){100})").unwrap_err().1.contains("too large"));
        assert!(Regex::new(&"(".repeat(100_000)).unwrap_err().1.contains("too deeply"));
        assert!(Regex::new(&format!("a{}", "*".repeat(100_000))).unwrap_err().1.contains("too deeply"));
    }

    /// A backtracking matcher would need longer than the sun lasts.
    #[test]
    fn takes_no_longer_for_wicked_patterns() {
        assert!(!matches("^(a|aa)+$", &format!("{}b", "a".repeat(5_000))));
        assert!(!matches("(x+x+)+y", &"x".repeat(5_000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_another_engine(
            pattern in r"([abcé]|\.|\||\(|\)|\*|\+|\?|\{1,2\}|\{2\}|\[ab\]|\[\^a\]|\[b-é\]|\^|\$|\\b|\\B|\\w|\\W|\\d|\\s|\(\?i\)|\(\?:|A| |\n|1){0,9}",
            texts in prop::collection::vec("[abcé A1\n_]{0,8}", 4),
        ) {
            let ours = Regex::new(&pattern);
            match regex_lite::Regex::new(&pattern) {
                // It repeats flags.
                Ok(_) if ours.is_err() && pattern.contains("(?i)") => {}
                Ok(theirs) => {
                    let ours = ours.map_err(|wrong| TestCaseError::fail(format!("{pattern:?}: {wrong:?}")))?;
                    for text in &texts {
                        prop_assert_eq!(ours.matches(text), theirs.is_match(text), "{:?} in {:?}", pattern, text);
                    }
                }
                Err(_) => prop_assert!(ours.is_err() || pattern.contains("(?i)"), "{pattern:?}"),
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(pattern in r"\PC*|[a-c\[\](){}^$.|*+?\\:<>=!,0-9-]{0,30}") {
            if let Err((at, _)) = Regex::new(&pattern) {
                prop_assert!(at <= pattern.chars().count());
            }
        }
    }
}
