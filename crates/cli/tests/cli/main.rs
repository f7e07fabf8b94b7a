//! The program as its users meet it: exit codes, files written, error texts.

mod commands;
mod durability;
mod errors;
mod hostile;
mod inference;
mod interruption;
mod lab;
mod manifest;
mod reproducibility;
mod running;
mod soak;
