use crate::base::{Error, ErrorKind};

/// Tells when to ask a silent peer for a sign of life, and when to give it up. Browsers cannot send WebSocket pings, so the
/// protocol has its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeepAlive {
    heard_ms: u64,
    asked_ms: Option<u64>,
    ping_after_ms: Option<u64>,
    dead_after_ms: u64,
}

impl KeepAlive {
    /// Asks after `ping_after_ms` of silence (never with `None`), gives up after `dead_after_ms`.
    pub(super) const fn new(now_ms: u64, ping_after_ms: Option<u64>, dead_after_ms: u64) -> Self {
        Self { heard_ms: now_ms, asked_ms: None, ping_after_ms, dead_after_ms }
    }

    /// The peer said something.
    pub(super) const fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.asked_ms = None;
    }

    /// Whether to send a ping now; true once a silence.
    pub(super) fn ping_due(&mut self, now_ms: u64) -> bool {
        let due = self.asked_ms.is_none()
            && self.ping_after_ms.is_some_and(|after| now_ms.saturating_sub(self.heard_ms) >= after);
        if due {
            self.asked_ms = Some(now_ms);
        }
        due
    }

    /// The error with which a connection ends whose peer is silent for too long.
    pub(super) fn dead(&self, now_ms: u64) -> Option<Error> {
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        (silent_ms >= self.dead_after_ms).then(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the peer has been silent for {silent_ms} ms; given up after {} ms", self.dead_after_ms),
            )
        })
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        match (self.asked_ms, self.ping_after_ms) {
            (None, Some(after)) => self.heard_ms + after.min(self.dead_after_ms),
            _ => self.heard_ms + self.dead_after_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_then_gives_up_and_a_sign_of_life_starts_over() {
        let mut alive = KeepAlive::new(1_000, Some(20), 50);
        assert!(!alive.ping_due(1_019));
        assert_eq!(alive.deadline_ms(), 1_020);
        assert!(alive.ping_due(1_020));
        assert!(!alive.ping_due(1_021));
        assert_eq!(alive.deadline_ms(), 1_050);
        assert!(alive.dead(1_049).is_none());
        assert_eq!(alive.dead(1_050).unwrap().kind(), ErrorKind::Unavailable);
        alive.heard(1_050);
        assert!(alive.dead(1_099).is_none());
        assert_eq!(alive.deadline_ms(), 1_070);
    }
}
