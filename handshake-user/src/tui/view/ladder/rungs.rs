//! The rungs of a ladder: the seen segments in order, and the missing one.

use handshake_agent::model::flow::{known, ticks_ns};
use handshake_agent::model::snapshot::LostBetween;
use handshake_common::abi::{TcpRecord, UdpRecord, tag};
use handshake_common::record::{Record, State};
use handshake_common::verdict::{UdpVerdict, Verdict};

use crate::number::group;
use crate::report::text::ladder::{RungCertainty, RungDirection, icmp_error, next};
use crate::tui::scene::Scene;
use crate::tui::theme::Tone;
use handshake_agent::model::flow::{Flow, Standing};

/// One rung of a ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rung {
    /// Time after the first packet, ns; `None` if the record does not have it.
    pub(super) at_ns: Option<u64>,
    /// The direction of the arrow.
    pub(super) direction: RungDirection,
    /// Whether the segment was seen.
    pub(super) certainty: RungCertainty,
    /// The text on the arrow.
    pub(super) label: String,
    /// The tone if the segment was seen.
    pub(super) tone: Tone,
}

/// The rungs of an attempt or of a UDP flow.
pub(super) fn of(attempt: &Flow, scene: &Scene) -> Vec<Rung> {
    let standing = attempt.standing(&scene.moment());
    match (attempt.tcp(), attempt.udp()) {
        (Some(tcp), _) => {
            let mut rungs = opening(&attempt.record, tcp);
            if let Some(lost) = scene.view().lost_here(attempt) {
                rungs.iter_mut().for_each(|rung| cut_off(rung, &lost));
            }
            rungs.extend(end(attempt, scene, tcp, standing));
            rungs
        }
        (None, Some(udp)) => exchange(attempt, udp, standing, attempt.record.age_ns(scene.now())),
        (None, None) => Vec::new(),
    }
}

fn seen(direction: RungDirection, at_ns: Option<u64>, label: String) -> Rung {
    Rung { at_ns, direction, certainty: RungCertainty::Seen, label, tone: Tone::Plain }
}

/// Ends the rung of a segment in this host, if it is of the kind that was lost here.
fn cut_off(rung: &mut Rung, lost: &LostBetween) {
    let direction = match &lost.to {
        Some(_) => RungDirection::FromResponder,
        None => RungDirection::FromInitiator,
    };
    if rung.direction == direction {
        rung.certainty = RungCertainty::Lost;
    }
}

/// The rungs of the SYNs and SYN+ACKs that were seen.
fn opening(record: &Record, tcp: &TcpRecord) -> Vec<Rung> {
    let (j, k) = (tcp.isn_initiator, tcp.isn_responder);
    let mut rungs = Vec::new();
    if record.state.is_attempt() {
        // Its length gives way to what the SYN+ACK acknowledges.
        let data = match record.flags & tag::FAST_OPEN {
            0 => String::new(),
            _ if tcp.is_answered(record.flags) || record.state.is_completed() => " and data".to_owned(),
            _ => format!(" and {} bytes", tcp.syn_data),
        };
        rungs.push(seen(RungDirection::FromInitiator, Some(0), format!("SYN seq={j}{data}")));
    }
    let again = tcp.syn_retransmits(record.flags);
    if again != 0 {
        // While the attempt waits for a SYN+ACK, its latest segment is a SYN.
        let latest =
            (record.state == State::SynSent).then(|| known(tcp.latest_after).map(ticks_ns)).flatten();
        rungs.push(seen(RungDirection::FromInitiator, latest, format!("SYN again, {}", times(again))));
    }
    if record.flags & tag::SIMULTANEOUS != 0 {
        rungs.push(seen(RungDirection::FromResponder, None, format!("SYN seq={k}")));
    }
    if tcp.is_answered(record.flags) {
        let is_time = record.flags & tag::OTHER_K == 0;
        let at = known(tcp.syn_ack_after).filter(|_| is_time).map(ticks_ns);
        let keeps_acked = record.state == State::SynReceived && record.flags & tag::SIMULTANEOUS == 0;
        let has_data = record.flags & tag::FAST_OPEN != 0 && keeps_acked;
        let acked = next(j).wrapping_add(if has_data { tcp.syn_data.into() } else { 0 });
        rungs.push(seen(RungDirection::FromResponder, at, format!("SYN+ACK seq={k} ack={acked}")));
    } else if record.flags & tag::ONE_SIDED != 0 && record.state.is_completed() {
        let label = format!("SYN+ACK seq={k}, not seen here");
        rungs.push(Rung {
            certainty: RungCertainty::Inferred,
            ..seen(RungDirection::FromResponder, None, label)
        });
    }
    if record.flags & tag::SECOND_K != 0 {
        rungs.push(seen(
            RungDirection::FromResponder,
            None,
            format!("SYN+ACK seq={}, another one", tcp.other_ack),
        ));
    }
    if tcp.syn_ack_retransmits != 0 {
        let open = record.state == State::SynReceived;
        let latest = open.then(|| known(tcp.latest_after).map(ticks_ns)).flatten();
        rungs.push(seen(
            RungDirection::FromResponder,
            latest,
            format!("SYN+ACK again, {}", times(tcp.syn_ack_retransmits)),
        ));
    }
    rungs
}

/// The rung of the attempt's end, or of the segment that it waits for.
fn end(attempt: &Flow, scene: &Scene, tcp: &TcpRecord, standing: Standing) -> Option<Rung> {
    let Standing::Tcp(verdict) = standing else { return None };
    let (j, k) = (tcp.isn_initiator, tcp.isn_responder);
    let at = attempt.ended_ns().map(|at_ns| at_ns.saturating_sub(attempt.opened_ns()));
    let bad = |direction, label: String| Some(Rung { tone: Tone::Bad, ..seen(direction, at, label) });
    match verdict {
        Verdict::Completed => {
            let at = attempt.connect_ns().or(at);
            let label = format!("ACK seq={} ack={}", next(j), next(k));
            Some(Rung { tone: Tone::Good, ..seen(RungDirection::FromInitiator, at, label) })
        }
        Verdict::Refused => bad(RungDirection::FromResponder, format!("RST ack={}", next(j))),
        Verdict::Unreachable => bad(
            RungDirection::FromResponder,
            format!("{}, quotes seq={j}", icmp_error(attempt.unreachable_from())),
        ),
        Verdict::InitiatorAborted => bad(RungDirection::FromInitiator, format!("RST seq={}", next(j))),
        Verdict::ResponderAborted => bad(RungDirection::FromResponder, format!("RST seq={}", next(k))),
        Verdict::Superseded => {
            bad(RungDirection::FromInitiator, "SYN with another seq: a new attempt".to_owned())
        }
        Verdict::Opening => Some(missing(attempt, scene, at, RungCertainty::Awaited)),
        Verdict::HalfOpen | Verdict::HalfOpenExpired | Verdict::Evicted | Verdict::Untracked => {
            Some(missing(attempt, scene, at, RungCertainty::Missing))
        }
        Verdict::Midstream | Verdict::OrphanSynAck => None,
    }
}

/// The rung of a missing or awaited segment.
fn missing(attempt: &Flow, scene: &Scene, ended: Option<u64>, certainty: RungCertainty) -> Rung {
    let at = ended.unwrap_or_else(|| attempt.record.age_ns(scene.now()));
    let (direction, name) = if attempt.record.state == State::SynReceived {
        (RungDirection::FromInitiator, "ACK")
    } else {
        (RungDirection::FromResponder, "SYN+ACK")
    };
    let label =
        if certainty == RungCertainty::Awaited { format!("{name} is due") } else { format!("no {name}") };
    Rung { certainty, ..seen(direction, Some(at), label) }
}

/// The rungs of a UDP flow: the first packets with their times, and the totals by direction.
fn exchange(attempt: &Flow, udp: &UdpRecord, standing: Standing, age_ns: u64) -> Vec<Rung> {
    let total = |side: usize| {
        format!("{} packets, {} bytes", group(udp.packets[side].into()), group(udp.bytes[side]))
    };
    let mut rungs = vec![seen(RungDirection::FromInitiator, Some(0), "first packet".to_owned())];
    let Standing::Udp(verdict) = standing else { return rungs };
    match verdict {
        UdpVerdict::Answered => {
            let answer = seen(RungDirection::FromResponder, attempt.answer_ns(), "first answer".to_owned());
            rungs.push(Rung { tone: Tone::Good, ..answer });
        }
        UdpVerdict::Unanswered | UdpVerdict::Pending => {
            let certainty =
                if verdict == UdpVerdict::Pending { RungCertainty::Awaited } else { RungCertainty::Missing };
            let label = if certainty == RungCertainty::Awaited { "an answer may come" } else { "no answer" };
            rungs.push(Rung {
                certainty,
                ..seen(RungDirection::FromResponder, Some(age_ns), label.to_owned())
            });
        }
        UdpVerdict::Unreachable => {
            let error = seen(RungDirection::FromResponder, None, icmp_error(attempt.unreachable_from()));
            rungs.push(Rung { tone: Tone::Bad, ..error });
        }
        UdpVerdict::Multicast | UdpVerdict::Evicted | UdpVerdict::Untracked => {}
    }
    rungs.push(seen(RungDirection::FromInitiator, None, format!("{} so far", total(0))));
    if udp.packets[1] != 0 {
        rungs.push(seen(RungDirection::FromResponder, None, format!("{} so far", total(1))));
    }
    rungs
}

fn times(count: u8) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
