use std::fmt;
use std::str::FromStr;

use super::{Collection, WriteResponse};
#[cfg(hosted)]
use crate::base::ErrorKind;
use crate::base::{Error, ReplicaId, Result, Sequence};

/// How old what a bounded read sees may be when nothing is said, as in Milvus.
const BOUNDED_MS: u64 = 5_000;

/// How long a read waits for what it must see when nothing is said.
pub const CONSISTENCY_TIMEOUT_MS: u64 = 10_000;

/// What of the writes elsewhere a read must see. What this store itself has acknowledged every read sees.
///
/// Elsewhere are the hubs with which a sync of the collection runs, or is paused, and what reaches them. A store without one stands alone:
/// each level but `Session` is true of it at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Consistency {
    /// All that each of these hubs had when the read began: each is asked.
    Strong,
    /// All that each of these hubs had so many milliseconds before the read began: each is asked, unless it was since.
    Bounded(u64),
    /// The writes that these tokens are of, wherever they were made.
    Session(Vec<SessionToken>),
    /// What is here.
    #[default]
    Eventually,
}

impl Consistency {
    /// The level of that name, `strong`, `bounded`, `session` or `eventually`; with how many milliseconds a bounded read may be behind, 5,000
    /// when nothing is said, and the tokens of a session.
    ///
    /// # Errors
    /// `InvalidArgument` for another name, for texts that are no tokens, and for what does not go with the level.
    pub fn of(level: &str, bounded_ms: Option<u64>, tokens: &[String]) -> Result<Self> {
        let consistency = match level {
            "strong" => Self::Strong,
            "bounded" => Self::Bounded(bounded_ms.unwrap_or(BOUNDED_MS)),
            "session" => Self::Session(tokens.iter().map(|token| token.parse()).collect::<Result<_>>()?),
            "eventually" => Self::Eventually,
            other => {
                return Err(Error::invalid(format!(
                    "consistency {other:?}; expected strong, bounded, session or eventually"
                )));
            }
        };
        match consistency {
            Self::Bounded(_) => {}
            _ if bounded_ms.is_some() => return Err(Error::invalid(format!("consistency {level} takes no time"))),
            _ => {}
        }
        if level != "session" && !tokens.is_empty() {
            return Err(Error::invalid(format!("consistency {level} takes no session tokens")));
        }
        Ok(consistency)
    }
}

/// Names a write, for reads that must see it: here, or at another replica that it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionToken {
    origin: ReplicaId,
    sequence: Sequence,
}

/// Two hexadecimal numbers with `-` between them: opaque to whoever hands it back.
impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.origin.0, self.sequence.0)
    }
}

impl FromStr for SessionToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
        match text.split_once('-').map(|(origin, sequence)| (number(origin), number(sequence))) {
            Some((Some(origin), Some(sequence))) => {
                Ok(Self { origin: ReplicaId(origin), sequence: Sequence(sequence) })
            }
            _ => Err(Error::invalid(format!("{text:?} is no session token; expected what a write has told"))),
        }
    }
}

impl WriteResponse {
    /// What a later read names to see this write, and all that its replica wrote before; that of a write that changed nothing is true
    /// everywhere.
    pub fn session_token(&self) -> SessionToken {
        SessionToken { origin: self.version.origin, sequence: self.version.sequence }
    }
}

impl Collection {
    /// The collection, once it is as `consistency` asks for: reads from then on see that much.
    ///
    /// ```
    /// # async fn run(notes: &eddydb::db::Collection, token: eddydb::db::SessionToken) -> eddydb::base::Result<()> {
    /// use eddydb::db::{CONSISTENCY_TIMEOUT_MS, Consistency, QueryRequest};
    ///
    /// let seen = Consistency::Session(vec![token]);
    /// let rows = notes.at_least(&seen, CONSISTENCY_TIMEOUT_MS).await?.query(&QueryRequest::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unavailable` when it is not within `timeout_ms`: the message says what is missing. In a build without timers (natively, without the
    /// feature `server`) it is not waited for.
    pub async fn at_least(&self, consistency: &Consistency, timeout_ms: u64) -> Result<&Self> {
        self.inner.shared.check_open()?;
        #[cfg(hosted)]
        return self.wait_for(consistency, timeout_ms).await.map(|()| self);
        #[cfg(not(hosted))]
        match self.unseen(consistency) {
            None => Ok(self),
            Some(token) => {
                let after = if timeout_ms == 0 { "" } else { "; nothing is waited for without timers" };
                Err(Error::new(crate::base::ErrorKind::Unavailable, format!("write {token} is not here{after}")))
            }
        }
    }

    /// The first write of a session that has not come here.
    fn unseen(&self, consistency: &Consistency) -> Option<SessionToken> {
        let Consistency::Session(tokens) = consistency else { return None };
        let state = self.inner.state.read().expect("no panic while held");
        tokens.iter().find(|token| state.seen(token.origin) < token.sequence).copied()
    }
}

#[cfg(hosted)]
impl Collection {
    async fn wait_for(&self, consistency: &Consistency, timeout_ms: u64) -> Result<()> {
        use super::sync::{Tasks, Wake};
        use crate::platform::sleep_ms;

        let syncs = self.inner.shared.syncs.of(self.name());
        let mark = self.inner.shared.syncs.mark();
        let wanted = match consistency {
            Consistency::Eventually => return Ok(()),
            Consistency::Session(tokens) if tokens.is_empty() => return Ok(()),
            Consistency::Strong | Consistency::Session(_) => mark,
            Consistency::Bounded(ms) => mark.saturating_sub(ms.saturating_mul(1_000)),
        };
        let mut timer = None;
        loop {
            // Registered before anything is looked at: what changes in between wakes at once.
            let changed = self.changed();
            let versions: Vec<u64> = syncs.iter().map(|sync| sync.version()).collect();
            let missing = match consistency {
                Consistency::Session(_) => self.unseen(consistency).and_then(|token| {
                    // What a hub has written itself is here, or was overwritten, once all is here that it had.
                    let is_here = |sync: &super::sync::Told| sync.hub() == Some(token.origin) && sync.reached(wanted);
                    (!syncs.iter().any(is_here)).then(|| format!("write {token} of its session"))
                }),
                _ => syncs.iter().find(|sync| !sync.reached(wanted)).map(|sync| format!("what hub {} has", sync.url())),
            };
            // What comes in several parts may show a key of an earlier one without what replaced it.
            let missing = missing.or_else(|| {
                let is_session = matches!(consistency, Consistency::Session(_));
                let partly = syncs.iter().find(|sync| is_session && sync.is_amid());
                partly.map(|sync| format!("the rest of what hub {} sends", sync.url()))
            });
            let Some(missing) = missing else { return Ok(()) };
            if timeout_ms == 0 {
                return Err(late(self.name(), &missing, timeout_ms));
            }
            let tasks = timer.get_or_insert_with(|| {
                syncs.iter().for_each(|sync| sync.ask(mark));
                let mut tasks = Tasks::new();
                tasks.push(Box::pin(async move {
                    sleep_ms(timeout_ms).await;
                    Wake::Timer
                }));
                tasks
            });
            tasks.push(Box::pin(async move {
                // Either way everything is looked at again.
                let _ = changed.await;
                Wake::Again
            }));
            for (sync, version) in syncs.iter().zip(versions) {
                tasks.push(sync.changed(version));
            }
            if tasks.next().await == Wake::Timer {
                return Err(late(self.name(), &missing, timeout_ms));
            }
            self.inner.shared.check_open()?;
        }
    }
}

#[cfg(hosted)]
fn late(name: &str, missing: &str, timeout_ms: u64) -> Error {
    let message = format!("collection {name:?} does not have {missing}, after {timeout_ms} ms");
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_tokens_are_read_as_they_are_written() {
        let token = SessionToken { origin: ReplicaId(0x1f), sequence: Sequence(u64::MAX) };
        assert_eq!(token.to_string(), "1f-ffffffffffffffff");
        let of = |level: &str, ms, tokens: &[&str]| {
            Consistency::of(level, ms, &tokens.iter().map(|&token| token.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of("session", None, &["1f-ffffffffffffffff"]).unwrap(), Consistency::Session(vec![token]));
        assert_eq!(of("bounded", None, &[]).unwrap(), Consistency::Bounded(5_000));
        assert_eq!(of("bounded", Some(7), &[]).unwrap(), Consistency::Bounded(7));
        assert_eq!(of("strong", None, &[]).unwrap(), Consistency::Strong);
        for (level, ms, tokens, what) in [
            ("weak", None, vec![], "expected strong, bounded, session or eventually"),
            ("strong", Some(1), vec![], "takes no time"),
            ("bounded", None, vec!["1-1"], "takes no session tokens"),
            ("session", None, vec!["1"], "is no session token"),
            ("session", None, vec!["1-1-1"], "is no session token"),
            ("session", None, vec!["+1-1"], "is no session token"),
        ] {
            let error = of(level, ms, &tokens).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }
}
