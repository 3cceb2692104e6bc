use std::collections::BTreeMap;
use std::sync::Arc;

use crate::index::IndexSpec;
use crate::model::Schema;

/// What a collection is made of: its schema, and an index for each vector field.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionSpec {
    /// The fields.
    pub schema: Arc<Schema>,
    /// By vector field; a field that is not named gets HNSW with COSINE.
    pub indexes: BTreeMap<String, IndexSpec>,
}
