//! Partitions: parts of a collection by name, or by the values of a field.
//!
//! A row's partition is a column of it ([`PARTITION_COLUMN`](crate::model::PARTITION_COLUMN)), written with it, so that it goes wherever rows go: into the log, segments,
//! archives and to other replicas. The list of a collection's partitions is each replica's own; it has every partition in which
//! rows are.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::{Request, Step};
use super::{Collection, Db, Target};
use crate::base::{Error, ErrorKind, Result, map_of};
use crate::engine::{ChangeSet, CollectionSpec, View};
use crate::model::partition::{PartitionColumn, Place};
use crate::model::{Batch, DEFAULT_PARTITION, PARTITIONS_MAX, Schema, check_partition, key_partition_name};
use crate::platform;
use crate::query::Filter;

impl Db {
    /// Creates a partition of a collection, durably. Other replicas get to know it with its first row.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there, `InvalidArgument` for a name that is none (see [`check_partition`]), for a collection whose
    /// partitions a key assigns, and when there are 1,024 already; `NotFound` when there is no such collection.
    pub async fn create_partition(&self, collection: &str, partition: &str) -> Result<()> {
        check_partition(partition)?;
        let collection = self.collection(collection)?;
        // Refused where a key assigns them.
        Schema::clone(&collection.spec().schema).with_partitions()?;
        if collection.has_partition(partition) {
            return Err(exists(&collection, partition));
        }
        self.divide(&collection).await?;
        self.alter_partitions(&collection, partition.to_owned(), true).await.map(drop)
    }

    /// Removes a partition with its rows, durably. The rows are deleted like others, at other replicas too; that there is such a
    /// partition each replica forgets for itself.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition or collection, `InvalidArgument` for the default partition and for those that a
    /// key assigns.
    pub async fn drop_partition(&self, collection: &str, partition: &str) -> Result<()> {
        let collection = self.collection(collection)?;
        collection.check_partitions(&[partition])?;
        if partition == DEFAULT_PARTITION {
            return Err(Error::invalid(format!("partition {partition:?} is always there: delete its rows instead")));
        }
        let (db, name) = (self.clone(), partition.to_owned());
        platform::run_to_end(async move {
            // From here on nobody writes into it.
            if !collection.inner.partitions.write().expect("no panic while held").remove(&name) {
                return Err(Error::not_found(format!("partition {name:?} is being dropped")));
            }
            let dropped = db.drop_rows(&collection, &name).await;
            if dropped.is_err() {
                collection.inner.partitions.write().expect("no panic while held").insert(name);
            }
            dropped
        })
        .await
    }

    async fn drop_rows(&self, collection: &Collection, name: &str) -> Result<()> {
        loop {
            let rows = Step::DeleteWhere(Box::new(Filter::within(None, &[name].into())));
            let request = Request::Write { steps: vec![rows], conditions: Vec::new(), request: None, pipeline: None };
            collection.write(request, None).await?;
            // Rows that came from elsewhere in between are deleted first.
            if self.alter_partitions(collection, name.to_owned(), false).await? {
                return Ok(());
            }
        }
    }

    /// Has the collection take rows with partitions by name, when `changes` has such.
    pub(super) async fn admit_partitions(&self, collection: &Collection, changes: &ChangeSet) -> Result<()> {
        changes.puts.partitions().into_iter().try_for_each(check_partition)?;
        if changes.puts.schema().partitioned() {
            self.divide(collection).await?;
        }
        Ok(())
    }

    /// Has rows be in partitions by name.
    pub(super) async fn divide(&self, collection: &Collection) -> Result<()> {
        if collection.spec().schema.partitioned() {
            return Ok(());
        }
        let edit = |spec: &mut CollectionSpec| {
            spec.schema = Schema::clone(&spec.schema).with_partitions()?.into();
            Ok(())
        };
        self.alter(collection, edit).await
    }

    /// Adds a partition, or removes one when no row is in it; tells whether it did.
    async fn alter_partitions(&self, collection: &Collection, name: String, add: bool) -> Result<bool> {
        self.inner.shared.check_open()?;
        let (db, collection) = (self.clone(), collection.clone());
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            // Whoever holds it is the one writer: no row comes in meanwhile.
            let log = collection.inner.log.lock().await;
            if let Some(error) = log.closed() {
                return Err(error);
            }
            let mut names = collection.inner.partitions.read().expect("no panic while held").clone();
            if !add && collection.rows_by_partition().contains_key(&name) {
                return Ok(false);
            }
            if add && names.len() + 1 >= PARTITIONS_MAX {
                return Err(Error::invalid(format!(
                    "collection {:?} has {PARTITIONS_MAX} partitions, which is the most",
                    collection.name()
                )));
            }
            if !add {
                names.remove(&name);
            } else if !names.insert(name.clone()) {
                return Err(exists(&collection, &name));
            }
            let id = collection.id();
            db.inner
                .shared
                .swap_manifest(|manifest| {
                    let described = manifest.collection_mut(id);
                    described.ok_or_else(|| Error::not_found("the collection was dropped"))?.partitions = names.clone();
                    Ok(())
                })
                .await?;
            *collection.inner.partitions.write().expect("no panic while held") = names;
            Ok(true)
        })
        .await
    }
}

/// Names as they are checked.
pub(super) fn as_strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn exists(collection: &Collection, partition: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("collection {:?} has a partition {partition:?} already", collection.name()),
    )
}

impl Collection {
    /// The names of its partitions, the default one first.
    pub fn partitions(&self) -> Vec<String> {
        if let Some((_, count)) = self.spec().schema.partition_key() {
            return (0..count).map(key_partition_name).collect();
        }
        let names = self.inner.partitions.read().expect("no panic while held");
        [DEFAULT_PARTITION.to_owned()].into_iter().chain(names.iter().cloned()).collect()
    }

    /// Whether there is a partition of that name.
    pub fn has_partition(&self, name: &str) -> bool {
        match self.spec().schema.partition_key() {
            Some((_, count)) => (0..count).any(|number| key_partition_name(number) == name),
            None => {
                name == DEFAULT_PARTITION || self.inner.partitions.read().expect("no panic while held").contains(name)
            }
        }
    }

    /// The partitions that a request names, without repetition; `None` when that is no restriction.
    ///
    /// # Errors
    /// `NotFound` for one that is not there, `InvalidArgument` when a key assigns them.
    pub(super) fn check_partitions<'a>(&self, names: &[&'a str]) -> Result<Option<BTreeSet<&'a str>>> {
        let schema = &self.spec().schema;
        if let (Some((field, _)), false) = (schema.partition_key(), names.is_empty()) {
            return Err(Error::invalid(format!(
                "the field {:?} of collection {:?} assigns rows to partitions: a request names none, and its filter may fix the field",
                field.name,
                self.name()
            )));
        }
        if let Some(name) = names.iter().find(|name| !self.has_partition(name)) {
            return Err(Error::not_found(format!(
                "collection {:?} has no partition {name:?}; there are: {}",
                self.name(),
                self.partitions().join(", ")
            )));
        }
        Ok((schema.partitioned() && !names.is_empty()).then(|| names.iter().copied().collect()))
    }

    /// `filter` for rows of these partitions, or of all when none is named.
    ///
    /// # Errors
    /// `NotFound` for a partition that is not there, `InvalidArgument` when a key assigns them.
    pub(super) fn within(&self, filter: Option<Filter>, partitions: &[String]) -> Result<Option<Filter>> {
        match self.check_partitions(&as_strs(partitions))? {
            Some(names) => Ok(Some(Filter::within(filter, &names))),
            None => Ok(filter),
        }
    }

    /// `batch`, rows of the collection as it is now, in a partition.
    ///
    /// # Errors
    /// As of [`Self::within`], and `InvalidArgument` when its rows name partitions themselves.
    pub(super) fn placed(&self, batch: Batch, partition: &str) -> Result<Batch> {
        let Some(_) = self.check_partitions(&[partition])? else { return Ok(batch) };
        if let Some(other) = batch.partitions().first().filter(|other| **other != partition) {
            return Err(Error::invalid(format!("a write into partition {partition:?} of a row that names {other:?}")));
        }
        Ok(batch.in_partition(partition))
    }

    /// Checks that the partitions that rows name are there.
    pub(super) fn check_named(&self, batch: &Batch) -> Result<()> {
        let names = batch.partitions().into_iter().filter(|name| !self.has_partition(name));
        self.check_partitions(&names.collect::<Vec<_>>()).map(drop)
    }

    /// Knows the partitions that rows from elsewhere are in. They need not be in the manifest: rows tell them at the next open.
    pub(super) fn note_partitions(&self, batch: &Batch) {
        let new = batch.partitions().into_iter().filter(|name| !self.has_partition(name)).map(str::to_owned);
        let new: Vec<String> = new.collect();
        if !new.is_empty() {
            self.inner.partitions.write().expect("no panic while held").extend(new);
        }
    }

    /// What to delete of `target` in a partition.
    pub(super) fn delete_step(&self, target: Target, partition: Option<&str>) -> Result<Step> {
        let names = match partition {
            Some(partition) => self.check_partitions(&[partition])?,
            None => None,
        };
        let schema = &self.spec().schema;
        let filter = match target {
            Target::Keys(keys) => {
                keys.iter().try_for_each(|key| self.check_key(key))?;
                match &names {
                    Some(_) => Filter::of_keys(schema, &keys),
                    None => return Ok(Step::DeleteKeys(keys)),
                }
            }
            Target::Filter(text) => Filter::parse(&text, schema)?,
            Target::FilterWith(text, parameters) => Filter::parse_with(&text, schema, &parameters)?,
        };
        Ok(Step::DeleteWhere(Box::new(match names {
            Some(names) => Filter::within(Some(filter), &names),
            None => filter,
        })))
    }

    /// The living rows of each partition, of which there are `all` together.
    pub(super) fn partition_stats(&self, all: usize) -> BTreeMap<String, usize> {
        if self.spec().schema.partition_column().is_none() {
            return [(DEFAULT_PARTITION.to_owned(), all)].into();
        }
        let mut rows = map_of(self.partitions().into_iter().map(|name| (name, 0)));
        rows.extend(self.rows_by_partition());
        rows
    }

    /// The same of each that has any: one pass over the rows. What has expired is in none.
    pub(super) fn rows_by_partition(&self) -> BTreeMap<String, usize> {
        let schema = self.spec().schema.clone();
        let view = self.view(View::NOW);
        let state = self.inner.state.read().expect("no panic while held");
        let mut rows = BTreeMap::new();
        for slot in state.slots() {
            let visible = slot.visible(&view);
            for (start, chunk) in slot.segment.chunks() {
                let column = PartitionColumn::new(&schema, chunk);
                let mut last: Option<(Place<'_>, usize)> = None;
                let live = visible.iter_from(start).take_while(|row| row - start < chunk.num_rows());
                for row in live {
                    let place = column.as_ref().map_or(Place::Name(DEFAULT_PARTITION), |column| column.of(row - start));
                    match &mut last {
                        Some((of, count)) if *of == place => *count += 1,
                        _ => {
                            if let Some((place, count)) = last.replace((place, 1)) {
                                *rows.entry(place.name()).or_default() += count;
                            }
                        }
                    }
                }
                if let Some((place, count)) = last {
                    *rows.entry(place.name()).or_default() += count;
                }
            }
        }
        rows
    }
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::ErrorKind;
    use crate::db::{Operation, Options, QueryRequest, SearchRequest, WriteOptions};
    use crate::model::{Row, Value};
    use crate::platform::block_on;
    use crate::storage::{FaultStorage, MemoryDisk};

    fn spec(more: &str) -> CollectionSpec {
        let json = format!(
            r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},
                {{"name":"tenant","type":"varchar","maxLength":40{more}}},
                {{"name":"embedding","type":"float_vector","dim":2}}],"dynamic":true}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn row(id: i64, tenant: &str) -> Row {
        Row::from([
            ("id".to_owned(), Value::Int(id)),
            ("tenant".to_owned(), Value::from(tenant)),
            ("embedding".to_owned(), Value::Vector(vec![id as f32, 1.0])),
        ])
    }

    async fn open(disk: &MemoryDisk) -> Db {
        Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
    }

    async fn settle(db: &Db) {
        while db.maintain().await.unwrap() {}
    }

    async fn write(collection: &Collection, ids: &[i64], partition: Option<&str>) -> Result<usize> {
        let rows = ids.iter().map(|&id| row(id, "t")).collect();
        let operations = vec![Operation::Upsert(collection.to_batch(rows)?)];
        let options = WriteOptions { partition: partition.map(str::to_owned), ..Default::default() };
        Ok(collection.batch(operations, options).await?.count)
    }

    async fn delete(collection: &Collection, target: Target, partition: &str) -> Result<usize> {
        let options = WriteOptions { partition: Some(partition.to_owned()), ..Default::default() };
        Ok(collection.batch(vec![Operation::Delete(target)], options).await?.count)
    }

    fn named(partitions: &[&str]) -> Vec<String> {
        partitions.iter().map(|&name| name.to_owned()).collect()
    }

    /// Keys in these partitions, which a query, a search and a count agree about.
    async fn keys(collection: &Collection, partitions: &[&str], filter: Option<&str>) -> Vec<i64> {
        let (partitions, filter) = (named(partitions), filter.map(str::to_owned));
        let query = QueryRequest { partitions: partitions.clone(), filter: filter.clone(), ..Default::default() };
        let id = |row: &Row| match row["id"] {
            Value::Int(id) => id,
            _ => panic!("{row:?}"),
        };
        let found: Vec<i64> = collection.query(&query).await.unwrap().iter().map(id).collect();
        assert_eq!(collection.count_within(filter.as_deref(), &partitions).await.unwrap(), found.len());
        let vector = Value::Vector(vec![0.0, 1.0]);
        let search = SearchRequest { vector, limit: 16_000, partitions, filter, ..Default::default() };
        let hits = collection.search(&search).await.unwrap().hits;
        let mut hits: Vec<i64> = hits.iter().map(|hit| id(&hit.row)).collect();
        hits.sort_unstable();
        assert_eq!(hits, found);
        found
    }

    fn says<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, words: &str) {
        let error = result.unwrap_err();
        assert!(error.kind() == kind && error.message().contains(words), "{error}");
    }

    #[test]
    fn rows_are_found_in_their_partition_wherever_they_lie() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let notes = db.create_collection("notes", spec("")).await.unwrap();
            write(&notes, &[1, 2], None).await.unwrap();
            db.flush("notes").await.unwrap();
            assert_eq!(notes.partitions(), ["_default"]);
            assert_eq!(keys(&notes, &["_default"], None).await, [1, 2]);
            // Made before there were partitions.
            let early = notes.to_batch(vec![row(3, "t")]).unwrap();
            db.create_partition("notes", "a").await.unwrap();
            db.create_partition("notes", "b").await.unwrap();
            notes.insert(early).await.unwrap();
            write(&notes, &[10, 11, 12], Some("a")).await.unwrap();
            write(&notes, &[20, 21], Some("b")).await.unwrap();
            let mut named_by_row = row(13, "t");
            named_by_row.insert("$partition".to_owned(), "a".into());
            let mut default_by_row = row(4, "t");
            default_by_row.insert("$partition".to_owned(), "_default".into());
            notes.insert(notes.to_batch(vec![named_by_row, default_by_row]).unwrap()).await.unwrap();
            // One key, one row: an upsert elsewhere moves it.
            write(&notes, &[12], Some("b")).await.unwrap();
            for round in 0..4 {
                let notes = db.collection("notes").unwrap();
                assert_eq!(keys(&notes, &[], None).await, [1, 2, 3, 4, 10, 11, 12, 13, 20, 21], "round {round}");
                assert_eq!(keys(&notes, &["_default"], None).await, [1, 2, 3, 4]);
                assert_eq!(keys(&notes, &["a"], None).await, [10, 11, 13]);
                assert_eq!(keys(&notes, &["b", "b"], Some("id > 12")).await, [20, 21]);
                assert_eq!(keys(&notes, &["_default", "b"], Some("id < 2 or id == 20")).await, [1, 20]);
                assert_eq!(keys(&notes, &["a"], Some("false")).await, [0; 0]);
                let fields = named(&["id", "$partition"]);
                let (wanted, both) = ([1.into(), 10.into(), 12.into()], named(&["a", "b"]));
                let got = notes.get_within(&wanted, Some(&fields), &both).await.unwrap();
                let got: Vec<_> = got.iter().map(|row| row["$partition"].clone()).collect();
                assert_eq!(got, [Value::from("a"), "b".into()]);
                let stats = notes.stats().await.unwrap().partitions;
                assert_eq!(stats, [("_default".to_owned(), 4), ("a".to_owned(), 3), ("b".to_owned(), 3)].into());
                match round {
                    0 => db.flush("notes").await.unwrap(),
                    1 => {
                        db.begin_compaction(&notes);
                        settle(&db).await;
                        assert_eq!(notes.stats().await.unwrap().rows_dead, 0);
                    }
                    _ => {}
                }
                if round == 2 {
                    break;
                }
            }
            drop((notes, db));
            let db = open(&disk).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(notes.partitions(), ["_default", "a", "b"]);
            assert_eq!(keys(&notes, &["a"], None).await, [10, 11, 13]);
            // Only in the partition that is named.
            assert_eq!(delete(&notes, Target::Keys(vec![1.into(), 10.into(), 20.into()]), "a").await.unwrap(), 1);
            assert_eq!(delete(&notes, Target::Filter("id >= 0".to_owned()), "b").await.unwrap(), 3);
            assert_eq!(keys(&notes, &[], None).await, [1, 2, 3, 4, 11, 13]);
            db.drop_partition("notes", "a").await.unwrap();
            assert_eq!(keys(&notes, &[], None).await, [1, 2, 3, 4]);
            drop((notes, db));
            let db = open(&disk).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(notes.partitions(), ["_default", "b"]);
            assert_eq!(keys(&notes, &[], None).await, [1, 2, 3, 4]);
            // An added field comes before what names the partition, in memory and in storage.
            db.add_field("notes", crate::model::Field::new("n", crate::model::DataType::Int8).nullable(), None)
                .await
                .unwrap();
            write(&notes, &[30], Some("b")).await.unwrap();
            db.flush("notes").await.unwrap();
            assert_eq!(keys(&notes, &["b"], Some("n is null")).await, [30]);
            // Into another store, as an archive.
            let mut pieces = db.snapshot().await.unwrap().into_archive(|_| false);
            let mut archive = Vec::new();
            while let Some(piece) = pieces.next().await.unwrap() {
                archive.extend(piece);
            }
            let copy = open(&MemoryDisk::new()).await;
            copy.import_archive(archive.into()).await.unwrap();
            let copied = copy.collection("notes").unwrap();
            assert_eq!(copied.partitions(), ["_default", "b"]);
            assert_eq!(keys(&copied, &["b"], None).await, [30]);
        });
    }

    #[test]
    fn wrong_partitions_are_refused() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let notes = db.create_collection("notes", spec("")).await.unwrap();
            says(write(&notes, &[1], Some("a")).await, ErrorKind::NotFound, "no partition \"a\"; there are: _default");
            let mut named_by_row = row(1, "t");
            named_by_row.insert("$partition".to_owned(), "a".into());
            says(notes.to_batch(vec![named_by_row.clone()]), ErrorKind::InvalidArgument, "$partition");
            says(db.create_partition("notes", "9").await, ErrorKind::InvalidArgument, "\"9\"");
            says(db.create_partition("notes", "").await, ErrorKind::InvalidArgument, "\"\"");
            says(db.create_partition("other", "a").await, ErrorKind::NotFound, "other");
            says(db.create_partition("notes", "_default").await, ErrorKind::AlreadyExists, "_default");
            db.create_partition("notes", "a").await.unwrap();
            says(db.create_partition("notes", "a").await, ErrorKind::AlreadyExists, "\"a\"");
            says(db.drop_partition("notes", "b").await, ErrorKind::NotFound, "_default, a");
            says(db.drop_partition("notes", "_default").await, ErrorKind::InvalidArgument, "always there");
            let query = QueryRequest { partitions: named(&["a", "b"]), ..Default::default() };
            says(notes.query(&query).await, ErrorKind::NotFound, "\"b\"");
            says(notes.get_within(&[], None, &named(&["b"])).await, ErrorKind::NotFound, "\"b\"");
            says(delete(&notes, Target::Keys(vec![]), "b").await, ErrorKind::NotFound, "\"b\"");
            let batch = notes.to_batch(vec![named_by_row]).unwrap();
            let into = |partition: &str| WriteOptions { partition: Some(partition.to_owned()), ..Default::default() };
            let other = notes.batch(vec![Operation::Insert(batch.clone())], into("_default")).await;
            says(other, ErrorKind::InvalidArgument, "names \"a\"");
            assert_eq!(notes.batch(vec![Operation::Insert(batch.clone())], into("a")).await.unwrap().count, 1);
            db.drop_partition("notes", "a").await.unwrap();
            says(notes.insert(batch).await, ErrorKind::NotFound, "\"a\"");
            for number in 1..PARTITIONS_MAX {
                // As many as there may be, without a thousand manifests.
                notes.inner.partitions.write().unwrap().insert(format!("p{number}"));
            }
            says(db.create_partition("notes", "more").await, ErrorKind::InvalidArgument, "1024");
        });
    }

    #[test]
    fn a_key_assigns_rows_to_partitions() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let notes = db.create_collection("notes", spec(r#","partitionKey":true"#)).await.unwrap();
            assert_eq!(notes.partitions().len(), 16);
            let rows = (0..400).map(|id| row(id, &format!("tenant {}", id % 40))).collect();
            notes.insert(notes.to_batch(rows).unwrap()).await.unwrap();
            db.flush("notes").await.unwrap();
            notes.insert(notes.to_batch(vec![row(1000, "tenant 7")]).unwrap()).await.unwrap();
            for filter in [
                "tenant == \"tenant 7\"",
                "id >= 0 and tenant in [\"tenant 7\"]",
                "tenant == \"tenant 7\" or tenant == \"tenant 7\" and id > 5",
            ] {
                let expected: Vec<i64> = (0..10).map(|n| 7 + 40 * n).chain([1000]).collect();
                assert_eq!(keys(&notes, &[], Some(filter)).await, expected);
                let parsed = Filter::parse(filter, &notes.spec().schema).unwrap();
                let looked_at = |tenant: &str| {
                    let batch = notes.to_batch(vec![row(1, tenant)]).unwrap();
                    let mut there = crate::model::PartitionSet::default();
                    there.insert_rows(&notes.spec().schema, batch.scalars());
                    parsed.partitions().unwrap().meets(&there)
                };
                assert!(looked_at("tenant 7") && (0..40).any(|tenant| !looked_at(&format!("tenant {tenant}"))));
            }
            for filter in ["tenant != \"a\"", "tenant == \"a\" or id == 1", "not (tenant == \"a\")", "tenant > \"a\""] {
                assert_eq!(Filter::parse(filter, &notes.spec().schema).unwrap().partitions(), None, "{filter}");
            }
            let stats = notes.stats().await.unwrap().partitions;
            assert_eq!((stats.len(), stats.values().sum::<usize>()), (16, 401));
            says(db.create_partition("notes", "a").await, ErrorKind::InvalidArgument, "\"tenant\"");
            says(db.drop_partition("notes", "_default_1").await, ErrorKind::InvalidArgument, "\"tenant\"");
            says(write(&notes, &[1], Some("_default_1")).await, ErrorKind::InvalidArgument, "\"tenant\"");
            let query = QueryRequest { partitions: named(&["_default_1"]), ..Default::default() };
            says(notes.query(&query).await, ErrorKind::InvalidArgument, "\"tenant\"");
            drop((notes, db));
            let db = open(&disk).await;
            let notes = db.collection("notes").unwrap();
            let fields = named(&["$partition"]);
            let there = notes.get(&[7.into(), 47.into(), 1000.into()], Some(&fields)).await.unwrap();
            assert!(there[0] == there[1] && there[1] == there[2], "{there:?}");
            assert_eq!(notes.stats().await.unwrap().partitions, stats);
        });
    }

    #[test]
    fn wrong_partition_keys_are_refused() {
        for (more, words) in [
            (r#","partitionKey":true,"nullable":true"#, "cannot be nullable"),
            (r#"},{"name":"n","type":"double","partitionKey":true"#, "int64 or varchar, got double"),
            (r#","partitionKey":true},{"name":"n","type":"int64","partitionKey":true"#, "one field at most"),
            (r#"}],"numPartitions":3,"more":[{"a":1"#, "unknown field"),
        ] {
            let json = format!(
                r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"tenant","type":"varchar"{more}}}]}}"#
            );
            let error = serde_json::from_str::<Schema>(&json).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} not in {error}");
        }
        for (partitions, words) in [(0, "is 0"), (1_025, "is 1025")] {
            let schema = spec("").schema;
            let error = Schema::clone(&schema).with_partition_key("tenant", Some(partitions)).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
        let schema = Schema::clone(&spec("").schema);
        assert!(schema.clone().with_partition_key("id", None).unwrap_err().message().contains("primary key"));
        assert!(schema.clone().with_partition_key("x", None).unwrap_err().message().contains("no such field"));
        let named = schema.with_partitions().unwrap();
        assert!(named.with_partition_key("tenant", None).unwrap_err().message().contains("have names"));
    }

    /// Rows that have expired are not deleted, and were waited for without end.
    #[test]
    fn a_partition_of_expired_rows_is_dropped() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let notes = db.create_collection("notes", spec("")).await.unwrap();
            db.create_partition("notes", "a").await.unwrap();
            let mut old = row(1, "t");
            old.insert("$partition".to_owned(), "a".into());
            let puts = notes.to_batch(vec![old]).unwrap();
            let timestamp = crate::base::Timestamp::new(Options::default().environment.now_ms() - 3_600_000, 0);
            let version = crate::base::Version { timestamp, origin: crate::base::ReplicaId(7), ..Default::default() };
            notes.apply(ChangeSet { puts, put_versions: vec![version], deletes: vec![] }, None).await.unwrap();
            write(&notes, &[2], Some("a")).await.unwrap();
            assert_eq!(notes.stats().await.unwrap().partitions["a"], 2);
            db.set_ttl("notes", Some(60)).await.unwrap();
            assert_eq!(notes.stats().await.unwrap().partitions["a"], 1);
            db.drop_partition("notes", "a").await.unwrap();
            assert_eq!((notes.partitions().len(), notes.count(None).await.unwrap()), (1, 0));
            says(db.drop_partition("notes", "a").await, ErrorKind::NotFound, "\"a\"");
        });
    }

    /// What is acknowledged of partitions is so after a crash, at whichever call to the storage it comes; and a partition that is being
    /// dropped has all of its rows or none.
    #[test]
    fn a_crash_anywhere_leaves_rows_in_their_partitions() {
        block_on(async {
            let mut crashes = 0;
            loop {
                let storage = FaultStorage::new(crashes);
                let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
                let notes = db.create_collection("notes", spec("")).await.unwrap();
                write(&notes, &[1, 2], None).await.unwrap();
                storage.crash_after(crashes);
                // How far it came: each step begins when the one before is acknowledged.
                let mut done = 0;
                let steps = async {
                    db.create_partition("notes", "a").await?;
                    done = 1;
                    write(&notes, &[2, 3, 4], Some("a")).await?;
                    done = 2;
                    db.flush("notes").await?;
                    write(&notes, &[5], Some("a")).await?;
                    done = 3;
                    db.drop_partition("notes", "a").await?;
                    done = 4;
                    Ok::<_, Error>(())
                };
                let ended = steps.await.is_ok();
                drop((notes, db));
                let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
                let notes = db.collection("notes").unwrap();
                let there = notes.has_partition("a");
                let rows = if there { keys(&notes, &["a"], None).await } else { Vec::new() };
                let allowed: &[(bool, &[i64])] = match done {
                    0 => &[(false, &[]), (true, &[])],
                    1 => &[(true, &[]), (true, &[2, 3, 4])],
                    2 => &[(true, &[2, 3, 4]), (true, &[2, 3, 4, 5])],
                    3 => &[(true, &[2, 3, 4, 5]), (true, &[]), (false, &[])],
                    _ => &[(false, &[])],
                };
                assert!(allowed.contains(&(there, &rows)), "crash {crashes}, step {done}: {there} {rows:?}");
                let rest = keys(&notes, &["_default"], None).await;
                let gone = done >= 3 && rows.is_empty();
                assert_eq!(rest, if rows.contains(&2) || gone { vec![1] } else { vec![1, 2] }, "crash {crashes}");
                assert_eq!(keys(&notes, &[], None).await.len(), rest.len() + rows.len());
                // And it goes on.
                if !there {
                    db.create_partition("notes", "a").await.unwrap();
                }
                write(&notes, &[9], Some("a")).await.unwrap();
                assert!(keys(&notes, &["a"], None).await.contains(&9));
                if ended {
                    break;
                }
                crashes += 1;
            }
            assert!(crashes > 20, "{crashes}");
        });
    }
}
