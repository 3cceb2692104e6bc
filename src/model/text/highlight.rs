use std::ops::Range;

use super::Analyzer;
use crate::base::sort_by_key;

/// How matches are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks<'a> {
    /// What stands before a word that matches, and behind it.
    pub tags: (&'a str, &'a str),
    /// About how many bytes of text a fragment has.
    pub size: usize,
    /// How many fragments there are at most; the whole text with 0.
    pub count: usize,
}

/// The parts of `text` with most different terms that `asks_for` wants, in their order, with marks around the words that these were
/// made of; nothing where there is none. The text stays as it is: where it is to be HTML, it must be by itself.
pub fn highlight(analyzer: &Analyzer, text: &str, asks_for: &dyn Fn(&str) -> bool, marks: &Marks<'_>) -> Vec<String> {
    // All words, so that no fragment begins or ends within one, and which term they match.
    let mut words: Vec<(Range<usize>, Option<usize>)> = Vec::new();
    let mut terms: Vec<String> = Vec::new();
    analyzer.analyze(text, &mut |token| {
        let term = asks_for(token.term).then(|| {
            terms.iter().position(|term| term == token.term).unwrap_or_else(|| {
                terms.push(token.term.to_owned());
                terms.len() - 1
            })
        });
        words.push((token.range, term));
    });
    if terms.is_empty() {
        return Vec::new();
    }
    if marks.count == 0 {
        return vec![marked(text, 0..text.len(), &words, marks)];
    }
    // From each word that matches and is in no fragment yet, with a little of what comes before.
    let mut fragments: Vec<((usize, usize), Range<usize>)> = Vec::new();
    let mut end = 0;
    for at in 0..words.len() {
        let (word, Some(_)) = &words[at] else { continue };
        if word.start < end {
            continue;
        }
        let earliest = word.start.saturating_sub(marks.size / 4).max(end);
        let from = words[..=at].partition_point(|(word, _)| word.start < earliest);
        let start = words[from.min(at)].0.start;
        let until = words[at..].iter().take_while(|(word, _)| word.end <= start + marks.size).last();
        end = until.map_or(word.end, |(last, _)| last.end).max(word.end);
        let mut found: Vec<usize> =
            words[at..].iter().filter(|(word, _)| word.end <= end).filter_map(|(_, term)| *term).collect();
        let all = found.len();
        found.sort_unstable();
        found.dedup();
        // Different terms first, then how often there is one.
        fragments.push(((found.len(), all), start..end));
    }
    sort_by_key(&mut fragments, |(score, _)| std::cmp::Reverse(*score));
    fragments.truncate(marks.count);
    sort_by_key(&mut fragments, |(_, fragment)| fragment.start);
    fragments.into_iter().map(|(_, fragment)| marked(text, fragment, &words, marks)).collect()
}

/// A part of a text with marks in it; words that overlap are marked as one.
fn marked(text: &str, part: Range<usize>, words: &[(Range<usize>, Option<usize>)], marks: &Marks<'_>) -> String {
    let mut out = String::new();
    let mut written = part.start;
    let mut open: Option<Range<usize>> = None;
    let mut close = |word: Range<usize>, written: &mut usize| {
        out.push_str(&text[*written..word.start]);
        out.push_str(marks.tags.0);
        out.push_str(&text[word.clone()]);
        out.push_str(marks.tags.1);
        *written = word.end;
    };
    let inside = words.iter().filter(|(word, term)| term.is_some() && word.start >= part.start && word.end <= part.end);
    for (word, _) in inside {
        open = match open.take() {
            Some(before) if word.start < before.end => Some(before.start..word.end.max(before.end)),
            Some(before) => {
                close(before, &mut written);
                Some(word.clone())
            }
            None => Some(word.clone()),
        };
    }
    if let Some(word) = open {
        close(word, &mut written);
    }
    out.push_str(&text[written..part.end]);
    out
}
