//! Who may do what with which collections, and with which of their rows.
//!
//! An [`Access`] is what somebody was granted. [`Collection::limited`] gives a handle by which nothing else can be done: each read of it
//! sees only rows that may be read, and a write is refused unless every row that it makes, replaces or deletes may be written. Who
//! somebody is, a [`Gate`] decides, which whoever serves the store brings along.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commit::{Request, Step};
use super::{Collection, Condition, WriteOptions, WriteResponse};
use crate::base::{Error, ErrorKind, ReplicaId, Result, Sequence, Version};
use crate::engine::{ChangeSet, Met};
use crate::model::{Batch, Key, Schema};
use crate::platform::{MaybeSend, MaybeSync, Task};
use crate::query::{Filter, Parameters};

/// What can be done with a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(any(feature = "server", feature = "hub"), derive(serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Action {
    /// To see rows: by search, query and key, as changes, and by sync.
    Read,
    /// To insert, replace and delete rows.
    Write,
    /// Everything, with all rows: to create and drop it, to change its fields, indexes and options, to look after it.
    Admin,
}

impl Action {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Some actions with some collections.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    any(feature = "server", feature = "hub"),
    derive(serde::Deserialize),
    serde(rename_all = "camelCase", deny_unknown_fields)
)]
pub struct Grant {
    /// Names of collections; `*` at the end stands for any rest.
    pub collections: Vec<String>,
    /// What may be done.
    pub actions: Vec<Action>,
    /// Only with rows that this filter admits. Not together with [`Action::Admin`].
    #[cfg_attr(any(feature = "server", feature = "hub"), serde(default))]
    pub filter: Option<String>,
    /// The values of the filter's parameters.
    #[cfg_attr(any(feature = "server", feature = "hub"), serde(default))]
    pub filter_params: Parameters,
}

impl Grant {
    fn names(&self, collection: &str) -> bool {
        self.collections.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => collection.starts_with(start),
            None => name == collection,
        })
    }
}

/// What somebody may do: everything, or what was granted. Several grants for one collection add up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Access(Option<Arc<[Grant]>>);

impl Access {
    /// Everything.
    pub const ALL: Self = Self(None);

    /// What these grants allow, and nothing else.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter together with [`Action::Admin`].
    pub fn of(grants: Vec<Grant>) -> Result<Self> {
        if grants.iter().any(|grant| grant.filter.is_some() && grant.actions.contains(&Action::Admin)) {
            return Err(Error::invalid("a grant of \"admin\" takes no filter: it is for all rows"));
        }
        Ok(Self(Some(grants.into())))
    }

    /// Whether some rows of that collection, or one that is to have the name, may be treated so.
    pub fn allows(&self, collection: &str, action: Action) -> bool {
        self.rows(collection, action) != Rows::None
    }

    /// Refuses what is not allowed.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check(&self, collection: &str, action: Action) -> Result<()> {
        if self.allows(collection, action) {
            return Ok(());
        }
        Err(forbidden(format!("collection {collection:?}: no {:?} was granted", action.as_str())))
    }

    /// Whether all may be done with all collections, those to come among them.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_all(&self) -> Result<()> {
        let is_all =
            |grant: &Grant| grant.actions.contains(&Action::Admin) && grant.collections.iter().any(|name| name == "*");
        match &self.0 {
            Some(grants) if !grants.iter().any(is_all) => {
                Err(forbidden("this is about all collections: \"admin\" of \"*\" is needed"))
            }
            _ => Ok(()),
        }
    }

    fn rows(&self, collection: &str, action: Action) -> Rows {
        let Some(grants) = &self.0 else { return Rows::All };
        let mut filters = Vec::new();
        for grant in grants.iter().filter(|grant| grant.names(collection)) {
            if grant.actions.contains(&Action::Admin) {
                return Rows::All;
            }
            if grant.actions.contains(&action) {
                match &grant.filter {
                    None => return Rows::All,
                    Some(filter) => filters.push((filter.clone(), grant.filter_params.clone())),
                }
            }
        }
        if filters.is_empty() { Rows::None } else { Rows::Where(filters.into()) }
    }
}

/// Some rows of a collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Rows {
    #[default]
    All,
    None,
    /// Those that one of the filters admits.
    Where(Arc<[(String, Parameters)]>),
}

impl Rows {
    pub(super) fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// `filter`, or all, of these rows.
    ///
    /// # Errors
    /// `Forbidden` when there are none.
    pub(super) fn limit(&self, filter: Option<Filter>, schema: &Schema) -> Result<Option<Filter>> {
        let texts = match self {
            Self::All => return Ok(filter),
            Self::None => return Err(forbidden("no rows of this collection were granted")),
            Self::Where(texts) => texts,
        };
        let mut limit: Option<Filter> = None;
        for (text, parameters) in texts.iter() {
            let one = Filter::parse_with(text, schema, parameters)
                .map_err(|error| forbidden(format!("the filter that rows are granted by: {}", error.message())))?;
            limit = Some(match limit {
                Some(limit) => limit.or(one),
                None => one,
            });
        }
        Ok(match (filter, limit) {
            (Some(filter), Some(limit)) => Some(filter.and(limit)),
            (filter, limit) => filter.or(limit),
        })
    }
}

/// What may be read and written by one handle of a collection.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    pub(super) read: Rows,
    pub(super) write: Rows,
}

/// What the holder of a token may do, and how long.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Admitted {
    /// What.
    pub access: Access,
    /// Until this time, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// Decides who may do what.
pub trait Gate: MaybeSend + MaybeSync {
    /// What whoever shows `token`, or none, may do at that time.
    ///
    /// # Errors
    /// `Unauthorized` for a token that is not valid, not yet or not any more, and where one is needed and none is shown.
    fn admit(&self, token: Option<&str>, now_ms: u64) -> Result<Admitted>;

    /// Waits until some answer may have become another, and tells the version of the answers, if that is not `version` already.
    fn changed(&self, version: u64) -> Task<'static, u64>;
}

pub(super) fn forbidden(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, message)
}

impl Collection {
    /// A handle by which only that can be done which `access` allows.
    ///
    /// # Errors
    /// `Forbidden` when that is nothing, or when a filter of a grant does not fit the collection.
    pub fn limited(&self, access: &Access) -> Result<Self> {
        let limits =
            Limits { read: access.rows(self.name(), Action::Read), write: access.rows(self.name(), Action::Write) };
        if limits.read == Rows::None && limits.write == Rows::None {
            access.check(self.name(), Action::Read)?;
        }
        for rows in [&limits.read, &limits.write].into_iter().filter(|rows| **rows != Rows::None) {
            rows.limit(None, &self.spec().schema)?;
        }
        Ok(Self { inner: self.inner.clone(), limits })
    }

    /// The same, where nothing that is allowed is no error: then nothing can be done by the handle.
    #[cfg(hosted)]
    pub(super) fn limited_to(&self, access: &Access) -> Self {
        let nothing = || Self { inner: self.inner.clone(), limits: Limits { read: Rows::None, write: Rows::None } };
        self.limited(access).unwrap_or_else(|_| nothing())
    }

    /// A write by a handle that may not write every row. What it replaces or deletes stays as it was looked at until it is done.
    pub(super) async fn write_limited(&self, mut steps: Vec<Step>, options: WriteOptions) -> Result<WriteResponse> {
        let mut keys = Vec::new();
        if let Some(allowed) = self.limits.write.limit(None, &self.spec().schema)? {
            for step in &mut steps {
                match step {
                    Step::Insert(batch) | Step::Upsert(batch) => {
                        check_rows(batch, &allowed)?;
                        keys.extend(batch.keys());
                    }
                    Step::DeleteKeys(deleted) => keys.extend(deleted.iter().cloned()),
                    Step::DeleteWhere(filter) => {
                        let limited = (**filter).clone().and(allowed.clone());
                        // What may not be read may not be found out by deleting it either.
                        let limited = self.limits.read.limit(Some(limited), &self.spec().schema)?;
                        **filter = limited.expect("a filter that is limited is one");
                    }
                }
            }
            let versions = keys.iter().map(|key| self.version_now(key)).collect::<Vec<_>>();
            self.check_touched(&keys, &versions, allowed).await?;
            let conditions = keys.into_iter().zip(versions).map(|(key, version)| Condition { key, version });
            let mut all = options.conditions;
            all.extend(conditions);
            let request = Request::Write { steps, conditions: all, request: options.request, pipeline: None };
            return self.write(request, options.durability).await;
        }
        Err(Error::internal("a limited write without a limit"))
    }

    /// Applies changes from elsewhere that this handle may write. Those that lose against what is here change nothing, and are let pass. With
    /// them all is here of these origins up to these sequences.
    ///
    /// # Errors
    /// `Forbidden`, with the key; and as [`Collection::apply`].
    pub(super) async fn apply_limited(
        &self,
        changes: ChangeSet,
        met: Option<Met>,
        seen: Vec<(ReplicaId, Sequence)>,
    ) -> Result<()> {
        loop {
            let conditions = self.check_changes(&changes).await?;
            if conditions.is_empty() {
                return self.apply_if(changes, met, seen, conditions).await.map(drop);
            }
            match self.apply_if(changes.clone(), met.clone(), seen.clone(), conditions).await {
                // Somebody else has written one of the rows since it was looked at.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                done => return done.map(drop),
            }
        }
    }

    /// Refuses changes that this handle may not write, and tells what must not have changed when they are applied.
    pub(super) async fn check_changes(&self, changes: &ChangeSet) -> Result<Vec<Condition>> {
        let Some(allowed) = self.limits.write.limit(None, &self.spec().schema)? else { return Ok(Vec::new()) };
        check_rows(&changes.puts, &allowed)?;
        let puts = changes.puts.keys().into_iter().zip(changes.put_versions.iter().copied());
        let mut conditions = Vec::new();
        let (mut keys, mut versions) = (Vec::new(), Vec::new());
        for (key, version) in puts.chain(changes.deletes.iter().cloned()) {
            let here = self.version_now(&key);
            if here.is_none_or(|here| version > here) {
                keys.push(key.clone());
                versions.push(here);
            }
            conditions.push(Condition { key, version: here });
        }
        self.check_touched(&keys, &versions, allowed).await?;
        Ok(conditions)
    }

    fn version_now(&self, key: &Key) -> Option<Version> {
        let state = self.inner.state.read().expect("no panic while held");
        let found = state.find(key).map(|(segment, row)| segment.versions().version(row as usize));
        found.filter(|version| version.timestamp >= self.expired_before())
    }

    /// Refuses to touch rows, of those with `keys` that are there, which `allowed` does not admit.
    async fn check_touched(&self, keys: &[Key], versions: &[Option<Version>], allowed: Filter) -> Result<()> {
        let there: Vec<Key> =
            keys.iter().zip(versions).filter(|(_, version)| version.is_some()).map(|(key, _)| key.clone()).collect();
        if there.is_empty() {
            return Ok(());
        }
        let filter = Filter::of_keys(&self.spec().schema, &there).and(allowed);
        let admitted: BTreeSet<Key> = self.matching_keys(&filter).await?.into_iter().collect();
        match there.iter().find(|key| !admitted.contains(key)) {
            Some(key) => Err(forbidden(format!("primary key {key}: the row that is there may not be written"))),
            None => Ok(()),
        }
    }
}

fn check_rows(batch: &Batch, allowed: &Filter) -> Result<()> {
    let admitted = allowed.evaluate(batch.scalars());
    match (0..batch.len()).find(|&row| !admitted.contains(row)) {
        Some(row) => Err(forbidden(format!("row {row}, primary key {}: it may not be written", batch.key(row)))),
        None => Ok(()),
    }
}
