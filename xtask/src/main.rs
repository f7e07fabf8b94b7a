//! Runs the program and its checks.
fn main() {}
