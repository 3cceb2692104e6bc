use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::*;
use crate::base::Random;
use crate::db::{Collection, Options, PushStreamSpec, QueryRequest, Target as Deleted};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Field, Key, Row, Value};
use crate::platform::{Environment, Task, block_on};
use crate::storage::{FaultStorage, MemoryDisk, Storage};

const SEEDS: u64 = 150;
const SEEDS_TO_CATCH: u64 = 200;
const NOTES: &str =
    r#"{"fields": [{"name": "id", "type": "int64", "primaryKey": true}, {"name": "text", "type": "varchar"}]}"#;

fn spec(json: serde_json::Value) -> BusSpec {
    BusSpec::from_json(&json.to_string()).unwrap()
}

fn row(json: serde_json::Value) -> Row {
    json.as_object().unwrap().iter().map(|(name, one)| (name.clone(), Value::from(one.clone()))).collect()
}

async fn open(storage: impl Storage + 'static, environment: &Environment) -> Db {
    let options = Options { environment: environment.clone(), ..Options::default() };
    Db::open(Arc::new(storage), options).await.unwrap()
}

async fn write(collection: &Collection, ids: std::ops::Range<i64>) {
    let rows = ids.map(|id| row(json!({"id": id, "text": format!("note {id}")}))).collect();
    collection.upsert(Batch::from_rows(&collection.spec().schema, rows).unwrap()).await.unwrap();
}

/// What functions were told: name, handler, kind and id.
type Told = Arc<Mutex<Vec<String>>>;

fn listen(db: &Db, name: &'static str) -> Told {
    let told = Told::default();
    let into = told.clone();
    db.set_function(name, move |row: &Row| {
        let text = |name: &str| row.get(name).map_or(String::new(), |value| serde_json::to_string(value).unwrap());
        let one = format!("{} {}", text("$kind"), text("id")).replace('"', "");
        into.lock().unwrap().push(one.trim().to_owned());
        Ok(vec![])
    });
    told
}

fn take(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.lock().unwrap())
}

fn simulated() -> Environment {
    Environment::simulated(1, 1_700_000_000_000)
}

#[test]
fn changes_pushes_and_publications_are_handled_and_what_is_done_does_not_come_again() {
    block_on(async {
        let (disk, environment) = (MemoryDisk::new(), simulated());
        let db = open(disk.open().unwrap(), &environment).await;
        let notes = db.create_collection("notes", CollectionSpec::from_json(NOTES).unwrap()).await.unwrap();
        let orders = PushStreamSpec::from_json(r#"{"fields": [{"name": "id", "type": "int64"}]}"#).unwrap();
        let orders = db.create_push_stream("orders", orders).await.unwrap();
        write(&notes, 0..2).await;
        let given = spec(json!({
            "sources": {"notes": {"collection": "notes", "since": "full"}, "orders": {"stream": "orders"}, "app": {}},
            "handlers": {"all": {"function": "all"}, "gone": {"function": "gone"}},
            "routes": [{"to": ["all"]}, {"from": ["notes"], "kinds": ["delete"], "filter": "text like '%1'", "to": ["gone"]}],
        }));
        db.bus().configure(given.clone()).await.unwrap();
        let (all, gone) = (listen(&db, "all"), listen(&db, "gone"));
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["read 0", "read 1"]);
        write(&notes, 1..3).await;
        notes.delete(Deleted::Keys(vec![Key::Int(1), Key::Int(2)])).await.unwrap();
        orders.push(vec![row(json!({"id": 7}))]).await.unwrap();
        let published = Published { kind: Some("login".to_owned()), key: None, row: row(json!({"id": 9})) };
        assert_eq!(db.bus().publish("app", vec![published.clone()]).await.unwrap(), [1]);
        db.bus().settle().await.unwrap();
        let told: BTreeSet<String> = take(&all).into_iter().collect();
        let expected = ["delete 1", "delete 2", "insert 2", "login 9", "push 7", "update 1"];
        assert_eq!(told.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert_eq!(take(&gone), ["delete 1"]);
        let wrong = db.bus().publish("notes", vec![published]).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::InvalidArgument);
        let status = db.bus().status();
        assert_eq!((status.handlers[0].handled, status.handlers[0].queued, status.sources[1].behind), (8, 0, 0));
        drop((notes, orders, db));

        // It goes on, where its functions are there.
        let db = open(disk.open().unwrap(), &environment).await;
        assert_eq!(db.bus().spec(), given);
        db.push_stream("orders").unwrap().push(vec![row(json!({"id": 8}))]).await.unwrap();
        write(&db.collection("notes").unwrap(), 5..6).await;
        db.bus().settle().await.unwrap();
        assert_eq!(db.bus().status().handlers[0].queued, 2);
        let all = listen(&db, "all");
        db.bus().settle().await.unwrap();
        let mut told = take(&all);
        told.sort();
        assert_eq!(told, ["insert 5", "push 8"]);
        // Taken out, it keeps nothing.
        db.bus().configure(BusSpec::default()).await.unwrap();
        assert!(db.collection("notes").unwrap().subscriptions().is_empty());
        assert!(db.push_stream("orders").unwrap().status().readers.is_empty());
        assert_eq!(db.inner.shared.storage.list(crate::engine::name::BUS).await.unwrap().len(), 1);
    });
}

#[test]
fn handlers_write_collections_and_streams_and_dead_letters_say_why() {
    block_on(async {
        let environment = simulated();
        let db = open(MemoryDisk::new().open().unwrap(), &environment).await;
        let notes = CollectionSpec::from_json(NOTES).unwrap();
        let (from, into) = (
            db.create_collection("notes", notes.clone()).await.unwrap(),
            db.create_collection("copies", notes).await.unwrap(),
        );
        let seen = r#"{"fields": [{"name": "id", "type": "int64"}], "checks": [{"filter": "id != 3", "reason": "not three"}]}"#;
        db.create_push_stream("seen", PushStreamSpec::from_json(seen).unwrap()).await.unwrap();
        db.set_function("fails", |row: &Row| match row["id"] {
            Value::Int(2) => Err(Error::invalid("not two")),
            _ => Ok(vec![]),
        });
        let given = |to: serde_json::Value| {
            spec(json!({
                "sources": {"notes": {"collection": "notes"}}, "deadLetters": "dead", "routes": [{"to": to}],
                "handlers": {"copy": {"collection": "copies", "batch": {"events": 10, "delayMs": 0}},
                    "see": {"stream": "seen", "retry": {"attempts": 1}},
                    "fails": {"function": "fails", "retry": {"attempts": 2, "delayMs": 10}}},
            }))
        };
        db.bus().configure(given(json!(["copy", "see", "fails"]))).await.unwrap();
        write(&from, 1..5).await;
        from.delete(Deleted::Keys(vec![Key::Int(4)])).await.unwrap();
        for _ in 0..5 {
            db.bus().settle().await.unwrap();
            environment.advance_ms(1_000);
        }
        assert_eq!(into.count(None).await.unwrap(), 3);
        assert_eq!(db.push_stream("seen").unwrap().status().pushed, 4);
        let letters = db.collection("dead").unwrap().query(&QueryRequest::default()).await.unwrap();
        let mut told: Vec<String> = letters
            .iter()
            .map(|letter| {
                let Value::Json(content) = &letter["content"] else { panic!("{letter:?}") };
                format!("{:?} {:?} {} {}", letter["node"], letter["reason"], content["id"], content["$attempt"])
            })
            .collect();
        told.sort();
        assert_eq!(told, [r#"String("fails") String("not two") 2 2"#, r#"String("see") String("not three") 3 1"#]);
        // Nothing that handlers write may come back to them.
        let mut circle = given(json!(["copy"]));
        circle
            .sources
            .insert("back".to_owned(), BusSource { collection: Some("copies".to_owned()), ..BusSource::default() });
        let error = db.bus().configure(circle).await.unwrap_err();
        assert!(error.message().contains("sources.back"), "{error}");
        let mut letters = given(json!(["see"]));
        letters
            .sources
            .insert("dead".to_owned(), BusSource { collection: Some("dead".to_owned()), ..BusSource::default() });
        assert_eq!(db.bus().configure(letters).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        for (member, wrong) in [
            ("sources.x", json!({"sources": {"x": {"collection": "none"}}})),
            ("sources.x.since", json!({"sources": {"x": {"collection": "notes", "since": "yesterday"}}})),
            ("sources.x.outputFields", json!({"sources": {"x": {"collection": "notes", "outputFields": ["y"]}}})),
            ("handlers.x.collection", json!({"handlers": {"x": {"collection": "none"}}})),
            ("handlers.x.stream", json!({"handlers": {"x": {"stream": "none"}}})),
            ("deadLetters", json!({"deadLetters": "notes"})),
        ] {
            let error = db.bus().configure(spec(wrong)).await.unwrap_err();
            assert!(error.message().contains(member), "{member}: {error}");
        }
        assert_eq!(db.bus().spec(), given(json!(["copy", "see", "fails"])));
    });
}

/// A function that answers when it is told to.
struct Slow(Mutex<Vec<oneshot::Sender<()>>>);

impl crate::db::PipelineFunction for Arc<Slow> {
    fn call<'a>(&'a self, rows: &'a [Row], _: &'a [Field]) -> Task<'a, Result<Vec<Result<Vec<Row>>>>> {
        let (answer, answered) = oneshot::channel();
        self.0.lock().unwrap().push(answer);
        Box::pin(async move {
            answered.await.map_err(|_| Error::new(ErrorKind::Unavailable, "gone"))?;
            Ok(rows.iter().map(|_| Ok(vec![])).collect())
        })
    }
}

#[test]
fn a_slow_function_keeps_nobody_waiting_and_one_that_hangs_is_given_up() {
    block_on(async {
        let environment = simulated();
        let db = open(MemoryDisk::new().open().unwrap(), &environment).await;
        let slow = Arc::new(Slow(Mutex::default()));
        db.set_function("slow", slow.clone());
        let all = listen(&db, "all");
        let given = json!({
            "sources": {"app": {}}, "routes": [{"to": ["slow", "all"]}],
            "handlers": {"slow": {"function": "slow", "timeoutMs": 500, "retry": {"attempts": 2, "delayMs": 0}}, "all": {"function": "all"}},
        });
        db.bus().configure(spec(given)).await.unwrap();
        let one = |id: i64| Published { row: row(json!({ "id": id })), ..Published::default() };
        db.bus().publish("app", vec![one(1), one(2)]).await.unwrap();
        while db.run_bus().await.unwrap() {}
        assert_eq!((take(&all), slow.0.lock().unwrap().len()), (vec!["event 1".to_owned(), "event 2".to_owned()], 1));
        assert_eq!(db.bus().status().handlers[1].in_flight, 1);
        let seen = db.inner.bus.bell.state().moves;
        slow.0.lock().unwrap().pop().unwrap().send(()).unwrap();
        db.bus_moved_after(seen).await;
        while db.run_bus().await.unwrap() {}
        assert_eq!(db.bus().status().handlers[1].handled, 1);
        // The other is never answered.
        for _ in 0..3 {
            assert!(db.bus_due_ms().unwrap_or_default() <= 500);
            environment.advance_ms(600);
            while db.run_bus().await.unwrap() {}
        }
        let status = &db.bus().status().handlers[1];
        assert_eq!((status.failures, status.dead, status.in_flight), (2, 1, 0));
        let letters = db.collection("dead_letters").unwrap().query(&QueryRequest::default()).await.unwrap();
        assert_eq!(letters[0]["reason"], "no answer in 500 ms".into());
    });
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One who waits all the time, as the npm package does, was not told of a call that a step beside it had asked for since: the call woke who
/// had asked last, which was over, and its end was noticed when its time was up.
#[test]
fn who_waits_is_told_of_calls_that_others_have_asked_since() {
    block_on(async {
        let db = open(MemoryDisk::new().open().unwrap(), &simulated()).await;
        let slow = Arc::new(Slow(Mutex::default()));
        db.set_function("slow", slow.clone());
        let given =
            json!({"sources": {"app": {}}, "routes": [{"to": ["slow"]}], "handlers": {"slow": {"function": "slow"}}});
        db.bus().configure(spec(given)).await.unwrap();
        db.bus().publish("app", vec![Published { row: row(json!({"id": 1})), ..Published::default() }]).await.unwrap();
        while db.run_bus().await.unwrap() {}
        let seen = db.inner.bus.bell.state().moves;
        let mut waiting = std::pin::pin!(db.bus_moved_after(seen));
        let woken = Arc::new(Woken::default());
        let mut poll = || waiting.as_mut().poll(&mut Context::from_waker(&Waker::from(woken.clone())));
        assert!(poll().is_pending());
        // A step, which comes to its end.
        while db.run_bus().await.unwrap() {}
        while woken.0.swap(false, Ordering::SeqCst) {
            assert!(poll().is_pending());
        }
        slow.0.lock().unwrap().pop().unwrap().send(()).unwrap();
        assert!(woken.0.load(Ordering::SeqCst), "nobody was told");
        assert!(poll().is_ready());
        while db.run_bus().await.unwrap() {}
        assert_eq!(db.bus().status().handlers[0].handled, 1);
    });
}

#[test]
fn a_replay_brings_what_was_kept_at_its_pace_and_can_be_cancelled() {
    block_on(async {
        let environment = simulated();
        let options = Options { environment: environment.clone(), retention_ms: 3_600_000, ..Options::default() };
        let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
        let notes = db.create_collection("notes", CollectionSpec::from_json(NOTES).unwrap()).await.unwrap();
        let all = listen(&db, "all");
        let given = json!({"sources": {"notes": {"collection": "notes"}, "app": {}}, "routes": [{"to": ["all", "none"]}],
            "handlers": {"all": {"function": "all"}, "none": {"function": "none"}}});
        db.bus().configure(spec(given)).await.unwrap();
        db.set_function("none", |_: &Row| Ok(vec![]));
        write(&notes, 0..1).await;
        db.bus().settle().await.unwrap();
        let token = db.bus().status().sources.iter().find_map(|source| source.token.clone()).unwrap();
        for id in 1..4 {
            environment.advance_ms(10_000);
            write(&notes, id..id + 1).await;
        }
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all).len(), 4);
        let request = |since: Option<&str>, speed| ReplayRequest {
            source: "notes".to_owned(),
            since: since.map(str::to_owned),
            speed,
            handlers: vec!["all".to_owned()],
        };
        // All at once.
        let id = db.bus().replay(request(None, None)).await.unwrap();
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["insert 0", "insert 1", "insert 2", "insert 3"]);
        let status = db.bus().status();
        assert_eq!(
            (status.replays[0].id, status.replays[0].state, status.replays[0].events),
            (id, ReplayState::Done, 4)
        );
        assert_eq!(status.handlers.iter().find(|one| one.name == "none").unwrap().events, 4, "not asked for");
        // From a token on, ten times as fast as it was.
        let id = db.bus().replay(request(Some(&token), Some(10.0))).await.unwrap();
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["insert 1"]);
        let due_ms = db.bus_due_ms().unwrap();
        assert!((500..=1_100).contains(&due_ms), "{due_ms}");
        environment.advance_ms(1_100);
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["insert 2"]);
        // What comes meanwhile is none of it.
        write(&notes, 9..10).await;
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["insert 9"]);
        assert!(db.bus().cancel_replay(id));
        assert!(!db.bus().cancel_replay(id));
        environment.advance_ms(10_000);
        db.bus().settle().await.unwrap();
        assert_eq!((take(&all), db.bus().status().replays[1].state), (vec![], ReplayState::Cancelled));
        for (wrong, kind) in [
            (request(None, Some(0.0)), ErrorKind::InvalidArgument),
            (request(Some("yesterday"), None), ErrorKind::InvalidArgument),
            (ReplayRequest { source: "x".to_owned(), ..request(None, None) }, ErrorKind::NotFound),
            (ReplayRequest { source: "app".to_owned(), ..request(None, None) }, ErrorKind::InvalidArgument),
            (ReplayRequest { handlers: vec!["x".to_owned()], ..request(None, None) }, ErrorKind::NotFound),
        ] {
            assert_eq!(db.bus().replay(wrong).await.unwrap_err().kind(), kind);
        }
    });
}

#[test]
fn a_source_that_went_is_looked_for_and_holds_up_no_other() {
    block_on(async {
        let (disk, environment) = (MemoryDisk::new(), simulated());
        let notes = || CollectionSpec::from_json(NOTES).unwrap();
        {
            let db = open(disk.open().unwrap(), &environment).await;
            db.create_collection("notes", notes()).await.unwrap();
            db.create_collection("gone", notes()).await.unwrap();
            let given = json!({"sources": {"notes": {"collection": "notes"}, "gone": {"collection": "gone"}},
                "handlers": {"all": {"function": "all"}}, "routes": [{"filter": "text != ''", "to": ["all"]}]});
            db.bus().configure(spec(given)).await.unwrap();
            db.drop_collection("gone").await.unwrap();
            db.bus().settle().await.unwrap();
            assert!(db.bus().status().sources[0].reason.is_some());
        }
        let db = open(disk.open().unwrap(), &environment).await;
        let all = listen(&db, "all");
        db.bus().settle().await.unwrap();
        write(&db.collection("notes").unwrap(), 0..1).await;
        db.bus().settle().await.unwrap();
        assert_eq!(take(&all), ["insert 0"]);
        assert_eq!(db.bus().status().sources[0].reason.as_ref().unwrap().0, "not_found");
        let gone = db.create_collection("gone", notes()).await.unwrap();
        environment.advance_ms(2_000);
        db.bus().settle().await.unwrap();
        write(&gone, 1..2).await;
        db.bus().settle().await.unwrap();
        assert_eq!((take(&all), db.bus().status().sources[0].reason.clone()), (vec!["insert 1".to_owned()], None));
    });
}

#[test]
fn definitions_of_version_1_are_read() {
    let given = spec(
        json!({"sources": {"notes": {"collection": "notes"}}, "handlers": {"a": {"function": "f"}}, "routes": [{"to": ["a"]}]}),
    );
    let mut bytes = definition::encode(&given);
    assert_eq!(definition::decode(&bytes).unwrap(), given);
    // Written before members were added: those that are missing are as usual.
    let old = b"EDBU\x01{\"sources\":{\"notes\":{\"collection\":\"notes\"}},\"handlers\":{\"a\":{\"function\":\"f\"}},\"routes\":[{\"to\":[\"a\"]}]}";
    let sum = crate::base::codec::checksum(old);
    assert_eq!(definition::decode(&[&old[..], &sum.to_le_bytes()].concat()).unwrap(), given);
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        assert_eq!(definition::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        bytes[at] ^= 1;
    }
}

/// What must have been handled, and what was.
#[derive(Default)]
struct World {
    written: BTreeSet<i64>,
    pushed: BTreeSet<i64>,
    tried: i64,
    handled: Arc<Mutex<BTreeMap<(String, i64), u64>>>,
}

/// One life of the process: writes, pushes, steps, new configurations, until it dies somewhere.
async fn live(db: &Db, random: &mut Random, world: &mut World, environment: &Environment, first: bool) -> Result<()> {
    if first {
        db.create_collection("notes", CollectionSpec::from_json(NOTES).unwrap()).await?;
        let kind =
            json!({"fields": [{"name": "id", "type": "int64"}], "partitions": 1 + random.below(3), "memoryBytes": 100});
        db.create_push_stream("orders", PushStreamSpec::from_json(&kind.to_string())?).await?;
    }
    for name in ["f", "g"] {
        let (into, seed) = (world.handled.clone(), Mutex::new(Random::new(random.next_u64())));
        db.set_function(name, move |row: &Row| {
            if seed.lock().unwrap().one_in(3) {
                return Err(Error::invalid("by chance"));
            }
            let (Value::String(kind), Value::Int(id)) = (&row["$kind"], &row["id"]) else { panic!("{row:?}") };
            *into.lock().unwrap().entry((kind.clone(), *id)).or_default() += 1;
            Ok(vec![])
        });
    }
    let configure = |random: &mut Random| {
        let batch = json!({"function": "g", "batch": {"events": 1 + random.below(5), "delayMs": random.below(50)}, "queue": 20});
        let single = json!({"function": "f", "concurrency": 1 + random.below(3), "queue": 1 + random.below(20)});
        let mut handler = if random.one_in(2) { batch } else { single };
        handler["retry"] = json!({"attempts": 1 + random.below(4), "delayMs": random.below(20)});
        spec(json!({
            "sources": {"notes": {"collection": "notes", "batchSize": 1 + random.below(4)}, "orders": {"stream": "orders"}},
            "handlers": {"one": handler}, "routes": [{"to": ["one"]}],
        }))
    };
    if first {
        db.bus().configure(configure(random)).await?;
    }
    let (notes, orders) = (db.collection("notes")?, db.push_stream("orders")?);
    for _ in 0..10 + random.below(60) {
        match random.below(9) {
            0 | 1 => {
                let id = world.tried;
                world.tried += 1;
                let row = row(json!({"id": id, "text": ""}));
                notes.insert(Batch::from_rows(&notes.spec().schema, vec![row])?).await?;
                world.written.insert(id);
            }
            2 => {
                let id = world.tried;
                world.tried += 1;
                orders.push(vec![row(json!({ "id": id }))]).await?;
                world.pushed.insert(id);
            }
            3..=5 => drop(db.run_bus().await?),
            6 => environment.advance_ms(random.below(150)),
            7 if random.one_in(3) => db.bus().configure(configure(random)).await?,
            8 if random.one_in(3) => orders.rescale(1 + random.below(4) as u32).await?,
            _ => drop(db.maintain().await?),
        }
    }
    Ok(())
}

async fn run(seed: u64, planted: Option<Planted>) {
    let mut random = Random::new(seed);
    let environment = simulated();
    let mut disk = FaultStorage::new(seed);
    let mut world = World::default();
    let lives = 2 + random.below(4);
    for life in 0..=lives {
        let options = Options { environment: environment.clone(), checkpoint_bytes: 1 << 14, ..Options::default() };
        let Ok(db) = Db::open(Arc::new(disk.clone()), options).await else {
            disk = disk.reopen();
            continue;
        };
        *db.inner.bus.planted.lock().unwrap() = planted;
        if life > 0 && life < lives {
            disk.crash_after(1 + random.below(80));
        }
        let lived = live(&db, &mut random, &mut world, &environment, life == 0).await;
        assert!(lived.is_ok() || life > 0 && life < lives, "{lived:?}");
        if life == lives {
            for _ in 0..200 {
                db.bus().settle().await.unwrap();
                environment.advance_ms(2_000);
            }
            check(&db, &world).await;
        }
        drop(db);
        disk = disk.reopen();
    }
}

async fn check(db: &Db, world: &World) {
    let status = db.bus().status();
    assert!(status.handlers.iter().all(|one| one.queued + one.in_flight == 0), "{status:?}");
    let mut done: BTreeSet<(String, i64)> = world.handled.lock().unwrap().keys().cloned().collect();
    for letter in db.collection("dead_letters").unwrap().query(&QueryRequest::default()).await.unwrap() {
        let Value::Json(content) = &letter["content"] else { panic!("{letter:?}") };
        done.insert((content["$kind"].as_str().unwrap().to_owned(), content["id"].as_i64().unwrap()));
    }
    let kinds = [("insert", &world.written), ("push", &world.pushed)];
    let lost: Vec<_> = kinds
        .iter()
        .flat_map(|(kind, ids)| ids.iter().map(|id| ((*kind).to_owned(), *id)))
        .filter(|one| !done.contains(one))
        .collect();
    assert_eq!(lost, [], "acknowledged, and neither handled nor put aside");
    let made_up: Vec<_> = done.iter().filter(|(_, id)| *id >= world.tried).collect();
    assert!(made_up.is_empty(), "{made_up:?}");
    // All is noted: nothing comes again, once it was settled.
    let before = world.handled.lock().unwrap().clone();
    db.bus().settle().await.unwrap();
    assert_eq!(*world.handled.lock().unwrap(), before);
}

#[test]
fn whatever_dies_when_every_event_is_handled_or_put_aside() {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    if let Some(seed) = number("EDDY_SIM_SEED") {
        return block_on(run(seed, None));
    }
    for seed in 0..number("EDDY_SIM_SEEDS").unwrap_or(SEEDS) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(run(seed, None))));
        if let Err(panic) = outcome {
            println!("seed {seed} failed: repeat it with EDDY_SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn each_planted_fault_is_noticed() {
    for fault in [Planted::EarlyNote, Planted::ForgottenLetters, Planted::FailureIsDone] {
        let fails = |seed: &u64| {
            let run = std::panic::AssertUnwindSafe(|| block_on(run(*seed, Some(fault))));
            std::panic::catch_unwind(run).is_err()
        };
        let noticed = (0..SEEDS_TO_CATCH).find(fails);
        println!("{fault:?}: noticed by seed {noticed:?}");
        assert!(noticed.is_some(), "{fault:?} was not noticed by {SEEDS_TO_CATCH} seeds");
    }
}
