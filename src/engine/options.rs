use serde::{Deserialize, Serialize};

use super::MergeKind;
use super::compaction::{SEAL_LOG_BYTES, SEAL_ROWS};
use crate::base::compress::Codec;
use crate::base::{Error, Result};

/// The least log that a segment may be sealed at: less is not worth its files.
const SEAL_BYTES_MIN: u64 = 1 << 16;
/// Candidates that a graph keeps at most.
const EF_MAX: u32 = 65_536;
/// And the least time: background work looks about twice a second.
const SEAL_MS_MIN: u64 = 1_000;

/// How a collection keeps its rows in segments. Each replica says so for itself.
///
/// As JSON: `{"codec": "gzip", "seal": {"rows": 50000, "bytes": 8388608, "ageMs": 60000, "idleMs": 5000}, "ef": 48, "resultCacheBytes": 4194304,
/// "mergePolicy": "sequential"}`; all may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollectionOptions {
    /// How columns are compressed; vectors never are. As the store says with `None`. Segments that are there keep theirs until they
    /// are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// When the growing segment is sealed, and then flushed.
    #[serde(default, skip_serializing_if = "SealPolicy::is_usual")]
    pub seal: SealPolicy,
    /// Candidates that a graph keeps for a search that does not say, 1 to 65,536, but no fewer than it asks hits for; 64 with `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef: Option<u32>,
    /// How many bytes of answers are kept for when the same is asked again and nothing was written in between; none with `None`, and where
    /// rows expire. They count as cache, and take a 16th of the memory limit at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_cache_bytes: Option<u64>,
    /// Which segments are merged with which; as the store says with `None`. From the next merge on: one that has begun comes to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_policy: Option<MergeKind>,
}

/// When the growing segment is sealed: as soon as one of these is reached. A checkpoint ([`Options::checkpoint_bytes`]) and a call of
/// flush seal it besides.
///
/// [`Options::checkpoint_bytes`]: ../db/struct.Options.html#structfield.checkpoint_bytes
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealPolicy {
    /// At this many rows, 1 to 131,072; at 131,072 with `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// When its log files have this many bytes, 65,536 to 67,108,864; at 67,108,864 with `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// So many milliseconds after background work has seen its first row, at least 1,000; never with `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// When nothing was written for so many milliseconds, at least 1,000; never with `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// What a seal policy knows of the growing segment, which has rows or deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growing {
    /// Its rows.
    pub rows: usize,
    /// The bytes of its log files.
    pub log_bytes: u64,
    /// Since it has been seen to have rows.
    pub age_ms: u64,
    /// Since it has been seen to change.
    pub idle_ms: u64,
}

impl SealPolicy {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl CollectionOptions {
    /// Whether nothing is said.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The same, when all of it can be.
    ///
    /// # Errors
    /// `InvalidArgument` that names what is out of range.
    pub(super) fn checked(self) -> Result<Self> {
        let SealPolicy { rows, bytes, age_ms, idle_ms } = self.seal;
        for (name, value, least, most) in [
            ("rows", rows, 1, SEAL_ROWS as u64),
            ("bytes", bytes, SEAL_BYTES_MIN, SEAL_LOG_BYTES),
            ("ageMs", age_ms, SEAL_MS_MIN, u64::MAX),
            ("idleMs", idle_ms, SEAL_MS_MIN, u64::MAX),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let most = if most == u64::MAX { String::new() } else { format!(" and at most {most}") };
                return Err(Error::invalid(format!("seal.{name} {value}; expected at least {least}{most}")));
            }
        }
        if let Some(ef) = self.ef.filter(|ef| !(1..=EF_MAX).contains(ef)) {
            return Err(Error::invalid(format!("ef {ef}; expected 1 to {EF_MAX}")));
        }
        Ok(self)
    }
}

/// Remembers since when a growing segment has rows and when it changed last, by the time at which somebody looks.
#[derive(Debug, Default)]
pub struct Watch {
    /// Which segment, its changes so far, since when it has some, and when they came.
    seen: Option<(u64, u64, u64, u64)>,
}

impl Watch {
    /// How old segment `id` is and how long it has been idle, in milliseconds, when it has changed up to `change`.
    pub fn look(&mut self, id: u64, change: u64, now_ms: u64) -> (u64, u64) {
        let (since, changed) = match self.seen {
            Some((same, before, since, at)) if same == id => (since, if before == change { at } else { now_ms }),
            _ => (now_ms, now_ms),
        };
        self.seen = Some((id, change, since, changed));
        (now_ms.saturating_sub(since), now_ms.saturating_sub(changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::should_seal;

    #[test]
    fn each_limit_seals_by_itself() {
        let usual = SealPolicy::default();
        let growing = Growing { rows: 100, log_bytes: 70_000, age_ms: 5_000, idle_ms: 2_000 };
        assert!(!should_seal(&usual, &growing));
        assert!(should_seal(&usual, &Growing { rows: 131_072, ..growing }));
        assert!(should_seal(&usual, &Growing { log_bytes: 64 << 20, ..growing }));
        for (policy, seals) in [
            (SealPolicy { rows: Some(100), ..usual }, true),
            (SealPolicy { rows: Some(101), ..usual }, false),
            (SealPolicy { bytes: Some(70_000), ..usual }, true),
            (SealPolicy { bytes: Some(70_001), ..usual }, false),
            (SealPolicy { age_ms: Some(5_000), ..usual }, true),
            (SealPolicy { age_ms: Some(5_001), ..usual }, false),
            (SealPolicy { idle_ms: Some(2_000), ..usual }, true),
            (SealPolicy { idle_ms: Some(2_001), ..usual }, false),
        ] {
            assert_eq!(should_seal(&policy, &growing), seals, "{policy:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let of = |json: &str| serde_json::from_str::<CollectionOptions>(json).map(CollectionOptions::checked);
        assert_eq!(of("{}").unwrap().unwrap(), CollectionOptions::default());
        let whole = r#"{"codec":"snappy","seal":{"rows":1,"bytes":65536,"ageMs":1000,"idleMs":1000},"ef":48,"mergePolicy":"parallel"}"#;
        assert_eq!(serde_json::to_string(&of(whole).unwrap().unwrap()).unwrap(), whole);
        for (json, name) in [
            (r#"{"seal":{"rows":0}}"#, "seal.rows 0"),
            (r#"{"seal":{"rows":131073}}"#, "at most 131072"),
            (r#"{"seal":{"bytes":100}}"#, "at least 65536"),
            (r#"{"seal":{"ageMs":999}}"#, "seal.ageMs 999; expected at least 1000"),
            (r#"{"seal":{"idleMs":1}}"#, "seal.idleMs 1"),
            (r#"{"ef":0}"#, "ef 0; expected 1 to 65536"),
        ] {
            let error = of(json).unwrap().unwrap_err();
            assert!(error.message().contains(name), "{error}");
        }
        assert!(of(r#"{"codec":"brotli"}"#).is_err() && of(r#"{"seals":{}}"#).is_err());
        let error = of(r#"{"mergePolicy":"tiered"}"#).unwrap_err().to_string();
        assert!(
            ["tiered", "hierarchical", "sequential", "parallel"].iter().all(|name| error.contains(name)),
            "{error}"
        );
    }

    #[test]
    fn a_watch_counts_from_what_it_has_seen() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(3, 10, 1_000), (0, 0));
        assert_eq!(watch.look(3, 10, 3_000), (2_000, 2_000));
        assert_eq!(watch.look(3, 11, 4_000), (3_000, 0));
        assert_eq!(watch.look(3, 11, 3_500), (2_500, 0), "a clock may go back");
        assert_eq!(watch.look(4, 11, 5_000), (0, 0));
    }
}
