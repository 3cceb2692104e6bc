use tokio::sync::{mpsc, watch};

/// Tells everything that serves when to stop, and the server when everything has.
#[derive(Debug, Clone)]
pub struct Stop {
    requested: watch::Receiver<bool>,
    guards: mpsc::WeakSender<()>,
    done: std::sync::Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

/// The other end of a [`Stop`].
#[derive(Debug)]
pub struct Stopper {
    request: watch::Sender<bool>,
    guards: Option<mpsc::Sender<()>>,
}

/// Held by a socket while it is open: the server waits for it when it stops.
#[derive(Debug)]
pub struct StopGuard {
    _open: Option<mpsc::Sender<()>>,
}

impl Stop {
    /// Both ends.
    pub fn new() -> (Stopper, Self) {
        let (request, requested) = watch::channel(false);
        let (guards, done) = mpsc::channel(1);
        let stop =
            Self { requested, guards: guards.downgrade(), done: std::sync::Arc::new(tokio::sync::Mutex::new(done)) };
        (Stopper { request, guards: Some(guards) }, stop)
    }

    /// Waits until the server stops.
    pub async fn requested(&mut self) {
        // An error is a stopper that is gone: nobody can ask any more, so stop.
        let _ = self.requested.wait_for(|requested| *requested).await;
    }

    /// Makes the server wait until the guard is dropped.
    pub fn guard(&self) -> StopGuard {
        StopGuard { _open: self.guards.upgrade() }
    }

    pub(in crate::server) fn receiver(&self) -> watch::Receiver<bool> {
        self.requested.clone()
    }

    /// Waits until every guard is dropped; after a stop only.
    pub(super) async fn wait_for_guards(&self) {
        // Nothing is ever sent: the channel ends with its last sender.
        let _ = self.done.lock().await.recv().await;
    }
}

impl Stopper {
    /// Asks everything to stop.
    pub fn stop(&mut self) {
        self.guards = None;
        self.request.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_guards_and_no_longer() {
        let (mut stopper, mut stop) = Stop::new();
        let guard = stop.guard();
        stopper.stop();
        stop.requested().await;
        let waiting = stop.wait_for_guards();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(guard);
        waiting.await;
        drop(stop.guard());
    }
}
