use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::live::key_of;
use super::{Change, ChangeBatch, ChangeKind, ChangesRequest, ResumeToken, Since};
use crate::base::{Error, ErrorKind, Lsn, Result, SegmentId};
use crate::db::commit::Request;
use crate::db::search::row_of;
use crate::db::{Collection, QueryIterator, QueryRequest};
use crate::engine::{CollectionState, Fed, Place, View};
use crate::model::{META_COLUMN, Row, Value};
use crate::query::{Filter, Parameters};
use crate::segment::{BlockRef, Blocks};

/// The output field that tells a row's version.
const VERSION_FIELD: &str = "$version";
/// The longest name of a subscription, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The most subscriptions of a collection.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// The history that is kept for a stream.
pub(in crate::db) struct Follower {
    /// After which position; none when it has fallen too far behind.
    held: Mutex<Option<Lsn>>,
    /// How far it may fall behind.
    behind_max: u64,
}

/// The changes of a collection, in the order of its log: every one once, none left out.
///
/// It stands still while nobody asks for more, and keeps what it has not told as far as [`ChangesRequest::buffer_size`] allows. It does not
/// outlive the store's being open; a token or a subscription goes on after that.
pub struct ChangeStream {
    collection: Collection,
    request: ChangesRequest,
    filter: Option<Filter>,
    keys: Option<Filter>,
    /// The rows that may be told at all.
    limit: Option<Filter>,
    /// The fields of the schema that was told.
    fields: usize,
    position: Lsn,
    full: Option<QueryIterator>,
    follower: Arc<Follower>,
    /// Whether its subscription is not there before something is acknowledged.
    is_pending: bool,
}

fn view(lsn: Lsn) -> View {
    View { lsn, ..View::NOW }
}

impl Collection {
    /// Follows what happens.
    ///
    /// # Errors
    /// `Gone` when changes after the place where it is to begin are missing, `InvalidArgument` for what is wrong with the request.
    pub async fn changes(&self, request: ChangesRequest) -> Result<ChangeStream> {
        self.inner.shared.check_open()?;
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &[])?;
        let keys = self.key_filter(request.key_pattern.as_deref())?;
        let limit = self.limits.read.limit(None, &self.spec().schema)?;
        self.output_fields(request.output_fields.as_deref())?;
        if let Some(name) = &request.subscription {
            self.check_subscription(name)?;
        }
        let mut fields = self.spec().schema.fields().len();
        let (position, is_new) = {
            let mut state = self.inner.state.write().expect("no panic while held");
            let named = request.subscription.as_ref().map(|name| state.progress().cursors.get(name).copied());
            let position = match (named.flatten(), request.since) {
                (Some(position), _) => position,
                (None, Since::Now | Since::Full) => state.progress().lsn,
                (None, Since::Earliest) => state.progress().gone,
                (None, Since::Time(timestamp)) => state.feed_since(timestamp)?,
                (None, Since::Token(token)) => {
                    self.check_token(&token)?;
                    // Never more than there are: then nothing has changed.
                    fields = fields.min(usize::try_from(token.fields).unwrap_or(usize::MAX));
                    token.lsn
                }
            };
            state.check_feed(position)?;
            state.hold(view(position));
            (position, named == Some(None))
        };
        let follower = Arc::new(Follower { held: Mutex::new(Some(position)), behind_max: request.buffer_size });
        {
            let mut followers = self.inner.followers.lock().expect("no panic while held");
            followers.retain(|follower| follower.strong_count() > 0);
            followers.push(Arc::downgrade(&follower));
        }
        let subscription = request.subscription.clone();
        let begins = subscription.is_none() || is_new;
        let full = (begins && request.since == Since::Full).then(|| self.rows_at(position, &request)).transpose()?;
        // What comes before its first acknowledgement would be lost to who is interrupted.
        let is_pending = is_new && matches!(request.since, Since::Full | Since::Token(_));
        let stream = ChangeStream {
            collection: self.clone(),
            request,
            filter,
            keys,
            limit,
            fields,
            position,
            full,
            follower,
            is_pending,
        };
        if let Some(name) = subscription.filter(|_| is_new && !is_pending) {
            self.begin_subscription(name, position).await?;
        }
        Ok(stream)
    }

    /// Ends a subscription: nothing is kept for it any more. False when there is none of that name.
    pub async fn unsubscribe(&self, name: &str) -> Result<bool> {
        let there = self.subscriptions().contains_key(name);
        self.write(Request::SetCursor { name: name.to_owned(), lsn: None }, None).await?;
        Ok(there)
    }

    /// The subscriptions, and how far each has got.
    pub fn subscriptions(&self) -> BTreeMap<String, Lsn> {
        self.inner.state.read().expect("no panic while held").progress().cursors.clone()
    }

    /// Notes durably, with the next sync of the log, that whoever follows by that name has done all up to `token`: it goes on after it.
    /// A crash may take that back, and then some changes come again.
    ///
    /// # Errors
    /// `NotFound` when there is no such subscription, `Gone` for a token of another log.
    pub async fn acknowledge(&self, subscription: &str, token: &ResumeToken) -> Result<()> {
        self.acknowledge_or_begin(subscription, token, false).await
    }

    async fn acknowledge_or_begin(&self, subscription: &str, token: &ResumeToken, begin: bool) -> Result<()> {
        self.check_token(token)?;
        let (there, newest) = {
            let state = self.inner.state.read().expect("no panic while held");
            (state.progress().cursors.get(subscription).copied(), state.progress().lsn)
        };
        let there = there.or_else(|| begin.then_some(Lsn(0)));
        let there = there.ok_or_else(|| Error::not_found(format!("there is no subscription {subscription:?}")))?;
        if token.lsn > newest {
            return Err(Error::invalid(format!("position {} is past the newest, {newest}", token.lsn)));
        }
        let name = subscription.to_owned();
        if begin {
            self.begin_subscription(name, token.lsn).await?;
        } else if token.lsn > there {
            self.write(Request::SetCursor { name, lsn: Some(token.lsn) }, None).await?;
        }
        Ok(())
    }

    /// A position may be lost in a crash, but not that there is one.
    async fn begin_subscription(&self, name: String, position: Lsn) -> Result<()> {
        self.write(Request::SetCursor { name, lsn: Some(position) }, None).await?;
        self.sync_log(&mut *self.inner.log.lock().await).await
    }

    /// Keeps what comes after `lsn`, by the name of a subscription, durably.
    #[cfg(feature = "streams")]
    pub(in crate::db) async fn hold_from(&self, name: &str, lsn: Lsn) -> Result<()> {
        self.begin_subscription(name.to_owned(), lsn).await
    }

    /// The same, where a crash may take it back: then more is kept.
    #[cfg(feature = "streams")]
    pub(in crate::db) async fn hold_on(&self, name: &str, lsn: Lsn) -> Result<()> {
        self.write(Request::SetCursor { name: name.to_owned(), lsn: Some(lsn) }, None).await.map(drop)
    }

    /// Lets go of the history that is kept for who has fallen too far behind.
    pub(in crate::db) fn let_go_of_slow(&self) {
        let followers = self.inner.followers.lock().expect("no panic while held");
        if followers.is_empty() {
            return;
        }
        let newest = self.lsn();
        for follower in followers.iter().filter_map(std::sync::Weak::upgrade) {
            let mut held = follower.held.lock().expect("no panic while held");
            if let Some(lsn) = held.take_if(|lsn| newest.0.saturating_sub(lsn.0) > follower.behind_max) {
                self.inner.state.write().expect("no panic while held").release(view(lsn));
            }
        }
    }

    fn check_subscription(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a subscription's name has 1 to {NAME_BYTES_MAX} bytes, got {}",
                name.len()
            )));
        }
        let there = self.subscriptions();
        if !there.contains_key(name) && there.len() >= SUBSCRIPTIONS_MAX {
            return Err(Error::invalid(format!("a collection has at most {SUBSCRIPTIONS_MAX} subscriptions")));
        }
        Ok(())
    }

    fn check_token(&self, token: &ResumeToken) -> Result<()> {
        let here = (self.inner.shared.replica, self.id());
        if (token.replica, token.collection) != here {
            let message =
                format!("token {token} is of another log: of another replica, or of a collection that was dropped");
            return Err(Error::new(ErrorKind::Gone, message));
        }
        Ok(())
    }

    fn key_filter(&self, pattern: Option<&str>) -> Result<Option<Filter>> {
        let Some(pattern) = pattern else { return Ok(None) };
        let schema = &self.spec().schema;
        let text = format!("{} like {{pattern}}", schema.primary_key().name);
        let parameters = Parameters::from([("pattern".to_owned(), Value::String(pattern.to_owned()))]);
        let filter = Filter::parse_with(&text, schema, &parameters);
        filter.map(Some).map_err(|error| Error::invalid(format!("keyPattern: {}", error.message())))
    }

    /// Those output fields, with the key and the version.
    pub(super) fn versioned(&self, fields: Option<&[String]>) -> Result<Vec<String>> {
        let schema = &self.spec().schema;
        let mut fields = match self.output_fields(fields)? {
            Some(fields) => fields,
            None => {
                let scalars = schema.fields().iter().filter(|field| !field.data_type.is_vector());
                let scalars = scalars.map(|field| field.name.clone());
                scalars.chain(schema.dynamic().then(|| META_COLUMN.to_owned())).collect()
            }
        };
        fields.extend([schema.primary_key().name.clone(), VERSION_FIELD.to_owned()]);
        Ok(fields)
    }

    /// The rows as they are at a position that is held.
    fn rows_at(&self, position: Lsn, request: &ChangesRequest) -> Result<QueryIterator> {
        let snapshot = self.snapshot_of(view(position));
        let schema = &self.spec().schema;
        let output_fields = self.versioned(request.output_fields.as_deref())?;
        let mut filters: Vec<String> = Vec::new();
        filters
            .extend(request.filter.as_deref().filter(|text| !text.trim().is_empty()).map(|text| format!("({text})")));
        let mut filter_params = request.filter_params.clone();
        if let Some(pattern) = &request.key_pattern {
            let mut name = "pattern".to_owned();
            while filter_params.contains_key(&name) {
                name.push('_');
            }
            filters.push(format!("{} like {{{name}}}", schema.primary_key().name));
            filter_params.insert(name, Value::String(pattern.clone()));
        }
        let filter = (!filters.is_empty()).then(|| filters.join(" and "));
        let output_fields = Some(output_fields);
        snapshot.query_iterator(QueryRequest { filter, filter_params, output_fields, ..QueryRequest::default() })
    }
}

impl ChangeStream {
    /// Where it goes on: it moves also when nothing comes. None while the rows of [`Since::Full`] are being read.
    pub fn token(&self) -> Option<ResumeToken> {
        self.full.is_none().then(|| ResumeToken {
            replica: self.collection.inner.shared.replica,
            collection: self.collection.id(),
            lsn: self.position,
            fields: self.fields as u64,
        })
    }

    #[cfg(feature = "streams")]
    pub(super) fn collection(&self) -> &Collection {
        &self.collection
    }

    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    /// The next changes, once there are some. To stop waiting without losing any, use [`Self::ready`] and [`Self::waits`].
    ///
    /// # Errors
    /// `Gone` when it has fallen too far behind, `Closed` when the store was closed or the collection dropped.
    pub async fn next(&mut self) -> Result<ChangeBatch> {
        loop {
            let batch = self.ready().await?;
            if !batch.changes.is_empty() || batch.schema.is_some() {
                return Ok(batch);
            }
            if batch.is_caught_up {
                self.waits().await?;
            }
        }
    }

    /// Waits until the log has moved on; may be given up.
    ///
    /// # Errors
    /// `Closed` when the store was closed or the collection dropped.
    pub async fn waits(&self) -> Result<()> {
        self.collection.changed_after(self.position).await.map(drop)
    }

    /// The changes as a stream: each error is its last item.
    #[cfg(feature = "server")]
    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<ChangeBatch>> + Send {
        futures_util::stream::unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            let batch = stream.next().await;
            let rest = batch.is_ok().then_some(stream);
            Some((batch, rest))
        })
    }

    /// The changes that are there, without waiting: perhaps none, though the place where it goes on has moved.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub async fn ready(&mut self) -> Result<ChangeBatch> {
        self.collection.inner.shared.check_open()?;
        if self.collection.inner.ended.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the collection was closed or dropped"));
        }
        if let Some(changes) = self.read_some().await? {
            return Ok(ChangeBatch { changes, token: self.token(), ..ChangeBatch::default() });
        }
        let collection = self.collection.clone();
        let spec = collection.spec();
        let (changes, reached, is_caught_up) = {
            let this = &*self;
            let read = collection.with_blocks(|state, blocks| this.look(state, blocks));
            read.await??
        };
        self.advance(reached)?;
        let has_grown = spec.schema.fields().len() > self.fields;
        self.fields = spec.schema.fields().len();
        let schema = has_grown.then(|| spec.schema.clone());
        Ok(ChangeBatch { schema, changes, token: self.token(), is_caught_up })
    }

    /// Notes durably that all up to `token` was done. See [`Collection::acknowledge`].
    ///
    /// # Errors
    /// `InvalidArgument` for a stream without a subscription.
    pub async fn acknowledge(&mut self, token: &ResumeToken) -> Result<()> {
        let name = self.request.subscription.as_deref();
        let name = name.ok_or_else(|| Error::invalid("the stream has no subscription that could be acknowledged"))?;
        self.collection.acknowledge_or_begin(name, token, self.is_pending).await?;
        self.is_pending = false;
        Ok(())
    }

    /// Some of the rows that were there when it began; `None` when all were told.
    async fn read_some(&mut self) -> Result<Option<Vec<Change>>> {
        let Some(full) = &mut self.full else { return Ok(None) };
        let mut changes = Vec::new();
        let rows = full.next(self.request.batch_size).await?;
        if rows.is_empty() || !self.tells(ChangeKind::Read) {
            self.full = None;
            return Ok(None);
        }
        let schema = &self.collection.spec().schema;
        let name = &schema.primary_key().name;
        let is_told = self
            .request
            .output_fields
            .as_ref()
            .is_none_or(|fields| fields.iter().any(|field| field == name || field == "*"));
        let version_is_told = self.request.output_fields.iter().flatten().any(|field| field == VERSION_FIELD);
        for mut row in rows {
            let key = key_of(&row, name)?;
            let version = match row.get(VERSION_FIELD) {
                Some(Value::String(version)) => version.parse()?,
                _ => return Err(Error::internal("a row without its version")),
            };
            if !version_is_told {
                row.remove(VERSION_FIELD);
            }
            if !is_told {
                row.remove(name);
            }
            let after = self.request.after.then_some(row);
            changes.push(Change { kind: ChangeKind::Read, key, before: None, after, version, lsn: self.position });
        }
        Ok(Some(changes))
    }

    fn tells(&self, kind: ChangeKind) -> bool {
        self.request.operations.is_empty() || self.request.operations.contains(&kind)
    }

    /// The next changes that are told, the position that they reach, and whether there are no more; or the blocks that it takes to tell.
    #[expect(clippy::type_complexity, reason = "the shape that `with_blocks` wants")]
    fn look(
        &self,
        state: &CollectionState,
        blocks: &Blocks,
    ) -> Result<Result<(Vec<Change>, Lsn, bool)>, Vec<BlockRef>> {
        if let Err(error) = state.check_feed(self.position) {
            return Ok(Err(error));
        }
        let (mut fed, reached) = state.feed_after(self.position, self.request.batch_size);
        // Of whom part is hidden is told below what happened.
        fed.retain(|fed| self.limit.is_some() || self.tells(kind_of(fed)));
        let fields = match self.collection.output_fields(self.request.output_fields.as_deref()) {
            Ok(fields) => fields,
            Err(error) => return Ok(Err(error)),
        };
        // All rows that are needed are named before the first is read.
        let mut needs = Vec::new();
        let filters: Vec<&Filter> = self.filter.iter().chain(&self.keys).chain(&self.limit).collect();
        let filtered: BTreeSet<&str> = filters.iter().flat_map(|filter| filter.fields()).collect();
        let is_filtered = !filters.is_empty();
        let tested = rows_of(fed.iter().filter(|_| is_filtered).flat_map(|fed| [fed.before, fed.after]));
        for (segment, rows) in &tested {
            if let Some(slot) = state.slot(*segment) {
                needs.extend(slot.segment.needs(rows, &|column| filtered.contains(column), blocks));
            }
        }
        if !needs.is_empty() {
            return Err(needs);
        }
        if is_filtered {
            let (mut admitted, mut visible) = (BTreeSet::new(), BTreeSet::new());
            for (segment, rows) in &tested {
                let Some(slot) = state.slot(*segment) else { continue };
                let batch = slot.segment.pick(rows, &|column| filtered.contains(column), blocks);
                let masks: Vec<_> = filters.iter().map(|filter| filter.evaluate(batch.scalars())).collect();
                let all = |at: &usize| masks.iter().all(|mask| mask.contains(*at));
                admitted.extend((0..rows.len()).filter(all).map(|at| (*segment, rows[at])));
                if let (Some(_), Some(mask)) = (&self.limit, masks.last()) {
                    visible.extend(mask.iter().map(|at| (*segment, rows[at])));
                }
            }
            let is_admitted =
                |place: Option<Place>| place.is_some_and(|place| admitted.contains(&(place.segment, place.row)));
            if self.limit.is_some() {
                // A row that leaves what may be seen is deleted for who looks, one that comes into it is inserted.
                let seen = |place: &Place| visible.contains(&(place.segment, place.row));
                for fed in &mut fed {
                    fed.before = fed.before.filter(seen);
                    fed.after = fed.after.filter(seen);
                }
                fed.retain(|fed| self.tells(kind_of(fed)));
            }
            fed.retain(|fed| is_admitted(fed.before) || is_admitted(fed.after));
        }
        let told = |fed: &Fed| [fed.before.filter(|_| self.request.before), fed.after.filter(|_| self.request.after)];
        for (segment, rows) in rows_of(fed.iter().flat_map(told)) {
            if let Some(slot) = state.slot(segment) {
                needs.extend(slot.segment.needs(&rows, &slot.segment.wanted(fields.as_deref()), blocks));
            }
        }
        if !needs.is_empty() {
            return Err(needs);
        }
        let row = |place: Option<Place>| -> Option<Row> {
            let Place { segment, row } = place?;
            Some(row_of(&state.slot(segment)?.segment, row as usize, fields.as_deref(), blocks))
        };
        let changes = fed.into_iter().map(|fed| {
            let [before, after] = told(&fed).map(row);
            Change { kind: kind_of(&fed), key: fed.key, before, after, version: fed.version, lsn: fed.lsn }
        });
        Ok(Ok((changes.collect(), reached, reached >= state.progress().lsn)))
    }

    /// Goes on from `reached`; what is before need not be kept for it.
    fn advance(&mut self, reached: Lsn) -> Result<()> {
        if reached > self.position {
            let mut held = self.follower.held.lock().expect("no panic while held");
            let mut state = self.collection.inner.state.write().expect("no panic while held");
            // One that was let go of for being slow, and finds all there by luck, is held again.
            state.check_feed(reached)?;
            state.hold(view(reached));
            if let Some(before) = held.replace(reached) {
                state.release(view(before));
            }
            self.position = reached;
        }
        Ok(())
    }
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        if let Some(lsn) = self.follower.held.lock().expect("no panic while held").take() {
            self.collection.inner.state.write().expect("no panic while held").release(view(lsn));
        }
    }
}

fn kind_of(fed: &Fed) -> ChangeKind {
    match (&fed.before, &fed.after) {
        (Some(_), Some(_)) => ChangeKind::Update,
        (Some(_), None) => ChangeKind::Delete,
        (None, _) => ChangeKind::Insert,
    }
}

/// The rows at some places, by segment, ascending.
fn rows_of(places: impl Iterator<Item = Option<Place>>) -> BTreeMap<SegmentId, Vec<u32>> {
    let mut rows: BTreeMap<SegmentId, BTreeSet<u32>> = BTreeMap::new();
    for Place { segment, row } in places.flatten() {
        rows.entry(segment).or_default().insert(row);
    }
    rows.into_iter().map(|(segment, rows)| (segment, rows.into_iter().collect())).collect()
}
