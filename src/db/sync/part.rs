//! Parts of collections: which rows a client wants, and which of these it gets.
//!
//! A part is told as text: a JSON array of conditions that all hold, `[]` for all rows. What a client wants is one condition, what it may read
//! another; a hub joins the two and looks at every changed row. Of a row that is not in the part the client is told its key's hash and its
//! version, and lets go of what it has of it, without a delete of its own. Whether a row is in a part is the same on every target.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::base::codec::{Reader, Write};
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, RowMask, Sequence, Timestamp, Version};
use crate::db::access::{Limits, Rows, forbidden};
use crate::db::{Collection, Condition, Hit, SearchRequest};
use crate::distance::Metric;
use crate::engine::{ChangeSet, KeptPart, Met, is_eviction};
use crate::model::{Batch, DEFAULT_PARTITION, DataType, Key, Schema, Value};
use crate::platform::Environment;
use crate::query::{Filter, Parameters};
use crate::sync::{Changes, Part, PullPart, Reshape};

/// All rows.
pub(super) const WHOLE: &str = "[]";
/// No row.
const NOTHING: &str = r#"[{"any":[]}]"#;
/// A part that was replaced again and again before it was here is given up: all of the next one comes anew.
const OLD_CONDITIONS_MAX: usize = 8;
/// What is looked at of this replica's own rows at once.
const SWEEP_BYTES: usize = 1 << 20;

/// A part of a collection: the rows that are in one of the partitions, for which the filter is true, and which lie near. What is left out
/// admits all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Shape {
    /// Names of partitions; none of them for all.
    pub partitions: Vec<String>,
    /// A filter expression.
    pub filter: Option<String>,
    /// The values of its parameters.
    pub filter_params: Parameters,
    /// A neighbourhood.
    pub near: Option<Near>,
}

/// The rows whose vector is at most `radius` from one of the centers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Near {
    /// A field of float vectors.
    pub field: String,
    /// `L2` or `COSINE`. The inner product is no distance: nothing follows from it for a third vector.
    pub metric: Metric,
    /// Of the field's dimension, finite; for `COSINE` none of length 0.
    pub centers: Vec<Vec<f32>>,
    /// Of `L2` the Euclidean distance, not its square; of `COSINE` 1 minus the cosine, 0 to 2.
    pub radius: f32,
}

/// One condition of a part. What is absent admits all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clause {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<String>>,
    /// One of these filters admits the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    any: Option<Vec<(String, Parameters)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    near: Option<Near>,
}

fn parse(text: &str) -> Result<Vec<Clause>> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("a part of a collection: {error}")))
}

fn text_of(clauses: &[Clause]) -> Result<String> {
    serde_json::to_string(clauses).map_err(|error| Error::internal(format!("a part of a collection: {error}")))
}

impl Shape {
    /// A shape as JSON says it: an object with `partitions`, `filter`, `filterParams` and `near`, each of which may be left out.
    ///
    /// # Errors
    /// `InvalidArgument` with the place of what is wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("a shape: {error}")))
    }

    /// As a hub is told.
    pub(super) fn to_text(&self) -> Result<String> {
        let clause = Clause {
            partitions: (!self.partitions.is_empty()).then(|| self.partitions.clone()),
            any: self.filter.clone().map(|filter| vec![(filter, self.filter_params.clone())]),
            near: self.near.clone(),
        };
        text_of(if clause == Clause::default() { &[] } else { std::slice::from_ref(&clause) })
    }
}

/// What a client gets that wants `wanted` and may read `rows`: the same text for the same part.
pub(super) fn granted(wanted: Option<&str>, rows: &Rows) -> Result<String> {
    let mut clauses = parse(wanted.unwrap_or(WHOLE))?;
    let any = match rows {
        Rows::All => None,
        Rows::None => Some(Vec::new()),
        Rows::Where(filters) => Some(filters.to_vec()),
    };
    if any.is_some() {
        clauses.push(Clause { any, ..Clause::default() });
    }
    text_of(&clauses)
}

/// The rows that are in both of two parts; none when that would be told by too many conditions.
fn both(one: &str, other: &str) -> Result<String> {
    let mut clauses = parse(one)?;
    for clause in parse(other)? {
        if !clauses.contains(&clause) {
            clauses.push(clause);
        }
    }
    if clauses.len() > OLD_CONDITIONS_MAX { Ok(NOTHING.to_owned()) } else { text_of(&clauses) }
}

/// A part of a collection with that schema, ready to be asked.
pub(super) struct Bound {
    filters: Vec<Filter>,
    balls: Vec<Balls>,
    nothing: bool,
}

impl Bound {
    /// # Errors
    /// `InvalidArgument` for what does not fit the schema.
    pub(super) fn new(text: &str, schema: &Schema) -> Result<Self> {
        let mut bound = Self { filters: Vec::new(), balls: Vec::new(), nothing: false };
        for Clause { partitions, any, near } in parse(text)? {
            if let Some(names) = partitions {
                if schema.partitioned() {
                    let names = names.iter().map(String::as_str).collect();
                    bound.filters.push(Filter::within(None, &names));
                } else {
                    // As long as nobody has named one, all rows are in the default one.
                    bound.nothing |= !names.iter().any(|name| name == DEFAULT_PARTITION);
                }
            }
            if let Some(any) = any {
                let mut one: Option<Filter> = None;
                for (text, parameters) in &any {
                    let filter = Filter::parse_with(text, schema, parameters)?;
                    one = Some(match one {
                        Some(one) => one.or(filter),
                        None => filter,
                    });
                }
                bound.nothing |= one.is_none();
                bound.filters.extend(one);
            }
            if let Some(near) = near {
                bound.balls.push(Balls::new(&near, schema)?);
            }
        }
        Ok(bound)
    }

    /// Which rows are in the part.
    pub(super) fn inside(&self, rows: &Batch) -> RowMask {
        if self.nothing || rows.is_empty() {
            return RowMask::none(rows.len());
        }
        let mut inside = RowMask::all(rows.len());
        for filter in &self.filters {
            inside.intersect(&filter.evaluate(rows.scalars()));
        }
        for balls in &self.balls {
            let Some(column) = rows.vector(&balls.field) else { continue };
            for (row, vector) in column.data.chunks_exact(column.dim.max(1)).enumerate() {
                if !balls.admits(vector) {
                    inside.remove(row);
                }
            }
        }
        inside
    }
}

/// Balls around centers. Everything is summed in order, in 64 bits, and rooted exactly: all targets agree on what lies on a border.
struct Balls {
    field: String,
    cosine: bool,
    centers: Vec<Vec<f64>>,
    radius: f64,
}

impl Balls {
    fn new(near: &Near, schema: &Schema) -> Result<Self> {
        let Near { field, metric, centers, radius } = near;
        let refused = |what: String| Err(Error::invalid(format!("near {field:?}: {what}")));
        let cosine = match metric {
            Metric::L2 => false,
            Metric::Cosine => true,
            other => return refused(format!("metric {}; L2 or COSINE expected", other.name())),
        };
        let dim = match schema.field(field).map(|field| &field.data_type) {
            Some(DataType::FloatVector { dim }) => *dim,
            _ => return refused("no field of float vectors".to_owned()),
        };
        if centers.is_empty() || !radius.is_finite() || *radius < 0.0 {
            return refused(format!(
                "{} centers, radius {radius}; one at least, and 0 or more expected",
                centers.len()
            ));
        }
        let mut kept = Vec::with_capacity(centers.len());
        for (at, center) in centers.iter().enumerate() {
            if center.len() != dim as usize || center.iter().any(|number| !number.is_finite()) {
                return refused(format!("center {at} of {} numbers; {dim} finite ones expected", center.len()));
            }
            match wide(center, cosine) {
                Some(center) => kept.push(center),
                None => return refused(format!("center {at} has length 0, and so no direction")),
            }
        }
        let radius = if cosine { chord(f64::from(*radius)) } else { f64::from(*radius) };
        Ok(Self { field: field.clone(), cosine, centers: kept, radius })
    }

    fn admits(&self, vector: &[f32]) -> bool {
        let Some(vector) = wide(vector, self.cosine) else { return false };
        self.centers.iter().any(|center| apart(center, &vector) <= self.radius)
    }
}

/// In 64 bits; of length 1 where that is asked for, and possible.
fn wide(vector: &[f32], unit: bool) -> Option<Vec<f64>> {
    let mut wide: Vec<f64> = vector.iter().copied().map(f64::from).collect();
    if unit {
        let length = wide.iter().fold(0.0, |sum, number| sum + number * number).sqrt();
        if length == 0.0 {
            return None;
        }
        wide.iter_mut().for_each(|number| *number /= length);
    }
    Some(wide)
}

/// The Euclidean distance.
fn apart(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).fold(0.0, |sum, (one, other)| sum + (one - other) * (one - other)).sqrt()
}

/// How far two vectors of length 1 are apart, of which 1 minus the cosine is given.
fn chord(distance: f64) -> f64 {
    (2.0 * distance.clamp(0.0, 2.0)).sqrt()
}

// What travels of rows that are not in a part.
//
// | bytes | what |
// |---|---|
// | 16 | the key of the hash |
// | 8 | the newest timestamp of all changes that were looked at |
// | 32 each | a row that is not in the part, or is deleted: the hash of its primary key, and its version: timestamp, origin, sequence |

struct Left {
    secret: [u64; 2],
    heard: Timestamp,
    rows: Vec<(u64, Version)>,
}

impl Left {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + 32 * self.rows.len());
        out.put_u64(self.secret[0]);
        out.put_u64(self.secret[1]);
        out.put_u64(self.heard.0);
        for (hash, version) in &self.rows {
            out.put_u64(*hash);
            out.put_u64(version.timestamp.0);
            out.put_u64(version.origin.0);
            out.put_u64(version.sequence.0);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let secret = [reader.u64()?, reader.u64()?];
        let heard = Timestamp(reader.u64()?);
        let mut rows = Vec::new();
        while reader.remaining() > 0 {
            let hash = reader.u64()?;
            let timestamp = Timestamp(reader.u64()?);
            let (origin, sequence) = (ReplicaId(reader.u64()?), Sequence(reader.u64()?));
            rows.push((hash, Version { timestamp, origin, sequence }));
        }
        Ok(Self { secret, heard, rows })
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of a primary key: 0 and the integer's 8 bytes, or 1 and the text. With a key of its own in
/// each message, so that nobody makes a row that is taken for another one; who guesses a primary key can see whether it is meant.
fn hash(secret: [u64; 2], key: &Key) -> u64 {
    let mut bytes = Vec::with_capacity(16);
    match key {
        Key::Int(key) => {
            bytes.push(0);
            bytes.extend(key.to_le_bytes());
        }
        Key::String(key) => {
            bytes.push(1);
            bytes.extend(key.as_bytes());
        }
    }
    SipHasher24::new_with_keys(secret[0], secret[1]).hash(&bytes)
}

// The hub's side.

/// What a client is told of the part that it gets; `None` when that is all rows.
///
/// # Errors
/// `InvalidArgument` for one that does not fit the collection.
pub(super) fn offered(collection: &Collection, wanted: Option<&str>) -> Result<Option<Part>> {
    let part = granted(wanted, &collection.limits.read)?;
    if part == WHOLE {
        return Ok(None);
    }
    Bound::new(&part, &collection.spec().schema)?;
    // The position first: what comes between is looked at later, and only makes clocks go faster.
    let newest = collection.lsn();
    Ok(Some(Part { part, newest, heard: collection.timestamp() }))
}

/// What is read for a client that gets a part.
pub(super) struct Asked {
    /// The part.
    pub(super) part: String,
    /// Only what was not in the old one.
    pub(super) reshape: Option<Reshape>,
    pub(super) client: ReplicaId,
}

/// Reads the changes after `after` for a client that gets a part of the rows.
pub(super) async fn read(
    collection: &Collection,
    environment: &Environment,
    asked: &Asked,
    after: Lsn,
    known: &BTreeMap<ReplicaId, Sequence>,
    bytes_max: usize,
) -> Result<Changes> {
    if matches!(collection.limits, Limits { read: Rows::None, write: Rows::None }) && asked.reshape.is_none() {
        return Err(forbidden("no rows of this collection were granted"));
    }
    let schema = &collection.spec().schema;
    let new = Bound::new(&asked.part, schema)?;
    let old = asked.reshape.as_ref().map(|reshape| Bound::new(&reshape.old, schema)).transpose()?;
    let until = asked.reshape.as_ref().map_or(Lsn(u64::MAX), |reshape| reshape.through);
    if new.nothing && old.is_none() {
        // Who may only write hears nothing of what is there.
        let newest = collection.lsn();
        let (changes, seen) = (Vec::new(), known.clone());
        return Ok(Changes { changes, lsn: newest, newest, seen, left: Some(Vec::new()) });
    }
    // A row that left the part must be told of whoever wrote it.
    let (changes, lsn) = collection.changes_between(after, until, &BTreeMap::new(), bytes_max).await?;
    // What the client has otherwise it goes on having; nothing of it is asked back.
    let mut seen = known.clone();
    seen.extend(collection.seen_of(&changes));
    // After that: what comes between is not sent yet, and shows that the client has not caught up.
    let newest = collection.lsn();
    let inside = new.inside(&changes.puts);
    let had = old.as_ref().map(|old| old.inside(&changes.puts));
    let secret = [environment.random_u64(), environment.random_u64()];
    let heard = changes.versions().map(|version| version.timestamp).max().unwrap_or_default();
    let mut left = Left { secret, heard, rows: Vec::new() };
    let mut rows = Vec::new();
    for (row, version) in changes.put_versions.iter().enumerate() {
        let is_own = version.origin == asked.client;
        let wanted = match &had {
            Some(had) => !had.contains(row),
            // Only what it has sent itself it has for sure.
            None => !is_own || known.get(&version.origin).is_none_or(|known| version.sequence > *known),
        };
        if inside.contains(row) {
            rows.extend(wanted.then_some(row as u32));
        } else if had.is_none() || is_own {
            // What others wrote, the client finds by itself when it gets another part.
            left.rows.push((hash(secret, &changes.puts.key(row)), *version));
        }
    }
    if had.is_none() {
        left.rows.extend(changes.deletes.iter().map(|(key, version)| (hash(secret, key), *version)));
    }
    let put_versions = rows.iter().map(|&row| changes.put_versions[row as usize]).collect();
    let puts = ChangeSet { puts: changes.puts.take(&rows), put_versions, deletes: Vec::new() };
    let tells = !left.rows.is_empty() || puts.len() < changes.len();
    Ok(Changes {
        changes: if puts.is_empty() { Vec::new() } else { puts.encode() },
        lsn,
        newest,
        seen,
        left: Some(if tells { left.encode() } else { Vec::new() }),
    })
}

// The client's side.

/// Gets a collection ready for what `hub` sends from now on, a part of its rows or all: notes it, and lets go of what is not in it.
pub(super) async fn prepare(collection: &Collection, hub: ReplicaId, part: Option<&Part>) -> Result<()> {
    let new = part.map_or(WHOLE, |part| part.part.as_str());
    // What an earlier session has begun to apply comes to its end first.
    let _one = collection.inner.reshaping.lock().await;
    let kept = collection.kept_part(hub);
    if new == WHOLE && kept.is_none() {
        return Ok(());
    }
    let pulled = collection.sync_position(hub).pulled;
    let mut next = kept.clone().unwrap_or_default();
    if kept.as_ref().is_none_or(|kept| kept.part != new) {
        let reshape = |old, through| Some(crate::engine::Reshape { old, after: Lsn(0), through });
        let mut position = None;
        next.reshape = match (kept, part) {
            (None, Some(part)) if pulled == Lsn(0) => {
                // Clocks first: whatever is written here from now on is later than what is there.
                let heard =
                    KeptPart { part: new.to_owned(), reshape: reshape(NOTHING.to_owned(), Lsn(0)), heard: part.heard };
                collection.set_part(hub, None, heard.clone()).await?;
                next = heard;
                if new == NOTHING {
                    // Nothing of this hub is here that would have to go.
                    None
                } else if collection.lsn() == Lsn(0) {
                    position = Some(part.newest);
                    reshape(NOTHING.to_owned(), part.newest)
                } else {
                    // What is here may be older than what the hub has and does not send: it tells of all of its rows.
                    next.reshape
                }
            }
            (None, _) => reshape(WHOLE.to_owned(), pulled),
            (Some(KeptPart { part, reshape: None, .. }), _) => reshape(part, pulled),
            // What was on its way is not here for sure.
            (Some(KeptPart { part, reshape: Some(last), .. }), _) => reshape(both(&last.old, &part)?, pulled),
        };
        next.part = new.to_owned();
        collection.set_part(hub, position, next.clone()).await?;
    }
    if next.reshape.is_some() && new != WHOLE {
        sweep(collection, new).await?;
    }
    Ok(())
}

/// Lets go of rows that others wrote and that are not in the part. Own ones stay until the hub has told that it has them.
async fn sweep(collection: &Collection, part: &str) -> Result<()> {
    let own = collection.replica();
    loop {
        let mut again = false;
        let mut after = Lsn(0);
        loop {
            let newest = collection.lsn();
            let (changes, reached) = collection.changes_after(after, &BTreeMap::new(), SWEEP_BYTES).await?;
            let inside = Bound::new(part, &collection.spec().schema)?.inside(&changes.puts);
            let versions = changes.put_versions.iter().enumerate();
            let outside = versions.filter(|(row, version)| version.origin != own && !inside.contains(*row));
            let found: Vec<(Key, Version, Timestamp)> =
                outside.map(|(row, version)| (changes.puts.key(row), *version, version.timestamp)).collect();
            if !found.is_empty() {
                let nothing = ChangeSet::empty(&collection.spec().schema);
                match evict(collection, nothing, None, found).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => again = true,
                    done => done?,
                }
            }
            if reached >= newest {
                break;
            }
            after = reached;
        }
        if !again {
            return Ok(());
        }
    }
}

/// Applies changes, and lets go of rows that have these versions.
async fn evict(
    collection: &Collection,
    mut changes: ChangeSet,
    from: Option<From>,
    found: Vec<(Key, Version, Timestamp)>,
) -> Result<()> {
    let mut conditions = Vec::with_capacity(found.len());
    for (key, version, timestamp) in found {
        // After the row, for whoever reads the past.
        let timestamp = Timestamp(timestamp.max(version.timestamp).0 + 1);
        let eviction = Version { timestamp, origin: ReplicaId(0), sequence: Sequence(0) };
        conditions.push(Condition { key: key.clone(), version: Some(version) });
        changes.deletes.push((key, eviction));
    }
    let (from, seen, met) = match from {
        Some((from, seen, met)) => (Some(from), seen, Some(met)),
        None => (None, Vec::new(), None),
    };
    collection.submit_changes(changes, from, seen, met, conditions).await.map(drop)
}

/// The position that comes with changes, what is whole with them, and what the hub had.
type From = ((ReplicaId, Lsn), Vec<(ReplicaId, Sequence)>, Met);

/// What a hub has sent.
pub(super) struct Pulled {
    pub(super) hub: ReplicaId,
    pub(super) lsn: Lsn,
    pub(super) seen: BTreeMap<ReplicaId, Sequence>,
    pub(super) there: BTreeMap<ReplicaId, Sequence>,
    pub(super) part: Option<PullPart>,
}

/// Applies what a hub has sent to a collection of which `expected` is kept here.
pub(super) async fn apply(
    collection: &Collection,
    mut changes: ChangeSet,
    Pulled { hub, lsn, seen, there, part }: Pulled,
    expected: &str,
) -> Result<()> {
    let seen: Vec<(ReplicaId, Sequence)> = seen.into_iter().collect();
    let met = collection.met_above(there);
    // A hub can let a client let go of rows only by telling their hash.
    changes.deletes.retain(|(_, version)| !is_eviction(*version));
    let _one = collection.inner.reshaping.lock().await;
    let kept = collection.kept_part(hub);
    if kept.as_ref().map_or(WHOLE, |kept| kept.part.as_str()) != expected {
        let message = "another session syncs another part of this collection with the same hub";
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let (Some(PullPart { left, reshaped }), Some(mut kept)) = (part, kept) else {
        return collection.submit_changes(changes, Some((hub, lsn)), seen, Some(met), Vec::new()).await.map(drop);
    };
    let left = if left.is_empty() { None } else { Some(Left::decode(&left)?) };
    if let Some(left) = &left
        && left.heard > kept.heard.max(collection.timestamp())
    {
        // What is written here later wins over what the hub has, seen here or not; and so it does after a restart.
        kept.heard = left.heard;
        collection.set_part(hub, None, kept.clone()).await?;
    }
    // What comes with another part is older than the position, which stays.
    let position = if reshaped.is_some() { collection.sync_position(hub).pulled } else { lsn };
    let from = ((hub, position), seen, met);
    loop {
        let found = left.as_ref().map_or_else(Vec::new, |left| collection.left_here(left));
        match evict(collection, changes.clone(), Some(from.clone()), found).await {
            // Somebody has written one of the rows meanwhile: perhaps it stays.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            done => {
                done?;
                break;
            }
        }
    }
    if let Some(ended) = reshaped
        && let Some(reshape) = &mut kept.reshape
    {
        reshape.after = lsn;
        if ended {
            kept.reshape = None;
        }
        collection.set_part(hub, None, kept).await?;
    }
    Ok(())
}

impl Collection {
    /// The rows that are here, of those that a hub has told to be out of the part: not those that were written later than what the hub has.
    fn left_here(&self, left: &Left) -> Vec<(Key, Version, Timestamp)> {
        let gone: HashMap<u64, Version> = left.rows.iter().copied().collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let expired = self.expired_before();
        let state = self.inner.state.read().expect("no panic while held");
        for slot in state.slots() {
            for row in slot.live.iter() {
                let version = slot.segment.versions().version(row);
                let key = slot.segment.key(row);
                if let Some(there) = gone.get(&hash(left.secret, &key))
                    && version <= *there
                    && version.timestamp >= expired
                {
                    found.push((key, version, there.timestamp));
                }
            }
        }
        found
    }

    /// Up to which sequence all is here of the origins of these changes.
    fn seen_of(&self, changes: &ChangeSet) -> BTreeMap<ReplicaId, Sequence> {
        let state = self.inner.state.read().expect("no panic while held");
        changes.versions().map(|version| (version.origin, state.seen(version.origin))).collect()
    }

    fn met_above(&self, there: BTreeMap<ReplicaId, Sequence>) -> Met {
        let is_hub = self.inner.shared.syncs.is_hub.load(std::sync::atomic::Ordering::Relaxed);
        Met::Pulled { there, replica: self.replica(), is_hub }
    }

    fn replica(&self) -> ReplicaId {
        self.inner.shared.replica
    }

    fn timestamp(&self) -> Timestamp {
        self.inner.state.read().expect("no panic while held").progress().timestamp
    }

    /// Whether less than all rows of some hub is, or was, kept here.
    pub(in crate::db) fn has_parts(&self) -> bool {
        !self.inner.state.read().expect("no panic while held").progress().parts.is_empty()
    }

    /// Whether no row that is not here can be nearer than these hits: see [`SearchResponse::covered`].
    pub(in crate::db) fn covered(&self, request: &SearchRequest, hits: &[Hit]) -> Option<bool> {
        if !self.has_parts() {
            return None;
        }
        let kept: Vec<KeptPart> = {
            let state = self.inner.state.read().expect("no panic while held");
            state.progress().parts.values().cloned().collect()
        };
        let proved = || {
            let mut proved = request.exact && request.group_by.is_none() && request.rankers.is_empty();
            for KeptPart { part, reshape, .. } in &kept {
                proved &= reshape.is_none();
                for near in parse(part).ok()?.into_iter().filter_map(|clause| clause.near) {
                    proved &= self.lies_within(request, hits, &near)?;
                }
            }
            Some(proved)
        };
        Some(proved().unwrap_or(false))
    }

    /// Whether everything as near to the query as these hits is within one of the balls.
    fn lies_within(&self, request: &SearchRequest, hits: &[Hit], near: &Near) -> Option<bool> {
        let schema = &self.spec().schema;
        let balls = Balls::new(near, schema).ok()?;
        let field = match &request.field {
            Some(field) => field,
            None => &schema.vectors().next()?.0.name,
        };
        let (Value::Vector(query), true) = (&request.vector, *field == near.field) else { return None };
        if self.spec().indexes.get(field)?.metric != near.metric || query.len() != balls.centers[0].len() {
            return None;
        }
        // The last hit, or, where all that may be asked for was found, the bound beyond which nothing was.
        let last = hits.last().filter(|_| hits.len() >= request.limit).map(|hit| hit.score);
        let bound = f64::from(last.or(request.radius)?);
        // Scores are sums in 32 bits, one for each number.
        let slack = query.len() as f64 / f64::from(1u32 << 22);
        let bound = if balls.cosine { chord(1.0 - bound + slack) } else { (bound * (1.0 + slack)).sqrt() };
        let query = wide(query, balls.cosine)?;
        Some(balls.centers.iter().any(|center| (apart(center, &query) + bound) * (1.0 + 1e-9) <= balls.radius))
    }

    /// Whether all rows of each hub are here, or on their way.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.inner.state.read().expect("no panic while held");
        state.progress().parts.values().all(|kept| kept.part == WHOLE && kept.reshape.is_none())
    }
}
