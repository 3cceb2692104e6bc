use std::cell::{Cell, RefCell};
use std::sync::Arc;

use wasm_bindgen::prelude::*;

use super::error::{OrThrow, Thrown};
use super::message::{
    self, DatabaseStatsMessage, MemoryMessage, OpenMessage, PoolStatsMessage, SchemaMessage, SyncMessage,
};
use super::pool::ForeignPool;
use super::sync::Tokens;
use super::{Collection, SyncSession};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{ArchiveImport, ArchivePieces, Db, TokenSource, WorkProgress};
use crate::engine::{CollectionOptions, CollectionSpec};
use crate::storage::{DirectoryStorage, ForeignStorage, MemoryStorage, Storage};

/// An archive on its way out.
#[wasm_bindgen]
pub struct Archive {
    pieces: RefCell<Option<ArchivePieces>>,
    ended: Cell<bool>,
}

#[wasm_bindgen]
impl Archive {
    /// The next bytes; none after the last.
    pub async fn next(&self) -> Thrown<Vec<u8>> {
        // Who asks twice at once has lost the order, and gets nothing.
        let Some(mut pieces) = self.pieces.take() else { return Ok(Vec::new()) };
        let piece = pieces.next().await.or_throw()?;
        if !self.ended.get() {
            self.pieces.replace(Some(pieces));
        }
        Ok(piece.unwrap_or_default())
    }

    /// Lets go of what it is made of.
    pub fn end(&self) {
        self.ended.set(true);
        self.pieces.take();
    }
}

/// An archive on its way in.
#[wasm_bindgen]
pub struct Import {
    import: RefCell<Option<ArchiveImport>>,
    ended: Cell<bool>,
}

#[wasm_bindgen]
impl Import {
    /// Takes the next piece. One after the other: of two at once the second fails.
    pub async fn push(&self, piece: Vec<u8>) -> Thrown<()> {
        let mut import = self.take().or_throw()?;
        import.push(piece.into()).await.or_throw()?;
        if self.ended.get() {
            import.abort().await;
        } else {
            self.import.replace(Some(import));
        }
        Ok(())
    }

    /// Adds the collections; tells their names.
    pub async fn finish(&self) -> Thrown<Vec<String>> {
        self.take().or_throw()?.finish().await.or_throw()
    }

    /// Gives it up.
    pub async fn abort(&self) {
        self.ended.set(true);
        if let Some(import) = self.import.take() {
            import.abort().await;
        }
    }

    fn take(&self) -> Result<ArchiveImport> {
        self.import.take().ok_or_else(|| Error::invalid("this import has ended, or has not taken its last piece yet"))
    }
}

/// An open store.
#[wasm_bindgen]
pub struct Database {
    pub(super) db: Db,
}

async fn open(storage: Arc<dyn Storage>, options: &[u8]) -> Thrown<Database> {
    let options =
        message::decode::<OpenMessage>("the options", options).and_then(OpenMessage::into_options).or_throw()?;
    let db = Db::open(storage, options).await.or_throw()?;
    Ok(Database { db })
}

#[wasm_bindgen]
impl Database {
    /// A store in memory, gone when it is closed.
    #[wasm_bindgen(js_name = openMemory)]
    pub async fn open_memory(options: Vec<u8>) -> Thrown<Self> {
        open(Arc::new(MemoryStorage::new()), &options).await
    }

    /// The store of that name in the origin's private file system.
    #[wasm_bindgen(js_name = openOpfs)]
    pub async fn open_opfs(name: String, options: Vec<u8>) -> Thrown<Self> {
        open(Arc::new(DirectoryStorage::open_opfs(&name).await.or_throw()?), &options).await
    }

    /// The store in a directory: an object with the shape of a `FileSystemDirectoryHandle`.
    #[wasm_bindgen(js_name = openDirectory)]
    pub async fn open_directory(directory: JsValue, options: Vec<u8>) -> Thrown<Self> {
        open(Arc::new(DirectoryStorage::open_directory(directory).await.or_throw()?), &options).await
    }

    /// The store that JavaScript keeps: see `storage.ts` of the package.
    #[wasm_bindgen(js_name = openForeign)]
    pub async fn open_foreign(storage: JsValue, options: Vec<u8>) -> Thrown<Self> {
        open(Arc::new(ForeignStorage::new(storage)), &options).await
    }

    /// This replica's id.
    #[wasm_bindgen(getter, js_name = replicaId)]
    pub fn replica_id(&self) -> f64 {
        self.db.replica_id().0 as f64
    }

    /// Creates a collection from a schema message and an options message; with `if_not_exists`, takes one of the same name and schema.
    #[wasm_bindgen(js_name = createCollection)]
    pub async fn create_collection(
        &self,
        name: String,
        schema: Vec<u8>,
        options: Vec<u8>,
        if_not_exists: bool,
    ) -> Thrown<Collection> {
        let options = message::decode::<CollectionOptions>("options", &options).or_throw()?;
        // Completed, so that it is compared with what is stored.
        let spec = message::decode::<SchemaMessage>("the schema", &schema)
            .and_then(|schema| CollectionSpec { options, ..schema.into_spec()? }.completed())
            .or_throw()?;
        let collection = match self.db.create_collection(&name, spec.clone()).await {
            Err(error) if if_not_exists && error.kind() == ErrorKind::AlreadyExists => {
                let there = self.db.collection(&name).or_throw()?;
                if !there.spec().schema.is_like(&spec.schema) || there.spec().indexes != spec.indexes {
                    return Err(error.context("it has another schema")).or_throw();
                }
                there
            }
            created => created.or_throw()?,
        };
        Ok(Collection::new(&self.db, collection))
    }

    /// The collection of that name.
    pub fn collection(&self, name: &str) -> Thrown<Collection> {
        Ok(Collection::new(&self.db, self.db.collection(name).or_throw()?))
    }

    /// The names of all collections, ascending.
    pub fn collections(&self) -> Vec<String> {
        self.db.collections().iter().map(|collection| collection.name().to_owned()).collect()
    }

    /// Removes a collection with its rows.
    #[wasm_bindgen(js_name = dropCollection)]
    pub async fn drop_collection(&self, name: String) -> Thrown<()> {
        self.db.drop_collection(&name).await.or_throw()
    }

    /// Gives a collection another name; with `there`, an alias that is there.
    #[wasm_bindgen(js_name = setAlias)]
    pub async fn set_alias(&self, alias: String, collection: String, there: bool) -> Thrown<()> {
        let set = if there {
            self.db.alter_alias(&alias, &collection).await
        } else {
            self.db.create_alias(&alias, &collection).await
        };
        set.or_throw()
    }

    /// Removes an alias.
    #[wasm_bindgen(js_name = dropAlias)]
    pub async fn drop_alias(&self, alias: String) -> Thrown<()> {
        self.db.drop_alias(&alias).await.or_throw()
    }

    /// All aliases, as an array of pairs with their collections.
    pub fn aliases(&self) -> Vec<u8> {
        message::encode(&self.db.aliases())
    }

    /// What the store holds.
    pub async fn stats(&self) -> Thrown<Vec<u8>> {
        let mut stats = DatabaseStatsMessage {
            replica_id: self.db.replica_id().0 as f64,
            collections: Vec::new(),
            pool: self.db.pool_stats().map(PoolStatsMessage::from),
        };
        for collection in self.db.collections() {
            let of_collection = collection.stats().await.or_throw()?;
            stats.collections.push((collection.name(), &of_collection).into());
        }
        Ok(message::encode(&stats))
    }

    /// Starts a sync, whose statuses go to `listener` as bytes; `tokens` promises one whenever the hub wants to know who this is.
    pub fn sync(
        &self,
        request: Vec<u8>,
        listener: js_sys::Function,
        tokens: Option<js_sys::Function>,
    ) -> Thrown<SyncSession> {
        let options = message::decode::<SyncMessage>("the request", &request).or_throw()?;
        let tokens = tokens.map(|tokens| -> Arc<dyn TokenSource> { Arc::new(Tokens(tokens)) });
        let options = options.into_options().or_throw()?;
        Ok(SyncSession::new(self.db.sync_as(options, tokens).or_throw()?, listener))
    }

    /// A hub for sync clients; `admit` says what the holder of a token may do, and without it everybody may do everything.
    #[cfg(feature = "hub")]
    pub fn hub(&self, admit: Option<js_sys::Function>, create_collections: bool) -> super::Hub {
        super::Hub::new(&self.db, admit, create_collections)
    }

    /// Loads a dataset: an Arrow IPC file that describes its own collection.
    #[wasm_bindgen(js_name = loadDataset)]
    pub async fn load_dataset(&self, name: String, bytes: Vec<u8>) -> Thrown<Collection> {
        Ok(Collection::new(&self.db, self.db.load_dataset(&name, bytes.into(), |_, _| {}).await.or_throw()?))
    }

    /// The whole store as it is now, as an archive.
    #[wasm_bindgen(js_name = exportArchive)]
    pub async fn export_archive(&self) -> Thrown<Archive> {
        let pieces = self.db.snapshot().await.or_throw()?.into_archive(|_| false);
        Ok(Archive { pieces: RefCell::new(Some(pieces)), ended: Cell::new(false) })
    }

    /// Begins to add the collections of an archive.
    #[wasm_bindgen(js_name = importArchive)]
    pub fn import_archive(&self) -> Thrown<Import> {
        Ok(Import { import: RefCell::new(Some(self.db.import().or_throw()?)), ended: Cell::new(false) })
    }

    /// Has so many workers that JavaScript runs search beside the engine: see `pool.ts` of the package.
    #[wasm_bindgen(js_name = usePool)]
    pub fn use_pool(&self, pool: JsValue, workers: usize) {
        self.db.use_pool(Arc::new(ForeignPool::new(pool, workers)));
    }

    /// What is held in memory.
    pub fn memory(&self) -> Vec<u8> {
        message::encode(&MemoryMessage::from(self.db.memory()))
    }

    /// Calls `listener` with the collection, the work, and the rows done and in all, when background work has come a good way on.
    #[wasm_bindgen(js_name = onProgress)]
    pub fn on_progress(&self, listener: js_sys::Function) {
        self.db.on_progress(move |progress: WorkProgress| {
            let [done, all] = [progress.rows_done as f64, progress.rows as f64];
            // What a listener throws is its own affair.
            let _ = listener.call4(
                &JsValue::NULL,
                &progress.collection.into(),
                &progress.work.as_str().into(),
                &done.into(),
                &all.into(),
            );
        });
    }

    /// After how many milliseconds background work should look again, because a segment is due to be sealed then.
    #[wasm_bindgen(js_name = sealDueMs)]
    pub fn seal_due_ms(&self) -> Option<f64> {
        self.db.seal_due_ms().map(|due_ms| due_ms as f64)
    }

    /// One bounded step of background work; tells whether more is waiting.
    pub async fn maintain(&self) -> Thrown<bool> {
        self.db.maintain().await.or_throw()
    }

    /// Flushes everything and gives up the storage.
    pub async fn close(&self) -> Thrown<()> {
        self.db.close().await.or_throw()
    }
}
