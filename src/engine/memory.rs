use crate::base::{SegmentId, sort_by_key};
use crate::segment::FileKind;

/// What is held in memory, by kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Narrow columns and versions of rows: always there.
    pub rows: usize,
    /// Wide columns.
    pub columns: usize,
    /// Vectors in full precision.
    pub vectors: usize,
    /// Graphs and the codes in them: always there.
    pub indexes: usize,
    /// Primary keys and where their rows are, deleted keys included: always there. Estimated.
    pub keys: usize,
    /// Blocks that were read from storage, and which rows filters have admitted.
    pub cache: usize,
    /// Copies of vectors and indexes that workers search.
    pub pool: usize,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        self.rows + self.columns + self.vectors + self.indexes + self.keys + self.cache + self.pool
    }
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.columns += other.columns;
        self.vectors += other.vectors;
        self.indexes += other.indexes;
        self.keys += other.keys;
        self.cache += other.cache;
        self.pool += other.pool;
    }
}

/// A file of a flushed segment whose columns can be in memory or only in storage.
#[derive(Debug, Clone, PartialEq)]
pub struct Movable {
    /// Whose.
    pub segment: SegmentId,
    /// Which: a wide column or vectors.
    pub kind: FileKind,
    /// What it takes in memory, about.
    pub bytes: usize,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether rows wait for being indexed, which they cannot from storage.
    pub needed: bool,
    /// Whether it is to stay in storage though there is room.
    pub left: bool,
}

/// Which file should be loaded, or unloaded when it is loaded, so that at most `budget` bytes of `files` are in memory; none
/// when all is well. Unloads come first.
///
/// What is kept: first the vectors that an index is being built from, of which one file may take `spare` besides, for without
/// them the index would never come about; then vectors, of which a search reads as many blocks as it
/// has candidates, before wide columns, of which only the rows of the result are read; of new segments before old ones. In this
/// order, as many as fit. Vectors that their index leaves in storage are never kept.
pub fn choose_move(budget: usize, spare: usize, files: &[Movable]) -> Option<Movable> {
    let mut order: Vec<&Movable> = files.iter().collect();
    let is_column = |file: &Movable| !matches!(file.kind, FileKind::Vector(_));
    sort_by_key(&mut order, |file| (!file.needed, is_column(file), std::cmp::Reverse(file.segment), file.kind.clone()));
    let mut held = 0;
    let mut to_load = None;
    let mut to_unload = None;
    for (at, file) in order.into_iter().enumerate() {
        let spare = if at == 0 && file.needed { spare } else { 0 };
        let fits = !file.left && held + file.bytes <= budget + spare;
        if fits {
            held += file.bytes;
        }
        match (fits, file.loaded) {
            (true, false) => to_load = to_load.or(Some(file)),
            // The one that is worth least.
            (false, true) => to_unload = Some(file),
            _ => {}
        }
    }
    to_unload.or(to_load).cloned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(segment: u64, vector: bool, bytes: usize, loaded: bool) -> Movable {
        let kind = if vector { FileKind::Vector("v".into()) } else { FileKind::Column("c".into()) };
        Movable { segment: SegmentId(segment), kind, bytes, loaded, needed: false, left: false }
    }

    #[test]
    fn vectors_of_new_segments_stay_longest() {
        let files =
            [file(1, true, 40, true), file(1, false, 30, true), file(2, true, 40, true), file(2, false, 30, true)];
        assert_eq!(choose_move(140, 0, &files), None);
        assert_eq!(choose_move(110, 0, &files), Some(files[1].clone()));
        assert_eq!(choose_move(50, 0, &files[..3]), Some(files[1].clone()));
        assert_eq!(choose_move(50, 0, &[files[0].clone(), files[2].clone()]), Some(files[0].clone()));
    }

    #[test]
    fn what_an_index_waits_for_comes_first() {
        let mut files = [file(1, true, 40, false), file(2, true, 40, true)];
        assert_eq!(choose_move(50, 0, &files), None);
        files[0].needed = true;
        assert_eq!(choose_move(50, 0, &files), Some(files[1].clone()));
        files[1].loaded = false;
        assert_eq!(choose_move(50, 0, &files), Some(files[0].clone()));
        assert_eq!(choose_move(30, 0, &files), None);
        assert_eq!(choose_move(30, 10, &files), Some(files[0].clone()));
    }

    proptest! {
        /// Whatever is there, moves come to an end, and then the budget holds.
        #[test]
        fn moves_end_within_the_budget(
            files in prop::collection::vec((0u64..20, any::<bool>(), 1usize..100, any::<bool>(), any::<bool>()), 0..30),
            (budget, spare) in (0usize..1000, 0usize..100),
        ) {
            let mut files: Vec<Movable> = files
                .into_iter()
                .map(|(segment, vector, bytes, loaded, needed)| Movable { needed, ..file(segment, vector, bytes, loaded) })
                .collect();
            files.sort_by_key(|file| (file.segment, file.kind.clone()));
            files.dedup_by_key(|file| (file.segment, file.kind.clone()));
            for _ in 0..=2 * files.len() {
                let Some(choice) = choose_move(budget, spare, &files) else {
                    let held: usize = files.iter().filter(|file| file.loaded).map(|file| file.bytes).sum();
                    prop_assert!(held <= budget + spare);
                    return Ok(());
                };
                let held: usize = files.iter().filter(|file| file.loaded).map(|file| file.bytes).sum();
                prop_assert!(choice.loaded || held + choice.bytes <= budget + spare);
                let at = files.iter().position(|file| (file.segment, &file.kind) == (choice.segment, &choice.kind));
                files[at.unwrap()].loaded ^= true;
            }
            prop_assert!(false, "moves do not end");
        }
    }
}
