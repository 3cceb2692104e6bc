use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, ReplicaId, Result, Sequence, Timestamp};

/// Who wrote a row, and when: what last-writer-wins compares, in this order of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The hybrid time of the write.
    pub timestamp: Timestamp,
    /// The replica that wrote.
    pub origin: ReplicaId,
    /// Its batch.
    pub sequence: Sequence,
}

/// Three hexadecimal numbers with `-` between them: opaque to whoever hands it back.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.timestamp.0, self.origin.0, self.sequence.0)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut numbers = text.split('-').map(|part| u64::from_str_radix(part, 16).ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next(), next()) {
            (Some(timestamp), Some(origin), Some(sequence), None) if text.matches('-').count() == 2 => {
                Ok(Self { timestamp: Timestamp(timestamp), origin: ReplicaId(origin), sequence: Sequence(sequence) })
            }
            _ => Err(Error::invalid(format!("{text:?} is no version; expected what a write or `$version` has told"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        let version = Version { timestamp: Timestamp(u64::MAX), origin: ReplicaId(0), sequence: Sequence(0x1a) };
        assert_eq!(version.to_string(), "ffffffffffffffff-0-1a");
        assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        for wrong in ["", "1", "1-2", "1-2-3-4", "1-2-", "1-2-x", "1-2-3-", "10000000000000000-0-0"] {
            assert!(wrong.parse::<Version>().unwrap_err().message().contains("is no version"), "{wrong}");
        }
    }
}
