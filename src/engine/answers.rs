use serde::{Deserialize, Serialize};

use crate::base::{Lsn, Version};
use crate::model::Key;

/// So many answers are kept for clients that have not said that they have them.
const ANSWERS_MAX: usize = 1024;
/// Of so many clients it is known how far their answers were forgotten.
const FORGOTTEN_MAX: usize = 64;

/// Which write of which client: it stands in the log beside what was written, so that a client whose connection broke can ask again, of
/// this owner of the store or of the next, without anything being done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestId {
    /// A random number of the client's own.
    pub client: u64,
    /// Counts the client's writes.
    pub number: u64,
}

/// What a client is told of a write.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// To which request.
    pub request: RequestId,
    /// Rows inserted, replaced or deleted.
    pub count: u64,
    /// Their version.
    pub version: Version,
    /// Where it is in the log.
    pub lsn: Lsn,
    /// The keys of the rows, where the collection makes them.
    pub keys: Vec<Key>,
}

/// The answers that clients may still ask for: of every write that has a number and is in the log, until its client says that it has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answers {
    /// By position in the log.
    kept: Vec<Answer>,
    /// Up to these requests, answers were forgotten to make room.
    forgotten: Vec<RequestId>,
}

impl Answers {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.forgotten.is_empty()
    }

    /// The answer to a request that was done.
    pub fn find(&self, request: RequestId) -> Option<&Answer> {
        self.kept.iter().find(|answer| answer.request == request)
    }

    /// Whether a request that has no answer here may have been done all the same.
    pub fn has_forgotten(&self, request: RequestId) -> bool {
        self.forgotten.iter().any(|forgotten| forgotten.client == request.client && forgotten.number >= request.number)
    }

    /// Notes that a client has the answers to all requests before this one.
    pub fn settle(&mut self, before: RequestId) {
        let settled = |request: RequestId| request.client == before.client && request.number < before.number;
        self.kept.retain(|answer| !settled(answer.request));
        self.forgotten.retain(|forgotten| !settled(*forgotten));
    }

    /// Adds an answer; the oldest gives way when there are too many.
    pub fn add(&mut self, answer: Answer) {
        self.kept.push(answer);
        if self.kept.len() > ANSWERS_MAX {
            let RequestId { client, number } = self.kept.remove(0).request;
            let known = self.forgotten.iter_mut().find(|forgotten| forgotten.client == client);
            match known {
                Some(forgotten) => forgotten.number = forgotten.number.max(number),
                None => self.forgotten.push(RequestId { client, number }),
            }
            if self.forgotten.len() > FORGOTTEN_MAX {
                self.forgotten.remove(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(client: u64, number: u64) -> Answer {
        Answer { request: RequestId { client, number }, count: number, ..Answer::default() }
    }

    #[test]
    fn an_answer_is_kept_until_its_client_has_it() {
        let mut answers = Answers::default();
        for number in 1..=5 {
            answers.add(answer(7, number));
            answers.add(answer(8, number));
        }
        answers.settle(RequestId { client: 7, number: 4 });
        let found = |client, number| answers.find(RequestId { client, number }).map(|answer| answer.count);
        assert_eq!([found(7, 3), found(7, 4), found(8, 1), found(8, 6)], [None, Some(4), Some(1), None]);
        assert!(!answers.has_forgotten(RequestId { client: 7, number: 3 }));
    }

    /// A client must never be told that a write was not done because its answer had to make room.
    #[test]
    fn what_had_to_make_room_is_known_to_be_unknown() {
        let mut answers = Answers::default();
        for number in 1..=ANSWERS_MAX as u64 + 3 {
            answers.add(answer(7, number));
        }
        assert!(answers.find(RequestId { client: 7, number: 3 }).is_none());
        assert!(answers.has_forgotten(RequestId { client: 7, number: 3 }));
        assert!(!answers.has_forgotten(RequestId { client: 7, number: 4 }));
        assert!(!answers.has_forgotten(RequestId { client: 8, number: 1 }));
        answers.settle(RequestId { client: 7, number: 4 });
        assert!(!answers.has_forgotten(RequestId { client: 7, number: 3 }));
    }
}
