//! Codes that stand for vectors: train, encode, score, and the byte layout of each.
