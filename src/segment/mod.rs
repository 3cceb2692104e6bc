//! The immutable unit of rows, and the growing one before it.
