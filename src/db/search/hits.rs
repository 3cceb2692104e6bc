use super::LIMIT_MAX;
use super::admit::{Later, admitted};
use super::nearest::Nearest;
use super::rows::{At, Found};
use crate::base::{Error, Result, RowMask};
use crate::db::{Collection, Hit, SearchRequest, SearchResponse};
use crate::engine::{Slot, View};
use crate::index::SearchParams;
use crate::model::{DataType, Field, Key, Value, column};

/// Candidates that a graph search keeps when the request does not say.
const EF_MIN: usize = 64;

impl Collection {
    pub(in crate::db) async fn read_nearest(&self, request: &SearchRequest, view: &View) -> Result<SearchResponse> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
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
