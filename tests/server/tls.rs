use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, rustls};

use crate::native::{Server, eddy, write};
use crate::notes;

/// What stands before a hub whose address is public: it speaks TLS, and hands on what was said. Ends with the runtime.
fn stand_before(runtime: &Runtime, hub: &str, made: &CertifiedKey<KeyPair>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .unwrap();
    let (acceptor, hub) = (TlsAcceptor::from(Arc::new(config)), hub.to_owned());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, hub) = (acceptor.clone(), hub.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(hub).await?).await
            });
        }
    });
    address
}

#[test]
fn a_server_syncs_with_a_hub_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let hub = Server::start(&directory.path().join("hub"), &[]);
    hub.post_well("/api/collections", &notes());
    hub.post_well("/api/collections/notes/insert", &json!({"rows": [{"id": 1, "title": "above", "v": [1, 0, 0]}]}));

    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let runtime = Runtime::new().unwrap();
    let url = format!("wss://localhost:{}/sync", stand_before(&runtime, &hub.address, &made).port());
    let mut command = eddy();
    command.env("SSL_CERT_FILE", write(directory.path(), "trusted.pem", made.cert.pem()));
    let below = ["--upstream", &url, "--upstream-collections", "notes"];
    let below = Server::start_by(command, "127.0.0.1:0", &directory.path().join("below"), &below);

    let title = |server: &Server, id: i64| {
        let (status, answer) =
            server.post("/api/collections/notes/get", &json!({"keys": [id], "outputFields": ["title"]}));
        // Not there before the first sync has made the collection.
        (status == 200).then(|| answer["rows"][0]["title"].clone())
    };
    while title(&below, 1) != Some(json!("above")) {
        std::thread::yield_now();
    }
    below.post_well("/api/collections/notes/insert", &json!({"rows": [{"id": 2, "title": "below", "v": [0, 1, 0]}]}));
    while title(&hub, 2) != Some(json!("below")) {
        std::thread::yield_now();
    }
}
