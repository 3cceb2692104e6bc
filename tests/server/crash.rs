//! Killed as by a power cut: what was acknowledged is there afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::native::{Server, request};
use crate::notes;

const WRITERS: u64 = 4;
const ROWS_EACH: u64 = 5;

/// Writers insert until the server is killed under them; then every acknowledged batch is there, and one whose answer never
/// came is wholly there or wholly absent. Several times, on the same store.
#[test]
fn acknowledged_writes_survive_being_killed() {
    let directory = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(0);
    let (mut acknowledged, mut open) = (Vec::<u64>::new(), Vec::<u64>::new());
    for round in 0..4u64 {
        let server = Server::start(directory.path(), &[]);
        if round == 0 {
            server.post_well("/api/collections", &notes());
        }
        check(&server, &acknowledged, &open);
        let (killed, enough) = (AtomicBool::new(false), 10 + round * 15);
        let (done, started) = (AtomicU64::new(0), std::time::Instant::now());
        let address = server.address.clone();
        let writers = || {
            let (mut acknowledged, mut open) = (Vec::new(), Vec::new());
            while !killed.load(Ordering::Acquire) {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                let rows: Vec<Value> = (batch * ROWS_EACH..(batch + 1) * ROWS_EACH)
                    .map(|id| json!({"id": id, "title": format!("batch {batch}"), "v": [id as f64, 1, 0]}))
                    .collect();
                let body = json!({ "rows": rows }).to_string();
                match request(&address, "POST", "/api/collections/notes/insert", &[], body.as_bytes()) {
                    Ok(response) => {
                        assert_eq!(response.status, 200, "{}", response.text());
                        acknowledged.push(batch);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => open.push(batch),
                }
            }
            (acknowledged, open)
        };
        let pid = server.child.id();
        let results: Vec<_> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writers)).collect();
            while done.load(Ordering::Relaxed) < enough {
                assert!(started.elapsed().as_secs() < 60, "only {} batches were written", done.load(Ordering::Relaxed));
                std::thread::yield_now();
            }
            // The process is killed while the writers write.
            let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
            assert!(status.success());
            server.kill();
            killed.store(true, Ordering::Release);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        for (of_writer, open_of_writer) in results {
            acknowledged.extend(of_writer);
            open.extend(open_of_writer);
        }
    }
    let server = Server::start(directory.path(), &[]);
    check(&server, &acknowledged, &open);
    assert!(acknowledged.len() >= 100, "{} acknowledged batches", acknowledged.len());
}

fn check(server: &Server, acknowledged: &[u64], open: &[u64]) {
    let rows = server.post_well("/api/collections/notes/query", &json!({"outputFields": ["id", "title"]}));
    let mut found = std::collections::BTreeMap::<u64, u64>::new();
    for row in rows["rows"].as_array().unwrap() {
        let batch = row["id"].as_u64().unwrap() / ROWS_EACH;
        assert_eq!(row["title"], format!("batch {batch}"));
        *found.entry(batch).or_default() += 1;
    }
    for batch in acknowledged {
        assert_eq!(found.remove(batch), Some(ROWS_EACH), "batch {batch} was acknowledged");
    }
    for (batch, rows) in found {
        assert!(open.contains(&batch), "batch {batch} was never sent");
        assert_eq!(rows, ROWS_EACH, "batch {batch} is there in part");
    }
}
