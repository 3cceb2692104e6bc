//! Reads: rows by key, by filter and by nearness.
//!
//! A read looks at the state under its shared lock, where nothing waits, and finds there all that is in memory. What of a segment must
//! be read from storage is read afterwards, from the segment as it was: it does not change, whatever is written meanwhile. Output
//! fields are read last, of the rows of the answer only.

mod admit;
mod explain;
mod hits;
mod hybrid;
mod iterate;
mod masks;
mod nearest;
mod pool;
mod query;
mod remaining;
mod results;
mod rows;
mod shown;
mod table;
#[cfg(all(test, feature = "server"))]
mod tests;
mod words;

#[cfg(feature = "streams")]
pub(in crate::db) use hybrid::share;
pub use iterate::{QueryIterator, SearchIterator};
pub(super) use masks::Masks;
pub(super) use pool::Pool;
pub use pool::{PoolStats, PoolWorker, SearchPool};
pub(super) use results::{Asked, Results, Told};
pub(super) use rows::row_of;

use super::Collection;
use crate::base::Result;
use crate::engine::CollectionState;
use crate::query::{Filter, Parameters};
use crate::segment::{BlockRef, Blocks};

/// The most hits of one search, as in Milvus; `limit + offset` counts.
const LIMIT_MAX: usize = 16_384;
/// Rows of which a read that must read storage looks at once.
const READ_ROWS: usize = 8_192;

impl Collection {
    /// How many threads a read may take.
    fn threads(&self) -> usize {
        self.inner.shared.options.threads.unwrap_or(usize::MAX)
    }

    /// The filter of a request; `None` when it admits every row.
    pub(in crate::db) fn filter(
        &self,
        text: Option<&str>,
        parameters: &Parameters,
        partitions: &[String],
    ) -> Result<Option<Filter>> {
        self.inner.shared.check_open()?;
        let text = text.filter(|text| !text.trim().is_empty());
        let filter = text.map(|text| Filter::parse_with(text, &self.spec().schema, parameters)).transpose()?;
        let filter = self.within(filter, partitions)?;
        self.limits.read.limit(filter, &self.spec().schema)
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, CollectionState> {
        self.inner.state.read().expect("no panic while held")
    }

    /// Reads what `read` needs until it says something else: it looks at the state as it is then.
    pub(crate) async fn with_blocks<T>(
        &self,
        read: impl Fn(&CollectionState, &Blocks) -> Result<T, Vec<BlockRef>>,
    ) -> Result<T> {
        let mut blocks = Blocks::default();
        loop {
            let needs = match read(&self.state(), &blocks) {
                Ok(value) => return Ok(value),
                Err(needs) => needs,
            };
            self.inner.shared.fetch(needs, &mut blocks, true).await?;
        }
    }
}
