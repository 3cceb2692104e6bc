//! `ObjectStorage`: in memory, and against real servers that the test starts, one of S3 and one of Azure Blob Storage.
//!
//! `npm test -- services` installs them and names them in `EDDY_TEST_S3_SERVER` and `EDDY_TEST_AZURITE`; without that their tests fail, for
//! they prove nothing.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests, which start what they test against"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eddydb::base::{ErrorKind, Result};
use eddydb::db::{Db, Options, QueryRequest};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Row, Value};
use eddydb::platform::Task;
use eddydb::storage::conformance::{self, CASES, Home};
use eddydb::storage::{ObjectStorage, Storage};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

struct Prefix {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Home for Prefix {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async {
            Ok(Arc::new(ObjectStorage::open(self.store.clone(), &self.prefix).await?) as Arc<dyn Storage>)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_in_memory() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // One bucket holds many stores, and one at its root.
    let home = async |case: &'static str| Prefix { store: store.clone(), prefix: format!("stores/{case}") };
    assert_eq!(conformance::run(home).await, CASES.len());
    let home = async |_| Prefix { store: Arc::new(InMemory::new()), prefix: String::new() };
    assert_eq!(conformance::run(home).await, CASES.len());
}

/// A server of S3 with an empty bucket `eddy`; killed when dropped.
struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    fn start() -> Self {
        let server = std::env::var("EDDY_TEST_S3_SERVER")
            .expect("EDDY_TEST_S3_SERVER names moto_server; `npm test -- services` installs it");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, endpoint: format!("127.0.0.1:{port}") };
        let started = Instant::now();
        while !server.create_bucket() {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not answer");
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn create_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.endpoint) else { return false };
        let request = format!(
            "PUT /eddy HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
            self.endpoint
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.endpoint)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    fn bucket(&self) -> Arc<dyn ObjectStore> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.endpoint))
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_region("us-east-1")
            .with_bucket_name("eddy");
        Arc::new(builder.build().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_on_s3() {
    let server = Server::start();
    let home = async |case: &'static str| Prefix { store: server.bucket(), prefix: case.to_owned() };
    assert_eq!(conformance::run(home).await, CASES.len());
}

/// A server of Azure Blob Storage with an empty container `eddy`; it ends with its standard input.
struct Azurite {
    child: Child,
    endpoint: String,
}

impl Azurite {
    fn start() -> Self {
        assert!(
            std::env::var_os("EDDY_TEST_AZURITE").is_some(),
            "EDDY_TEST_AZURITE names where azurite is; `npm test -- services` installs it"
        );
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/azurite.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut endpoint).unwrap();
        Self { child, endpoint: endpoint.trim().to_owned() }
    }

    fn container(&self) -> Arc<dyn ObjectStore> {
        let (_, account) = self.endpoint.rsplit_once('/').expect("the address ends with the account");
        let builder = MicrosoftAzureBuilder::new()
            .with_endpoint(self.endpoint.clone())
            .with_allow_http(true)
            .with_account(account)
            // That of every Azurite.
            .with_access_key("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
            .with_container_name("eddy");
        Arc::new(builder.build().unwrap())
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_on_azure() {
    let server = Azurite::start();
    let home = async |case: &'static str| Prefix { store: server.container(), prefix: case.to_owned() };
    assert_eq!(conformance::run(home).await, CASES.len());
}

fn spec() -> CollectionSpec {
    let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"v","type":"float_vector","dim":2}],
        "dynamic":false,"indexes":{"v":{"metric":"L2","kind":"FLAT"}}}"#;
    serde_json::from_str(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_bucket_keeps_what_it_acknowledged() {
    let server = Server::start();
    keeps_what_it_acknowledged(server.bucket()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_an_azure_container_keeps_what_it_acknowledged() {
    let server = Azurite::start();
    keeps_what_it_acknowledged(server.container()).await;
}

async fn keeps_what_it_acknowledged(bucket: Arc<dyn ObjectStore>) {
    let open = async || {
        let storage = ObjectStorage::open(bucket.clone(), "db").await.unwrap();
        Db::open(Arc::new(storage), Options::default()).await.unwrap()
    };
    let mut expected = Vec::new();
    for round in 0..4i64 {
        let db = open().await;
        let notes = match db.collection("notes") {
            Ok(notes) => notes,
            Err(_) => db.create_collection("notes", spec()).await.unwrap(),
        };
        let ids: Vec<Value> =
            notes.query(&QueryRequest::default()).await.unwrap().iter().map(|row| row["id"].clone()).collect();
        assert_eq!(ids, expected);
        let writes = (0..20i64).map(|write| {
            let id = round * 20 + write;
            let row =
                Row::from([("id".to_owned(), Value::Int(id)), ("v".to_owned(), Value::Vector(vec![id as f32, 0.0]))]);
            let batch = Batch::from_rows(&notes.spec().schema, vec![row]).unwrap();
            let notes = notes.clone();
            tokio::spawn(async move { notes.insert(batch).await.unwrap() })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        expected.extend((round * 20..round * 20 + 20).map(Value::Int));
        match round {
            0 => db.close().await.unwrap(),
            1 => db.flush("notes").await.unwrap(),
            // Dropped as it is: the next one replays the log.
            _ => {}
        }
    }
    let db = open().await;
    assert_eq!(db.collection("notes").unwrap().count(None).await.unwrap(), expected.len());
    db.close().await.unwrap();
}

/// The binary, on a bucket, killed as a power cut would; the next one finds everything that was acknowledged, and does not wait for the
/// lease of a process that it can see is dead.
#[test]
fn a_server_on_a_bucket_that_is_killed_loses_nothing_acknowledged() {
    let server = Server::start();
    let serve = || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_eddy"))
            .args(["serve", "--listen", "127.0.0.1:0", "--storage", "s3://eddy/served"])
            .envs(server.environment())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        (child, address)
    };
    let post = |address: &str, path: &str, body: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 201"), "{path}: {answer}");
        answer
    };
    let mut rows = 0;
    for round in 0..3 {
        let (mut child, address) = serve();
        if round == 0 {
            let schema = r#"{"name":"notes","fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"v","type":"float_vector","dim":2}]}"#;
            post(&address, "/api/collections", schema);
        }
        let counted = post(&address, "/api/collections/notes/count", "{}");
        assert!(counted.contains(&format!("\"count\":{rows}")), "{counted}");
        for _ in 0..5 {
            post(&address, "/api/collections/notes/insert", &format!(r#"{{"rows":[{{"id":{rows},"v":[1,2]}}]}}"#));
            rows += 1;
        }
        let second = Command::new(env!("CARGO_BIN_EXE_eddy"))
            .args(["info", "--storage", "s3://eddy/served"])
            .envs(server.environment())
            .output()
            .unwrap();
        let message = String::from_utf8(second.stderr).unwrap();
        assert!(
            message.contains(&format!("locked: s3://eddy/served: it is in use, by process {}", child.id())),
            "{message}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_says_why() {
    for url in ["floppy://a/b", "not a url", "file:///tmp", "s3://"] {
        let error = ObjectStorage::open_url(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}: {error}");
    }
    let store = Arc::new(InMemory::new());
    let payload = bytes::Bytes::from_static(b"no lease").into();
    store.put(&Path::from("a/LEASE"), payload).await.unwrap();
    assert_eq!(ObjectStorage::open(store, "a").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A part behind a gap is what a put leaves that arrived after its owner had given up; foreign objects are nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn parts_behind_a_gap_go_and_foreign_objects_stay() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let storage = ObjectStorage::open(store.clone(), "s").await.unwrap();
    for part in ["one", ", two"] {
        storage.append("log", part.as_bytes().to_vec().into()).await.unwrap();
        storage.sync("log").await.unwrap();
    }
    storage.close().await.unwrap();
    for name in ["s/log@0000000000000099", "s/other@0000000000000003", "s/Foreign", "s/log@x"] {
        store.put(&Path::from(name), bytes::Bytes::from_static(b"?").into()).await.unwrap();
    }
    let storage = ObjectStorage::open(store.clone(), "s").await.unwrap();
    let names: Vec<String> = storage.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["log"]);
    assert_eq!(storage.read_all("log").await.unwrap(), "one, two");
    assert!(store.head(&Path::from("s/log@0000000000000099")).await.is_err());
    assert!(store.head(&Path::from("s/Foreign")).await.is_ok());
    storage.close().await.unwrap();
}
