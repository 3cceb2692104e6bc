use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_lock::Mutex;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

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
    /// `Unavailable` when nobody answers, the server's certificate is not trusted or the answer is no WebSocket, `InvalidArgument` for a URL
    /// that cannot be.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MESSAGE_BYTES_MAX);
        config.max_frame_size = Some(MESSAGE_BYTES_MAX);
        // Messages are small while a user types; waiting to fill packets would only delay them.
        let no_delay = true;
        let encrypted = url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("wss:"));
        let connector = if encrypted { tls()? } else { Connector::Plain };
        let connecting = tokio_tungstenite::connect_async_tls_with_config(url, Some(config), no_delay, Some(connector));
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

/// How a server proves who it is, where it has to: to one of those whom the system trusts, or the files that `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name.
fn tls() -> Result<Connector> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Stores of systems hold a few that nobody can read.
        let (_, unreadable) = roots.add_parsable_certificates(found.certs);
        for error in &found.errors {
            tracing::warn!("certificates of the system: {error}");
        }
        if unreadable > 0 {
            tracing::debug!("{unreadable} certificates of the system cannot be read");
        }
        let failed = |error| Error::new(ErrorKind::Internal, format!("TLS: {error}"));
        // Named, because a program may have several.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    });
    CONFIG.clone().map(Connector::Rustls)
}

fn to_error(error: &tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Url(error) => Error::invalid(error.to_string()),
        tungstenite::Error::Capacity(error) => Error::invalid(error.to_string()),
        tungstenite::Error::Http(response) => {
            unavailable(format!("the server answers {} instead of a WebSocket", response.status()))
        }
        error => unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_is_refused() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
            .expect("a server");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("wss://localhost:{}/sync", listener.local_addr().expect("an address").port());
        let accepted = tokio::spawn(async move { acceptor.accept(listener.accept().await?.0).await.map(drop) });
        let error = Socket::connect(&url).await.map(drop).expect_err("its certificate is signed by itself");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(accepted.await.expect("it ends").is_err());
    }
}
