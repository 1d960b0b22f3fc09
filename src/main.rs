//! The `keyferry` program.

fn main() {}
