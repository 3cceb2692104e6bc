use std::collections::BTreeMap;
use std::ops::Range;

use super::plan::Watermark;
use super::state::{Reader, Writer};
use crate::base::Result;

/// One partition of a source.
#[derive(Debug, Clone, PartialEq)]
struct Partition {
    /// The latest time of its rows; `i64::MIN` before the first one.
    latest: i64,
    /// The watermark that it was told; `i64::MIN` for none.
    told: i64,
    /// When its last rows came, by `now`.
    seen: i64,
    ended: bool,
    position: Vec<u8>,
}

/// How far a source has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Progress {
    spec: Watermark,
    timed: bool,
    partitions: BTreeMap<u32, Partition>,
    /// Never goes back.
    watermark: i64,
}

impl Progress {
    pub fn new(spec: Watermark, timed: bool) -> Self {
        Self { spec, timed, partitions: BTreeMap::new(), watermark: i64::MIN }
    }

    fn partition(&mut self, partition: u32, now: i64) -> &mut Partition {
        let fresh = Partition { latest: i64::MIN, told: i64::MIN, seen: now, ended: false, position: vec![] };
        self.partitions.entry(partition).or_insert(fresh)
    }

    /// From now on it is waited for.
    pub fn open(&mut self, partition: u32, now: i64) {
        self.partition(partition, now).ended = false;
    }

    /// From now on rows come from `partitions` alone: those are waited for, and others are forgotten, for no more come from them. One that is new
    /// holds the watermark where it is until it has rows of its own, or is idle: of how late they may be nothing else is known.
    pub fn turn(&mut self, partitions: Range<u32>, now: i64) {
        for partition in partitions.clone() {
            self.partition(partition, now);
        }
        self.partitions.retain(|partition, _| partitions.contains(partition));
    }

    /// Rows came, the latest of `latest` (`None` when there was none).
    pub fn came(&mut self, partition: u32, position: &[u8], latest: Option<i64>, now: i64) {
        let partition = self.partition(partition, now);
        if let Some(latest) = latest {
            partition.latest = partition.latest.max(latest);
            partition.seen = partition.seen.max(now);
        }
        partition.position = position.to_vec();
    }

    /// No row of `watermark` or before comes any more.
    pub fn tell(&mut self, partition: u32, watermark: i64, now: i64) {
        let partition = self.partition(partition, now);
        partition.told = partition.told.max(watermark);
        partition.seen = partition.seen.max(now);
    }

    /// No more rows come from it.
    pub fn end(&mut self, partition: u32, now: i64) {
        self.partition(partition, now).ended = true;
    }

    pub fn position(&self, partition: u32) -> Option<&[u8]> {
        self.partitions.get(&partition).map(|partition| &*partition.position)
    }

    pub fn partitions(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.partitions.iter().map(|(number, partition)| (*number, &*partition.position))
    }

    fn is_idle(&self, partition: &Partition, now: i64) -> bool {
        self.spec.idle.is_some_and(|idle| now.saturating_sub(partition.seen) >= idle)
    }

    /// Whether nothing is waited for.
    pub fn is_all_idle(&self, now: i64) -> bool {
        !self.partitions.is_empty()
            && self.partitions.values().all(|partition| partition.ended || self.is_idle(partition, now))
            && !self.is_ended()
    }

    pub fn is_ended(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.values().all(|partition| partition.ended)
    }

    /// Its watermark, when it has gone on. `others` is how far the sources have come that are not idle, which an idle one follows.
    pub fn advance(&mut self, now: i64, others: Option<i64>) -> Option<i64> {
        let found = if self.is_ended() {
            i64::MAX
        } else if !self.timed {
            return None;
        } else if self.is_all_idle(now) {
            let own = self.partitions.values().map(|partition| self.behind(partition)).max().unwrap_or(i64::MIN);
            others.unwrap_or(own).max(self.watermark)
        } else {
            let awaited =
                self.partitions.values().filter(|partition| !partition.ended && !self.is_idle(partition, now));
            awaited.map(|partition| self.behind(partition)).min().unwrap_or(i64::MIN)
        };
        (found > self.watermark).then(|| {
            self.watermark = found;
            found
        })
    }

    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    fn behind(&self, partition: &Partition) -> i64 {
        // Of no row at all it stays where it is.
        partition.latest.saturating_sub(self.spec.delay).saturating_sub(1).max(partition.told)
    }

    /// When the next partition becomes idle.
    pub fn next_idle(&self, now: i64) -> Option<i64> {
        let idle = self.spec.idle?;
        let awaited = self.partitions.values().filter(|partition| !partition.ended && !self.is_idle(partition, now));
        awaited.map(|partition| partition.seen.saturating_add(idle)).min()
    }

    pub fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.len(self.partitions.len());
        for (number, partition) in &self.partitions {
            out.i64((*number).into());
            out.i64(partition.latest);
            out.i64(partition.told);
            out.i64(partition.seen);
            out.u8(partition.ended.into());
            out.bytes(&partition.position);
        }
    }

    pub fn load(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        for _ in 0..reader.count(34)? {
            let number = reader.i64()? as u32;
            let (latest, told) = (reader.i64()?, reader.i64()?);
            let (seen, ended) = (reader.i64()?, reader.bool()?);
            let position = reader.bytes()?.to_vec();
            self.partitions.insert(number, Partition { latest, told, seen, ended, position });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(delay: i64, idle: Option<i64>) -> Progress {
        Progress::new(Watermark { delay, idle }, true)
    }

    /// As Flink's BoundedOutOfOrdernessWatermarks: the latest time, less the delay, less one.
    #[test]
    fn a_watermark_is_behind_the_latest_row() {
        let mut source = progress(10, None);
        source.came(0, b"a", Some(100), 0);
        assert_eq!(source.advance(0, None), Some(89));
        source.came(0, b"b", Some(90), 0);
        assert_eq!(source.advance(0, None), None);
        source.came(0, b"c", Some(103), 0);
        assert_eq!(source.advance(0, None), Some(92));
        assert_eq!(source.position(0), Some(&b"c"[..]));
    }

    #[test]
    fn the_slowest_partition_holds_it_until_it_is_idle() {
        let mut source = progress(0, Some(1_000));
        source.open(1, 0);
        source.came(0, b"", Some(500), 0);
        assert_eq!(source.advance(0, None), None);
        source.came(0, b"", Some(600), 999);
        assert_eq!(source.next_idle(999), Some(1_000));
        assert_eq!(source.advance(1_000, None), Some(599));
        // Back again with earlier rows, it does not take time back.
        source.came(1, b"", Some(100), 1_100);
        assert_eq!(source.advance(1_100, None), None);
        source.came(1, b"", Some(700), 1_200);
        source.came(0, b"", Some(650), 1_200);
        assert_eq!(source.advance(1_200, None), Some(649));
    }

    /// Partitions that come in place of others hold the watermark, whichever of those before was ahead, and never take it back.
    #[test]
    fn new_partitions_hold_the_watermark_where_it_was() {
        let mut source = progress(0, Some(1_000));
        source.turn(0..2, 0);
        source.came(0, b"a", Some(900), 0);
        source.came(1, b"b", Some(500), 0);
        assert_eq!(source.advance(0, None), Some(499));
        // The one ahead and the one behind end together.
        source.turn(2..5, 10);
        assert_eq!(source.advance(10, None), None);
        assert_eq!(source.partitions().map(|(number, _)| number).collect::<Vec<_>>(), [2, 3, 4]);
        source.came(2, b"c", Some(950), 20);
        source.came(3, b"d", Some(960), 20);
        assert_eq!(source.advance(20, None), None);
        source.came(4, b"e", Some(501), 30);
        assert_eq!(source.advance(30, None), Some(500));
        // It waits for none that is idle.
        source.turn(5..6, 40);
        assert!(!source.is_ended() && !source.is_all_idle(1_039) && source.is_all_idle(1_040));
        assert_eq!((source.watermark(), source.advance(1_040, None)), (500, None));
        // Those that are there already stay as they are.
        source.came(5, b"f", Some(700), 1_050);
        source.turn(5..6, 1_060);
        assert_eq!(source.position(5), Some(&b"f"[..]));
        assert_eq!(source.advance(1_060, None), Some(699));
    }

    #[test]
    fn a_source_without_rows_follows_the_others() {
        let mut source = progress(0, Some(10));
        source.open(0, 0);
        assert_eq!(source.advance(5, Some(77)), None);
        assert_eq!(source.advance(10, Some(77)), Some(77));
        source.end(0, 20);
        assert_eq!(source.advance(20, None), Some(i64::MAX));
    }
}
