use std::sync::Arc;

use super::NAME;
use crate::base::codec::Reader;
use crate::base::{Error, ErrorKind, Lsn, Result};
use crate::db::source::{Asked, Flow, Positions, SourceReader, SourceSettings};
use crate::db::stream::{Change, ChangeStream, ChangesRequest, Pace, ResumeToken, Since};
use crate::db::{Collection, Db};
use crate::model::{META_COLUMN, Value};
use crate::stream::bus::{BusSource, Event, Shape};

/// After a failure a source is tried again so much later.
pub(super) const RETRY_MS: u64 = 1_000;

/// The name of what keeps the past of a source for the bus.
pub(super) fn subscription(name: &str) -> String {
    format!("{NAME}-{name}")
}

/// A source of the bus as it is read.
pub(super) struct Reading {
    pub name: String,
    pub spec: BusSource,
    from: From,
    /// The fields that its rows were taken to have.
    pub fields: usize,
    pub events: u64,
    pub is_caught_up: bool,
    pub reason: Option<Error>,
    pub retry_at_ms: u64,
}

enum From {
    Application,
    /// What it reads was not there when the store was opened: it is looked for again.
    Missing,
    Changes {
        collection: Collection,
        /// Up to where it was read; none before all rows of `full` were.
        position: Option<Lsn>,
        /// Open while it is read: whoever is interrupted goes on from the position.
        stream: Option<Box<ChangeStream>>,
    },
    Rows {
        positions: Positions,
        /// Up to where it is done.
        noted: Positions,
        reader: Option<Box<SourceReader>>,
    },
}

/// Events that were read of a partition, and up to where.
pub(super) struct Came {
    pub partition: u32,
    pub events: Vec<Event>,
    pub position: Option<Vec<u8>>,
    pub has_more: bool,
}

pub(super) fn position_of(bytes: &[u8]) -> Result<Lsn> {
    Ok(Lsn(Reader::new(bytes).u64()?))
}

/// What the rows of a source have.
///
/// # Errors
/// `NotFound` for a collection or a stream that is not there.
pub(super) fn shape(db: &Db, source: &BusSource) -> Result<(Shape, usize)> {
    if let Some(name) = &source.collection {
        let spec = db.collection(name)?.spec().clone();
        let fields = spec.schema.fields();
        return Ok((Shape::new(fields, spec.schema.dynamic())?, fields.len()));
    }
    if let Some(name) = &source.stream {
        let stream = db.push_stream(name)?;
        return Ok((Shape::new(&stream.relation().fields, false)?, 0));
    }
    Ok((Shape::new(&[], true)?, 0))
}

/// The request for the changes of a collection from a position on.
fn request(source: &BusSource, since: Since) -> ChangesRequest {
    ChangesRequest {
        since,
        before: true,
        output_fields: source.output_fields.clone(),
        batch_size: source.batch_size,
        // The subscription keeps what is not read yet.
        buffer_size: u64::MAX,
        ..ChangesRequest::default()
    }
}

fn token(collection: &Collection, lsn: Lsn) -> ResumeToken {
    let (replica, collection) = (collection.inner.shared.replica, collection.id());
    ResumeToken { replica, collection, lsn, fields: u64::MAX }
}

/// A change as an event.
pub(super) fn event(source: &Arc<str>, change: Change, before: bool, replay: Option<u64>) -> Event {
    let is_delete = change.after.is_none();
    let told = before.then(|| change.before.clone()).flatten();
    let mut row = change.after.or(change.before).unwrap_or_default();
    row.retain(|name, _| name != META_COLUMN);
    Event {
        source: source.clone(),
        kind: change.kind.as_str().into(),
        key: Some(change.key),
        at_ms: change.version.timestamp.physical_ms(),
        row,
        before: told.filter(|_| !is_delete),
        replay,
    }
}

impl Reading {
    /// One that is there already, or begins: what comes from now on is kept for it, durably, unless it begins with all rows.
    pub async fn open(db: &Db, name: &str, spec: &BusSource) -> Result<Self> {
        let (_, fields) = shape(db, spec)?;
        let from = match (&spec.collection, &spec.stream) {
            (Some(collection), _) => {
                let collection = db.collection(collection)?;
                let (held, stream) = (subscription(name), None);
                let position = match collection.subscriptions().get(&held) {
                    Some(lsn) => Some(*lsn),
                    None => {
                        let since: Since = spec.since.as_deref().unwrap_or("now").parse()?;
                        let stream = collection.changes(request(spec, since)).await?;
                        match stream.token() {
                            Some(token) => {
                                collection.hold_from(&held, token.lsn).await?;
                                Some(token.lsn)
                            }
                            None => None,
                        }
                    }
                };
                From::Changes { collection, position, stream }
            }
            (None, Some(stream)) => {
                let pushed = db.push_stream(stream)?;
                let positions = pushed.positions_of(&subscription(name));
                let mut from = From::Rows { positions, noted: Positions::new(), reader: None };
                from.connect(db, name, stream).await?;
                if let From::Rows { noted, .. } = &mut from {
                    *noted = pushed.positions_of(&subscription(name));
                }
                from
            }
            (None, None) => From::Application,
        };
        let name = name.to_owned();
        let spec = spec.clone();
        Ok(Self { name, spec, from, fields, events: 0, is_caught_up: false, reason: None, retry_at_ms: 0 })
    }

    /// One whose collection or stream is not there, for that reason.
    pub fn missing(name: &str, spec: &BusSource, reason: Error) -> Self {
        Self {
            name: name.to_owned(),
            spec: spec.clone(),
            from: From::Missing,
            fields: usize::MAX,
            events: 0,
            is_caught_up: false,
            reason: Some(reason),
            retry_at_ms: 0,
        }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self.from, From::Missing)
    }

    /// It is read with another specification from where it is.
    pub async fn change(&mut self, db: &Db, spec: &BusSource) -> Result<()> {
        (self.fields, self.spec) = (shape(db, spec)?.1, spec.clone());
        (self.reason, self.retry_at_ms) = (None, 0);
        if let From::Changes { stream, .. } = &mut self.from {
            *stream = None;
        }
        Ok(())
    }

    /// The collection that it reads, where it reads one.
    pub fn collection(&self) -> Option<&Collection> {
        match &self.from {
            From::Changes { collection, .. } => Some(collection),
            From::Application | From::Missing | From::Rows { .. } => None,
        }
    }

    /// The next events that are there, perhaps none.
    pub async fn next(&mut self, db: &Db, now_ms: u64) -> Result<Came> {
        let source: Arc<str> = self.name.as_str().into();
        match &mut self.from {
            From::Application | From::Missing => {
                self.is_caught_up = true;
                Ok(Came { partition: 0, events: vec![], position: None, has_more: false })
            }
            From::Changes { collection, position, stream } => {
                let mut open = match stream.take() {
                    Some(open) => open,
                    None => {
                        let since = match position {
                            Some(lsn) => Since::Token(token(collection, *lsn)),
                            None => self.spec.since.as_deref().unwrap_or("now").parse()?,
                        };
                        Box::new(collection.changes(request(&self.spec, since)).await?)
                    }
                };
                let batch = open.ready().await?;
                let before = self.spec.before;
                let events: Vec<Event> =
                    batch.changes.into_iter().map(|change| event(&source, change, before, None)).collect();
                let reached = batch.token.map(|token| token.lsn);
                let has_moved = reached.is_some() && (reached != *position || !events.is_empty());
                (*position, *stream) = (reached.or(*position), Some(open));
                self.is_caught_up = batch.is_caught_up;
                self.events += events.len() as u64;
                let bytes = reached.filter(|_| has_moved).map(|lsn| lsn.0.to_le_bytes().to_vec());
                Ok(Came { partition: 0, events, position: bytes, has_more: !batch.is_caught_up })
            }
            From::Rows { positions, reader, .. } => {
                let mut open = match reader.take() {
                    Some(open) => open,
                    None => {
                        let stream = self.spec.stream.as_deref().unwrap_or_default();
                        self.from.connect(db, &self.name, stream).await?;
                        return Ok(Came { partition: 0, events: vec![], position: None, has_more: true });
                    }
                };
                let batch = open.read(self.spec.batch_size, now_ms).await?;
                positions.clone_from(open.positions());
                *reader = Some(open);
                let event = |row| Event {
                    source: source.clone(),
                    kind: "push".into(),
                    key: None,
                    at_ms: now_ms,
                    row,
                    before: None,
                    replay: None,
                };
                let events: Vec<Event> = batch.rows.into_iter().map(event).collect();
                self.is_caught_up = batch.flow != Flow::More;
                self.events += events.len() as u64;
                Ok(Came { partition: batch.partition, events, position: batch.position, has_more: !self.is_caught_up })
            }
        }
    }

    /// Notes where it lasts that all up to `position` is done.
    pub async fn note(&mut self, partition: u32, position: &[u8]) -> Result<()> {
        match &mut self.from {
            From::Application | From::Missing => Ok(()),
            From::Changes { collection, .. } => {
                let (name, lsn) = (subscription(&self.name), position_of(position)?);
                if collection.subscriptions().contains_key(&name) {
                    collection.hold_on(&name, lsn).await
                } else {
                    collection.hold_from(&name, lsn).await
                }
            }
            From::Rows { reader, noted, .. } => match reader {
                Some(reader) => {
                    // With those before it, which may be behind: of what is not named all counts as done.
                    noted.insert(partition, position.to_vec());
                    reader.commit(noted).await
                }
                None => Err(Error::new(ErrorKind::Unavailable, "the stream is not connected")),
            },
        }
    }

    /// Nothing is kept for it any more.
    pub async fn retire(self, db: &Db) -> Result<()> {
        match self.from {
            From::Application | From::Missing => Ok(()),
            From::Changes { collection, .. } => {
                let name = subscription(&self.name);
                if collection.subscriptions().contains_key(&name) {
                    collection.unsubscribe(&name).await?;
                }
                Ok(())
            }
            From::Rows { .. } => {
                let stream = self.spec.stream.as_deref().unwrap_or_default();
                match db.push_stream(stream) {
                    Ok(stream) => stream.retire(&subscription(&self.name)).await,
                    // With the stream it went.
                    Err(_) => Ok(()),
                }
            }
        }
    }

    /// When there may be something to read though nothing comes.
    pub fn due_ms(&self) -> Option<u64> {
        if self.reason.is_some() {
            return Some(self.retry_at_ms);
        }
        match &self.from {
            From::Rows { reader, .. } => reader.as_deref().and_then(SourceReader::wake_ms),
            From::Application | From::Missing | From::Changes { .. } => None,
        }
    }

    /// How many transactions, or rows, are to be read; and the token after what was read of a collection.
    pub fn behind(&self) -> (u64, Option<String>) {
        match &self.from {
            From::Application | From::Missing => (0, None),
            From::Changes { collection, position, .. } => {
                let behind = collection.lsn().0.saturating_sub(position.unwrap_or_default().0);
                (behind, position.map(|lsn| token(collection, lsn).to_string()))
            }
            From::Rows { reader, .. } => (reader.as_deref().and_then(SourceReader::waiting).unwrap_or_default(), None),
        }
    }
}

impl From {
    async fn connect(&mut self, db: &Db, name: &str, stream: &str) -> Result<()> {
        let Self::Rows { positions, reader, .. } = self else { return Ok(()) };
        let relation = db.push_stream(stream)?.relation().clone();
        let options = serde_json::json!({ "stream": stream });
        let asked = Asked { name, reader: &subscription(name), relation: &relation, options: &options };
        let source = db.open_source(crate::db::push::CONNECTOR, &asked)?;
        let connected = SourceReader::connect(source, SourceSettings::default(), positions.clone()).await?;
        *reader = Some(Box::new(connected));
        Ok(())
    }
}

/// What comes again of a collection.
pub(super) struct Replaying {
    pub id: u64,
    pub source: Arc<str>,
    stream: ChangeStream,
    /// The changes up to here are told.
    until: Lsn,
    pace: Pace,
    pub handlers: Vec<String>,
    before: bool,
    held: std::collections::VecDeque<Event>,
    /// When the first of them is due.
    due_ms: u64,
    is_read: bool,
}

/// A part of a replay.
pub(super) struct Again {
    pub events: Vec<Event>,
    pub is_over: bool,
}

impl Replaying {
    /// One of what a source has read and has still to read; the rest of it waits.
    pub fn open(
        id: u64,
        reading: &Reading,
        since: Since,
        pace: Pace,
        handlers: Vec<String>,
    ) -> Result<impl Future<Output = Result<Self>> + use<>> {
        let Some(collection) = reading.collection().cloned() else {
            let message =
                format!("source {:?} of the bus is no collection: only their changes can be replayed", reading.name);
            return Err(Error::invalid(message));
        };
        let (until, request) = (collection.lsn(), request(&reading.spec, since));
        let (source, before) = (reading.name.as_str().into(), reading.spec.before);
        Ok(async move {
            let stream = collection.changes(request).await?;
            let (held, due_ms, is_read) = (Default::default(), 0, false);
            Ok(Self { id, source, stream, until, pace, handlers, before, held, due_ms, is_read })
        })
    }

    /// The events that are due now.
    pub async fn next(&mut self, now_ms: u64) -> Result<Again> {
        if self.held.is_empty() && !self.is_read {
            let batch = self.stream.ready().await?;
            let is_wanted = |change: &Change| change.lsn <= self.until;
            self.is_read = batch.is_caught_up || batch.token.is_some_and(|token| token.lsn >= self.until);
            let events = batch.changes.into_iter().filter(is_wanted);
            self.held = events.map(|change| event(&self.source, change, self.before, Some(self.id))).collect();
        }
        let mut events = vec![];
        while let Some(event) = self.held.front() {
            self.due_ms = self.pace.due_ms(event.at_ms, now_ms);
            if self.due_ms > now_ms {
                break;
            }
            events.extend(self.held.pop_front());
        }
        Ok(Again { events, is_over: self.is_read && self.held.is_empty() })
    }

    /// When the next event is due; 0 for at once.
    pub fn due_ms(&self) -> u64 {
        if self.held.is_empty() { 0 } else { self.due_ms }
    }
}

/// A row of the application, and what is said of it.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Published {
    /// What it is: `event` with `None`.
    pub kind: Option<String>,
    /// The key that it is about, a number or a text.
    pub key: Option<crate::model::Key>,
    /// The row.
    pub row: crate::model::Row,
}

impl Published {
    pub(super) fn into_event(self, source: &Arc<str>, now_ms: u64) -> Event {
        let kind = self.kind.as_deref().unwrap_or("event").into();
        let row = self.row.into_iter().filter(|(_, value)| *value != Value::Null).collect();
        Event { source: source.clone(), kind, key: self.key, at_ms: now_ms, row, before: None, replay: None }
    }
}
