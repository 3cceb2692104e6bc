use std::collections::VecDeque;

use super::{Change, ChangeBatch, ChangeKind, ChangeStream, ResumeToken};
use crate::base::{Error, ErrorKind, Result};

/// The greatest speed of a replay.
const SPEED_MAX: f64 = 1e6;

/// When things of the past come again: so many times as fast as they happened, from the first on.
#[derive(Debug, Clone, Copy)]
pub(in crate::db) struct Pace {
    /// `None` for as fast as can be.
    speed: Option<f64>,
    /// When the first happened, and when it came again.
    from: Option<(u64, u64)>,
}

impl Pace {
    /// # Errors
    /// `InvalidArgument` for a speed that cannot be.
    pub(in crate::db) fn new(speed: Option<f64>) -> Result<Self> {
        match speed.filter(|speed| !(*speed > 0.0 && *speed <= SPEED_MAX)) {
            Some(speed) => {
                Err(Error::invalid(format!("speed: more than 0 and at most {SPEED_MAX} expected, got {speed}")))
            }
            None => Ok(Self { speed, from: None }),
        }
    }

    /// When what happened at `at_ms` comes again, if `now_ms` is when this is asked first.
    pub(in crate::db) fn due_ms(&mut self, at_ms: u64, now_ms: u64) -> u64 {
        let Some(speed) = self.speed else { return 0 };
        let (from, from_ms) = *self.from.get_or_insert((at_ms, now_ms));
        from_ms.saturating_add((at_ms.saturating_sub(from) as f64 / speed) as u64)
    }
}

/// Changes that come again at a chosen speed.
///
/// The first transaction is told at once, and each one after it when as much time has passed as lay between the two when they were written,
/// divided by the speed; one that is out of order in the log at once after the one before it. So a replay that is faster than time comes to
/// its end and goes on with what is written; one that is slower falls behind until the history that it needs is let go of. Rows of
/// [`Since::Full`](super::Since::Full) did not happen, and come as fast as they are read. What time it is is the caller's to say.
pub struct Replay {
    stream: ChangeStream,
    pace: Pace,
    /// What was read and is not due: of which batch they are, and they.
    read: Option<ChangeBatch>,
    held: VecDeque<Change>,
    /// When the first of them is.
    due_ms: u64,
}

impl ChangeStream {
    /// The same changes at that speed; with `None` as fast as can be.
    ///
    /// # Errors
    /// `InvalidArgument` for a speed that is not more than 0, and at most a million.
    pub fn at_speed(self, speed: Option<f64>) -> Result<Replay> {
        Ok(Replay { stream: self, pace: Pace::new(speed)?, read: None, held: VecDeque::new(), due_ms: 0 })
    }
}

impl Replay {
    /// The changes that are due, perhaps none: as [`ChangeStream::ready`].
    ///
    /// # Errors
    /// As of [`ChangeStream::next`]; `Gone` also when the collection was dropped.
    pub async fn ready(&mut self, now_ms: u64) -> Result<ChangeBatch> {
        if self.read.is_none() {
            let mut batch = self.stream.ready().await.map_err(|error| self.told(error))?;
            if self.pace.speed.is_none() || batch.changes.is_empty() {
                return Ok(batch);
            }
            self.held = std::mem::take(&mut batch.changes).into();
            self.read = Some(batch);
        }
        let batch = self.read.as_mut().ok_or_else(|| Error::internal("a replay that has read nothing"))?;
        let mut changes = Vec::new();
        while let Some(first) = self.held.front() {
            if first.kind != ChangeKind::Read {
                self.due_ms = self.pace.due_ms(first.version.timestamp.physical_ms(), now_ms);
                if self.due_ms > now_ms {
                    break;
                }
            }
            // All changes of a transaction come together.
            let lsn = first.lsn;
            while self.held.front().is_some_and(|change| change.lsn == lsn) {
                changes.extend(self.held.pop_front());
            }
        }
        let schema = batch.schema.take();
        if self.held.is_empty() {
            let batch = self.read.take().unwrap_or_default();
            return Ok(ChangeBatch { schema, changes, ..batch });
        }
        // Whoever goes on from here has what is held still to come.
        let told = changes.last().map(|change| change.lsn);
        let token = batch.token.zip(told).map(|(token, lsn)| ResumeToken { lsn, ..token });
        let token = token.or_else(|| self.before());
        Ok(ChangeBatch { schema, changes, token, is_caught_up: false })
    }

    /// When the next change that was read is due; `None` when there is none, and [`Self::waits`] tells of the next.
    pub fn due_ms(&self) -> Option<u64> {
        self.read.is_some().then_some(self.due_ms)
    }

    /// Waits until the log has moved on; may be given up.
    ///
    /// # Errors
    /// As of [`ChangeStream::waits`].
    pub async fn waits(&self) -> Result<()> {
        self.stream.waits().await.map_err(|error| self.told(error))
    }

    /// Notes durably that all up to `token` was done. See [`ChangeStream::acknowledge`].
    ///
    /// # Errors
    /// `InvalidArgument` for a stream without a subscription.
    pub async fn acknowledge(&mut self, token: &ResumeToken) -> Result<()> {
        self.stream.acknowledge(token).await
    }

    /// The end of a collection is another one than that of the store: nothing will come after its token, whoever opens what.
    fn told(&self, error: Error) -> Error {
        let collection = self.stream.collection();
        if error.kind() != ErrorKind::Closed || collection.inner.shared.check_open().is_err() {
            return error;
        }
        Error::new(ErrorKind::Gone, format!("collection {:?} was dropped", collection.name()))
    }

    /// The place before what is held.
    fn before(&self) -> Option<ResumeToken> {
        let token = self.stream.token()?;
        let first = self.held.front().filter(|first| first.kind != ChangeKind::Read)?;
        Some(ResumeToken { lsn: crate::base::Lsn(first.lsn.0.saturating_sub(1)), ..token })
    }
}
