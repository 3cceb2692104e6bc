//! Connections that carry messages, and the WebSocket client that makes them: the same names on every target.

#[cfg(hosted)]
#[cfg_attr(browser, path = "browser.rs")]
#[cfg_attr(native, path = "native.rs")]
mod host;
#[cfg(all(test, native, hosted))]
mod memory;

use std::sync::Arc;

#[cfg(hosted)]
pub use host::Socket;
#[cfg(all(browser, hosted))]
pub use host::{download_by, make_sockets_by};
#[cfg(all(test, native, hosted))]
pub(crate) use memory::{Cut, duplex};

use super::{MaybeSend, MaybeSync, Task};
use crate::base::{Error, ErrorKind, Result};

/// The longest message that is taken in, in bytes; a longer one ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Carries whole binary messages both ways, in order, until it breaks. Sending and receiving may be under way at once.
pub trait Connection: MaybeSend + MaybeSync {
    /// Hands `message` to the network; waits while the peer takes in nothing. One at a time.
    ///
    /// # Errors
    /// `Unavailable` when the connection is broken or closed.
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>>;

    /// The next message; `None` when the peer has closed the connection. One at a time.
    ///
    /// # Errors
    /// `Unavailable` when the connection broke, also in the middle of a message; `Corrupt` for a message that is not binary;
    /// `InvalidArgument` for one that is too long.
    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>>;

    /// Closes; the peer's next `receive` tells `None`. Idempotent; a broken connection is closed already.
    fn close(&self) -> Task<'_, ()>;
}

/// Makes connections to one place, again and again.
pub trait Connect: MaybeSend + MaybeSync {
    /// A new connection.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers, `InvalidArgument` for a place that cannot be.
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>>;

    /// What the place is called, where it has a name.
    fn url(&self) -> Option<&str> {
        None
    }

    /// Whether files below the place can be had by plain requests, where there are such.
    fn downloads(&self) -> bool {
        false
    }

    /// `len` bytes from `offset` of the file at `path` below the place, or those before the request broke: fewer, never more. Parts that are
    /// asked for in order may come of one request. Whoever drops the task wants it no longer.
    ///
    /// # Errors
    /// `Unsupported` where no such requests can be made, `Unavailable` for whatever keeps all of it from coming.
    fn download(&self, path: &str, token: Option<&str>, offset: u64, len: u64) -> Task<'static, Result<Vec<u8>>> {
        let _ = (path, token, offset, len);
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "files are not had by plain requests here")) })
    }
}

/// Connects to a WebSocket URL: `ws://`, `wss://`, or `http://`, `https://` in their stead.
#[cfg(hosted)]
#[derive(Debug, Clone)]
pub struct WebSocketUrl {
    url: String,
    /// As it was given.
    given: String,
}

#[cfg(hosted)]
impl WebSocketUrl {
    /// The place that `given` names.
    ///
    /// # Errors
    /// `InvalidArgument` when the scheme is another.
    pub fn new(given: &str) -> Result<Self> {
        let url = match given.split_once("://") {
            Some(("ws" | "wss", _)) => given.to_owned(),
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(("https", rest)) => format!("wss://{rest}"),
            _ => return Err(Error::invalid(format!("sync URL {given:?}: expected ws:// or wss:// and a host"))),
        };
        Ok(Self { url, given: given.to_owned() })
    }

    /// Whether both are the same place, however they were written.
    pub fn is_same(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

#[cfg(hosted)]
impl Connect for WebSocketUrl {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let socket: Arc<dyn Connection> = Arc::new(Socket::connect(&self.url).await?);
            Ok(socket)
        })
    }

    fn url(&self) -> Option<&str> {
        Some(&self.given)
    }

    #[cfg(browser)]
    fn downloads(&self) -> bool {
        host::can_download()
    }

    #[cfg(browser)]
    fn download(&self, path: &str, token: Option<&str>, offset: u64, len: u64) -> Task<'static, Result<Vec<u8>>> {
        Box::pin(host::download(&self.url, path, token, offset, len))
    }
}

#[cfg(hosted)]
fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}
