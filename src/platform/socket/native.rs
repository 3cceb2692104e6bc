use std::time::Duration;

use async_lock::Mutex;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Connection, MESSAGE_BYTES_MAX, unavailable};
use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A host that does not answer for so long is taken for absent.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// The client's end of a WebSocket.
pub struct Socket {
    sink: Mutex<SplitSink<Stream, Message>>,
    stream: Mutex<SplitStream<Stream>>,
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers or the answer is no WebSocket, `InvalidArgument` for a URL that cannot be,
    /// `Unsupported` for `wss://`: this build has no TLS.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MESSAGE_BYTES_MAX);
        config.max_frame_size = Some(MESSAGE_BYTES_MAX);
        // Messages are small while a user types; waiting to fill packets would only delay them.
        let no_delay = true;
        let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), no_delay);
        let (stream, _) = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| unavailable(format!("{url}: no answer within {} s", CONNECT_WITHIN.as_secs())))?
            .map_err(|error| to_error(&error).context(url))?;
        let (sink, stream) = stream.split();
        Ok(Self { sink: Mutex::new(sink), stream: Mutex::new(stream) })
    }
}

impl Connection for Socket {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            let mut sink = self.sink.lock().await;
            sink.send(Message::Binary(message.into())).await.map_err(|error| to_error(&error))
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let mut stream = self.stream.lock().await;
            loop {
                return match stream.next().await {
                    Some(Ok(Message::Binary(message))) => Ok(Some(message.into())),
                    Some(Ok(Message::Text(_))) => Err(Error::corrupt("a text message; sync messages are binary")),
                    // The library answers pings by itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => Ok(None),
                    Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => Ok(None),
                    Some(Err(error)) => Err(to_error(&error)),
                };
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            // A connection that is broken is closed already.
            let _ = self.sink.lock().await.close().await;
        })
    }
}

fn to_error(error: &tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Url(tungstenite::error::UrlError::TlsFeatureNotEnabled) => {
            Error::new(ErrorKind::Unsupported, "this build has no TLS: use ws://, or a proxy that speaks it")
        }
        tungstenite::Error::Url(error) => Error::invalid(error.to_string()),
        tungstenite::Error::Capacity(error) => Error::invalid(error.to_string()),
        tungstenite::Error::Http(response) => {
            unavailable(format!("the server answers {} instead of a WebSocket", response.status()))
        }
        error => unavailable(error.to_string()),
    }
}
