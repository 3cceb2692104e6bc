//! Where rows of pipelines come from that are no collection's: a contract, what drives it, and the suite that each source must pass.
//!
//! A [`Connector`] opens [`Source`]s by their options; a store has them by name ([`Db::set_connector`]). What must be true of a source is at
//! the trait. Deliberately absent: retries, checkpoints and what rows mean, which are the pipeline's.

pub mod conformance;
mod reader;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::Db;
use crate::base::{Error, Result};
use crate::model::Row;
use crate::platform::{MaybeSend, MaybeSync, Task};
use crate::stream::Relation;
pub use crate::stream::SourceMode;
pub(super) use reader::check_pace;
pub use reader::{SourceReader, SourceSettings, SourceState};

/// How far each partition of a source was read, in the source's own words. A partition that is not named was not read yet.
pub type Positions = BTreeMap<u32, Vec<u8>>;

/// Where rows come from.
///
/// Implementers promise, callers may assume:
/// - **Positions resume exactly.** After [`connect`](Self::connect) at positions that batches have told, the next batches have all rows after
///   them and none before, in the order of their partition, whether this source told them or one before it of the same options; unless
///   they are not kept any more: then the error is `gone`.
/// - **Commits forget.** What is before committed positions need not be kept. Nothing else may be forgotten without telling so.
/// - **A row is told once** between two calls of `connect`, in its batch or among those refused: with its place and the reason.
///   Bad input never ends a source; what ends it is an error that says what is wrong where.
/// - **A batch has at most as many rows** as were asked for, all of one partition, and the position after them. It may have none.
/// - **The end stays the end.** A source that has ended says so again.
/// - **`read` does not wait** for rows that are not there.
/// - **Kinds.** `Unavailable` and `Io` for what may pass; everything else is wrong for good.
pub trait Source: MaybeSend {
    /// Goes on after `positions`: at first, and again to go back, or on.
    fn connect<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>>;

    /// The next rows that are there, at most `rows_max`, which is 1 at least.
    fn read(&mut self, rows_max: usize) -> Task<'_, Result<SourceBatch>>;

    /// Nobody goes back before `positions`.
    fn commit<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>>;

    /// The numbers of the partitions that rows come from, 1 at least: from 0 on, for a source whose partitions stay. Not before it is connected.
    ///
    /// They may be others after a read, all of them with numbers that were not used before: then all rows of those before were told, and no more
    /// come from them. Positions of the new ones alone go on from there.
    fn partitions(&self) -> Range<u32>;

    /// Where partitions begin of which no position was told to it and it has told none yet, in so far as that is a place: what was not read
    /// yet of such a partition is what comes after it.
    fn begins(&self) -> Positions {
        Positions::new()
    }

    /// When it will have rows though none come until then, in milliseconds since 1970.
    fn due_ms(&self) -> Option<u64> {
        None
    }

    /// How many rows wait to be read, where that is known.
    fn waiting(&self) -> Option<u64>;

    /// Whoever reads by this name will not come again: nothing is kept for it any more.
    fn retire(&mut self) -> Task<'_, Result<()>>;
}

/// Rows of a partition of a source.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceBatch {
    /// Which partition.
    pub partition: u32,
    /// The rows.
    pub rows: Vec<Row>,
    /// What is no row, or none of this source.
    pub refused: Vec<RefusedRow>,
    /// How far the partition was read with them; `None` when it is as before.
    pub position: Option<Vec<u8>>,
    /// What comes then.
    pub flow: Flow,
}

/// What was not taken for a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedRow {
    /// Where it stands: a file and a line, a number.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// What could be read of it.
    pub row: Row,
}

/// What comes after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// Perhaps more at once.
    #[default]
    More,
    /// Nothing for now.
    CaughtUp,
    /// Nothing ever.
    Ended,
}

/// Who asks for a source.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name that the pipeline calls it by.
    pub name: &'a str,
    /// Who reads: the same again after a restart.
    pub reader: &'a str,
    /// What rows are to have.
    pub relation: &'a Relation,
    /// What was said of it.
    pub options: &'a serde_json::Value,
}

/// Opens sources.
pub trait Connector: MaybeSend + MaybeSync {
    /// A source that is not connected yet. Whether it could be is found out here as far as that is possible without waiting.
    ///
    /// # Errors
    /// `InvalidArgument` for options that are wrong, `NotFound` for what they name and is not there.
    fn open(&self, db: &Db, asked: &Asked<'_>) -> Result<Box<dyn Source>>;
}

impl<F: Fn(&Db, &Asked<'_>) -> Result<Box<dyn Source>> + MaybeSend + MaybeSync> Connector for F {
    fn open(&self, db: &Db, asked: &Asked<'_>) -> Result<Box<dyn Source>> {
        self(db, asked)
    }
}

/// The connectors of a store, by name.
#[derive(Default)]
pub(super) struct Connectors(Mutex<BTreeMap<String, Arc<dyn Connector>>>);

impl Db {
    /// Gives a connector to pipelines whose sources name it, in place of the one before. They are gone when the store is closed. `stream`
    /// is there already.
    pub fn set_connector(&self, name: &str, connector: impl Connector + 'static) {
        let connectors = &self.inner.connectors.0;
        connectors.lock().expect("no panic while held").insert(name.to_owned(), Arc::new(connector));
    }

    /// A source of that connector.
    pub(super) fn open_source(&self, connector: &str, asked: &Asked<'_>) -> Result<Box<dyn Source>> {
        if connector == super::push::CONNECTOR {
            return super::push::open_source(self, asked);
        }
        let found = {
            let connectors = self.inner.connectors.0.lock().expect("no panic while held");
            let found = connectors.get(connector).cloned();
            found.ok_or_else(|| {
                let names: Vec<&str> =
                    [super::push::CONNECTOR].into_iter().chain(connectors.keys().map(String::as_str)).collect();
                Error::not_found(format!("no connector {connector:?}; there are: {}", names.join(", ")))
            })?
        };
        found.open(self, asked)
    }
}
