use std::collections::BTreeMap;
use std::sync::Arc;

use super::partition::as_strs;
use super::{Collection, Hit, QueryRequest, SearchRequest, SearchResponse};
use crate::base::{Error, Neighbor, Result, RowMask, SegmentId};
use crate::distance::Metric;
use crate::engine::{CollectionState, Slot, View};
use crate::index::{SearchParams, Source, VectorIndex, Vectors, flat, stored};
use crate::model::{DataType, Field, Key, META_COLUMN, PARTITION_COLUMN, Row, Value, column};
use crate::query::{Access, Filter, SegmentSearch};
use crate::segment::{BlockRef, Blocks, Segment};

/// The most hits of one search, as in Milvus; `limit + offset` counts.
const LIMIT_MAX: usize = 16_384;
/// The output field that tells a row's version; no field can have that name, for field names hold no `$`.
const VERSION_FIELD: &str = "$version";
/// Candidates that a graph search keeps when the request does not say.
const EF_MIN: usize = 64;

/// Rows of which a filter that must read storage looks at once, and vectors of a scan that must.
const READ_ROWS: usize = 8_192;
const READ_VECTOR_BYTES: usize = 1 << 20;

/// A row that was found.
struct Found {
    key: Key,
    at: At,
}

/// Where its fields are.
enum At {
    /// Here: the growing segment changes, so its rows are read while nothing does.
    Held(Row),
    /// In a segment that does not change any more.
    Stored(Arc<Segment>, u32),
}

/// A segment of which something must be read from storage, with the rows that are seen, and those that are admitted where that
/// is known.
struct Later {
    segment: Arc<Segment>,
    visible: RowMask,
    admitted: Option<RowMask>,
}

/// The rows of `found` up to `end`, by ascending key.
fn cut(found: &mut Vec<(Key, &Slot, u32)>, end: usize) {
    if end < found.len() && end > 0 {
        found.select_nth_unstable_by(end - 1, |a, b| a.0.cmp(&b.0));
    }
    found.truncate(end);
}

/// What a search of one segment needs to know.
struct Nearest<'a> {
    field: &'a str,
    /// Whether its vectors are apart from the columns.
    apart: bool,
    query: &'a Value,
    metric: Metric,
    k: usize,
    ef: usize,
    params: SearchParams,
    exact: bool,
}

impl Nearest<'_> {
    fn numbers(&self) -> &[f32] {
        let Value::Vector(query) = self.query else { unreachable!("such a field is searched by numbers") };
        query
    }

    /// The index of a segment, where using it is worth while.
    fn index<'a>(&self, segment: &'a Segment, admitted: usize) -> Option<&'a VectorIndex> {
        let index = segment.index(self.field).and_then(|index| index.built.as_ref()).filter(|index| !index.is_empty());
        let search = SegmentSearch {
            rows: segment.len(),
            admitted,
            k: self.k,
            ef: self.ef,
            indexed: index.is_some(),
            exact: self.exact,
        };
        index.filter(|_| search.access() == Access::Graph)
    }

    /// The nearest rows of a segment that has its vectors in memory.
    fn search(&self, segment: &Segment, admitted: &RowMask, response: &mut SearchResponse) -> Vec<Neighbor> {
        let count = admitted.count();
        let mut neighbors = Vec::new();
        if !self.apart {
            response.segments_by_scan += 1;
            response.rows_scanned += count;
            for (start, chunk) in segment.chunks() {
                let rows = admitted.iter_from(start).take_while(|row| row - start < chunk.num_rows());
                let column = chunk.column_by_name(self.field).expect("the caller knows that it is here");
                let rows = rows.map(|row| (row - start) as u32);
                let found = stored::search(column, self.metric, self.query, self.k, rows);
                neighbors.extend(found.into_iter().map(|near| Neighbor { row: start as u32 + near.row, ..near }));
            }
            return neighbors;
        }
        let mask = (count < segment.len()).then_some(admitted);
        let vectors = segment.vectors(self.field).expect("the caller knows that they are here");
        let mut scanned_from = 0;
        let source = Source::Floats(vectors);
        if let Some(index) = self.index(segment, count) {
            neighbors = index.search(self.query, self.k, &self.params, mask, &source);
            scanned_from = index.len();
            response.segments_by_index += 1;
        } else {
            response.segments_by_scan += 1;
        }
        if scanned_from < segment.len() {
            let tail = scanned_from as u32..segment.len() as u32;
            response.rows_scanned += admitted.iter_from(scanned_from).count();
            neighbors.extend(flat::search(vectors, tail, self.metric, self.numbers(), self.k, mask));
        }
        neighbors
    }

    /// The nearest of `rows`, which ascend and whose blocks were read.
    fn compare(&self, segment: &Segment, rows: &[u32], blocks: &Blocks) -> Vec<Neighbor> {
        let found = if self.apart {
            let numbers = segment.gather(self.field, rows, blocks);
            let vectors = Vectors::new(&numbers, self.numbers().len());
            flat::search(vectors, 0..rows.len() as u32, self.metric, self.numbers(), self.k, None)
        } else {
            let batch = segment.pick(rows, &|column| column == self.field, blocks);
            let column = batch.scalars().column_by_name(self.field).expect("every segment has every field");
            stored::search(column, self.metric, self.query, self.k, 0..rows.len() as u32)
        };
        found.into_iter().map(|near| Neighbor { row: rows[near.row as usize], ..near }).collect()
    }
}

impl Collection {
    fn filter(&self, text: Option<&str>, partitions: &[String]) -> Result<Option<Filter>> {
        self.inner.shared.check_open()?;
        let text = text.filter(|text| !text.trim().is_empty());
        let filter = text.map(|text| Filter::parse(text, &self.spec().schema)).transpose()?;
        self.within(filter, partitions)
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, CollectionState> {
        self.inner.state.read().expect("no panic while held")
    }

    /// Reads what `read` needs until it says something else: it looks at the state as it is then.
    pub(crate) async fn with_blocks<T>(
        &self,
        read: impl Fn(&CollectionState, &Blocks) -> Result<T, Vec<BlockRef>>,
    ) -> Result<T> {
        let mut blocks = Blocks::default();
        loop {
            let needs = match read(&self.state(), &blocks) {
                Ok(value) => return Ok(value),
                Err(needs) => needs,
            };
            self.inner.shared.fetch(needs, &mut blocks, true).await?;
        }
    }

    fn found(&self, state: &CollectionState, key: Key, slot: &Slot, row: u32, fields: Option<&[String]>) -> Found {
        let growing = slot.segment.id() == state.growing().segment.id();
        let at = if growing {
            At::Held(row_of(&slot.segment, row as usize, fields, &Blocks::default()))
        } else {
            At::Stored(slot.segment.clone(), row)
        };
        Found { key, at }
    }

    /// The rows that a filter admits of a segment whose columns must be read, a part after the other.
    async fn admit_later(&self, segment: &Segment, visible: &RowMask, filter: &Filter) -> Result<RowMask> {
        let fields = filter.fields();
        let wanted = |column: &str| fields.contains(column);
        let mut admitted = RowMask::none(segment.len());
        let mut rows = visible.iter().map(|row| row as u32);
        loop {
            let part: Vec<u32> = rows.by_ref().take(READ_ROWS).collect();
            if part.is_empty() {
                return Ok(admitted);
            }
            let mut blocks = Blocks::default();
            let needs = segment.needs(&part, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, false).await?;
            let batch = segment.pick(&part, &wanted, &blocks);
            filter.evaluate(batch.scalars()).iter().for_each(|at| admitted.insert(part[at] as usize));
        }
    }

    async fn admitted_of(&self, later: &mut Later, filter: Option<&Filter>) -> Result<RowMask> {
        Ok(match (later.admitted.take(), filter) {
            (Some(admitted), _) => admitted,
            (None, Some(filter)) => self.admit_later(&later.segment, &later.visible, filter).await?,
            (None, None) => later.visible.clone(),
        })
    }

    /// The nearest rows of a segment whose vectors must be read: those of the index's candidates, or all.
    async fn search_later(
        &self,
        segment: &Segment,
        admitted: &RowMask,
        nearest: &Nearest<'_>,
        response: &mut SearchResponse,
    ) -> Result<Vec<Neighbor>> {
        let count = admitted.count();
        let mask = (count < segment.len()).then_some(admitted);
        let wanted = |column: &str| column == nearest.field;
        let mut neighbors = Vec::new();
        let mut scanned_from = 0;
        let index = nearest.index(segment, count);
        let candidates =
            index.and_then(|index| index.candidates(nearest.query, nearest.k, &nearest.params, mask).zip(Some(index)));
        if let Some((mut candidates, index)) = candidates {
            candidates.sort_unstable();
            let mut blocks = Blocks::default();
            let needs = segment.needs(&candidates, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, true).await?;
            neighbors = nearest.compare(segment, &candidates, &blocks);
            scanned_from = index.len();
            response.segments_by_index += 1;
        } else {
            response.segments_by_scan += 1;
        }
        let mut rows = admitted.iter_from(scanned_from).map(|row| row as u32);
        let step = (READ_VECTOR_BYTES / (segment.row_bytes())).max(1);
        loop {
            let part: Vec<u32> = rows.by_ref().take(step).collect();
            if part.is_empty() {
                return Ok(neighbors);
            }
            response.rows_scanned += part.len();
            let mut blocks = Blocks::default();
            let needs = segment.needs(&part, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, false).await?;
            neighbors.extend(nearest.compare(segment, &part, &blocks));
            neighbors.sort_unstable();
            neighbors.truncate(nearest.k);
        }
    }

    /// The rows that were found, in their order.
    async fn read_rows(&self, found: Vec<Found>, fields: Option<&[String]>) -> Result<Vec<(Key, Row)>> {
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
        let row = |Found { key, at }| match at {
            At::Held(row) => (key, row),
            At::Stored(segment, row) => (key, row_of(&segment, row as usize, fields, &blocks)),
        };
        Ok(found.into_iter().map(row).collect())
    }

    pub(super) async fn matching_keys(&self, filter: &Filter) -> Result<Vec<Key>> {
        let (mut keys, mut later) = (Vec::new(), Vec::new());
        for slot in self.state().slots() {
            match admitted(slot, Some(filter), &self.view(View::NOW)) {
                Ok(admitted) => keys.extend(admitted.iter().map(|row| slot.segment.key(row))),
                Err(segment) => later.push(segment),
            }
        }
        for mut later in later {
            let admitted = self.admitted_of(&mut later, Some(filter)).await?;
            keys.extend(admitted.iter().map(|row| later.segment.key(row)));
        }
        Ok(keys)
    }

    pub(super) async fn read_count(&self, filter: Option<&str>, partitions: &[String], view: &View) -> Result<usize> {
        let filter = self.filter(filter, partitions)?;
        if filter.is_none() && *view == View::NOW {
            return Ok(self.state().rows());
        }
        let (mut count, mut later) = (0, Vec::new());
        for slot in self.state().slots() {
            match admitted(slot, filter.as_ref(), view) {
                Ok(admitted) => count += admitted.count(),
                Err(segment) => later.push(segment),
            }
        }
        for mut later in later {
            count += self.admitted_of(&mut later, filter.as_ref()).await?.count();
        }
        Ok(count)
    }

    pub(super) async fn read_keys(
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

    pub(super) async fn read_query(&self, request: &QueryRequest, view: &View) -> Result<Vec<Row>> {
        let filter = self.filter(request.filter.as_deref(), &request.partitions)?;
        let fields = self.output_fields(request.output_fields.as_deref())?;
        let end = request.limit.map_or(usize::MAX, |limit| limit.saturating_add(request.offset));
        let (mut found, later) = {
            let state = self.state();
            let (mut found, mut later) = (Vec::new(), Vec::new());
            for slot in state.slots() {
                match admitted(slot, filter.as_ref(), view) {
                    Ok(admitted) => found.extend(admitted.iter().map(|row| (slot.segment.key(row), slot, row as u32))),
                    Err(segment) => later.push(segment),
                }
            }
            cut(&mut found, end);
            let found = found.into_iter().map(|(key, slot, row)| self.found(&state, key, slot, row, fields.as_deref()));
            (found.collect::<Vec<Found>>(), later)
        };
        for mut later in later {
            let admitted = self.admitted_of(&mut later, filter.as_ref()).await?;
            let row = |row: usize| {
                let at = At::Stored(later.segment.clone(), row as u32);
                Found { key: later.segment.key(row), at }
            };
            found.extend(admitted.iter().map(row));
        }
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        found.truncate(end);
        found.drain(..request.offset.min(found.len()));
        let rows = self.read_rows(found, fields.as_deref()).await?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    pub(super) async fn read_nearest(&self, request: &SearchRequest, view: &View) -> Result<SearchResponse> {
        let filter = self.filter(request.filter.as_deref(), &request.partitions)?;
        let fields = self.output_fields(request.output_fields.as_deref())?;
        let field = self.vector_field(request.field.as_deref())?;
        let query = query_of(field, &request.vector)?;
        let k = request.limit.saturating_add(request.offset);
        if request.limit == 0 || k > LIMIT_MAX {
            return Err(Error::invalid(format!(
                "limit {} and offset {}; expected a limit of at least 1, and at most {LIMIT_MAX} together",
                request.limit, request.offset
            )));
        }
        if request.ef == Some(0) {
            return Err(Error::invalid("ef 0; expected at least 1"));
        }
        let ef = request.ef.unwrap_or(EF_MIN).max(k);
        let nearest = Nearest {
            field: &field.name,
            apart: field.is_apart(),
            query: &query,
            metric: self.spec().indexes[&field.name].metric,
            k,
            ef,
            params: SearchParams { ef: Some(ef) },
            exact: request.exact,
        };
        let mut response = SearchResponse::default();
        let (mut best, later) = {
            let state = self.state();
            let mut best: Vec<(f32, Key, &Slot, u32)> = Vec::new();
            let mut later = Vec::new();
            for slot in state.slots().filter(|slot| !slot.segment.is_empty()) {
                let admitted = match admitted(slot, filter.as_ref(), view) {
                    Ok(admitted) => admitted,
                    Err(segment) => {
                        later.push(segment);
                        continue;
                    }
                };
                if admitted.iter().next().is_none() {
                    continue;
                }
                if !slot.segment.has(nearest.field) {
                    let (segment, visible) = (slot.segment.clone(), RowMask::none(0));
                    later.push(Later { segment, visible, admitted: Some(admitted) });
                    continue;
                }
                let neighbors = nearest.search(&slot.segment, &admitted, &mut response);
                best.extend(
                    neighbors
                        .into_iter()
                        .map(|near| (near.distance, slot.segment.key(near.row as usize), slot, near.row)),
                );
            }
            best.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
            best.truncate(k);
            let own = |(distance, key, slot, row): (f32, Key, &Slot, u32)| {
                (distance, self.found(&state, key, slot, row, fields.as_deref()))
            };
            (best.into_iter().map(own).collect::<Vec<_>>(), later)
        };
        for mut later in later {
            let admitted = self.admitted_of(&mut later, filter.as_ref()).await?;
            if admitted.iter().next().is_none() {
                continue;
            }
            let segment = &later.segment;
            let neighbors = if segment.has(nearest.field) {
                nearest.search(segment, &admitted, &mut response)
            } else {
                self.search_later(segment, &admitted, &nearest, &mut response).await?
            };
            best.extend(neighbors.into_iter().map(|near| {
                let found = Found { key: segment.key(near.row as usize), at: At::Stored(segment.clone(), near.row) };
                (near.distance, found)
            }));
        }
        best.sort_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| left.key.cmp(&right.key)));
        let (distances, found): (Vec<f32>, Vec<Found>) =
            best.into_iter().skip(request.offset).take(request.limit).unzip();
        let rows = self.read_rows(found, fields.as_deref()).await?;
        let hit = |(distance, (key, row))| Hit { key, score: nearest.metric.score(distance), row };
        response.hits = distances.into_iter().zip(rows).map(hit).collect();
        Ok(response)
    }

    fn vector_field(&self, wanted: Option<&str>) -> Result<&Field> {
        let fields: Vec<&Field> = self.spec().schema.vectors().map(|(field, _)| field).collect();
        match (wanted, fields.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => {
                Err(Error::invalid(format!("{} vector fields; the request must name the one to search", fields.len())))
            }
            (Some(wanted), _) => fields.iter().find(|field| field.name == wanted).copied().ok_or_else(|| {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                Error::invalid(format!("no vector field {wanted:?}; there are: {}", names.join(", ")))
            }),
        }
    }

    /// The wanted fields, `*` spelled out; refuses names that no row can have.
    fn output_fields(&self, wanted: Option<&[String]>) -> Result<Option<Vec<String>>> {
        let schema = &self.spec().schema;
        let Some(wanted) = wanted else {
            let mut vectors = schema.vectors();
            return Ok(vectors.any(|(field, _)| !field.is_apart()).then(|| {
                let scalars = schema.fields().iter().filter(|field| !field.data_type.is_vector());
                scalars.map(|field| field.name.clone()).chain([META_COLUMN.to_owned()]).collect()
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
fn row_of(segment: &Segment, row: usize, fields: Option<&[String]>, blocks: &Blocks) -> Row {
    let mut out = segment.row(row, fields, blocks);
    if fields.is_some_and(|fields| fields.iter().any(|field| field == VERSION_FIELD)) {
        out.insert(VERSION_FIELD.to_owned(), Value::String(segment.versions().version(row).to_string()));
    }
    if fields.is_some_and(|fields| fields.iter().any(|field| field == PARTITION_COLUMN)) {
        out.insert(PARTITION_COLUMN.to_owned(), Value::String(segment.partition(row)));
    }
    out
}

/// The rows of a segment that the view sees and the filter admits; the segment when its columns must be read for that, with the
/// rows for which its statistics do not prove the contrary.
fn admitted(slot: &Slot, filter: Option<&Filter>, view: &View) -> Result<RowMask, Later> {
    let segment = &slot.segment;
    let Some(filter) = filter else { return Ok(slot.visible(view)) };
    let mut admitted = RowMask::none(segment.len());
    if filter.partitions().is_some_and(|wanted| !wanted.meets(segment.partitions())) {
        return Ok(admitted);
    }
    let fields = filter.fields();
    let runs = segment.runs(&fields, &|known| filter.may_admit(known));
    if runs.is_empty() {
        return Ok(admitted);
    }
    if !fields.iter().all(|field| segment.has(field)) {
        runs.into_iter().flatten().for_each(|row| admitted.insert(row as usize));
        admitted.intersect(&slot.visible(view));
        let later = Later { segment: segment.clone(), visible: admitted, admitted: None };
        return if later.visible.iter().next().is_none() { Ok(later.visible) } else { Err(later) };
    }
    for (start, chunk) in segment.chunks() {
        for run in &runs {
            let (from, to) = (start.max(run.start as usize), (start + chunk.num_rows()).min(run.end as usize));
            if from < to {
                let mask = filter.evaluate(&chunk.slice(from - start, to - from));
                mask.iter().for_each(|row| admitted.insert(from + row));
            }
        }
    }
    admitted.intersect(&slot.visible(view));
    Ok(admitted)
}

/// The query in the form of the field's values, checked as they are; numbers for every kind of dense vector but bits.
fn query_of(field: &Field, vector: &Value) -> Result<Value> {
    let data_type = match (field.data_type.dim(), field.data_type, vector) {
        (_, DataType::BinaryVector { .. } | DataType::SparseFloatVector, _) | (_, _, Value::Bytes(_)) => {
            field.data_type
        }
        (dim, ..) => DataType::FloatVector { dim: dim.unwrap_or(0) },
    };
    column::Column::normalize(data_type, vector)
        .map_err(|what| Error::invalid(format!("query vector for field {:?}: {what}", field.name)))
}
