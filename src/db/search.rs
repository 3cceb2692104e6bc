use super::{Collection, Hit, QueryRequest, SearchRequest, SearchResponse};
use crate::base::{Error, Result, RowMask};
use crate::engine::{CollectionState, Slot, View};
use crate::index::{flat, stored};
use crate::model::{DataType, Field, Key, META_COLUMN, Row, Value, column};
use crate::query::{Access, Filter, SegmentSearch};
use crate::segment::{Blocks, Segment};

/// The most hits of one search, as in Milvus; `limit + offset` counts.
const LIMIT_MAX: usize = 16_384;
/// The output field that tells a row's version; no field can have that name, for field names hold no `$`.
const VERSION_FIELD: &str = "$version";
/// Candidates that a graph search keeps when the request does not say.
const EF_MIN: usize = 64;

/// A living row: its key, and where it is.
struct Found<'a> {
    key: Key,
    slot: &'a Slot,
    row: usize,
}

impl Collection {
    fn filter(&self, text: Option<&str>) -> Result<Option<Filter>> {
        self.inner.shared.check_open()?;
        text.filter(|text| !text.trim().is_empty()).map(|text| Filter::parse(text, &self.spec().schema)).transpose()
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, CollectionState> {
        self.inner.state.read().expect("no panic while held")
    }

    pub(super) fn matching_keys(&self, filter: &Filter) -> Vec<Key> {
        let state = self.state();
        let keys = state.slots().flat_map(|slot| {
            let admitted = admitted(slot, Some(filter), &View::NOW);
            admitted.iter().map(|row| slot.segment.key(row)).collect::<Vec<_>>()
        });
        keys.collect()
    }

    pub(super) fn read_count(&self, filter: Option<&str>, view: &View) -> Result<usize> {
        let filter = self.filter(filter)?;
        let state = self.state();
        Ok(match &filter {
            None if *view == View::NOW => state.rows(),
            _ => state.slots().map(|slot| admitted(slot, filter.as_ref(), view).count()).sum(),
        })
    }

    pub(super) fn read_keys(&self, keys: &[Key], output_fields: Option<&[String]>, view: &View) -> Result<Vec<Row>> {
        self.inner.shared.check_open()?;
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let fields = self.output_fields(output_fields)?;
        let state = self.state();
        let rows = state.find_all(keys, view).into_iter();
        Ok(rows.map(|(segment, row)| row_of(segment, row as usize, fields.as_deref())).collect())
    }

    pub(super) fn read_query(&self, request: &QueryRequest, view: &View) -> Result<Vec<Row>> {
        let filter = self.filter(request.filter.as_deref())?;
        let fields = self.output_fields(request.output_fields.as_deref())?;
        let state = self.state();
        let mut found: Vec<Found<'_>> = Vec::new();
        for slot in state.slots() {
            let admitted = admitted(slot, filter.as_ref(), view);
            found.extend(admitted.iter().map(|row| Found { key: slot.segment.key(row), slot, row }));
        }
        let end = request.limit.map_or(found.len(), |limit| limit.saturating_add(request.offset)).min(found.len());
        if end < found.len() && end > 0 {
            found.select_nth_unstable_by(end - 1, |a, b| a.key.cmp(&b.key));
        }
        found.truncate(end);
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let rows = found.iter().skip(request.offset);
        Ok(rows.map(|found| row_of(&found.slot.segment, found.row, fields.as_deref())).collect())
    }

    pub(super) fn read_nearest(&self, request: &SearchRequest, view: &View) -> Result<SearchResponse> {
        let filter = self.filter(request.filter.as_deref())?;
        let fields = self.output_fields(request.output_fields.as_deref())?;
        let field = self.vector_field(request.field.as_deref())?;
        let query = query_of(field, &request.vector)?;
        let (apart, field) = (field.is_apart(), field.name.as_str());
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
        let metric = self.spec().indexes[field].metric;
        let state = self.state();
        let mut response = SearchResponse::default();
        let mut nearest: Vec<(f32, Found<'_>)> = Vec::new();
        for slot in state.slots().filter(|slot| !slot.segment.is_empty()) {
            let admitted = admitted(slot, filter.as_ref(), view);
            let count = admitted.count();
            if count == 0 {
                continue;
            }
            if !apart {
                response.segments_by_scan += 1;
                response.rows_scanned += count;
                for (start, chunk) in slot.segment.chunks() {
                    let rows = admitted.iter_from(start).take_while(|row| row - start < chunk.num_rows());
                    let column = chunk.column_by_name(field).expect("every segment has every vector field");
                    let rows = rows.map(|row| (row - start) as u32);
                    nearest.extend(stored::search(column, metric, &query, k, rows).into_iter().map(|neighbor| {
                        let row = start + neighbor.row as usize;
                        (neighbor.distance, Found { key: slot.segment.key(row), slot, row })
                    }));
                }
                continue;
            }
            let Value::Vector(query) = &query else { unreachable!("such a field is searched by numbers") };
            let whole = count == slot.segment.len();
            let mask = (!whole).then_some(&admitted);
            let vectors = slot.segment.vectors(field).expect("every segment has every vector field");
            let graph = slot.segment.index(field).and_then(|index| index.graph.as_ref());
            let mut scanned_from = 0;
            let mut neighbors = Vec::new();
            let search = SegmentSearch {
                rows: slot.segment.len(),
                admitted: count,
                k,
                ef,
                indexed: graph.is_some(),
                exact: request.exact,
            };
            if let Some(graph) = graph.filter(|_| search.access() == Access::Graph) {
                neighbors = graph.search(query, k, ef, mask, vectors);
                scanned_from = graph.len();
                response.segments_by_index += 1;
            } else {
                response.segments_by_scan += 1;
            }
            if scanned_from < slot.segment.len() {
                let tail = scanned_from as u32..slot.segment.len() as u32;
                response.rows_scanned += admitted.iter().filter(|&row| row >= scanned_from).count();
                neighbors.extend(flat::search(vectors, tail, metric, query, k, mask));
            }
            nearest.extend(neighbors.into_iter().map(|neighbor| {
                let row = neighbor.row as usize;
                (neighbor.distance, Found { key: slot.segment.key(row), slot, row })
            }));
        }
        nearest.sort_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| left.key.cmp(&right.key)));
        let hits = nearest.into_iter().skip(request.offset).take(request.limit).map(|(distance, found)| Hit {
            score: metric.score(distance),
            row: row_of(&found.slot.segment, found.row, fields.as_deref()),
            key: found.key,
        });
        response.hits = hits.collect();
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
        let special = |name: &str| name == "*" || name == VERSION_FIELD;
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
fn row_of(segment: &Segment, row: usize, fields: Option<&[String]>) -> Row {
    let mut out = segment.row(row, fields, &Blocks::default());
    if fields.is_some_and(|fields| fields.iter().any(|field| field == VERSION_FIELD)) {
        out.insert(VERSION_FIELD.to_owned(), Value::String(segment.versions().version(row).to_string()));
    }
    out
}

/// The rows of a segment that the view sees and the filter admits.
fn admitted(slot: &Slot, filter: Option<&Filter>, view: &View) -> RowMask {
    let visible = slot.visible(view);
    let Some(filter) = filter else { return visible };
    let mut admitted = RowMask::none(slot.segment.len());
    for (start, chunk) in slot.segment.chunks() {
        for row in filter.evaluate(chunk).iter() {
            admitted.insert(start + row);
        }
    }
    admitted.intersect(&visible);
    admitted
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
