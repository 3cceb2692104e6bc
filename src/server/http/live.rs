//! An answer that is kept current, as Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::caller::Caller;
use super::reply::Failure;
use super::stop::Stop;
use crate::base::{Error, Lsn, Result};
use crate::db::{Difference, HybridRequest, LiveHit, LiveQueries, LiveRequest, QueryRequest, SearchRequest};
use crate::model::Value;
use crate::query::{Parameters, Rerank};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/api/collections/{name}/live", post(live))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LiveBody {
    /// Several searches, ranked together.
    hybrid: Option<HybridBody>,
    vector: Option<Value>,
    field: Option<String>,
    limit: Option<usize>,
    radius: Option<f32>,
    range_filter: Option<f32>,
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
    #[serde(default)]
    partitions: Vec<String>,
    output_fields: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HybridBody {
    searches: Vec<LiveBody>,
    #[serde(default)]
    rerank: Rerank,
    limit: Option<usize>,
    output_fields: Option<Vec<String>>,
}

impl HybridBody {
    fn into_request(self) -> Result<HybridRequest> {
        let mut searches = Vec::new();
        for (at, search) in self.searches.into_iter().enumerate() {
            if search.hybrid.is_some() {
                return Err(Error::invalid(format!("search {at} of \"hybrid\" is \"hybrid\" itself")));
            }
            match search.into_request()? {
                LiveRequest::Nearest(search) => searches.push(*search),
                LiveRequest::Rows(_) => {
                    return Err(Error::invalid(format!("search {at} of \"hybrid\" has no \"vector\"")));
                }
            }
        }
        Ok(HybridRequest {
            searches,
            rerank: self.rerank,
            rankers: Vec::new(),
            limit: self.limit.unwrap_or(10),
            offset: 0,
            output_fields: self.output_fields,
        })
    }
}

impl LiveBody {
    fn is_bare(&self) -> bool {
        let Self {
            hybrid: _,
            vector,
            field,
            limit,
            radius,
            range_filter,
            filter,
            filter_params,
            partitions,
            output_fields,
        } = self;
        let none = [
            vector.is_none(),
            field.is_none(),
            limit.is_none(),
            radius.is_none(),
            range_filter.is_none(),
            filter.is_none(),
            filter_params.is_empty(),
            partitions.is_empty(),
            output_fields.is_none(),
        ];
        none.into_iter().all(|is_none| is_none)
    }

    fn into_request(self) -> Result<LiveRequest> {
        let Self { filter, filter_params, partitions, output_fields, .. } = self;
        let Some(vector) = self.vector else {
            if self.field.is_some() || self.radius.is_some() || self.range_filter.is_some() {
                return Err(Error::invalid(
                    "a live query without \"vector\" takes no \"field\", \"radius\" and \"rangeFilter\"",
                ));
            }
            let request = QueryRequest { filter, filter_params, partitions, output_fields, ..QueryRequest::default() };
            return Ok(LiveRequest::Rows(Box::new(QueryRequest { limit: self.limit, ..request })));
        };
        Ok(LiveRequest::Nearest(Box::new(SearchRequest {
            vector,
            field: self.field,
            limit: self.limit.unwrap_or(10),
            radius: self.radius,
            range_filter: self.range_filter,
            filter,
            filter_params,
            partitions,
            output_fields,
            ..SearchRequest::default()
        })))
    }
}

struct Line {
    /// None after an error.
    queries: Option<LiveQueries>,
    /// What is told first.
    answer: Option<Vec<LiveHit>>,
    stop: Stop,
    caller: Caller,
}

/// The answer, then what happens to it, for as long as the client listens.
async fn live(caller: Caller, Path(name): Path<String>, Json(body): Json<LiveBody>) -> Result<Response, Failure> {
    let mut queries = caller.read(&name)?.live().await?;
    let is_bare = body.is_bare();
    let (_, answer) = match body {
        LiveBody { hybrid: Some(_), .. } if !is_bare => {
            return Err(
                Error::invalid("beside \"hybrid\" there is nothing else: its searches have what they need").into()
            );
        }
        LiveBody { hybrid: Some(hybrid), .. } => queries.add_hybrid(hybrid.into_request()?).await?,
        body => queries.add(body.into_request()?).await?,
    };
    let line = Line { queries: Some(queries), answer: Some(answer), stop: caller.app.stop.clone(), caller };
    let events = futures_util::stream::unfold(line, |mut line| async move {
        let event = line.event().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), line))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

impl Line {
    /// The text of the next event; `None` when there are no more.
    async fn event(&mut self) -> Option<String> {
        let queries = self.queries.as_mut()?;
        if let Some(answer) = self.answer.take() {
            let answer: Vec<JsonValue> = answer.iter().map(hit).collect();
            return Some(event("answer", &json!({"lsn": queries.lsn(), "answer": answer})));
        }
        let (mut stop, caller) = (self.stop.clone(), self.caller.clone());
        let mut ends = std::pin::pin!(caller.ends());
        let told = async {
            loop {
                if let Some(update) = queries.update().await?.pop() {
                    return Ok(Some(update));
                }
                tokio::select! {
                    changed = queries.waits() => changed?,
                    () = stop.requested() => return Ok(None),
                    error = &mut ends => return Err(error),
                }
            }
        };
        match told.await {
            Ok(update) => update.map(|update| event("differences", &told_as_json(update.lsn, &update.differences))),
            Err(error) => {
                self.queries = None;
                let error: Error = error;
                Some(event("error", &json!({"error": {"kind": error.kind().as_str(), "message": error.message()}})))
            }
        }
    }
}

fn event(kind: &str, data: &JsonValue) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

fn hit(hit: &LiveHit) -> JsonValue {
    json!({"key": hit.key, "score": hit.score, "row": hit.row, "version": hit.version})
}

fn told_as_json(lsn: Lsn, differences: &[Difference]) -> JsonValue {
    let told = |difference: &Difference| match difference {
        Difference::Left(index, key) => json!({"op": "left", "index": index, "key": key}),
        Difference::Entered(index, entered) => json!({"op": "entered", "index": index, "hit": hit(entered)}),
        Difference::Moved(from, index, moved) => {
            json!({"op": "moved", "index": index, "from": from, "hit": hit(moved)})
        }
        Difference::Changed(index, changed) => json!({"op": "changed", "index": index, "hit": hit(changed)}),
    };
    json!({"lsn": lsn, "differences": differences.iter().map(told).collect::<Vec<_>>()})
}
