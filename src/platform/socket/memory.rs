//! Two ends of a connection inside one process, for tests.

use std::sync::Arc;

use async_lock::Mutex;
use tokio::sync::{mpsc, watch};

use super::Connection;
use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;

/// One end.
struct End {
    sender: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    receiver: Mutex<mpsc::Receiver<Vec<u8>>>,
    cut: watch::Receiver<bool>,
}

/// Breaks a connection: messages on the way are lost.
#[derive(Clone)]
pub(crate) struct Cut(Arc<watch::Sender<bool>>);

impl Cut {
    /// Breaks it.
    pub(crate) fn now(&self) {
        self.0.send_replace(true);
    }
}

/// Two ends that hold one message on the way in each direction.
pub(crate) fn duplex() -> (Arc<dyn Connection>, Arc<dyn Connection>, Cut) {
    let (up, from_up) = mpsc::channel(1);
    let (down, from_down) = mpsc::channel(1);
    let (cut, is_cut) = watch::channel(false);
    let end = |sender, receiver| -> Arc<dyn Connection> {
        Arc::new(End { sender: Mutex::new(Some(sender)), receiver: Mutex::new(receiver), cut: is_cut.clone() })
    };
    (end(up, from_down), end(down, from_up), Cut(Arc::new(cut)))
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

impl End {
    async fn unless_cut<T>(&self, task: impl Future<Output = Result<T>>) -> Result<T> {
        let mut cut = self.cut.clone();
        tokio::select! {
            biased;
            Ok(_) = cut.wait_for(|cut| *cut) => Err(unavailable("the connection was cut")),
            result = task => result,
        }
    }
}

impl Connection for End {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(self.unless_cut(async move {
            match &*self.sender.lock().await {
                Some(sender) => sender.send(message).await.map_err(|_| unavailable("the peer is gone")),
                None => Err(unavailable("the connection is closed")),
            }
        }))
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(self.unless_cut(async move { Ok(self.receiver.lock().await.recv().await) }))
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move { drop(self.sender.lock().await.take()) })
    }
}
