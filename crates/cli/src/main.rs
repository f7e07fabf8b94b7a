//! The `img2seg` program.
fn main() {}
