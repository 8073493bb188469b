//! The command `handshake`.

mod attach;
mod doctor;
mod error;
mod source;

fn main() {}
