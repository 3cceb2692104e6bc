//! Log frames and their replay: bytes only, no files.
