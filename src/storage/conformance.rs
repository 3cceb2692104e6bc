//! The suite that every backend passes in its real home: each sentence of the contract of [`Storage`] that can be seen without
//! pulling the plug. What crashes leave is tested where crashes can be made: in [`FaultStorage`](super::FaultStorage) and
//! by killing processes.
//!
//! A case panics with the fact that does not hold, as tests do.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::{Entry, NAME_LEN_MAX, Storage};
use crate::base::{Error, ErrorKind, Result};
use crate::platform::{MaybeSend, MaybeSync, Task};

/// The place of one store, which can be opened again and again: a directory, a disk in memory.
pub trait Home: MaybeSend + MaybeSync {
    /// Opens the store; every time the same one.
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>>;
}

/// One case: its name and its check, on a home whose store is empty.
pub struct Case {
    /// What holds, in words.
    pub name: &'static str,
    /// Checks it; panics when it does not hold.
    pub check: for<'a> fn(&'a dyn Home) -> Task<'a, ()>,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), check: |home| Box::pin($name(home)) }),*];
    };
}

cases![
    names_are_checked_everywhere,
    list_is_ascending_and_by_prefix,
    a_name_may_continue_another,
    put_creates_only,
    ranges_are_exact,
    appends_grow_and_are_read_at_once,
    synced_appends_survive_a_reopen,
    small_appends_that_are_synced_at_once_show_nothing_else,
    truncate_cuts,
    remove_removes,
    empty_objects_exist,
    large_objects_are_whole,
    many_objects,
    missing_names_are_not_found,
    closed_is_closed,
    there_is_one_owner,
    names_run_at_once,
    random_operations_match_a_map,
];

/// Runs every case, each on the fresh home that `make` gives for its name. Tells how many ran.
///
/// # Panics
/// When the contract does not hold.
pub async fn run<H: Home>(make: impl AsyncFn(&'static str) -> H) -> usize {
    for case in CASES {
        tracing::info!(case = case.name, "storage conformance");
        (case.check)(&make(case.name).await).await;
    }
    CASES.len()
}

async fn open(home: &dyn Home) -> Arc<dyn Storage> {
    ok(home.open().await, "open")
}

async fn reopen(home: &dyn Home, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
    ok(storage.close().await, "close");
    open(home).await
}

#[track_caller]
fn ok<T>(result: Result<T>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error} ({:?})", error.kind()),
    }
}

#[track_caller]
fn fails<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Error {
    match result {
        Ok(_) => panic!("{what}: done, but {kind:?} is expected"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{what}: {error}");
            error
        }
    }
}

/// Bytes that differ everywhere, by seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn join_all<T>(mut tasks: Vec<Task<'_, T>>) -> Vec<T> {
    let mut values: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (task, value) in tasks.iter_mut().zip(&mut values) {
            if value.is_none()
                && let Poll::Ready(ready) = task.as_mut().poll(context)
            {
                *value = Some(ready);
            }
        }
        if values.iter().all(Option::is_some) {
            Poll::Ready(values.drain(..).flatten().collect())
        } else {
            Poll::Pending
        }
    })
    .await
}

async fn names_are_checked_everywhere(home: &dyn Home) {
    let storage = open(home).await;
    let longest = "x".repeat(NAME_LEN_MAX);
    for name in ["a", "0.1-2_3", "c1/s2/rows.arrow", "a/b/c/d/e/f/g", longest.as_str()] {
        ok(storage.put(name, Bytes::from_static(b"right")).await, name);
        assert_eq!(ok(storage.read_all(name).await, name), &b"right"[..]);
    }
    let too_long = "x".repeat(NAME_LEN_MAX + 1);
    for name in
        ["", "/", "/etc/passwd", "a/", "a//b", "..", "../a", "a/../../b", ".a", "A", "a b", "a~b", "LOCK", &too_long]
    {
        let kind = ErrorKind::InvalidArgument;
        fails(storage.read(name, 0, 0).await, kind, &format!("read {name:?}"));
        fails(storage.read_all(name).await, kind, &format!("read_all {name:?}"));
        fails(storage.put(name, Bytes::new()).await, kind, &format!("put {name:?}"));
        fails(storage.append(name, Bytes::new()).await, kind, &format!("append {name:?}"));
        fails(storage.sync(name).await, kind, &format!("sync {name:?}"));
        fails(storage.truncate(name, 0).await, kind, &format!("truncate {name:?}"));
        fails(storage.remove(name).await, kind, &format!("remove {name:?}"));
    }
    assert_eq!(ok(storage.list("").await, "list").len(), 5);
    assert_eq!(ok(storage.list("../").await, "list of a prefix that no name has"), []);
    ok(storage.close().await, "close");
}

async fn list_is_ascending_and_by_prefix(home: &dyn Home) {
    let storage = open(home).await;
    assert_eq!(ok(storage.list("").await, "list of an empty store"), []);
    // In the order of bytes `-` and `.` come before `/`, and `/` before digits, letters and `_`.
    let names = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "ab", "b/1", "b/10", "b/2"];
    for (len, name) in names.iter().enumerate().rev() {
        if len % 2 == 0 {
            ok(storage.put(name, pattern(1, len).into()).await, name);
        } else {
            ok(storage.append(name, pattern(1, len).into()).await, name);
        }
    }
    let mut storage = storage;
    for _ in 0..2 {
        for prefix in ["", "a", "a/", "a/b", "b/1", "b/2", "c", "A"] {
            let expected: Vec<Entry> = names
                .iter()
                .enumerate()
                .filter(|(_, name)| name.starts_with(prefix))
                .map(|(len, name)| Entry { name: (*name).to_owned(), len: len as u64 })
                .collect();
            assert_eq!(ok(storage.list(prefix).await, "list"), expected, "prefix {prefix:?}");
        }
        storage = reopen(home, storage).await;
    }
    ok(storage.close().await, "close");
}

async fn a_name_may_continue_another(home: &dyn Home) {
    let storage = open(home).await;
    for name in ["a/b/c", "a", "a/b"] {
        ok(storage.put(name, Bytes::copy_from_slice(name.as_bytes())).await, name);
    }
    ok(storage.remove("a").await, "remove");
    for name in ["a/b/c", "a/b"] {
        assert_eq!(ok(storage.read_all(name).await, name), name.as_bytes());
    }
    ok(storage.close().await, "close");
}

async fn put_creates_only(home: &dyn Home) {
    let storage = open(home).await;
    ok(storage.put("a", Bytes::from_static(b"first")).await, "put");
    ok(storage.append("log", Bytes::from_static(b"first")).await, "append");
    for name in ["a", "log"] {
        let error =
            fails(storage.put(name, Bytes::from_static(b"second")).await, ErrorKind::AlreadyExists, "put again");
        assert!(error.message().contains(name), "the message names {name}: {error}");
        assert_eq!(ok(storage.read_all(name).await, "read_all"), &b"first"[..]);
    }
    let storage = reopen(home, storage).await;
    fails(storage.put("a", Bytes::new()).await, ErrorKind::AlreadyExists, "put after a reopen");
    assert_eq!(ok(storage.read_all("a").await, "read_all"), &b"first"[..]);
    // An object that was put grows as any other.
    ok(storage.append("a", Bytes::from_static(b", then")).await, "append");
    ok(storage.sync("a").await, "sync");
    assert_eq!(ok(storage.read_all("a").await, "read_all"), &b"first, then"[..]);
    ok(storage.remove("a").await, "remove");
    ok(storage.put("a", Bytes::from_static(b"third")).await, "put after remove");
    let storage = reopen(home, storage).await;
    assert_eq!(ok(storage.read_all("a").await, "read_all"), &b"third"[..]);
    ok(storage.close().await, "close");
}

async fn ranges_are_exact(home: &dyn Home) {
    let storage = open(home).await;
    let bytes = pattern(2, 10_000);
    ok(storage.put("put", bytes.clone().into()).await, "put");
    ok(storage.append("appended", bytes[..4_000].to_vec().into()).await, "append");
    ok(storage.append("appended", bytes[4_000..].to_vec().into()).await, "append");
    for name in ["put", "appended"] {
        for (offset, len) in
            [(0, 0), (0, 1), (0, 10_000), (1, 9_999), (3_999, 2), (9_999, 1), (10_000, 0), (512, 4_096)]
        {
            let read = ok(storage.read(name, offset, len).await, "read");
            assert_eq!(read, &bytes[offset as usize..(offset + len) as usize], "{name} {offset} {len}");
        }
        // Lengths as a damaged manifest may hold them: an error, and no attempt to find the memory.
        for (offset, len) in
            [(0, 10_001), (10_000, 1), (10_001, 0), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (0, 1 << 50)]
        {
            let error = fails(storage.read(name, offset, len).await, ErrorKind::Corrupt, "read past the end");
            assert!(error.message().contains(name), "the message names {name}: {error}");
        }
    }
    ok(storage.close().await, "close");
}

async fn appends_grow_and_are_read_at_once(home: &dyn Home) {
    let storage = open(home).await;
    let bytes = pattern(3, 5_000);
    let mut len = 0;
    for step in [1, 0, 7, 64, 511, 512, 513, 1_000, 2_000] {
        let next = Bytes::copy_from_slice(&bytes[len..len + step]);
        ok(storage.append("log", next).await, "append");
        len += step;
        assert_eq!(ok(storage.read_all("log").await, "read_all"), &bytes[..len]);
        let tail = ok(storage.read("log", (len - step) as u64, step as u64).await, "read");
        assert_eq!(tail, &bytes[len - step..len]);
        assert_eq!(ok(storage.list("log").await, "list"), [Entry { name: "log".into(), len: len as u64 }]);
    }
    ok(storage.close().await, "close");
}

async fn synced_appends_survive_a_reopen(home: &dyn Home) {
    let mut storage = open(home).await;
    let bytes = pattern(4, 4_000);
    for round in 0..4 {
        for part in bytes[round * 1_000..(round + 1) * 1_000].chunks(300) {
            ok(storage.append("log", Bytes::copy_from_slice(part)).await, "append");
        }
        ok(storage.sync("log").await, "sync");
        ok(storage.sync("log").await, "sync with nothing new");
        storage = reopen(home, storage).await;
        assert_eq!(ok(storage.read_all("log").await, "read_all"), &bytes[..(round + 1) * 1_000]);
    }
    ok(storage.sync("log").await, "sync of what an earlier owner wrote");
    ok(storage.put("put", Bytes::from_static(b"whole")).await, "put");
    ok(storage.sync("put").await, "sync of what is durable already");
    ok(storage.close().await, "close");
}

/// A storage may have made room for the next ones, which nobody is to see.
async fn small_appends_that_are_synced_at_once_show_nothing_else(home: &dyn Home) {
    let mut storage = open(home).await;
    let mut expected = Vec::new();
    for round in 0..60usize {
        let part = pattern(round as u64, 1 + round * 331 % 2_000);
        expected.extend_from_slice(&part);
        ok(ok(storage.append_and_sync("log", part.into()).await, "append"), "sync");
        let entries = ok(storage.list("").await, "list");
        assert_eq!(entries, [Entry { name: "log".to_owned(), len: expected.len() as u64 }], "after {round}");
        let (end, past) = (expected.len() as u64, ErrorKind::Corrupt);
        assert_eq!(ok(storage.read_all("log").await, "read_all"), expected, "after {round}");
        assert_eq!(ok(storage.read("log", end - 1, 1).await, "read the last byte"), expected[expected.len() - 1..]);
        fails(storage.read("log", end, 1).await, past, "read behind the end");
        fails(storage.truncate("log", end + 1).await, ErrorKind::InvalidArgument, "truncate to more");
        match round {
            20 => {
                expected.truncate(expected.len() - 100);
                ok(storage.truncate("log", end - 100).await, "truncate");
            }
            30 => ok(storage.append("log", Bytes::from_static(b"")).await, "append nothing"),
            40 => storage = reopen(home, storage).await,
            50 => {
                ok(storage.remove("log").await, "remove");
                expected.clear();
            }
            _ => {}
        }
    }
    storage = reopen(home, storage).await;
    assert_eq!(ok(storage.read_all("log").await, "read_all"), expected);
    ok(storage.close().await, "close");
}

async fn truncate_cuts(home: &dyn Home) {
    let mut storage = open(home).await;
    let bytes = pattern(5, 3_000);
    ok(storage.append("log", bytes.clone().into()).await, "append");
    let error = fails(storage.truncate("log", 3_001).await, ErrorKind::InvalidArgument, "truncate to more");
    assert!(error.message().contains("3000") && error.message().contains("3001"), "both lengths are named: {error}");
    ok(storage.truncate("log", 3_000).await, "truncate to what it has");
    ok(storage.truncate("log", 1_234).await, "truncate");
    fails(storage.read("log", 1_234, 1).await, ErrorKind::Corrupt, "read what was cut");
    ok(storage.append("log", Bytes::from_static(b"after")).await, "append");
    ok(storage.sync("log").await, "sync");
    for _ in 0..2 {
        let read = ok(storage.read_all("log").await, "read_all");
        assert_eq!(read[..1_234], bytes[..1_234]);
        assert_eq!(&read[1_234..], b"after", "appends go on where it was cut");
        storage = reopen(home, storage).await;
    }
    ok(storage.truncate("log", 10).await, "truncate, first thing after a reopen");
    ok(storage.put("put", bytes.clone().into()).await, "put");
    ok(storage.truncate("put", 0).await, "truncate an object that was put");
    storage = reopen(home, storage).await;
    assert_eq!(ok(storage.read_all("log").await, "read_all"), &bytes[..10]);
    assert_eq!(ok(storage.read_all("put").await, "read_all"), &b""[..]);
    ok(storage.close().await, "close");
}

async fn remove_removes(home: &dyn Home) {
    let storage = open(home).await;
    ok(storage.remove("never").await, "remove what never was");
    ok(storage.put("put", Bytes::from_static(b"1")).await, "put");
    ok(storage.append("log", Bytes::from_static(b"12")).await, "append");
    ok(storage.append("keep", Bytes::from_static(b"123")).await, "append");
    for name in ["put", "log", "put"] {
        ok(storage.remove(name).await, "remove");
        fails(storage.read_all(name).await, ErrorKind::NotFound, "read what was removed");
        fails(storage.sync(name).await, ErrorKind::NotFound, "sync what was removed");
    }
    ok(storage.append("log", Bytes::from_static(b"new")).await, "append after remove");
    assert_eq!(ok(storage.read_all("log").await, "read_all"), &b"new"[..], "a removed log starts empty");
    ok(storage.sync("keep").await, "sync");
    ok(storage.sync("log").await, "sync");
    let storage = reopen(home, storage).await;
    let names: Vec<String> = ok(storage.list("").await, "list").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["keep", "log"]);
    ok(storage.close().await, "close");
}

async fn empty_objects_exist(home: &dyn Home) {
    let mut storage = open(home).await;
    ok(storage.put("put", Bytes::new()).await, "put");
    ok(storage.append("log", Bytes::new()).await, "append");
    ok(storage.sync("log").await, "sync");
    for _ in 0..2 {
        let entries = ["log", "put"].map(|name| Entry { name: name.into(), len: 0 });
        assert_eq!(ok(storage.list("").await, "list"), entries);
        for name in ["put", "log"] {
            assert_eq!(ok(storage.read_all(name).await, "read_all"), &b""[..]);
            assert_eq!(ok(storage.read(name, 0, 0).await, "read"), &b""[..]);
            fails(storage.put(name, Bytes::new()).await, ErrorKind::AlreadyExists, "put again");
        }
        storage = reopen(home, storage).await;
    }
    ok(storage.close().await, "close");
}

async fn large_objects_are_whole(home: &dyn Home) {
    let mut storage = open(home).await;
    let bytes = Bytes::from(pattern(6, (8 << 20) + 3));
    ok(storage.put("put", bytes.clone()).await, "put");
    ok(storage.append("log", bytes.slice(..1_000)).await, "append");
    ok(storage.append("log", bytes.slice(1_000..)).await, "append");
    ok(storage.sync("log").await, "sync");
    for _ in 0..2 {
        for name in ["put", "log"] {
            let whole = ok(storage.read_all(name).await, "read_all");
            assert!(whole == bytes, "{name}: {} bytes, not what was written", whole.len());
            let middle = ok(storage.read(name, 5 << 20, 1 << 20).await, "read");
            assert!(middle == bytes.slice(5 << 20..6 << 20), "{name}: a range in the middle is not what was written");
        }
        storage = reopen(home, storage).await;
    }
    ok(storage.close().await, "close");
}

async fn many_objects(home: &dyn Home) {
    const COUNT: usize = 200;
    let mut storage = open(home).await;
    let name = |number: usize| format!("c{}/object-{number:04}", number % 3);
    for number in 0..COUNT {
        let bytes = Bytes::from(pattern(number as u64, number));
        if number % 2 == 0 {
            ok(storage.put(&name(number), bytes).await, "put");
        } else {
            ok(storage.append(&name(number), bytes).await, "append");
        }
    }
    // A second round of appends: more objects than any backend keeps open.
    for number in (1..COUNT).step_by(2) {
        ok(storage.append(&name(number), Bytes::from_static(b"more")).await, "append");
        ok(storage.sync(&name(number)).await, "sync");
    }
    for _ in 0..2 {
        let entries = ok(storage.list("").await, "list");
        assert_eq!(entries.len(), COUNT);
        assert!(entries.is_sorted());
        for number in 0..COUNT {
            let mut expected = pattern(number as u64, number);
            if number % 2 == 1 {
                expected.extend_from_slice(b"more");
            }
            assert_eq!(ok(storage.read_all(&name(number)).await, "read_all"), expected);
        }
        storage = reopen(home, storage).await;
    }
    for number in 0..COUNT {
        ok(storage.remove(&name(number)).await, "remove");
    }
    assert_eq!(ok(storage.list("").await, "list"), []);
    ok(storage.close().await, "close");
}

async fn missing_names_are_not_found(home: &dyn Home) {
    let storage = open(home).await;
    let kind = ErrorKind::NotFound;
    for error in [
        fails(storage.read("gone", 0, 0).await, kind, "read"),
        fails(storage.read_all("gone").await, kind, "read_all"),
        fails(storage.sync("gone").await, kind, "sync"),
        fails(storage.truncate("gone", 0).await, kind, "truncate"),
    ] {
        assert!(error.message().contains("gone"), "the message names it: {error}");
    }
    assert_eq!(ok(storage.list("").await, "list"), [], "asking creates nothing");
    ok(storage.close().await, "close");
}

async fn closed_is_closed(home: &dyn Home) {
    let storage = open(home).await;
    ok(storage.append("log", Bytes::from_static(b"1")).await, "append");
    ok(storage.sync("log").await, "sync");
    ok(storage.close().await, "close");
    ok(storage.close().await, "close again");
    let closed_stays_closed = async || {
        let kind = ErrorKind::Closed;
        fails(storage.list("").await, kind, "list");
        fails(storage.read("log", 0, 1).await, kind, "read");
        fails(storage.read_all("log").await, kind, "read_all");
        fails(storage.put("put", Bytes::new()).await, kind, "put");
        fails(storage.append("log", Bytes::new()).await, kind, "append");
        fails(storage.sync("log").await, kind, "sync");
        fails(storage.truncate("log", 0).await, kind, "truncate");
        fails(storage.remove("log").await, kind, "remove");
    };
    closed_stays_closed().await;
    let next = open(home).await;
    closed_stays_closed().await;
    ok(storage.close().await, "close while another owns the store");
    assert_eq!(ok(next.read_all("log").await, "the next owner reads"), &b"1"[..]);
    ok(next.close().await, "close");
}

async fn there_is_one_owner(home: &dyn Home) {
    let storage = open(home).await;
    ok(storage.put("a", Bytes::from_static(b"1")).await, "put");
    for _ in 0..2 {
        fails(home.open().await, ErrorKind::Locked, "open while it is open");
    }
    assert_eq!(ok(storage.read_all("a").await, "the owner is undisturbed"), &b"1"[..]);
    ok(storage.append("log", Bytes::from_static(b"1")).await, "append");
    ok(storage.sync("log").await, "sync");
    ok(storage.close().await, "close");
    let next = open(home).await;
    fails(home.open().await, ErrorKind::Locked, "open while the next one has it open");
    drop(next);
    let last = open(home).await;
    assert_eq!(ok(last.read_all("log").await, "read_all"), &b"1"[..]);
    ok(last.close().await, "close");
}

async fn names_run_at_once(home: &dyn Home) {
    let storage = open(home).await;
    let names: Vec<String> = (0..16).map(|number| format!("n{number}")).collect();
    let storage = &*storage;
    let one = |number: usize, name: &str| {
        let name = name.to_owned();
        let bytes = Bytes::from(pattern(number as u64, 2_000));
        let task: Task<'_, ()> = Box::pin(async move {
            if number.is_multiple_of(2) {
                ok(storage.put(&name, bytes.clone()).await, "put");
            } else {
                for part in bytes.chunks(333) {
                    ok(storage.append(&name, Bytes::copy_from_slice(part)).await, "append");
                    ok(storage.sync(&name).await, "sync");
                }
            }
            assert_eq!(ok(storage.read_all(&name).await, "read_all"), bytes);
        });
        task
    };
    join_all(names.iter().enumerate().map(|(number, name)| one(number, name)).collect()).await;
    // Reads of one name run at once too.
    let reads: Vec<_> = (0..8).map(|number| storage.read("n1", number * 100, 200)).collect();
    for (number, read) in join_all(reads).await.into_iter().enumerate() {
        assert_eq!(ok(read, "read"), &pattern(1, 2_000)[number * 100..number * 100 + 200]);
    }
    assert_eq!(ok(storage.list("").await, "list").len(), 16);
    ok(storage.close().await, "close");
}

async fn random_operations_match_a_map(home: &dyn Home) {
    const SEED: u64 = 0x0edd_1e5e_ed00_0001;
    let mut storage = open(home).await;
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let choices = pattern(SEED, 4 * 400);
    for (step, choice) in choices.chunks_exact(4).enumerate() {
        let name = ["a", "a/b", "b", "c.log"][usize::from(choice[0] % 4)];
        let at = format!("step {step}, {name}, seed {SEED:#x}");
        let bytes = pattern(step as u64, usize::from(choice[1]) * 5);
        match choice[2] % 8 {
            0 | 1 if model.contains_key(name) => {
                fails(storage.put(name, bytes.into()).await, ErrorKind::AlreadyExists, &at);
            }
            0 | 1 => {
                ok(storage.put(name, bytes.clone().into()).await, &at);
                model.insert(name.to_owned(), bytes);
            }
            2..=4 => {
                ok(storage.append(name, bytes.clone().into()).await, &at);
                model.entry(name.to_owned()).or_default().extend_from_slice(&bytes);
            }
            5 => match model.get_mut(name) {
                Some(object) => {
                    let len = object.len() * usize::from(choice[3]) / 255;
                    ok(storage.truncate(name, len as u64).await, &at);
                    object.truncate(len);
                }
                None => drop(fails(storage.truncate(name, 0).await, ErrorKind::NotFound, &at)),
            },
            6 => {
                ok(storage.remove(name).await, &at);
                model.remove(name);
            }
            _ if choice[3] < 64 => {
                for name in model.keys() {
                    ok(storage.sync(name).await, &at);
                }
                storage = reopen(home, storage).await;
            }
            _ => match model.contains_key(name) {
                true => ok(storage.sync(name).await, &at),
                false => drop(fails(storage.sync(name).await, ErrorKind::NotFound, &at)),
            },
        }
        match model.get(name) {
            Some(object) => assert_eq!(ok(storage.read_all(name).await, &at), object, "{at}"),
            None => drop(fails(storage.read_all(name).await, ErrorKind::NotFound, &at)),
        }
        let expected: Vec<Entry> =
            model.iter().map(|(name, bytes)| Entry { name: name.clone(), len: bytes.len() as u64 }).collect();
        assert_eq!(ok(storage.list("").await, &at), expected, "{at}");
    }
    ok(storage.close().await, "close");
}

#[cfg(all(test, native))]
mod tests {
    use super::*;
    use crate::storage::{FaultStorage, MemoryDisk};

    impl Home for MemoryDisk {
        fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
            Box::pin(async { Ok(Arc::new(MemoryDisk::open(self)?) as Arc<dyn Storage>) })
        }
    }

    /// A disk without planned faults; the first handle is dropped, so that the store is free.
    struct Faultless(FaultStorage);

    impl Home for Faultless {
        fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
            Box::pin(async { Ok(Arc::new(self.0.open_again()?) as Arc<dyn Storage>) })
        }
    }

    #[test]
    fn memory() {
        assert_eq!(crate::platform::block_on(run(async |_| MemoryDisk::new())), CASES.len());
    }

    #[test]
    fn fault_without_faults() {
        let home = async |_| {
            let storage = FaultStorage::new(1);
            storage.close().await.unwrap();
            Faultless(storage)
        };
        assert_eq!(crate::platform::block_on(run(home)), CASES.len());
    }
}
