use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A file gets room from the so many-th append that is synced at once: one that gets a few has no use for it.
pub(super) const APPENDS_MIN: u32 = 8;
/// Larger appends get none: their bytes take far longer than the metadata beside them, and room for them has to be written too.
pub(super) const APPEND_BYTES_MAX: usize = 256 << 10;
/// Room is made for so many appends like the last one at a time, within these bounds, and again when there is less.
const APPENDS: usize = 2;
pub(super) const BYTES: RangeInclusive<usize> = 128 << 10..=512 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Zeros behind what was appended to a file.
#[derive(Debug)]
pub(super) struct Room {
    /// Where what was appended or the zeros end that are known to be there.
    end: u64,
    /// How many appends were synced at once that were not too large.
    appends: u32,
    /// Opened anew, so that an error of writing is told to whoever syncs the appends as well: each open file is told once.
    file: Option<Arc<Mutex<File>>>,
    /// More that are being written.
    more: Option<More>,
}

#[derive(Debug)]
struct More {
    end: u64,
    done: Receiver<io::Result<()>>,
}

impl Room {
    /// None, behind `len` bytes.
    pub(super) fn none(len: u64) -> Self {
        Self { end: len, appends: 0, file: None, more: None }
    }

    /// Whether the file is or may become longer than `len`.
    pub(super) fn is_behind(&self, len: u64) -> bool {
        self.end > len || self.more.is_some()
    }

    /// Waits for zeros that are being written, when the bytes up to `len` would meet them or `len` is `None`.
    pub(super) fn settle(&mut self, len: Option<u64>) {
        if len.is_none_or(|len| len > self.end)
            && let Some(more) = self.more.take()
        {
            match more.done.recv() {
                Ok(Ok(())) => {}
                // No space, as a rule: for the next ones it may be there again.
                Ok(Err(_)) | Err(_) => self.appends = 0,
            }
            // However much of it was written.
            self.end = self.end.max(more.end);
        }
    }

    /// Notes that bytes up to `len` were written.
    pub(super) fn appended(&mut self, len: u64) {
        self.end = self.end.max(len);
    }

    /// Cuts them off. Should that not last, they are there again after a crash, as they would be without it.
    pub(super) fn give_up(&mut self, file: &File, len: u64) {
        self.settle(None);
        if self.end > len && file.set_len(len).is_ok() {
            self.end = len;
        }
    }

    /// Notes an append that was synced at once; whether more is wanted behind the `len` bytes that there are now.
    pub(super) fn is_wanted(&mut self, bytes: usize, len: u64) -> bool {
        if bytes > APPEND_BYTES_MAX {
            return false;
        }
        self.appends = self.appends.saturating_add(1);
        self.appends >= APPENDS_MIN && self.more.is_none() && self.end - len < wanted(bytes) as u64
    }

    /// Has more made for appends of so many bytes. Where that cannot be there is none, and nothing is lost.
    pub(super) fn make(&mut self, path: &Path, bytes: usize, maker: &Maker) {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => match OpenOptions::new().write(true).open(path) {
                Ok(file) => self.file.insert(Arc::new(Mutex::new(file))).clone(),
                Err(_) => return,
            },
        };
        let len = wanted(bytes) as u64;
        let (told, done) = sync_channel(1);
        if maker.make(Job { file, start: self.end, len, told }) {
            self.more = Some(More { end: self.end + len, done });
        }
    }
}

fn wanted(bytes: usize) -> usize {
    (APPENDS * bytes).clamp(*BYTES.start(), *BYTES.end())
}

/// The thread that makes room for the files of a store.
#[derive(Debug, Default)]
pub(super) struct Maker(OnceLock<Option<Sender<Job>>>);

struct Job {
    file: Arc<Mutex<File>>,
    start: u64,
    len: u64,
    told: SyncSender<io::Result<()>>,
}

impl Maker {
    /// Whether somebody does it.
    fn make(&self, job: Job) -> bool {
        let jobs = self.0.get_or_init(|| {
            let (jobs, asked) = channel::<Job>();
            let work = move || {
                for job in asked {
                    // Who asked may have gone.
                    let _ = job.told.send(job.run());
                }
            };
            // Ends with the store.
            std::thread::Builder::new().name("eddy-room".to_owned()).spawn(work).ok().map(|_| jobs)
        });
        jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Job {
    fn run(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start))?;
        let mut rest = self.len as usize;
        while rest > 0 {
            let part = rest.min(ZEROS.len());
            file.write_all(&ZEROS[..part])?;
            rest -= part;
        }
        file.sync_data()
    }
}
