//! The command `handshake`.

mod attach;
mod error;
mod source;

fn main() {}
