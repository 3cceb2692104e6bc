use axum::body::to_bytes;
use axum::http::HeaderName;

use super::*;
use crate::db::sync_testing::{Device, put, spec};
use crate::db::{Access, Admitted, Gate};
use crate::platform::Task;
use crate::sync::HubOptions;

async fn hub_with_a_segment() -> (Device, String, Vec<u8>) {
    let device = Device::new().await;
    device.db.create_collection("notes", spec()).await.unwrap();
    put(&device.notes(), (0..500).map(|id| (id, "of the hub"))).await;
    device.db.flush("notes").await.unwrap();
    let snapshot = device.db.snapshot().await.unwrap();
    let file = snapshot.manifest().files().find(|file| file.len > 1_000).unwrap().clone();
    let bytes = snapshot.read(&file).await.unwrap();
    (device, format!("{:08x}/{}", file.checksum, file.name), bytes.to_vec())
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(hub: &SyncHub, path: &str, headers: &[(HeaderName, &str)]) -> Answer {
    let asked = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
    let state = State((hub.clone(), Arc::new(AllowedOrigins::Own)));
    let response = tell(state, Path(path.to_owned()), asked).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec() }
}

#[tokio::test]
async fn a_file_is_told_whole_or_in_part_and_kept_for_good() {
    let (device, path, bytes) = hub_with_a_segment().await;
    let hub = SyncHub::new(device.db.clone(), HubOptions::default());
    let whole = ask(&hub, &path, &[]).await;
    assert_eq!((whole.status, &whole.body), (200, &bytes));
    assert_eq!(whole.header(header::CONTENT_LENGTH), bytes.len().to_string());
    assert_eq!(whole.header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
    assert_eq!(whole.header(header::ACCEPT_RANGES), "bytes");
    let tag = whole.header(header::ETAG);
    assert_eq!(tag, format!("\"{}\"", &path[..8]));

    let len = bytes.len();
    let last = format!("bytes={}-", len - 1);
    let beyond = format!("bytes=10-{}", u64::MAX);
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=7-99", 7..100),
        ("bytes=-5", len - 5..len),
        (&format!("bytes=-{}", len + 1), 0..len),
        (&last, len - 1..len),
        (&beyond, 10..len),
        (&format!("bytes=0-{}", len - 1), 0..len),
    ] {
        let answer = ask(&hub, &path, &[(header::RANGE, range)]).await;
        assert_eq!((answer.status, &answer.body[..]), (206, &bytes[part.clone()]), "{range}");
        let told = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        assert_eq!(answer.header(header::CONTENT_RANGE), told, "{range}");
        assert_eq!(answer.header(header::CONTENT_LENGTH), part.len().to_string(), "{range}");
        assert_eq!(answer.header(header::ETAG), tag);
    }
    for range in [&format!("bytes={len}-"), "bytes=-0", &format!("bytes={}-", u64::MAX)] {
        let answer = ask(&hub, &path, &[(header::RANGE, range)]).await;
        assert_eq!((answer.status, answer.body.len()), (416, 0), "{range}");
        assert_eq!(answer.header(header::CONTENT_RANGE), format!("bytes */{len}"), "{range}");
    }
    // What is no range, or several, is as if it were not there.
    for range in
        ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "bytes=+1-2", "lines=1-2", "bytes=99999999999999999999-"]
    {
        assert_eq!(ask(&hub, &path, &[(header::RANGE, range)]).await.status, 200, "{range}");
    }
    let part = (header::RANGE, "bytes=0-0");
    for (condition, value, status) in [
        (header::IF_NONE_MATCH, tag, 304),
        (header::IF_NONE_MATCH, "W/\"other\", *", 206),
        (header::IF_NONE_MATCH, "*", 304),
        (header::IF_RANGE, tag, 206),
        (header::IF_RANGE, "\"other\"", 200),
    ] {
        let answer = ask(&hub, &path, &[part.clone(), (condition.clone(), value)]).await;
        assert_eq!(answer.status, status, "{condition}: {value}");
    }
}

#[tokio::test]
async fn what_is_no_file_of_a_segment_is_not_there() {
    let (device, path, _) = hub_with_a_segment().await;
    let hub = SyncHub::new(device.db.clone(), HubOptions::default());
    let (checksum, name) = path.split_once('/').unwrap();
    for path in [
        "",
        "/",
        name,
        &format!("00000000/{name}"),
        &format!("{checksum}/../{name}"),
        &format!("{checksum}//{name}"),
        &format!("{checksum}/../../etc/passwd"),
        &format!("{checksum}/LOCK"),
        &format!("{checksum}/manifest/0000000002"),
    ] {
        let answer = ask(&hub, path, &[]).await;
        assert_eq!((answer.status, answer.header(header::CACHE_CONTROL)), (404, "no-store"), "{path}");
    }
    let foreign = [(header::ORIGIN, "https://evil.example"), (header::HOST, "localhost:7700")];
    assert_eq!(ask(&hub, &path, &foreign).await.status, 403);
    let own = [(header::ORIGIN, "http://localhost:7700"), (header::HOST, "localhost:7700")];
    assert_eq!(ask(&hub, &path, &own).await.status, 200);
    // It goes with the collection.
    device.db.drop_collection("notes").await.unwrap();
    assert_eq!(ask(&hub, &path, &[]).await.status, 404);
}

struct Doorkeeper;

impl Gate for Doorkeeper {
    fn admit(&self, token: Option<&str>, _: u64) -> crate::base::Result<Admitted> {
        match token {
            Some("all") => Ok(Admitted::default()),
            Some("none") => Ok(Admitted { access: Access::of(Vec::new())?, expires_ms: None }),
            _ => Err(Error::new(ErrorKind::Unauthorized, "who is there?")),
        }
    }

    fn changed(&self, _: u64) -> Task<'static, u64> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn where_tokens_are_asked_for_a_file_is_for_its_asker_alone() {
    let (device, path, bytes) = hub_with_a_segment().await;
    let hub = SyncHub::with_gate(device.db.clone(), HubOptions::default(), Arc::new(Doorkeeper));
    for (authorization, status) in
        [(None, 401), (Some("Bearer nobody"), 401), (Some("Basic all"), 401), (Some("Bearer none"), 403)]
    {
        let headers: Vec<_> = authorization.map(|text| (header::AUTHORIZATION, text)).into_iter().collect();
        let answer = ask(&hub, &path, &headers).await;
        assert_eq!((answer.status, answer.header(header::CACHE_CONTROL)), (status, "no-store"), "{authorization:?}");
        assert_eq!(answer.header(header::WWW_AUTHENTICATE), if status == 401 { "Bearer" } else { "" });
    }
    let answer = ask(&hub, &path, &[(header::AUTHORIZATION, "bearer all")]).await;
    assert_eq!((answer.status, &answer.body), (200, &bytes));
    assert_eq!(answer.header(header::CACHE_CONTROL), "private, max-age=31536000, immutable");
}
