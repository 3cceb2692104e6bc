use serde::{Deserialize, Serialize};

use super::{Flow, Positions, Source, SourceBatch};
use crate::base::{Error, ErrorKind, Result};
use crate::model::Value;

/// The fastest that rows of the past are told, as a multiple of how fast they happened.
const PACE_MAX: f64 = 1e6;

/// When rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceMode {
    /// As soon as they are there.
    #[default]
    RealTime,
    /// From time to time.
    NearRealTime {
        /// So many milliseconds after the last that were taken.
        #[serde(rename = "everyMs")]
        every_ms: u64,
    },
    /// Until there are no more for now: that is the end.
    Batch,
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
        if !(pace > 0.0 && pace <= PACE_MAX) {
            return Err(Error::invalid(format!("pace is {pace}, expected more than 0 and at most {PACE_MAX}")));
        }
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
        (self.state, self.reason) = (SourceState::Active, None);
        Ok(())
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

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.source.partitions()
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
