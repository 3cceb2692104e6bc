use serde_bytes::ByteBuf;

use super::message::{Compare, Compared, Found, Give, Given, Lack};
use super::{Channel, ClientAction, Comparison, Item, Items, Message, RANGES_BYTES, encode_items};
use crate::base::{Error, Result};

/// Whether this build is able to compare: all but the one that pages download first, of which every byte counts.
pub const COMPARES: bool = cfg!(any(native, feature = "streams"));

/// So many changes are asked for, or looked for, at once; more only where they have the timestamp of the last one, for those may be of one
/// batch, which is applied in one step.
pub const ITEMS_MAX: usize = 4_096;
/// A read of changes that the hub lacks stops when it is past this.
const GIVE_BYTES_MAX: usize = 512 << 10;

/// What a comparison of two replicas has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Rows and deletes that were missing, or older, at the hub.
    pub sent: u64,
    /// Rows and deletes that were missing, or older, here.
    pub received: u64,
}

/// The client's end of a comparison of what both sides hold: ranges are compared, then what is lacking here is fetched and applied, then what
/// is lacking there is given, as far as it has not lost against what came.
#[derive(Debug)]
pub(super) struct Reconciliation {
    /// The newest wish that it fulfils.
    pub(super) mark: u64,
    pub(super) done: Reconciled,
    secret: [u64; 2],
    /// What the hub has said first, until it is known what is here.
    first: Vec<u8>,
    comparison: Option<Comparison>,
    need: Left,
    have: Left,
    step: Step,
}

/// Changes in order, some of which are done.
#[derive(Debug, Default)]
struct Left {
    items: Vec<Item>,
    done: usize,
}

impl Left {
    fn is_done(&self) -> bool {
        self.done == self.items.len()
    }

    /// The next ones: whole timestamps.
    fn next(&self) -> &[Item] {
        let left = &self.items[self.done..];
        let Some(last) = left.get(ITEMS_MAX - 1) else { return left };
        &left[..left.partition_point(|item| item.timestamp <= last.timestamp)]
    }

    fn advance(&mut self, done: usize) -> Result<()> {
        let asked = self.next().len();
        if done == 0 || done > asked {
            return Err(Error::corrupt(format!("{done} changes looked at; 1 to {asked} were asked for")));
        }
        self.done += done;
        Ok(())
    }
}

/// What is to be done next, or what is awaited.
#[derive(Debug)]
enum Step {
    Begin,
    Beginning,
    Summarize,
    Summarizing,
    Say(Vec<u8>),
    Said,
    /// All that differs is known.
    EndComparison,
    Ending,
    Lack,
    Lacking,
    TakeIn(Vec<u8>),
    TakingIn,
    Read,
    Reading,
    Give(Vec<u8>),
    Giving,
    Over,
}

fn out_of_turn(what: &str) -> Error {
    Error::corrupt(format!("a {what} frame that was not asked for"))
}

impl Reconciliation {
    pub(super) fn new(mark: u64) -> Self {
        Self {
            mark,
            done: Reconciled::default(),
            secret: [0; 2],
            first: Vec::new(),
            comparison: None,
            need: Left::default(),
            have: Left::default(),
            step: Step::Begin,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.step, Step::Over)
    }

    /// Bytes that wait to be applied.
    pub(super) fn waiting_bytes(&self) -> usize {
        if let Step::TakeIn(changes) = &self.step { changes.len() } else { 0 }
    }

    pub(super) fn next(&mut self, channel: Channel) -> Result<Option<ClientAction>> {
        let (action, step) = match std::mem::replace(&mut self.step, Step::Over) {
            Step::Begin => {
                let compare = Message::Compare(Compare { channel, ranges: None });
                (ClientAction::Send(compare.encode()?), Step::Beginning)
            }
            Step::Summarize => (ClientAction::Summarize { channel, secret: self.secret }, Step::Summarizing),
            Step::Say(ranges) => {
                let compare = Message::Compare(Compare { channel, ranges: Some(ByteBuf::from(ranges)) });
                (ClientAction::Send(compare.encode()?), Step::Said)
            }
            Step::EndComparison => {
                let compare = Message::Compare(Compare { channel, ranges: Some(ByteBuf::new()) });
                (ClientAction::Send(compare.encode()?), Step::Ending)
            }
            Step::Lack if self.need.is_done() => {
                self.step = Step::Read;
                return self.next(channel);
            }
            Step::Lack => {
                let items = encode_items(self.need.next());
                let lack = Message::Lack(Lack { channel, secret: self.secret, items });
                (ClientAction::Send(lack.encode()?), Step::Lacking)
            }
            Step::TakeIn(changes) => (ClientAction::TakeIn { channel, changes }, Step::TakingIn),
            Step::Read if self.have.is_done() => return Ok(None),
            Step::Read => {
                let (secret, items) = (self.secret, self.have.next().to_vec());
                (ClientAction::ReadItems { channel, secret, items, bytes_max: GIVE_BYTES_MAX }, Step::Reading)
            }
            Step::Give(changes) => {
                (ClientAction::Send(Message::Give(Give { channel, changes }).encode()?), Step::Giving)
            }
            waiting => {
                self.step = waiting;
                return Ok(None);
            }
        };
        self.step = step;
        Ok(Some(action))
    }

    pub(super) fn take_in_compared(&mut self, Compared { secret, ranges, error, .. }: Compared) -> Result<()> {
        if let Some(fault) = error {
            return Err(fault.into());
        }
        match self.step {
            Step::Beginning => {
                (self.secret, self.first, self.step) = (secret, ranges, Step::Summarize);
                Ok(())
            }
            Step::Said => self.hear(&ranges),
            Step::Ending => {
                self.step = Step::Lack;
                Ok(())
            }
            _ => Err(out_of_turn("compared")),
        }
    }

    /// What is here is known.
    pub(super) fn take_in_items(&mut self, items: Items) -> Result<()> {
        self.comparison = Some(Comparison::new(items, RANGES_BYTES));
        let first = std::mem::take(&mut self.first);
        self.hear(&first)
    }

    fn hear(&mut self, ranges: &[u8]) -> Result<()> {
        let comparison = self.comparison.as_mut().expect("the hub is asked once it is known what is here");
        self.step = match comparison.take_in(ranges)? {
            Some(said) => Step::Say(said),
            None => {
                let Comparison { have, need, .. } = self.comparison.take().expect("it was just looked at");
                self.need.items = need;
                self.have.items = have;
                Step::EndComparison
            }
        };
        Ok(())
    }

    pub(super) fn take_in_found(&mut self, Found { done, changes, error, .. }: Found) -> Result<()> {
        if let Some(fault) = error {
            return Err(fault.into());
        }
        if !matches!(self.step, Step::Lacking) {
            return Err(out_of_turn("found"));
        }
        self.need.advance(done as usize)?;
        self.step = if changes.is_empty() { Step::Lack } else { Step::TakeIn(changes) };
        Ok(())
    }

    /// So many of the changes were applied.
    pub(super) fn taken_in(&mut self, rows: u64) {
        self.done.received += rows;
        self.step = Step::Lack;
    }

    pub(super) fn take_in_read(&mut self, done: usize, changes: Vec<u8>) -> Result<()> {
        self.have.advance(done)?;
        self.step = if changes.is_empty() { Step::Read } else { Step::Give(changes) };
        Ok(())
    }

    pub(super) fn take_in_given(&mut self, Given { rows, error, .. }: Given) -> Result<()> {
        if let Some(fault) = error {
            return Err(fault.into());
        }
        if !matches!(self.step, Step::Giving) {
            return Err(out_of_turn("given"));
        }
        self.done.sent = self.done.sent.saturating_add(rows);
        self.step = Step::Read;
        Ok(())
    }
}
