//! The native roof: HTTP, WebSocket sync, and the command line. Holds no rules: whatever it can do, `db` can do.
