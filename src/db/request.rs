use std::collections::BTreeMap;

use serde::Deserialize;

use super::Written;
use crate::base::{Error, Lsn, Result, SegmentId, Timestamp, Version};
use crate::engine::{MergeCounts, MergeKind, RequestId};
use crate::index::{GraphStats, SearchParams};
use crate::model::{Batch, Key, Row, Value};
use crate::query::{Parameters, Ranker, Rerank};

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the log is synced: an acknowledged write survives a crash.
    #[default]
    Synced,
    /// After it is appended to the log, which is synced after half a second by background work ([`Db::maintain`](super::Db::maintain)),
    /// and after 8 MiB by the write that reaches them. A crash of the machine may lose what was written since the last sync, never
    /// order or atomicity; where the host keeps appended bytes when the process alone dies, nothing is lost then.
    Buffered,
}

/// One of the operations of [`Collection::batch`](super::Collection::batch).
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Adds rows whose keys must not be there.
    Insert(Batch),
    /// Adds or replaces rows.
    Upsert(Batch),
    /// Deletes rows.
    Delete(Target),
}

impl Operation {
    /// That each of its rows or keys, in their order, has the version at the same place; `None`, that it is not there.
    ///
    /// # Errors
    /// `InvalidArgument` for another number of versions, and for a delete by filter.
    pub fn conditions(&self, versions: Vec<Option<Version>>) -> Result<Vec<Condition>> {
        let keys = match self {
            Self::Insert(batch) | Self::Upsert(batch) => batch.keys(),
            Self::Delete(Target::Keys(keys)) => keys.clone(),
            Self::Delete(Target::Filter(_) | Target::FilterWith(..)) => {
                return Err(Error::invalid("a delete by filter takes no versions"));
            }
        };
        if keys.len() != versions.len() {
            return Err(Error::invalid(format!("{} versions for {} rows", versions.len(), keys.len())));
        }
        Ok(keys.into_iter().zip(versions).map(|(key, version)| Condition { key, version }).collect())
    }

    /// The same from texts, as the outside hands versions in: one of all rows, or one of each; with `if_absent`, none may be there.
    ///
    /// # Errors
    /// As of [`Self::conditions`], and for texts that are no versions.
    pub fn conditions_of(&self, if_absent: bool, if_version: Option<&[Option<String>]>) -> Result<Vec<Condition>> {
        let len = match self {
            Self::Insert(batch) | Self::Upsert(batch) => batch.len(),
            Self::Delete(Target::Keys(keys)) => keys.len(),
            Self::Delete(Target::Filter(_) | Target::FilterWith(..)) => 0,
        };
        let version = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
        match (if_absent, if_version) {
            (false, None) => Ok(Vec::new()),
            (true, None) => self.conditions(vec![None; len]),
            (false, Some([one])) => self.conditions(vec![version(one)?; len]),
            (false, Some(each)) => self.conditions(each.iter().map(version).collect::<Result<_>>()?),
            (true, Some(_)) => Err(Error::invalid("a write takes ifAbsent or ifVersion, got both")),
        }
    }
}

/// How a write is done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteOptions {
    /// When it is acknowledged; as [`Options::durability`](super::Options::durability) says with `None`.
    pub durability: Option<Durability>,
    /// What must be so at the moment of the write, or nothing is written. Other replicas are not asked.
    pub conditions: Vec<Condition>,
    /// The partition that rows are written into, and the only one in which rows are deleted. With `None`, that which a row names as
    /// `$partition`, else the default one, and deletes are in all. A row is in one partition: writing it into another one moves it.
    pub partition: Option<String>,
    /// How a client whose connection breaks asks again without anything being done twice. With `None` it does not ask again.
    pub request: Option<WriteRequest>,
}

/// A write of a client that may ask again for its answer: the same request is done once, and answered the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRequest {
    /// Which one.
    pub id: RequestId,
    /// The client has the answers to all its requests before this number: they need not be kept.
    pub settled: u64,
    /// Whether it was asked before, and may have been done.
    pub again: bool,
}

/// What must be so for a write to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Of the row with this key …
    pub key: Key,
    /// … the version must be this one, as a write or a read has told; with `None`, there must be no such row.
    pub version: Option<Version>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteResponse {
    /// Rows inserted, replaced or deleted.
    pub count: usize,
    /// Their timestamp.
    pub timestamp: Timestamp,
    /// The version that all of them have, for a [`Condition`].
    pub version: Version,
    /// Their position in the local log.
    pub lsn: Lsn,
    /// For a [`WriteRequest`] that had been done before: the keys of its rows, where the collection made them.
    pub keys: Vec<Key>,
}

/// Which rows: by key or by filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The rows with these keys.
    Keys(Vec<Key>),
    /// The rows for which this expression is true.
    Filter(String),
    /// The same, with what `{name}` stands for in it.
    FilterWith(String, Parameters),
}

/// A scan of rows, by ascending primary key or in another order, or what groups of them come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryRequest {
    /// Rows for which this is true; all with `None`.
    pub filter: Option<String>,
    /// What `{name}` stands for in it.
    pub filter_params: Parameters,
    /// In these partitions; in all when none is named.
    pub partitions: Vec<String>,
    /// Fields to return; every scalar field with `None`, vectors only when named, `*` for all; `$version` is the row's version as
    /// text, for a [`Condition`], and `$partition` the name of its partition.
    pub output_fields: Option<Vec<String>>,
    /// At most this many; all with `None`.
    pub limit: Option<usize>,
    /// After leaving out this many.
    pub offset: usize,
    /// The fields by whose values rows are ordered, each with ` desc` behind it where they are to descend; nulls come last. Rows that
    /// are alike come by ascending key, as all do without.
    pub order_by: Vec<String>,
    /// A row for all rows with the same values of these fields, null being one, with them and the functions that `output_fields`
    /// names: `count(*)`, and `count`, `sum`, `min`, `max` and `avg` of a field, as in `sum(price)`. With such functions and no field
    /// here, one row for all. Groups come by the values of these fields, unless `order_by` says otherwise, and may be ordered by functions
    /// too.
    pub group_by: Vec<String>,
}

impl QueryRequest {
    pub(super) fn of(filter: Option<&str>, partitions: &[String]) -> Self {
        Self { filter: filter.map(str::to_owned), partitions: partitions.to_vec(), ..Self::default() }
    }
}

/// A search for the nearest rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchRequest {
    /// The vector field; the only one with `None`. For a text, a field with an analyzer.
    pub field: Option<String>,
    /// The query, as a value of the field: see [`Value`]. For vectors of 16-bit floats and of integers it may be any floats.
    /// Or a text ([`Value::String`]): then rows are found that have its words, scored by BM25.
    pub vector: Value,
    /// Several queries instead, which are answered together: see [`SearchResponse::results`]. The filter is asked once for all of them.
    pub vectors: Vec<Value>,
    /// The vectors of the rows with these keys instead; a row is not in the answer to its own vector.
    pub ids: Vec<Key>,
    /// How many hits, 1 to 16,384; with `group_by`, how many groups.
    pub limit: usize,
    /// After leaving out this many.
    pub offset: usize,
    /// Only hits with a better score than this one, the far bound: larger by IP and COSINE, smaller otherwise.
    pub radius: Option<f32>,
    /// Only hits with no better score than this one, the near bound.
    pub range_filter: Option<f32>,
    /// Hits come in groups of rows with the same value of this scalar field, or key of the dynamic field; null is a value too. Groups
    /// come in the order of their best hits, and the hits of a group one after the other.
    pub group_by: Option<String>,
    /// The most hits of a group; 1 with 0.
    pub group_size: usize,
    /// Look on until every group is full, or nothing is left. Otherwise groups have what was found when there were enough of them.
    pub strict_group_size: bool,
    /// Among rows for which this is true.
    pub filter: Option<String>,
    /// What `{name}` stands for in it.
    pub filter_params: Parameters,
    /// In these partitions; in all when none is named.
    pub partitions: Vec<String>,
    /// As in [`QueryRequest`].
    pub output_fields: Option<Vec<String>>,
    /// HNSW's candidate list; larger finds more and takes longer. `max(limit + offset, 64)` with `None`.
    pub ef: Option<usize>,
    /// What other kinds of index go by; `ef` here counts for nothing.
    pub params: SearchParams,
    /// Scan every row instead of the index.
    pub exact: bool,
    /// For a search of text: how it weighs.
    pub bm25: Option<Bm25Options>,
    /// For a search of text: what is shown of the texts that were found.
    pub highlight: Option<Highlight>,
    /// For a search of sparse vectors by their index: the share of the query's numbers, the smallest, that is left out. None with `None`.
    pub drop_ratio: Option<f32>,
    /// What changes scores before the best are taken; scores are numbers from 0 to 1 then, the larger the closer, as
    /// [`Rerank::Weighted`] tells. Of ten times as many rows as are wanted, and of 100 at least. Not with several queries, nor groups.
    pub rankers: Vec<Ranker>,
}

/// What of the texts that were found is shown beside them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Highlight {
    /// Of these fields, which have an analyzer; with none, of the one that is searched.
    pub fields: Vec<String>,
    /// What stands before a word that matches: `<em>` with `None`. Nothing in the text is escaped.
    pub pre_tag: Option<String>,
    /// And behind it: `</em>` with `None`.
    pub post_tag: Option<String>,
    /// About how many bytes a fragment has: 100 with `None`.
    pub fragment_size: Option<usize>,
    /// The most fragments of a field, 3 with `None`: those with most different words of the query, in their order. With 0 the whole text.
    pub num_fragments: Option<usize>,
}

/// The parameters of BM25.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bm25Options {
    /// How soon more occurrences of a word add no more: 0 to 1,000, 1.2 with `None`.
    pub k1: Option<f32>,
    /// How much the length of a text counts: 0 to 1, 0.75 with `None`.
    pub b: Option<f32>,
}

/// One hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The row's primary key.
    pub key: Key,
    /// By the metric: see [`crate::distance::Metric::score`].
    pub score: f32,
    /// The output fields.
    pub row: Row,
    /// With [`SearchRequest::highlight`]: the parts of each field that match.
    pub highlights: BTreeMap<String, Vec<String>>,
}

/// Several searches, whose hits are ranked together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HybridRequest {
    /// Each with its own field, vector, filter, partitions, bounds and limit: as many hits as it gives are ranked. Their output fields
    /// do not count.
    pub searches: Vec<SearchRequest>,
    /// How.
    pub rerank: Rerank,
    /// What changes the scores then.
    pub rankers: Vec<Ranker>,
    /// How many hits, 1 to 16,384.
    pub limit: usize,
    /// After leaving out this many.
    pub offset: usize,
    /// As in [`QueryRequest`].
    pub output_fields: Option<Vec<String>>,
}

impl SearchRequest {
    /// Whether it has as many answers as queries.
    pub fn is_batch(&self) -> bool {
        !self.vectors.is_empty() || !self.ids.is_empty()
    }
}

/// What a search of a segment came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct SegmentProfile {
    pub(super) segment: SegmentId,
    /// Rows that the filter admits.
    pub(super) admitted: usize,
    pub(super) filter_ms: f64,
    pub(super) search_ms: f64,
    pub(super) by_index: bool,
}

/// The hits, best first, and how they were found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchResponse {
    /// What each segment took, when that is asked for.
    pub(crate) profile: Option<Vec<SegmentProfile>>,
    /// Best first; of a request with one query.
    pub hits: Vec<Hit>,
    /// The same for each of several queries, in their order.
    pub results: Vec<Vec<Hit>>,
    /// Rows scored by a full scan, over all segments.
    pub rows_scanned: usize,
    /// Segments answered by their graph.
    pub segments_by_index: usize,
    /// Segments answered by a scan.
    pub segments_by_scan: usize,
    /// Where only a part of the rows of a hub is kept here: whether it is proved that the hub, asked the same, would find no nearer row among
    /// those that fit the part's partitions, filter and rights. It is for an [exact](SearchRequest::exact) search of one vector by `L2` or
    /// `COSINE`, when the ball around the query in which all hits lie is within one of the balls of the part's neighbourhood.
    pub covered: Option<bool>,
}

impl SearchResponse {
    /// Notes what a segment took, when that is asked for.
    pub(super) fn profiled(&mut self, segment: SegmentId, note: impl FnOnce(&mut SegmentProfile)) {
        let Some(profiles) = &mut self.profile else { return };
        let at = profiles.iter().position(|profile| profile.segment == segment).unwrap_or_else(|| {
            profiles.push(SegmentProfile { segment, ..SegmentProfile::default() });
            profiles.len() - 1
        });
        note(&mut profiles[at]);
    }

    /// Adds how other hits were found.
    pub(super) fn count(&mut self, other: &Self) {
        self.rows_scanned += other.rows_scanned;
        self.segments_by_index += other.segments_by_index;
        self.segments_by_scan += other.segments_by_scan;
    }
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CollectionStats {
    /// Living rows.
    pub rows: usize,
    /// Living rows by partition.
    pub partitions: BTreeMap<String, usize>,
    /// Rows replaced or deleted whose space is not yet reclaimed.
    pub rows_dead: usize,
    /// Segments, the growing one included.
    pub segments: usize,
    /// Vectors not yet in their index; searches scan them.
    pub rows_unindexed: usize,
    /// How the graphs of all segments and fields hang together, and how much of them is dead.
    pub graphs: GraphStats,
    /// Bytes held in memory for columns, vectors, codes and graphs.
    pub memory_bytes: usize,
    /// Bytes in storage.
    pub storage_bytes: u64,
    /// The newest position in the local log.
    pub lsn: Lsn,
    /// The segments by what becomes of them.
    pub states: SegmentStates,
    /// Bytes in storage by kind of file: `log`, `layout`, `rows`, `column`, `vector`, `index`, `deletes`.
    pub files: BTreeMap<String, u64>,
    /// Bytes written since the store was opened.
    pub written: Written,
    /// Answers that were given again: see [`CollectionOptions::result_cache_bytes`](crate::engine::CollectionOptions::result_cache_bytes).
    pub results_reused: u64,
    /// Which segments are merged with which.
    pub merge_policy: MergeKind,
    /// What was merged since the collection was created.
    pub merges: MergeCounts,
}

/// How many segments are in each state of their life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentStates {
    /// Takes rows.
    pub growing: usize,
    /// Takes no more; its rows are in the log only.
    pub sealed: usize,
    /// In storage.
    pub flushed: usize,
    /// In storage, and being merged into another.
    pub compacting: usize,
    /// Replaced by another, of any collection; its files are removed when nobody reads them and the grace period is over.
    pub dropped: usize,
}
