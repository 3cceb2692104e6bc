use std::cmp::Ordering;
use std::fmt;

use hashbrown::HashSet;
use serde_json::Value as Json;

use super::expression::{write_json, write_text};
use super::number::Number;
use crate::base::sort_by;

/// Below this many integers, comparing with each is faster than hashing.
const SCANNED_MAX: usize = 8;

/// The values of an `in` list, by type. A number that an `i64` can hold is one of `ints`, however it was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Set {
    bools: [bool; 2],
    /// Ascending, without repetition; so are `floats` and `texts`.
    ints: Vec<i64>,
    ints_hashed: HashSet<i64>,
    floats: Vec<f64>,
    texts: Vec<String>,
    texts_hashed: HashSet<String>,
    lists: Vec<Json>,
}

impl Set {
    /// Of booleans, numbers, strings and lists; other JSON is not asked for.
    pub(super) fn new(values: impl IntoIterator<Item = Json>) -> Self {
        let mut set = Self::default();
        for value in values {
            match value {
                Json::Bool(value) => set.bools[usize::from(value)] = true,
                Json::Number(number) => {
                    let number = Number::of_json(&number);
                    match number.as_int() {
                        Some(int) => set.ints.push(int),
                        None => set.floats.push(number.as_f64()),
                    }
                }
                Json::String(text) => set.texts.push(text),
                other => set.lists.push(other),
            }
        }
        sort_by(&mut set.ints, Ord::cmp);
        set.ints.dedup();
        sort_by(&mut set.floats, f64::total_cmp);
        set.floats.dedup();
        sort_by(&mut set.texts, Ord::cmp);
        set.texts.dedup();
        if set.ints.len() > SCANNED_MAX {
            set.ints_hashed = set.ints.iter().copied().collect();
        }
        if set.texts.len() > SCANNED_MAX {
            set.texts_hashed = set.texts.iter().cloned().collect();
        }
        set
    }

    /// Its values; `None` when lists are among them.
    pub(super) fn scalars(&self) -> Option<impl Iterator<Item = Json>> {
        let bools = [false, true].into_iter().filter(|&value| self.contains_bool(value)).map(Json::from);
        let floats = self.floats.iter().map(|&float| Json::from(float));
        let numbers = self.ints.iter().map(|&int| Json::from(int)).chain(floats);
        let texts = self.texts.iter().map(|text| Json::from(text.as_str()));
        self.lists.is_empty().then(|| bools.chain(numbers).chain(texts))
    }

    pub(super) fn ints(&self) -> &[i64] {
        &self.ints
    }

    /// The only integers to compare with, when there are few.
    pub(super) fn few_ints(&self) -> Option<&[i64]> {
        (self.ints.len() <= SCANNED_MAX).then_some(&self.ints)
    }

    #[inline]
    pub(super) fn contains_int(&self, int: i64) -> bool {
        if self.ints.len() <= SCANNED_MAX { self.ints.contains(&int) } else { self.ints_hashed.contains(&int) }
    }

    pub(super) fn contains_number(&self, number: Number) -> bool {
        match number.as_int() {
            Some(int) => self.contains_int(int),
            None => self
                .floats
                .binary_search_by(|&float| Number::Float(float).compare(number).unwrap_or(Ordering::Less))
                .is_ok(),
        }
    }

    pub(super) fn contains_text(&self, text: &str) -> bool {
        if self.texts.len() <= SCANNED_MAX {
            self.texts.iter().any(|candidate| candidate == text)
        } else {
            self.texts_hashed.contains(text)
        }
    }

    pub(super) fn contains_bool(&self, value: bool) -> bool {
        self.bools[usize::from(value)]
    }

    pub(super) fn contains_list(&self, list: &Json) -> bool {
        self.lists.iter().any(|candidate| same_json(candidate, list))
    }

    pub(super) fn has_bools(&self) -> bool {
        self.bools != [false; 2]
    }

    pub(super) fn has_numbers(&self) -> bool {
        !self.ints.is_empty() || !self.floats.is_empty()
    }

    /// Whether one of its numbers lies between these two, them included.
    pub(super) fn has_number_in(&self, least: Number, most: Number) -> bool {
        let before = |number: Number| least.compare(number) == Some(Ordering::Greater);
        let int =
            self.ints.get(self.ints.partition_point(|&int| before(Number::Int(int)))).map(|&int| Number::Int(int));
        let float = self.floats.get(self.floats.partition_point(|&float| before(Number::Float(float))));
        let float = float.map(|&float| Number::Float(float));
        int.into_iter().chain(float).any(|number| most.compare(number) != Some(Ordering::Less))
    }

    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(super) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    pub(super) fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }
}

/// Whether two JSON values are equal, numbers by their exact value.
pub(super) fn same_json(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            Number::of_json(left).compare(Number::of_json(right)) == Some(Ordering::Equal)
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_json(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same_json(left, right)))
        }
        (left, right) => left == right,
    }
}

impl fmt::Display for Set {
    /// As a list literal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut next = |f: &mut fmt::Formatter<'_>| f.write_str(std::mem::replace(&mut separator, ", "));
        f.write_str("[")?;
        for value in [false, true] {
            if self.contains_bool(value) {
                next(f)?;
                write!(f, "{value}")?;
            }
        }
        for int in &self.ints {
            next(f)?;
            write!(f, "{int}")?;
        }
        for float in &self.floats {
            next(f)?;
            write!(f, "{float:?}")?;
        }
        for text in &self.texts {
            next(f)?;
            write_text(f, text)?;
        }
        for list in &self.lists {
            next(f)?;
            write_json(f, list)?;
        }
        f.write_str("]")
    }
}
