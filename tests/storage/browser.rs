//! The storage backends of a browser in their real home: a dedicated worker, with the origin private file system.
//!
//! Whoever runs this gives the origin a quota of 64 MiB (`scripts/wasm-test.mjs` does), so that it can be exceeded.
#![cfg(browser)]
#![expect(clippy::arc_with_non_send_sync, clippy::unwrap_used, reason = "one thread, and tests")]

mod seeds;

use std::sync::Arc;

use eddydb::base::{Error, ErrorKind, Result};
use eddydb::platform::Task;
use eddydb::storage::conformance::{self, CASES, Home};
use eddydb::storage::{DirectoryStorage, FaultStorage, ForeignStorage, MemoryDisk, Storage};
use js_sys::{Function, Promise};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

struct Opfs(String);

impl Home for Opfs {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async { Ok(Arc::new(DirectoryStorage::open_opfs(&self.0).await?) as Arc<dyn Storage>) })
    }
}

/// An empty store of that name.
async fn fresh(name: &str) -> Opfs {
    DirectoryStorage::remove_opfs(name).await.unwrap();
    Opfs(name.to_owned())
}

#[wasm_bindgen_test]
async fn conformance_of_the_origin_private_file_system() {
    let start = js_sys::Date::now();
    // Each case leaves the quota to the next one.
    let count = conformance::run(async |case: &'static str| {
        for case in CASES {
            DirectoryStorage::remove_opfs(case.name).await.unwrap();
        }
        Opfs(case.to_owned())
    })
    .await;
    assert_eq!(count, CASES.len());
    console_log!("{count} cases in {} ms", js_sys::Date::now() - start);
    for case in CASES {
        DirectoryStorage::remove_opfs(case.name).await.unwrap();
    }
}

/// The package's store in IndexedDB; `scripts/wasm-test.mjs` makes the script of it.
const INDEXEDDB: &str = include_str!(env!("EDDY_INDEXEDDB_SCRIPT"));

async fn indexeddb(method: &str, name: &str, strict: bool) -> Result<JsValue> {
    let source = format!("{INDEXEDDB}\nreturn indexedDbModule.IndexedDbStorage.{method}(name, strict);");
    let call = Function::new_with_args("name, strict", &source);
    let promise: Promise = call.call2(&JsValue::NULL, &name.into(), &strict.into()).unwrap().unchecked_into();
    JsFuture::from(promise).await.map_err(|thrown| {
        let text = |member: &str| js_sys::Reflect::get(&thrown, &member.into()).unwrap().as_string().unwrap();
        Error::new(ErrorKind::from_name(&text("kind")), text("message"))
    })
}

struct IndexedDb {
    name: String,
    strict: bool,
}

impl IndexedDb {
    async fn fresh(name: &str, strict: bool) -> Self {
        indexeddb("remove", name, strict).await.unwrap();
        Self { name: name.to_owned(), strict }
    }
}

impl Home for IndexedDb {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async {
            let storage = indexeddb("open", &self.name, self.strict).await?;
            Ok(Arc::new(ForeignStorage::new(storage)) as Arc<dyn Storage>)
        })
    }
}

#[wasm_bindgen_test]
async fn conformance_of_indexeddb() {
    for strict in [true, false] {
        let start = js_sys::Date::now();
        let count = conformance::run(async |case: &'static str| IndexedDb::fresh(case, strict).await).await;
        assert_eq!(count, CASES.len());
        console_log!("{count} cases, strict {strict}, in {} ms", js_sys::Date::now() - start);
        for case in CASES {
            indexeddb("remove", case.name, strict).await.unwrap();
        }
    }
}

#[wasm_bindgen_test]
async fn an_exceeded_quota_of_indexeddb_is_storage_full_and_loses_nothing() {
    const MEBIBYTE: usize = 1 << 20;
    let home = IndexedDb::fresh("quota", true).await;
    let storage = home.open().await.unwrap();
    storage.put("small", vec![1; 100].into()).await.unwrap();
    // Bytes that do not shrink: the browser packs what it stores.
    let mut state = 1u32;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    };
    let (mut written, mut len) = (Vec::new(), 0);
    let error = loop {
        let bytes = noise(4 * MEBIBYTE);
        match storage.append("log", bytes.clone().into()).await {
            Ok(()) => (written, len) = (bytes, len + 4 * MEBIBYTE),
            Err(error) => break error,
        }
        storage.sync("log").await.unwrap();
        assert!(len < 200 * MEBIBYTE, "the quota of 64 MiB is never exceeded");
    };
    console_log!("full after {len} bytes: {error}");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(storage.append("log", vec![0].into()).await.unwrap_err().message().contains(&format!("cut it to {len}")));
    storage.truncate("log", len as u64).await.unwrap();
    storage.close().await.unwrap();
    let storage = home.open().await.unwrap();
    let last = storage.read("log", (len - 4 * MEBIBYTE) as u64, 4 * MEBIBYTE as u64).await.unwrap();
    assert!(last == written);
    storage.remove("log").await.unwrap();
    storage.close().await.unwrap();
    indexeddb("remove", "quota", true).await.unwrap();
}

/// A lock can be taken away (`steal`); then transactions tell who owns the store.
#[wasm_bindgen_test]
async fn an_owner_of_indexeddb_whose_store_was_taken_over_writes_nothing_more() {
    let home = IndexedDb::fresh("taken", true).await;
    let lost = home.open().await.unwrap();
    lost.append("log", b"before".to_vec().into()).await.unwrap();
    let steal = "return navigator.locks.request('eddydb:taken', { steal: true }, () => {});";
    let stolen: Promise = Function::new_no_args(steal).call0(&JsValue::NULL).unwrap().unchecked_into();
    JsFuture::from(stolen).await.unwrap();
    let owner = home.open().await.unwrap();
    owner.append("log", b", after".to_vec().into()).await.unwrap();
    for result in [
        lost.append("log", b"lost".to_vec().into()).await,
        lost.put("new", b"lost".to_vec().into()).await,
        lost.truncate("log", 0).await,
        lost.remove("log").await,
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Locked);
    }
    drop(lost);
    assert_eq!(owner.read_all("log").await.unwrap(), "before, after");
    owner.close().await.unwrap();
    indexeddb("remove", "taken", true).await.unwrap();
}

struct Memory(MemoryDisk);

impl Home for Memory {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async { Ok(Arc::new(self.0.open()?) as Arc<dyn Storage>) })
    }
}

/// A directory of the application's own, as Node and edge hosts give one: `room` is what it may hold, and `answer` is what a
/// write that does not fit gives: `"throw"`, or a number that it returns instead of a count. No write takes more than 100,000 bytes.
fn own_directory(room: f64, answer: &JsValue) -> JsValue {
    const SOURCE: &str = r"
        const files = new Map(), open = new Set();
        const fail = (name) => { throw Object.assign(new Error('own directory'), { name }); };
        const used = () => [...files.values()].reduce((sum, file) => sum + file.len, 0);
        const handle = (name) => ({ kind: 'file', createSyncAccessHandle() {
            if (open.has(name)) fail('NoModificationAllowedError');
            open.add(name);
            const file = files.get(name);
            return {
                read(to, { at }) {
                    const part = file.bytes.subarray(at, Math.min(file.len, at + to.length));
                    to.set(part);
                    return part.length;
                },
                write(from, { at }) {
                    const count = Math.min(from.length, 100000);
                    if (used() + count > room) return answer === 'throw' ? fail('QuotaExceededError') : answer;
                    if (at + count > file.bytes.length) {
                        const bytes = new Uint8Array(2 * (at + count));
                        bytes.set(file.bytes);
                        file.bytes = bytes;
                    }
                    file.bytes.set(from.subarray(0, count), at);
                    file.len = Math.max(file.len, at + count);
                    return count;
                },
                getSize: () => file.len,
                truncate(len) { file.len = len; },
                flush() {},
                close() { open.delete(name); },
            };
        } });
        return {
            async getFileHandle(name, { create }) {
                if (!files.has(name) && !create) fail('NotFoundError');
                if (!files.has(name)) files.set(name, { bytes: new Uint8Array(0), len: 0 });
                return handle(name);
            },
            async removeEntry(name) {
                if (open.has(name)) fail('NoModificationAllowedError');
                if (!files.delete(name)) fail('NotFoundError');
            },
            async *entries() {
                yield ['folder', { kind: 'directory' }];
                yield ['NOT AN OBJECT', handle('?')];
                for (const name of [...files.keys()]) yield [name, handle(name)];
            },
        };";
    Function::new_with_args("room, answer", SOURCE).call2(&JsValue::NULL, &room.into(), answer).unwrap()
}

struct Own(JsValue);

impl Home for Own {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async {
            let storage = DirectoryStorage::open_directory(self.0.clone()).await?;
            Ok(Arc::new(storage) as Arc<dyn Storage>)
        })
    }
}

#[wasm_bindgen_test]
async fn conformance_of_a_directory_of_ones_own() {
    let home = async |_| Own(own_directory(f64::INFINITY, &"throw".into()));
    assert_eq!(conformance::run(home).await, CASES.len());
}

/// Chromium in private windows answered a full disk with 4294967288, its file error as an unsigned number, and the
/// bytes counted as written: acknowledged rows were gone.
#[wasm_bindgen_test]
async fn whatever_a_host_answers_when_full_nothing_is_acknowledged() {
    for (answer, kind) in [
        (JsValue::from("throw"), ErrorKind::StorageFull),
        (0.into(), ErrorKind::StorageFull),
        (4_294_967_288_u32.into(), ErrorKind::StorageFull),
        ((-8).into(), ErrorKind::StorageFull),
        (4_294_967_291_u32.into(), ErrorKind::Io),
        (f64::NAN.into(), ErrorKind::Io),
    ] {
        let home = Own(own_directory(250_000.0, &answer));
        let storage = home.open().await.unwrap();
        storage.append("log", vec![1; 10].into()).await.unwrap();
        let error = storage.append("log", vec![2; 300_000].into()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert_eq!(storage.list("").await.unwrap()[0].len, 200_010, "{answer:?}: two writes of three fitted");
        let error = storage.put("object", vec![3; 300_000].into()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        storage.truncate("log", 10).await.unwrap();
        storage.put("object", vec![3; 150_000].into()).await.unwrap();
        storage.close().await.unwrap();
        let storage = home.open().await.unwrap();
        assert_eq!(storage.read_all("log").await.unwrap(), vec![1; 10]);
        assert_eq!(storage.read_all("object").await.unwrap(), vec![3; 150_000]);
    }
}

#[wasm_bindgen_test]
async fn conformance_of_memory() {
    assert_eq!(conformance::run(async |_| Memory(MemoryDisk::new())).await, CASES.len());
}

struct Faultless(FaultStorage);

impl Home for Faultless {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async { Ok(Arc::new(self.0.open_again()?) as Arc<dyn Storage>) })
    }
}

#[wasm_bindgen_test]
async fn conformance_of_faults_without_faults() {
    let home = async |_| {
        let storage = FaultStorage::new(1);
        storage.close().await.unwrap();
        Faultless(storage)
    };
    assert_eq!(conformance::run(home).await, CASES.len());
}

#[wasm_bindgen_test]
async fn a_seed_means_the_same_on_every_target() {
    assert_eq!(seeds::what_seeds_mean().await, seeds::WHAT_SEEDS_MEAN);
}

#[wasm_bindgen_test]
async fn an_exceeded_quota_is_storage_full_and_loses_nothing() {
    const MEBIBYTE: usize = 1 << 20;
    let home = fresh("quota").await;
    let storage = home.open().await.unwrap();
    storage.put("small", vec![1; 100].into()).await.unwrap();
    let mut len = 0;
    let error = loop {
        match storage.append("log", vec![(len / MEBIBYTE) as u8; MEBIBYTE].into()).await {
            Ok(()) => len += MEBIBYTE,
            Err(error) => break error,
        }
        storage.sync("log").await.unwrap();
        assert!(len < 100 * MEBIBYTE, "the quota of 64 MiB is never exceeded");
    };
    console_log!("full after {len} bytes: {error}");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(storage.append("log", vec![0].into()).await.unwrap_err().message().contains(&format!("cut it to {len}")));
    let error = storage.put("large", vec![0; 40 * MEBIBYTE].into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");

    storage.truncate("log", len as u64).await.unwrap();
    storage.close().await.unwrap();
    let storage = home.open().await.unwrap();
    let names: Vec<String> = storage.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["log", "small"]);
    for number in 0..len / MEBIBYTE {
        let read = storage.read("log", (number * MEBIBYTE) as u64, MEBIBYTE as u64).await.unwrap();
        assert!(read.iter().all(|byte| *byte == number as u8), "mebibyte {number}");
    }
    // Room that is freed is room again.
    storage.truncate("log", MEBIBYTE as u64).await.unwrap();
    storage.put("large", vec![9; 4 * MEBIBYTE].into()).await.unwrap();
    storage.append("log", vec![1; MEBIBYTE].into()).await.unwrap();
    storage.sync("log").await.unwrap();
    storage.close().await.unwrap();
    DirectoryStorage::remove_opfs("quota").await.unwrap();
}

#[wasm_bindgen_test]
async fn stores_have_any_name_and_are_removed_whole() {
    let names = ["plain", "Plain", "with space/and slash", "..", ".", "日本語 ⛈", "%41"];
    for name in names {
        let storage = fresh(name).await.open().await.unwrap();
        storage.put("name", name.as_bytes().to_vec().into()).await.unwrap();
        let error = DirectoryStorage::remove_opfs(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        storage.close().await.unwrap();
    }
    for name in names {
        let storage = DirectoryStorage::open_opfs(name).await.unwrap();
        assert_eq!(storage.read_all("name").await.unwrap(), name.as_bytes());
        let error = DirectoryStorage::open_opfs(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.message().contains(&format!("{name:?}")), "{error}");
        drop(storage);
        DirectoryStorage::remove_opfs(name).await.unwrap();
        let storage = DirectoryStorage::open_opfs(name).await.unwrap();
        assert_eq!(storage.list("").await.unwrap(), []);
        storage.close().await.unwrap();
        DirectoryStorage::remove_opfs(name).await.unwrap();
    }
    for name in ["", &"long".repeat(100)] {
        assert_eq!(DirectoryStorage::open_opfs(name).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
