use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::CollectionOptions;
use crate::base::{Error, Result};
use crate::distance::Metric;
use crate::index::{IndexKind, IndexSpec};
use crate::model::{DataType, Field, Schema};

/// What a collection is made of: its schema, an index for each vector field, and how its rows are kept.
///
/// As JSON: `{"fields": […], "dynamic": false, "indexes": {"embedding": {"metric": "IP", "kind": "FLAT"}},
/// "options": {"codec": "gzip"}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// The fields.
    #[serde(flatten, with = "by_value")]
    pub schema: Arc<Schema>,
    /// By vector field; one that is not named gets HNSW with COSINE where it can have it, else FLAT with COSINE, bits with
    /// HAMMING, sparse ones with IP.
    #[serde(default)]
    pub indexes: BTreeMap<String, IndexSpec>,
    /// How its rows are kept.
    #[serde(default, skip_serializing_if = "CollectionOptions::is_usual")]
    pub options: CollectionOptions,
}

/// A shared schema is written as the schema itself.
mod by_value {
    use super::{Arc, Schema};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(schema: &Arc<Schema>, serializer: S) -> Result<S::Ok, S::Error> {
        schema.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Schema>, D::Error> {
        Schema::deserialize(deserializer).map(Arc::new)
    }
}

impl CollectionSpec {
    /// The same with an index for every vector field.
    ///
    /// # Errors
    /// `InvalidArgument` for an index on a field that is no vector, by a metric that is not for its type, of a kind that its
    /// type does not have, for HNSW parameters out of range, and for options that cannot be.
    pub fn completed(mut self) -> Result<Self> {
        self.options = self.options.checked()?;
        for (name, index) in &self.indexes {
            let Some(field) = self.schema.field(name).filter(|field| field.data_type.is_vector()) else {
                return Err(Error::invalid(format!("index on {name:?}: expected the name of a vector field")));
            };
            index.check(field).map_err(|error| error.context(format_args!("index on {name:?}")))?;
        }
        for (field, _) in self.schema.vectors() {
            self.indexes.entry(field.name.clone()).or_insert_with(|| Self::usual_index(field));
        }
        Ok(self)
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
