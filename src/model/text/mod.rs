//! From text to terms: what a full-text index holds, and what a query asks it for.
//!
//! An [`Analyzer`] is a tokenizer and filters after it. The same one runs over the rows of a field and over the queries to it, on
//! every target with the same result: no locale and no table that a target brings along, but for the properties of characters that
//! the standard library knows. Deliberately absent: which rows have a term, and how well they match.

mod fold;
mod highlight;
mod stemmer;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::ops::Range;

pub use highlight::{Marks, highlight};

use serde_json::Value as Json;
use tokenizer::Tokenizer;

use super::schema::names;
use crate::base::sort_by;

/// Bytes of a term; of a longer token only as many count, up to the end of a character.
pub const TERM_BYTES_MAX: usize = 255;
/// Stop words that an analyzer names, and bytes of what describes it.
const STOP_WORDS_MAX: usize = 10_000;

/// The stop words of `english`: those of Lucene and of Milvus.
const STOP_WORDS: &str = "a an and are as at be but by for if in into is it no not of on or such that the their then there these \
                          they this to was will with";

/// How a field's text becomes terms.
///
/// As JSON it is a name, `"standard"`, `"english"`, `"whitespace"` or `"cjk"`; the same as `{"type": "english", "stop_words":
/// ["etc"]}`, whose stop words are left out besides; or `{"tokenizer": "standard", "filter": ["lowercase", "asciifolding",
/// {"type": "stop", "stop_words": ["_english_", "etc"]}, {"type": "stemmer", "language": "english"}, {"type": "length", "min": 2,
/// "max": 40}]}`, whose filters are applied in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Analyzer {
    /// As it was told.
    json: Json,
    tokenizer: Tokenizer,
    filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq)]
enum Filter {
    Lowercase,
    AsciiFolding,
    /// Sorted.
    Stop(Vec<String>),
    Stemmer,
    /// In characters.
    Length(usize, usize),
}

/// A term at its place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What is indexed.
    pub term: &'a str,
    /// The how-manyeth word it is, from 0; words that are left out count.
    pub position: u32,
    /// The bytes of the text that it was made of.
    pub range: Range<usize>,
}

impl Analyzer {
    /// The analyzer of a field for which only `enableAnalyzer` is said: words as Unicode separates them, in lower case.
    pub fn standard() -> Self {
        Self { json: Json::from("standard"), tokenizer: Tokenizer::Standard, filters: vec![Filter::Lowercase] }
    }

    /// The analyzer that `json` describes.
    ///
    /// # Errors
    /// What was found, what was expected, and where in it.
    pub fn from_json(json: Json) -> Result<Self, String> {
        let (tokenizer, filters) = match &json {
            Json::String(name) => built_in(name)?,
            Json::Object(map) => {
                let parts = Parts { map, what: "analyzer" };
                match map.get("type") {
                    Some(_) => {
                        parts.only(&["type", "stop_words"])?;
                        let (tokenizer, mut filters) = built_in(parts.text("type")?)?;
                        if map.contains_key("stop_words") {
                            // Stop words are compared before they are stemmed.
                            let at = filters.iter().position(|filter| *filter == Filter::Stemmer);
                            filters.insert(at.unwrap_or(filters.len()), parts.stop_words()?);
                        }
                        (tokenizer, filters)
                    }
                    None => {
                        parts.only(&["tokenizer", "filter"])?;
                        let tokenizer = Tokenizer::named(parts.text("tokenizer")?)?;
                        let filters = match map.get("filter") {
                            None => Vec::new(),
                            Some(Json::Array(filters)) => {
                                let all = filters.iter().enumerate();
                                let filter = |(at, json)| filter(json).map_err(|what| format!("filter {at}: {what}"));
                                all.map(filter).collect::<Result<_, _>>()?
                            }
                            Some(other) => return Err(format!("filter is {other}, but must be a list")),
                        };
                        (tokenizer, filters)
                    }
                }
            }
            other => return Err(format!("found {other}, expected the name of an analyzer or its parts")),
        };
        Ok(Self { json, tokenizer, filters })
    }

    /// As it was told.
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// Calls `each` with the terms of `text` in their order.
    pub fn analyze(&self, text: &str, each: &mut dyn FnMut(Token<'_>)) {
        let mut term = String::new();
        let mut position = 0;
        self.tokenizer.split(text, &mut |range| {
            term.clear();
            term.push_str(&text[range.clone()]);
            let here = position;
            position += 1;
            if self.filters.iter().all(|filter| filter.apply(&mut term)) && !term.is_empty() {
                let mut end = TERM_BYTES_MAX.min(term.len());
                while !term.is_char_boundary(end) {
                    end -= 1;
                }
                each(Token { term: &term[..end], position: here, range });
            }
        });
    }

    /// The terms of a query with their positions, in order.
    pub fn terms(&self, text: &str) -> Vec<(String, u32)> {
        let mut terms = Vec::new();
        self.analyze(text, &mut |token| terms.push((token.term.to_owned(), token.position)));
        terms
    }
}

impl Filter {
    /// Changes a term; false for one that is left out.
    fn apply(&self, term: &mut String) -> bool {
        match self {
            Self::Lowercase => {
                if term.is_ascii() {
                    term.make_ascii_lowercase();
                } else {
                    // Without the rule for a sigma at the end, which would need to know what a word is.
                    *term = term.chars().flat_map(char::to_lowercase).collect();
                }
            }
            Self::AsciiFolding => fold::fold(term),
            Self::Stop(words) => return words.binary_search(term).is_err(),
            Self::Stemmer => stemmer::stem(term),
            Self::Length(min, max) => return (*min..=*max).contains(&term.chars().count()),
        }
        true
    }
}

/// The parts of an object, whose name is for messages.
struct Parts<'a> {
    map: &'a serde_json::Map<String, Json>,
    what: &'static str,
}

impl<'a> Parts<'a> {
    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(format!("found {key:?} in the {}, expected {}", self.what, names(known.iter().copied()))),
            None => Ok(()),
        }
    }

    fn text(&self, key: &str) -> Result<&'a str, String> {
        let value = self.map.get(key);
        value.and_then(Json::as_str).ok_or_else(|| match value {
            Some(other) => format!("{key} is {other}, but must be a text"),
            None => format!("the {} needs its {key}", self.what),
        })
    }

    fn count(&self, key: &str, usual: usize) -> Result<usize, String> {
        match self.map.get(key) {
            None => Ok(usual),
            Some(value) => value
                .as_u64()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| format!("{key} is {value}, but must be a whole number")),
        }
    }

    fn stop_words(&self) -> Result<Filter, String> {
        let wrong = || "stop_words must be a list of texts".to_owned();
        let listed = self.map.get("stop_words").and_then(Json::as_array).ok_or_else(wrong)?;
        if listed.len() > STOP_WORDS_MAX {
            return Err(format!("{} stop_words, but {STOP_WORDS_MAX} is the most", listed.len()));
        }
        let mut words = Vec::new();
        for word in listed {
            match word.as_str().ok_or_else(wrong)? {
                "_english_" => words.extend(STOP_WORDS.split(' ').map(str::to_owned)),
                word => words.push(word.to_owned()),
            }
        }
        sort_by(&mut words, Ord::cmp);
        words.dedup();
        Ok(Filter::Stop(words))
    }
}

fn english_stop() -> Filter {
    Filter::Stop(STOP_WORDS.split(' ').map(str::to_owned).collect())
}

fn built_in(name: &str) -> Result<(Tokenizer, Vec<Filter>), String> {
    Ok(match name {
        "standard" => (Tokenizer::Standard, vec![Filter::Lowercase]),
        "english" => (Tokenizer::Standard, vec![Filter::Lowercase, english_stop(), Filter::Stemmer]),
        "whitespace" => (Tokenizer::Whitespace, Vec::new()),
        "cjk" => (Tokenizer::Cjk, vec![Filter::Lowercase]),
        other => {
            let known = names(["standard", "english", "whitespace", "cjk"].into_iter());
            return Err(format!("found analyzer {other:?}, expected {known}"));
        }
    })
}

fn filter(json: &Json) -> Result<Filter, String> {
    let map = match json {
        Json::String(_) => None,
        Json::Object(map) => Some(Parts { map, what: "filter" }),
        other => return Err(format!("found {other}, expected a name or an object")),
    };
    let name = match (&map, json.as_str()) {
        (Some(parts), _) => parts.text("type")?,
        (None, name) => name.unwrap_or_default(),
    };
    let only = |known: &[&str]| map.as_ref().map_or(Ok(()), |parts| parts.only(known));
    match (name, &map) {
        ("lowercase", _) => only(&["type"]).map(|()| Filter::Lowercase),
        ("asciifolding", _) => only(&["type"]).map(|()| Filter::AsciiFolding),
        ("stop", None) => Ok(english_stop()),
        ("stop", Some(parts)) => {
            parts.only(&["type", "stop_words"])?;
            parts.stop_words()
        }
        ("stemmer", _) => {
            only(&["type", "language"])?;
            match map.as_ref().map_or(Ok("english"), |parts| parts.text("language"))? {
                "english" => Ok(Filter::Stemmer),
                other => Err(format!("language {other:?}, but there is a stemmer of \"english\" only")),
            }
        }
        ("length", Some(parts)) => {
            parts.only(&["type", "min", "max"])?;
            Ok(Filter::Length(parts.count("min", 0)?, parts.count("max", usize::MAX)?))
        }
        ("length", None) => Err("the filter \"length\" needs its min or max".to_owned()),
        (other, _) => {
            let known = names(["lowercase", "asciifolding", "stop", "stemmer", "length"].into_iter());
            Err(format!("found {other:?}, expected {known}"))
        }
    }
}
