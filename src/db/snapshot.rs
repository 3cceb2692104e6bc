use super::{Collection, HybridRequest, QueryRequest, SearchRequest, SearchResponse};
use crate::base::{Lsn, Result, Timestamp};
use crate::engine::View;
use crate::model::{Key, Row};
use crate::query::Plan;

/// A collection as it was at one moment, whatever is written, flushed and merged meanwhile. What it sees is kept until it is dropped;
/// it does not outlive the store's being open.
pub struct Snapshot {
    collection: Collection,
    view: View,
}

impl Collection {
    /// The collection as it is now: exactly what was acknowledged before, of all batches wholly or not at all.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.hold(|state| Ok(View { lsn: state.progress().lsn, ..View::NOW }))
    }

    /// The collection as it was at `timestamp`, such as that of an earlier write: of every key the newest change up to then that has
    /// reached this replica by now. Changes from other replicas count by the time of their write.
    ///
    /// # Errors
    /// `Gone` for a time before [`Options::retention_ms`](super::Options::retention_ms) ago, or before the store began to keep the past.
    pub fn snapshot_at(&self, timestamp: Timestamp) -> Result<Snapshot> {
        self.hold(|state| state.view_at(timestamp, self.inner.shared.options.environment.now_ms()))
    }

    /// The collection by a view that is held already.
    pub(super) fn snapshot_of(&self, view: View) -> Snapshot {
        self.inner.state.write().expect("no panic while held").hold(view);
        Snapshot { collection: self.clone(), view }
    }

    fn hold(&self, view: impl FnOnce(&crate::engine::CollectionState) -> Result<View>) -> Result<Snapshot> {
        self.inner.shared.check_open()?;
        let mut state = self.inner.state.write().expect("no panic while held");
        let view = view(&state)?;
        state.hold(view);
        drop(state);
        Ok(Snapshot { collection: self.clone(), view })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.collection.inner.state.write().expect("no panic while held").release(self.view);
    }
}

impl Snapshot {
    pub(super) fn collection(&self) -> &Collection {
        &self.collection
    }

    /// What it sees.
    pub(super) fn seen(&self) -> View {
        self.view
    }

    /// Another one that sees the same.
    pub fn again(&self) -> Self {
        self.collection.inner.state.write().expect("no panic while held").hold(self.view);
        Self { collection: self.collection.clone(), view: self.view }
    }

    /// The position in the local log up to which it sees.
    pub fn lsn(&self) -> Lsn {
        self.view.lsn
    }

    /// As [`Collection::get`].
    pub async fn get(&self, keys: &[Key], output_fields: Option<&[String]>) -> Result<Vec<Row>> {
        self.get_within(keys, output_fields, &[]).await
    }

    /// As [`Collection::get_within`], of partitions that there are now.
    pub async fn get_within(
        &self,
        keys: &[Key],
        output_fields: Option<&[String]>,
        partitions: &[String],
    ) -> Result<Vec<Row>> {
        self.collection.read_keys(keys, output_fields, partitions, &self.collection.view(self.view)).await
    }

    /// As [`Collection::query`].
    pub async fn query(&self, request: &QueryRequest) -> Result<Vec<Row>> {
        self.collection.read_query(request, &self.collection.view(self.view)).await
    }

    /// As [`Collection::count`].
    pub async fn count(&self, filter: Option<&str>) -> Result<usize> {
        self.count_within(filter, &[]).await
    }

    /// As [`Collection::count_within`], of partitions that there are now.
    pub async fn count_within(&self, filter: Option<&str>, partitions: &[String]) -> Result<usize> {
        self.count_of(&QueryRequest::of(filter, partitions)).await
    }

    /// As [`Collection::count_of`], of partitions that there are now.
    pub async fn count_of(&self, request: &QueryRequest) -> Result<usize> {
        self.collection.read_count(request, &self.collection.view(self.view)).await
    }

    /// As [`Collection::search`].
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchResponse> {
        self.collection.read_nearest(request, &self.collection.view(self.view)).await
    }

    /// As [`Collection::hybrid_search`].
    pub async fn hybrid_search(&self, request: &HybridRequest) -> Result<SearchResponse> {
        self.collection.read_hybrid(request, &self.collection.view(self.view)).await
    }

    /// As [`Collection::explain_search`].
    pub async fn explain_search(&self, request: &SearchRequest, profile: bool) -> Result<Plan> {
        self.collection.plan_search(request, &self.collection.view(self.view), profile).await
    }

    /// As [`Collection::explain_hybrid`].
    pub async fn explain_hybrid(&self, request: &HybridRequest, profile: bool) -> Result<Plan> {
        self.collection.plan_hybrid(request, &self.collection.view(self.view), profile).await
    }

    /// As [`Collection::explain_query`].
    pub async fn explain_query(&self, request: &QueryRequest, profile: bool) -> Result<Plan> {
        self.collection.plan_query(request, &self.collection.view(self.view), profile).await
    }
}
