use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;

use async_lock::{Mutex, RwLock};
use bytes::Bytes;
use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    FileSystemGetDirectoryOptions, FileSystemGetFileOptions, FileSystemReadWriteOptions, FileSystemRemoveOptions,
};

use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;
use crate::storage::name::{
    already_exists, check_range, closed, from_file_name, must_cut, not_found, to_file_name, too_short,
};
use crate::storage::{Entry, Storage, check_name};

// Names of objects have no capitals, so this is none.
const LOCK_FILE: &str = "LOCK";

/// The directory of the origin in which each store has its own.
const ROOT_DIRECTORY: &str = "eddydb";

/// The longest encoded name of a store: what file systems under the browser allow, with room for what it adds.
const STORE_NAME_LEN_MAX: usize = 200;

/// How many files stay open: opening one costs two turns of the event loop, using an open one none. Chromium sets aside a
/// mebibyte of the quota or more for each that was written to.
const OPEN_FILES_MAX: usize = 16;

// The shape that a directory must have. Every member is looked up on the value itself, so an object of the application's with
// these methods does as well as the browser's.
#[wasm_bindgen]
extern "C" {
    type DirectoryHandle;
    #[wasm_bindgen(method, structural, catch, js_name = getDirectoryHandle)]
    fn get_directory_handle(
        this: &DirectoryHandle,
        name: &str,
        options: &FileSystemGetDirectoryOptions,
    ) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, structural, catch, js_name = getFileHandle)]
    fn get_file_handle(
        this: &DirectoryHandle,
        name: &str,
        options: &FileSystemGetFileOptions,
    ) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, structural, catch, js_name = removeEntry)]
    fn remove_entry(this: &DirectoryHandle, name: &str, options: &FileSystemRemoveOptions) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, structural, catch)]
    fn entries(this: &DirectoryHandle) -> Result<JsValue, JsValue>;

    type Iteration;
    #[wasm_bindgen(method, structural, catch)]
    fn next(this: &Iteration) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, structural, getter)]
    fn done(this: &Iteration) -> bool;
    #[wasm_bindgen(method, structural, getter)]
    fn value(this: &Iteration) -> JsValue;

    type FileHandle;
    #[wasm_bindgen(method, structural, getter)]
    fn kind(this: &FileHandle) -> Option<String>;
    #[wasm_bindgen(method, structural, catch, js_name = createSyncAccessHandle)]
    fn create_sync_access_handle(this: &FileHandle) -> Result<JsValue, JsValue>;

    type SyncAccessHandle;
    #[wasm_bindgen(method, structural, catch)]
    fn read(this: &SyncAccessHandle, to: &mut [u8], options: &FileSystemReadWriteOptions) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, structural, catch)]
    fn write(this: &SyncAccessHandle, from: &[u8], options: &FileSystemReadWriteOptions) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, structural, catch, js_name = getSize)]
    fn get_size(this: &SyncAccessHandle) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, structural, catch)]
    fn truncate(this: &SyncAccessHandle, len: f64) -> Result<(), JsValue>;
    #[wasm_bindgen(method, structural, catch)]
    fn flush(this: &SyncAccessHandle) -> Result<(), JsValue>;
    #[wasm_bindgen(method, structural, catch)]
    fn close(this: &SyncAccessHandle) -> Result<(), JsValue>;
}

/// A store in a directory that JavaScript gives, one file an object, `/` in names written as `~`: the same layout as
/// that of the native file storage.
///
/// In a browser the directory is in the origin private file system, and this works in a dedicated worker only. Any object of
/// the same shape does:
///
/// ```ts
/// interface Directory {
///   getFileHandle(name: string, options: { create: boolean }): Promise<File>;
///   removeEntry(name: string, options: { recursive: boolean }): Promise<void>;
///   entries(): AsyncIterator<[string, { kind: 'file' | 'directory' } & File]>;
/// }
/// interface File { createSyncAccessHandle(): Promise<Handle> } // one at a time for each file
/// interface Handle {
///   read(to: Uint8Array, options: { at: number }): number;     // how many bytes were read: 0 at the end
///   write(from: Uint8Array, options: { at: number }): number;  // how many bytes were written, which may be fewer
///   getSize(): number;
///   truncate(size: number): void;
///   flush(): void;                                             // durable when it returns
///   close(): void;
/// }
/// ```
///
/// Plain values do in place of promises. What it throws has the `name` of the File System standard: `NotFoundError`,
/// `NoModificationAllowedError` (a second handle of a file, so a second owner of the store), `QuotaExceededError`.
///
/// The owner holds the handle of the file `LOCK`. A `put` that a crash cuts off may leave part of an object: the contract allows
/// it, and moving a finished file under its name would cost more turns of the event loop than the write.
pub struct DirectoryStorage {
    /// `close` waits here for the operations that run.
    open: RwLock<Option<Open>>,
}

struct Open {
    directory: DirectoryHandle,
    /// Held until the store is closed or dropped.
    _lock: OpenFile,
    /// All objects with their lengths: nobody else changes the directory, so it is read once.
    lens: RefCell<BTreeMap<String, u64>>,
    /// Those that are open, or of which something is known that a later open would not find.
    objects: RefCell<HashMap<String, Rc<Mutex<ObjectState>>>>,
}

#[derive(Default)]
struct ObjectState {
    file: Option<OpenFile>,
    /// The length last synced; that found when this owner first opened it, before. `None` until then.
    synced_len: Option<u64>,
    /// After a failure: what `truncate` must cut to before more is added.
    cut_to: Option<u64>,
}

/// An open file; closed when dropped.
struct OpenFile(SyncAccessHandle);

impl Drop for OpenFile {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing to do about it.
        let _ = self.0.close();
    }
}

impl std::fmt::Debug for DirectoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryStorage").finish_non_exhaustive()
    }
}

impl DirectoryStorage {
    /// Opens the store `name` (any text) in the origin private file system, creating it when it is not there.
    ///
    /// # Errors
    /// `Locked` while another tab or worker has it open; `Unsupported` where there is no such file system, as outside a
    /// dedicated worker or in some private windows; `InvalidArgument` for an empty or very long name.
    pub async fn open_opfs(name: &str) -> Result<Self> {
        let encoded = encode_store_name(name)?;
        let root = opfs_root().await?;
        let directory =
            create_directory(&root, &encoded).await.map_err(|error| failed("open the store", name, &error))?;
        Self::open_in(directory).await.map_err(|error| error.context(format!("store {name:?}")))
    }

    /// Removes the store `name` from the origin private file system, with all that it holds; one that is not there is no error.
    ///
    /// # Errors
    /// `Locked` while it is open, `Unsupported` and `InvalidArgument` as in [`Self::open_opfs`].
    pub async fn remove_opfs(name: &str) -> Result<()> {
        let encoded = encode_store_name(name)?;
        let root = opfs_root().await?;
        match remove(&root, &encoded, true).await {
            Err(error) if !is_not_found(&error) => Err(failed("remove the store", name, &error)),
            _ => Ok(()),
        }
    }

    /// Opens the store in `directory`, which has the shape above.
    ///
    /// # Errors
    /// `Locked` while it is open elsewhere; `Unsupported` when its files give no sync access handles.
    pub async fn open_directory(directory: JsValue) -> Result<Self> {
        Self::open_in(directory.unchecked_into()).await
    }

    async fn open_in(directory: DirectoryHandle) -> Result<Self> {
        let lock = open_file(&directory, LOCK_FILE, true).await.map_err(|error| {
            let error = failed("lock", LOCK_FILE, &error);
            match error.kind() {
                ErrorKind::Locked => {
                    Error::new(ErrorKind::Locked, "it is open in another tab, worker or handle: close it there first")
                }
                _ => error,
            }
        })?;
        let open = Open { directory, _lock: lock, lens: RefCell::default(), objects: RefCell::default() };
        open.look_around().await?;
        Ok(Self { open: RwLock::new(Some(open)) })
    }
}

impl Open {
    /// Learns which objects there are, and keeps the first of them open for whoever reads them next.
    async fn look_around(&self) -> Result<()> {
        let io = |error: &JsValue| failed("list", "the directory", error);
        let entries: Iteration = self.directory.entries().map_err(|error| io(&error))?.unchecked_into();
        loop {
            let step: Iteration = settled(entries.next()).await.map_err(|error| io(&error))?.unchecked_into();
            if step.done() {
                return Ok(());
            }
            let entry = step.value();
            let file_name = Reflect::get_u32(&entry, 0).ok().and_then(|name| name.as_string());
            let Some(name) = file_name.as_deref().and_then(from_file_name) else { continue };
            let handle: FileHandle = Reflect::get_u32(&entry, 1).map_err(|error| io(&error))?.unchecked_into();
            if handle.kind().as_deref() != Some("file") {
                continue;
            }
            let file = sync_access(&handle).await.map_err(|error| failed("open", &name, &error))?;
            let len = file.len().map_err(|error| failed("open", &name, &error))?;
            self.lens.borrow_mut().insert(name.clone(), len);
            if self.objects.borrow().len() < OPEN_FILES_MAX {
                let state = ObjectState { file: Some(file), synced_len: Some(len), cut_to: None };
                self.objects.borrow_mut().insert(name, Rc::new(Mutex::new(state)));
            }
        }
    }

    fn len(&self, name: &str) -> Option<u64> {
        self.lens.borrow().get(name).copied()
    }

    fn set_len(&self, name: &str, len: u64) {
        self.lens.borrow_mut().insert(name.to_owned(), len);
    }

    fn object(&self, name: &str) -> Rc<Mutex<ObjectState>> {
        let mut objects = self.objects.borrow_mut();
        if !objects.contains_key(name) && objects.len() >= OPEN_FILES_MAX {
            drop(objects);
            self.close_idle_files();
            objects = self.objects.borrow_mut();
        }
        objects.entry(name.to_owned()).or_default().clone()
    }

    /// Closes the files that nobody uses; tells whether there were any.
    fn close_idle_files(&self) -> bool {
        let lens = self.lens.borrow();
        let mut closed = false;
        self.objects.borrow_mut().retain(|name, object| {
            // Neither held by an operation nor waited for.
            if Rc::strong_count(object) > 1 {
                return true;
            }
            let Some(mut state) = object.try_lock() else { return true };
            closed |= state.file.take().is_some();
            let is_synced = lens.get(name).is_none_or(|len| state.synced_len.is_none_or(|synced| synced == *len));
            state.cut_to.is_some() || !is_synced
        });
        closed
    }

    /// Writes all of `bytes` at `offset` of `file`. What the host has set aside for other open files is room too.
    fn write(&self, file: &OpenFile, bytes: &[u8], offset: u64) -> Result<(), JsValue> {
        match file.write(bytes, offset) {
            Err(error) if is_full(&error) && self.close_idle_files() => file.write(bytes, offset),
            written => written,
        }
    }

    /// The open file of `name`, whose length is known when it is there.
    async fn file<'a>(&self, state: &'a mut ObjectState, name: &str) -> Result<&'a OpenFile, JsValue> {
        if state.file.is_none() {
            let file = open_file(&self.directory, &to_file_name(name), true).await?;
            let len = file.len()?;
            if self.len(name).is_none() && len > 0 {
                // What a failed put could not remove is no object.
                file.0.truncate(0.0)?;
            }
            state.synced_len.get_or_insert(self.len(name).unwrap_or(0));
            state.file = Some(file);
        }
        Ok(state.file.as_ref().expect("opened above"))
    }

    async fn read(&self, name: &str, range: Option<(u64, u64)>) -> Result<Bytes> {
        let object = self.object(name);
        let mut state = object.lock().await;
        let total = self.len(name).ok_or_else(|| not_found(name))?;
        let (offset, len) = range.unwrap_or((0, total));
        check_range(name, offset, len, total)?;
        let len =
            usize::try_from(len).map_err(|_| Error::invalid(format!("{name}: {len} bytes do not fit in memory")))?;
        let io = |error: JsValue| failed("read", name, &error);
        let file = self.file(&mut state, name).await.map_err(io)?;
        let mut bytes = vec![0; len];
        let read = file.read(&mut bytes, offset).map_err(io)?;
        check_range(name, 0, len as u64, read as u64)?;
        Ok(bytes.into())
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let object = self.object(name);
        let mut state = object.lock().await;
        if self.len(name).is_some() {
            return Err(already_exists(name));
        }
        let written = match self.file(&mut state, name).await {
            Ok(file) => self.write(file, bytes, 0).and_then(|()| file.0.flush()),
            Err(error) => Err(error),
        };
        // Closed in both cases: what was put is seldom added to, and an open file cannot be removed.
        *state = ObjectState::default();
        if let Err(error) = written {
            // When this fails as well, the file is emptied by whoever creates the name next.
            let _ = remove(&self.directory, &to_file_name(name), false).await;
            return Err(failed("put", name, &error));
        }
        self.set_len(name, bytes.len() as u64);
        Ok(())
    }

    async fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let object = self.object(name);
        let mut state = object.lock().await;
        if let Some(len) = state.cut_to {
            return Err(must_cut(name, len));
        }
        let file = self.file(&mut state, name).await.map_err(|error| failed("append", name, &error))?;
        let len = self.len(name).unwrap_or(0);
        match self.write(file, bytes, len) {
            Ok(()) => {
                self.set_len(name, len + bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                self.set_len(name, file.len().unwrap_or(len));
                state.cut_to = Some(len);
                Err(failed("append", name, &error))
            }
        }
    }

    async fn sync(&self, name: &str) -> Result<()> {
        let object = self.object(name);
        let mut state = object.lock().await;
        let len = self.len(name).ok_or_else(|| not_found(name))?;
        if let Some(len) = state.cut_to {
            return Err(must_cut(name, len));
        }
        let file = self.file(&mut state, name).await.map_err(|error| failed("sync", name, &error))?;
        match file.0.flush() {
            Ok(()) => {
                state.synced_len = Some(len);
                Ok(())
            }
            Err(error) => {
                // What the host could not write it may have dropped: never ask again for the same bytes.
                state.cut_to = state.synced_len;
                Err(failed("sync", name, &error))
            }
        }
    }

    async fn truncate(&self, name: &str, len: u64) -> Result<()> {
        let object = self.object(name);
        let mut state = object.lock().await;
        let total = self.len(name).ok_or_else(|| not_found(name))?;
        if len > total {
            return Err(too_short(name, len, total));
        }
        let file = self.file(&mut state, name).await.map_err(|error| failed("truncate", name, &error))?;
        let cut = file.0.truncate(len as f64).and_then(|()| file.0.flush());
        self.set_len(name, file.len().unwrap_or(total));
        match cut {
            Ok(()) => {
                state.cut_to = state.cut_to.filter(|cut_to| *cut_to < len);
                if state.cut_to.is_none() {
                    state.synced_len = Some(len);
                }
                Ok(())
            }
            Err(error) => {
                state.cut_to = Some(state.cut_to.unwrap_or(u64::MAX).min(len));
                Err(failed("truncate", name, &error))
            }
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let object = self.object(name);
        let mut state = object.lock().await;
        if self.len(name).is_none() {
            return Ok(());
        }
        state.file = None;
        match remove(&self.directory, &to_file_name(name), false).await {
            Err(error) if !is_not_found(&error) => Err(failed("remove", name, &error)),
            _ => {
                *state = ObjectState::default();
                self.lens.borrow_mut().remove(name);
                Ok(())
            }
        }
    }
}

impl OpenFile {
    fn len(&self) -> Result<u64, JsValue> {
        self.0.get_size().map(|len| len as u64)
    }

    /// Reads from `offset` until `to` is full or the file ends; tells how many bytes were read.
    fn read(&self, to: &mut [u8], offset: u64) -> Result<usize, JsValue> {
        let mut done = 0;
        while done < to.len() {
            let remaining = to.len() - done;
            let count = self.0.read(&mut to[done..], &at(offset + done as u64))?;
            // The end, or an error in the guise of a count: see `write_error`.
            if !(1.0..=remaining as f64).contains(&count) {
                break;
            }
            done += count as usize;
        }
        Ok(done)
    }

    /// Writes all of `from` at `offset`.
    fn write(&self, from: &[u8], offset: u64) -> Result<(), JsValue> {
        let mut done = 0;
        while done < from.len() {
            let remaining = from.len() - done;
            let count = self.0.write(&from[done..], &at(offset + done as u64))?;
            if !(1.0..=remaining as f64).contains(&count) {
                return Err(write_error(count, done, from.len()));
            }
            done += count as usize;
        }
        Ok(())
    }
}

/// What a count of written bytes means that is none. A host that writes less instead of throwing has no more room. Chromium 156 in
/// private windows does not throw either: it gives its file error, below zero, as an unsigned number of 32 bits; taken for
/// a count, 4294967288 bytes seem written where none were.
fn write_error(count: f64, done: usize, len: usize) -> JsValue {
    const CHROMIUM_NO_SPACE: i32 = -8;
    let is_full = count == 0.0 || count as i64 as i32 == CHROMIUM_NO_SPACE;
    let error = js_sys::Error::new(&format!("{done} of {len} bytes were written, then the host answered {count}"));
    error.set_name(if is_full { "QuotaExceededError" } else { "UnknownError" });
    error.into()
}

fn at(offset: u64) -> FileSystemReadWriteOptions {
    let options = FileSystemReadWriteOptions::new();
    options.set_at(offset as f64);
    options
}

/// Waits for what a method gave; a value that is no promise is ready.
async fn settled(value: Result<JsValue, JsValue>) -> Result<JsValue, JsValue> {
    JsFuture::from(Promise::resolve(&value?)).await
}

async fn open_file(directory: &DirectoryHandle, file_name: &str, create: bool) -> Result<OpenFile, JsValue> {
    let options = FileSystemGetFileOptions::new();
    options.set_create(create);
    let handle = settled(directory.get_file_handle(file_name, &options)).await?;
    sync_access(handle.unchecked_ref()).await
}

async fn sync_access(handle: &FileHandle) -> Result<OpenFile, JsValue> {
    let method = Reflect::get(handle, &"createSyncAccessHandle".into())?;
    if !method.is_instance_of::<Function>() {
        let error =
            js_sys::Error::new("files give sync access handles in a dedicated worker only, and not in every browser");
        error.set_name("NotSupportedError");
        return Err(error.into());
    }
    Ok(OpenFile(settled(handle.create_sync_access_handle()).await?.unchecked_into()))
}

async fn create_directory(parent: &DirectoryHandle, name: &str) -> Result<DirectoryHandle, JsValue> {
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(true);
    Ok(settled(parent.get_directory_handle(name, &options)).await?.unchecked_into())
}

async fn remove(directory: &DirectoryHandle, name: &str, recursive: bool) -> Result<(), JsValue> {
    let options = FileSystemRemoveOptions::new();
    options.set_recursive(recursive);
    settled(directory.remove_entry(name, &options)).await.map(drop)
}

/// The directory of all stores of this origin.
async fn opfs_root() -> Result<DirectoryHandle> {
    let unsupported =
        |why: &str| Error::new(ErrorKind::Unsupported, format!("this host has no origin private file system: {why}"));
    let mut value: JsValue = js_sys::global().into();
    for member in ["navigator", "storage"] {
        value = Reflect::get(&value, &member.into()).unwrap_or(JsValue::UNDEFINED);
        if !value.is_object() {
            return Err(unsupported(&format!("no {member}")));
        }
    }
    let method =
        Reflect::get(&value, &"getDirectory".into()).ok().and_then(|method| method.dyn_into::<Function>().ok());
    let method = method.ok_or_else(|| unsupported("no navigator.storage.getDirectory"))?;
    // Some private windows have the method and refuse the call.
    let root = settled(method.call0(&value)).await.map_err(|error| unsupported(&describe(&error)))?;
    create_directory(root.unchecked_ref(), ROOT_DIRECTORY)
        .await
        .map_err(|error| failed("create the directory", ROOT_DIRECTORY, &error))
}

/// The directory name for a store: letters, digits, `.`, `_` and `-` as they are, other bytes and a first `.` as `%XX`.
fn encode_store_name(name: &str) -> Result<String> {
    let mut encoded = String::new();
    for (position, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if position == 0 => encoded.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    if encoded.is_empty() || encoded.len() > STORE_NAME_LEN_MAX {
        return Err(Error::invalid(format!(
            "the name of a store has 1 to {STORE_NAME_LEN_MAX} characters, where others than [a-zA-Z0-9._-] count as 3 a byte: {} were given",
            encoded.len()
        )));
    }
    Ok(encoded)
}

/// The name and the message of what was thrown.
fn describe(thrown: &JsValue) -> String {
    let text = |member: &str| Reflect::get(thrown, &member.into()).ok().and_then(|value| value.as_string());
    match (text("name"), text("message")) {
        (Some(name), Some(message)) => format!("{name}: {message}"),
        _ => String::from(Object::from(thrown.clone()).to_string()),
    }
}

fn thrown_name(thrown: &JsValue) -> Option<String> {
    Reflect::get(thrown, &"name".into()).ok().and_then(|name| name.as_string())
}

fn is_not_found(thrown: &JsValue) -> bool {
    thrown_name(thrown).as_deref() == Some("NotFoundError")
}

fn is_full(thrown: &JsValue) -> bool {
    thrown_name(thrown).as_deref() == Some("QuotaExceededError")
}

/// Says what failed where.
fn failed(operation: &str, name: &str, thrown: &JsValue) -> Error {
    let kind = match thrown_name(thrown).as_deref() {
        Some("QuotaExceededError") => ErrorKind::StorageFull,
        Some("NoModificationAllowedError") => ErrorKind::Locked,
        Some("NotSupportedError") => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{operation} {name}: {}", describe(thrown)))
}

impl DirectoryStorage {
    /// Runs `call` on the open store, once the name is right.
    async fn run<T>(&self, name: &str, call: impl AsyncFnOnce(&Open) -> Result<T>) -> Result<T> {
        check_name(name)?;
        let open = self.open.read().await;
        call(open.as_ref().ok_or_else(closed)?).await
    }
}

impl Storage for DirectoryStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            let open = self.open.read().await;
            let lens = open.as_ref().ok_or_else(closed)?.lens.borrow();
            let from_prefix = lens.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            let entries = from_prefix.take_while(|(name, _)| name.starts_with(prefix));
            Ok(entries.map(|(name, len)| Entry { name: name.clone(), len: *len }).collect())
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        Box::pin(self.run(name, async move |open| open.read(name, Some((offset, len))).await))
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(self.run(name, async move |open| open.read(name, None).await))
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(self.run(name, async move |open| open.put(name, &bytes).await))
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(self.run(name, async move |open| open.append(name, &bytes).await))
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(self.run(name, async move |open| open.sync(name).await))
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(self.run(name, async move |open| open.truncate(name, len).await))
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(self.run(name, async move |open| open.remove(name).await))
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            self.open.write().await.take();
            Ok(())
        })
    }
}
