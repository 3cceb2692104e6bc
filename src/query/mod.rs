//! Filter expressions: parse, check against a schema, evaluate over Arrow columns.
