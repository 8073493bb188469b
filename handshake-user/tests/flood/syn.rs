//! A flood of SYNs from clients that do not exist: who is pushed out, and what becomes of the real ones.

use anyhow::{Result, ensure};
use handshake_lab::flood::Kind;
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
fn a_syn_flood_that_ends_behind_the_hook() -> Result<()> {
    play(Way::Dropped)
}

/// The table fills with attempts that were answered and wait for their ACK: the oldest of them give way, so that the real
/// ones have their records. Between its SYN and its SYN+ACK an attempt is worth less than those around it, and may give way.
#[test]
fn a_syn_flood_that_is_answered() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let flooded = Run { way: Way::Native, kind: Kind::Syn, answered: true }.play()?;
    ensure!(figure(&flooded.last, "untracked") == 0, "{}", flooded.last);
    every_syn_is_in_the_books(&flooded)?;
    evictions_are_counted_by_state(&flooded)?;
    real_handshakes_complete(&flooded, figure(&flooded.row, "evicted"))
}

fn play(way: Way) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let flooded = Run { way, kind: Kind::Syn, answered: false }.play()?;
    every_syn_is_in_the_books(&flooded)?;
    evictions_are_counted_by_state(&flooded)?;
    let of = |path| figure(&flooded.last, path);
    ensure!(of("tcp.evicted") > 0 && of("untracked") == 0, "{}", flooded.last);
    what_stays_open_is_pushed_out(&flooded)?;
    real_handshakes_complete(&flooded, 0)
}

/// The oldest go first: attempts from before the flood that nothing has answered. Their service's row tells.
fn what_stays_open_is_pushed_out(flooded: &Flooded) -> Result<()> {
    let row = &flooded.open;
    let of = |path| figure(row, path);
    ensure!(of("attempts") == u64::from(OPEN), "{row}");
    ensure!(of("evicted") > 0 && of("evicted") + of("opening") + of("half_open") == of("attempts"), "{row}");
    Ok(())
}

/// No two of the flood's SYNs are alike: each is an attempt, or got no record and is counted as that.
fn every_syn_is_in_the_books(flooded: &Flooded) -> Result<()> {
    let last = &flooded.last;
    let of = |path| figure(last, path);
    let known = of("tcp.attempts") + of("tcp.signs.syn_retransmits") + of("untracked");
    let syns = of("packets.syn");
    ensure!(known <= syns && syns <= known + of("contended"), "{syns} SYNs, {known} in the books of {last}");
    ensure!(flooded.ingress.flood.syn == flooded.ingress.flood.total(), "{:?}", flooded.ingress);
    ensure!(last["exact"] == (of("tcp.evicted") + of("untracked") + of("contended") == 0), "{last}");
    Ok(())
}

/// What went for room is counted by what it was, nothing better than the newcomers among it; and who came and did not go
/// is there.
fn evictions_are_counted_by_state(flooded: &Flooded) -> Result<()> {
    let last = &flooded.last;
    let of = |path: &str| figure(last, path);
    let gone = |kind: &str| of(&format!("table.evictions.{kind}"));
    ensure!(of("tcp.evicted") == gone("half_open"), "{last}");
    ensure!(gone("completed") + of("udp.evicted") == 0, "{last}");
    let kinds = ["expired", "closed", "midstream", "udp", "half_open", "completed"];
    let came = of("tcp.attempts") + of("tcp.midstream") + of("tcp.orphan_syn_ack") + of("udp.flows");
    let left = came - kinds.map(gone).iter().sum::<u64>();
    ensure!(of("table.used") == left, "{left} should be left in {last}");
    Ok(())
}

/// A handshake that its client's kernel did not have to begin again is completed, but for as many as may have been
/// pushed out; each of the others is, or was pushed out while it was open, and then its service's row says so.
fn real_handshakes_complete(flooded: &Flooded, pushed_out: u64) -> Result<()> {
    let Flooded { last, row, handshakes, .. } = flooded;
    let of = |path| figure(row, path);
    let made = (handshakes.len() + KEPT) as u64;
    let (attempts, completed, evicted) = (of("attempts"), of("completed"), of("evicted"));
    let lost = figure(last, "untracked") + figure(last, "contended");
    ensure!(attempts == completed + evicted, "neither completed nor evicted: {row}");
    ensure!(made - completed <= evicted + lost, "{made} made, and the books miss some: {row}");
    let prompt = KEPT + handshakes.iter().filter(|one| flooded.is_prompt(one)).count();
    ensure!(completed + lost + pushed_out >= prompt as u64, "{prompt} of {made} went without a hitch: {row}");
    let again: u64 = handshakes.iter().map(|one| u64::from(one.retransmissions)).sum();
    ensure!(attempts <= made + again, "{made} made with {again} SYNs sent again: {row}");
    Ok(())
}
