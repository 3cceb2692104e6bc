use std::ops::Range;

use serde::Serialize;

use super::{Flow, Positions, Source, SourceBatch};
use crate::base::{Error, ErrorKind, Result};
use crate::model::Value;
use crate::stream::SourceMode;

/// The fastest that rows of the past are told, as a multiple of how fast they happened.
const PACE_MAX: f64 = 1e6;

/// That rows of the past can be told so fast.
pub(in crate::db) fn check_pace(pace: f64) -> Result<()> {
    if pace > 0.0 && pace <= PACE_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("pace is {pace}, expected more than 0 and at most {PACE_MAX}")))
}

/// How a source is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceSettings {
    /// When rows are taken.
    pub mode: SourceMode,
    /// So many times as fast as they happened, by the event time in `time`; as fast as they can be read, with `None`.
    pub pace: Option<f64>,
    /// The field with the event time, in microseconds, for `pace`.
    pub time: Option<String>,
}

impl SourceSettings {
    pub(in crate::db) fn check(&self) -> Result<()> {
        let Some(pace) = self.pace else { return Ok(()) };
        check_pace(pace)?;
        if self.time.is_none() {
            return Err(Error::invalid("a pace goes by the event time, and the source has none"));
        }
        Ok(())
    }
}

/// What a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceState {
    /// It is read.
    Active,
    /// It is not, until it is resumed.
    Paused,
    /// No more comes, or it was closed.
    Closed,
    /// Something is wrong that does not pass by itself: until it is reset.
    Failed,
}

/// A source as it is read: connected, with its positions, its state and its counts.
pub struct SourceReader {
    source: Box<dyn Source>,
    settings: SourceSettings,
    state: SourceState,
    reason: Option<Error>,
    positions: Positions,
    /// Of which `positions` are.
    partitions: Range<u32>,
    ended: bool,
    read_ms: Option<u64>,
    /// What was read and is not due yet.
    held: Option<SourceBatch>,
    /// An event time, and when its rows were told.
    paced_from: Option<(i64, u64)>,
    rows: u64,
    refused: u64,
}

impl SourceReader {
    /// Connects `source` after `positions`.
    ///
    /// # Errors
    /// As of [`Source::connect`], and `InvalidArgument` for settings that cannot be.
    pub async fn connect(source: Box<dyn Source>, settings: SourceSettings, positions: Positions) -> Result<Self> {
        settings.check()?;
        let mut reader = Self {
            source,
            settings,
            state: SourceState::Active,
            reason: None,
            positions: Positions::new(),
            partitions: 0..0,
            ended: false,
            read_ms: None,
            held: None,
            paced_from: None,
            rows: 0,
            refused: 0,
        };
        reader.reset(positions).await?;
        Ok(reader)
    }

    /// Goes back, or on, to `positions`; one that has failed is active again.
    ///
    /// # Errors
    /// `Closed` for one that was closed, and those of [`Source::connect`]: then it has failed.
    pub async fn reset(&mut self, positions: Positions) -> Result<()> {
        if self.state == SourceState::Closed && !self.ended {
            return Err(Error::new(ErrorKind::Closed, "the source was closed"));
        }
        (self.held, self.paced_from, self.read_ms, self.ended) = (None, None, None, false);
        if let Err(error) = self.source.connect(&positions).await {
            return Err(self.failed(error));
        }
        self.positions = positions;
        self.follow();
        (self.state, self.reason) = (SourceState::Active, None);
        Ok(())
    }

    /// Keeps the positions of the partitions that there are.
    fn follow(&mut self) {
        let partitions = self.source.partitions();
        self.positions.retain(|partition, _| partitions.contains(partition));
        for (partition, position) in self.source.begins() {
            self.positions.entry(partition).or_insert(position);
        }
        self.partitions = partitions;
    }

    fn failed(&mut self, error: Error) -> Error {
        self.state = SourceState::Failed;
        self.reason = Some(error.clone());
        error
    }

    /// The next rows that are there and due at `now_ms`; none while it is paused.
    ///
    /// # Errors
    /// Why it has failed, and `Closed` when it was closed before its end. What may pass is told, and it stays active.
    pub async fn read(&mut self, rows_max: usize, now_ms: u64) -> Result<SourceBatch> {
        let none = |flow| Ok(SourceBatch { flow, ..SourceBatch::default() });
        match (self.state, &self.reason) {
            (SourceState::Paused, _) => return none(Flow::CaughtUp),
            (SourceState::Closed, _) if self.ended => return none(Flow::Ended),
            (SourceState::Closed, _) => return Err(Error::new(ErrorKind::Closed, "the source was closed")),
            (SourceState::Failed, Some(error)) => return Err(error.clone()),
            _ => {}
        }
        if self.due_ms().is_some_and(|due_ms| due_ms > now_ms) {
            return none(Flow::CaughtUp);
        }
        let mut batch = match self.held.take() {
            Some(batch) => batch,
            None => {
                // Rows that are told one after the other are read so: each has its position.
                let rows_max = if self.settings.pace.is_some() { 1 } else { rows_max.max(1) };
                match self.source.read(rows_max).await {
                    Ok(batch) => batch,
                    Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Io) => return Err(error),
                    Err(error) => return Err(self.failed(error)),
                }
            }
        };
        if self.paced_ms(&batch).is_some_and(|due_ms| due_ms > now_ms) {
            self.held = Some(batch);
            return none(Flow::CaughtUp);
        }
        if let (Some(time), None) = (self.time_of(&batch), self.paced_from) {
            self.paced_from = Some((time, now_ms));
        }
        if batch.flow == Flow::CaughtUp {
            self.read_ms = Some(now_ms);
            if self.settings.mode == SourceMode::Batch {
                batch.flow = Flow::Ended;
            }
        }
        if self.partitions != self.source.partitions() {
            self.follow();
        }
        if let Some(position) = &batch.position {
            self.positions.insert(batch.partition, position.clone());
        }
        if batch.flow == Flow::Ended {
            (self.ended, self.state) = (true, SourceState::Closed);
        }
        self.rows += batch.rows.len() as u64;
        self.refused += batch.refused.len() as u64;
        Ok(batch)
    }

    fn time_of(&self, batch: &SourceBatch) -> Option<i64> {
        self.settings.pace?;
        match batch.rows.first()?.get(self.settings.time.as_ref()?) {
            Some(Value::Int(time)) => Some(*time),
            _ => None,
        }
    }

    /// When the rows of a batch are due.
    fn paced_ms(&self, batch: &SourceBatch) -> Option<u64> {
        let (from, from_ms) = self.paced_from?;
        let after_ms = self.time_of(batch)?.saturating_sub(from).max(0) as f64 / 1_000.0 / self.settings.pace?;
        Some(from_ms.saturating_add(after_ms as u64))
    }

    /// When there may be something to read, where that is known: not before.
    pub fn due_ms(&self) -> Option<u64> {
        if self.state != SourceState::Active {
            return None;
        }
        if let Some(due_ms) = self.held.as_ref().and_then(|batch| self.paced_ms(batch)) {
            return Some(due_ms);
        }
        match self.settings.mode {
            SourceMode::NearRealTime { every_ms } => self.read_ms.map(|read_ms| read_ms.saturating_add(every_ms)),
            SourceMode::RealTime | SourceMode::Batch => None,
        }
    }

    /// When it is to be read again though nothing comes until then.
    pub fn wake_ms(&self) -> Option<u64> {
        let waits = self.state == SourceState::Active;
        self.due_ms().or_else(|| self.source.due_ms().filter(|_| waits))
    }

    /// The numbers of the partitions that what was told comes from. When they are others than before, all rows of those before were told.
    pub fn partitions(&self) -> Range<u32> {
        self.partitions.clone()
    }

    /// Nobody goes back before `positions`.
    ///
    /// # Errors
    /// As of [`Source::commit`].
    pub async fn commit(&mut self, positions: &Positions) -> Result<()> {
        self.source.commit(positions).await
    }

    /// Whoever reads will not come again, and it is closed.
    ///
    /// # Errors
    /// As of [`Source::retire`].
    pub async fn retire(&mut self) -> Result<()> {
        self.close();
        self.source.retire().await
    }

    /// Stops reading, until it is resumed.
    ///
    /// # Errors
    /// `Conflict` for one that failed or is closed.
    pub fn pause(&mut self) -> Result<()> {
        self.turn(SourceState::Paused)
    }

    /// Goes on.
    ///
    /// # Errors
    /// `Conflict` for one that failed or is closed.
    pub fn resume(&mut self) -> Result<()> {
        self.turn(SourceState::Active)
    }

    fn turn(&mut self, state: SourceState) -> Result<()> {
        if !matches!(self.state, SourceState::Active | SourceState::Paused) {
            return Err(Error::new(ErrorKind::Conflict, format!("the source is {:?}", self.state).to_lowercase()));
        }
        // A pause is none of the times that rows are told by.
        (self.state, self.paced_from) = (state, None);
        Ok(())
    }

    /// Ends it.
    pub fn close(&mut self) {
        self.state = SourceState::Closed;
    }

    /// What it does.
    pub fn state(&self) -> SourceState {
        self.state
    }

    /// Why it has failed.
    pub fn reason(&self) -> Option<&Error> {
        self.reason.as_ref()
    }

    /// How far it was read.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// How many rows were read, and how many refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.rows, self.refused)
    }

    /// How many rows wait to be read, where that is known.
    pub fn waiting(&self) -> Option<u64> {
        let held = self.held.as_ref().map_or(0, |batch| batch.rows.len() as u64);
        self.source.waiting().map(|waiting| waiting + held)
    }
}

#[cfg(test)]
#[cfg(native)]
mod tests {
    use super::*;
    use crate::model::Row;
    use crate::platform::{Task, block_on};

    /// Rows with their times in milliseconds.
    struct Listed {
        times: Vec<i64>,
        at: usize,
        fails: Option<ErrorKind>,
    }

    impl Source for Listed {
        fn connect<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>> {
            self.at = positions.get(&0).map_or(0, |position| usize::from(position[0]));
            Box::pin(async { Ok(()) })
        }

        fn read(&mut self, rows_max: usize) -> Task<'_, Result<SourceBatch>> {
            Box::pin(async move {
                if let Some(kind) = self.fails.take() {
                    return Err(Error::new(kind, "as planned"));
                }
                let end = self.times.len().min(self.at + rows_max);
                let row = |ms: &i64| Row::from([("at".to_owned(), Value::Int(1_000 * ms))]);
                let rows: Vec<Row> = self.times[self.at..end].iter().map(row).collect();
                self.at = end;
                let flow = if rows.is_empty() { Flow::CaughtUp } else { Flow::More };
                let position = (!rows.is_empty()).then(|| vec![end as u8]);
                Ok(SourceBatch { rows, position, flow, ..SourceBatch::default() })
            })
        }

        fn commit<'a>(&'a mut self, _positions: &'a Positions) -> Task<'a, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn partitions(&self) -> Range<u32> {
            0..1
        }

        fn waiting(&self) -> Option<u64> {
            Some((self.times.len() - self.at) as u64)
        }

        fn retire(&mut self) -> Task<'_, Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    async fn connect(times: &[i64], settings: SourceSettings) -> SourceReader {
        let source = Listed { times: times.to_vec(), at: 0, fails: None };
        SourceReader::connect(Box::new(source), settings, Positions::new()).await.unwrap()
    }

    #[test]
    fn rows_of_the_past_come_at_their_pace() {
        block_on(async {
            let settings = SourceSettings { pace: Some(2.0), time: Some("at".to_owned()), ..SourceSettings::default() };
            let mut reader = connect(&[50_000, 50_000, 51_000, 55_000], settings.clone()).await;
            let mut told = vec![];
            for now_ms in [100, 101, 102, 599, 600, 601, 3_000] {
                let rows = reader.read(10, now_ms).await.unwrap().rows.len();
                told.push((now_ms, rows, reader.due_ms()));
            }
            let due = |ms| Some(ms);
            assert_eq!(
                told,
                [
                    (100, 1, None),
                    (101, 1, None),
                    (102, 0, due(600)),
                    (599, 0, due(600)),
                    (600, 1, None),
                    (601, 0, due(2_600)),
                    (3_000, 1, None)
                ]
            );
            assert_eq!(reader.positions()[&0], [4]);
            // What is held is not passed, and comes again.
            let mut reader = connect(&[0, 1_000], settings.clone()).await;
            reader.read(10, 0).await.unwrap();
            assert!(reader.read(10, 1).await.unwrap().rows.is_empty());
            assert_eq!((reader.positions()[&0].clone(), reader.waiting()), (vec![1], Some(1)));
            // After a pause the next row comes at once, and the others after it.
            let mut reader = connect(&[0, 10_000, 12_000], settings.clone()).await;
            reader.read(10, 0).await.unwrap();
            reader.pause().unwrap();
            reader.resume().unwrap();
            assert_eq!(reader.read(10, 100).await.unwrap().rows.len(), 1);
            assert!(reader.read(10, 101).await.unwrap().rows.is_empty());
            assert_eq!(reader.due_ms(), Some(1_100));
            for (pace, time) in [(0.0, Some("at")), (f64::NAN, Some("at")), (1.0, None)] {
                let wrong = SourceSettings { pace: Some(pace), time: time.map(str::to_owned), ..settings.clone() };
                assert_eq!(wrong.check().unwrap_err().kind(), ErrorKind::InvalidArgument);
            }
        });
    }

    #[test]
    fn modes_say_when_rows_are_taken_and_when_they_end() {
        block_on(async {
            let mode = SourceMode::NearRealTime { every_ms: 100 };
            let mut reader = connect(&[1, 2, 3], SourceSettings { mode, ..SourceSettings::default() }).await;
            assert_eq!(reader.read(2, 0).await.unwrap().rows.len(), 2);
            assert_eq!(reader.read(2, 0).await.unwrap().rows.len(), 1);
            assert_eq!((reader.read(2, 5).await.unwrap().flow, reader.due_ms()), (Flow::CaughtUp, Some(105)));
            let batch = SourceSettings { mode: SourceMode::Batch, ..SourceSettings::default() };
            let mut reader = connect(&[1], batch).await;
            assert_eq!(reader.read(2, 0).await.unwrap().flow, Flow::More);
            assert_eq!(reader.read(2, 0).await.unwrap().flow, Flow::Ended);
            assert_eq!((reader.read(2, 0).await.unwrap().flow, reader.state()), (Flow::Ended, SourceState::Closed));
        });
    }

    #[test]
    fn what_may_pass_is_told_and_what_does_not_lasts_until_a_reset() {
        block_on(async {
            for (kind, lasts) in [(ErrorKind::Unavailable, false), (ErrorKind::Corrupt, true)] {
                let source = Listed { times: vec![1], at: 0, fails: Some(kind) };
                let connected =
                    SourceReader::connect(Box::new(source), SourceSettings::default(), Positions::new()).await;
                let mut reader = connected.unwrap();
                assert_eq!(reader.read(1, 0).await.unwrap_err().kind(), kind);
                assert_eq!(reader.state() == SourceState::Failed, lasts);
                assert_eq!(reader.read(1, 0).await.is_err(), lasts);
                assert_eq!(reader.pause().is_err(), lasts);
                reader.reset(Positions::new()).await.unwrap();
                assert_eq!(reader.read(1, 0).await.unwrap().rows.len(), 1);
            }
        });
    }
}
