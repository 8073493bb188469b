//! The command `handshake`.

fn main() {}
