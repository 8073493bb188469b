//! SYN floods from nonexistent clients: which records are evicted, and what happens to real handshakes.

use anyhow::{Result, ensure};
use handshake_lab::flood::FloodKind;
use handshake_lab::skip_unless_privileged;

use crate::books::figure;
use crate::run::{Flooded, KEPT, OPEN, Run, Way};

#[test]
fn a_syn_flood_through_native_xdp() -> Result<()> {
    play(Way::Native)
}

#[test]
fn a_syn_flood_through_tcx() -> Result<()> {
    play(Way::Tcx)
}

#[test]
fn a_syn_flood_that_is_dropped_after_the_hook() -> Result<()> {
    play(Way::Dropped)
}

/// The table fills with answered attempts that wait for their ACK. The oldest of them are evicted, so that
/// real handshakes get records. Between its SYN and its SYN+ACK a real attempt is worth less than those
/// around it, and may be evicted too.
#[test]
fn a_syn_flood_that_is_answered() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let flooded = Run { way: Way::Native, kind: FloodKind::Syn, answered: true }.play()?;
    only_contended_syns_are_untracked(&flooded)?;
    every_syn_is_in_the_books(&flooded)?;
    evictions_are_counted_by_state(&flooded)?;
    real_handshakes_complete(&flooded, figure(&flooded.row, "evicted"))
}

fn play(way: Way) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let flooded = Run { way, kind: FloodKind::Syn, answered: false }.play()?;
    every_syn_is_in_the_books(&flooded)?;
    evictions_are_counted_by_state(&flooded)?;
    let of = |path| figure(&flooded.last, path);
    ensure!(of("tcp.evicted") > 0, "{}", flooded.last);
    only_contended_syns_are_untracked(&flooded)?;
    old_open_attempts_are_evicted(&flooded)?;
    real_handshakes_complete(&flooded, 0)
}

/// The table makes room for every new attempt. A SYN whose lock word another CPU held begins no record.
fn only_contended_syns_are_untracked(flooded: &Flooded) -> Result<()> {
    let of = |path| figure(&flooded.last, path);
    ensure!(of("tcp.untracked") <= of("contended"), "{}", flooded.last);
    Ok(())
}

/// The oldest attempts are evicted first: unanswered ones from before the flood, as their service's row
/// shows.
fn old_open_attempts_are_evicted(flooded: &Flooded) -> Result<()> {
    let row = &flooded.open;
    let of = |path| figure(row, path);
    ensure!(of("attempts") == u64::from(OPEN), "{row}");
    ensure!(of("evicted") > 0 && of("evicted") + of("opening") + of("half_open") == of("attempts"), "{row}");
    Ok(())
}

/// All SYNs of the flood differ: each is an attempt.
fn every_syn_is_in_the_books(flooded: &Flooded) -> Result<()> {
    let last = &flooded.last;
    let of = |path| figure(last, path);
    let known = of("tcp.attempts") + of("tcp.signs.syn_retransmits") + of("packets.copies");
    let syns = of("packets.syn");
    ensure!(known <= syns && syns <= known + of("contended"), "{syns} SYNs, {known} in the books of {last}");
    ensure!(flooded.ingress.flood.syn == flooded.ingress.flood.total(), "{:?}", flooded.ingress);
    ensure!(last["exact"] == (of("tcp.evicted") + of("tcp.untracked") + of("contended") == 0), "{last}");
    Ok(())
}

/// Evictions are counted by the state of the evicted record, and no record better than the new ones is
/// evicted. All others that were tracked are still in the table.
fn evictions_are_counted_by_state(flooded: &Flooded) -> Result<()> {
    let last = &flooded.last;
    let of = |path: &str| figure(last, path);
    let gone = |kind: &str| of(&format!("table.evictions.{kind}"));
    ensure!(of("tcp.evicted") == gone("half_open"), "{last}");
    ensure!(gone("completed") + of("udp.evicted") == 0, "{last}");
    let kinds = ["expired", "closed", "midstream", "udp", "half_open", "completed"];
    let came = of("tcp.attempts") + of("tcp.midstream") + of("tcp.orphan_syn_ack") + of("udp.flows");
    let untracked = of("tcp.untracked") + of("udp.untracked");
    let left = came - untracked - kinds.map(gone).iter().sum::<u64>();
    ensure!(of("table.used") == left, "{left} should be left in {last}");
    Ok(())
}

/// A handshake without a retransmission completes, except for as many as may have been evicted. Every other
/// handshake completes too, or was evicted while open and is counted in its service's row. A contended SYN is
/// untracked there.
fn real_handshakes_complete(flooded: &Flooded, may_be_evicted: u64) -> Result<()> {
    let Flooded { last, row, handshakes, .. } = flooded;
    let of = |path| figure(row, path);
    let made = (handshakes.len() + KEPT) as u64;
    let (completed, evicted) = (of("completed"), of("evicted"));
    let attempts = of("attempts") - of("untracked");
    let lost = figure(last, "tcp.untracked") + figure(last, "contended");
    ensure!(attempts == completed + evicted, "neither completed nor evicted: {row}");
    ensure!(made - completed <= evicted + lost, "{made} made, and the row lacks some: {row}");
    let prompt = KEPT + handshakes.iter().filter(|one| flooded.is_prompt(one)).count();
    ensure!(
        completed + lost + may_be_evicted >= prompt as u64,
        "{prompt} of {made} had no retransmission: {row}"
    );
    let again: u64 = handshakes.iter().map(|one| u64::from(one.retransmissions)).sum();
    ensure!(attempts <= made + again, "{made} made with {again} SYNs retransmitted: {row}");
    Ok(())
}
