//! One seed: a disk, a clock of its own, some lives of one store, writers and readers side by side in each.

use std::collections::BTreeSet;
use std::sync::Arc;

use eddydb::base::{Error, ErrorKind, Random, Version};
use eddydb::db::{
    Collection, Condition, Db, MergeKind, MergePolicy, Operation as Write, Options, QueryRequest, SearchRequest,
    Target, WriteOptions, WriteRequest, repair,
};
use eddydb::distance::Metric;
use eddydb::engine::{CollectionSpec, Manifest, RequestId};
use eddydb::index::{IndexKind, IndexSpec};
use eddydb::model::{Batch, Key, Row, Schema, Value};
use eddydb::platform::Environment;
use eddydb::storage::{FaultStorage, MemoryStorage, Operation, Storage};
use futures_util::future::join_all;

use crate::oracle::{Oracle, Rows};
use crate::planted::{Fault, Planted};

const DIM: usize = 4;
const LIVES: u64 = 5;
/// A key belongs to the writer that its remainder names: so each knows what its keys hold, whatever the others do.
const WRITERS: i64 = 3;
const KEYS: i64 = 36;

fn spec() -> CollectionSpec {
    let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"text","type":"varchar","maxLength":4000,"enableAnalyzer":true},
        {"name":"embedding","type":"float_vector","dim":4}],"dynamic":true,
        "indexes":{"embedding":{"metric":"L2","kind":{"HNSW":{"m":4,"ef_construction":16}}}}}"#;
    serde_json::from_str(json).unwrap()
}

fn batch(schema: &Arc<Schema>, rows: &Rows) -> Batch {
    let rows = rows.iter().map(|(key, (text, vector))| {
        Row::from([
            ("id".to_owned(), Value::Int(*key)),
            ("text".to_owned(), Value::String(text.clone())),
            ("embedding".to_owned(), Value::Vector(vector.iter().map(|&x| x as f32).collect())),
        ])
    });
    Batch::from_rows(schema, rows.collect()).unwrap()
}

/// The rows of one writer as the store has them; `None` when the storage failed.
async fn read(collection: &Collection, writer: i64) -> Result<Rows, Error> {
    let request = QueryRequest {
        filter: Some(format!("id % {WRITERS} == {writer}")),
        output_fields: Some(vec!["*".to_owned()]),
        ..Default::default()
    };
    let rows = collection.query(&request).await?.into_iter().map(|row| {
        let (Value::Int(key), Value::String(text), Value::Vector(vector)) =
            (&row["id"], &row["text"], &row["embedding"])
        else {
            panic!("a row of other types: {row:?}")
        };
        (*key, (text.clone(), vector.iter().map(|&x| x as u32).collect()))
    });
    Ok(rows.collect())
}

/// The words of a text, as the usual analyzer takes it apart.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

/// A search of words finds exactly the rows of a writer that have one of them, whichever of the two ways it goes.
async fn check_words(collection: &Collection, writer: i64, rows: &Rows, when: &str) -> Result<(), Error> {
    let all: BTreeSet<&str> = rows.values().flat_map(|(text, _)| words(text)).collect();
    // One that many rows have, one that no row has, and some that tell versions apart.
    let asked = ["padding", "nowhere"].into_iter().chain(all.iter().copied().take(3)).chain(all.iter().copied().last());
    for word in asked.collect::<BTreeSet<_>>() {
        let expected: BTreeSet<i64> =
            rows.iter().filter(|(_, (text, _))| words(text).contains(word)).map(|(key, _)| *key).collect();
        let own = Some(format!("id % {WRITERS} == {writer}"));
        let request = SearchRequest {
            field: Some("text".to_owned()),
            vector: Value::String(word.to_owned()),
            filter: own.clone(),
            limit: 1_000,
            ..Default::default()
        };
        let hits = collection.search(&request).await?.hits;
        let found: BTreeSet<i64> = hits.iter().map(|hit| key_of(&hit.key)).collect();
        assert_eq!(found, expected, "{when}: rows of writer {writer} with the word {word:?}");
        assert_eq!(hits.len(), found.len(), "{when}: a row is found twice");
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score), "{when}: scores descend");
    }
    Ok(())
}

/// Filters that an index of the keys answers, where there is one, tell the same rows as the rows themselves.
async fn check_index(collection: &Collection, writer: i64, rows: &Rows, when: &str) -> Result<(), Error> {
    for (filter, expected) in [
        ("id >= 18", rows.range(18..).count()),
        ("id in [0, 1, 2, 33, 34, 35]", rows.keys().filter(|key| !(3..33).contains(*key)).count()),
    ] {
        let found = collection.count(Some(&format!("{filter} and id % {WRITERS} == {writer}"))).await?;
        assert_eq!(found, expected, "{when}: rows of writer {writer} with {filter}");
    }
    Ok(())
}

fn key_of(key: &Key) -> i64 {
    match key {
        Key::Int(key) => *key,
        Key::String(_) => panic!("a key of another type: {key}"),
    }
}

struct World {
    storage: FaultStorage,
    /// With one, merges leave columns and vectors in storage.
    memory_limit_bytes: Option<usize>,
    merge_policy: MergePolicy,
    environment: Environment,
    random: Random,
    oracles: Vec<Oracle>,
    /// Of each writer the last write of a life, when its answer never came: it is asked for again in the next.
    unanswered: Vec<Option<Unanswered>>,
    /// Whether the collection's creation was acknowledged.
    created: bool,
    /// Whether the keys have an index: what may be, for a call that failed may have been done.
    indexed: BTreeSet<bool>,
    /// Numbers every version of every row, so that no two are alike.
    version: u64,
}

/// A write that is to be done once, however often it is asked for.
#[derive(Clone)]
struct Unanswered {
    request: RequestId,
    rows: Rows,
    insert: bool,
}

impl Unanswered {
    async fn ask(&self, collection: &Collection, again: bool) -> Result<usize, Error> {
        let batch = batch(&collection.spec().schema, &self.rows);
        let operation = if self.insert { Write::Insert(batch) } else { Write::Upsert(batch) };
        let request = Some(WriteRequest { id: self.request, settled: self.request.number, again });
        let options = WriteOptions { request, ..Default::default() };
        Ok(collection.batch(vec![operation], options).await?.count)
    }
}

/// Every kind of merging, without a memory limit and with one; of those side by side two or three take turns. They begin with few segments, for
/// there are few.
fn policy(seed: u64) -> MergePolicy {
    let kind = MergeKind::ALL[(seed / 2 % 3) as usize];
    let small_count = if (seed / 6).is_multiple_of(2) { 4 } else { 2 };
    MergePolicy { kind, merges_max: Some(2 + (seed / 12 % 2) as usize), small_count, ..MergePolicy::default() }
}

/// Runs a seed; panics when anything promised does not hold.
pub async fn run(seed: u64, fault: Option<Fault>) {
    let mut world = World {
        storage: FaultStorage::new(seed),
        memory_limit_bytes: seed.is_multiple_of(2).then_some(100_000),
        merge_policy: policy(seed),
        environment: Environment::simulated(seed, 1_700_000_000_000),
        random: Random::new(seed ^ 0x51_3ed),
        oracles: vec![Oracle::new(); WRITERS as usize],
        unanswered: vec![None; WRITERS as usize],
        created: false,
        indexed: BTreeSet::from([false]),
        version: 0,
    };
    for life in 0..LIVES {
        let last = life + 1 == LIVES;
        world.plan(last);
        let storage = Planted::new(world.storage.clone(), fault);
        match Db::open(storage, world.options()).await {
            Ok(db) => world.live(&db, last).await,
            Err(error) => {
                let excused = world.storage.crashed() || matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull);
                assert!(excused && !last, "life {life}: the store does not open: {error}");
            }
        }
        if std::env::var_os("EDDY_SIM_SEED").is_some() {
            println!("life {life}: {:#?}", world.storage.history());
        }
        world.storage = world.storage.reopen();
        world.storage.set_room(None);
        if !last {
            world.flip(fault).await;
        }
    }
}

impl World {
    /// Small limits, so that little data goes all ways.
    fn options(&self) -> Options {
        let (memory_limit_bytes, environment) = (self.memory_limit_bytes, self.environment.clone());
        let merge_policy = self.merge_policy;
        Options { checkpoint_bytes: 20_000, memory_limit_bytes, merge_policy, environment, ..Options::default() }
    }

    /// What will go wrong in the next life; nothing in the last.
    fn plan(&mut self, last: bool) {
        if last {
            return;
        }
        let random = &mut self.random;
        if !random.one_in(4) {
            // Early ones hit the recovery itself.
            let reach = if random.one_in(3) { 12 } else { 150 };
            self.storage.crash_after(1 + random.below(reach));
        }
        for _ in 0..random.below(3) {
            let kind = if random.one_in(3) { ErrorKind::StorageFull } else { ErrorKind::Io };
            self.storage.fail_at(random.below(120), kind);
        }
        if random.one_in(6) {
            self.storage.set_room(Some(random.below(20_000)));
        }
        if random.one_in(8) {
            self.storage.fail_next(*random.pick(&[Operation::Sync, Operation::Put, Operation::Remove]), ErrorKind::Io);
        }
    }

    async fn live(&mut self, db: &Db, last: bool) {
        let collection = match db.collection("notes") {
            Ok(collection) => collection,
            Err(error) => {
                assert!(
                    error.kind() == ErrorKind::NotFound && !self.created,
                    "an acknowledged collection is gone: {error}"
                );
                match db.create_collection("notes", spec()).await {
                    Ok(collection) => collection,
                    Err(_) => return,
                }
            }
        };
        self.created = true;
        let indexed = has_index(&collection);
        assert!(self.indexed.contains(&indexed), "an acknowledged index is gone, or a dropped one back: {indexed}");
        self.indexed = BTreeSet::from([indexed]);
        for (writer, oracle) in self.oracles.iter_mut().enumerate() {
            let Ok(found) = read(&collection, writer as i64).await else { return };
            oracle.check(&found, "after opening");
            if check_words(&collection, writer as i64, &found, "after opening").await.is_err()
                || check_index(&collection, writer as i64, &found, "after opening").await.is_err()
            {
                return;
            }
            oracle.settle(found);
        }
        if self.ask_again(&collection).await.is_err() {
            return;
        }
        if last {
            self.rest(db, &collection).await;
            return;
        }
        if self.random.one_in(3) && !collection.has_partition("p") {
            // Should it fail, rows go where they went before.
            let _ = db.create_partition("notes", "p").await;
        }
        let steps = 4 + self.random.below(12);
        let seeds: Vec<u64> = (0..=self.oracles.len()).map(|_| self.random.next_u64()).collect();
        let version = self.version;
        self.version += 10_000;
        let writers = self.oracles.iter_mut().zip(&mut self.unanswered).enumerate();
        let writers = writers.map(|(writer, (oracle, unanswered))| Writer {
            db,
            collection: &collection,
            oracle,
            unanswered,
            writer: writer as i64,
            random: Random::new(seeds[writer]),
            version: version + writer as u64 * 3_000,
        });
        let writers: Vec<_> = writers.map(|writer| writer.work(steps)).collect();
        let random = Random::new(*seeds.last().expect("one more than writers"));
        let housekeeper = keep_house(db, &collection, &mut self.indexed, random, steps);
        futures_util::join!(join_all(writers), housekeeper);
        for (writer, oracle) in self.oracles.iter().enumerate() {
            if let Ok(found) = read(&collection, writer as i64).await {
                oracle.check(&found, "at the end of a life");
            }
        }
        if self.random.one_in(2) {
            // What cannot be flushed is still in the log.
            let _ = db.close().await;
        }
    }

    /// Writers whose last write had no answer ask again: what was done is not done again, over what was written since.
    async fn ask_again(&mut self, collection: &Collection) -> Result<(), Error> {
        for (writer, unanswered) in self.unanswered.iter_mut().enumerate() {
            let Some(asked) = unanswered.clone() else { continue };
            let oracle = &mut self.oracles[writer];
            let before = oracle.certain().expect("settled when the store was opened").clone();
            // Every text is new, so it was done when they are there.
            let done = asked.rows.iter().all(|(key, row)| before.get(key) == Some(row));
            if done {
                let (&key, (text, vector)) = asked.rows.first_key_value().expect("no write is empty");
                let over = Rows::from([(key, (format!("{text}, written over"), vector.clone()))]);
                let written = collection.upsert(batch(&collection.spec().schema, &over)).await.map(drop);
                match written {
                    Ok(()) => oracle.acknowledged(|all| all.extend(over.clone())),
                    Err(error) => {
                        oracle.uncertain(|all| all.extend(over.clone()));
                        // What it had written may be written over now, and does not tell any more that it was done.
                        *unanswered = None;
                        return Err(error);
                    }
                }
            }
            match asked.ask(collection, true).await {
                Ok(count) => {
                    *unanswered = None;
                    assert_eq!(count, asked.rows.len(), "the answer is that of the first time");
                    if !done {
                        oracle.acknowledged(|all| all.extend(asked.rows.clone()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && !done => *unanswered = None,
                Err(error) => {
                    assert!(error.kind() != ErrorKind::AlreadyExists, "an insert was done twice: {error}");
                    if !done {
                        oracle.uncertain(|all| all.extend(asked.rows.clone()));
                    }
                    *unanswered = None;
                    return Err(error);
                }
            }
            let found = read(collection, writer as i64).await?;
            oracle.check(&found, "after asking again");
        }
        Ok(())
    }

    /// Nothing fails any more: the store comes to rest, answers, and leaves no file that no manifest names.
    async fn rest(&mut self, db: &Db, collection: &Collection) {
        db.flush("notes").await.expect("nothing fails any more");
        while db.maintain().await.expect("nothing fails any more") {}
        let mut all = Rows::new();
        for (writer, oracle) in self.oracles.iter().enumerate() {
            let found = read(collection, writer as i64).await.expect("nothing fails any more");
            oracle.check(&found, "after all work is done");
            let checked = check_words(collection, writer as i64, &found, "after all work is done").await;
            checked.expect("nothing fails any more");
            let checked = check_index(collection, writer as i64, &found, "after all work is done").await;
            checked.expect("nothing fails any more");
            all.extend(found);
        }
        assert_eq!(collection.count(None).await.expect("nothing fails any more"), all.len());
        let mut in_partitions = 0;
        for partition in collection.partitions() {
            in_partitions += collection.count_within(None, &[partition]).await.expect("nothing fails any more");
        }
        assert_eq!(in_partitions, all.len(), "every row is in one partition");
        for (key, (_, vector)) in all.iter().take(3) {
            let vector: Vec<f32> = vector.iter().map(|&x| x as f32).collect();
            for exact in [true, false] {
                let request =
                    SearchRequest { vector: vector.clone().into(), limit: 1_000, exact, ..Default::default() };
                let hits = collection.search(&request).await.expect("nothing fails any more").hits;
                assert_eq!(hits.len(), all.len(), "a search for everything, exact: {exact}");
                let own = hits.iter().any(|hit| hit.key == Key::Int(*key) && hit.score == 0.0);
                assert!(own, "row {key} is not at distance 0 from itself, exact: {exact}");
            }
        }
        db.close().await.expect("nothing fails any more");
        self.no_orphans().await;
    }

    /// Every object is named by the manifest, or is the manifest.
    async fn no_orphans(&self) {
        let storage = self.storage.open_again().expect("the store was closed");
        let names: BTreeSet<String> =
            storage.list("").await.expect("it lists").into_iter().map(|entry| entry.name).collect();
        let newest = names.iter().rfind(|name| name.starts_with("manifest/")).expect("there is a manifest");
        let bytes = storage.read_all(newest).await.expect("it is read");
        let manifest = Manifest::decode(&bytes).expect("it is right").expect("it is whole");
        let mut expected = BTreeSet::from([newest.clone(), newest.replace("manifest/", "manifest-copy/")]);
        let mut logs = Vec::new();
        for collection in &manifest.collections {
            expected
                .extend(collection.segments.iter().flat_map(|segment| &segment.files).map(|file| file.name.clone()));
            logs.push((format!("c{:06}/log/", collection.id.0), collection.log_start));
        }
        let known = |name: &String| {
            expected.contains(name)
                || name == "fence"
                || name.starts_with("outline/")
                || logs.iter().any(|(prefix, start)| {
                    name.strip_prefix(prefix)
                        .is_some_and(|number| number.parse::<u64>().is_ok_and(|number| number >= *start))
                })
        };
        let orphans: Vec<_> = names.iter().filter(|name| !known(name)).collect();
        assert!(orphans.is_empty(), "nobody names {orphans:?}; the manifest names {expected:?}");
        storage.close().await.expect("it closes");
    }

    /// The manifest and its copy are gone on a copy of the disk: a repair makes one of what else is there, whatever a crash has left of flushes,
    /// merges and logs, and no row is missing or back.
    async fn lose_manifests(&self, objects: &[(String, bytes::Bytes)]) {
        let disk = MemoryStorage::new();
        for (name, bytes) in objects.iter().filter(|(name, _)| !name.starts_with("manifest")) {
            disk.put(name, bytes.clone()).await.expect("memory takes it");
        }
        let is_whole = |bytes: &[u8]| Manifest::decode(bytes).is_ok_and(|outline| outline.is_some());
        if !objects.iter().any(|(name, bytes)| name.starts_with("outline/") && is_whole(bytes)) {
            // The first one was cut short by a crash, or by a disk that is full: nothing can be told.
            return;
        }
        repair(&disk, true).await.expect("it is made anew");
        let db = Db::open(Arc::new(disk), self.options()).await.expect("it opens");
        let Ok(collection) = db.collection("notes") else {
            // Its outline may lack when the call that made it failed, or the put of the outline did.
            return;
        };
        for (writer, oracle) in self.oracles.iter().enumerate() {
            let found = read(&collection, writer as i64).await.expect("all is whole");
            oracle.check(&found, "without a manifest");
        }
    }

    /// A byte goes wrong on a copy of the disk: the store refuses to open, or to read what it is in, and says where, or does not need it.
    async fn flip(&mut self, fault: Option<Fault>) {
        if fault.is_some() || !self.random.one_in(3) {
            return;
        }
        let mut objects = Vec::new();
        for entry in self.storage.list("").await.expect("nothing fails between lives") {
            objects.push((entry.name.clone(), self.storage.read_all(&entry.name).await.expect("it is there")));
        }
        if self.random.one_in(3) {
            return self.lose_manifests(&objects).await;
        }
        // Damage at the very end of a log cannot be told from what a crash left there; nor can that of a manifest while another is
        // still there, which is before the newer one is acknowledged.
        let mut unclear: Vec<&str> = Vec::new();
        const HEADER: usize = 32;
        let mut begun = 0;
        for (name, bytes) in objects.iter().rev().filter(|(name, _)| name.contains("/log/")) {
            unclear.push(name);
            begun += usize::from(bytes.len() > HEADER);
            // The last may have been appended to and never synced; then the end of the one before is the end of the log.
            if begun == 2 {
                break;
            }
        }
        let manifests = || objects.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("manifest/"));
        if manifests().count() > 1 {
            unclear.extend(manifests());
        }
        let clear: Vec<usize> = (0..objects.len())
            .filter(|&at| !objects[at].1.is_empty() && !unclear.contains(&objects[at].0.as_str()))
            .collect();
        if clear.is_empty() {
            return;
        }
        let wrong = *self.random.pick(&clear);
        let name = objects[wrong].0.clone();
        let at = self.random.below(objects[wrong].1.len() as u64) as usize;
        if std::env::var_os("EDDY_SIM_SEED").is_some() {
            let lengths: Vec<_> = objects.iter().map(|(name, bytes)| (name, bytes.len())).collect();
            println!("byte {at} of {name} goes wrong on a copy of {lengths:?}");
        }
        let disk = MemoryStorage::new();
        for (index, (name, bytes)) in objects.into_iter().enumerate() {
            let mut bytes = bytes.to_vec();
            if index == wrong {
                bytes[at] ^= 0x10;
            }
            disk.put(&name, bytes.into()).await.expect("memory takes it");
        }
        let read = async {
            let db = Db::open(Arc::new(disk), self.options()).await?;
            let Ok(collection) = db.collection("notes") else {
                assert!(!self.created, "a wrong byte at {at} of {name} made a collection vanish");
                return Ok(());
            };
            for (writer, oracle) in self.oracles.iter().enumerate() {
                // Vectors are read now.
                let found = read(&collection, writer as i64).await?;
                let when = format!("with a wrong byte at {at} of {name}");
                oracle.check(&found, &when);
                check_words(&collection, writer as i64, &found, &when).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = read.await {
            let told = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported);
            assert!(told, "a wrong byte at {at} of {name} is told as {:?}: {error}", error.kind());
        }
    }
}

/// One of several that write at the same time.
struct Writer<'a> {
    db: &'a Db,
    collection: &'a Collection,
    oracle: &'a mut Oracle,
    unanswered: &'a mut Option<Unanswered>,
    writer: i64,
    random: Random,
    version: u64,
}

impl Writer<'_> {
    async fn work(mut self, steps: u64) {
        for _ in 0..steps {
            let done = match self.random.below(20) {
                0..=6 => self.upsert().await,
                7..=8 => self.numbered().await,
                9 => self.conditional().await,
                10..=11 => self.insert().await,
                12..=14 => self.delete_keys().await,
                15 => self.delete_where().await,
                16 => self.db.flush("notes").await,
                _ => self.look().await,
            };
            match done {
                Ok(()) => {}
                // A full disk may get room again, a failed call may have been the only one.
                Err(error) if error.kind() == ErrorKind::StorageFull || self.random.one_in(2) => {}
                Err(_) => return,
            }
        }
    }

    fn key(&mut self) -> i64 {
        self.random.below((KEYS / WRITERS) as u64) as i64 * WRITERS + self.writer
    }

    fn rows(&mut self) -> Rows {
        (0..1 + self.random.below(5))
            .map(|_| {
                self.version += 1;
                let vector = (0..DIM).map(|_| self.random.below(1000) as u32).collect();
                // Long ones pack well, short ones do not.
                let padding = if self.random.one_in(4) { " padding".repeat(20) } else { String::new() };
                (self.key(), (format!("version {}{padding}", self.version), vector))
            })
            .collect()
    }

    fn note(&mut self, done: Result<(), Error>, change: impl Fn(&mut Rows)) -> Result<(), Error> {
        // Only while nothing comes after it can be told whether a write was done.
        *self.unanswered = None;
        match &done {
            Ok(()) => self.oracle.acknowledged(change),
            Err(_) => self.oracle.uncertain(change),
        }
        done
    }

    async fn upsert(&mut self) -> Result<(), Error> {
        let rows = self.rows();
        let partition = (self.random.one_in(3) && self.collection.has_partition("p")).then(|| "p".to_owned());
        let options = WriteOptions { partition, ..Default::default() };
        let upsert = Write::Upsert(batch(&self.collection.spec().schema, &rows));
        let done = self.collection.batch(vec![upsert], options).await.map(drop);
        self.note(done, |all| all.extend(rows.clone()))
    }

    /// A write that is asked for again, in the next life, when its answer does not come.
    async fn numbered(&mut self) -> Result<(), Error> {
        let insert = self.random.one_in(2);
        let rows = self.rows();
        let request = RequestId { client: 1 + self.writer as u64, number: self.version };
        let asked = Unanswered { request, rows: rows.clone(), insert };
        let done = asked.ask(self.collection, false).await.map(drop);
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            return Ok(());
        }
        let failed = done.is_err();
        let done = self.note(done, |all| all.extend(rows.clone()));
        if failed {
            *self.unanswered = Some(asked);
        }
        done
    }

    /// A row that is as it was read is written; one that is not is left alone.
    async fn conditional(&mut self) -> Result<(), Error> {
        let (key, row) = self.rows().pop_first().expect("at least one row");
        let rows = Rows::from([(key, row)]);
        let found = self.collection.get(&[Key::Int(key)], Some(&["$version".to_owned()])).await?;
        let version = found.first().map(|row| match &row["$version"] {
            Value::String(text) => text.parse::<Version>().expect("a version"),
            other => panic!("a version of another type: {other:?}"),
        });
        let wrong = self.random.one_in(3);
        let expected = match version {
            Some(_) if wrong => None,
            None if wrong => Some(Version::default()),
            version => version,
        };
        let conditions = vec![Condition { key: Key::Int(key), version: expected }];
        let upsert = Write::Upsert(batch(&self.collection.spec().schema, &rows));
        let done = self.collection.batch(vec![upsert], WriteOptions { conditions, ..Default::default() }).await;
        match done {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                assert!(wrong, "nobody else writes this key: {error}");
                Ok(())
            }
            Err(error) if wrong => Err(error),
            done => {
                assert!(!wrong, "a write was done whose condition does not hold");
                self.note(done.map(drop), |all| all.extend(rows.clone()))
            }
        }
    }

    async fn insert(&mut self) -> Result<(), Error> {
        let rows = self.rows();
        let done = self.collection.insert(batch(&self.collection.spec().schema, &rows)).await.map(drop);
        if let Err(error) = &done
            && error.kind() == ErrorKind::AlreadyExists
        {
            if let Some(certain) = self.oracle.certain() {
                assert!(rows.keys().any(|key| certain.contains_key(key)), "none of {:?} exists", rows.keys());
            }
            return Ok(());
        }
        if done.is_ok()
            && let Some(certain) = self.oracle.certain()
        {
            assert!(!rows.keys().any(|key| certain.contains_key(key)), "one of {:?} exists", rows.keys());
        }
        self.note(done, |all| all.extend(rows.clone()))
    }

    async fn delete_keys(&mut self) -> Result<(), Error> {
        let keys: BTreeSet<i64> = (0..1 + self.random.below(3)).map(|_| self.key()).collect();
        let target = Target::Keys(keys.iter().copied().map(Key::Int).collect());
        let done = self.collection.delete(target).await.map(drop);
        self.note(done, |all| all.retain(|key, _| !keys.contains(key)))
    }

    async fn delete_where(&mut self) -> Result<(), Error> {
        let below = self.random.below(KEYS as u64) as i64;
        let own = self.writer;
        let filter = format!("id < {below} and id % {WRITERS} == {own}");
        let done = self.collection.delete(Target::Filter(filter)).await.map(drop);
        self.note(done, |all| all.retain(|key, _| *key >= below))
    }

    /// What was acknowledged can be read at once.
    async fn look(&mut self) -> Result<(), Error> {
        let found = read(self.collection, self.writer).await?;
        self.oracle.check(&found, "while writing");
        check_words(self.collection, self.writer, &found, "while writing").await?;
        check_index(self.collection, self.writer, &found, "while writing").await
    }
}

fn has_index(collection: &Collection) -> bool {
    collection.spec().indexes.contains_key("id")
}

/// Indexes, flushes and merges beside the writers, gives the keys an index and takes it away, and holds snapshots, which show to the end what
/// they showed first.
async fn keep_house(db: &Db, collection: &Collection, indexed: &mut BTreeSet<bool>, mut random: Random, steps: u64) {
    let request = QueryRequest { output_fields: Some(vec!["*".to_owned()]), ..Default::default() };
    let mut held = Vec::new();
    for _ in 0..steps * 4 {
        if random.one_in(8) {
            let Ok(snapshot) = collection.snapshot() else { continue };
            let Ok(rows) = snapshot.query(&request).await else { continue };
            held.push((snapshot, rows));
        }
        if random.one_in(12) && !held.is_empty() {
            held.swap_remove(random.below(held.len() as u64) as usize);
        }
        if random.one_in(16) {
            let wanted = !has_index(collection);
            let kind = if random.one_in(2) { IndexKind::Inverted } else { IndexKind::StlSort };
            let index = IndexSpec { metric: Metric::Cosine, kind };
            let done = match wanted {
                true => db.create_index("notes", "id", index).await,
                false => db.drop_index("notes", "id").await,
            };
            if done.is_ok() {
                indexed.clear();
            }
            indexed.insert(wanted);
        }
        let done = if random.one_in(6) { db.flush("notes").await } else { db.maintain().await.map(drop) };
        if done.is_err() && random.one_in(3) {
            break;
        }
    }
    for (snapshot, rows) in held {
        if let Ok(now) = snapshot.query(&request).await {
            assert!(sorted(now) == sorted(rows), "a snapshot shows other rows than at first");
        }
    }
}

fn sorted(rows: Vec<Row>) -> Vec<(i64, Row)> {
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let Value::Int(key) = row["id"] else { panic!("a key of another type: {row:?}") };
            (key, row)
        })
        .collect();
    rows.sort_by_key(|(key, _)| *key);
    rows
}
