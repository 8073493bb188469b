//! The command `handshake`.

mod source;

fn main() {}
