use super::{Collection, Db};
use crate::base::{Error, ReplicaId, Result, Sequence, Timestamp, Version};
use crate::engine::{ChangeSet, CollectionSpec};
use crate::model::{Batch, IpcReader};

/// Metadata of a dataset's Arrow schema: its collection's spec as JSON, and the version that its rows have everywhere.
const SPEC_METADATA: &str = "eddy.spec";
const ORIGIN_METADATA: &str = "eddy.origin";
const TIMESTAMP_METADATA: &str = "eddy.timestamp";

impl Db {
    /// Loads a dataset: an Arrow IPC file that says in its schema's metadata which collection it makes (`eddy.spec`, as
    /// JSON) and which version its rows have (`eddy.origin`, `eddy.timestamp`, decimal).
    ///
    /// The collection is created when it is not there. Replicas that load the same dataset hold the same versions, so they
    /// have nothing to send each other, and rows that were changed or deleted since stay as they are. Loading again, or going
    /// on after a crash, skips what is there: each record batch is one batch of the origin. `progress` is told the rows done
    /// and, from the file's footer, all record batches done and in all.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are no Arrow file, `InvalidArgument` when its metadata or rows are not as they should be, or
    /// the collection is there with another spec.
    pub async fn load_dataset(
        &self,
        name: &str,
        bytes: bytes::Bytes,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Collection> {
        let context = |error: Error| error.context(format!("dataset {name:?}"));
        let reader = IpcReader::new(bytes).map_err(context)?;
        let schema = reader.schema().clone();
        let metadata = |key: &str| {
            let missing = || Error::invalid(format!("dataset {name:?}: its Arrow schema has no metadata {key:?}"));
            schema.metadata().get(key).ok_or_else(missing)
        };
        let number = |key: &str| {
            let text = metadata(key)?;
            let wrong =
                |_| Error::invalid(format!("dataset {name:?}: metadata {key:?} is {text:?}, expected a number"));
            text.parse::<u64>().map_err(wrong)
        };
        let spec: CollectionSpec = CollectionSpec::from_json(metadata(SPEC_METADATA)?)
            .map_err(|error| Error::invalid(format!("dataset {name:?}: metadata {SPEC_METADATA:?}: {error}")))?;
        let spec = spec.completed()?;
        let (origin, timestamp) = (ReplicaId(number(ORIGIN_METADATA)?), Timestamp(number(TIMESTAMP_METADATA)?));
        let collection = match self.collection(name) {
            Ok(collection)
                if collection.spec().schema.is_like(&spec.schema) && collection.spec().indexes == spec.indexes =>
            {
                collection
            }
            Ok(_) => {
                return Err(Error::invalid(format!("dataset {name:?}: the collection is there with another spec")));
            }
            Err(_) => self.create_collection(name, spec).await?,
        };
        let done = collection.seen().get(&origin).copied().unwrap_or_default();
        let batches = reader.batches_left();
        for (index, batch) in reader.enumerate() {
            let sequence = Sequence(index as u64 + 1);
            if sequence > done {
                let puts = Batch::from_arrow(&collection.spec().schema, &batch.map_err(context)?)
                    .map_err(|error| error.context(format!("dataset {name:?}: record batch {index}")))?;
                let put_versions = vec![Version { timestamp, origin, sequence }; puts.len()];
                collection.apply(ChangeSet { puts, put_versions, deletes: Vec::new() }, None).await?;
            }
            progress(index + 1, batches);
        }
        Ok(collection)
    }
}
