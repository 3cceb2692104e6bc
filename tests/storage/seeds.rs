//! What a seed means, for the tests of every target: a failure found natively is found again in a browser.

use eddydb::base::codec::{checksum, checksum_append};
use eddydb::storage::{FaultStorage, Storage};

/// The same on every target, in every release: seeds written down in reports stay useful.
pub const WHAT_SEEDS_MEAN: u32 = 3_461_094_141;

/// A checksum of what 64 seeds leave of a log after a crash in the midst of a few operations.
pub async fn what_seeds_mean() -> u32 {
    let mut sum = checksum(&[]);
    for seed in 0..64 {
        let storage = FaultStorage::new(seed);
        storage.crash_after(seed % 7);
        for round in 0..3u8 {
            let _ = storage.append("log", vec![round; 2_000].into()).await;
            let _ = storage.sync("log").await;
            let _ = storage.put(&format!("put-{round}"), vec![round; 700].into()).await;
        }
        let storage = storage.reopen();
        for entry in storage.list("").await.expect("nothing is planned any more") {
            sum = checksum_append(sum, entry.name.as_bytes());
            sum = checksum_append(sum, &storage.read_all(&entry.name).await.expect("it was listed"));
        }
    }
    sum
}
