//! Floods of UDP and ACK packets, whose records are worth less than established flows: they evict none of
//! those.

use anyhow::{Result, ensure};
use handshake_lab::flood::FloodKind;
use handshake_lab::skip_unless_privileged;

use crate::books::figure;
use crate::run::{Flooded, KEPT, OPEN, Run, Way};

#[test]
fn a_udp_flood_evicts_no_established_flow() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for way in [Way::Native, Way::Dropped] {
        let flooded = Run { way, kind: FloodKind::Udp, answered: false }.play()?;
        established_flows_stay(&flooded)?;
        let of = |path| figure(&flooded.last, path);
        let known = of("udp.flows") + of("contended");
        let first = flooded.ingress.flood.udp + flooded.answered;
        ensure!(of("udp.flows") <= first && first <= known, "{first} flows in {}", flooded.last);
        ensure!(of("udp.evicted") > 0 && of("udp.evicted") == of("table.evictions.udp"), "{}", flooded.last);
    }
    Ok(())
}

#[test]
fn an_ack_flood_evicts_no_established_flow() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for way in [Way::Native, Way::Dropped] {
        let flooded = Run { way, kind: FloodKind::Ack, answered: false }.play()?;
        established_flows_stay(&flooded)?;
        let of = |path| figure(&flooded.last, path);
        ensure!(of("table.evictions.midstream") > 0 && of("udp.evicted") == 0, "{}", flooded.last);
    }
    Ok(())
}

/// Connections, answered flows and open attempts from before the flood stay, and handshakes during it are
/// tracked: the flood's records are worth less.
fn established_flows_stay(flooded: &Flooded) -> Result<()> {
    let last = &flooded.last;
    let of = |path| figure(last, path);
    ensure!(of("table.evictions.completed") + of("table.evictions.half_open") == 0, "{last}");
    ensure!(of("udp.answered") == flooded.answered, "{last}");
    let made = (flooded.handshakes.len() + KEPT) as u64;
    let lost = of("tcp.untracked") + of("contended");
    ensure!(of("tcp.completed") <= made && made <= of("tcp.completed") + lost, "{made} handshakes in {last}");
    let open = of("tcp.opening") + of("tcp.half_open.now");
    let attempts = of("tcp.completed") + open + of("tcp.untracked");
    ensure!(of("tcp.attempts") == attempts && open == u64::from(OPEN), "{last}");
    Ok(())
}
