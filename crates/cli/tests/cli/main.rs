//! The program as its users meet it: exit codes, files written, error texts.

mod commands;
mod errors;
mod hostile;
mod interruption;
mod lab;
