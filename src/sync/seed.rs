use std::collections::VecDeque;

use super::message::{FETCH_WINDOW, Fetch, PIECE_BYTES_MAX, Piece};
use super::{Channel, ClientAction, Message};
use crate::base::{Error, ReplicaId, Result};

/// A part of an offered file that is not here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Which file, counted through all segments of the offer.
    pub file: u32,
    /// From this byte,
    pub offset: u64,
    /// so many: at least 1.
    pub len: u64,
}

/// How far a download of segments is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Download {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes that were to be fetched on this connection.
    pub total: u64,
}

/// The client's end of a first sync by segments: what was offered is planned, fetched piece by piece, and stored in order.
#[derive(Debug)]
pub(super) struct Seed {
    offer: Option<Vec<u8>>,
    planned: bool,
    wants: VecDeque<Want>,
    /// Asked for and not here yet, in the order of the answers.
    asked: VecDeque<Fetch>,
    arrived: VecDeque<Piece>,
    /// The length of the piece that is being stored.
    storing: Option<u64>,
    ending: bool,
    download: Download,
}

impl Seed {
    pub(super) fn new(offer: Vec<u8>) -> Self {
        Self {
            offer: Some(offer),
            planned: false,
            wants: VecDeque::new(),
            asked: VecDeque::new(),
            arrived: VecDeque::new(),
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
        self.arrived.iter().map(|piece| piece.bytes.len()).sum()
    }

    pub(super) fn take_in_plan(&mut self, wants: Vec<Want>) {
        self.planned = true;
        self.download.total = wants.iter().fold(0, |total, want| total.saturating_add(want.len));
        self.wants = wants.into();
    }

    pub(super) fn take_in_piece(&mut self, piece: Piece) -> Result<()> {
        let asked = self.asked.pop_front();
        let fits = |fetch: Fetch| (fetch.file, fetch.offset, fetch.len as usize);
        if asked.map(fits) != Some((piece.file, piece.offset, piece.bytes.len())) {
            return Err(Error::corrupt(format!(
                "{} bytes of file {} from {}, which were not asked for next",
                piece.bytes.len(),
                piece.file,
                piece.offset
            )));
        }
        self.arrived.push_back(piece);
        Ok(())
    }

    pub(super) fn stored(&mut self, again: Option<Want>) {
        self.download.done += self.storing.take().unwrap_or_default();
        if let Some(want) = again {
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
        if self.asked.len() + self.arrived.len() + usize::from(self.storing.is_some()) < FETCH_WINDOW
            && let Some(want) = self.wants.front_mut()
        {
            let len = want.len.min(PIECE_BYTES_MAX as u64);
            let fetch = Fetch { channel, file: want.file, offset: want.offset, len: len as u32 };
            want.offset += len;
            want.len -= len;
            if want.len == 0 {
                self.wants.pop_front();
            }
            self.asked.push_back(fetch);
            return Ok(Some(ClientAction::Send(Message::Fetch(fetch).encode()?)));
        }
        if self.storing.is_some() || self.ending {
            return Ok(None);
        }
        if let Some(piece) = self.arrived.pop_front() {
            self.storing = Some(piece.bytes.len() as u64);
            let Piece { file, offset, bytes, .. } = piece;
            return Ok(Some(ClientAction::Store { channel, file, offset, bytes }));
        }
        if self.asked.is_empty() {
            self.ending = true;
            return Ok(Some(ClientAction::EndSeed { channel, hub }));
        }
        Ok(None)
    }
}
