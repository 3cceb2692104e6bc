//! What to send and what was received: two pure calls a side.
