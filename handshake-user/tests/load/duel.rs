//! `cargo xtask duel` in its short form: what handshake says of random conversations is what the kernel did.

use std::path::Path;

use anyhow::{Result, ensure};
use handshake_lab::duel::{Duel, play};
use handshake_lab::{skip_unless_privileged, skip_without_tool};

use crate::HANDSHAKE;

const CONVERSATIONS: u64 = 3000;

fn run(verify_checksums: bool) -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") || skip_without_tool("ethtool") {
        return Ok(());
    }
    let duel = Duel { seed: 12, conversations: CONVERSATIONS, only: None, shown: None, verify_checksums };
    let outcome = play(&duel, Path::new(HANDSHAKE), |_| ())?;
    ensure!(outcome.errors.is_empty() && outcome.apart == 0, "{outcome}");
    // Most conversations are honest, and some of the others have a difference.
    ensure!(outcome.compared == CONVERSATIONS && outcome.established > CONVERSATIONS / 2, "{outcome}");
    ensure!(outcome.live.total() > 0 && outcome.live.total() < CONVERSATIONS / 20, "{outcome}");
    Ok(())
}

#[test]
fn the_kernel_agrees() -> Result<()> {
    run(false)
}

#[test]
fn the_kernel_agrees_where_checksums_are_verified() -> Result<()> {
    run(true)
}
