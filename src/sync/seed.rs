use std::collections::VecDeque;
use std::sync::Arc;

use super::message::{FETCH_WINDOW, Fetch, Offer, PIECE_BYTES_MAX, Piece};
use super::{Channel, ClientAction, Message};
use crate::base::{Error, ReplicaId, Result};

/// The most bytes of a file in one download. Those that follow on each other may come of one request, so it need not be many.
pub const DOWNLOAD_BYTES_MAX: usize = 1 << 20;
/// Parts of files that are downloaded, wait to be stored, or are stored at one time: so much is held in memory while a file is made.
pub const DOWNLOAD_WINDOW: usize = 8;

/// A part of an offered file that is not here yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which file, counted through all segments of the offer.
    pub file: u32,
    /// From this byte,
    pub offset: u64,
    /// so many: at least 1.
    pub len: u64,
    /// Where the file lies, below what [`Offer::files`] tells.
    pub path: Arc<str>,
}

/// How far a download of segments is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Download {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes that were to be fetched on this connection.
    pub total: u64,
}

/// The client's end of a first sync by segments: what was offered is planned, fetched piece by piece, and stored in order. Pieces are
/// downloaded by plain requests where both sides can do that, and from the first one on that does not come so, they come in frames.
#[derive(Debug)]
pub(super) struct Seed {
    offer: Option<Vec<u8>>,
    /// Where plain requests get files, as long as they do.
    files: Option<String>,
    planned: bool,
    wants: VecDeque<Want>,
    /// Asked for and not stored yet, in the order in which they are stored.
    asked: VecDeque<Asked>,
    /// The length of the piece that is being stored.
    storing: Option<u64>,
    ending: bool,
    download: Download,
}

#[derive(Debug)]
struct Asked {
    want: Want,
    /// By a plain request, not a frame.
    by_request: bool,
    /// Once they are here.
    bytes: Option<Vec<u8>>,
}

impl Seed {
    pub(super) fn new(offer: Offer) -> Self {
        Self {
            offer: Some(offer.segments),
            files: offer.files,
            planned: false,
            wants: VecDeque::new(),
            asked: VecDeque::new(),
            storing: None,
            ending: false,
            download: Download::default(),
        }
    }

    pub(super) fn download(&self) -> Download {
        self.download
    }

    /// Bytes that wait to be stored.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.asked.iter().filter_map(|asked| asked.bytes.as_ref()).map(Vec::len).sum()
    }

    pub(super) fn take_in_plan(&mut self, wants: Vec<Want>) {
        self.planned = true;
        self.download.total = wants.iter().fold(0, |total, want| total.saturating_add(want.len));
        self.wants = wants.into();
    }

    pub(super) fn take_in_piece(&mut self, piece: Piece) -> Result<()> {
        let next = self.asked.iter_mut().find(|asked| asked.bytes.is_none() && !asked.by_request);
        let fits = |Want { file, offset, len, .. }: &Want| {
            (*file, *offset, *len) == (piece.file, piece.offset, piece.bytes.len() as u64)
        };
        let Some(asked) = next.filter(|asked| fits(&asked.want)) else {
            return Err(Error::corrupt(format!(
                "{} bytes of file {} from {}, which were not asked for next",
                piece.bytes.len(),
                piece.file,
                piece.offset
            )));
        };
        asked.bytes = Some(piece.bytes);
        Ok(())
    }

    /// Takes in what a plain request got of the piece from `offset` of a file: nothing, a part, or all.
    pub(super) fn take_in_download(&mut self, file: u32, offset: u64, mut bytes: Vec<u8>) {
        let is_it = |asked: &Asked| {
            asked.by_request && asked.bytes.is_none() && (asked.want.file, asked.want.offset) == (file, offset)
        };
        // It may have been given up meanwhile.
        let Some(at) = self.asked.iter().position(is_it) else { return };
        let asked = &mut self.asked[at];
        let got = bytes.len() as u64;
        if got != asked.want.len {
            if (1..asked.want.len).contains(&got) {
                let rest = Want { offset: offset + got, len: asked.want.len - got, ..asked.want.clone() };
                asked.want.len = got;
                asked.bytes = Some(std::mem::take(&mut bytes));
                self.asked.insert(at + 1, Asked { want: rest, by_request: true, bytes: None });
            }
            return self.give_up_downloads();
        }
        asked.bytes = Some(bytes);
    }

    /// What is not here yet, and what comes behind that, is asked for by frames.
    fn give_up_downloads(&mut self) {
        if self.files.take().is_none() {
            return;
        }
        let missing = self.asked.iter().position(|asked| asked.bytes.is_none()).unwrap_or(self.asked.len());
        for asked in self.asked.drain(missing..).rev() {
            self.wants.push_front(asked.want);
        }
    }

    pub(super) fn stored(&mut self, again: Option<Want>) {
        self.download.done += self.storing.take().unwrap_or_default();
        if let Some(want) = again {
            // Whatever lies between the hub and here may have spoiled it, and would again.
            self.give_up_downloads();
            self.download.total = self.download.total.saturating_add(want.len);
            self.wants.push_back(want);
        }
    }

    pub(super) fn next(&mut self, channel: Channel, hub: ReplicaId) -> Result<Option<ClientAction>> {
        if let Some(offer) = self.offer.take() {
            return Ok(Some(ClientAction::Plan { channel, hub, offer }));
        }
        if !self.planned {
            return Ok(None);
        }
        let (window, len_max) = match self.files {
            Some(_) => (DOWNLOAD_WINDOW, DOWNLOAD_BYTES_MAX),
            None => (FETCH_WINDOW, PIECE_BYTES_MAX),
        };
        if self.asked.len() + usize::from(self.storing.is_some()) < window
            && let Some(left) = self.wants.front_mut()
        {
            let want = Want { len: left.len.min(len_max as u64), ..left.clone() };
            let Want { file, offset, len, .. } = want;
            left.offset += len;
            left.len -= len;
            if left.len == 0 {
                self.wants.pop_front();
            }
            let action = match &self.files {
                Some(place) => {
                    let path = format!("{place}/{}", want.path);
                    ClientAction::Download { channel, file, path, offset, len }
                }
                None => {
                    let fetch = Fetch { channel, file, offset, len: len as u32 };
                    ClientAction::Send(Message::Fetch(fetch).encode()?)
                }
            };
            self.asked.push_back(Asked { want, by_request: self.files.is_some(), bytes: None });
            return Ok(Some(action));
        }
        if self.storing.is_some() || self.ending {
            return Ok(None);
        }
        if self.asked.front().is_some_and(|asked| asked.bytes.is_some())
            && let Some(Asked { want: Want { file, offset, .. }, by_request, bytes: Some(bytes) }) =
                self.asked.pop_front()
        {
            self.storing = Some(bytes.len() as u64);
            return Ok(Some(ClientAction::Store { channel, file, offset, bytes, by_request }));
        }
        if self.asked.is_empty() {
            self.ending = true;
            return Ok(Some(ClientAction::EndSeed { channel, hub }));
        }
        Ok(None)
    }
}
