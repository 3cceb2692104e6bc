use std::collections::VecDeque;

use super::hits::Range;
use super::remaining::Remaining;
use crate::base::{Error, Result, keep_least, sort_by};
use crate::db::{Collection, Hit, QueryRequest, SearchRequest, SearchResponse, Snapshot};
use crate::engine::{Slot, View};
use crate::model::{Key, Row};

/// How many keys a scan for rows notes at once: the more, the more seldom it looks at all rows.
const KEYS_MAX: usize = 65_536;

/// All rows from the nearest on, a few at a time, of the collection as it was when it began: none comes twice, and none is missed.
///
/// It goes on among the rows that it has not given. They come in order as far as the index finds them in order; with
/// [`exact`](SearchRequest::exact) always.
pub struct SearchIterator {
    snapshot: Snapshot,
    view: View,
    request: SearchRequest,
    left: usize,
    remaining: Remaining,
    exact: bool,
}

/// The rows of a query by ascending key, a few at a time, of the collection as it was when it began.
pub struct QueryIterator {
    snapshot: Snapshot,
    view: View,
    request: QueryRequest,
    left: usize,
    keys: VecDeque<Key>,
    last: Option<Key>,
    is_over: bool,
}

impl Snapshot {
    /// Begins to go through the rows from the nearest to one query on, until there were `limit`, or all with 0, or one is beyond the
    /// radius. Offset and groups there are none.
    ///
    /// # Errors
    /// As of [`Collection::search`].
    pub async fn search_iterator(self, request: SearchRequest) -> Result<SearchIterator> {
        if request.offset > 0 || request.group_by.is_some() || request.vectors.len() + request.ids.len() > 1 {
            return Err(Error::invalid("an iterator takes one query, and neither offset nor groupBy"));
        }
        let view = self.collection().view(self.seen());
        let left = if request.limit == 0 { usize::MAX } else { request.limit };
        let (exact, request) = (request.exact, SearchRequest { limit: 1, ..request });
        // What is wrong is told now.
        self.collection().checked_search(&request, &view).await?;
        Ok(SearchIterator { snapshot: self, view, request, left, remaining: Remaining::default(), exact })
    }

    /// Begins to go through the rows of a query.
    ///
    /// # Errors
    /// As of [`Collection::query`].
    pub fn query_iterator(self, request: QueryRequest) -> Result<QueryIterator> {
        let view = self.collection().view(self.seen());
        self.collection().check_query(&request)?;
        let left = request.limit.unwrap_or(usize::MAX);
        Ok(QueryIterator { snapshot: self, view, request, left, keys: VecDeque::new(), last: None, is_over: false })
    }
}

impl SearchIterator {
    /// The next hits, at most `count`; none when there are no more.
    pub async fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        let count = count.clamp(1, super::LIMIT_MAX).min(self.left);
        let mut hits = Vec::new();
        let mut counts = SearchResponse::default();
        let collection = self.snapshot.collection();
        let search = collection.checked_search(&self.request, &self.view).await?;
        while hits.len() < count {
            let k = count.max(if self.request.range_filter.is_some() { 64 } else { 1 });
            let nearest = [search.nearest(0, k, self.exact)];
            let found = collection.round(&search, &nearest, &self.view, Some(&mut self.remaining), &mut counts).await?;
            let found = found.into_iter().next().unwrap_or_default();
            let is_last = found.len() < k;
            for (distance, found) in found {
                if hits.len() == count {
                    break;
                }
                self.remaining.give(&found);
                match search.range(distance) {
                    Range::Inside if !search.is_own(&found.key) => hits.push((distance, found)),
                    // What is left is farther, or nearly as far where an index is asked.
                    Range::Beyond => self.left = 0,
                    _ => {}
                }
            }
            if self.left == 0 || (is_last && self.exact) {
                self.left = 0;
                break;
            }
            // Where an index has come to an end, what is left is looked at one by one.
            self.exact |= is_last;
        }
        self.left = self.left.saturating_sub(hits.len());
        collection.read_hits(&search, hits).await
    }
}

impl QueryIterator {
    /// The next rows, at most `count`; none when there are no more.
    pub async fn next(&mut self, count: usize) -> Result<Vec<Row>> {
        let count = count.max(1).min(self.left);
        if self.keys.len() < count && !self.is_over {
            let wanted = KEYS_MAX.max(count) + if self.last.is_none() { self.request.offset } else { 0 };
            // Those that are left begin the next run.
            let mut keys =
                self.snapshot.collection().keys_after(&self.request, &self.view, self.last.as_ref(), wanted).await?;
            self.is_over = keys.len() < wanted;
            if self.last.is_none() {
                keys.drain(..self.request.offset.min(keys.len()));
            }
            self.last = keys.last().cloned().or(self.last.take());
            self.keys.extend(keys);
        }
        let keys: Vec<Key> = self.keys.drain(..count.min(self.keys.len())).collect();
        self.left -= keys.len();
        let fields = self.request.output_fields.as_deref();
        self.snapshot.collection().read_keys(&keys, fields, &[], &self.view).await
    }
}

impl Collection {
    /// The least keys after `last` of rows that a query selects, at most `count`.
    async fn keys_after(
        &self,
        request: &QueryRequest,
        view: &View,
        last: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Key>> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let (mut keys, mut later) = (Vec::new(), Vec::new());
        let cut = |keys: &mut Vec<Key>| keep_least(keys, count, Ord::cmp);
        let is_after = |key: &Key| last.is_none_or(|last| key > last);
        {
            let state = self.state();
            let slots: Vec<&Slot> = state.slots().collect();
            for slot in slots {
                match self.admitted(slot, filter.as_ref(), view) {
                    Ok(rows) => keys.extend(rows.iter().map(|row| slot.segment.key(row)).filter(is_after)),
                    Err(segment) => later.push(segment),
                }
                cut(&mut keys);
            }
        }
        for mut later in later {
            let rows = self.admitted_of(&mut later, filter.as_ref()).await?;
            keys.extend(rows.iter().map(|row| later.segment.key(row)).filter(is_after));
            cut(&mut keys);
        }
        sort_by(&mut keys, Ord::cmp);
        Ok(keys)
    }
}
