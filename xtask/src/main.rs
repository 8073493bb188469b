//! What a person working on handshake runs: `cargo xtask VERB`.

fn main() {}
