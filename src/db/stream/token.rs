use std::fmt;
use std::str::FromStr;

use crate::base::{CollectionId, Error, Lsn, ReplicaId, Result};

/// A place between two transactions of a collection's log, at this replica: where a stream of changes goes on.
///
/// Its text is five hexadecimal numbers with `-` between them: opaque to whoever hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResumeToken {
    /// The replica, for every one has a log of its own.
    pub replica: ReplicaId,
    /// The collection.
    pub collection: CollectionId,
    /// The position of the last transaction before it.
    pub lsn: Lsn,
    /// How many fields the schema had that was told.
    pub fields: u64,
}

/// The first number of a token: what the others mean.
const VERSION: u64 = 1;

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, collection, lsn, fields } = self;
        write!(f, "{VERSION:x}-{:x}-{:x}-{:x}-{fields:x}", replica.0, collection.0, lsn.0)
    }
}

impl FromStr for ResumeToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u64>> = text.split('-').map(|part| u64::from_str_radix(part, 16).ok()).collect();
        match numbers.as_deref() {
            Some(&[VERSION, replica, collection, lsn, fields]) => {
                Ok(Self { replica: ReplicaId(replica), collection: CollectionId(collection), lsn: Lsn(lsn), fields })
            }
            _ => Err(Error::invalid(format!("{text:?} is no token; expected one that a stream of changes has told"))),
        }
    }
}
