use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CollectionOptions;
use crate::base::{Error, Result, message};
use crate::distance::Metric;
use crate::index::{IndexKind, IndexSpec};
use crate::model::schema::{FieldText, SchemaText};
use crate::model::{DataType, Field, FieldPath, META_COLUMN, Schema, Step};

/// What a collection is made of: its schema, an index for each vector field, and how its rows are kept.
///
/// As JSON: `{"fields": […], "dynamic": false, "indexes": {"embedding": {"metric": "IP", "kind": "FLAT"}},
/// "options": {"codec": "gzip"}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionSpec {
    /// The fields.
    pub schema: Arc<Schema>,
    /// By vector field; one that is not named gets HNSW with COSINE where it can have it, else FLAT with COSINE, bits with
    /// HAMMING, sparse ones with IP.
    pub indexes: BTreeMap<String, IndexSpec>,
    /// How its rows are kept.
    pub options: CollectionOptions,
}

/// The entries of a schema, and two more. (`serde(flatten)` would read every type of a schema once more, from a copy of what is read.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SpecText {
    fields: Vec<FieldText>,
    #[serde(default)]
    dynamic: bool,
    ttl_seconds: Option<u64>,
    num_partitions: Option<u16>,
    #[serde(default)]
    partitioned: bool,
    #[serde(default)]
    indexes: BTreeMap<String, IndexSpec>,
    #[serde(default)]
    options: CollectionOptions,
}

impl<'de> Deserialize<'de> for CollectionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SpecText { fields, dynamic, ttl_seconds, num_partitions, partitioned, indexes, options } =
            SpecText::deserialize(deserializer)?;
        let schema = SchemaText { fields, dynamic, ttl_seconds, num_partitions, partitioned };
        let schema = schema.into_schema().map_err(serde::de::Error::custom)?;
        Ok(Self { schema: Arc::new(schema), indexes, options })
    }
}

impl Serialize for CollectionSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let usual = self.options.is_usual();
        let mut map = serializer.serialize_map(Some(self.schema.entries() + 2 - usize::from(usual)))?;
        self.schema.serialize_entries(&mut map)?;
        map.serialize_entry("indexes", &self.indexes)?;
        if !usual {
            map.serialize_entry("options", &self.options)?;
        }
        map.end()
    }
}

impl CollectionSpec {
    /// The specification in a JSON text. Reads it by way of MessagePack, in which the store keeps specifications: a browser need not
    /// have what reads both.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let bytes = rmp_serde::to_vec(&json).map_err(|error| error.to_string())?;
        message::decode(&bytes).map_err(|error| error.to_string())
    }

    /// The same with an index for every vector field.
    ///
    /// # Errors
    /// `InvalidArgument` for an index on what is no field, by a metric that is not for its type, of a kind that its
    /// type does not have, for HNSW parameters out of range, and for options that cannot be.
    pub fn completed(mut self) -> Result<Self> {
        self.options = self.options.checked()?;
        for (name, index) in std::mem::take(&mut self.indexes) {
            let name = self.index_name(&name)?;
            let dynamic = Field::new(META_COLUMN, DataType::Json);
            let column = name.split('[').next().unwrap_or_default();
            let field = self.schema.field(column).unwrap_or(&dynamic);
            index.check(field).map_err(|error| error.context(format_args!("index on {name:?}")))?;
            self.indexes.insert(name, index);
        }
        for (field, _) in self.schema.vectors() {
            self.indexes.entry(field.name.clone()).or_insert_with(|| Self::usual_index(field));
        }
        Ok(self)
    }

    /// The names of the indexes that tell which rows have a term of that column, or of a place in it.
    pub fn terms_of<'a>(&'a self, column: &'a str) -> impl Iterator<Item = &'a str> {
        let text = self.schema.field(column).filter(|field| field.analyzer.is_some()).map(|field| field.name.as_str());
        let is_of = move |name: &str| name.split('[').next() == Some(column);
        let indexes = self.indexes.iter().filter(move |(name, index)| index.kind.is_terms() && is_of(name));
        text.into_iter().chain(indexes.map(|(name, _)| name.as_str()))
    }

    /// The name by which an index of `text` is kept: a field, or a place in JSON. A name that is none of a field is a key of the
    /// dynamic field.
    ///
    /// # Errors
    /// `InvalidArgument` for what no row can have.
    pub fn index_name(&self, text: &str) -> Result<String> {
        let expected =
            || Error::invalid(format!("index on {text:?}: expected the name of a field, or a place in JSON"));
        let FieldPath { column, steps } = FieldPath::parse(text).map_err(|_| expected())?;
        if steps.contains(&Step::Length) {
            return Err(expected());
        }
        let path = match self.schema.field(&column) {
            Some(field) if steps.is_empty() || field.data_type == DataType::Json => FieldPath { column, steps },
            None if self.schema.dynamic() && column == META_COLUMN && !steps.is_empty() => FieldPath { column, steps },
            None if self.schema.dynamic() && !column.starts_with('$') => {
                let steps = std::iter::once(Step::Key(column)).chain(steps).collect();
                FieldPath { column: META_COLUMN.to_owned(), steps }
            }
            _ => return Err(expected()),
        };
        Ok(path.to_string())
    }

    /// The index of a vector field for which nothing is said.
    pub fn usual_index(field: &Field) -> IndexSpec {
        let metric = match field.data_type {
            DataType::BinaryVector { .. } => Metric::Hamming,
            DataType::SparseFloatVector => Metric::Ip,
            _ => Metric::Cosine,
        };
        IndexSpec { metric, kind: if field.is_apart() { IndexKind::HNSW } else { IndexKind::Flat } }
    }
}
