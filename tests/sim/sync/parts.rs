//! Which rows a store keeps, and may read: those whose text begins with some of three words.

use std::collections::BTreeMap;
use std::sync::Arc;

use eddydb::base::Result;
use eddydb::db::{Access, Action, Admitted, Gate, Grant, Shape};
use eddydb::platform::Task;
use tokio::sync::watch;

use super::COLLECTIONS;

pub const WORDS: [&str; 3] = ["red", "green", "blue"];
/// All of them.
pub const ALL: u8 = 7;
/// Tokens last so long.
const TOKEN_MS: u64 = 90_000;

/// Whether a text is in a part: a bit for each word.
pub fn admits(part: u8, text: &str) -> bool {
    WORDS.iter().enumerate().any(|(at, word)| part & 1 << at != 0 && text.starts_with(word))
}

fn filter(part: u8) -> String {
    let words = WORDS.iter().enumerate().filter(|(at, _)| part & 1 << at != 0);
    words.map(|(_, word)| format!("text like '{word}%'")).collect::<Vec<_>>().join(" or ")
}

pub fn shapes(part: u8) -> BTreeMap<String, Shape> {
    let shape = Shape { filter: Some(filter(part)), ..Shape::default() };
    let names = if part == ALL { &[][..] } else { &COLLECTIONS };
    names.iter().map(|name| ((*name).to_owned(), shape.clone())).collect()
}

/// What each may do who has a token, which is its number; who has none may do all.
///
/// All that was ever allowed, the last what is.
pub struct Rights(watch::Sender<(u64, BTreeMap<String, Vec<u8>>)>);

impl Rights {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new((1, BTreeMap::new()))))
    }

    /// Has a store read that part, and write; nothing at all without any word.
    pub fn allow(&self, at: usize, part: u8) {
        self.0.send_modify(|(version, parts)| {
            *version += 1;
            parts.entry(at.to_string()).or_insert_with(|| vec![ALL]).push(part);
        });
    }

    pub fn of(&self, at: usize) -> u8 {
        self.since(at, 0).last().copied().unwrap_or(ALL)
    }

    /// All that was allowed since so many changes.
    pub fn since(&self, at: usize, changes: usize) -> Vec<u8> {
        self.0.borrow().1.get(&at.to_string()).map_or_else(|| vec![ALL], |parts| parts[changes..].to_vec())
    }

    /// How often what is allowed has changed.
    pub fn changes(&self, at: usize) -> usize {
        self.since(at, 0).len() - 1
    }
}

impl Gate for Rights {
    fn admit(&self, token: Option<&str>, now_ms: u64) -> Result<Admitted> {
        let Some(token) = token else { return Ok(Admitted::default()) };
        let part = self.of(token.parse().expect("the number of a store"));
        let grant = |action, filter| Grant {
            collections: COLLECTIONS.map(str::to_owned).to_vec(),
            actions: vec![action],
            filter,
            filter_params: BTreeMap::new(),
        };
        let read = grant(Action::Read, (part != ALL).then(|| filter(part)));
        let grants = match part {
            0 => Vec::new(),
            // Who is a hub to others passes on what these write.
            ALL => vec![grant(Action::Admin, None)],
            _ => vec![read, grant(Action::Write, None)],
        };
        Ok(Admitted { access: Access::of(grants)?, expires_ms: Some(now_ms + TOKEN_MS) })
    }

    fn changed(&self, version: u64) -> Task<'static, u64> {
        let mut versions = self.0.subscribe();
        Box::pin(async move {
            let changed = versions.wait_for(|(now, _)| *now > version).await.map(|now| now.0);
            match changed {
                Ok(version) => version,
                Err(_) => std::future::pending().await,
            }
        })
    }
}
