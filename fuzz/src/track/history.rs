//! The TCP segments of a stream so far: enough to tell that a completion was not proven, and that a proof was
//! not taken for a completion.

use std::collections::BTreeSet;

use handshake_common::abi::Counter;
use handshake_common::flow::{End, Family, FlowKey};
use handshake_common::record::Now;
use handshake_common::seq::SeqNum;
use handshake_common::wire::{Class, Packet, TCP, flag, quote};

use super::oracle::OracleWords;

/// The largest unscaled window: how far ahead an ACK, or data in a SYN, can be.
const WINDOW: u32 = 0xffff;

/// A TCP segment, or an ICMP error that quotes one, with its flow and sender.
struct SegmentSeen {
    key: FlowKey,
    from: End,
    packet: Packet,
}

/// All TCP segments of a stream so far, the latest last.
pub(super) struct StreamHistory {
    seen: Vec<SegmentSeen>,
    /// What came before this place may have no record any more.
    tracked_from: usize,
    latest_ns: u64,
    has_fallen: bool,
    one_sided: bool,
}

impl StreamHistory {
    pub(super) fn new(one_sided: bool) -> Self {
        Self { seen: Vec::new(), tracked_from: 0, latest_ns: 0, has_fallen: false, one_sided }
    }

    pub(super) fn add(&mut self, now: Now, packet: &Packet) {
        self.has_fallen |= now.ns < self.latest_ns;
        self.latest_ns = now.ns;
        if packet.protocol == TCP {
            let source = (&packet.source, packet.source_port);
            let destination = (&packet.destination, packet.destination_port);
            let family = if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
            let (key, from) = FlowKey::of(source, destination, family, false);
            self.seen.push(SegmentSeen { key, from, packet: *packet });
        }
    }

    /// The latest packet evicted a record, or got none.
    pub(super) fn lost_a_record(&mut self) {
        self.tracked_from = self.seen.len();
    }

    /// Fails unless the segments so far prove the completion that the latest packet caused: a SYN, its
    /// SYN+ACK (or a SYN the other way), and a segment that acknowledges it. The check is necessary, not
    /// sufficient: it ignores order and time.
    pub(super) fn proves(&self, words: &OracleWords) {
        let Some(latest) = self.seen.last() else { panic!("a completion without a segment") };
        let flow = |seen: &&SegmentSeen| seen.key == latest.key;
        let mut syns = self.seen.iter().filter(flow).filter(|seen| class(seen) == Class::Syn);
        let proven = syns.any(|syn| self.one_sided || self.is_answered(syn));
        let completed = words.at(Counter::Completed);
        assert!(proven, "completion {completed} without proof: {:?}", latest.packet);
    }

    /// Is the latest packet a SYN+ACK that acknowledges a SYN of the other end, with its data or without?
    pub(super) fn answers_a_syn(&self) -> bool {
        self.seen.last().is_some_and(|last| {
            let syns = self
                .seen
                .iter()
                .filter(|seen| seen.key == last.key && seen.from != last.from && class(seen) == Class::Syn);
            let answers =
                |syn: &SegmentSeen| SeqNum(last.packet.ack).is_within(SeqNum(syn.packet.seq).plus(1), WINDOW);
            class(last) == Class::SynAck && syns.into_iter().any(answers)
        })
    }

    /// The flow whose handshake the latest packet completes, where nothing disturbs it: the latest SYN of its
    /// sender, the latest SYN+ACK of the other end, which acknowledges it, and this segment, in this order.
    /// Between them are only repeats of the two, and segments without SYN and RST. Only one end ever opens,
    /// each end is seen at one hook point, and time never ran backwards.
    pub(super) fn completes(&self) -> Option<FlowKey> {
        let (last, before) = self.seen.get(self.tracked_from..)?.split_last()?;
        let Packet { flags, seq, ack, .. } = last.packet;
        if last.packet.quote != quote::NONE || flags & (flag::SYN | flag::RST | flag::ACK) != flag::ACK {
            return None;
        }
        let of = |own: bool| {
            self.seen.iter().filter(move |seen| seen.key == last.key && (seen.from == last.from) == own)
        };
        let points = |own| of(own).map(|seen| seen.packet.point).collect::<BTreeSet<u8>>().len();
        let is_opened_by_both = of(false).any(|seen| class(seen) == Class::Syn);
        if self.has_fallen || is_opened_by_both || points(true) > 1 || points(false) > 1 {
            return None;
        }
        let mut is_answered = false;
        for seen in before.iter().rev().filter(|seen| seen.key == last.key) {
            let is_own = seen.from == last.from;
            let disturbs =
                seen.packet.flags & (flag::SYN | flag::RST) != 0 || seen.packet.quote != quote::NONE;
            let after = seen.packet.seq.wrapping_add(1);
            if class(seen) == Class::SynAck && !is_own && seen.packet.ack == seq && after == ack {
                is_answered = true;
            } else if class(seen) == Class::Syn && is_own && after == seq {
                if is_answered {
                    return Some(last.key);
                }
            } else if disturbs {
                return None;
            }
        }
        None
    }

    fn is_answered(&self, syn: &SegmentSeen) -> bool {
        let own = || {
            let own = self.seen.iter().filter(|seen| seen.key == syn.key && seen.from == syn.from);
            own.filter(|seen| class(seen) == Class::Syn).map(|seen| &seen.packet)
        };
        // A record keeps the numbers of two SYNs, and how much data the latest had.
        let numbers = own().map(|packet| packet.seq).collect::<BTreeSet<u32>>().len();
        let data = if numbers > 1 || own().any(|packet| packet.payload != 0) { WINDOW } else { 0 };
        let expected = SeqNum(syn.packet.seq).plus(1);
        let fits = |seen: &SegmentSeen| SeqNum(seen.packet.ack).is_within(expected, data);
        let answers = |seen: &SegmentSeen| {
            class(seen) == Class::Syn || (class(seen) == Class::SynAck && (numbers > 2 || fits(seen)))
        };
        let of_responder = || {
            let seen = self.seen.iter().enumerate();
            seen.filter(|(_, seen)| seen.key == syn.key && seen.from != syn.from)
        };
        // Where the third segment must continue is known of one J, which the responder neither crosses nor
        // resets.
        let unclear = numbers > 1
            || of_responder()
                .any(|(_, seen)| class(seen) == Class::Syn || seen.packet.flags & flag::RST != 0);
        let mut found = of_responder().filter(|(_, seen)| answers(seen));
        found.any(|(at, answer)| {
            self.is_acknowledged(syn, &answer.packet, if unclear { usize::MAX } else { at })
        })
    }

    /// Does a segment of the SYN's sender acknowledge `answer`? From the place `follows_from` on it must
    /// continue where the answer says.
    fn is_acknowledged(&self, syn: &SegmentSeen, answer: &Packet, follows_from: usize) -> bool {
        let expected = SeqNum(answer.seq).plus(1);
        let next = SeqNum(answer.ack);
        self.seen.iter().enumerate().filter(|(_, seen)| seen.key == syn.key && seen.from == syn.from).any(
            |(at, seen)| {
                let Packet { flags, seq, ack, payload, .. } = seen.packet;
                let seq = SeqNum(seq);
                let end = seq.plus(payload).plus(u32::from(flags & flag::FIN != 0));
                let follows = seq == next || next.is_before(end) && !next.plus(WINDOW).is_before(seq);
                flags & (flag::ACK | flag::RST) == flag::ACK
                    && SeqNum(ack).is_within(expected, WINDOW)
                    && (at < follows_from || follows)
            },
        )
    }
}

fn class(seen: &SegmentSeen) -> Class {
    Class::ALL[usize::from(seen.packet.class)]
}
