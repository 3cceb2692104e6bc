//! The command `eddy`.

fn main() {}
