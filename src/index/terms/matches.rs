use std::ops::Bound;
use std::sync::Arc;

use super::Source;
use super::fuzzy::is_near;
use super::list::{Cursor, END};
use crate::base::{RowMask, sort_by};
use crate::model::text::Analyzer;

/// How the terms of a query must be in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// At least so many different ones of them.
    Any {
        /// 1 or more.
        least: usize,
    },
    /// All of them in their order, with at most so many other words between them, besides those that are between them in the query.
    Phrase {
        /// 0 for none.
        slop: u32,
    },
    /// At least one of them, or a term that becomes it by so many insertions, deletions and replacements of a character.
    Fuzzy {
        /// 0 to 2.
        distance: u8,
    },
}

/// What `text_match`, `phrase_match` and `text_match_fuzzy` ask of a text.
#[derive(Debug, Clone)]
pub struct TextMatch {
    text: String,
    matching: Matching,
    analyzer: Arc<Analyzer>,
    /// Of a phrase in their order; else sorted, and each once.
    terms: Vec<(String, u32)>,
}

impl PartialEq for TextMatch {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.matching == other.matching && self.analyzer == other.analyzer
    }
}

impl TextMatch {
    /// What `text`, as the analyzer of the field reads it, asks.
    pub fn new(analyzer: Arc<Analyzer>, text: &str, matching: Matching) -> Self {
        let mut terms = analyzer.terms(text);
        if !matches!(matching, Matching::Phrase { .. }) {
            sort_by(&mut terms, Ord::cmp);
            terms.dedup_by(|(after, _), (before, _)| after == before);
        }
        Self { text: text.to_owned(), matching, analyzer, terms }
    }

    /// As it was asked.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How its terms must be there.
    pub fn matching(&self) -> Matching {
        self.matching
    }

    /// Whether the text of a row does. A query without terms matches nothing.
    pub fn matches(&self, text: &str) -> bool {
        match self.matching {
            Matching::Any { least } => {
                let mut found = vec![false; self.terms.len()];
                self.analyzer.analyze(text, &mut |token| {
                    if let Ok(at) = self.terms.binary_search_by(|(term, _)| term.as_str().cmp(token.term)) {
                        found[at] = true;
                    }
                });
                found.iter().filter(|found| **found).count() >= least
            }
            Matching::Fuzzy { distance } => {
                let mut found = false;
                let near =
                    |term: &str| self.terms.iter().any(|(wanted, _)| is_near(wanted, term, usize::from(distance)));
                self.analyzer.analyze(text, &mut |token| found = found || near(token.term));
                found
            }
            Matching::Phrase { slop } => {
                let mut positions = vec![Vec::new(); self.terms.len()];
                self.analyzer.analyze(text, &mut |token| {
                    for ((term, _), positions) in self.terms.iter().zip(&mut positions) {
                        if term == token.term {
                            positions.push(token.position);
                        }
                    }
                });
                self.has_phrase(&positions, slop)
            }
        }
    }

    /// Whether there is a place for each term, in order, with no more than `slop` places between them that the query does not have.
    fn has_phrase(&self, positions: &[Vec<u32>], slop: u32) -> bool {
        let Some(first) = positions.first() else { return false };
        // The places nearest behind one another are the best for each first one.
        first.iter().any(|&start| {
            let (mut at, mut extra) = (start, 0);
            for (places, terms) in positions[1..].iter().zip(self.terms.windows(2)) {
                let least = at.saturating_add(terms[1].1 - terms[0].1);
                let Some(&place) = places.get(places.partition_point(|&place| place < least)) else { return false };
                extra += place - least;
                at = place;
            }
            extra <= slop
        })
    }

    /// The rows whose text does, by their index.
    pub fn rows(&self, source: Source<'_>) -> RowMask {
        let mut mask = RowMask::none(source.rows());
        match self.matching {
            Matching::Any { least: 0 | 1 } => {
                for list in self.terms.iter().filter_map(|(term, _)| source.list(term.as_bytes())) {
                    list.union_into(&mut mask);
                }
            }
            Matching::Any { least } => {
                let mut counts = vec![0; source.rows()];
                for list in self.terms.iter().filter_map(|(term, _)| source.list(term.as_bytes())) {
                    let mut cursor = Cursor::new(list);
                    while cursor.row() != END {
                        let count = &mut counts[cursor.row() as usize];
                        *count += 1;
                        if *count >= least {
                            mask.insert(cursor.row() as usize);
                        }
                        cursor.advance();
                    }
                }
            }
            Matching::Fuzzy { distance } => {
                let near = |key: &[u8]| {
                    let key = std::str::from_utf8(key).unwrap_or_default();
                    self.terms.iter().any(|(term, _)| is_near(term, key, usize::from(distance)))
                };
                if !self.terms.is_empty() {
                    mask = source.between(Bound::Unbounded, Bound::Unbounded, &near);
                }
            }
            Matching::Phrase { slop } => {
                let lists: Option<Vec<_>> = self.terms.iter().map(|(term, _)| source.list(term.as_bytes())).collect();
                let Some(lists) = lists else { return mask };
                let mut cursors: Vec<Cursor<'_>> = lists.into_iter().map(Cursor::new).collect();
                let mut positions = vec![Vec::new(); cursors.len()];
                let mut row = 0;
                while !cursors.is_empty() {
                    // A row that all have: each goes to the furthest that another is at.
                    let mut all = true;
                    for cursor in &mut cursors {
                        cursor.seek(row);
                        all &= cursor.row() == row;
                        row = cursor.row();
                        if row == END {
                            return mask;
                        }
                    }
                    if all {
                        cursors.iter().zip(&mut positions).for_each(|(cursor, positions)| cursor.positions(positions));
                        if self.has_phrase(&positions, slop) {
                            mask.insert(row as usize);
                        }
                        row += 1;
                    }
                }
            }
        }
        mask
    }

    /// Whether a term of a text is one that was asked for.
    pub fn asks_for(&self, term: &str) -> bool {
        match self.matching {
            Matching::Fuzzy { distance } => {
                self.terms.iter().any(|(wanted, _)| is_near(wanted, term, usize::from(distance)))
            }
            _ => self.terms.iter().any(|(wanted, _)| wanted == term),
        }
    }
}
