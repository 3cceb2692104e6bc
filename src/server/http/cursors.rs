use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as JsonValue, json};
use tokio::time::Instant;

use super::api::hits_of;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{QueryIterator, SearchIterator};
use crate::platform::random_u64;

/// How many iterators a server keeps at once, and with those that came to their end and keep their last answer.
const CURSORS_MAX: usize = 64;
const ENDED_MAX: usize = 1_024;
/// How long an iterator is kept that is not asked, when nothing is said, and at most.
const KEEP_MS: u64 = 60_000;
const KEEP_MS_MAX: u64 = 600_000;
/// How many rows or hits come at once when nothing is said, and at most.
const BATCH: usize = 1_000;
const BATCH_MAX: usize = 16_384;

/// The iterators that clients go through, a request a batch.
///
/// What an iterator sees is kept until it ends, or until nobody has asked for so long. Each batch has a name of its own, which the one
/// before tells; the last one can be asked for again, so that an answer that was lost on its way is neither missed nor skipped.
#[derive(Default)]
pub(super) struct Cursors(Arc<Mutex<BTreeMap<u64, Arc<Cursor>>>>);

struct Cursor {
    keep_ms: u64,
    batch: usize,
    asked: Mutex<Instant>,
    /// Whether it keeps nothing but its last answer.
    ended: AtomicBool,
    state: tokio::sync::Mutex<State>,
}

struct State {
    source: Source,
    /// The number of the batch that comes next.
    next: u64,
    /// The batch before it.
    last: Option<JsonValue>,
}

/// What is gone through.
pub(super) enum Source {
    Search(Box<SearchIterator>),
    Query(Box<QueryIterator>),
    /// Nothing any more.
    Ended,
}

impl Cursors {
    /// Keeps an iterator, and tells the name of its first batch.
    ///
    /// # Errors
    /// `InvalidArgument` for numbers that cannot be, `Unavailable` when there are too many.
    pub(super) fn begin(&self, source: Source, batch: Option<usize>, keep_ms: Option<u64>) -> Result<String> {
        let (batch, keep_ms) = check(batch, keep_ms)?;
        let state = State { source, next: 0, last: None };
        let cursor = Cursor {
            keep_ms,
            batch,
            asked: Mutex::new(Instant::now()),
            ended: AtomicBool::new(false),
            state: tokio::sync::Mutex::new(state),
        };
        let mut cursors = self.0.lock().expect("no panic while held");
        check_room(&cursors)?;
        let id = random_u64();
        let cursor = Arc::new(cursor);
        cursors.insert(id, cursor.clone());
        drop(cursors);
        let (all, cursor) = (Arc::downgrade(&self.0), Arc::downgrade(&cursor));
        tokio::spawn(async move {
            loop {
                let Some(until) = cursor.upgrade().map(|cursor| cursor.until()) else { return };
                tokio::time::sleep_until(until).await;
                let (Some(all), Some(cursor)) = (all.upgrade(), cursor.upgrade()) else { return };
                let mut all = all.lock().expect("no panic while held");
                if cursor.until() <= Instant::now() {
                    all.remove(&id);
                    return;
                }
            }
        });
        Ok(name(id, 0))
    }

    /// Whether there is room for another one.
    ///
    /// # Errors
    /// As of [`Cursors::begin`], before anything is done.
    pub(super) fn check(&self, batch: Option<usize>, keep_ms: Option<u64>) -> Result<()> {
        check(batch, keep_ms)?;
        check_room(&self.0.lock().expect("no panic while held"))
    }

    /// The batch of that name, with the name of the next one unless it was the last.
    ///
    /// # Errors
    /// `Gone` for one whose iterator ended or was not asked for too long, and for a batch before the last; `InvalidArgument` for what is no name.
    pub(super) async fn next(&self, text: &str) -> Result<JsonValue> {
        let (id, number) = parse(text)?;
        let gone = || Error::new(ErrorKind::Gone, format!("iterator {text:?} ended, or was not asked for too long"));
        let cursor = self.0.lock().expect("no panic while held").get(&id).cloned().ok_or_else(gone)?;
        cursor.touch();
        let mut state = cursor.state.lock().await;
        if number + 1 == state.next
            && let Some(last) = &state.last
        {
            return Ok(last.clone());
        }
        if number != state.next {
            let asked = format!("{text:?} is batch {number} of an iterator that has come to {}", state.next);
            return Err(Error::new(ErrorKind::Gone, asked));
        }
        let (field, rows, count) = match &mut state.source {
            Source::Search(iterator) => {
                let hits = iterator.next(cursor.batch).await?;
                ("hits", hits_of(&hits), hits.len())
            }
            Source::Query(iterator) => {
                let rows = iterator.next(cursor.batch).await?;
                ("rows", json!(rows), rows.len())
            }
            Source::Ended => return Err(gone()),
        };
        let mut answer = json!({ field: rows });
        // An empty batch is the last; one that is not full may be, and the next one tells.
        if count > 0 {
            answer["next"] = json!(name(id, number + 1));
        } else {
            // What it sees need not be kept.
            state.source = Source::Ended;
            cursor.ended.store(true, Ordering::Relaxed);
        }
        state.next = number + 1;
        state.last = Some(answer.clone());
        cursor.touch();
        Ok(answer)
    }

    /// Lets go of an iterator; one that is not there has ended already.
    pub(super) fn end(&self, text: &str) -> Result<()> {
        let (id, _) = parse(text)?;
        self.0.lock().expect("no panic while held").remove(&id);
        Ok(())
    }
}

impl Cursor {
    fn touch(&self) {
        *self.asked.lock().expect("no panic while held") = Instant::now();
    }

    fn until(&self) -> Instant {
        *self.asked.lock().expect("no panic while held") + Duration::from_millis(self.keep_ms)
    }
}

fn check_room(cursors: &BTreeMap<u64, Arc<Cursor>>) -> Result<()> {
    let open = cursors.values().filter(|cursor| !cursor.ended.load(Ordering::Relaxed)).count();
    if open < CURSORS_MAX && cursors.len() < ENDED_MAX {
        return Ok(());
    }
    let message = format!("{open} iterators are open, of {CURSORS_MAX} that may be: end one, or try again later");
    Err(Error::new(ErrorKind::Unavailable, message))
}

fn check(batch: Option<usize>, keep_ms: Option<u64>) -> Result<(usize, u64)> {
    let (batch, keep_ms) = (batch.unwrap_or(BATCH), keep_ms.unwrap_or(KEEP_MS));
    if batch == 0 || batch > BATCH_MAX {
        return Err(Error::invalid(format!("batchSize {batch}; expected 1 to {BATCH_MAX}")));
    }
    if keep_ms == 0 || keep_ms > KEEP_MS_MAX {
        return Err(Error::invalid(format!("keepMs {keep_ms}; expected 1 to {KEEP_MS_MAX}")));
    }
    Ok((batch, keep_ms))
}

fn name(id: u64, number: u64) -> String {
    format!("{id:016x}-{number:x}")
}

fn parse(text: &str) -> Result<(u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|number| *number < u64::MAX);
    text.split_once('-')
        .and_then(|(id, at)| Some((u64::from_str_radix(id, 16).ok()?, number(at)?)))
        .ok_or_else(|| Error::invalid(format!("{text:?} names no batch of an iterator")))
}
