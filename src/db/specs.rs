use std::sync::OnceLock;

use crate::engine::CollectionSpec;

/// What a collection is made of, and what it was made of before fields were added: those who look at an earlier one may go on.
pub(super) struct Specs {
    spec: CollectionSpec,
    next: OnceLock<Box<Specs>>,
}

impl Specs {
    pub(super) fn new(spec: CollectionSpec) -> Self {
        Self { spec, next: OnceLock::new() }
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }

    /// As it is now.
    pub(super) fn newest(&self) -> &CollectionSpec {
        &self.last().spec
    }

    /// Has `spec` count from now on. One at a time may do so.
    pub(super) fn push(&self, spec: CollectionSpec) {
        let next = Box::new(Self::new(spec));
        assert!(self.last().next.set(next).is_ok(), "a collection is altered by one caller at a time");
    }
}
