use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::distance::Metric;
use crate::index::{IndexKind, IndexSpec};
use crate::model::Schema;

/// What a collection is made of: its schema, and an index for each vector field.
///
/// As JSON: `{"fields": […], "dynamic": false, "indexes": {"embedding": {"metric": "IP", "kind": "FLAT"}}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// The fields.
    #[serde(flatten, with = "by_value")]
    pub schema: Arc<Schema>,
    /// By vector field; a field that is not named gets HNSW with COSINE.
    #[serde(default)]
    pub indexes: BTreeMap<String, IndexSpec>,
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
    /// `InvalidArgument` for an index on a field that is no vector, and for HNSW parameters out of range.
    pub fn completed(mut self) -> Result<Self> {
        for (name, index) in &self.indexes {
            let vector = self.schema.field(name).is_some_and(|field| field.data_type.is_vector());
            if !vector {
                return Err(Error::invalid(format!("index on {name:?}: expected the name of a float_vector field")));
            }
            if let IndexKind::Hnsw { m, ef_construction } = index.kind
                && (!(2..=2048).contains(&m) || !(1..=65_536).contains(&ef_construction))
            {
                return Err(Error::invalid(format!(
                    "index on {name:?}: M {m} and efConstruction {ef_construction}; expected 2 to 2048 and 1 to 65536"
                )));
            }
        }
        for field in self.schema.fields() {
            if field.data_type.is_vector() {
                let usual = IndexSpec { metric: Metric::Cosine, kind: IndexKind::HNSW };
                self.indexes.entry(field.name.clone()).or_insert(usual);
            }
        }
        Ok(self)
    }
}
