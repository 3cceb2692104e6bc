use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::item::Item;
use super::rows::ValueOut;
use crate::base::{Error, Result};
use crate::db::Collection;
use crate::distance::Metric;
use crate::engine::CollectionSpec;
use crate::index::{IndexParts, IndexSpec};
use crate::model::schema::{TypeParts, analyzer};
use crate::model::{Field, Schema, Value};

/// `{ fields: [{ name, type, ... }], dynamic }`: the fields as a list, because their order counts.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct SchemaMessage {
    fields: Vec<FieldMessage>,
    #[serde(default)]
    dynamic: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_partitions: Option<u16>,
    /// Of places in JSON; those of fields stand with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    indexes: BTreeMap<String, IndexParts>,
}

/// One field.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct FieldMessage {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    primary_key: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    auto_id: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    partition_key: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    nullable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "serialize_default")]
    default: Option<DefaultMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    element_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_length: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_capacity: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dim: Option<u32>,
    #[serde(default, skip_serializing)]
    enable_analyzer: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analyzer: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<Metric>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<IndexParts>,
}

/// An index that a field is to have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct IndexMessage {
    #[serde(default)]
    metric: Option<Metric>,
    #[serde(default)]
    index: Option<IndexParts>,
}

impl IndexMessage {
    /// The index, where nothing is said as it is.
    pub(in super::super) fn into_spec(self, collection: &Collection, field: &str) -> Result<IndexSpec> {
        collection.index_of(field, self.metric, self.index.map(IndexParts::into_kind).transpose()?)
    }
}

/// A default on its way in, whose type is known once its field's is, and on its way out.
enum DefaultMessage {
    In(Item),
    Out(Value),
}

impl<'de> Deserialize<'de> for DefaultMessage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Item::deserialize(deserializer).map(Self::In)
    }
}

fn serialize_default<S: Serializer>(default: &Option<DefaultMessage>, serializer: S) -> Result<S::Ok, S::Error> {
    match default {
        Some(DefaultMessage::Out(value)) => ValueOut(value).serialize(serializer),
        _ => serializer.serialize_unit(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl SchemaMessage {
    /// The collection that it describes.
    pub(in super::super) fn into_spec(self) -> Result<CollectionSpec> {
        let mut primary_keys = self.fields.iter().filter(|field| field.primary_key).map(|field| field.name.clone());
        let primary_key =
            primary_keys.next().ok_or_else(|| Error::invalid("the schema has no field with primaryKey: true"))?;
        if let Some(second) = primary_keys.next() {
            return Err(Error::invalid(format!(
                "one field can be the primary key, got {primary_key:?} and {second:?}"
            )));
        }
        let auto_id = self.fields.iter().any(|field| field.primary_key && field.auto_id);
        if let Some(other) = self.fields.iter().find(|field| !field.primary_key && field.auto_id) {
            return Err(Error::invalid(format!("field {:?}: autoId is for the primary key", other.name)));
        }
        let mut partition_keys = self.fields.iter().filter(|field| field.partition_key).map(|field| field.name.clone());
        let partition_key = partition_keys.next();
        if partition_keys.next().is_some() || (partition_key.is_none() && self.num_partitions.is_some()) {
            return Err(Error::invalid("one field can have partitionKey: true, and numPartitions needs it"));
        }
        let mut indexes = BTreeMap::new();
        let mut fields = Vec::with_capacity(self.fields.len());
        for field in self.fields {
            let name = field.name.clone();
            let (field, index) = field.into_field().map_err(|error| error.context(format_args!("field {name:?}")))?;
            if let Some(index) = index {
                indexes.insert(name, index);
            }
            fields.push(field);
        }
        for (place, parts) in self.indexes {
            if indexes.contains_key(&place) {
                return Err(Error::invalid(format!("two indexes for {place:?}, one of them with the field")));
            }
            indexes.insert(place, IndexSpec { metric: Metric::L2, kind: parts.into_kind()? });
        }
        let schema = Schema::new(fields, &primary_key, self.dynamic)?.with_ttl(self.ttl_seconds)?;
        let schema = if auto_id { schema.with_auto_id()? } else { schema };
        let schema = match partition_key {
            Some(field) => schema.with_partition_key(&field, self.num_partitions)?,
            None => schema,
        };
        Ok(CollectionSpec { schema: Arc::new(schema), indexes, options: Default::default() })
    }
}

impl FieldMessage {
    /// The field that it describes, to add to a collection.
    pub(in super::super) fn into_added(self) -> Result<(Field, Option<IndexSpec>)> {
        if self.primary_key || self.auto_id || self.partition_key {
            return Err(Error::invalid("a collection has its keys from the start"));
        }
        self.into_field()
    }

    fn into_field(self) -> Result<(Field, Option<IndexSpec>)> {
        let data_type = TypeParts {
            type_name: self.type_name,
            element_type: self.element_type,
            max_length: self.max_length,
            max_capacity: self.max_capacity,
            dim: self.dim,
        };
        let data_type = data_type.into_type().map_err(Error::invalid)?;
        let is_vector = data_type.is_vector();
        if self.metric.is_some() && !is_vector {
            return Err(Error::invalid(format!("metric is for vectors, not for {}", data_type.name())));
        }
        let default = match self.default {
            Some(DefaultMessage::In(item)) => {
                Some(item.into_value(Some(data_type)).map_err(|error| error.context("default"))?)
            }
            Some(DefaultMessage::Out(value)) => Some(value),
            None => None,
        };
        let analyzer = analyzer(self.enable_analyzer, self.analyzer).map_err(Error::invalid)?;
        let field = Field { name: self.name, data_type, nullable: self.nullable, default, analyzer };
        let usual = CollectionSpec::usual_index(&field);
        // What nothing is said of is left to the collection.
        let index = match (self.metric, self.index) {
            (None, None) => None,
            (metric, parts) => Some(IndexSpec {
                metric: metric.unwrap_or(usual.metric),
                kind: parts.map_or(Ok(usual.kind), IndexParts::into_kind)?,
            }),
        };
        Ok((field, index))
    }
}

impl From<&CollectionSpec> for SchemaMessage {
    fn from(spec: &CollectionSpec) -> Self {
        let field = |field: &Field| {
            let index = spec.indexes.get(&field.name);
            let parts = TypeParts::from(field.data_type);
            FieldMessage {
                name: field.name.clone(),
                type_name: parts.type_name,
                element_type: parts.element_type,
                max_length: parts.max_length,
                max_capacity: parts.max_capacity,
                dim: parts.dim,
                primary_key: field.name == spec.schema.primary_key().name,
                auto_id: spec.schema.auto_id() && field.name == spec.schema.primary_key().name,
                partition_key: spec.schema.partition_key().is_some_and(|(key, _)| key.name == field.name),
                enable_analyzer: None,
                analyzer: field.analyzer.as_ref().map(|analyzer| analyzer.json().clone()),
                nullable: field.nullable,
                default: field.default.clone().map(DefaultMessage::Out),
                metric: index.map(|index| index.metric).filter(|_| field.data_type.is_vector()),
                index: index.map(|index| index.kind.into()),
            }
        };
        let schema = &spec.schema;
        let of_places = spec.indexes.iter().filter(|(name, _)| schema.field(name).is_none());
        Self {
            fields: schema.fields().iter().map(field).collect(),
            dynamic: schema.dynamic(),
            ttl_seconds: schema.ttl_seconds(),
            num_partitions: schema.partition_key().map(|(_, partitions)| partitions),
            indexes: of_places.map(|(place, index)| (place.clone(), index.kind.into())).collect(),
        }
    }
}
