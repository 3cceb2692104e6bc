use std::cell::RefCell;
use std::collections::BTreeMap;

use async_lock::Mutex;
use wasm_bindgen::prelude::*;

use super::error::{OrThrow, Thrown};
use super::message::{self, LiveOut, QueryMessage, SearchMessage};
use crate::base::{Error, ErrorKind};
use crate::db::{Collection, LiveRequest, LiveUpdate};

/// Queries whose answers are kept current.
#[wasm_bindgen]
pub struct LiveQueries {
    collection: Collection,
    live: Mutex<Option<crate::db::LiveQueries>>,
    updates: RefCell<BTreeMap<u64, LiveUpdate>>,
}

fn ended() -> Error {
    Error::new(ErrorKind::Gone, "the live queries ended; begin others")
}

impl LiveQueries {
    pub(super) fn new(collection: Collection, live: crate::db::LiveQueries) -> Self {
        Self { collection, live: Mutex::new(Some(live)), updates: RefCell::default() }
    }

    async fn add(&self, request: LiveRequest, bigint: bool) -> Thrown<Vec<u8>> {
        let mut live = self.live.lock().await;
        let live = live.as_mut().ok_or_else(ended).or_throw()?;
        let added = live.add(request).await.or_throw()?;
        self.told(live, added, bigint)
    }

    fn told(
        &self,
        live: &mut crate::db::LiveQueries,
        (id, answer): (u64, Vec<crate::db::LiveHit>),
        bigint: bool,
    ) -> Thrown<Vec<u8>> {
        let schema = &self.collection.spec().schema;
        let told = LiveOut { schema, id, lsn: live.lsn().0, answer: &answer, differences: &[], bigint }.encode();
        if told.is_err() {
            live.remove(id);
        }
        told.or_throw()
    }
}

#[wasm_bindgen]
impl LiveQueries {
    /// Adds a search, and tells its number and answer.
    #[wasm_bindgen(js_name = addSearch)]
    pub async fn add_search(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let request = request.into_request(&self.collection.spec().schema).or_throw()?;
        self.add(LiveRequest::Nearest(Box::new(request)), bigint).await
    }

    /// The same of several searches, ranked together.
    #[cfg(feature = "streams")]
    #[wasm_bindgen(js_name = addHybrid)]
    pub async fn add_hybrid(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let request = request.into_hybrid(&self.collection.spec().schema).or_throw()?;
        let mut live = self.live.lock().await;
        let live = live.as_mut().ok_or_else(ended).or_throw()?;
        let added = live.add_hybrid(request).await.or_throw()?;
        self.told(live, added, bigint)
    }

    /// The same of a query.
    #[wasm_bindgen(js_name = addQuery)]
    pub async fn add_query(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        self.add(LiveRequest::Rows(Box::new(request.into_request().or_throw()?)), bigint).await
    }

    /// Ends one.
    pub async fn remove(&self, id: f64) {
        if let Some(live) = &mut *self.live.lock().await {
            live.remove(id as u64);
        }
    }

    /// Brings all answers to the end of the log, and tells which are others now.
    pub async fn update(&self) -> Thrown<Vec<f64>> {
        let mut live = self.live.lock().await;
        let updates = live.as_mut().ok_or_else(ended).or_throw()?.update().await.or_throw()?;
        let ids = updates.iter().map(|update| update.id as f64).collect();
        *self.updates.borrow_mut() = crate::base::map_of(updates.into_iter().map(|update| (update.id, update)));
        Ok(ids)
    }

    /// What happened to one of these.
    pub fn differences(&self, id: f64, bigint: bool) -> Thrown<Vec<u8>> {
        let update = self.updates.borrow_mut().remove(&(id as u64)).ok_or_else(ended).or_throw()?;
        let schema = &self.collection.spec().schema;
        let LiveUpdate { id, lsn, differences } = &update;
        LiveOut { schema, id: *id, lsn: lsn.0, answer: &[], differences, bigint }.encode().or_throw()
    }

    /// Lets go of what it keeps; while a call runs on it, that is when nothing holds it.
    pub fn end(&self) {
        if let Some(mut live) = self.live.try_lock() {
            *live = None;
        }
    }
}
