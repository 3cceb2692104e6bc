use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::caller::Caller;
use super::cursors::Source;
use super::reply::Failure;
use crate::base::{Error, Result, Timestamp};
use crate::db::{
    ArchivePieces, Bm25Options, CONSISTENCY_TIMEOUT_MS, Collection, CollectionStats, Condition, Conflict, Consistency,
    Durability, EvaluateRequest, Highlight, Hit, HybridRequest, Operation, QueryRequest, SearchRequest, SearchResponse,
    Snapshot, SqlRequest, SqlResponse, Target, TuneRequest, WriteOptions, WriteResponse,
};
use crate::distance::Metric;
use crate::engine::{CollectionOptions, CollectionSpec};
use crate::index::{IndexKind, IndexSpec, SearchParams};
use crate::model::{Field, Key, Row, Schema, Value};
use crate::query::{Parameters, Plan, Ranker, Rerank};
use crate::server::{backup, store, words};

type Answer = Result<Json<JsonValue>, Failure>;
pub(super) type Body = Result<Bytes, BytesRejection>;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health))
        .route("/api/collections", get(list).post(create))
        .route("/api/collections/{name}", get(describe).delete(drop_collection))
        .route("/api/archive", get(archive).post(archive_without))
        .route("/api/sql", post(sql))
        .route("/api/aliases", get(aliases))
        .route("/api/aliases/{alias}", axum::routing::put(set_alias).delete(drop_alias))
        .route("/api/collections/{name}/fields", post(add_field))
        .route("/api/collections/{name}/indexes/{field}", axum::routing::put(create_index).delete(drop_index))
        .route("/api/collections/{name}/ttl", axum::routing::put(set_ttl))
        .route("/api/collections/{name}/options", axum::routing::put(set_options))
        .route("/api/collections/{name}/partitions", get(partitions))
        .route(
            "/api/collections/{name}/partitions/{partition}",
            axum::routing::put(create_partition).delete(drop_partition),
        )
        .route("/api/collections/{name}/conflicts", get(conflicts))
        .route("/api/collections/{name}/search", post(search))
        .route("/api/collections/{name}/evaluate", post(evaluate))
        .route("/api/collections/{name}/tune", post(tune))
        .route("/api/collections/{name}/hybrid-search", post(hybrid_search))
        .route("/api/collections/{name}/query", post(query))
        .route("/api/collections/{name}/search-iterator", post(search_iterator))
        .route("/api/collections/{name}/query-iterator", post(query_iterator))
        .route("/api/iterators/{batch}", get(next_batch).delete(end_iterator))
        .route("/api/collections/{name}/count", post(count))
        .route("/api/collections/{name}/get", post(get_rows))
        .route("/api/collections/{name}/insert", post(insert))
        .route("/api/collections/{name}/upsert", post(upsert))
        .route("/api/collections/{name}/delete", post(delete))
        .route("/api/collections/{name}/batch", post(batch))
        .method_not_allowed_fallback(method_not_allowed)
}

async fn method_not_allowed() -> Response {
    let error = Error::invalid("this address takes another method; see the server's documentation");
    Failure(StatusCode::METHOD_NOT_ALLOWED, error).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Json<JsonValue> {
    Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "replica": app.db.replica_id(),
        "collections": app.db.collections().len(),
    }))
}

/// The whole store as it is now, in one file, while it goes on. A client that goes away ends it.
async fn archive(caller: Caller) -> Result<Response, Failure> {
    let snapshot = caller.all()?.snapshot().await?;
    Ok(stream(snapshot.into_archive(|_| false)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveBody {
    without: std::collections::BTreeSet<String>,
}

/// The same without the files that the client has, by the names that backups give them.
async fn archive_without(caller: Caller, body: Body) -> Result<Response, Failure> {
    let ArchiveBody { without } = parse(body)?;
    let snapshot = caller.all()?.snapshot().await?;
    Ok(stream(snapshot.into_archive(|file| without.contains(&backup::file_name(file)))))
}

fn stream(pieces: ArchivePieces) -> Response {
    let pieces = futures_util::stream::try_unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await?;
        Ok::<_, Error>(piece.map(|piece| (piece, pieces)))
    });
    let headers =
        [("content-type", "application/octet-stream"), ("content-disposition", "attachment; filename=\"store.eddy\"")];
    (headers, axum::body::Body::from_stream(pieces)).into_response()
}

async fn list(caller: Caller) -> Answer {
    let mut collections = Vec::new();
    for collection in caller.collections() {
        collections.push(description(&collection, &collection.stats().await?));
    }
    Ok(Json(json!({ "collections": collections })))
}

async fn describe(caller: Caller, Path(name): Path<String>) -> Answer {
    let collection = caller.read(&name)?;
    let stats = collection.stats().await?;
    Ok(Json(description(&collection, &stats)))
}

#[derive(Deserialize)]
struct CreateBody {
    name: String,
    #[serde(flatten)]
    schema: Schema,
    #[serde(default)]
    indexes: BTreeMap<String, IndexSpec>,
    #[serde(default)]
    options: CollectionOptions,
}

async fn create(caller: Caller, body: Body) -> Answer {
    let body: CreateBody = parse(body)?;
    let spec = CollectionSpec { schema: Arc::new(body.schema), indexes: body.indexes, options: body.options };
    let collection = caller.admin(&body.name)?.create_collection(&body.name, spec).await?;
    let stats = collection.stats().await?;
    Ok(Json(description(&collection, &stats)))
}

async fn drop_collection(caller: Caller, Path(name): Path<String>) -> Answer {
    caller.admin(&name)?.drop_collection(&name).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldBody {
    field: Field,
    index: Option<IndexSpec>,
}

async fn add_field(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let FieldBody { field, index } = parse(body)?;
    caller.admin(&name)?.add_field(&name, field, index).await?;
    describe(caller, Path(name)).await
}

/// Gives a field an index, or a vector another one.
async fn create_index(caller: Caller, Path((name, field)): Path<(String, String)>, body: Body) -> Answer {
    let IndexBody { metric, kind } = parse(body)?;
    let db = caller.admin(&name)?;
    let index = db.collection(&name)?.index_of(&field, metric, Some(kind))?;
    db.create_index(&name, &field, index).await?;
    describe(caller, Path(name)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexBody {
    metric: Option<Metric>,
    kind: IndexKind,
}

async fn drop_index(caller: Caller, Path((name, field)): Path<(String, String)>) -> Answer {
    caller.admin(&name)?.drop_index(&name, &field).await?;
    describe(caller, Path(name)).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TtlBody {
    ttl_seconds: Option<u64>,
}

async fn set_ttl(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let TtlBody { ttl_seconds } = parse(body)?;
    caller.admin(&name)?.set_ttl(&name, ttl_seconds).await?;
    describe(caller, Path(name)).await
}

async fn set_options(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    caller.admin(&name)?.set_options(&name, parse(body)?).await?;
    describe(caller, Path(name)).await
}

async fn partitions(caller: Caller, Path(name): Path<String>) -> Answer {
    let stats = caller.read(&name)?.stats().await?;
    let partitions = stats.partitions.iter().map(|(name, rows)| json!({"name": name, "rows": rows}));
    Ok(Json(json!({ "partitions": partitions.collect::<Vec<_>>() })))
}

async fn conflicts(caller: Caller, Path(name): Path<String>) -> Answer {
    let told =
        caller.read(&name)?.conflicts().await?.into_iter().map(|Conflict { key, row, version, winner, at_ms }| {
            let (version, winner) = (version.to_string(), winner.to_string());
            json!({"key": key, "row": row, "version": version, "winner": winner, "at": at_ms})
        });
    Ok(Json(json!({ "conflicts": told.collect::<Vec<_>>() })))
}

async fn create_partition(caller: Caller, Path((name, partition)): Path<(String, String)>) -> Answer {
    caller.admin(&name)?.create_partition(&name, &partition).await?;
    Ok(Json(json!({})))
}

async fn drop_partition(caller: Caller, Path((name, partition)): Path<(String, String)>) -> Answer {
    caller.admin(&name)?.drop_partition(&name, &partition).await?;
    Ok(Json(json!({})))
}

async fn aliases(caller: Caller) -> Answer {
    let readable: Vec<String> = caller.collections().iter().map(|collection| collection.name().to_owned()).collect();
    let aliases = caller.app.db.aliases().into_iter().filter(|(_, collection)| readable.contains(collection));
    let aliases = aliases.map(|(alias, collection)| json!({"alias": alias, "collection": collection}));
    Ok(Json(json!({ "aliases": aliases.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasBody {
    collection: String,
}

/// Creates an alias, or has one that is there name another collection.
async fn set_alias(caller: Caller, Path(alias): Path<String>, body: Body) -> Answer {
    let AliasBody { collection } = parse(body)?;
    let db = caller.all()?;
    if db.aliases().iter().any(|(there, _)| *there == alias) {
        db.alter_alias(&alias, &collection).await?;
    } else {
        db.create_alias(&alias, &collection).await?;
    }
    Ok(Json(json!({})))
}

async fn drop_alias(caller: Caller, Path(alias): Path<String>) -> Answer {
    caller.all()?.drop_alias(&alias).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SearchBody {
    vector: Option<Value>,
    #[serde(default)]
    vectors: Vec<Value>,
    #[serde(default)]
    ids: Vec<Key>,
    radius: Option<f32>,
    range_filter: Option<f32>,
    group_by: Option<String>,
    #[serde(default)]
    group_size: usize,
    #[serde(default)]
    strict_group_size: bool,
    text: Option<String>,
    words: Option<String>,
    field: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
    #[serde(default)]
    partitions: Vec<String>,
    output_fields: Option<Vec<String>>,
    ef: Option<usize>,
    nprobe: Option<usize>,
    reorder_k: Option<usize>,
    search_list: Option<usize>,
    #[serde(default)]
    exact: bool,
    bm25: Option<Bm25Options>,
    drop_ratio_search: Option<f32>,
    #[serde(default)]
    rankers: Vec<Ranker>,
    highlight: Option<Highlight>,
    at: Option<At>,
    consistency: Option<Level>,
    session_token: Option<Tokens>,
    timeout_ms: Option<u64>,
    explain: Option<Explain>,
    batch_size: Option<usize>,
    keep_ms: Option<u64>,
}

/// To be told how a read would be done, or how it was, instead of its rows.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Explain {
    Plan,
    Profile,
}

fn explained(plan: &Plan) -> Json<JsonValue> {
    Json(json!({ "plan": plan, "text": plan.to_string() }))
}

/// A search, and the words of its text that nobody knows.
async fn search_request(caller: &Caller, name: &str, body: SearchBody) -> Result<(SearchRequest, Option<Vec<String>>)> {
    let is_batch = !body.vectors.is_empty() || !body.ids.is_empty();
    let (vector, unknown) = match (body.vector, body.text) {
        (Some(vector), None) => (vector, None),
        (None, Some(text)) if caller.read(name)?.has_text_field(body.field.as_deref()) => (text.into(), None),
        (None, None) if is_batch => (Value::Null, None),
        (None, Some(text)) if !is_batch => {
            let words = caller.read(body.words.as_deref().unwrap_or("words"))?;
            let found = words::text_vector(&words, &text).await?;
            (found.vector.into(), Some(found.unknown))
        }
        _ => {
            return Err(Error::invalid("a search needs one of \"vector\", \"vectors\", \"ids\" and \"text\""));
        }
    };
    let request = SearchRequest {
        field: body.field,
        vector,
        vectors: body.vectors,
        ids: body.ids,
        radius: body.radius,
        range_filter: body.range_filter,
        group_by: body.group_by,
        group_size: body.group_size,
        strict_group_size: body.strict_group_size,
        limit: body.limit.unwrap_or(10),
        offset: body.offset,
        filter: body.filter,
        filter_params: body.filter_params,
        partitions: body.partitions,
        output_fields: body.output_fields,
        ef: body.ef,
        params: SearchParams {
            ef: None,
            nprobe: body.nprobe,
            reorder_k: body.reorder_k,
            search_list: body.search_list,
        },
        exact: body.exact,
        bm25: body.bm25,
        drop_ratio: body.drop_ratio_search,
        rankers: body.rankers,
        highlight: body.highlight,
    };
    Ok((request, unknown))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HybridBody {
    searches: Vec<SearchBody>,
    #[serde(default)]
    rerank: Rerank,
    #[serde(default)]
    rankers: Vec<Ranker>,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    output_fields: Option<Vec<String>>,
    at: Option<At>,
    consistency: Option<Level>,
    session_token: Option<Tokens>,
    timeout_ms: Option<u64>,
    explain: Option<Explain>,
}

async fn hybrid_search(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let body: HybridBody = parse(body)?;
    let started = tokio::time::Instant::now();
    let mut request = HybridRequest {
        searches: Vec::new(),
        rerank: body.rerank,
        rankers: body.rankers,
        limit: body.limit.unwrap_or(10),
        offset: body.offset,
        output_fields: body.output_fields,
    };
    for search in body.searches {
        let of_all = [
            search.at.is_some(),
            search.explain.is_some(),
            search.consistency.is_some(),
            search.session_token.is_some(),
            search.timeout_ms.is_some(),
            search.batch_size.is_some(),
            search.keep_ms.is_some(),
        ];
        if of_all.contains(&true) {
            return Err(Error::invalid("\"at\", \"consistency\" and \"explain\" are of the whole request").into());
        }
        request.searches.push(search_request(&caller, &name, search).await?.0);
    }
    let when = When { at: body.at, level: body.consistency, tokens: body.session_token, timeout_ms: body.timeout_ms };
    let reader = reader(&caller, &name, when).await?;
    if let Some(explain) = body.explain {
        let profile = explain == Explain::Profile;
        let plan = compute(&caller.app, async move {
            match reader {
                Reader::Now(collection) => collection.explain_hybrid(&request, profile).await,
                Reader::Then(snapshot) => snapshot.explain_hybrid(&request, profile).await,
            }
        });
        return Ok(explained(&plan.await?));
    }
    let response = compute(&caller.app, async move {
        match reader {
            Reader::Now(collection) => collection.hybrid_search(&request).await,
            Reader::Then(snapshot) => snapshot.hybrid_search(&request).await,
        }
    })
    .await?;
    let mut answer = hits(&response);
    answer["ms"] = json!(started.elapsed().as_secs_f64() * 1e3);
    Ok(Json(answer))
}

async fn search(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let mut body: SearchBody = parse(body)?;
    refuse_iterator(body.batch_size, body.keep_ms)?;
    let started = tokio::time::Instant::now();
    let (when, explain) = (body.take_when(), body.explain.take());
    let (request, unknown) = search_request(&caller, &name, body).await?;
    let reader = reader(&caller, &name, when).await?;
    if let Some(explain) = explain {
        let profile = explain == Explain::Profile;
        let plan = compute(&caller.app, async move {
            match reader {
                Reader::Now(collection) => collection.explain_search(&request, profile).await,
                Reader::Then(snapshot) => snapshot.explain_search(&request, profile).await,
            }
        });
        return Ok(explained(&plan.await?));
    }
    let response = compute(&caller.app, async move {
        match reader {
            Reader::Now(collection) => collection.search(&request).await,
            Reader::Then(snapshot) => snapshot.search(&request).await,
        }
    })
    .await?;
    let mut answer = hits(&response);
    answer["ms"] = json!(started.elapsed().as_secs_f64() * 1e3);
    if let Some(unknown) = unknown {
        answer["unknownWords"] = json!(unknown);
    }
    Ok(Json(answer))
}

/// Begins to go through the rows from the nearest on, and answers with the first of them.
async fn search_iterator(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let mut body: SearchBody = parse(body)?;
    if body.explain.is_some() {
        return Err(Error::invalid("an iterator takes no \"explain\"").into());
    }
    let (batch, keep_ms, limit) = (body.batch_size, body.keep_ms, body.limit);
    caller.app.cursors.check(batch, keep_ms)?;
    let when = body.take_when();
    let (request, _) = search_request(&caller, &name, body).await?;
    let request = SearchRequest { limit: limit.unwrap_or(0), ..request };
    let snapshot = reader(&caller, &name, when).await?.hold()?;
    let iterator = compute(&caller.app, async move { snapshot.search_iterator(request).await }).await?;
    first_batch(caller, Source::Search(Box::new(iterator)), batch, keep_ms).await
}

/// The same of the rows of a query.
async fn query_iterator(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let mut body: QueryBody = parse(body)?;
    if body.explain.is_some() {
        return Err(Error::invalid("an iterator takes no \"explain\"").into());
    }
    let (batch, keep_ms) = (body.batch_size, body.keep_ms);
    caller.app.cursors.check(batch, keep_ms)?;
    let when = body.take_when();
    let iterator = reader(&caller, &name, when).await?.hold()?.query_iterator(body.into_request())?;
    first_batch(caller, Source::Query(Box::new(iterator)), batch, keep_ms).await
}

async fn first_batch(caller: Caller, source: Source, batch: Option<usize>, keep_ms: Option<u64>) -> Answer {
    let first = caller.app.cursors.begin(source, batch, keep_ms)?;
    next_batch(caller, Path(first)).await
}

async fn next_batch(caller: Caller, Path(batch): Path<String>) -> Answer {
    let app = caller.app.clone();
    let with = app.clone();
    Ok(Json(compute(&app, async move { with.cursors.next(&batch).await }).await?))
}

async fn end_iterator(caller: Caller, Path(batch): Path<String>) -> Answer {
    caller.app.cursors.end(&batch)?;
    Ok(Json(json!({})))
}

fn refuse_iterator(batch: Option<usize>, keep_ms: Option<u64>) -> Result<()> {
    match (batch, keep_ms) {
        (None, None) => Ok(()),
        _ => Err(Error::invalid("\"batchSize\" and \"keepMs\" are for iterators")),
    }
}

async fn evaluate(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let request: EvaluateRequest = parse(body)?;
    let collection = caller.admin(&name)?.collection(&name)?;
    let found = compute(&caller.app, async move { collection.evaluate(&request).await }).await?;
    Ok(Json(json!(found)))
}

/// `{"recall", "store"}`, and what an evaluation takes.
#[derive(Deserialize)]
struct TuneBody {
    recall: Option<f64>,
    #[serde(default)]
    store: bool,
    #[serde(flatten)]
    evaluate: serde_json::Map<String, JsonValue>,
}

async fn tune(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let TuneBody { recall, store, evaluate } = parse(body)?;
    let evaluate = serde_json::from_value(evaluate.into())
        .map_err(|error| Error::invalid(format!("the request's body: {error}")))?;
    let usual = TuneRequest::default();
    let request = TuneRequest { evaluate, recall: recall.unwrap_or(usual.recall), store };
    let db = caller.admin(&name)?.clone();
    let found = compute(&caller.app, async move { db.tune(&name, &request).await }).await?;
    Ok(Json(json!(found)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct QueryBody {
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
    #[serde(default)]
    partitions: Vec<String>,
    output_fields: Option<Vec<String>>,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    order_by: Vec<String>,
    #[serde(default)]
    group_by: Vec<String>,
    at: Option<At>,
    consistency: Option<Level>,
    session_token: Option<Tokens>,
    timeout_ms: Option<u64>,
    explain: Option<Explain>,
    batch_size: Option<usize>,
    keep_ms: Option<u64>,
}

impl SearchBody {
    fn take_when(&mut self) -> When {
        When {
            at: self.at.take(),
            level: self.consistency.take(),
            tokens: self.session_token.take(),
            timeout_ms: self.timeout_ms,
        }
    }
}

impl QueryBody {
    fn take_when(&mut self) -> When {
        When {
            at: self.at.take(),
            level: self.consistency.take(),
            tokens: self.session_token.take(),
            timeout_ms: self.timeout_ms,
        }
    }

    fn into_request(self) -> QueryRequest {
        QueryRequest {
            filter: self.filter,
            filter_params: self.filter_params,
            partitions: self.partitions,
            output_fields: self.output_fields,
            limit: self.limit,
            offset: self.offset,
            order_by: self.order_by,
            group_by: self.group_by,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SqlBody {
    sql: String,
    #[serde(default)]
    params: Parameters,
    timeout_ms: Option<u64>,
}

/// For whoever may read the whole store: a query names any of its collections.
async fn sql(caller: Caller, body: Body) -> Answer {
    let SqlBody { sql, params, timeout_ms } = parse(body)?;
    let (db, request) = (caller.all()?.clone(), SqlRequest { text: sql, parameters: params, timeout_ms });
    let SqlResponse { columns, rows, plan } = compute(&caller.app, async move { db.sql(&request).await }).await?;
    if let Some(plan) = plan {
        return Ok(Json(json!({ "plan": plan })));
    }
    let columns: Vec<_> =
        columns.iter().map(|column| json!({"name": column.name, "type": column.data_type.name()})).collect();
    Ok(Json(json!({ "columns": columns, "rows": rows })))
}

async fn query(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let mut body: QueryBody = parse(body)?;
    refuse_iterator(body.batch_size, body.keep_ms)?;
    let (when, explain) = (body.take_when(), body.explain);
    let request = body.into_request();
    let reader = reader(&caller, &name, when).await?;
    if let Some(explain) = explain {
        let profile = explain == Explain::Profile;
        let plan = compute(&caller.app, async move {
            match reader {
                Reader::Now(collection) => collection.explain_query(&request, profile).await,
                Reader::Then(snapshot) => snapshot.explain_query(&request, profile).await,
            }
        });
        return Ok(explained(&plan.await?));
    }
    let rows = compute(&caller.app, async move {
        match reader {
            Reader::Now(collection) => collection.query(&request).await,
            Reader::Then(snapshot) => snapshot.query(&request).await,
        }
    })
    .await?;
    Ok(Json(json!({ "rows": rows })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CountBody {
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
    #[serde(default)]
    partitions: Vec<String>,
    at: Option<At>,
    consistency: Option<Level>,
    session_token: Option<Tokens>,
    timeout_ms: Option<u64>,
}

async fn count(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let CountBody { filter, filter_params, partitions, at, consistency, session_token, timeout_ms } = parse(body)?;
    let request = QueryRequest { filter, filter_params, partitions, ..QueryRequest::default() };
    let when = When { at, level: consistency, tokens: session_token, timeout_ms };
    let reader = reader(&caller, &name, when).await?;
    let count = compute(&caller.app, async move {
        match reader {
            Reader::Now(collection) => collection.count_of(&request).await,
            Reader::Then(snapshot) => snapshot.count_of(&request).await,
        }
    })
    .await?;
    Ok(Json(json!({ "count": count })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GetBody {
    keys: Vec<Key>,
    #[serde(default)]
    partitions: Vec<String>,
    output_fields: Option<Vec<String>>,
    at: Option<At>,
    consistency: Option<Level>,
    session_token: Option<Tokens>,
    timeout_ms: Option<u64>,
}

async fn get_rows(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let GetBody { keys, partitions, output_fields, at, consistency, session_token, timeout_ms } = parse(body)?;
    let when = When { at, level: consistency, tokens: session_token, timeout_ms };
    let reader = reader(&caller, &name, when).await?;
    let rows = compute(&caller.app, async move {
        match reader {
            Reader::Now(collection) => collection.get_within(&keys, output_fields.as_deref(), &partitions).await,
            Reader::Then(snapshot) => snapshot.get_within(&keys, output_fields.as_deref(), &partitions).await,
        }
    })
    .await?;
    Ok(Json(json!({ "rows": rows })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RowsBody {
    rows: Vec<Row>,
    #[serde(default)]
    if_absent: bool,
    if_version: Option<Versions>,
    durability: Option<Durability>,
    partition: Option<String>,
}

/// One for all rows, or one for each; null where there must be none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Versions {
    One(String),
    Each(Vec<Option<String>>),
}

async fn insert(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let RowsBody { rows, if_absent, if_version, durability, partition } = parse(body)?;
    let operation = OperationBody { insert: Some(rows), if_absent, if_version, ..Default::default() };
    write(&caller, &name, BatchBody { operations: vec![operation], durability, partition }).await
}

async fn upsert(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let RowsBody { rows, if_absent, if_version, durability, partition } = parse(body)?;
    let operation = OperationBody { upsert: Some(rows), if_absent, if_version, ..Default::default() };
    write(&caller, &name, BatchBody { operations: vec![operation], durability, partition }).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeleteBody {
    keys: Option<Vec<Key>>,
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
    if_version: Option<Versions>,
    durability: Option<Durability>,
    partition: Option<String>,
}

async fn delete(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let DeleteBody { keys, filter, filter_params, if_version, durability, partition } = parse(body)?;
    let target = TargetBody { keys, filter, filter_params };
    let operation = OperationBody { delete: Some(target), if_version, ..Default::default() };
    write(&caller, &name, BatchBody { operations: vec![operation], durability, partition }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    operations: Vec<OperationBody>,
    durability: Option<Durability>,
    partition: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OperationBody {
    insert: Option<Vec<Row>>,
    upsert: Option<Vec<Row>>,
    delete: Option<TargetBody>,
    #[serde(default)]
    if_absent: bool,
    if_version: Option<Versions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetBody {
    keys: Option<Vec<Key>>,
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
}

impl OperationBody {
    fn into_operation(self, collection: &Collection) -> Result<(Operation, Vec<Condition>)> {
        let operation = match (self.insert, self.upsert, self.delete) {
            (Some(rows), None, None) => Operation::Insert(collection.to_batch(rows)?),
            (None, Some(rows), None) => Operation::Upsert(collection.to_batch(rows)?),
            (None, None, Some(TargetBody { keys: Some(keys), filter: None, .. })) => {
                Operation::Delete(Target::Keys(keys))
            }
            (None, None, Some(TargetBody { keys: None, filter: Some(filter), filter_params })) => {
                Operation::Delete(Target::FilterWith(filter, filter_params))
            }
            (None, None, Some(_)) => return Err(Error::invalid("a delete needs either \"keys\" or \"filter\"")),
            _ => return Err(Error::invalid("an operation is one of \"insert\", \"upsert\" and \"delete\"")),
        };
        let versions = self.if_version.map(|versions| match versions {
            Versions::One(version) => vec![Some(version)],
            Versions::Each(versions) => versions,
        });
        let conditions = operation.conditions_of(self.if_absent, versions.as_deref())?;
        Ok((operation, conditions))
    }
}

async fn batch(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    write(&caller, &name, parse(body)?).await
}

async fn write(caller: &Caller, name: &str, body: BatchBody) -> Answer {
    let collection = caller.write(name)?;
    let response = compute(&caller.app, async move {
        let mut options = WriteOptions { durability: body.durability, partition: body.partition, ..Default::default() };
        let (mut operations, mut keys) = (Vec::new(), Vec::new());
        for operation in body.operations {
            let (operation, conditions) = operation.into_operation(&collection)?;
            if let Operation::Insert(batch) | Operation::Upsert(batch) = &operation {
                keys.extend(batch.keys());
            }
            options.conditions.extend(conditions);
            operations.push(operation);
        }
        let keys = collection.spec().schema.auto_id().then_some(keys);
        Ok((collection.batch(operations, options).await?, keys))
    });
    let (response, keys) = response.await?;
    Ok(written(&response, keys))
}

/// A hybrid timestamp as answers tell it: a decimal string, or a number that JSON holds exactly.
#[derive(Deserialize)]
#[serde(untagged)]
enum At {
    Number(u64),
    Text(String),
}

/// What a read must see.
struct When {
    at: Option<At>,
    level: Option<Level>,
    tokens: Option<Tokens>,
    timeout_ms: Option<u64>,
}

/// How much of what was written elsewhere a read must see.
#[derive(Deserialize)]
#[serde(untagged)]
enum Level {
    Name(String),
    Bounded { bounded: u64 },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    One(String),
    Several(Vec<String>),
}

impl When {
    /// What is asked for, and how long it is waited for.
    fn consistency(&self) -> Result<(Consistency, u64)> {
        let tokens = match &self.tokens {
            None => &[],
            Some(Tokens::One(token)) => std::slice::from_ref(token),
            Some(Tokens::Several(tokens)) => tokens.as_slice(),
        };
        let (level, bounded) = match &self.level {
            Some(Level::Name(level)) => (level.as_str(), None),
            Some(Level::Bounded { bounded }) => ("bounded", Some(*bounded)),
            None if self.tokens.is_some() => ("session", None),
            None => ("eventually", None),
        };
        let timeout_ms = self.timeout_ms.unwrap_or(CONSISTENCY_TIMEOUT_MS);
        if timeout_ms > TIMEOUT_MS_MAX {
            return Err(Error::invalid(format!("timeoutMs {timeout_ms}; expected at most {TIMEOUT_MS_MAX}")));
        }
        if level == "session" && tokens.is_empty() {
            return Err(Error::invalid("consistency session needs the \"sessionToken\" of a write, or several"));
        }
        Ok((Consistency::of(level, bounded, tokens)?, timeout_ms))
    }
}

/// The longest wait for a consistency.
const TIMEOUT_MS_MAX: u64 = 60_000;

/// The collection as it is once it is as is asked for, or was at a time.
async fn reader(caller: &Caller, name: &str, when: When) -> Result<Reader> {
    let collection = caller.read(name)?;
    let (consistency, timeout_ms) = when.consistency()?;
    collection.at_least(&consistency, timeout_ms).await?;
    let timestamp = match when.at {
        None => return Ok(Reader::Now(collection)),
        Some(At::Number(number)) => number,
        Some(At::Text(text)) => text
            .parse()
            .map_err(|_| Error::invalid(format!("\"at\" is {text:?}; expected the timestamp of a write")))?,
    };
    collection.snapshot_at(Timestamp(timestamp)).map(Reader::Then)
}

enum Reader {
    Now(Collection),
    Then(Snapshot),
}

impl Reader {
    /// What is there now stays so.
    fn hold(self) -> Result<Snapshot> {
        match self {
            Self::Now(collection) => collection.snapshot(),
            Self::Then(snapshot) => Ok(snapshot),
        }
    }
}

/// Runs `task` to its end off the threads that answer requests, a few at a time.
async fn compute<T: Send + 'static>(app: &App, task: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let _turn = app.computing.acquire().await.expect("the semaphore is never closed");
    store::off_worker(task).await?
}

pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = body.map_err(|rejection| {
        Failure(rejection.status(), Error::invalid(format!("the request's body: {}", rejection.body_text())))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::invalid(format!("the request's body: {error}")).into())
}

pub(in crate::server) fn description(collection: &Collection, stats: &CollectionStats) -> JsonValue {
    let spec = collection.spec();
    json!({
        "name": collection.name(),
        "rows": stats.rows,
        "partitions": stats.partitions,
        "rowsDead": stats.rows_dead,
        "rowsUnindexed": stats.rows_unindexed,
        "segments": stats.segments,
        "memoryBytes": stats.memory_bytes,
        "storageBytes": stats.storage_bytes,
        "lsn": stats.lsn,
        "schema": &*spec.schema,
        "indexes": spec.indexes,
        "options": spec.options,
    })
}

pub(in crate::server) fn hits(response: &SearchResponse) -> JsonValue {
    let (name, hits) = if response.results.is_empty() {
        ("hits", hits_of(&response.hits))
    } else {
        ("results", response.results.iter().map(|hits| hits_of(hits)).collect())
    };
    json!({
        name: hits,
        "rowsScanned": response.rows_scanned,
        "segmentsByIndex": response.segments_by_index,
        "segmentsByScan": response.segments_by_scan,
    })
}

pub(super) fn hits_of(hits: &[Hit]) -> JsonValue {
    let one = |hit: &Hit| {
        let mut out = json!({"key": hit.key, "score": shortest(hit.score), "row": hit.row});
        if !hit.highlights.is_empty() {
            out["highlights"] = json!(hit.highlights);
        }
        out
    };
    hits.iter().map(one).collect()
}

/// The number that `score` is written as: 0.1, where the nearest double to it is 0.10000000149011612.
fn shortest(score: f32) -> f64 {
    score.to_string().parse().unwrap_or_else(|_| f64::from(score))
}

fn written(response: &WriteResponse, keys: Option<Vec<Key>>) -> Json<JsonValue> {
    // A hybrid timestamp has more digits than JavaScript's numbers hold.
    let mut answer = json!({"count": response.count, "timestamp": response.timestamp.0.to_string(), "version": response.version.to_string(), "lsn": response.lsn, "sessionToken": response.session_token().to_string()});
    if let Some(keys) = keys {
        answer["keys"] = json!(keys);
    }
    Json(answer)
}
