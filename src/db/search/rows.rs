use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Error, Result, SegmentId};
use crate::db::Collection;
use crate::engine::{CollectionState, Slot};
use crate::model::{Key, META_COLUMN, PARTITION_COLUMN, Row, Value};
use crate::segment::{Blocks, Segment};

/// The output field that tells a row's version; no field can have that name, for field names hold no `$`.
const VERSION_FIELD: &str = "$version";

/// A row that was found.
pub(super) struct Found {
    pub(super) key: Key,
    /// The segment and the row in it.
    pub(super) place: (SegmentId, u32),
    pub(super) at: At,
}

/// Where its fields are.
pub(super) enum At {
    /// Here: the growing segment changes, so its rows are read while nothing does.
    Held(Row),
    /// In a segment that does not change any more.
    Stored(Arc<Segment>, u32),
}

impl Collection {
    pub(super) fn found(
        &self,
        state: &CollectionState,
        key: Key,
        slot: &Slot,
        row: u32,
        fields: Option<&[String]>,
    ) -> Found {
        let growing = slot.segment.id() == state.growing().segment.id();
        let at = if growing {
            At::Held(row_of(&slot.segment, row as usize, fields, &Blocks::default()))
        } else {
            At::Stored(slot.segment.clone(), row)
        };
        Found { key, place: (slot.segment.id(), row), at }
    }

    /// The values of a field in rows that were found, in their order. Rows of the growing segment must have been read with it.
    pub(super) async fn read_values(&self, found: &[Found], field: &str) -> Result<Vec<Value>> {
        let fields = [field.to_owned()];
        let copies = found.iter().map(|found| {
            let at = match &found.at {
                At::Held(row) => At::Held(Row::from([(field.to_owned(), row.get(field).cloned().unwrap_or_default())])),
                At::Stored(segment, row) => At::Stored(segment.clone(), *row),
            };
            Found { key: found.key.clone(), place: found.place, at }
        });
        let rows = self.read_rows(copies.collect(), Some(&fields)).await?;
        Ok(rows.into_iter().map(|(_, mut row)| row.remove(field).unwrap_or_default()).collect())
    }

    /// The rows that were found, in their order.
    pub(super) async fn read_rows(&self, found: Vec<Found>, fields: Option<&[String]>) -> Result<Vec<(Key, Row)>> {
        let mut stored: BTreeMap<SegmentId, (&Arc<Segment>, Vec<u32>)> = BTreeMap::new();
        for found in &found {
            if let At::Stored(segment, row) = &found.at {
                stored.entry(segment.id()).or_insert_with(|| (segment, Vec::new())).1.push(*row);
            }
        }
        let mut blocks = Blocks::default();
        let mut needs = Vec::new();
        for (segment, mut rows) in stored.into_values() {
            rows.sort_unstable();
            needs.extend(segment.needs(&rows, &segment.wanted(fields), &blocks));
        }
        self.inner.shared.fetch(needs, &mut blocks, true).await?;
        let row = |Found { key, at, .. }| match at {
            At::Held(row) => (key, row),
            At::Stored(segment, row) => (key, row_of(&segment, row as usize, fields, &blocks)),
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// The wanted fields, `*` spelled out; refuses names that no row can have.
    pub(in crate::db) fn output_fields(&self, wanted: Option<&[String]>) -> Result<Option<Vec<String>>> {
        let schema = &self.spec().schema;
        let Some(wanted) = wanted else {
            let mut vectors = schema.vectors();
            return Ok(vectors.any(|(field, _)| !field.is_apart()).then(|| {
                let scalars = schema.fields().iter().filter(|field| !field.data_type.is_vector());
                scalars
                    .map(|field| field.name.clone())
                    .chain(schema.dynamic().then(|| META_COLUMN.to_owned()))
                    .collect()
            }));
        };
        let special = |name: &str| ["*", VERSION_FIELD, PARTITION_COLUMN].contains(&name);
        if let Some(name) =
            wanted.iter().find(|name| !special(name) && !schema.dynamic() && schema.field(name).is_none())
        {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
            return Err(Error::invalid(format!("no output field {name:?}; there are: {}", names.join(", "))));
        }
        if !wanted.iter().any(|name| name == "*") {
            return Ok(Some(wanted.to_vec()));
        }
        Ok(Some(wanted.iter().cloned().chain(schema.fields().iter().map(|field| field.name.clone())).collect()))
    }
}

/// The output fields of a row.
pub(in crate::db) fn row_of(segment: &Segment, row: usize, fields: Option<&[String]>, blocks: &Blocks) -> Row {
    let mut out = segment.row(row, fields, blocks);
    if fields.is_some_and(|fields| fields.iter().any(|field| field == VERSION_FIELD)) {
        out.insert(VERSION_FIELD.to_owned(), Value::String(segment.versions().version(row).to_string()));
    }
    if fields.is_some_and(|fields| fields.iter().any(|field| field == PARTITION_COLUMN)) {
        out.insert(PARTITION_COLUMN.to_owned(), Value::String(segment.partition(row)));
    }
    out
}
