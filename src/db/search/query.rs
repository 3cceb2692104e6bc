use std::collections::{BTreeMap, BTreeSet};

use super::rows::{At, Found};
use crate::base::{Error, Result, keep_least, sort_by};
use crate::db::partition::as_strs;
use crate::db::{Collection, QueryRequest};
use crate::engine::{Slot, View};
use crate::model::{Key, Row};
use crate::query::{Aggregate, Filter};
use crate::segment::Segment;

/// The rows of `found` up to `end`, by ascending key.
fn cut(found: &mut Vec<(Key, &Slot, u32)>, end: usize) {
    keep_least(found, end, |a, b| a.0.cmp(&b.0));
}

impl Collection {
    pub(in crate::db) async fn read_keys(
        &self,
        keys: &[Key],
        output_fields: Option<&[String]>,
        partitions: &[String],
        view: &View,
    ) -> Result<Vec<Row>> {
        self.inner.shared.check_open()?;
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let partitions = self.check_partitions(&as_strs(partitions))?;
        let fields = self.output_fields(output_fields)?;
        if !self.limits.read.is_all() {
            return self.read_allowed(keys, fields.as_deref(), partitions.as_ref(), view).await;
        }
        let found = {
            let state = self.state();
            let found = |(segment, row): (&Segment, u32)| {
                let slot = state.slot(segment.id()).expect("rows are found in segments that are there");
                self.found(&state, segment.key(row as usize), slot, row, fields.as_deref())
            };
            let mut places = state.find_all(keys, view);
            if let Some(partitions) = partitions {
                places.retain(|(segment, row)| partitions.contains(&*segment.partition(*row as usize)));
            }
            places.into_iter().map(found).collect()
        };
        let rows = self.read_rows(found, fields.as_deref()).await?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// The same of the rows that this handle may read.
    async fn read_allowed(
        &self,
        keys: &[Key],
        fields: Option<&[String]>,
        partitions: Option<&BTreeSet<&str>>,
        view: &View,
    ) -> Result<Vec<Row>> {
        let schema = &self.spec().schema;
        let mut filter = Filter::of_keys(schema, keys);
        if let Some(partitions) = partitions {
            filter = Filter::within(Some(filter), partitions);
        }
        let filter = self.limits.read.limit(Some(filter), schema)?;
        let found = self.find_where(filter.as_ref(), fields, usize::MAX, view).await?;
        let mut rows: BTreeMap<Key, Row> = self.read_rows(found, fields).await?.into_iter().collect();
        Ok(keys.iter().filter_map(|key| rows.remove(key)).collect())
    }

    /// Whether a row stands for many.
    pub(super) fn is_aggregate(&self, request: &QueryRequest) -> bool {
        let is_function = |name: &String| Aggregate::parse(name).is_some();
        !request.group_by.is_empty() || request.output_fields.iter().flatten().any(is_function)
    }

    /// Refuses what is wrong with a query that is to be gone through.
    pub(super) fn check_query(&self, request: &QueryRequest) -> Result<()> {
        if !request.group_by.is_empty() || !request.order_by.is_empty() {
            return Err(Error::invalid("an iterator takes neither groupBy nor orderBy: rows come by ascending key"));
        }
        self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        self.output_fields(request.output_fields.as_deref()).map(drop)
    }

    pub(in crate::db) async fn read_query(&self, request: &QueryRequest, view: &View) -> Result<Vec<Row>> {
        if self.is_aggregate(request) {
            return self.read_groups(request, view).await;
        }
        if !request.order_by.is_empty() {
            return self.read_ordered(request, view).await;
        }
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let fields = self.output_fields(request.output_fields.as_deref())?;
        let end = request.limit.map_or(usize::MAX, |limit| limit.saturating_add(request.offset));
        let mut found = self.find_where(filter.as_ref(), fields.as_deref(), end, view).await?;
        found.drain(..request.offset.min(found.len()));
        let rows = self.read_rows(found, fields.as_deref()).await?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// The first rows up to `end` that a filter admits, by ascending key.
    async fn find_where(
        &self,
        filter: Option<&Filter>,
        fields: Option<&[String]>,
        end: usize,
        view: &View,
    ) -> Result<Vec<Found>> {
        let (mut found, later) = {
            let state = self.state();
            let (mut found, mut later) = (Vec::new(), Vec::new());
            for slot in state.slots() {
                match self.admitted(slot, filter, view) {
                    Ok(admitted) => found.extend(admitted.iter().map(|row| (slot.segment.key(row), slot, row as u32))),
                    Err(segment) => later.push(segment),
                }
            }
            cut(&mut found, end);
            let found = found.into_iter().map(|(key, slot, row)| self.found(&state, key, slot, row, fields));
            (found.collect::<Vec<Found>>(), later)
        };
        for mut later in later {
            let admitted = self.admitted_of(&mut later, filter).await?;
            let row = |row: usize| {
                let at = At::Stored(later.segment.clone(), row as u32);
                Found { key: later.segment.key(row), place: (later.segment.id(), row as u32), at }
            };
            found.extend(admitted.iter().map(row));
        }
        sort_by(&mut found, |a, b| a.key.cmp(&b.key));
        found.truncate(end);
        Ok(found)
    }
}
