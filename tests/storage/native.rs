//! `FileStorage` in its real home: a directory, other processes that are killed, and file systems that are full.
//!
//! A test that needs another process starts this program again, with the role in the environment.
#![cfg(native)]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests, which look at files from outside"
)]

mod seeds;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use eddydb::base::{ErrorKind, Result};
#[cfg(feature = "server")]
use eddydb::db::{Db, Options, QueryRequest};
#[cfg(feature = "server")]
use eddydb::model::{Batch, Row, Value};
use eddydb::platform::{Task, block_on};
use eddydb::storage::conformance::{self, CASES, Home};
use eddydb::storage::{FileStorage, Storage};
use tempfile::TempDir;

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Home for Directory {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        // Two levels that are not there at first.
        Box::pin(async { Ok(Arc::new(FileStorage::open(self.0.path().join("data/eddy"))?) as Arc<dyn Storage>) })
    }
}

#[test]
fn conformance_on_a_plain_thread() {
    assert_eq!(block_on(conformance::run(async |_| Directory::new())), CASES.len());
}

#[cfg(feature = "server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_a_multi_thread_runtime() {
    assert_eq!(conformance::run(async |_| Directory::new()).await, CASES.len());
}

#[cfg(feature = "server")]
#[tokio::test(flavor = "current_thread")]
async fn conformance_on_a_current_thread_runtime() {
    assert_eq!(conformance::run(async |_| Directory::new()).await, CASES.len());
}

/// Buffers of the log are used again, and memory is made ready by another thread: neither may show.
#[cfg(feature = "server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_of_any_size_after_each_other_are_read_again_as_they_were() {
    const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
        {"name":"embedding","type":"float_vector","dim":256}],"indexes":{"embedding":{"kind":"FLAT"}}}"#;
    let directory = tempfile::tempdir().unwrap();
    let open = async || {
        let storage = Arc::new(FileStorage::open(directory.path()).unwrap());
        Db::open(storage, Options::default()).await.unwrap()
    };
    let value = |id: i64| Value::Vector((0..256).map(|at| (id * 256 + at) as f32).collect());
    let db = open().await;
    let wide = db.create_collection("wide", serde_json::from_str(SPEC).unwrap()).await.unwrap();
    let mut next = 0;
    for count in [300, 1, 100, 900, 64, 65, 2, 5_000, 300] {
        let row = |id: i64| Row::from([("id".into(), id.into()), ("embedding".into(), value(id))]);
        let batch = Batch::from_rows(&wide.spec().schema, (next..next + count).map(row).collect()).unwrap();
        wide.upsert(batch).await.unwrap();
        next += count;
    }
    db.close().await.unwrap();
    drop((wide, db));
    let db = open().await;
    let request =
        QueryRequest { output_fields: Some(vec!["id".into(), "embedding".into()]), ..QueryRequest::default() };
    let rows = db.collection("wide").unwrap().query(&request).await.unwrap();
    assert_eq!(rows.len() as i64, next);
    for row in rows {
        let Value::Int(id) = row["id"] else { panic!("{row:?}") };
        assert_eq!(row["embedding"], value(id), "row {id}");
    }
}

#[test]
fn a_seed_means_the_same_on_every_target() {
    assert_eq!(block_on(seeds::what_seeds_mean()), seeds::WHAT_SEEDS_MEAN);
}

#[test]
fn threads_work_on_different_names_at_once() {
    let home = Directory::new();
    let storage = FileStorage::open(home.0.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let storage = &storage;
            scope.spawn(move || {
                for round in 0..20 {
                    let log = format!("log-{thread}");
                    block_on(storage.append(&log, stream(round * 500, 500).into())).unwrap();
                    block_on(storage.sync(&log)).unwrap();
                    let name = format!("{thread}/{round}");
                    block_on(storage.put(&name, stream(thread, 300).into())).unwrap();
                    assert_eq!(block_on(storage.read_all(&name)).unwrap(), stream(thread, 300));
                }
            });
        }
    });
    assert_eq!(block_on(storage.list("")).unwrap().len(), 8 + 8 * 20);
    for thread in 0..8 {
        assert_eq!(block_on(storage.read_all(&format!("log-{thread}"))).unwrap(), stream(0, 10_000));
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    const ROUNDS: usize = 12;
    let home = Directory::new();
    let (mut log_len_before, mut puts_acknowledged, mut unacknowledged_bytes) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut writer = Process::start("write", home.0.path());
        let mut log_len_acknowledged = log_len_before;
        // Killed right after a line was read, while the writer goes on: anywhere in its next operations.
        for _ in 0..5 + round * 7 {
            match writer.line().split_once(' ').unwrap() {
                ("log", len) => log_len_acknowledged = len.parse().unwrap(),
                ("put", count) => puts_acknowledged = count.parse().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        writer.kill();

        let storage = FileStorage::open(home.0.path()).unwrap();
        let log = block_on(storage.read_all("log")).unwrap();
        assert!(log.len() >= log_len_acknowledged, "round {round}: {} of {log_len_acknowledged} bytes", log.len());
        assert!(log == stream(0, log.len()), "round {round}: the log is not what was written");
        unacknowledged_bytes += log.len() - log_len_acknowledged;
        log_len_before = log.len();
        let puts = block_on(storage.list("put/")).unwrap();
        assert!(puts.len() >= puts_acknowledged, "round {round}: {} of {puts_acknowledged} objects", puts.len());
        for entry in puts {
            assert_eq!(entry.len, PUT_LEN as u64, "round {round}: {} is torn", entry.name);
            assert!(block_on(storage.read_all(&entry.name)).unwrap() == stream(7, PUT_LEN), "round {round}");
        }
        let left: Vec<_> = file_names(home.0.path()).into_iter().filter(|name| name.starts_with("TMP")).collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    println!(
        "{ROUNDS} kills, {log_len_before} bytes of log, {unacknowledged_bytes} written and not acknowledged, {puts_acknowledged} objects"
    );
}

#[test]
fn a_second_process_is_locked_out() {
    let home = Directory::new();
    let mut holder = Process::start("hold", home.0.path());
    assert_eq!(holder.line(), "holding");
    let error = FileStorage::open(home.0.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    for fact in [home.0.path().to_str().unwrap(), &format!("process {}", holder.child.id())] {
        assert!(error.message().contains(fact), "the message names {fact}: {error}");
    }
    assert_eq!(Process::start("try", home.0.path()).line(), "Locked", "a third process");
    holder.kill();
    let storage = FileStorage::open(home.0.path()).unwrap();
    assert!(FileStorage::open(home.0.path()).unwrap_err().message().contains("this process"));
    assert_eq!(Process::start("try", home.0.path()).line(), "Locked");
    block_on(storage.close()).unwrap();
    assert_eq!(Process::start("try", home.0.path()).line(), "opened");
}

/// The shell ignores SIGXFSZ and the writer inherits that, so that growing a file past the limit is the error EFBIG.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_grow_is_storage_full() {
    let home = Directory::new();
    let script = r#"trap "" XFSZ; ulimit -f 64; exec "$@""#;
    let mut writer = Process::start_under(&["bash", "-c", script, "bash"], "fill", home.0.path());
    assert_eq!(writer.line(), "full");
    writer.end();
    check_filled(home.0.path());
}

/// A real full disk: a file system of 256 KiB in memory, mounted in namespaces of the process's own, which needs no privilege
/// where the kernel lets users make namespaces. Elsewhere the limit above is the full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_file_system_is_storage_full() {
    let namespaces = ["unshare", "--user", "--map-root-user", "--mount"];
    let probe = Command::new(namespaces[0]).args(&namespaces[1..]).arg("true").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("no user namespaces here: only the file size limit stands for a full disk");
        return;
    }
    let home = Directory::new();
    let script = r#"mount -t tmpfs -o size=256k tmpfs "$EDDY_STORAGE_DIRECTORY" && exec "$@""#;
    let prefix: Vec<&str> = namespaces.into_iter().chain(["sh", "-c", script, "sh"]).collect();
    let mut writer = Process::start_under(&prefix, "fill", home.0.path());
    assert_eq!(writer.line(), "full");
    assert_eq!(writer.line(), "checked", "the file system is gone with the process, so it looks itself");
    writer.end();
}

/// Appends, syncs and puts until there is no room; then all that was acknowledged is there, and a cut log is usable again.
fn fill(directory: &Path) {
    let storage = FileStorage::open(directory).unwrap();
    block_on(async {
        storage.put("small", stream(1, 100).into()).await.unwrap();
        let mut len = 0;
        let error = loop {
            match storage.append("log", stream(len, 5_000).into()).await {
                Ok(()) => len += 5_000,
                Err(error) => break error,
            }
            storage.sync("log").await.unwrap();
            assert!(len < 1 << 20, "the disk never gets full");
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(error.message().contains("log"), "{error}");
        let again = storage.append("log", stream(len, 1).into()).await.unwrap_err();
        assert!(again.message().contains(&format!("cut it to {len}")), "{again}");
        let error = storage.put("large", stream(0, 1 << 20).into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        storage.truncate("log", len as u64).await.unwrap();
        storage.truncate("log", 10_000).await.unwrap();
        storage.append("log", stream(10_000, 2_000).into()).await.unwrap();
        storage.sync("log").await.unwrap();
        storage.put("after", stream(2, 100).into()).await.unwrap();
    });
}

fn check_filled(directory: &Path) {
    let left: Vec<_> = file_names(directory).into_iter().filter(|name| name.starts_with("TMP")).collect();
    assert!(left.is_empty(), "a failed put leaves {left:?}");
    let storage = FileStorage::open(directory).unwrap();
    block_on(async {
        let names: Vec<String> = storage.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["after", "log", "small"]);
        assert!(storage.read_all("log").await.unwrap() == stream(0, 12_000));
        assert!(storage.read_all("small").await.unwrap() == stream(1, 100));
        assert!(storage.read_all("after").await.unwrap() == stream(2, 100));
    });
}

#[test]
fn foreign_files_stay_and_unfinished_ones_go() {
    let home = Directory::new();
    for name in ["TMP-0", "TMP-17", "README", "notes.txt~", ".hidden", "ok.txt"] {
        std::fs::write(home.0.path().join(name), b"?").unwrap();
    }
    std::fs::create_dir_all(home.0.path().join("folder")).unwrap();
    let storage = FileStorage::open(home.0.path()).unwrap();
    let names: Vec<String> = block_on(storage.list("")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["ok.txt"]);
    block_on(storage.put("a/b", b"1".to_vec().into())).unwrap();
    assert_eq!(
        file_names(home.0.path()).into_iter().filter(|name| !is_claim(name)).collect::<Vec<_>>(),
        [".hidden", "LOCK", "README", "a~b", "folder", "notes.txt~", "ok.txt"].map(String::from)
    );
}

#[test]
fn a_directory_that_cannot_be_used_says_why() {
    let home = Directory::new();
    std::fs::write(home.0.path().join("file"), b"").unwrap();
    for path in ["file", "file/below"] {
        let path = home.0.path().join(path);
        let error = FileStorage::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    }
    let path = home.0.path().join("data");
    let storage = FileStorage::open(&path).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    for error in [
        block_on(storage.put("a", b"1".to_vec().into())).unwrap_err(),
        block_on(storage.append("a", b"1".to_vec().into())).unwrap_err(),
        block_on(storage.list("")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Io, "a directory that went is no missing name: {error}");
    }
}

/// A process of Node cannot lock a file, and a network file system may forget a lock: such an owner takes over by the claim alone.
#[test]
fn an_owner_whose_claim_was_taken_over_acknowledges_nothing_more() {
    let home = Directory::new();
    let storage = FileStorage::open(home.0.path()).unwrap();
    block_on(async {
        storage.append("log", b"synced".to_vec().into()).await.unwrap();
        storage.sync("log").await.unwrap();
        storage.append("log", b", not synced".to_vec().into()).await.unwrap();
        let claim = file_names(home.0.path()).into_iter().find(|name| is_claim(name)).unwrap();
        std::fs::remove_file(home.0.path().join(claim)).unwrap();
        let bytes = || b"more".to_vec().into();
        for result in [
            storage.sync("log").await,
            storage.append("log", bytes()).await,
            storage.put("new", bytes()).await,
            storage.truncate("log", 0).await,
            storage.remove("log").await,
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            assert!(error.message().contains("taken over"), "{error}");
        }
        assert_eq!(storage.read_all("log").await.unwrap(), "synced, not synced");
        assert_eq!(storage.list("").await.unwrap().len(), 1);
    });
}

const PUT_LEN: usize = 70_000;

/// The bytes from `start` of one endless stream in which no two stretches are alike.
fn stream(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn is_claim(name: &str) -> bool {
    name.starts_with(".lock.")
}

fn file_names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Appends and syncs, puts, and says so on standard output, until it is killed.
fn write_until_killed(directory: &Path) {
    let storage = FileStorage::open(directory).unwrap();
    block_on(async {
        let entries = storage.list("").await.unwrap();
        let mut len = entries.iter().find(|entry| entry.name == "log").map_or(0, |entry| entry.len as usize);
        let mut puts = entries.iter().filter(|entry| entry.name.starts_with("put/")).count();
        for step in 0usize.. {
            let part = [10, 700, 40_000, 5_000][step % 4];
            storage.append("log", stream(len, part).into()).await.unwrap();
            len += part;
            storage.sync("log").await.unwrap();
            say(&format!("log {len}"));
            if step % 3 == 0 {
                storage.put(&format!("put/{puts}"), stream(7, PUT_LEN).into()).await.unwrap();
                puts += 1;
                say(&format!("put {puts}"));
            }
        }
    });
}

const ROLE: &str = "EDDY_STORAGE_ROLE";
const DIRECTORY: &str = "EDDY_STORAGE_DIRECTORY";

/// Starts each line that a role says.
const MARK: &str = "> ";

fn say(line: &str) {
    println!("{MARK}{line}");
}

/// What another process does; nothing in the test process itself.
#[test]
fn role_of_another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
    match role.as_str() {
        "write" => write_until_killed(&directory),
        "hold" => {
            let _storage = FileStorage::open(&directory).unwrap();
            say("holding");
            loop {
                std::thread::park();
            }
        }
        "try" => match FileStorage::open(&directory) {
            Ok(_) => say("opened"),
            Err(error) => say(&format!("{:?}", error.kind())),
        },
        "fill" => {
            fill(&directory);
            say("full");
            check_filled(&directory);
            say("checked");
        }
        other => panic!("no role {other}"),
    }
}

/// This program in another role. Killed when dropped.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, directory: &Path) -> Self {
        Self::start_under(&[], role, directory)
    }

    /// `prefix` is a command that runs the one after it.
    fn start_under(prefix: &[&str], role: &str, directory: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut words: Vec<&str> = prefix.to_vec();
        words.extend([program.to_str().unwrap(), "--exact", "role_of_another_process", "--nocapture"]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that the role says; what the test harness says is left out.
    fn line(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the process says more").unwrap();
            if let Some(said) = line.strip_prefix(MARK) {
                return said.to_owned();
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
