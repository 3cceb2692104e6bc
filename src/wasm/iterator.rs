use async_lock::Mutex;
use wasm_bindgen::prelude::*;

use super::error::{OrThrow, Thrown};
use super::message::{RowsMessage, SearchResponseMessage};
use crate::base::{Error, ErrorKind};
use crate::db::{Collection, QueryIterator, SearchIterator, SearchResponse};

/// Rows or hits, a few at a time.
#[wasm_bindgen]
pub struct RowIterator {
    collection: Collection,
    source: Mutex<Option<Source>>,
    bigint: bool,
}

pub(super) enum Source {
    Search(Box<SearchIterator>),
    Query(Box<QueryIterator>),
}

impl RowIterator {
    pub(super) fn new(collection: Collection, source: Source, bigint: bool) -> Self {
        Self { collection, source: Mutex::new(Some(source)), bigint }
    }
}

#[wasm_bindgen]
impl RowIterator {
    /// The next rows or hits, at most `count`; none when there are no more.
    pub async fn next(&self, count: usize) -> Thrown<Vec<u8>> {
        let schema = &self.collection.spec().schema;
        match &mut *self.source.lock().await {
            Some(Source::Search(iterator)) => {
                let response = SearchResponse { hits: iterator.next(count).await.or_throw()?, ..Default::default() };
                SearchResponseMessage::new(schema, &response, 0.0, self.bigint).and_then(|hits| hits.encode())
            }
            Some(Source::Query(iterator)) => {
                let rows = iterator.next(count).await.or_throw()?;
                RowsMessage::new(schema, &rows, self.bigint).and_then(|rows| rows.encode())
            }
            None => Err(Error::new(ErrorKind::Gone, "the iterator ended; begin another one")),
        }
        .or_throw()
    }

    /// Lets go of what it sees; while a call runs on it, that is when nothing holds it.
    pub fn end(&self) {
        if let Some(mut source) = self.source.try_lock() {
            *source = None;
        }
    }
}
