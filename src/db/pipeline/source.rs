use arrow_array::RecordBatch;

use super::spec::PipelineSource;
use crate::base::codec::{Reader, Write};
use crate::base::{CollectionId, Error, ErrorKind, Lsn, ReplicaId, Result, Version};
use crate::db::source::{SourceMode, check_pace};
use crate::db::stream::{ChangeBatch, ChangeKind, ChangeStream, ChangesRequest, ResumeToken, Since};
use crate::db::{Collection, QueryIterator, QueryRequest};
use crate::engine::View;
use crate::model::{DataType, Key, Row, Value};
use crate::query::Parameters;
use crate::query::compute::canonical;
use crate::stream::Relation;

const VERSION_FIELD: &str = "$version";

/// How far a source was read, as a job keeps it.
///
/// | bytes | |
/// |---|---|
/// | 8 | the replica |
/// | 8 | the collection's id |
/// | 8 | a position of its log |
/// | 1 | 0: read up to there. 1: of the rows that were there then, none was read; 2: those up to a key were, an `int64`; 3: a text |
/// | n | the key |
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Position {
    pub replica: ReplicaId,
    pub collection: CollectionId,
    pub lsn: Lsn,
    /// Of the rows that were there then, those that were read; `None` when all were.
    pub seeding: Option<Option<Key>>,
}

impl Position {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.replica.0);
        out.put_u64(self.collection.0);
        out.put_u64(self.lsn.0);
        match &self.seeding {
            None => out.put_u8(0),
            Some(None) => out.put_u8(1),
            Some(Some(Key::Int(key))) => {
                out.put_u8(2);
                out.put_u64(*key as u64);
            }
            Some(Some(Key::String(key))) => {
                out.put_u8(3);
                out.put_bytes(key.as_bytes());
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (replica, collection) = (ReplicaId(reader.u64()?), CollectionId(reader.u64()?));
        let lsn = Lsn(reader.u64()?);
        let seeding = match reader.u8()? {
            0 => None,
            1 => Some(None),
            2 => Some(Some(Key::Int(reader.u64()? as i64))),
            3 => {
                let text = std::str::from_utf8(reader.bytes(reader.remaining())?);
                Some(Some(Key::from(text.map_err(|_| Error::corrupt("a key that is no text"))?)))
            }
            other => return Err(Error::corrupt(format!("a position of kind {other}"))),
        };
        Ok(Self { replica, collection, lsn, seeding })
    }
}

/// Rows of a source, and how far it was read with them.
pub(super) struct Came {
    pub batch: RecordBatch,
    pub taken_back: Option<Vec<bool>>,
    /// Rows that are none of the source's, and why.
    pub wrong: Vec<(Row, String)>,
    pub is_caught_up: bool,
}

/// A collection that is read as a source of a plan.
pub(super) struct Reading {
    pub node: String,
    pub collection: Collection,
    relation: Relation,
    /// The field that takes the time of the write.
    commit_time: Option<String>,
    /// Whether rows are taken back when they change.
    changes: bool,
    batch_rows: usize,
    pub position: Position,
    rows: Option<QueryIterator>,
    stream: Option<ChangeStream>,
    /// So many times as fast as they were written, changes of the past are taken; `None` from when none is left.
    pace: Option<f64>,
    /// When a change was written, and when it was taken.
    paced_from: Option<(u64, u64)>,
    /// A transaction that was read and is not due yet.
    held: Option<ChangeBatch>,
    pub read: u64,
}

/// That a collection has what a source tells of its rows.
pub(super) fn check(collection: &Collection, source: &PipelineSource, relation: &Relation) -> Result<()> {
    let schema = &collection.spec().schema;
    if source.mode != SourceMode::default() {
        return Err(Error::invalid("a `mode` is for connectors: rows of a collection are taken as they are written"));
    }
    if let Some(pace) = source.pace {
        check_pace(pace)?;
        if source.since.as_deref().unwrap_or("full") == "full" {
            let message =
                "a pace is for changes in the order in which they were written: with `since` other than `full`";
            return Err(Error::invalid(message));
        }
    }
    let of = |what: String| Err(Error::invalid(format!("collection {:?}: {what}", collection.name())));
    for field in &relation.fields {
        if source.commit_time.as_ref() == Some(&field.name) {
            if field.data_type != DataType::Timestamp {
                return of(format!(
                    "the time of the write is a timestamp, `{}` is {}",
                    field.name,
                    field.data_type.name()
                ));
            }
            if relation.retracts {
                return of("rows that are taken back go by no time of their write: have the source's rows be events"
                    .to_owned());
            }
            continue;
        }
        match schema.field(&field.name) {
            Some(there) if canonical(there.data_type) == Some(field.data_type) => {}
            Some(there) => {
                let (is, wanted) = (there.data_type.name(), field.data_type.name());
                return of(format!("its field `{}` is {is}, the source has it as {wanted}", field.name));
            }
            None if schema.dynamic() => {}
            None => return of(format!("it has no field `{}`, which the source has", field.name)),
        }
    }
    Ok(())
}

/// When a transaction was written, in milliseconds since 1970.
fn written_ms(batch: &ChangeBatch) -> Option<u64> {
    batch.changes.first().map(|change| change.version.timestamp.physical_ms())
}

/// Where a source begins, and what holds that place until its subscription does.
pub(super) async fn begin(collection: &Collection, source: &PipelineSource, subscription: &str) -> Result<Position> {
    let (replica, id) = (collection.inner.shared.replica, collection.id());
    let at = |lsn, seeding| Position { replica, collection: id, lsn, seeding };
    let since: Since = source.since.as_deref().unwrap_or("full").parse()?;
    if since == Since::Full {
        let snapshot = collection.snapshot()?;
        let lsn = snapshot.lsn();
        collection.hold_from(subscription, lsn).await?;
        return Ok(at(lsn, Some(None)));
    }
    let stream = collection.changes(ChangesRequest { since, ..ChangesRequest::default() }).await?;
    let token = stream.token().ok_or_else(|| Error::internal("a stream without a token"))?;
    collection.hold_from(subscription, token.lsn).await?;
    Ok(at(token.lsn, None))
}

impl Reading {
    pub fn new(
        node: &str,
        collection: Collection,
        source: &PipelineSource,
        relation: Relation,
        batch_rows: usize,
        position: Position,
    ) -> Result<Self> {
        let here = (collection.inner.shared.replica, collection.id());
        if (position.replica, position.collection) != here {
            let message = format!(
                "collection {:?} is another one than the pipeline has read: it was dropped, or came with another store",
                collection.name()
            );
            return Err(Error::new(ErrorKind::Gone, message));
        }
        let changes = relation.retracts;
        let (node, commit_time) = (node.to_owned(), source.commit_time.clone());
        Ok(Self {
            node,
            collection,
            relation,
            commit_time,
            changes,
            batch_rows,
            position,
            rows: None,
            stream: None,
            pace: source.pace,
            paced_from: None,
            held: None,
            read: 0,
        })
    }

    /// When a transaction is due that was written at `written_ms`.
    fn paced_ms(&self, written_ms: u64) -> Option<u64> {
        let ((from_ms, taken_ms), pace) = (self.paced_from?, self.pace?);
        Some(taken_ms.saturating_add((written_ms.saturating_sub(from_ms) as f64 / pace) as u64))
    }

    /// When it is to be read again though nothing is written until then.
    pub fn wake_ms(&self) -> Option<u64> {
        self.held.as_ref().and_then(written_ms).and_then(|written_ms| self.paced_ms(written_ms))
    }

    /// How many transactions of its log are to come.
    pub fn behind(&self) -> u64 {
        self.collection.lsn().0.saturating_sub(self.position.lsn.0)
    }

    fn fields(&self) -> Vec<String> {
        let fields = self.relation.fields.iter().map(|field| field.name.clone());
        fields.filter(|name| self.commit_time.as_ref() != Some(name)).collect()
    }

    /// The next rows that are there, perhaps none.
    pub async fn next(&mut self, now_ms: u64) -> Result<Came> {
        if let Some(after) = &self.position.seeding {
            let after = after.clone();
            return self.next_rows(after).await;
        }
        if self.stream.is_none() {
            let operations = if self.changes { vec![] } else { vec![ChangeKind::Insert] };
            let token = ResumeToken {
                replica: self.position.replica,
                collection: self.position.collection,
                lsn: self.position.lsn,
                fields: u64::MAX,
            };
            let request = ChangesRequest {
                since: Since::Token(token),
                operations,
                before: self.changes,
                output_fields: Some(self.fields()),
                // Those that are taken one after the other are read so: each has its position.
                batch_size: if self.pace.is_some() { 1 } else { self.batch_rows },
                // The subscription keeps what is not read yet.
                buffer_size: u64::MAX,
                ..ChangesRequest::default()
            };
            self.stream = Some(self.collection.changes(request).await?);
        }
        let stream = self.stream.as_mut().ok_or_else(|| Error::internal("a source without a stream"))?;
        let batch = match self.held.take() {
            Some(batch) => batch,
            None => match stream.ready().await {
                Ok(batch) => batch,
                Err(error) => {
                    self.stream = None;
                    return Err(error);
                }
            },
        };
        if let Some(written_ms) = written_ms(&batch).filter(|_| self.pace.is_some()) {
            if self.paced_ms(written_ms).is_some_and(|due_ms| due_ms > now_ms) {
                self.held = Some(batch);
                return Ok(self.came(vec![], None, true));
            }
            self.paced_from.get_or_insert((written_ms, now_ms));
        }
        if batch.is_caught_up && self.pace.take().is_some() {
            // The past is over: what is written from now on comes as it is written.
            self.stream = None;
        }
        let (mut rows, mut taken_back) = (Vec::with_capacity(batch.changes.len()), vec![]);
        for change in batch.changes {
            // Who wrote the row before is not told: what goes by the time of the write cannot take it back.
            for (row, back) in [(change.before.filter(|_| self.changes), true), (change.after, false)] {
                let Some(mut row) = row else { continue };
                self.stamp(&mut row, change.version);
                rows.push(row);
                taken_back.push(back);
            }
        }
        if let Some(token) = batch.token {
            self.position.lsn = token.lsn;
        }
        Ok(self.came(rows, self.changes.then_some(taken_back), batch.is_caught_up))
    }

    async fn next_rows(&mut self, after: Option<Key>) -> Result<Came> {
        let primary = self.collection.spec().schema.primary_key().name.clone();
        if self.rows.is_none() {
            self.collection.inner.state.read().expect("no panic while held").check_feed(self.position.lsn)?;
            let snapshot = self.collection.snapshot_of(View { lsn: self.position.lsn, ..View::NOW });
            let mut fields = self.fields();
            fields.extend([primary.clone(), VERSION_FIELD.to_owned()]);
            let mut request = QueryRequest { output_fields: Some(fields), ..QueryRequest::default() };
            if let Some(key) = after {
                request.filter = Some(format!("{primary} > {{after}}"));
                let key = match key {
                    Key::Int(key) => Value::Int(key),
                    Key::String(key) => Value::String(key.into()),
                };
                request.filter_params = Parameters::from([("after".to_owned(), key)]);
            }
            self.rows = Some(snapshot.query_iterator(request)?);
        }
        let iterator = self.rows.as_mut().ok_or_else(|| Error::internal("a source without rows"))?;
        let mut rows = iterator.next(self.batch_rows).await?;
        match rows.last() {
            Some(last) => self.position.seeding = Some(Some(crate::db::stream::key_of(last, &primary)?)),
            None => {
                self.position.seeding = None;
                self.rows = None;
            }
        }
        for row in &mut rows {
            let version = match row.remove(VERSION_FIELD) {
                Some(Value::String(version)) => version.parse()?,
                _ => Version::default(),
            };
            self.stamp(row, version);
        }
        Ok(self.came(rows, None, false))
    }

    fn stamp(&self, row: &mut Row, version: Version) {
        if let Some(name) = &self.commit_time {
            let time = i64::try_from(version.timestamp.physical_ms()).unwrap_or(0).saturating_mul(1_000);
            row.insert(name.clone(), Value::Int(time));
        }
    }

    fn came(&mut self, rows: Vec<Row>, taken_back: Option<Vec<bool>>, is_caught_up: bool) -> Came {
        self.read += rows.len() as u64;
        let (batch, wrong) = self.relation.batch(&rows);
        let taken_back = taken_back.map(|taken_back| {
            let is_wrong = |at: usize| wrong.binary_search_by_key(&at, |(number, _)| *number).is_ok();
            taken_back.into_iter().enumerate().filter(|(at, _)| !is_wrong(*at)).map(|(_, back)| back).collect()
        });
        let wrong = wrong.into_iter().map(|(at, what)| (rows[at].clone(), what)).collect();
        Came { batch, taken_back, wrong, is_caught_up }
    }
}
