use std::sync::Arc;

use super::ResumeToken;
use crate::base::{Error, Lsn, Result, Timestamp, Version};
use crate::model::{Key, Row, Schema};
use crate::query::Parameters;

/// Where a stream of changes begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// With what is written from now on.
    #[default]
    Now,
    /// With the oldest change from which on none is missing.
    Earliest,
    /// With all rows that are there now, by ascending key, then what is written from then on: no gap between the two, and no row twice.
    Full,
    /// After a place that a stream has told.
    Token(ResumeToken),
    /// With the first change in the log that was written at that hybrid time or later, here or elsewhere.
    Time(Timestamp),
}

impl std::str::FromStr for Since {
    type Err = Error;

    /// `now`, `earliest`, `full`, a token, or the number of a hybrid time.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "now" => Self::Now,
            "earliest" => Self::Earliest,
            "full" => Self::Full,
            _ => match text.parse() {
                Ok(timestamp) => Self::Time(Timestamp(timestamp)),
                Err(_) => Self::Token(text.parse()?),
            },
        })
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// A row came.
    Insert,
    /// A row was replaced.
    Update,
    /// A row went.
    Delete,
    /// A row was there when the stream began, with [`Since::Full`].
    Read,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Read];

    /// Its name: `insert`, `update`, `delete`, `read`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
        }
    }

    /// The one of that name.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| Error::invalid(format!("operation {name:?}: insert, update, delete or read expected")))
    }
}

/// Which changes are followed, and what of them is told.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangesRequest {
    /// Where it begins.
    pub since: Since,
    /// Of which kinds; of all when there is none.
    pub operations: Vec<ChangeKind>,
    /// Only changes where this is true of the row before or of the row after: so whoever keeps the rows for which it is true hears of those
    /// for which it no longer is.
    pub filter: Option<String>,
    /// What `{name}` stands for in it.
    pub filter_params: Parameters,
    /// Only keys that match, as by `like`: `%` stands for any text. For text keys.
    pub key_pattern: Option<String>,
    /// Whether the row before is told.
    pub before: bool,
    /// Whether the row after is told.
    pub after: bool,
    /// Which fields of them, as in [`QueryRequest`](crate::db::QueryRequest).
    pub output_fields: Option<Vec<String>>,
    /// How many changes come at once. A transaction is never split: one that has more comes whole.
    pub batch_size: usize,
    /// How many transactions the stream may fall behind before the history that it needs is no longer kept for it. Then it ends with
    /// `Gone`, unless [`Options::retention_ms`](crate::db::Options::retention_ms) keeps it anyway. Nobody who writes ever waits for it.
    pub buffer_size: u64,
    /// The name of a subscription: the store keeps how far it has got, by [`ChangeStream::acknowledge`](super::ChangeStream::acknowledge),
    /// and the history after that, also while nobody follows and across restarts. One that is there goes on from where it got, whatever
    /// `since` says. A new one begins at once, or, with [`Since::Full`] and [`Since::Token`], when something is acknowledged first.
    pub subscription: Option<String>,
}

impl Default for ChangesRequest {
    /// All changes from now on, with the rows after: a thousand at once, and at most 65,536 transactions behind.
    fn default() -> Self {
        Self {
            since: Since::Now,
            operations: Vec::new(),
            filter: None,
            filter_params: Parameters::new(),
            key_pattern: None,
            before: false,
            after: true,
            output_fields: None,
            batch_size: 1_000,
            buffer_size: 65_536,
            subscription: None,
        }
    }
}

/// What happened to a key, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// Its key.
    pub key: Key,
    /// The row before, when it was asked for; of updates and deletes.
    pub before: Option<Row>,
    /// The row after, when it was asked for; of all but deletes.
    pub after: Option<Row>,
    /// When it was written, and by which replica.
    pub version: Version,
    /// Its position in the local log. All changes of a transaction have the same; of a `read`, it is that of the moment that was read.
    pub lsn: Lsn,
}

/// Changes in the order of the log, whole transactions only.
#[derive(Debug, Clone, Default)]
pub struct ChangeBatch {
    /// The fields have changed since the batch before, or the token from which the stream went on: the rows that follow have these.
    pub schema: Option<Arc<Schema>>,
    /// What happened; nothing, when the log moved on by what is not followed.
    pub changes: Vec<Change>,
    /// Where to go on after them. None while the rows of [`Since::Full`] are being read: whoever is interrupted then begins anew.
    pub token: Option<ResumeToken>,
    /// Whether the log was read to its end.
    pub is_caught_up: bool,
}
