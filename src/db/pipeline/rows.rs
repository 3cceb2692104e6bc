use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use crate::base::{Error, ErrorKind, Result};
use crate::model::Row;

/// How many rows wait for who listens, at most.
const WAITING_MAX: usize = 65_536;

#[derive(Default)]
struct Queue {
    rows: VecDeque<(Row, bool)>,
    ended: Option<Error>,
    waiter: Option<oneshot::Sender<()>>,
}

/// One who listens to a sink.
pub(super) struct Listener {
    sink: String,
    queue: Mutex<Queue>,
}

/// The rows of a sink of a pipeline, as they come. Nobody waits for who reads them: behind by more than 65,536 rows, they end with the
/// error `gone`.
pub struct PipelineRows {
    listener: Arc<Listener>,
}

pub(super) fn listen(sink: &str) -> (Arc<Listener>, PipelineRows) {
    let listener = Arc::new(Listener { sink: sink.to_owned(), queue: Mutex::default() });
    (listener.clone(), PipelineRows { listener })
}

impl Listener {
    pub fn give(&self, sink: &str, rows: &[(Row, bool)]) {
        if self.sink != sink {
            return;
        }
        let mut queue = self.queue.lock().expect("no panic while held");
        if queue.rows.len() + rows.len() > WAITING_MAX {
            let message = format!("more than {WAITING_MAX} rows of sink {sink:?} wait to be read: some are gone");
            queue.ended.get_or_insert_with(|| Error::new(ErrorKind::Gone, message));
        } else if queue.ended.is_none() {
            queue.rows.extend(rows.iter().cloned());
        }
        queue.wake();
    }

    pub fn end(&self, error: Error) {
        let mut queue = self.queue.lock().expect("no panic while held");
        queue.ended.get_or_insert(error);
        queue.wake();
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            // One who stopped waiting needs no call.
            let _ = waiter.send(());
        }
    }
}

impl PipelineRows {
    /// Rows that are there, at most `count`; each with whether it is taken back.
    ///
    /// # Errors
    /// Why no more come, once all were read that came before.
    pub fn ready(&mut self, count: usize) -> Result<Vec<(Row, bool)>> {
        let mut queue = self.listener.queue.lock().expect("no panic while held");
        let len = count.min(queue.rows.len());
        match &queue.ended {
            Some(error) if len == 0 && count > 0 => Err(error.clone()),
            _ => Ok(queue.rows.drain(..len).collect()),
        }
    }

    /// The same, once there are some. May be given up.
    ///
    /// # Errors
    /// As of [`Self::ready`].
    pub async fn next(&mut self, count: usize) -> Result<Vec<(Row, bool)>> {
        loop {
            let rows = self.ready(count.max(1))?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            let waiting = {
                let mut queue = self.listener.queue.lock().expect("no panic while held");
                if !queue.rows.is_empty() || queue.ended.is_some() {
                    continue;
                }
                let (waiter, waiting) = oneshot::channel();
                queue.waiter = Some(waiter);
                waiting
            };
            // Nobody but the store has the other end.
            if waiting.await.is_err() && self.listener.queue.lock().expect("no panic while held").ended.is_none() {
                return Err(Error::new(ErrorKind::Closed, "the pipeline is gone"));
            }
        }
    }
}
