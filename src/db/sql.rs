use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, ArrayRef};

use super::{Collection, Db, QueryRequest, SearchRequest, Snapshot};
use crate::base::{Error, ErrorKind, Result};
use crate::distance::Metric;
use crate::model::{Field, Key, Row, Value};
use crate::platform::now_ms;
use crate::query::Parameters;
use crate::query::compute::canonical;
use crate::stream::sql::{Catalog, Mode, Table, compile};
use crate::stream::{Answer, Given, Job, Operator, Options, Relation, SourceField, WantedKind, Zones};

/// The time zones that there are: those that the host knows.
#[cfg(feature = "streams")]
pub(super) const ZONES: Zones = Zones::new(crate::platform::zone_offset_s);
/// The time zones that there are: none in a build without pipelines, which has no database of them.
#[cfg(not(feature = "streams"))]
const ZONES: Zones = Zones::new(|_, _| None);

/// How many rows are read at once.
const BATCH_ROWS: usize = 4_096;

/// How long a query of [`Db::sql`] may take that does not say.
pub const SQL_TIMEOUT_MS: u64 = 60_000;

/// A query in SQL.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SqlRequest {
    /// The text: views, if any, and one `SELECT`, or `EXPLAIN` of one.
    pub text: String,
    /// What `{name}` stands for in it.
    pub parameters: Parameters,
    /// After how many milliseconds it is given up; [`SQL_TIMEOUT_MS`] with `None`.
    pub timeout_ms: Option<u64>,
}

/// What a query in SQL came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SqlResponse {
    /// The columns, in order.
    pub columns: Vec<Field>,
    /// The rows, in the order that was asked for.
    pub rows: Vec<Row>,
    /// Of `EXPLAIN`: the plan, and no rows.
    pub plan: Option<String>,
}

impl Db {
    /// Asks the collections in SQL: see [`crate::stream::sql`]. Each is seen as it was when the query began; all its rows are read but
    /// those that the query's joins look up, so what an index finds is better asked of [`Collection::search`] and [`Collection::query`].
    ///
    /// # Errors
    /// As of [`compile`]. `Unsupported` for statements that write, and for streams, which have no rows that are stored. `Unavailable`
    /// after the timeout.
    pub async fn sql(&self, request: &SqlRequest) -> Result<SqlResponse> {
        let compiled = compile(&request.text, &self.catalog(), &request.parameters, Mode::Snapshot)?;
        if let Some(stream) = compiled.reads.iter().find(|read| !read.collection) {
            let message = format!("`{}` is a stream: rows of the past are asked of collections", stream.name);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let sinks = compiled.plan.nodes.iter().filter_map(|node| match &node.operator {
            Operator::Sink(sink) => Some((node, sink.collection.is_some())),
            _ => None,
        });
        let [(sink, false)] = &sinks.collect::<Vec<_>>()[..] else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a query of what is stored is one `SELECT`, and writes nothing",
            ));
        };
        let sink = sink.name.clone();
        if compiled.explain {
            return Ok(SqlResponse { plan: Some(compiled.plan.explain()?), ..SqlResponse::default() });
        }
        let until = now_ms().saturating_add(request.timeout_ms.unwrap_or(SQL_TIMEOUT_MS));
        let check = || {
            if now_ms() < until {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Unavailable, "the query took longer than its timeout"))
        };
        let now = i64::try_from(now_ms().saturating_mul(1_000)).unwrap_or(i64::MAX);

        let mut sources = vec![];
        for read in &compiled.reads {
            sources.push((read.node.clone(), self.collection(&read.name)?.snapshot()?));
        }
        let mut job = Job::new(compiled.plan, Options { zones: ZONES, ..Options::default() })?;
        let mut rows = vec![];
        for (node, snapshot) in sources {
            let relation = job.relation(&node)?.clone();
            let output_fields = Some(relation.fields.iter().map(|field| field.name.clone()).collect());
            let mut iterator = snapshot.query_iterator(QueryRequest { output_fields, ..QueryRequest::default() })?;
            loop {
                check()?;
                let found = iterator.next(BATCH_ROWS).await?;
                if found.is_empty() {
                    break;
                }
                let (batch, wrong) = relation.batch(&found);
                if let Some((_, what)) = wrong.first() {
                    return Err(Error::internal(format!("a stored row is none of its schema: {what}")));
                }
                job.push(&node, 0, &[], &batch, None, now)?;
                self.settle(&mut job, &sink, &mut rows, now, &check).await?;
            }
            // Of no rows, too, it is said that no more come.
            job.open(&node, 0, now)?;
            job.end(&node, 0, now)?;
            self.settle(&mut job, &sink, &mut rows, now, &check).await?;
        }
        Ok(SqlResponse { columns: job.relation(&sink)?.fields.clone(), rows, plan: None })
    }

    /// The collections by name.
    pub(super) fn catalog(&self) -> Catalog {
        let table = |collection: Collection| {
            let schema = &collection.spec().schema;
            let fields = schema.fields().iter().filter_map(|field| {
                let of = SourceField::new(&field.name, canonical(field.data_type)?);
                Some(if field.nullable { of.nullable() } else { of })
            });
            let table =
                Table { fields: fields.collect(), key: Some(schema.primary_key().name.clone()), ..Table::default() };
            (collection.name().to_owned(), table)
        };
        Catalog { tables: self.collections().into_iter().map(table).collect() }
    }

    /// Takes what has come, and answers what is asked, until nothing is left to do.
    async fn settle(
        &self,
        job: &mut Job,
        sink: &str,
        rows: &mut Vec<Row>,
        now: i64,
        check: &(impl Fn() -> Result<()> + Sync),
    ) -> Result<()> {
        loop {
            let Given { rows: given, wanted, dead } = job.poll();
            if let Some(letter) = dead.first() {
                return Err(Error::invalid(format!("node {:?}: {}", letter.node, letter.reason)));
            }
            for (node, part) in given {
                if node == sink {
                    rows.extend(part.to_rows(job.relation(sink)?));
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            for one in wanted {
                let answer = self.answer(&one.kind, check).await?;
                job.answer(one.id, &answer, now)?;
            }
        }
    }

    async fn answer(&self, wanted: &WantedKind, check: &(impl Fn() -> Result<()> + Sync)) -> Result<Answer> {
        let (mut counts, mut found) = (vec![], vec![]);
        let fields = match wanted {
            WantedKind::Lookup { collection, keys, fields, .. } => {
                let snapshot = self.collection(collection)?.snapshot()?;
                let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
                for key in keys_of(keys) {
                    check()?;
                    let rows = match key {
                        Some(key) => snapshot.get(&[key], Some(&names)).await?,
                        None => vec![],
                    };
                    counts.push(rows.len() as u32);
                    found.extend(rows);
                }
                fields
            }
            WantedKind::Nearest { collection, field, vectors, limit, filter, fields, .. } => {
                let collection = self.collection(collection)?;
                let snapshot = collection.snapshot()?;
                let metric = metric_of(&collection, field.as_deref());
                // SQL always asks for the distance, which is the last.
                let Some((distance, stored)) = fields.split_last() else { return Err(Error::internal("no distance")) };
                let names: Vec<String> = stored.iter().map(|field| field.name.clone()).collect();
                for vector in vectors_of(vectors) {
                    check()?;
                    let hits = match vector {
                        Some(vector) => nearest(&snapshot, field, vector, *limit, filter, &names).await?,
                        None => vec![],
                    };
                    counts.push(hits.len() as u32);
                    for (mut row, score) in hits {
                        row.insert(distance.name.clone(), Value::Double(f64::from(distance_of(metric, score))));
                        found.push(row);
                    }
                }
                fields
            }
            WantedKind::Call { function, .. } => {
                return Err(Error::internal(format!("SQL calls no function of the host, got {function:?}")));
            }
        };
        let (rows, wrong) = Relation { fields: fields.clone(), ..Relation::default() }.batch(&found);
        match wrong.first() {
            Some((_, what)) => Err(Error::internal(format!("a stored row is none of its schema: {what}"))),
            None => Ok(Answer { counts, rows }),
        }
    }
}

pub(super) async fn nearest(
    snapshot: &Snapshot,
    field: &Option<String>,
    vector: Vec<f32>,
    limit: u32,
    filter: &Option<String>,
    names: &[String],
) -> Result<Vec<(Row, f32)>> {
    let request = SearchRequest {
        field: field.clone(),
        vector: Value::Vector(vector),
        limit: limit as usize,
        filter: filter.clone(),
        output_fields: Some(names.to_vec()),
        ..SearchRequest::default()
    };
    let response = snapshot.search(&request).await?;
    Ok(response.hits.into_iter().map(|hit| (hit.row, hit.score)).collect())
}

/// By what the vectors of a field are compared.
pub(super) fn metric_of(collection: &Collection, field: Option<&str>) -> Metric {
    let spec = collection.spec();
    let mut vectors = spec.schema.fields().iter().filter(|other| other.data_type.is_vector());
    let found = vectors.find(|other| field.is_none_or(|field| other.name == field));
    let index = found.and_then(|field| spec.indexes.get(&field.name));
    index.map_or(Metric::Cosine, |index| index.metric)
}

/// Smaller is closer.
pub(super) fn distance_of(metric: Metric, score: f32) -> f32 {
    match metric {
        Metric::Ip => -score,
        Metric::Cosine => 1.0 - score,
        _ => score,
    }
}

pub(super) fn keys_of(keys: &ArrayRef) -> Vec<Option<Key>> {
    let valid = |row: usize| keys.is_valid(row);
    match keys.as_primitive_opt::<Int64Type>() {
        Some(ints) => (0..keys.len()).map(|row| valid(row).then(|| Key::Int(ints.value(row)))).collect(),
        None => {
            let texts = keys.as_string::<i32>();
            (0..keys.len()).map(|row| valid(row).then(|| Key::String(texts.value(row).into()))).collect()
        }
    }
}

pub(super) fn vectors_of(vectors: &ArrayRef) -> Vec<Option<Vec<f32>>> {
    let lists = vectors.as_fixed_size_list();
    let list = |row: usize| {
        let list = lists.is_valid(row).then(|| lists.value(row))?;
        Some(list.as_primitive::<Float32Type>().values().to_vec())
    };
    (0..lists.len()).map(list).collect()
}
