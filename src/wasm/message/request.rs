use serde::Deserialize;
use serde_bytes::Bytes;

use super::decode_first;
use super::item::Item;
use super::rows::decode_rows;
use crate::base::{Error, Result};
use crate::db::{
    Bm25Options, ChangeKind, ChangesRequest, Collection, Durability, Highlight, HybridRequest, Operation, QueryRequest,
    SearchRequest, Target, WriteOptions,
};
use crate::index::SearchParams;
use crate::model::{Key, Schema, Value};
use crate::query::{Parameters, Ranker, Rerank};

fn keys(schema: &Schema, items: Vec<Item>) -> Result<Vec<Key>> {
    let name = &schema.primary_key().name;
    let key = |(index, item): (usize, Item)| {
        item.into_key().map_err(|error| error.context(format_args!("key {index} of {name:?}")))
    };
    items.into_iter().enumerate().map(key).collect()
}

/// The values of template parameters.
pub(super) type ParameterItems = std::collections::BTreeMap<String, Item>;

pub(super) fn parameters(items: ParameterItems) -> Result<Parameters> {
    let value = |(name, item): (String, Item)| {
        let value = item.into_value(None).map_err(|error| error.context(format_args!("parameter {name:?}")))?;
        Ok((name, value))
    };
    items.into_iter().map(value).collect()
}

/// Rows by key.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct GetMessage {
    keys: Vec<Item>,
    #[serde(default)]
    pub(in super::super) partitions: Vec<String>,
    #[serde(default)]
    output_fields: Option<Vec<String>>,
    #[serde(default)]
    pub(in super::super) bigint: bool,
}

impl GetMessage {
    /// The keys and the output fields.
    pub(in super::super) fn into_keys(self, schema: &Schema) -> Result<(Vec<Key>, Option<Vec<String>>)> {
        Ok((keys(schema, self.keys)?, self.output_fields))
    }
}

/// Operations that are done together. Behind it, from a multiple of four bytes on, come the columns of their rows, in order: the 32-bit
/// floats of all rows, one vector after the other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WriteRequestMessage<'a> {
    #[serde(borrow)]
    operations: Vec<OperationMessage<'a>>,
    #[serde(default)]
    partition: Option<String>,
    #[serde(default)]
    durability: Option<Durability>,
}

/// One of the first three, and on which condition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OperationMessage<'a> {
    #[serde(borrow, default)]
    insert: Option<&'a Bytes>,
    #[serde(borrow, default)]
    upsert: Option<&'a Bytes>,
    #[serde(default)]
    delete: Option<DeleteMessage>,
    #[serde(default)]
    if_absent: bool,
    #[serde(default)]
    if_version: Option<Vec<Option<String>>>,
    /// Fields whose vectors are no part of the rows, and how many bytes they come to.
    #[serde(default)]
    columns: Vec<(&'a str, usize)>,
}

impl<'a> WriteRequestMessage<'a> {
    /// The operations in `bytes`, and how they are done.
    pub(in super::super) fn decode(bytes: &'a [u8], collection: &Collection) -> Result<(Vec<Operation>, WriteOptions)> {
        let (message, rest) = decode_first::<Self>("the request", bytes)?;
        let mut rest = rest.get((bytes.len() - rest.len()).wrapping_neg() % 4..).unwrap_or_default();
        let schema = &collection.spec().schema;
        let mut options =
            WriteOptions { durability: message.durability, partition: message.partition, ..Default::default() };
        let mut operations = Vec::new();
        for message in message.operations {
            let mut columns = Vec::new();
            for (field, len) in message.columns {
                let cut = rest.split_at_checked(len);
                let (column, after) =
                    cut.ok_or_else(|| Error::invalid(format!("column {field:?} of {len} bytes is cut short")))?;
                columns.push((field, column));
                rest = after;
            }
            let batch = |rows: &[u8]| {
                let rows = decode_rows(schema, rows, &columns)?;
                collection.to_batch_beside(rows, &columns)
            };
            let operation = match (message.insert, message.upsert, message.delete) {
                (Some(rows), None, None) => Operation::Insert(batch(rows)?),
                (None, Some(rows), None) => Operation::Upsert(batch(rows)?),
                (None, None, Some(target)) => Operation::Delete(target.into_target(schema)?),
                _ => return Err(Error::invalid("an operation is one of insert, upsert and delete")),
            };
            options.conditions.extend(operation.conditions_of(message.if_absent, message.if_version.as_deref())?);
            operations.push(operation);
        }
        Ok((operations, options))
    }
}

/// The keys of the rows, in order.
pub(in super::super) fn keys_written(operations: &[Operation]) -> Vec<Key> {
    let keys = |operation: &Operation| match operation {
        Operation::Insert(batch) | Operation::Upsert(batch) => batch.keys(),
        Operation::Delete(_) => Vec::new(),
    };
    operations.iter().flat_map(keys).collect()
}

/// Rows to delete: by keys, or by a filter with its parameters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeleteMessage {
    #[serde(default)]
    keys: Option<Vec<Item>>,
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    filter_params: ParameterItems,
}

impl DeleteMessage {
    /// The rows meant.
    fn into_target(self, schema: &Schema) -> Result<Target> {
        match (self.keys, self.filter) {
            (Some(items), None) => keys(schema, items).map(Target::Keys),
            (None, Some(filter)) => Ok(Target::FilterWith(filter, parameters(self.filter_params)?)),
            (Some(_), Some(_)) => Err(Error::invalid("delete takes keys or a filter, got both")),
            (None, None) => Err(Error::invalid("delete takes keys or a filter, got neither")),
        }
    }
}

/// Which changes are followed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct ChangesMessage {
    since: String,
    operations: Vec<String>,
    filter: Option<String>,
    #[serde(default)]
    filter_params: ParameterItems,
    key_pattern: Option<String>,
    before: bool,
    after: bool,
    output_fields: Option<Vec<String>>,
    batch_size: usize,
    buffer_size: usize,
    subscription: Option<String>,
    pub(in super::super) bigint: bool,
}

impl ChangesMessage {
    /// The request.
    pub(in super::super) fn into_request(self) -> Result<ChangesRequest> {
        Ok(ChangesRequest {
            since: self.since.parse()?,
            operations: self.operations.iter().map(|name| ChangeKind::from_name(name)).collect::<Result<_>>()?,
            filter: self.filter,
            filter_params: parameters(self.filter_params)?,
            key_pattern: self.key_pattern,
            before: self.before,
            after: self.after,
            output_fields: self.output_fields,
            batch_size: self.batch_size,
            buffer_size: self.buffer_size as u64,
            subscription: self.subscription,
        })
    }
}

/// Rows by filter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct QueryMessage {
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    filter_params: ParameterItems,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    output_fields: Option<Vec<String>>,
    #[serde(default)]
    order_by: Vec<String>,
    #[serde(default)]
    group_by: Vec<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    pub(in super::super) bigint: bool,
}

impl QueryMessage {
    /// The query.
    pub(in super::super) fn into_request(self) -> Result<QueryRequest> {
        Ok(QueryRequest {
            filter: self.filter,
            filter_params: parameters(self.filter_params)?,
            partitions: self.partitions,
            output_fields: self.output_fields,
            limit: self.limit,
            offset: self.offset,
            order_by: self.order_by,
            group_by: self.group_by,
        })
    }
}

/// The nearest rows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct SearchMessage {
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    vector: Option<Item>,
    #[serde(default)]
    vectors: Vec<Item>,
    #[serde(default)]
    ids: Vec<Item>,
    #[serde(default)]
    radius: Option<f64>,
    #[serde(default)]
    range_filter: Option<f64>,
    #[serde(default)]
    group_by: Option<String>,
    #[serde(default)]
    group_size: usize,
    #[serde(default)]
    strict_group_size: bool,
    #[serde(default = "limit_default")]
    limit: usize,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    filter_params: ParameterItems,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    output_fields: Option<Vec<String>>,
    #[serde(default)]
    ef: Option<usize>,
    #[serde(default)]
    nprobe: Option<usize>,
    #[serde(default)]
    reorder_k: Option<usize>,
    #[serde(default)]
    search_list: Option<usize>,
    #[serde(default)]
    exact: bool,
    #[serde(default)]
    bm25: Option<Bm25Options>,
    #[serde(default)]
    drop_ratio_search: Option<f32>,
    #[serde(default)]
    rankers: Vec<Ranker>,
    /// Of several searches that are ranked together; then only what counts for all of them is here besides.
    #[serde(default)]
    searches: Option<Vec<Self>>,
    #[serde(default)]
    rerank: Option<Rerank>,
    #[serde(default)]
    highlight: Option<Highlight>,
    #[serde(default)]
    pub(in super::super) bigint: bool,
}

/// As many hits as a first page of results usually shows.
const fn limit_default() -> usize {
    10
}

impl SearchMessage {
    /// Whether it is several, which are ranked together.
    pub(in super::super) const fn is_hybrid(&self) -> bool {
        self.searches.is_some()
    }

    /// The searches.
    pub(in super::super) fn into_hybrid(self, schema: &Schema) -> Result<HybridRequest> {
        let mut request = HybridRequest {
            searches: Vec::new(),
            rerank: self.rerank.unwrap_or_default(),
            rankers: self.rankers,
            limit: self.limit,
            offset: self.offset,
            output_fields: self.output_fields,
        };
        for search in self.searches.unwrap_or_default() {
            request.searches.push(search.into_request(schema)?);
        }
        Ok(request)
    }

    /// The search.
    pub(in super::super) fn into_request(self, schema: &Schema) -> Result<SearchRequest> {
        let mut vectors = schema.vectors().map(|(field, _)| field);
        let field = match &self.field {
            Some(name) => schema.field(name),
            None => vectors.next(),
        };
        let data_type = field.map(|field| field.data_type);
        let query = |item: Item| match item {
            Item::String(text) => Ok(Value::String(text)),
            item => item.into_value(data_type).map_err(|error| error.context("the query vector")),
        };
        Ok(SearchRequest {
            vector: self.vector.map_or(Ok(Value::Null), query)?,
            vectors: self.vectors.into_iter().map(query).collect::<Result<_>>()?,
            ids: keys(schema, self.ids)?,
            radius: self.radius.map(|bound| bound as f32),
            range_filter: self.range_filter.map(|bound| bound as f32),
            group_by: self.group_by,
            group_size: self.group_size,
            strict_group_size: self.strict_group_size,
            field: self.field,
            limit: self.limit,
            offset: self.offset,
            filter: self.filter,
            filter_params: parameters(self.filter_params)?,
            partitions: self.partitions,
            output_fields: self.output_fields,
            ef: self.ef,
            params: SearchParams {
                ef: None,
                nprobe: self.nprobe,
                reorder_k: self.reorder_k,
                search_list: self.search_list,
            },
            exact: self.exact,
            bm25: self.bm25,
            drop_ratio: self.drop_ratio_search,
            rankers: self.rankers,
            highlight: self.highlight,
        })
    }
}
